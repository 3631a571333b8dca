"""Changing K: the slots of a resized model folder."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from instructsam.core import InstructSAM
from instructsam.train.weights.heads import HEADS
from instructsam.train.weights.resize_bank import resize_bank

FOLDER = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[2] / 'data' / 'reference')) / 'checkpoint'
DECODER = 'model.grounding_model.model.detr_decoder.'
ROWS = ('model.mask_queries', f'{DECODER}query_embed.weight', f'{DECODER}reference_points.weight')


@pytest.fixture(scope='module')
def source():
    return load_file(FOLDER / 'model.safetensors')


@pytest.mark.parametrize('count', [4, 25])
def test_rows(source, tmp_path, count):
    resize_bank(FOLDER, tmp_path, count, seed=3)
    resized = load_file(tmp_path / 'model.safetensors')
    assert resized.keys() == source.keys()
    for name, tensor in source.items():
        if name not in ROWS:
            assert torch.equal(resized[name], tensor), name
            continue
        slots = len(tensor)
        kept = min(count, slots)
        assert resized[name].shape == (count, tensor.shape[1])
        assert torch.equal(resized[name][:kept], tensor[:kept])
        copies = resized[name] - tensor[torch.arange(count) % slots]
        if count > slots:
            assert 0.05 < copies[slots:].std() / tensor.std() < 0.2
            assert copies[slots:].abs().min() > 0


def test_auxiliary_heads_are_kept(tmp_path):
    source, out = tmp_path / 'source', tmp_path / 'out'
    shutil.copytree(FOLDER, source)
    (source / HEADS).write_bytes(b'heads')
    resize_bank(source, out, 4)
    assert (out / HEADS).read_bytes() == b'heads'


def test_a_seed_decides(tmp_path):
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        resize_bank(FOLDER, tmp_path / name, 12, seed)
    a, b, c = (load_file(tmp_path / name / 'model.safetensors')[ROWS[0]] for name in 'abc')
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_results_of_a_resized_model(tmp_path):
    """Slots attend to each other, so that only their number is certain; with the same number, results are equal."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    found = {}
    for count in (4, 10, 15):
        resize_bank(FOLDER, tmp_path / str(count), count)
        found[count] = _found(tmp_path / str(count), image)
        assert {slot for _, slot in found[count]} <= set(range(count))
        assert found[count]
    assert found[10] == _found(FOLDER, image)
    assert max(slot for _, slot in found[15]) >= 10


def _found(folder, image):
    engine = InstructSAM.from_pretrained(folder, device='cpu', dtype='float32')
    result = engine.segment(
        engine.encode(image), 'x', answer=engine.answer_for(['cup']), score_threshold=0, suppress_duplicates=False
    )
    return [(instance.score, instance.slot) for instance in result.instances]

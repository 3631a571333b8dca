"""Phrase segmenters: SAM3 on transformers with random weights, and concept prompting."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, Sam3Config, Sam3Model

from instructsam.core.errors import ImageError, InstructionError, ModelError
from instructsam.train.engines.agent import backends
from instructsam.train.engines.agent.backends import ConceptBackend, Sam3Backend
from instructsam.train.engines.concept import ConceptEngine

WORDS = ('<pad>', '<unk>', '<end>', 'red', 'mug', 'spoon')


@pytest.fixture(scope='module')
def sam3_folder(checkpoint, tmp_path_factory):
    """A folder in the form of SAM3's, with a tiny random model; its text encoder comes with a tokenizer of words."""
    folder = tmp_path_factory.mktemp('sam3')
    raw = json.loads((checkpoint / 'sam3/config.json').read_text())['detector_config']
    raw['text_config'] |= {'eos_token_id': WORDS.index('<end>'), 'bos_token_id': 0, 'pad_token_id': 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Sam3Model(Sam3Config(**raw)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token='<unk>'))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='<pad>', unk_token='<unk>', eos_token='<end>'
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def sam3(sam3_folder):
    # Random weights have a presence of about a half, so that scores are about a quarter.
    return Sam3Backend.from_folder(sam3_folder, device='cpu', dtype='float32', threshold=0.0)


def test_masks_of_a_phrase(sam3, image):
    encoded = sam3.encode(image)
    red, spoon = sam3.segment(encoded, 'red mug'), sam3.segment(encoded, 'spoon')
    assert 0 < len(red) <= 200
    assert {(mark.mask.height, mark.mask.width) for mark in red} == {image.shape[:2]}
    assert all(0 < mark.score < 1 for mark in red)
    assert [mark.score for mark in red] != [mark.score for mark in spoon]


def test_scores_and_masks_are_those_of_transformers(sam3, image):
    """One pass of the whole model, with its own postprocessing, gives the same masks."""
    found = sam3.segment(sam3.encode(image), 'red mug')
    text = sam3.tokenizer('red mug', return_tensors='pt', padding='max_length', max_length=32)
    chw = backends.to_chw(image)
    with torch.no_grad():
        output = sam3.model(
            pixel_values=backends.sam_pixels(chw, sam3.image_size, 'cpu', torch.float32),
            input_ids=text.input_ids,
            attention_mask=text.attention_mask,
        )
    scores = (output.pred_logits.sigmoid() * output.presence_logits.sigmoid())[0]
    assert torch.allclose(torch.tensor([mark.score for mark in found]), scores, atol=1e-6)
    resized = torch.nn.functional.interpolate(output.pred_masks, image.shape[:2], mode='bilinear')[0] > 0
    for mark, mask in zip(found, resized, strict=True):
        assert (mark.mask.decode() != mask.numpy()).mean() < 1e-3


def test_an_image_is_encoded_and_a_phrase_segmented_once(sam3, image, monkeypatch):
    calls = []
    forward = Sam3Model.forward
    monkeypatch.setattr(Sam3Model, 'forward', lambda self, **kw: calls.append(sorted(kw)) or forward(self, **kw))
    encoded = sam3.encode(image)
    assert sam3.segment(encoded, 'mug') is sam3.segment(encoded, 'mug')
    sam3.segment(encoded, 'spoon')
    assert calls == [['attention_mask', 'input_ids', 'vision_embeds']] * 2


def test_input_that_cannot_be_used(sam3, image):
    with pytest.raises(InstructionError, match='more than 32 tokens'):
        sam3.segment(sam3.encode(image), 'mug ' * 40)
    with pytest.raises(ImageError):
        sam3.encode(image[..., 0])


def test_a_threshold(sam3_folder, image):
    strict = Sam3Backend.from_folder(sam3_folder, device='cpu', dtype='float32', threshold=0.99)
    assert strict.segment(strict.encode(image), 'mug') == ()


def test_a_folder_without_all_tensors_is_refused(sam3_folder, checkpoint, tmp_path):
    """InstructSAM's checkpoint has no presence token; transformers would invent one."""
    from safetensors.torch import load_file, save_file

    for file in sam3_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / 'model.safetensors')
    gone = {name for name in tensors if 'presence' in name}
    assert gone
    kept = {name: tensor for name, tensor in tensors.items() if name not in gone}
    save_file(kept, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(ModelError, match=rf'is not SAM3: {len(gone)} tensors are missing'):
        Sam3Backend.from_folder(tmp_path)
    with pytest.raises(ModelError):
        Sam3Backend.from_folder(checkpoint)
    with pytest.raises(ModelError, match=r'has no config\.json'):
        Sam3Backend.from_folder(tmp_path / 'nothing')


def test_numbers_that_are_not_finite(sam3_folder, image):
    broken = Sam3Backend.from_folder(sam3_folder, device='cpu', dtype='float32')
    with torch.no_grad():
        broken.model.text_projection.weight[0, 0] = float('nan')
    with pytest.raises(ModelError, match='the scores of SAM3'):
        broken.segment(broken.encode(image), 'mug')


def test_concept_prompting(engine, image):
    concepts = ConceptEngine.from_engine(engine)
    backend = ConceptBackend(concepts, threshold=0.0)
    encoded = backend.encode(image)
    found = backend.segment(encoded, 'red mug')
    direct = concepts.segment(
        concepts.encode(image),
        'x',
        answer=concepts.answer_for(['red mug']),
        score_threshold=0.0,
        suppress_duplicates=False,
    )
    assert [mark.score for mark in found] == [instance.score for instance in direct.instances]
    assert np.all([mark.mask.iou([instance.mask]) for mark, instance in zip(found, direct.instances, strict=True)])
    assert backend.segment(encoded, 'red mug') is found

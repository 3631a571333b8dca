"""Results on a GPU agree with those on the CPU. Skipped if torch sees no CUDA device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from instructsam.core import InstructSAM
from instructsam.core.rle import Rle
from instructsam.train.data.batch import move_to_device
from instructsam.train.data.collate import Collator
from instructsam.train.data.record_fields import Target
from instructsam.train.data.sample import Sample, Turn
from instructsam.train.losses.objective import Objective
from instructsam.train.stages.instruct import InstructTraining

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device')

ALL = {'score_threshold': 0, 'suppress_duplicates': False}
TWO = '<|object_ref_start|>red cup<|object_ref_end|>, <|object_ref_start|>the box<|object_ref_end|><|im_end|>'


def by_slot(result):
    return {(instance.group, instance.slot): instance for instance in result.instances}


@pytest.mark.parametrize('compiled', ['off', 'graphs'])
@pytest.mark.parametrize('mode', ['consistent', 'reference'])
def test_float32_on_cuda_is_float32_on_the_cpu(load_engine, checkpoint, image, mode, compiled):
    """With the tiny checkpoint, for every slot: scores within 1e-3, masks with an IoU above 0.98."""
    on_cpu = load_engine(mode)
    on_gpu = InstructSAM.from_pretrained(checkpoint, device='cuda', dtype='float32', mode=mode, compile=compiled)
    known, found = (by_slot(one.segment(one.encode(image), 'red cup', answer=TWO, **ALL)) for one in (on_cpu, on_gpu))
    assert known.keys() == found.keys()
    for slot, instance in known.items():
        assert found[slot].score == pytest.approx(instance.score, abs=1e-3)
        assert found[slot].mask.iou([instance.mask])[0] > 0.98


def test_graphs_decode_the_same_answer(image):
    """The built-in model in float32, for two instructions on each of two images in turn."""
    plain, graphs = (
        InstructSAM.from_pretrained('tabletop', device='cuda', dtype='float32', compile=how)
        for how in ('off', 'graphs')
    )
    encoded = [[engine.encode(each) for each in (image, image[::-1])] for engine in (plain, graphs)]
    for number in (0, 1, 0):
        for instruction in ('the red mug', 'all bowls'):
            results = [
                engine.segment(images[number], instruction, **ALL)
                for engine, images in zip((plain, graphs), encoded, strict=True)
            ]
            assert results[0].answer == results[1].answer
            assert by_slot(results[0]).keys() == by_slot(results[1]).keys()


def test_the_default_on_cuda_is_bfloat16_and_answers_alike(image):
    """With the built-in model and a forced phrase: the same slots, scores within 0.1."""
    on_cpu = InstructSAM.from_pretrained('tabletop', device='cpu')
    on_gpu = InstructSAM.from_pretrained('tabletop')
    assert on_gpu.device.type == 'cuda'
    assert on_gpu.model.dtype == (torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16)
    said = on_cpu.answer_for(['red mug'])
    known, found = (by_slot(one.segment(one.encode(image), 'red mug', answer=said, **ALL)) for one in (on_cpu, on_gpu))
    assert known.keys() == found.keys()
    np.testing.assert_allclose(
        [found[slot].score for slot in known], [instance.score for instance in known.values()], atol=0.1
    )


@pytest.mark.parametrize('deep_supervision', [False, True])
def test_a_training_step_on_cuda_is_that_on_the_cpu(checkpoint, image, deep_supervision):
    """Loss terms agree within 1e-3, the gradients of all parameters together within 1 % of their norm."""
    mask = np.zeros(image.shape[:2], bool)
    mask[30:70, 40:90] = True
    turn = Turn('where is the cup?', ('red cup',), (Target(masks=(Rle.encode(mask),)),))
    sample = Sample(Path('none'), *mask.shape, (turn,), torch.from_numpy(image).permute(2, 0, 1))
    measured = []
    for device in ('cpu', 'cuda'):
        model = InstructSAM.from_pretrained(checkpoint, device=device, dtype='float32').model.requires_grad_(True)
        training = InstructTraining(model, Objective(), phrases_per_call=5, deep_supervision=deep_supervision).to(
            device
        )
        batch = move_to_device(Collator.from_folder(checkpoint, model.config)([sample]), torch.device(device))
        terms = {name: value for name, (value, _) in training(batch).items()}
        sum(terms.values()).backward()
        gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
        measured.append(({name: value.item() for name, value in terms.items()}, torch.cat(gradients)))
    (known, gradient), (found, found_gradient) = measured
    assert found == pytest.approx(known, rel=1e-3)
    assert (found_gradient - gradient).norm() < 0.01 * gradient.norm()

"""Forms, samples, and the engine as a source."""

import threading

import numpy as np
import pytest
from PIL import Image
from web_engine import PageEngine

from instructsam.core import DEFAULT_MODEL, InstructSAM
from instructsam.core.errors import CancelledError, ImageError, InstructionError, InstructSAMError
from instructsam.core.web.form import Form, read_form
from instructsam.core.web.model_source import MOST_ENCODED, ModelSource
from instructsam.core.web.samples import samples
from instructsam.core.web.source import Question

IMAGE = np.full((60, 80, 3), 128, np.uint8)


def never():
    return False


def test_a_form(tmp_path):
    path = tmp_path / 'a.png'
    Image.fromarray(IMAGE).save(path)
    question = read_form(Form('the mug', str(path), threshold=0.3), 64)
    assert (question.instruction, question.threshold, question.depth) == ('the mug', 0.3, None)
    np.testing.assert_array_equal(question.image, IMAGE)
    assert read_form(Form('the mug', str(path), is_live=True), 64).image is None


def test_a_form_with_depth(tmp_path):
    path, depth = tmp_path / 'a.png', tmp_path / 'depth.png'
    Image.fromarray(IMAGE).save(path)
    Image.fromarray(np.full((60, 80), 400, np.uint16)).save(depth)
    question = read_form(Form('the mug', str(path), depth=str(depth), camera=(90, 90, 39.5, 29.5)), 64)
    assert question.depth.dtype == np.uint16
    assert question.camera.intrinsics[0, 2] == 39.5
    with pytest.raises(InstructSAMError, match='fx, fy, cx and cy'):
        read_form(Form('the mug', str(path), depth=str(depth), camera=(90, None, 39.5, 29.5)), 64)
    Image.fromarray(np.full((30, 80), 400, np.uint16)).save(depth)
    with pytest.raises(InstructSAMError, match='align depth to colour'):
        read_form(Form('the mug', str(path), depth=str(depth), camera=(90, 90, 39.5, 29.5)), 64)


def test_forms_that_cannot_be_used(tmp_path):
    with pytest.raises(InstructSAMError, match='no instruction yet'):
        read_form(Form(' ', None), 64)
    with pytest.raises(ImageError, match='no image yet'):
        read_form(Form('the mug', None), 64)
    path = tmp_path / 'notes.png'
    path.write_text('not an image')
    with pytest.raises(ImageError, match=r'^cannot read notes\.png: '):  # without the folder of uploads
        read_form(Form('the mug', str(path)), 64)
    Image.fromarray(np.zeros((1100, 1000, 3), np.uint8)).save(path)
    with pytest.raises(ImageError, match='megapixels'):
        read_form(Form('the mug', str(path)), 1)


def test_an_image_is_encoded_once():
    engine = PageEngine()
    source = ModelSource(engine)
    first = source.answer(Question('the mug', IMAGE), never)
    again = source.answer(Question('the mug', IMAGE.copy()), never)
    assert engine.encoded == 1
    assert first.result.timings_ms['image_encoders'] == 10.0
    assert again.result.timings_ms['image_encoders'] == 0.0
    assert again.result.timings_ms['prefill'] == 1.0
    assert 'earlier question' in again.note
    for value in range(MOST_ENCODED):
        source.answer(Question('the mug', np.full_like(IMAGE, value)), never)
    source.answer(Question('the mug', IMAGE), never)
    assert engine.encoded == 2 + MOST_ENCODED
    assert source.newest_image() is None
    source.close()


def test_an_instruction_is_checked_before_the_image_is_encoded():
    engine = PageEngine()
    with pytest.raises(InstructionError):
        ModelSource(engine).answer(Question('a\x07b', IMAGE), never)
    assert engine.encoded == 0


def test_one_question_at_a_time_and_those_that_wait_can_be_cancelled():
    engine, is_cancelled = PageEngine(), threading.Event()
    source = ModelSource(engine)
    first = threading.Thread(target=source.answer, args=(Question('wait', IMAGE), never))
    first.start()
    assert engine.begun.wait(10)
    is_cancelled.set()
    with pytest.raises(CancelledError):
        source.answer(Question('the mug', IMAGE), is_cancelled.is_set)
    engine.go_on.set()
    first.join(10)
    assert source.answer(Question('the mug', IMAGE), never).result.status == 'ok'
    assert engine.most_at_once == 1


def test_the_built_in_model_answers_the_samples():
    """Visitors click on them first."""
    source = ModelSource(InstructSAM.from_pretrained(DEFAULT_MODEL, device='cpu'))
    found = samples()
    assert found[0].depth is not None
    for sample in found:
        camera = sample.camera or (None,) * 4
        depth = sample.depth and str(sample.depth)
        question = read_form(Form(sample.instruction, str(sample.image), depth=depth, camera=camera), 64)
        answer = source.answer(question, never)
        assert answer.result.instances, sample.instruction
        assert (answer.scene is None) == (sample.depth is None)

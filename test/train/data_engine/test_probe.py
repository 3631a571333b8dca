"""The probe of the coordinate convention against replies in every convention, shifted ones and none."""

import asyncio
import itertools

import numpy as np
import pytest
from scripted_vlm import ScriptedVlm, asked_questions

from instructsam.train.data_engine.coordinates import CONVENTIONS
from instructsam.train.data_engine.objects import ObjectSettings
from instructsam.train.data_engine.probe import ProbeError, probe_convention, probe_scenes


def vlm(speaks, *, change=lambda box, size: box, share=1.0):
    """Return a VLM that knows the scenes and speaks a convention, under the field that it is asked for."""
    known = {
        phrase + str(scene.image.shape): (scene, box) for scene in probe_scenes() for phrase, box in scene.boxes.items()
    }

    def answer(messages):
        picture, request = messages[1].parts[0].image, messages[1].parts[1].text
        field = next(each.key for each in CONVENTIONS.values() if f'The box is {each.key}:' in request)
        objects, answers = [], []
        questions = asked_questions(messages)
        for number, question in enumerate(questions[: round(share * len(questions))]):
            scene, box = known[question['answer'] + str(shape_of(picture))]
            size = scene.image.shape[:2]
            values = CONVENTIONS[speaks].to_values(change(box, size), picture.shape[:2], size)
            objects.append({'object_id': f'thing {number}', 'phrase': 'x', field: values})
            answers.append({'question_id': question['question_id'], 'object_ids': [f'thing {number}']})
        return {'objects': objects, 'answers': answers}

    return ScriptedVlm(answer)


def shape_of(picture):
    """Return the shape of the scene that a picture was reduced from."""
    ratio = picture.shape[1] / picture.shape[0]
    return min((scene.image.shape for scene in probe_scenes()), key=lambda shape: abs(shape[1] / shape[0] - ratio))


def probe(client, convention, max_side=1536):
    return asyncio.run(probe_convention(client, ObjectSettings(convention, max_side=max_side)))


@pytest.mark.parametrize(('speaks', 'max_side'), [*itertools.product(CONVENTIONS, (1536, 640))])
def test_the_right_convention_passes(speaks, max_side):
    assert probe(vlm(speaks), speaks, max_side) > 0.99


@pytest.mark.parametrize(('speaks', 'configured'), [*itertools.permutations(CONVENTIONS, 2)])
def test_another_convention_stops_with_the_one_that_fits(speaks, configured):
    if {speaks, configured} == {'pixels', 'qwen2.5-vl'}:
        return  # They differ by the rounding of the sides alone.
    with pytest.raises(
        ProbeError, match=rf'not have the convention {configured!r}.*set objects.convention to {speaks}$'
    ):
        probe(vlm(speaks), configured, 1000)


def test_pixels_of_the_resized_picture_are_no_pixels_of_the_sent_one():
    """The wide scene differs most; the mean stays within what imprecise boxes give."""
    assert 0.9 < probe(vlm('qwen2.5-vl'), 'pixels') < 1


def test_a_server_that_shifts_boxes_is_named():
    def shift(box, size):
        return tuple(np.add(box, [0.06 * size[1], 0.1 * size[0]] * 2))

    with pytest.raises(ProbeError, match=r'shifted by \+6% in x and scaled by 1.00 and shifted by \+10% in y'):
        probe(vlm('qwen3-vl', change=shift), 'qwen3-vl')


def test_a_server_that_scales_boxes_is_named():
    def scale(box, size):
        return tuple(np.multiply(box, [1, 0.75, 1, 0.75]))

    with pytest.raises(ProbeError, match=r'scaled by 0.75 and shifted by [+-]0% in y'):
        probe(vlm('qwen3-vl', change=scale), 'qwen3-vl')


def test_boxes_at_random_fit_nothing():
    rng = np.random.default_rng(0)

    def anywhere(box, size):
        x0, y0 = rng.uniform(0, 0.8, 2) * size[::-1]
        return (x0, y0, x0 + 50, y0 + 50)

    with pytest.raises(ProbeError, match='fit no known convention'):
        probe(vlm('gemini', change=anywhere), 'gemini')


def test_imprecise_boxes_pass():
    rng = np.random.default_rng(0)
    assert probe(vlm('gemini', change=lambda box, size: tuple(np.add(box, rng.normal(0, 8, 4)))), 'gemini') > 0.6


def test_a_vlm_that_finds_too_little_is_named():
    with pytest.raises(ProbeError, match='found 3 of the 9 plain shapes'):
        probe(vlm('gemini', share=0.34), 'gemini')


def test_a_vlm_that_does_not_answer_is_named():
    with pytest.raises(ProbeError, match='does not answer the probe'):
        probe(ScriptedVlm(lambda messages: 'I see shapes.'), 'gemini')

"""The simulated annotator is exact without noise, makes the mistakes that it is told to, and repeats itself."""

import asyncio
import json
import urllib.request
from dataclasses import replace

import cv2
import numpy as np
import pytest

from instructsam.core.errors import DataError, InstructSAMError
from instructsam.train.data_engine.asking import Costs
from instructsam.train.data_engine.filtering import FilterAnswers, FilterSettings
from instructsam.train.data_engine.objects import ObjectSettings
from instructsam.train.data_engine.probe import probe_convention
from instructsam.train.data_engine.simulated.annotator import CheckErrors, Request, SimulatedAnnotator, read_marks
from instructsam.train.data_engine.simulated.masks import spoiled
from instructsam.train.data_engine.simulated.noise import FAULTS, MASK_FAULTS, Noise, annotate
from instructsam.train.data_engine.simulated.rows import segmented_row
from instructsam.train.data_engine.simulated.server import MODEL, serving
from instructsam.train.data_engine.simulated.world import Gallery
from instructsam.train.data_engine.verify import exhaustivity, round_trip
from instructsam.train.vlm.client import VlmClient
from instructsam.train.vlm.marks import draw_marks
from instructsam.train.vlm.settings import VlmSettings

NEVER = CheckErrors(0.0, 0.0)


def as_jpeg(image):
    _, jpeg = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])


def over_http(annotator, work):
    """Return the result of `work(client)` with a client of the served annotator."""

    async def run(url):
        client = VlmClient(VlmSettings(url, MODEL, retries=0))
        try:
            return await work(client)
        finally:
            await client.aclose()

    with serving(annotator) as url:
        return asyncio.run(run(url))


def test_without_noise_everything_is_exact(drawn_scene):
    exact = annotate(drawn_scene, Noise())
    assert [each.text for each in exact.questions] == [each.text for each in drawn_scene.questions]
    assert exact.answers == (('o0',), ('o0', 'o1', 'o2'), ('o0', 'o3'), ())
    assert [(each.quantifier, each.count, each.present) for each in exact.questions] == [
        ('one', 1, True),
        ('all', 3, True),
        ('count', 2, True),
        ('one', 0, False),
    ]
    assert {each.object_id: each.box for each in exact.objects} == {f'o{i}': drawn_scene.box(i) for i in range(5)}


@pytest.mark.parametrize('fault', FAULTS)
def test_every_kind_of_noise_occurs_and_changes_the_annotation(drawn_scene, fault):
    noisy, exact = annotate(drawn_scene, Noise({fault: 1.0})), annotate(drawn_scene, Noise())
    struck = [index for index, found in enumerate(noisy.faults) if found]
    assert struck
    assert {noisy.faults[index] for index in struck} == {fault}
    if fault in MASK_FAULTS:
        assert set(noisy.mask_faults.values()) == {fault}
    else:
        assert (noisy.questions, noisy.objects, noisy.answers) != (exact.questions, exact.objects, exact.answers)


def test_rates_are_kept(drawn_scene):
    scenes = [replace(drawn_scene, name=f'drawn_{index}') for index in range(200)]
    faults = [fault for scene in scenes for fault in annotate(scene, Noise.uniform(0.3)).faults]
    assert np.mean([fault != '' for fault in faults]) == pytest.approx(0.3, abs=0.04)
    assert set(faults) == {'', *FAULTS}


def test_draws_depend_on_seed_scene_and_question_only(drawn_scene):
    noise = Noise.uniform(0.5)
    assert annotate(drawn_scene, noise) == annotate(drawn_scene, noise)
    fewer = replace(drawn_scene, questions=drawn_scene.questions[1:])
    assert annotate(fewer, noise).faults == annotate(drawn_scene, noise).faults[1:]
    seeds = {annotate(drawn_scene, replace(noise, seed=seed)).faults for seed in range(8)}
    assert len(seeds) > 1


@pytest.mark.parametrize(
    'wrong', [{'rates': {'typo': 0.1}}, {'rates': {'missed': 0.7, 'extra': 0.7}}, {'rates': {'extra': -1}}]
)
def test_rates_are_checked(wrong):
    with pytest.raises(InstructSAMError):
        Noise(**wrong)


def test_pictures_are_recognised_after_jpeg_resize_and_marks(drawn_scene):
    gallery = Gallery([drawn_scene])
    marked = as_jpeg(draw_marks(drawn_scene.image, list(drawn_scene.masks.values())))
    for picture in (as_jpeg(drawn_scene.image), cv2.resize(drawn_scene.image, (320, 240)), marked):
        assert gallery.recognise(picture) is drawn_scene
    with pytest.raises(DataError, match='none of the'):
        gallery.recognise(np.zeros((120, 160, 3), np.uint8))


def test_marks_are_read_from_the_picture(drawn_scene):
    masks = [drawn_scene.masks[i] for i in (4, 0, 2)]
    assert read_marks(as_jpeg(draw_marks(drawn_scene.image, masks)), drawn_scene, 3) == {4: 1, 0: 2, 2: 3}
    assert read_marks(as_jpeg(drawn_scene.image), drawn_scene, 3) == {}


@pytest.mark.parametrize('convention', ['gemini', 'qwen2.5-vl'])
def test_all_stages_over_http_give_the_truth(drawn_scene, convention):
    annotator = SimulatedAnnotator(Gallery([drawn_scene]), errors=NEVER, convention=convention)

    async def work(client):
        assert await probe_convention(client, ObjectSettings(convention)) > 0.95
        row = await segmented_row(drawn_scene, client, annotator)
        return await FilterAnswers(FilterSettings(), client, MODEL, None, lambda image: drawn_scene.image)(row)

    row = over_http(annotator, work)
    assert row.rejections == ()
    for question, known in zip(row.questions, drawn_scene.questions, strict=True):
        assert (question.text, question.answer) == (known.text, known.answer)
        found = [each.mask.rle for each in row.objects_of(question)]
        assert [max(drawn_scene.masks, key=lambda i, m=m: drawn_scene.masks[i].iou([m])[0]) for m in found] == [
            *known.targets
        ]
    assert [each.round_trip_ids for each in row.evidence] == [each.object_ids for each in row.questions]
    assert [each.is_exhaustive for each in row.evidence] == [True, True, True, None]
    assert (row.stages[-1].stage, row.stages[-1].model, row.stages[-1].calls) == ('filter', MODEL, 7)


def test_a_checker_errs_at_its_rate(drawn_scene):
    annotator = SimulatedAnnotator(Gallery([drawn_scene]), errors=CheckErrors(1.0, 1.0))

    async def work(client):
        row = await segmented_row(drawn_scene, client, annotator)
        row = await round_trip(row, drawn_scene.image, client, Costs())
        return await exhaustivity(row, drawn_scene.image, client, Costs())

    row = over_http(annotator, work)
    assert all(
        set(each.round_trip_ids) != set(q.object_ids) for each, q in zip(row.evidence, row.questions, strict=True)
    )
    assert [each.is_exhaustive for each in row.evidence] == [False, False, False, None]


@pytest.mark.parametrize(
    ('fault', 'rule'),
    [
        ('wrong_count', 'counts.other_than_stated'),
        ('sentence', 'text.sentence'),
        ('wrong_object', 'opinions.round_trip'),
        ('missed', 'opinions.not_all'),
        ('extra', 'opinions.round_trip'),
        ('split_id', 'boxes.twice'),
        ('absent_present', 'opinions.round_trip'),
        ('half_mask', 'masks.doubted'),
    ],
)
def test_the_filter_catches_a_kind_of_noise_over_http(drawn_scene, fault, rule):
    settings = Noise({fault: 1.0}, consistent=1.0)
    annotator = SimulatedAnnotator(Gallery([drawn_scene]), settings, NEVER)

    async def work(client):
        row = await segmented_row(drawn_scene, client, annotator)
        return await FilterAnswers(FilterSettings(), client, MODEL, None, lambda image: drawn_scene.image)(row)

    row = over_http(annotator, work)
    assert rule in {each.rule for each in row.rejections}


def test_broken_json_is_repaired_by_the_second_call_or_named(drawn_scene):
    request = Request('QuestionsForm', drawn_scene.image, (), 'key')
    for rate, is_whole in ((0.0, True), (1.0, False)):
        text = SimulatedAnnotator(Gallery([drawn_scene]), Noise(broken_json=rate)).reply(request)
        try:
            json.loads(text)
        except ValueError:
            assert not is_whole
        else:
            assert is_whole
    annotator = SimulatedAnnotator(Gallery([drawn_scene]), Noise(broken_json=1.0))
    row = over_http(annotator, lambda client: segmented_row(drawn_scene, client, annotator))
    assert [each.rule for each in row.rejections] == ['questions.bad_reply']


def test_unknown_requests_are_refused_with_the_reason(drawn_scene):
    with serving(SimulatedAnnotator(Gallery([drawn_scene]))) as url:
        with urllib.request.urlopen(f'{url}/models', timeout=10) as reply:
            assert json.load(reply)['data'][0]['id'] == MODEL
        for body in (b'{', b'{}', json.dumps({'response_format': {}, 'messages': []}).encode()):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f'{url}/chat/completions', data=body, timeout=10)
            assert caught.value.code == 400


@pytest.mark.parametrize(
    ('fault', 'low', 'high'), [('eroded_mask', 0.35, 0.5), ('half_mask', 0.35, 0.5), ('leaking_mask', 1.2, 4)]
)
def test_spoiled_masks(fault, low, high):
    mask = np.zeros((100, 100), bool)
    mask[20:60, 30:70] = True
    drawn = spoiled(mask, fault, np.random.default_rng(0))
    assert low <= drawn.sum() / mask.sum() <= high
    assert np.array_equal(spoiled(mask, '', np.random.default_rng(0)), mask)


def test_a_rendered_scene_is_known_exactly(opengl):
    from instructsam.train.data_engine.simulated.world import draw_known_scene
    from instructsam.train.tabletop.scenes.scene import render_scene

    drawn, known = render_scene('test', 3, 31), draw_known_scene(3, 'test', 31)
    assert np.array_equal(known.image, drawn.rgb)
    assert known.questions
    for i, mask in known.masks.items():
        assert np.array_equal(mask.decode(), drawn.ids == i)
        assert known.phrases[i] == f'{drawn.objects[i].color} {drawn.objects[i].category}'
    assert {i for question in known.questions for i in question.targets} <= set(known.masks)
    assert all(question.answer and len(set(question.targets)) == len(question.targets) for question in known.questions)

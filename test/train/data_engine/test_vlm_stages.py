"""Stages questions and objects against scripted replies: repair, rejection, ids and boxes."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from scripted_vlm import ScriptedVlm, asked_questions

from instructsam.train.data_engine.objects import AskObjects, ObjectSettings
from instructsam.train.data_engine.questions import AskQuestions, QuestionSettings
from instructsam.train.data_engine.rows import EngineImage, Ground, Question, Rejection, Row
from instructsam.train.vlm.errors import VlmBusy

IMAGE = EngineImage('a' * 64, 'x.png', False, 400, 800, 'photos', 'own', 'x.png', 12.5, '00ff' * 4)
ROW = Row(0, IMAGE)
DRAFT = {
    'question': 'Find  the\ncups.',
    'answer': 'the cups',
    'ground': {'quantifier': 'count', 'count': 2},
    'kind': 'counting',
}
ASKED = replace(
    ROW,
    questions=(
        Question('q0', 'Find the cups.', 'the cups', Ground('count', 2)),
        Question('q1', 'Find the saw.', 'the saw', Ground('none', 0), is_present=False),
        Question('q2', 'Find the left cup.', 'the left cup', Ground('one', 1)),
    ),
)


def read(image):
    return np.zeros((image.height, image.width, 3), np.uint8)


def questions(answer, **settings):
    return AskQuestions(ScriptedVlm(answer), 'vlm', QuestionSettings(**settings), read)


def objects(answer, convention='gemini', max_side=1536):
    return AskObjects(ScriptedVlm(answer), 'vlm', ObjectSettings(convention, max_side=max_side), read)


def run(stage, row):
    return asyncio.run(stage(row))


def test_questions_are_numbered_and_cleaned():
    absent = {**DRAFT, 'present': False}
    row = run(questions(lambda messages: {'questions': [DRAFT, absent, DRAFT]}, per_image=2), ROW)
    assert row.questions == (
        Question('q0', 'Find the cups.', 'the cups', Ground('count', 2), 'counting'),
        Question('q1', 'Find the cups.', 'the cups', Ground('none', 0), 'counting', is_present=False),
    )
    (record,) = row.stages
    assert (record.stage, record.model, record.calls, record.prompt_tokens, record.completion_tokens) == (
        ('questions', 'vlm', 1, 100, 10)
    )


def test_a_large_picture_is_reduced_before_it_is_sent():
    stage = questions(lambda messages: {'questions': [DRAFT]}, max_side=200)
    run(stage, ROW)
    ((_, message),) = stage._client.chats
    assert message.parts[0].image.shape == (100, 200, 3)


def test_a_bad_reply_is_repaired_by_one_call_that_quotes_the_error():
    replies = iter(['Here they are!', {'questions': [DRAFT]}])
    stage = questions(lambda messages: next(replies))
    assert len(run(stage, ROW).questions) == 1
    first, second = stage._client.chats
    assert second[:-1] == first
    assert 'could not be used' in second[-1].text
    assert 'Here they are!' in second[-1].text


@pytest.mark.parametrize(
    'reply', ['no JSON', '{"questions": []}', '{"questions": [{"question": "\\ud800"}]}', '[' * 5000]
)
def test_two_bad_replies_are_a_named_rejection(reply):
    row = run(questions(lambda messages: reply), ROW)
    assert [(each.rule, each.question_id) for each in row.rejections] == [('questions.bad_reply', '')]
    assert row.is_rejected


def test_a_busy_server_is_an_error_of_the_row_and_no_rejection():
    with pytest.raises(VlmBusy):
        run(questions(lambda messages: VlmBusy('busy')), ROW)


def test_rejected_images_cost_nothing():
    rejected = ROW.with_rejections([Rejection('images', 'images.blurred')])
    for stage in (questions(None), objects(None)):
        assert run(stage, rejected) == rejected
        assert not stage._client.chats


def located(*names, answers):
    return {
        'objects': [{'object_id': name, 'phrase': 'a  cup', 'box_2d': [100, 200, 500, 400]} for name in names],
        'answers': [{'question_id': key, 'object_ids': value} for key, value in answers.items()],
    }


def twice(reply):
    return {**reply, 'answers': 2 * reply['answers']}


def test_objects_are_shared_between_questions_and_renumbered():
    stage = objects(lambda messages: located('z', 'b', 'a', answers={'q0': ['a', 'b', 'a'], 'q2': ['a'], 'q9': ['z']}))
    row = run(stage, ASKED)
    assert [(each.id, each.phrase) for each in row.objects] == [('o0', 'a cup'), ('o1', 'a cup')]
    assert row.objects[0].box == pytest.approx((160, 40, 320, 200))
    assert [each.object_ids for each in row.questions] == [('o1', 'o0'), (), ('o1',)]
    assert not row.rejections
    ((_, message),) = stage._client.chats
    assert [each['question_id'] for each in asked_questions((_, message))] == ['q0', 'q2']


def test_a_question_without_a_target_is_rejected():
    row = run(objects(lambda messages: located('a', answers={'q0': ['a']})), ASKED)
    assert [(each.rule, each.question_id) for each in row.rejections] == [('objects.no_target', 'q2')]


@pytest.mark.parametrize(
    ('reply', 'named'),
    [
        (located('a', 'a', answers={'q0': ['a']}), "'a' is given to several objects"),
        (located('a', answers={'q0': ['b']}), "'b', which is not among the objects"),
        (twice(located('a', answers={'q0': ['a']})), "'q0' has several answers"),
        ({'objects': [{'object_id': 'a', 'phrase': 'x', 'box_2d': [1, 2, 3]}], 'answers': []}, 'objects.0.box_2d'),
        ({'objects': [{'object_id': 'a', 'phrase': 'x', 'bbox_2d': [1, 2, 3, 4]}], 'answers': []}, 'objects.0.box_2d'),
    ],
)
def test_objects_of_another_form_reject_the_questions_that_were_asked(reply, named):
    stage = objects(lambda messages: reply)
    row = run(stage, ASKED)
    assert [(each.rule, each.question_id) for each in row.rejections] == [
        ('objects.bad_reply', 'q0'),
        ('objects.bad_reply', 'q2'),
    ]
    assert named in row.rejections[0].detail
    assert named in stage._client.chats[1][-1].text


def test_without_a_present_target_nothing_is_asked():
    row = replace(ASKED, questions=ASKED.questions[1:2])
    assert run(objects(None), row) == row

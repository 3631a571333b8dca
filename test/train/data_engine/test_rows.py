"""Rows as JSON, and the questions that rejections leave."""

import pytest

from instructsam.core.errors import DataError
from instructsam.train.data_engine.rows import (
    EngineImage,
    Evidence,
    Ground,
    ObjectMask,
    Question,
    Rejection,
    Row,
    SegmentedObject,
    StageRecord,
    from_json,
    to_json,
)

IMAGE = EngineImage('a' * 64, 'x.png', False, 10, 20, 'photos', 'CC-BY-4.0', 'x.png', 12.5, '00ff' * 4)
ROW = Row(
    7,
    IMAGE,
    (
        Question(
            'q0', 'Find the "cups".', 'the cups', Ground('count', 2), 'counting', ('the jug',), True, ('o0', 'o1')
        ),
        Question('q1', 'Find the saw.', 'the saw', Ground('none'), is_present=False),
    ),
    (
        SegmentedObject('o0', 'cup', (0.0, 1.0, 2.5, 3.0), ObjectMask((10, 20), 'Z6', 0.9, 0.97, 1.5, 0.8)),
        SegmentedObject('o1', 'cup\n', (4.0, 1.0, 6.5, 3.0)),
    ),
    (Evidence('q0', 0.9, 2, ('o0', 'o1'), True),),
    (Rejection('filter', 'masks.unstable', 'q0', 'o1', 0.5, 0.95),),
    (StageRecord('questions', 'vlm', '0123', 2, 900, 80, 1.25),),
)


def test_a_row_survives_json_on_one_line():
    text = to_json(ROW)
    assert b'\n' not in text
    assert from_json(text) == ROW


def test_seconds_do_not_make_rows_differ():
    slower = StageRecord('questions', 'vlm', '0123', 2, 900, 80, 99.0)
    assert ROW.stages == (slower,)


@pytest.mark.parametrize(
    ('old', 'new', 'named'),
    [
        (b'"order":7', b'"order":"x"', 'order'),
        (b'"schema":1', b'"schema":2', 'schema'),
        (b'"quantifier":"count"', b'"quantifier":"few"', 'questions.0.ground.quantifier'),
        (b'"order":7', b'"order":', 'the line'),
    ],
)
def test_anything_but_a_row_is_refused_by_field(old, new, named):
    with pytest.raises(DataError, match=rf'not a row .*{named}'):
        from_json(to_json(ROW).replace(old, new))


def test_a_rejection_is_about_a_question_or_the_image():
    assert [question.id for question in ROW.kept_questions()] == ['q1']
    assert not ROW.is_rejected
    blurred = ROW.with_rejections([Rejection('images', 'images.blurred', value=3.0, limit=20.0)])
    assert blurred.is_rejected
    assert blurred.kept_questions() == ()
    assert blurred.rejected_ids() == {'q0', 'q1'}


def test_objects_of_a_question_come_in_its_order():
    assert [each.id for each in ROW.objects_of(ROW.questions[0])] == ['o0', 'o1']
    assert ROW.objects_of(ROW.questions[1]) == ()

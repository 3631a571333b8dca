"""Stage filter: evidence is gathered for the questions that are left, and costs what it has to."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from instructsam.core.rle import Rle
from instructsam.train.data_engine.filtering import FilterAnswers, FilterSettings
from instructsam.train.data_engine.rows import (
    EngineImage,
    Evidence,
    Ground,
    ObjectMask,
    Question,
    Rejection,
    Row,
    SegmentedObject,
)
from instructsam.train.data_engine.verify import MOST_MARKS, ChosenNumbers, Completeness, second_opinion, union_iou
from instructsam.train.vlm.client import Reply
from instructsam.train.vlm.errors import WrongForm

IMAGE = EngineImage('0' * 64, 'a.jpg', False, 100, 200, 'tests', 'none', 'a.jpg', 100.0, '0' * 16)
PICTURE = np.zeros((100, 200, 3), np.uint8)


def square(x0, y0=10):
    """Return the mask of a square of 20 px."""
    pixels = np.zeros((100, 200), bool)
    pixels[y0 : y0 + 20, x0 : x0 + 20] = True
    return Rle.encode(pixels)


def thing(number, x0, y0=10):
    mask = ObjectMask((100, 200), square(x0, y0).to_coco()['counts'], box_iou=1.0)
    return SegmentedObject(f'o{number}', 'mug', (x0, y0, x0 + 20, y0 + 20), mask)


FIRST = Question('q0', 'Take the red mug.', 'red mug', Ground('one', 1), object_ids=('o0',))
LEFTMOST = Question('q1', 'Take the leftmost mug.', 'leftmost mug', Ground('one', 1), object_ids=('o0',))
ABSENT = Question('q2', 'Take the green mug.', 'green mug', Ground('none', 0), is_present=False)
ROW = Row(0, IMAGE, (FIRST, LEFTMOST, ABSENT), (thing(0, 10), thing(1, 60)))


class Finder:
    """Finds the squares that it is told for a phrase, and remembers what it was asked."""

    def __init__(self, **found):
        self.found, self.asked, self.encoded = found, [], 0

    def encode(self, image):
        self.encoded += 1
        return image

    def find(self, encoded, phrase):
        self.asked.append(phrase)
        return [square(x0) for x0 in self.found.get(phrase.replace(' ', '_'), ())]


class Client:
    """Replies with the values that it is given, in turn; an error is raised."""

    def __init__(self, *values):
        self.values, self.asked = list(values), []

    async def ask(self, messages, schema=None):
        self.asked.append((schema, messages))
        value = self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        return Reply('', 10, 2, value=value)


def filtered(row, client=None, finder=None, **settings):
    stage = FilterAnswers(FilterSettings(**settings), client, 'checker', finder, lambda image: PICTURE)
    return asyncio.run(stage(row))


def numbers(*chosen):
    return ChosenNumbers(numbers=list(chosen))


def test_a_second_opinion_asks_for_concepts_once_each():
    finder = Finder(red_mug=[10], mug=[10, 60])
    row = second_opinion(ROW, PICTURE, finder)
    assert row.evidence == (
        Evidence('q0', opinion_iou=1.0, opinion_count=1, opinion_cover=1.0),
        Evidence('q1', opinion_cover=1.0),  # no concept prompt can single out the leftmost one
        Evidence('q2', opinion_iou=1.0, opinion_count=0),
    )
    assert (finder.asked, finder.encoded) == (['red mug', 'mug', 'green mug'], 1)


@pytest.mark.parametrize(
    ('found', 'rejected'),
    [
        ({'red_mug': [60], 'mug': [60]}, {('q0', 'elsewhere'), ('q0', 'uncovered'), ('q1', 'uncovered')}),
        ({'red_mug': [10, 60], 'mug': [10]}, {('q0', 'as_many')}),
        ({'red_mug': [10], 'mug': [10], 'green_mug': [60]}, {('q2', 'elsewhere'), ('q2', 'as_many')}),
    ],
)
def test_the_rules_read_the_second_opinion(found, rejected):
    row = filtered(ROW, finder=Finder(**found), round_trip=False, exhaustivity=False)
    assert {(each.question_id, each.rule.removeprefix('opinions.')) for each in row.rejections} >= rejected
    assert {each.question_id for each in row.rejections} == {name for name, _ in rejected}


def test_checks_are_made_for_the_questions_that_are_left():
    row = replace(ROW, questions=(replace(FIRST, answer='It is red.'), LEFTMOST, ABSENT))
    client = Client(numbers(2), numbers(), Completeness(is_complete=True))
    row = filtered(row, client, second_opinion=False)
    assert [(each.question_id, each.rule) for each in row.rejections] == [
        ('q0', 'text.sentence'),
        ('q1', 'opinions.round_trip'),
    ]
    assert row.rejections[1].detail == 'chosen: o1, given: o0'
    assert [schema for schema, _ in client.asked] == [ChosenNumbers, ChosenNumbers], 'no target is left to be missed'
    record = row.stages[-1]
    assert (record.stage, record.model, record.calls, record.prompt_tokens) == ('filter', 'checker', 2, 20)
    assert record.prompts


def test_the_round_trip_does_not_tell_the_answer():
    client = Client(numbers(1))
    filtered(replace(ROW, questions=(FIRST,)), client, second_opinion=False, exhaustivity=False)
    ((_, messages),) = client.asked
    assert 'Take the red mug.' in messages[-1].text
    assert not any('red mug' in message.text.replace('Take the red mug.', '') for message in messages)


def test_a_thing_with_two_ids_has_one_number_in_the_round_trip():
    """The VLM chooses all numbers that answer the question, and would choose both numbers of one thing."""
    second = replace(LEFTMOST, object_ids=('o1',))
    row = replace(ROW, questions=(FIRST, second), objects=(thing(0, 10), thing(1, 10), thing(2, 60)))
    client = Client(numbers(1), numbers(1))
    row = filtered(row, client, second_opinion=False, exhaustivity=False)
    assert row.rejections == ()
    assert [each.round_trip_ids for each in row.evidence] == [('o0',), ('o0',)]
    assert all('numbered from 1 to 2.' in messages[0].text for _, messages in client.asked)


def test_a_missing_target_is_named():
    client = Client(numbers(1), Completeness(is_complete=False))
    row = filtered(replace(ROW, questions=(FIRST,)), client, second_opinion=False)
    assert [each.rule for each in row.rejections] == ['opinions.not_all']


def test_numbers_that_nothing_has_reject_the_question():
    row = filtered(replace(ROW, questions=(FIRST,)), Client(numbers(1, 7, 0)), second_opinion=False, exhaustivity=False)
    assert row.rejections[0].detail == 'chosen: mark 0, o0, mark 7, given: o0'


def test_a_reply_that_is_unusable_twice_rejects_the_question():
    client = Client(WrongForm('no JSON'), WrongForm('no JSON'), numbers(1))
    row = filtered(replace(ROW, questions=(FIRST, LEFTMOST)), client, second_opinion=False, exhaustivity=False)
    assert row.rejections == (Rejection('filter', 'opinions.bad_reply', 'q0', detail='no JSON'),)


def test_of_too_many_objects_those_of_the_answer_are_shown():
    objects = tuple(thing(number, 5 * number, 10 + number) for number in range(MOST_MARKS + 5))
    question = replace(FIRST, object_ids=(objects[-1].id,))
    client = Client(numbers(MOST_MARKS))
    row = filtered(
        replace(ROW, questions=(question,), objects=objects), client, second_opinion=False, exhaustivity=False
    )
    assert row.evidence[0].round_trip_ids == (objects[-1].id,)


def test_rows_without_work_are_left_alone():
    client = Client()
    rejected = ROW.with_rejections([Rejection('images', 'images.blurred')])
    assert filtered(rejected, client) == rejected
    unreadable = Row(0, None, rejections=(Rejection('images', 'images.unreadable'),))
    assert filtered(unreadable, client) == unreadable


def test_unions():
    assert union_iou([], []) == 1.0
    assert union_iou([square(10)], []) == 0.0
    assert union_iou([square(10), square(60)], [square(10)]) == 0.5

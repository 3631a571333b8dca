"""Every rule of the filter rejects the question that it is about, and keeps one that is just good enough."""

from dataclasses import replace

import numpy as np
import pytest

from instructsam.core.rle import Rle
from instructsam.train.data_engine.filters.counts import concept, head, is_concept, number
from instructsam.train.data_engine.filters.rules import OPINION_RULES, ROW_RULES, RULES, judge, merge_same
from instructsam.train.data_engine.filters.rules import rejections_by_rule as table
from instructsam.train.data_engine.filters.text import tokens
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import (
    EngineImage,
    Evidence,
    Ground,
    ObjectMask,
    Question,
    Rejection,
    Row,
    SegmentedObject,
    from_json,
    to_json,
)

LIMITS = Thresholds()
IMAGE = EngineImage('0' * 64, 'a.jpg', False, 100, 200, 'tests', 'none', 'a.jpg', 100.0, '0' * 16)


def mask(*boxes, **scores):
    """Return the mask that fills boxes (x0, y0, x1, y1)."""
    pixels = np.zeros((100, 200), bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    scores = {'predicted_iou': 0.95, 'stability': 0.97, 'object_score': 5.0, 'box_iou': 1.0, **scores}
    return ObjectMask((100, 200), Rle.encode(pixels).to_coco()['counts'], **scores)


def thing(name, box=(10, 10, 50, 50), shape=None, phrase='red mug'):
    """Return an object whose mask fills its box, unless `shape` is given."""
    drawn = tuple(int(np.clip(value, 0, 200)) for value in box)
    return SegmentedObject(name, phrase, tuple(map(float, box)), shape or mask(drawn))


MUG, OTHER, THIRD = thing('o0'), thing('o1', (60, 10, 100, 50)), thing('o2', (110, 10, 150, 50))
ASKED = Question('q0', 'Which mug is red?', 'red mug', Ground('one', 1), object_ids=('o0',))
SEVERAL = replace(ASKED, answer='red mugs', ground=Ground('all', 2), object_ids=('o0', 'o1'))
ABSENT = replace(ASKED, answer='green mug', ground=Ground('none', 0), is_present=False, object_ids=())


def row(question=ASKED, objects=(MUG, OTHER, THIRD), evidence=None, before=()):
    found = () if evidence is None else (Evidence(question.id, **evidence),)
    return Row(0, IMAGE, (*before, question), objects, found)


def asked(**changes):
    return row(replace(ASKED, **changes))


def masked(*boxes, box=(10, 10, 50, 50), **scores):
    """Return the row of one object with this mask."""
    return row(objects=(thing('o0', box, mask(*(boxes or (box,)), **scores)),))


def boxed(*box):
    return row(objects=(thing('o0', box),))


def two(box, answer_box=(10, 10, 50, 50)):
    return row(SEVERAL, (thing('o0', answer_box), thing('o1', box)))


def earlier(text):
    return row(replace(ASKED, id='q1'), before=(replace(ASKED, text=text),))


WORDS = 'small round bright glossy clean brown wooden '
CASES = {
    'text.sentence': [
        (asked(answer='The answer is the red mug'), asked(answer='mug that is left of the bowl')),
        (asked(answer='Red mug.'), asked(answer='can')),
        (asked(answer='this is a mug'), asked(answer='the mug which has a spoon in it')),
    ],
    'text.no_noun': [
        (asked(answer='yes'), asked(answer='no smoking sign')),
        (asked(answer='it'), asked(answer='one mug')),
        (asked(answer='the ones'), asked(answer='everything but the mug')),
        (asked(answer='12'), asked(answer='12 inch ruler')),
        (asked(answer=' '), asked(answer='X')),
    ],
    'text.too_long': [(asked(answer=WORDS * 5 + 'mug'), asked(answer=WORDS * 3 + 'mug'))],
    'text.repeated': [(earlier('which mug is RED'), earlier('Which mug is blue?'))],
    'text.given_away': [
        (asked(text='What is at [12, 30, 40, 60]?'), asked(text='Which of the 2 mugs, the red one or the blue one?')),
        (asked(text='Is object 3 red?'), asked(text='Which object is red?')),
        (asked(text='What does the bounding box show?'), asked(text='What is in the box?')),
        (asked(answer='mug o1'), asked(answer='player with number 10')),
        (asked(text='The thing at x=12, y=40'), asked(text='Which mug is at the far left?')),
    ],
    'counts.nothing': [(asked(object_ids=()), asked()), (asked(object_ids=()), row(ABSENT))],
    'counts.absent_with_objects': [
        (row(replace(ABSENT, object_ids=('o1',))), row(ABSENT)),
        (row(replace(ABSENT, ground=Ground('count', 2))), row(replace(ABSENT, ground=Ground('none')))),
    ],
    'counts.unknown_object': [(asked(object_ids=('o7',)), asked(object_ids=('o2',)))],
    'counts.one_with_several': [(row(replace(SEVERAL, ground=Ground('one'))), asked())],
    'counts.several_with_one': [(asked(ground=Ground('some')), row(replace(SEVERAL, ground=Ground('some'))))],
    'counts.other_than_stated': [
        (row(replace(SEVERAL, ground=Ground('count', 3))), row(SEVERAL)),
        (asked(ground=Ground('all', 2)), asked(ground=Ground('all', None))),
    ],
    'counts.other_than_worded': [
        (row(replace(SEVERAL, answer='three red mugs')), row(replace(SEVERAL, answer='two red mugs')))
    ],
    'counts.too_many': [
        (asked(object_ids=tuple(f'o{i}' for i in range(11))), asked(object_ids=tuple(f'o{i}' for i in range(10))))
    ],
    'counts.plural': [
        (asked(answer='red mugs'), asked(answer='scissors')),
        (row(replace(SEVERAL, answer='red mug left of the bowls')), row(replace(SEVERAL, answer='men with a hat'))),
        (row(replace(SEVERAL, answer='glass')), asked(answer='glass')),
    ],
    'boxes.outside': [(boxed(10, 10, 202, 50), boxed(10, 10, 201, 50)), (boxed(-5, 0, 50, 50), boxed(0, 0, 50, 50))],
    'boxes.too_thin': [
        (boxed(10, 10, 17.9, 50), boxed(10, 10, 18, 50)),
        (boxed(50, 10, 10, 50), boxed(10, 10, 50, 50)),
    ],
    'boxes.too_small': [(boxed(10, 10, 13, 13), boxed(10, 10, 14, 13))],
    'boxes.too_large': [(boxed(0, 0, 200, 95), boxed(0, 0, 200, 90))],
    'boxes.twice': [
        (two((10, 10, 50, 48)), two((10, 10, 50, 40))),
        (asked(object_ids=('o0', 'o0')), asked(object_ids=('o0', 'o1'))),
    ],
    'masks.missing': [
        (row(objects=(replace(MUG, mask=None),)), row()),
        (row(objects=(replace(MUG, mask=ObjectMask((100, 200), '')),)), row()),
        (row(objects=(replace(MUG, mask=mask()),)), row()),
    ],
    'masks.doubted': [
        (masked(predicted_iou=0.87), masked(predicted_iou=0.88)),
        (masked(predicted_iou=0.0), masked(predicted_iou=None)),
    ],
    'masks.unstable': [
        (masked(stability=0.94), masked(stability=0.95)),
        (masked(stability=0.0), masked(stability=None)),
    ],
    'masks.no_object': [
        (masked(object_score=0.0), masked(object_score=0.1)),
        (masked(object_score=-1.0), masked(object_score=None)),
    ],
    'masks.off_box': [(masked(box_iou=0.69), masked(box_iou=0.7))],
    'masks.outside_box': [(masked((10, 10, 55, 50)), masked((10, 10, 54, 50)))],
    'masks.in_pieces': [
        (masked((10, 10, 20, 50), (30, 10, 50, 50)), masked((10, 10, 48, 50), (49, 10, 50, 50))),
        (masked((10, 10, 30, 30), (31, 31, 50, 50)), masked((10, 10, 30, 30), (30, 30, 50, 50))),  # joined by a corner
    ],
    'masks.overlapping': [(two((30, 10, 50, 50)), two((45, 10, 90, 50)))],
    'opinions.elsewhere': [(row(evidence={'opinion_iou': 0.49}), row(evidence={'opinion_iou': 0.5}))],
    'opinions.uncovered': [(row(evidence={'opinion_cover': 0.49}), row(evidence={'opinion_cover': 0.5}))],
    'opinions.as_many': [
        (row(evidence={'opinion_count': 2}), row(evidence={'opinion_count': 1})),
        (row(ABSENT, evidence={'opinion_count': 1}), row(ABSENT, evidence={'opinion_count': 0})),
    ],
    'opinions.round_trip': [
        (row(evidence={'round_trip_ids': ('o1',)}), row(evidence={'round_trip_ids': ('o0',)})),
        (
            row(SEVERAL, evidence={'round_trip_ids': ('o0',)}),
            row(SEVERAL, evidence={'round_trip_ids': ('o1', 'o0')}),
        ),
        (row(evidence={'round_trip_ids': ()}), row(ABSENT, evidence={'round_trip_ids': ()})),
    ],
    'opinions.not_all': [(row(evidence={'is_exhaustive': False}), row(evidence={'is_exhaustive': True}))],
}


def test_every_rule_has_cases():
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize(
    ('name', 'case'), [(name, case) for name, cases in CASES.items() for case in range(len(cases))]
)
def test_a_rule_rejects_and_keeps(name, case):
    rejected, kept = CASES[name][case]
    rule = RULES[name]
    finding = rule(rejected, rejected.questions[-1], LIMITS)
    assert finding is not None
    assert rule(kept, kept.questions[-1], LIMITS) is None
    assert finding.detail, 'a person who reads the rejection needs the reason'


@pytest.mark.parametrize('question', [ASKED, SEVERAL, ABSENT])
def test_a_good_question_breaks_no_rule(question):
    evidence = {
        'opinion_iou': 0.9,
        'opinion_count': len(question.object_ids),
        'round_trip_ids': question.object_ids,
        'is_exhaustive': True,
    }
    assert judge(row(question, evidence=evidence), LIMITS).rejections == ()
    assert judge(row(question), LIMITS).rejections == ()


def test_a_rejection_drops_its_question_only_and_names_rule_and_number():
    thin = thing('o3', (10, 60, 50, 65))
    bad = replace(ASKED, id='q1', text='Which thing is thin?', object_ids=('o3',))
    judged = judge(replace(row(), questions=(ASKED, bad), objects=(MUG, thin)), LIMITS)
    assert judged.rejections == (Rejection('filter', 'boxes.too_thin', 'q1', 'o3', 5.0, 8.0, 'px'),)
    assert judged.kept_questions() == (ASKED,)
    assert (judged.questions, judged.objects) == ((ASKED, bad), (MUG, thin)), 'rejected questions stay in the row'
    assert from_json(to_json(judged)) == judged


def test_rules_do_not_hide_each_other():
    bad = asked(answer='yes', object_ids=('o0', 'o1'))
    assert [each.rule for each in judge(bad, LIMITS).rejections] == [
        'text.no_noun',
        'counts.one_with_several',
        'counts.other_than_stated',
    ]
    judged = judge(bad, LIMITS, ROW_RULES)
    assert judge(judged, LIMITS, OPINION_RULES) == judged, 'a question is judged once'


def test_the_table_counts_by_stage_and_rule():
    rows = [judge(each, LIMITS) for each in (asked(answer='it'), asked(answer='no'), boxed(10, 10, 17, 50))]
    rows[0] = rows[0].with_rejections([Rejection('questions', 'reply')])
    assert table(rows) == {'filter: text.no_noun': 2, 'filter: boxes.too_thin': 1, 'questions: reply': 1}


def test_two_ids_of_one_thing_become_the_first():
    same = thing('o3', (10, 10, 50, 49))
    questions = (ASKED, replace(ASKED, id='q1', object_ids=('o3', 'o1')))
    merged = merge_same(replace(row(), questions=questions, objects=(MUG, OTHER, same)), LIMITS)
    assert [each.object_ids for each in merged.questions] == [('o0',), ('o0', 'o1')]
    assert merge_same(row(SEVERAL), LIMITS) == row(SEVERAL)


@pytest.mark.parametrize(
    ('answer', 'noun', 'told'),
    [
        ('two leftmost empty mugs', 'mugs', 'several'),
        ('mug right of the red apples', 'mug', 'one'),
        ('man holding two bags', 'man', 'one'),
        ('the right shoe', 'shoe', 'one'),
        ('objects except the ball', 'objects', 'several'),
        ('bus', 'bus', 'one'),
        ('pair of scissors', 'scissors', ''),
        ('bunch of ripe bananas', 'bananas', ''),
        ('mugs beside the set of keys', 'mugs', 'several'),
        ('green cutting boards', 'boards', 'several'),
        ('two blue shopping bags on the floor', 'bags', 'several'),
        ('silver ring', 'ring', 'one'),
        ('boy swimming in the pool', 'boy', 'one'),
        ('man cutting the bread', 'man', 'one'),
        ('men holding bags', 'men', ''),
        ('red and blue blocks', 'blocks', ''),
        ('cup and saucer', 'saucer', ''),
        ('', '', ''),
    ],
)
def test_the_head_noun_tells_the_number(answer, noun, told):
    assert (head(answer), number(answer)) == (noun, told)


@pytest.mark.parametrize(
    ('answer', 'prompt', 'is_all'),
    [
        ('two leftmost red mugs on the tray', 'red mugs', False),
        ('the two red mugs', 'red mugs', True),
        ('pairs of scissors', 'scissors', True),
        ('bananas except the yellow banana', 'bananas', False),
        ('left shoe', 'shoe', False),
        ('red and blue blocks', 'red and blue blocks', True),
        ('steel mixing bowls', 'steel mixing bowls', True),
        ('woman holding a mixing bowl', 'woman', False),
    ],
)
def test_a_concept_prompt_gets_what_it_understands(answer, prompt, is_all):
    assert (concept(answer), is_concept(answer)) == (prompt, is_all)


def test_a_long_word_is_several_tokens():
    assert tokens('red mug') == 2
    assert tokens('antidisestablishmentarianism') == 5


@pytest.mark.parametrize(
    'wrong', [{'stability': 1.5}, {'duplicate_iou': -0.1}, {'targets': 0}, {'overlap': float('nan')}]
)
def test_thresholds_are_checked(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Thresholds(**wrong)

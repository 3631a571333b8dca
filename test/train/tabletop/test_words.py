"""Wordings of programs: canonical answers, articles, numbers, and wordings reserved for the split `unseen`."""

import numpy as np
import pytest

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language import words
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.words import Wording, canonical, definite, enumeration, indefinite, sentence
from instructsam.train.tabletop.world.catalog import CATEGORIES

MUG, BOWL, SCISSORS = p.Noun('mug'), p.Noun('bowl'), p.Noun('scissors')
RED = p.Color(MUG, 'red')


@pytest.mark.parametrize(
    ('program', 'count', 'expected'),
    [
        (MUG, 1, 'mug'),
        (p.Noun('knife'), 2, 'knives'),
        (SCISSORS, 1, 'scissors'),
        (p.Color(SCISSORS, 'red'), 2, 'red pairs of scissors'),
        (p.Size(RED, 'large'), 1, 'large red mug'),
        (p.Material(p.Noun('spoon'), 'wood'), 2, 'wooden spoons'),
        (p.Relate(RED, 'left', BOWL), 1, 'red mug left of the bowl'),
        (p.Relate(p.Relate(MUG, 'left', BOWL), 'near', p.Noun('ball')), 1, 'mug left of the bowl and next to the ball'),
        (p.Between(MUG, BOWL, p.Noun('box')), 1, 'mug between the bowl and the box'),
        (p.Closest(MUG, BOWL, True), 1, 'mug farthest from the bowl'),
        (p.Holding(BOWL, 'in', p.Noun('apple')), 1, 'bowl with an apple in it'),
        (p.Holding(p.Noun('plate'), 'on', MUG), 2, 'plates with a mug on them'),
        (p.Holding(p.Noun('book'), 'on', p.Color(SCISSORS, 'orange')), 1, 'book with a pair of orange scissors on it'),
        (p.Empty(BOWL), 2, 'empty bowls'),
        (p.Extreme(RED, 'largest', 2), 2, 'two largest red mugs'),
        (p.Exactly(p.Noun('box'), 3), 3, 'three boxes'),
        (p.Except(MUG, RED), 2, 'mugs except the red mug'),
        (p.Except(p.Noun('object'), MUG, True), 4, 'objects except the mugs'),
        (p.Purpose('drink'), 1, 'object to drink from'),
    ],
)
def test_canonical_phrases(program, count, expected):
    assert canonical(program, count) == expected


def test_an_enumeration_separates_a_place_from_what_follows():
    placed = p.Relate(BOWL, 'front', MUG)
    knife = p.Noun('knife')
    assert enumeration((BOWL, knife), (1, 2), Wording()) == 'the bowl and all knives'
    assert enumeration((placed, knife), (1, 1), Wording()) == 'the bowl in front of the mug, and the knife'
    assert enumeration((knife, placed), (1, 1), Wording()) == 'the knife and the bowl in front of the mug'
    assert enumeration((knife, placed, RED), (1, 1, 1), Wording()).endswith('the mug, and the red mug')


@pytest.mark.parametrize(
    ('program', 'count', 'expected'),
    [
        (MUG, 1, ('object',)),
        (RED, 2, ('mugs', 'objects')),
        (p.Size(p.Material(p.Noun('spoon'), 'wood'), 'large'), 1, ('spoon', 'object')),
        (p.Relate(MUG, 'left', BOWL), 1, ('mug', 'object')),
        (p.Extreme(p.Relate(RED, 'on', p.Noun('tray')), 'leftmost'), 1, ('red mug', 'mug', 'object')),
        (p.Exactly(RED, 2), 2, ('red mugs', 'mugs', 'objects')),
        (p.Except(p.Empty(MUG), RED), 2, ('mugs', 'objects')),
        (p.Color(p.Purpose('drink'), 'red'), 1, ('object',)),
        (p.Relate(p.Purpose('wipe'), 'left', BOWL), 1, ('object to scrub with', 'object')),
    ],
)
def test_shorter_forms(program, count, expected):
    assert words.shortened(program, count) == expected


@pytest.mark.parametrize(
    ('program', 'count', 'expected'),
    [
        (MUG, 1, 'mug'),
        (p.Size(p.Color(p.Material(MUG, 'metal'), 'red'), 'large'), 2, 'large red metal mugs'),
        (p.Relate(MUG, 'left', RED), 1, 'mug'),
        (p.Closest(p.Empty(RED), BOWL), 1, 'red mug'),
        (p.Extreme(p.Relate(RED, 'on', p.Noun('tray')), 'leftmost', 2), 2, 'red mugs'),
        (p.Exactly(RED, 2), 2, 'red mugs'),
        (p.Except(MUG, RED), 2, 'mugs'),
        (p.Extreme(p.Purpose('drink'), 'nearest'), 1, 'object to drink from'),
    ],
)
def test_concise_phrases(program, count, expected):
    assert words.concise(program, count) == expected


@pytest.mark.parametrize(
    ('phrase', 'expected'),
    [
        ('apple', 'an apple'),
        ('mug', 'a mug'),
        ('orange mug', 'an orange mug'),
        ('red scissors', 'a pair of red scissors'),
    ],
)
def test_articles(phrase, expected):
    assert indefinite(phrase) == expected


def many(make, count=300):
    """Return all results of `make(wording)` with different random numbers."""
    return {make(Wording(np.random.default_rng(seed))) for seed in range(count)}


def sentences(program, plural, count=300):
    return many(lambda wording: sentence(definite(program, wording, plural=plural), wording, plural=plural), count)


def test_singular_and_plural_agree():
    for program in (RED, p.Relate(MUG, 'in', BOWL), p.Extreme(MUG, 'leftmost'), p.Holding(MUG, 'in', p.Noun('spoon'))):
        for text in sentences(program, plural=False):
            assert 'mugs' not in text
            assert 'Where are' not in text
            assert 'that are' not in text
            assert 'them' not in text
        for text in sentences(program, plural=True):
            assert 'mugs' in text
            assert 'Where is' not in text
            assert 'that is' not in text
            assert ' it.' not in text


def test_both_and_all_three():
    two = many(lambda wording: definite(p.Exactly(MUG, 2), wording, plural=True))
    assert {'both mugs', 'the two mugs', 'both of the mugs'} <= two
    three = many(lambda wording: definite(p.Exactly(p.Noun('knife'), 3), wording, plural=True))
    assert three == {'all three knives', 'the three knives', 'all three of the knives'}


def test_exceptions():
    program = p.Except(MUG, RED)
    several = many(lambda wording: definite(program, wording, plural=True))
    assert {'all mugs except the red one', 'every mug but the red mug', 'the mugs that are not red'} <= several
    single = many(lambda wording: definite(program, wording, plural=False))
    assert 'the mug that is not red' in single
    assert not any(text.startswith('all') for text in single)
    assert all(
        'pair of scissors' in text or 'that are not' in text
        for text in many(lambda wording: definite(p.Except(SCISSORS, p.Color(SCISSORS, 'red')), wording, plural=False))
    )


def test_everything_takes_a_singular_verb():
    program = p.Except(p.Noun('object'), MUG)
    said = sentences(program, plural=True, count=2000)
    assert any(text.lower().startswith('where is everything') for text in said)
    assert not any('are everything' in text.lower() or 'is all' in text.lower() for text in said)


def test_purposes_agree_with_their_verb():
    said = many(lambda wording: definite(p.Purpose('discard'), wording, plural=True))
    assert 'everything that belongs in the bin' in said
    assert 'all the things that belong in the bin' in said
    assert 'the thing that is rubbish' in many(lambda wording: definite(p.Purpose('discard'), wording, plural=False))


def test_every_category_and_intent_has_words():
    assert set(CATEGORIES) < set(words.NOUNS)
    for intent in INTENTS.values():
        assert set(intent.serves) | set(intent.maybe) <= set(CATEGORIES)
        assert not set(intent.serves) & set(intent.maybe)
        assert intent.unseen_questions
        assert not set(intent.unseen_questions) & set(intent.questions)


def test_wordings_reserved_for_unseen_are_marked():
    plain, bold = Wording(np.random.default_rng(0)), Wording(np.random.default_rng(0), unseen=1.0)
    options = words.Wordings(('left of',), ('on the left-hand side of',))
    assert plain.pick(options) == 'left of'
    assert not plain.used_unseen
    assert bold.pick(options) == 'on the left-hand side of'
    assert bold.used_unseen


def test_the_canonical_wording_never_varies():
    assert {canonical(p.Relate(MUG, 'left', BOWL), 1) for _ in range(20)} == {'mug left of the bowl'}

"""The wording of programs: canonical answers, articles, numbers, and what is kept for the split `unseen`."""

import numpy as np
import pytest

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language import words
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.words import Voice, canonical, definite, indefinite, sentence
from instructsam.train.tabletop.world.catalog import CATEGORIES

MUG, BOWL, SCISSORS = p.Kind('mug'), p.Kind('bowl'), p.Kind('scissors')
RED = p.Color(MUG, 'red')


@pytest.mark.parametrize(
    ('program', 'count', 'expected'),
    [
        (MUG, 1, 'mug'),
        (p.Kind('knife'), 2, 'knives'),
        (SCISSORS, 1, 'scissors'),
        (p.Color(SCISSORS, 'red'), 2, 'red pairs of scissors'),
        (p.Size(RED, 'large'), 1, 'large red mug'),
        (p.Material(p.Kind('spoon'), 'wood'), 2, 'wooden spoons'),
        (p.Relate(RED, 'left', BOWL), 1, 'red mug left of the bowl'),
        (p.Relate(p.Relate(MUG, 'left', BOWL), 'near', p.Kind('ball')), 1, 'mug left of the bowl and next to the ball'),
        (p.Between(MUG, BOWL, p.Kind('box')), 1, 'mug between the bowl and the box'),
        (p.Closest(MUG, BOWL, True), 1, 'mug farthest from the bowl'),
        (p.Holding(BOWL, 'in', p.Kind('apple')), 1, 'bowl with an apple in it'),
        (p.Holding(p.Kind('plate'), 'on', MUG), 2, 'plates with a mug on them'),
        (p.Holding(p.Kind('book'), 'on', p.Color(SCISSORS, 'orange')), 1, 'book with a pair of orange scissors on it'),
        (p.Empty(BOWL), 2, 'empty bowls'),
        (p.Extreme(RED, 'largest', 2), 2, 'two largest red mugs'),
        (p.Exactly(p.Kind('box'), 3), 3, 'three boxes'),
        (p.Except(MUG, RED), 2, 'mugs except the red mug'),
        (p.Except(p.Kind('object'), MUG, True), 4, 'objects except the mugs'),
        (p.Use('drink'), 1, 'object to drink from'),
    ],
)
def test_canonical_phrases(program, count, expected):
    assert canonical(program, count) == expected


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
    """All that `make(voice)` says under different random numbers."""
    return {make(Voice(np.random.default_rng(seed))) for seed in range(count)}


def test_singular_and_plural_agree():
    for program in (RED, p.Relate(MUG, 'in', BOWL), p.Extreme(MUG, 'leftmost'), p.Holding(MUG, 'in', p.Kind('spoon'))):
        for text in many(lambda voice: sentence(definite(program, False, voice), False, voice)):
            assert 'mugs' not in text
            assert 'Where are' not in text
            assert 'that are' not in text
            assert 'them' not in text
        for text in many(lambda voice: sentence(definite(program, True, voice), True, voice)):
            assert 'mugs' in text and 'Where is' not in text and 'that is' not in text and ' it.' not in text, text


def test_both_and_all_three():
    two = many(lambda voice: definite(p.Exactly(MUG, 2), True, voice))
    assert {'both mugs', 'the two mugs', 'both of the mugs'} <= two
    three = many(lambda voice: definite(p.Exactly(p.Kind('knife'), 3), True, voice))
    assert three == {'all three knives', 'the three knives', 'all three of the knives'}


def test_exceptions():
    program = p.Except(MUG, RED)
    several = many(lambda voice: definite(program, True, voice))
    assert {'all mugs except the red one', 'every mug but the red mug', 'the mugs that are not red'} <= several
    single = many(lambda voice: definite(program, False, voice))
    assert 'the mug that is not red' in single
    assert not any(text.startswith('all') for text in single)
    assert all(
        'pair of scissors' in text or 'that are not' in text
        for text in many(lambda voice: definite(p.Except(SCISSORS, p.Color(SCISSORS, 'red')), False, voice))
    )


def test_everything_takes_a_singular_verb():
    program = p.Except(p.Kind('object'), MUG)
    said = many(lambda voice: sentence(definite(program, True, voice), True, voice), 2000)
    assert any(text.lower().startswith('where is everything') for text in said)
    assert not any('are everything' in text.lower() or 'is all' in text.lower() for text in said)


def test_purposes_bend_their_verb():
    said = many(lambda voice: definite(p.Use('discard'), True, voice))
    assert 'everything that belongs in the bin' in said
    assert 'all the things that belong in the bin' in said
    assert 'the thing that is rubbish' in many(lambda voice: definite(p.Use('discard'), False, voice))


def test_every_category_and_intent_has_words():
    assert set(CATEGORIES) < set(words.NOUNS)
    for intent in INTENTS.values():
        assert set(intent.serves) | set(intent.maybe) <= set(CATEGORIES)
        assert not set(intent.serves) & set(intent.maybe)
        assert intent.unseen
        assert not set(intent.unseen) & set(intent.asked)


def test_wordings_kept_for_unseen_are_marked():
    plain, bold = Voice(np.random.default_rng(0)), Voice(np.random.default_rng(0), unseen=1.0)
    options = ('left of', '|', 'on the left-hand side of')
    assert plain.pick(options) == 'left of'
    assert not plain.used_unseen
    assert bold.pick(options) == 'on the left-hand side of'
    assert bold.used_unseen


def test_the_canonical_voice_never_varies():
    assert {canonical(p.Relate(MUG, 'left', BOWL), 1) for _ in range(20)} == {'mug left of the bowl'}

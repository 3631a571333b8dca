"""Instructions about a composite in the wordings of the tabletop world, each with a clear answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from instructsam.train.evaluation.real.composite import HEIGHT, WIDTH, Item
from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.words import Wording, concise, definite, is_pair, sentence
from instructsam.train.tabletop.world.looks import confusable

SIDE_GAP = 0.09  # least distance, as a share of the image's width, between middles that are left or right of each other
LARGEST_RATIO = 1.35  # least ratio of the areas of the largest and the second largest object
ABSENT_COLORS = ('red', 'blue', 'green', 'purple')  # yellow is missing, because some call tennis balls yellow
KINDS = ('category', 'attribute', 'relation', 'superlative', 'none')
PER_KIND = {'category': 2, 'attribute': 1, 'relation': 1, 'superlative': 1, 'none': 1}
"""Largest number of instructions of each type about one image."""


@dataclass(frozen=True)
class Question:
    """An instruction, the phrase of its answer, and the indices of its objects."""

    kind: str
    text: str
    phrase: str
    targets: tuple[int, ...]


def ask_known(items: Sequence[Item], nouns: Sequence[str], rng: np.random.Generator) -> list[Question]:
    """Return instructions about the objects of the tabletop world's `nouns`, at most `PER_KIND` of each type."""
    drawn: list[Question] = []
    for kind in KINDS:
        candidates = list(CANDIDATES[kind](items, nouns))
        for index in rng.permutation(len(candidates))[: PER_KIND[kind]]:
            program, targets = candidates[index]
            count = max(1, len(targets))
            wording = Wording(rng)
            phrase = definite(program, wording, plural=count > 1)
            text = sentence(phrase, wording, plural=count > 1 or is_pair(program))
            drawn.append(Question(kind, text, concise(program, count), tuple(targets)))
    return drawn


def ask_other(items: Sequence[Item], rng: np.random.Generator) -> list[Question]:
    """Return an instruction about each object whose noun no other object has."""
    nouns = [item.facts.noun for item in items]
    questions = []
    for index, noun in enumerate(nouns):
        if nouns.count(noun) == 1:
            text = sentence(f'the {noun}', Wording(rng), plural=noun == 'pliers')
            questions.append(Question('category', text, noun, (index,)))
    return questions


Candidates = Iterator[tuple[p.Program, list[int]]]


def _of(items: Sequence[Item], noun: str) -> list[int]:
    return [index for index, item in enumerate(items) if item.facts.noun == noun]


def _present(items: Sequence[Item], nouns: Sequence[str]) -> list[str]:
    return sorted({item.facts.noun for item in items} & set(nouns))


def _categories(items: Sequence[Item], nouns: Sequence[str]) -> Candidates:
    for noun in _present(items, nouns):
        yield p.Noun(noun), _of(items, noun)


def _attributes(items: Sequence[Item], nouns: Sequence[str]) -> Candidates:
    """Yield nouns with a colour that some of their objects have, and that none may be mistaken for."""
    for noun in _present(items, nouns):
        colors = [items[i].facts.color for i in _of(items, noun)]
        for color in sorted(set(colors)):
            if all(colors) and len(set(colors)) > 1 and not any(confusable(color, other) for other in colors):
                yield p.Color(p.Noun(noun), color), [i for i in _of(items, noun) if items[i].facts.color == color]


def _relations(items: Sequence[Item], nouns: Sequence[str]) -> Candidates:
    """Yield objects to the left and right of the only object of another noun."""
    middles = [(item.box[0] + item.box[2]) / 2 for item in items]
    for noun in _present(items, nouns):
        for other in _present(items, nouns):
            if noun == other or len(_of(items, other)) > 1:
                continue
            offsets = {i: (middles[i] - middles[_of(items, other)[0]]) / WIDTH for i in _of(items, noun)}
            if any(abs(offset) < SIDE_GAP for offset in offsets.values()):
                continue
            for relation, sign in (('left', -1), ('right', 1)):
                if targets := [i for i, offset in offsets.items() if offset * sign > 0]:
                    yield p.Relate(p.Noun(noun), relation, p.Noun(other)), targets


def _superlatives(items: Sequence[Item], nouns: Sequence[str]) -> Candidates:
    for noun in _present(items, nouns):
        indices = _of(items, noun)
        if len(indices) < 2:
            continue
        middles = {i: (items[i].box[0] + items[i].box[2]) / 2 / WIDTH for i in indices}
        areas = {i: float(items[i].mask.sum()) / WIDTH / HEIGHT for i in indices}
        ranked = sorted(indices, key=lambda i: middles[i])
        if middles[ranked[1]] - middles[ranked[0]] > SIDE_GAP:
            yield p.Extreme(p.Noun(noun), 'leftmost'), ranked[:1]
        if middles[ranked[-1]] - middles[ranked[-2]] > SIDE_GAP:
            yield p.Extreme(p.Noun(noun), 'rightmost'), ranked[-1:]
        ranked = sorted(indices, key=lambda i: -areas[i])
        if areas[ranked[0]] > LARGEST_RATIO * areas[ranked[1]]:
            yield p.Extreme(p.Noun(noun), 'largest'), ranked[:1]


def _absent(items: Sequence[Item], nouns: Sequence[str]) -> Candidates:
    """Yield nouns that no object has, and colours that no object of a noun may be taken for."""
    for noun in sorted(set(nouns)):
        colors = [items[i].facts.color for i in _of(items, noun)]
        if not colors:
            yield p.Noun(noun), []
        elif all(colors):
            yield from (
                (p.Color(p.Noun(noun), color), [])
                for color in ABSENT_COLORS
                if not any(color == each or confusable(color, each) for each in colors)
            )


CANDIDATES: dict[str, Callable[[Sequence[Item], Sequence[str]], Candidates]] = {
    'category': _categories,
    'attribute': _attributes,
    'relation': _relations,
    'superlative': _superlatives,
    'none': _absent,
}

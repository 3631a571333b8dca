"""The meaning of an instruction: a small program that selects objects of a scene.

Programs are trees of the classes derived from `Program`. Called with a `View` they return the ids of the selected
objects, or raise `BorderlineError` if the answer depends on something that is hard to judge: such instructions are
never generated. `evaluate` runs a program with and without the objects that are barely visible and requires both
answers to agree.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.scenes.scene import Scene, SceneObject
from instructsam.train.tabletop.world.catalog import CATEGORIES, CUTLERY, FRUIT
from instructsam.train.tabletop.world.looks import confusable

GROUPS = {'fruit': FRUIT, 'cutlery': CUTLERY, 'object': tuple(CATEGORIES)}
CLEAR_SHARE = 0.30  # least visible share of an object that instructions refer to
CLEAR_IMAGE_SHARE = 0.0011  # least share of the image that such an object covers: 55 of 224 x 224 pixels
TRACE_IMAGE_SHARE = 0.0001  # an object that covers less of the image counts as invisible


class BorderlineError(InstructSAMError):
    """The scene does not decide the question: two readings, or two people, might differ."""


class View:
    """The objects that a program sees: the clearly visible ones, optionally also those that are barely visible."""

    def __init__(self, scene: Scene, relations: Relations, *, include_barely_visible: bool = False) -> None:
        self.relations = relations
        self.objects = {
            obj.id: obj
            for obj in scene.objects
            if is_clear(obj, scene) or (include_barely_visible and is_visible(obj, scene))
        }


def is_clear(obj: SceneObject, scene: Scene) -> bool:
    """Return whether enough of an object is visible to refer to it."""
    return obj.visible >= CLEAR_SHARE and obj.seen_px >= CLEAR_IMAGE_SHARE * scene.ids.size


def is_visible(obj: SceneObject, scene: Scene) -> bool:
    """Return whether any of an object is visible."""
    return obj.seen_px >= TRACE_IMAGE_SHARE * scene.ids.size


@dataclass(frozen=True)
class Program(ABC):
    """A function from a view to the ids of the selected objects."""

    def __call__(self, view: View) -> set[int]:
        """Return the ids of the selected objects; raise BorderlineError if they are hard to judge."""
        return self._select(view)

    @abstractmethod
    def _select(self, view: View) -> set[int]: ...


@dataclass(frozen=True)
class Filter(Program):
    """A program that selects some of the objects that `of` selects."""

    of: Program


@dataclass(frozen=True)
class Noun(Program):
    """All objects of a category or of a group of categories."""

    noun: str

    def _select(self, view: View) -> set[int]:
        wanted = GROUPS.get(self.noun, (self.noun,))
        return {i for i, obj in view.objects.items() if obj.category in wanted}


@dataclass(frozen=True)
class Purpose(Program):
    """All objects that serve a purpose; borderline if an object might serve it if need be."""

    intent: str

    def _select(self, view: View) -> set[int]:
        intent = INTENTS[self.intent]
        if any(obj.category in intent.maybe for obj in view.objects.values()):
            raise BorderlineError(f'an object might serve to {self.intent}')
        return {i for i, obj in view.objects.items() if obj.category in intent.serves}


@dataclass(frozen=True)
class Color(Filter):
    """The objects of a colour; borderline if one of them may be mistaken for it."""

    color: str

    def _select(self, view: View) -> set[int]:
        selected = self.of(view)
        if any(confusable(view.objects[i].color, self.color) for i in selected):
            raise BorderlineError(f'an object may be mistaken for {self.color}')
        return {i for i in selected if view.objects[i].color == self.color}


@dataclass(frozen=True)
class Material(Filter):
    """The objects of a material; borderline if the colour of another one suggests that material."""

    material: str

    def _select(self, view: View) -> set[int]:
        selected = self.of(view)
        usual = {'metal': 'silver', 'wood': 'brown'}.get(self.material)
        for obj in (view.objects[i] for i in selected):
            if obj.material != self.material and usual and (obj.color == usual or confusable(obj.color, usual)):
                raise BorderlineError(f'an object may be mistaken for {self.material}')
        return {i for i in selected if view.objects[i].material == self.material}


@dataclass(frozen=True)
class Size(Filter):
    """The small or the large ones of one category; borderline unless it has both sizes and no medium ones."""

    size: str

    def _select(self, view: View) -> set[int]:
        selected = self.of(view)
        sizes = {view.objects[i].size for i in selected}
        if sizes != {'small', 'large'} or len({view.objects[i].category for i in selected}) > 1:
            raise BorderlineError('only small and large objects of one category can be distinguished by size')
        picked = {i for i in selected if view.objects[i].size == self.size}
        _ranked(selected, view.relations.bulk, len(picked), descending=self.size == 'large', ratio=1.25)
        return picked


@dataclass(frozen=True)
class Relate(Filter):
    """The objects in a relation to the one object that `anchor` selects."""

    relation: str
    anchor: Program

    def _select(self, view: View) -> set[int]:
        anchor = select_one(self.anchor, view)
        return _certain(self.of(view), lambda i: view.relations.holds(self.relation, i, anchor))


@dataclass(frozen=True)
class Between(Filter):
    """The objects between the objects that `first` and `second` select."""

    first: Program
    second: Program

    def _select(self, view: View) -> set[int]:
        first, second = select_one(self.first, view), select_one(self.second, view)
        if first == second:
            raise BorderlineError('nothing lies between an object and itself')
        return _certain(self.of(view) - {first, second}, lambda i: view.relations.between(i, first, second))


@dataclass(frozen=True)
class Holding(Filter):
    """The objects that carry, in or on them, one of the objects that `held` selects."""

    relation: str
    held: Program

    def _select(self, view: View) -> set[int]:
        held = self.held(view)
        return {i for i in self.of(view) if any(view.relations.holds(self.relation, k, i) for k in held)}


@dataclass(frozen=True)
class Empty(Filter):
    """The objects with nothing in or on them."""

    def _select(self, view: View) -> set[int]:
        carriers = {obj.parent for obj in view.objects.values()}
        return {i for i in self.of(view) if i not in carriers}


@dataclass(frozen=True)
class Extreme(Filter):
    """The `count` leftmost, rightmost, nearest, farthest (from the camera), largest or smallest ones.

    Distance and size are each measured in two ways, on the table and in the image; borderline if they disagree.
    """

    order: str
    count: int = 1

    def _select(self, view: View) -> set[int]:
        selected, relations, objects = self.of(view), view.relations, view.objects
        if self.order in ('leftmost', 'rightmost'):
            gap_px = 0.08 * relations.width
            return _ranked(
                selected, relations.across, self.count, descending=self.order == 'rightmost', least_gap=gap_px
            )
        if self.order in ('nearest', 'farthest'):
            farthest = self.order == 'farthest'
            return _agreed(
                _ranked(selected, relations.away, self.count, descending=farthest, least_gap=0.05),
                _ranked(selected, lambda i: objects[i].camera_m[2], self.count, descending=farthest, least_gap=0.02),
            )
        largest = self.order == 'largest'
        return _agreed(
            _ranked(selected, relations.bulk, self.count, descending=largest, ratio=1.2),
            _ranked(selected, lambda i: objects[i].whole_px, self.count, descending=largest, ratio=1.25),
        )


@dataclass(frozen=True)
class Closest(Filter):
    """The object closest to, or farthest from, the one object that `anchor` selects.

    The distance is measured between the centres and between the outlines; borderline if they disagree.
    """

    anchor: Program
    farthest: bool = False

    def _select(self, view: View) -> set[int]:
        anchor, relations = select_one(self.anchor, view), view.relations
        selected = self.of(view) - {anchor}
        if any(view.objects[i].parent == anchor or view.objects[anchor].parent == i for i in selected):
            raise BorderlineError('an object in or on the anchor is neither near nor far')
        return _agreed(
            _ranked(
                selected,
                lambda i: relations.distance(i, anchor),
                1,
                descending=self.farthest,
                least_gap=0.03,
                ratio=1.25,
            ),
            _ranked(selected, lambda i: relations.gap(i, anchor), 1, descending=self.farthest, least_gap=0.015),
        )


@dataclass(frozen=True)
class Exactly(Filter):
    """All objects that `of` selects, stating that there are `count`."""

    count: int

    def _select(self, view: View) -> set[int]:
        selected = self.of(view)
        if len(selected) != self.count:
            raise BorderlineError(f'there are {len(selected)}, not {self.count}')
        return selected


@dataclass(frozen=True)
class Except(Filter):
    """The objects that `of` selects without those that `but` selects: one of them, or `several`, but never all."""

    but: Program
    several: bool = False

    def _select(self, view: View) -> set[int]:
        selected, excluded = self.of(view), self.but(view)
        if not excluded < selected or (len(excluded) > 1) != self.several or not excluded:
            raise BorderlineError('an exception excludes one object, or several if it says so, but never all')
        return selected - excluded


def _certain(candidates: set[int], holds: Callable[[int], bool | None]) -> set[int]:
    """Return those of `candidates` for which `holds` is True; raise BorderlineError if it is None for any."""
    answers = {i: holds(i) for i in candidates}
    if None in answers.values():
        raise BorderlineError('a relation is hard to judge')
    return {i for i, answer in answers.items() if answer}


def select_one(program: Program, view: View) -> int:
    """Return the id of the only object that `program` selects; raise BorderlineError if there is not exactly one."""
    selected = program(view)
    if len(selected) != 1:
        raise BorderlineError(f'one object is meant, but {len(selected)} fit')
    return next(iter(selected))


def _ranked(
    candidates: set[int],
    measure: Callable[[int], float],
    count: int,
    *,
    descending: bool,
    least_gap: float = 0.0,
    ratio: float = 1.0,
) -> set[int]:
    """Return the first `count` of `candidates` in the order of a measure.

    Args:
        candidates: Ids of objects.
        measure: Maps an id to a value.
        count: Number of objects to select.
        descending: Select those with the largest values instead of the smallest.
        least_gap: Least difference between the values of the last selected object and the next one.
        ratio: Least ratio of these values.

    Raises:
        BorderlineError: There are no others to compare, or the next one is too close.
    """
    if len(candidates) <= count:
        raise BorderlineError('a superlative needs other objects to compare')
    ranked = sorted(candidates, key=lambda i: (measure(i), i), reverse=descending)
    inside, outside = measure(ranked[count - 1]), measure(ranked[count])
    low, high = min(inside, outside), max(inside, outside)
    if high - low < least_gap or high < ratio * low:
        raise BorderlineError('two objects are too close to be ranked')
    return set(ranked[:count])


def _agreed(first: set[int], second: set[int]) -> set[int]:
    if first != second:
        raise BorderlineError('two measures of the same superlative disagree')
    return first


def evaluate(program: Program, scene: Scene, relations: Relations | None = None) -> tuple[int, ...]:
    """Return the ground truth of a program: the sorted ids that it selects in `scene`.

    Raises:
        BorderlineError: The answer is hard to judge, or barely visible objects would change it.
    """
    relations = relations or Relations(scene)
    selected = program(View(scene, relations))
    if selected != program(View(scene, relations, include_barely_visible=True)):
        raise BorderlineError('a barely visible object would change the answer')
    return tuple(sorted(selected))


def operands(program: Program) -> list[Any]:
    """Return the values of the program's fields in order."""
    return [getattr(program, field.name) for field in fields(program)]


def subprograms(program: Program) -> Iterator[Program]:
    """Yield the program and all programs within it."""
    yield program
    for operand in operands(program):
        if isinstance(operand, Program):
            yield from subprograms(operand)


def heads(program: Program) -> Iterator[Program]:
    """Yield the program and the programs that it restricts, outermost first, down to the noun or purpose."""
    yield program
    if isinstance(program, Filter):
        yield from heads(program.of)


def anchors(program: Program, view: View) -> set[int]:
    """Return the ids of the objects that a program names beside its own: anchors, contents, exceptions."""
    named = set()
    for part in subprograms(program):
        if isinstance(part, Filter):
            for operand in operands(part)[1:]:  # the first one is what it restricts
                named |= operand(view) if isinstance(operand, Program) else set()
    return named


def operator_name(program: Program) -> str:
    """Return the name of the program's class as used in record files and in `splits.HELD_OUT_COMBINATIONS`."""
    return {Noun: 'Kind', Purpose: 'Use'}.get(type(program), type(program).__name__)


def to_text(program: Program) -> str:
    """Return the program as text, e.g. `Relate(Color(Kind(mug), red), left, Kind(bowl))`."""
    texts = [to_text(operand) if isinstance(operand, Program) else str(operand) for operand in operands(program)]
    return f'{operator_name(program)}({", ".join(texts)})'

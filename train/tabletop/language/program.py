"""The meaning of an instruction: a small program that picks objects of a scene.

Programs are trees of the classes below; called with a `View` they return the ids that they pick. Where the answer
would rest on something hard to tell they raise `BorderlineError`: such instructions are never asked. `truth` runs a
program twice, with and without the objects that are barely seen, and trusts it only if both agree.
"""

from dataclasses import dataclass, fields

from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.world.catalog import CATEGORIES, CUTLERY, FRUIT
from instructsam.train.tabletop.world.looks import confusable

GROUPS = {'fruit': FRUIT, 'cutlery': CUTLERY, 'object': tuple(CATEGORIES)}
VISIBLE = 0.30  # share of an object that must be seen
SEEN = 0.0011  # and of the picture that it must cover: 55 of 224 x 224 pixels
TRACE = 0.0001  # an object of fewer pixels is not there for anybody


class BorderlineError(Exception):
    """The scene does not decide the question: two readings, or two people, might differ."""


class View:
    """The objects that a program may see: `clear` ones only, or also those barely seen."""

    def __init__(self, scene, relations, barely=False):
        self.relations = relations
        self.objects = {
            item.id: item for item in scene.objects if is_clear(item, scene) or (barely and is_there(item, scene))
        }


def is_clear(item, scene):
    """Whether an object is seen well enough to be asked for."""
    return item.visible >= VISIBLE and item.seen_px >= SEEN * scene.ids.size


def is_there(item, scene):
    """Whether anything of an object can be seen at all."""
    return item.seen_px >= TRACE * scene.ids.size


@dataclass(frozen=True)
class Kind:
    """All objects of a category or of a group of categories."""

    noun: str

    def __call__(self, view):
        wanted = GROUPS.get(self.noun, (self.noun,))
        return {i for i, item in view.objects.items() if item.category in wanted}


@dataclass(frozen=True)
class Use:
    """All objects that serve a purpose; those that might at a pinch make it borderline."""

    intent: str

    def __call__(self, view):
        intent = INTENTS[self.intent]
        if any(item.category in intent.maybe for item in view.objects.values()):
            raise BorderlineError(f'something might serve to {self.intent}')
        return {i for i, item in view.objects.items() if item.category in intent.serves}


@dataclass(frozen=True)
class Color:
    """Those of a colour; one that may pass for it makes it borderline."""

    of: object
    color: str

    def __call__(self, view):
        found = self.of(view)
        if any(confusable(view.objects[i].color, self.color) for i in found):
            raise BorderlineError(f'something may pass for {self.color}')
        return {i for i in found if view.objects[i].color == self.color}


@dataclass(frozen=True)
class Material:
    """Those of a material; one that looks like it by its colour makes it borderline."""

    of: object
    material: str

    def __call__(self, view):
        found = self.of(view)
        usual = {'metal': 'silver', 'wood': 'brown'}.get(self.material)
        for item in (view.objects[i] for i in found):
            if item.material != self.material and usual and (item.color == usual or confusable(item.color, usual)):
                raise BorderlineError(f'something may pass for {self.material}')
        return {i for i in found if view.objects[i].material == self.material}


@dataclass(frozen=True)
class Size:
    """The small or the large ones of one category: only where there are others to compare, none of them medium."""

    of: object
    size: str

    def __call__(self, view):
        found = self.of(view)
        sizes = {view.objects[i].size for i in found}
        if sizes != {'small', 'large'} or len({view.objects[i].category for i in found}) > 1:
            raise BorderlineError('sizes are told apart only between small and large ones of a kind')
        picked = {i for i in found if view.objects[i].size == self.size}
        _ordered(view, found, lambda i: view.relations.bulk(i), len(picked), self.size == 'large', ratio=1.25)
        return picked


@dataclass(frozen=True)
class Relate:
    """Those that lie `relation` of the one object that `anchor` picks."""

    of: object
    relation: str
    anchor: object

    def __call__(self, view):
        anchor = one(self.anchor, view)
        return _certain(self.of(view), lambda i: view.relations.holds(self.relation, i, anchor))


@dataclass(frozen=True)
class Between:
    """Those between the objects that `first` and `second` pick."""

    of: object
    first: object
    second: object

    def __call__(self, view):
        first, second = one(self.first, view), one(self.second, view)
        if first == second:
            raise BorderlineError('nothing lies between an object and itself')
        return _certain(self.of(view) - {first, second}, lambda i: view.relations.between(i, first, second))


@dataclass(frozen=True)
class Holding:
    """Those with one of what `item` picks in or on them."""

    of: object
    relation: str
    item: object

    def __call__(self, view):
        items = self.item(view)
        return {i for i in self.of(view) if any(view.relations.holds(self.relation, k, i) for k in items)}


@dataclass(frozen=True)
class Empty:
    """Those with nothing in or on them."""

    of: object

    def __call__(self, view):
        taken = {item.parent for item in view.objects.values()}
        return {i for i in self.of(view) if i not in taken}


@dataclass(frozen=True)
class Extreme:
    """The `count` that are most leftmost, rightmost, nearest, farthest (from the camera), largest or smallest."""

    of: object
    order: str
    count: int = 1

    def __call__(self, view):
        found, relations = self.of(view), view.relations
        if self.order in ('leftmost', 'rightmost'):
            gap = 0.08 * relations.width
            return _ordered(view, found, relations.across, self.count, self.order == 'rightmost', gap=gap)
        if self.order in ('nearest', 'farthest'):
            low = _ordered(view, found, relations.away, self.count, self.order == 'farthest', gap=0.05)
            far = _ordered(
                view, found, lambda i: view.objects[i].camera_m[2], self.count, self.order == 'farthest', gap=0.02
            )
            return _agree(low, far)
        bulk = _ordered(view, found, relations.bulk, self.count, self.order == 'largest', ratio=1.2)
        return _agree(
            bulk,
            _ordered(view, found, lambda i: view.objects[i].whole_px, self.count, self.order == 'largest', ratio=1.25),
        )


@dataclass(frozen=True)
class Closest:
    """The one closest to, or farthest from, the one object that `anchor` picks."""

    of: object
    anchor: object
    farthest: bool = False

    def __call__(self, view):
        anchor = one(self.anchor, view)
        found = self.of(view) - {anchor}
        if any(view.objects[i].parent == anchor or view.objects[anchor].parent == i for i in found):
            raise BorderlineError('what lies in or on the anchor is neither near nor far')
        by_middle = _ordered(
            view, found, lambda i: view.relations.distance(i, anchor), 1, self.farthest, gap=0.03, ratio=1.25
        )
        by_gap = _ordered(view, found, lambda i: view.relations.gap(i, anchor), 1, self.farthest, gap=0.015)
        return _agree(by_middle, by_gap)


@dataclass(frozen=True)
class Exactly:
    """All of them, said to be `count`."""

    of: object
    count: int

    def __call__(self, view):
        found = self.of(view)
        if len(found) != self.count:
            raise BorderlineError(f'there are {len(found)}, not {self.count}')
        return found


@dataclass(frozen=True)
class Except:
    """Those that `of` picks without those that `but` picks: one of them, or `several`, never all."""

    of: object
    but: object
    several: bool = False

    def __call__(self, view):
        found, left_out = self.of(view), self.but(view)
        if not left_out < found or (len(left_out) > 1) != self.several or not left_out:
            raise BorderlineError('an exception takes away one, or several where it says so, but never all')
        return found - left_out


def _certain(found, answer):
    """Those of `found` for which the three-valued `answer` is yes; any that is unsure makes the whole borderline."""
    answers = {i: answer(i) for i in found}
    if None in answers.values():
        raise BorderlineError('a relation is hard to tell')
    return {i for i, yes in answers.items() if yes}


def one(program, view):
    """The id of the only object that `program` picks; raises BorderlineError if it is none or several."""
    found = program(view)
    if len(found) != 1:
        raise BorderlineError(f'{len(found)} objects where one is meant')
    return next(iter(found))


def _ordered(view, found, measure, count, most, gap=0.0, ratio=1.0):
    """The `count` of `found` with the least (or `most`) of a measure, clearly apart from the next."""
    if len(found) <= count:
        raise BorderlineError('a superlative needs others to compare')
    ranked = sorted(found, key=lambda i: (measure(i), i), reverse=most)
    inside, outside = measure(ranked[count - 1]), measure(ranked[count])
    low, high = min(inside, outside), max(inside, outside)
    if high - low < gap or high < ratio * low:
        raise BorderlineError('a close race')
    return set(ranked[:count])


def _agree(first, second):
    if first != second:
        raise BorderlineError('two measures of the same superlative differ')
    return first


def truth(program, scene, relations=None):
    """The ids that `program` picks in `scene`, sorted; BorderlineError if barely seen objects would change it."""
    relations = relations or Relations(scene)
    clear = program(View(scene, relations))
    if clear != program(View(scene, relations, barely=True)):
        raise BorderlineError('a barely visible object would change the answer')
    return tuple(sorted(clear))


def parts(program):
    """The program and all programs within it."""
    yield program
    for field in fields(program):
        value = getattr(program, field.name)
        if hasattr(value, '__dataclass_fields__'):
            yield from parts(value)


def heads(program):
    """The program and what it narrows down, outermost first, down to the noun."""
    while program is not None:
        yield program
        program = getattr(program, 'of', None)


def show(program):
    """The program as text, e.g. `Relate(Color(Kind(mug), red), left, Kind(bowl))`."""
    values = (getattr(program, field.name) for field in fields(program))
    inner = (show(value) if hasattr(value, '__dataclass_fields__') else str(value) for value in values)
    return f'{type(program).__name__}({", ".join(inner)})'

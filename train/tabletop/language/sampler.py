"""Random programs of every type about a scene: candidates, most of which have no clear answer in the scene."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.program import Program
from instructsam.train.tabletop.language.relations import PAIRWISE, Relations
from instructsam.train.tabletop.scenes.scene import Scene
from instructsam.train.tabletop.world.catalog import CATEGORIES
from instructsam.train.tabletop.world.looks import confusable
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS

MATERIALS = {  # materials of each category that can be recognised in an image
    'spoon': ('wood', 'metal', 'plastic'),
    'fork': ('metal', 'plastic'),
    'bowl': ('wood', 'metal'),
    'tray': ('wood', 'metal'),
    'bottle': ('glass', 'plastic'),
    'teapot': ('metal', 'ceramic'),
}
EMPTIABLE = ('mug', 'bowl', 'plate', 'tray', 'pan')
DEEP = ('bowl', 'pan', 'mug')  # carriers that hold objects "in" rather than "on" them
POSITIONS = ('leftmost', 'rightmost', 'nearest', 'farthest')
ORDERS = (*POSITIONS, 'largest', 'smallest')

T = TypeVar('T')


class InstructionSampler:
    """Draws programs about one scene by type of instruction."""

    def __init__(self, scene: Scene, relations: Relations, rng: np.random.Generator) -> None:
        self.scene, self.relations, self.rng = scene, relations, rng
        self.view = p.View(scene, relations)
        self.clear = sorted(self.view.objects)
        self.nouns = [self.view.objects[i].category for i in self.clear]
        self.repeated = sorted({noun for noun in self.nouns if self.nouns.count(noun) > 1})
        self.carried = [i for i in self.clear if self.view.objects[i].parent in self.view.objects]
        self._types: dict[str, Callable[[], Program | None]] = {
            'category': self._category,
            'attribute': self._attribute,
            'relation': self._relation,
            'containment': self._containment,
            'superlative': self._superlative,
            'counting': self._counting,
            'exclusion': self._exclusion,
            'intent': self._intent,
            'none': self._none,
        }

    def sample(self, kind: str) -> tuple[Program, ...] | None:
        """Draw an instruction of a type: one program per answer phrase, or None if the scene does not allow it.

        Args:
            kind: 'union', which has several programs, or one of the types in `instructions.KINDS`, or 'none'.
        """
        if kind == 'union':
            return self._union()
        program = self._types[kind]()
        return None if program is None else (program,)

    def sample_held_out(self, kind: str) -> tuple[Program, ...] | None:
        """Draw an instruction with operators that never occur together in training, or None if the type has none.

        See `splits.HELD_OUT_COMBINATIONS`.
        """
        noun = p.Noun(self._noun(1.0))
        colored = p.Color(noun, self._color_of(noun.noun))
        types: dict[str, Callable[[], Program | None]] = {
            'relation': partial(self._held_out_relation, noun),
            'exclusion': self._held_out_exclusion,
            'superlative': partial(self._held_out_superlative, noun),
            'counting': partial(self._held_out_counting, noun, colored),
            'intent': self._held_out_intent,
        }
        program = types[kind]() if kind in types else None
        return None if program is None else (program,)

    def _choose(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def _noun(self, repeated: float = 0.6) -> str:
        """Draw a noun of the scene, with probability `repeated` one that several objects share."""
        if self.repeated and self._chance(repeated):
            return self._choose(self.repeated)
        return self._choose(self.nouns)

    def _base(self, repeated: float = 0.6, plain: float = 0.7, group: float = 0.08) -> Program:
        """Draw a noun or a coloured noun.

        Args:
            repeated: Probability of a noun that several objects share.
            plain: Probability of no colour.
            group: Probability of a group of categories.
        """
        if self._chance(group):
            return p.Noun(self._choose(('fruit', 'cutlery')))
        noun = self._noun(repeated)
        return p.Noun(noun) if self._chance(plain) else p.Color(p.Noun(noun), self._color_of(noun))

    def _color_of(self, noun: str) -> str:
        return self._choose([obj.color for obj in self.view.objects.values() if obj.category == noun])

    def _material_of(self, noun: str) -> str | None:
        materials = MATERIALS.get(noun)
        return self._choose(materials) if materials else None

    def _name(self, object_id: int) -> Program | None:
        """Return a program that selects this object only, by noun, colour or size, or None if there is none."""
        obj = self.view.objects[object_id]
        noun = p.Noun(obj.category)
        options: list[Program] = [noun, p.Color(noun, obj.color), p.Size(noun, obj.size)]
        if self._chance(0.3):
            options = options[1:]
        if self._chance(0.05):
            options = [p.Extreme(noun, self._choose(POSITIONS)), *options]
        for option in options:
            if self._selected(option) == {object_id}:
                return option
        return None

    def _selected(self, program: Program) -> set[int] | None:
        try:
            return program(self.view)
        except p.BorderlineError:
            return None

    def _anchor(self, excluded: str | None = None) -> Program | None:
        """Return a program for one object of another category than `excluded`."""
        options = [i for i in self.clear if self.view.objects[i].category != excluded]
        return self._name(self._choose(options)) if options else None

    def _sized(self, base: Program) -> Program:
        return p.Size(base, self._choose(('small', 'large')))

    def _category(self) -> Program:
        if self._chance(0.12):
            return p.Noun(self._choose(('fruit', 'cutlery')))
        return p.Noun(self._noun(0.4))

    def _attribute(self) -> Program | None:
        name = self._noun(0.85)
        noun, dice = p.Noun(name), self.rng.random()
        if dice < 0.68:
            return p.Color(noun, self._color_of(name))
        if dice < 0.80:
            return self._sized(noun)
        if dice < 0.87:
            return self._sized(p.Color(noun, self._color_of(name)))
        if dice < 0.93:
            return p.Color(p.Noun('object'), self._color_of(name))
        material = self._material_of(name)
        return p.Material(noun, material) if material else None

    def _relation(self) -> Program | None:
        base = self._base(0.85, plain=0.75)
        noun = next(part.noun for part in p.subprograms(base) if isinstance(part, p.Noun))
        anchor, other = self._anchor(noun), self._anchor(noun)
        if anchor is None or other is None:
            return None
        dice = self.rng.random()
        if dice < 0.12:
            return p.Between(base, anchor, other)
        if dice < 0.26:
            return p.Closest(base, anchor, farthest=self._chance(0.4))
        relation, second = self._choose(PAIRWISE), self._choose(PAIRWISE)
        program = p.Relate(base, relation, anchor)
        if self._chance(0.15) and second != relation and other != anchor:
            program = p.Relate(program, second, other)
        if self._chance(0.06):
            program = p.Relate(self._sized(base), program.relation, anchor)
        if self._chance(0.06):
            material = self._material_of(noun)
            return p.Relate(p.Material(p.Noun(noun), material), program.relation, anchor) if material else None
        return program

    def _containment(self) -> Program | None:
        dice = self.rng.random()
        if dice < 0.18:
            carriers = [noun for noun in self.nouns if noun in EMPTIABLE]
            return p.Empty(p.Noun(self._choose(carriers))) if carriers else None
        if not self.carried:
            return None
        item = self.view.objects[self._choose(self.carried)]
        carrier = self.view.objects[item.parent]
        noun = p.Noun(item.category)
        if dice < 0.5:
            held = noun if self._chance(0.7) else p.Color(noun, item.color)
            of = p.Noun(carrier.category) if self._chance(0.8) else p.Noun('object')
            return p.Holding(of, item.relation, held)
        anchor = self._name(item.parent)
        if anchor is None:
            return None
        dice = self.rng.random()
        inner = noun if dice < 0.6 else p.Noun('object') if dice < 0.85 else p.Color(noun, item.color)
        return p.Relate(inner, item.relation, anchor)

    def _superlative(self) -> Program:
        base = self._base(0.95, plain=0.8)
        if self._chance(0.1):
            base = p.Noun('object')
        if self._chance(0.12):
            base = self._containment() or base
        return p.Extreme(base, self._choose(ORDERS))

    def _counting(self) -> Program | None:
        if self._chance(0.45):
            base = p.Noun('object') if self._chance(0.1) else self._base(1.0, plain=0.85)
            return p.Extreme(base, self._choose(ORDERS), int(self.rng.choice((2, 2, 2, 3))))
        base = self._base(1.0, plain=0.7, group=0.15)
        if self._chance(0.15):
            base = self._containment() or base
        selected = self._selected(base)
        return p.Exactly(base, len(selected)) if selected and 2 <= len(selected) <= 4 else None

    def _exclusion(self) -> Program | None:
        exception = self._exception()
        excluded = self._selected(exception.but) if exception else None
        return p.Except(exception.of, exception.but, len(excluded) > 1) if exception and excluded else None

    def _exception(self) -> p.Except | None:
        """Draw an exclusion whose `several` is not set yet."""
        dice = self.rng.random()
        if dice < 0.3:
            but = p.Noun(self._noun()) if self._chance(0.4) else self._name(self._choose(self.clear))
            return p.Except(p.Noun('object'), but) if but else None
        if dice < 0.78:
            name = self._noun(1.0)
            noun = p.Noun(name)
            if self._chance(0.25):
                return p.Except(noun, p.Extreme(noun, self._choose(ORDERS)))
            return p.Except(noun, p.Color(noun, self._color_of(name)))
        if dice < 0.9:
            group = self._choose(('fruit', 'cutlery'))
            return p.Except(p.Noun(group), p.Noun(self._choose(p.GROUPS[group])))
        if not self.carried:
            return None
        item = self.view.objects[self._choose(self.carried)]
        anchor = self._name(item.parent)
        return p.Except(p.Relate(p.Noun('object'), item.relation, anchor), p.Noun(item.category)) if anchor else None

    def _union(self) -> tuple[Program, ...] | None:
        """Draw two programs for different objects, sometimes three, sometimes one of them without a target."""
        types = (self._category, self._attribute, self._relation, self._superlative, self._containment)
        count = 3 if self._chance(0.15) else 2
        drawn = [types[self.rng.choice(5, p=(0.4, 0.25, 0.12, 0.12, 0.11))]() for _ in range(count)]
        programs = [program for program in drawn if program and self._selected(program)]
        if len(programs) < count:
            return None
        nouns = {list(p.heads(program))[-1] for program in programs}
        if len(nouns) < count and not all(isinstance(program, p.Color) for program in programs):
            return None  # avoids "the bananas and the green banana"
        if self._chance(0.12):
            programs[-1] = self._absent_noun()
        return tuple(programs)

    def _intent(self) -> Program | None:
        served = [key for key, intent in INTENTS.items() if set(intent.serves) & set(self.nouns)]
        if not served:
            return None
        purpose = p.Purpose(self._choose(served))
        dice = self.rng.random()
        if dice < 0.1:
            return p.Color(purpose, self._choose([obj.color for obj in self.view.objects.values()]))
        if dice < 0.2:
            anchor = self._anchor()
            return p.Relate(purpose, self._choose(PAIRWISE), anchor) if anchor else None
        if dice < 0.26:
            return p.Extreme(purpose, self._choose(POSITIONS))
        return purpose

    def _absent_noun(self) -> p.Noun:
        """Draw a noun that does not occur in the scene."""
        present = {obj.category for obj in self.scene.objects}
        return p.Noun(self._choose([noun for noun in CATEGORIES if noun not in present]))

    def _none(self) -> Program | None:
        """Draw a program without targets that mostly fails by one detail, such as the colour or the relation.

        The types that most often turn out to have a target after all are drawn most often.
        """
        types = (
            self._wrong_color,
            self._wrong_noun,
            self._absent_noun,
            self._wrong_relation,
            self._wrong_carrier,
            self._wrong_material,
            self._unserved_purpose,
        )
        return types[self.rng.choice(7, p=(0.19, 0.09, 0.06, 0.34, 0.22, 0.04, 0.06))]()

    def _wrong_color(self) -> Program | None:
        """Draw a noun with a colour that it could have, or that another object of the scene has."""
        noun = self._noun(0.4)
        possible = [color for appearance in CATEGORIES[noun].appearances for color in appearance.colors]
        nearby = [obj.color for obj in self.view.objects.values()]
        actual = {obj.color for obj in self.scene.objects if obj.category == noun}
        wrong = [c for c in [*possible, *nearby] if not any(a == c or confusable(c, a) for a in actual)]
        held_out = [color for color in wrong if self.scene.split == 'unseen' and (noun, color) in HELD_OUT_PAIRS]
        return p.Color(p.Noun(noun), self._choose(held_out or wrong)) if wrong else None

    def _wrong_noun(self) -> Program | None:
        """Draw an absent noun with the colour of an object of the scene."""
        absent = self._absent_noun()
        possible = {color for appearance in CATEGORIES[absent.noun].appearances for color in appearance.colors}
        shared = [obj.color for obj in self.view.objects.values() if obj.color in possible]
        return p.Color(absent, self._choose(shared)) if shared else None

    def _wrong_relation(self) -> Program | None:
        noun = self._noun(0.4)
        anchor = self._anchor(noun)
        base = p.Noun(noun) if self._chance(0.7) else p.Color(p.Noun(noun), self._color_of(noun))
        return p.Relate(base, self._choose(PAIRWISE), anchor) if anchor else None

    def _wrong_carrier(self) -> Program | None:
        """Draw an object of the scene in or on a carrier of the scene, or an empty carrier."""
        carriers = [i for i in self.clear if CATEGORIES[self.view.objects[i].category].holds]
        if not carriers:
            return None
        carrier = self._choose(carriers)
        category = self.view.objects[carrier].category
        if category in EMPTIABLE and self._chance(0.2):
            return p.Empty(p.Noun(category))
        noun, anchor = self._noun(0.2), self._name(carrier)
        relation = 'in' if category in DEEP else 'on'
        return p.Relate(p.Noun(noun), relation, anchor) if anchor and noun != category else None

    def _wrong_material(self) -> Program | None:
        noun = self._noun(0.4)
        material = self._material_of(noun)
        return p.Material(p.Noun(noun), material) if material else None

    def _unserved_purpose(self) -> Program:
        present = {obj.category for obj in self.scene.objects}
        return p.Purpose(self._choose([key for key, intent in INTENTS.items() if not set(intent.serves) & present]))

    def _held_out_relation(self, noun: p.Noun) -> Program | None:
        anchor, other = self._anchor(noun.noun), self._anchor(noun.noun)
        material = self._material_of(noun.noun)
        sized = self._sized(noun)
        if not anchor or not other or anchor == other:
            return None
        return self._choose(
            [
                p.Relate(p.Relate(noun, 'left', anchor), 'behind', other),
                p.Relate(p.Relate(noun, 'right', anchor), 'near', other),
                p.Relate(sized, 'behind', anchor),
                p.Relate(p.Material(noun, material), 'front', anchor) if material else None,
            ]
        )

    def _held_out_exclusion(self) -> Program | None:
        if not self.carried:
            return None
        item = self.view.objects[self._choose(self.carried)]
        anchor = self._name(item.parent)
        return p.Except(p.Relate(p.Noun('object'), 'in', anchor), p.Noun(item.category)) if anchor else None

    def _held_out_superlative(self, noun: p.Noun) -> Program | None:
        on_carrier = [i for i in self.carried if self.view.objects[i].relation == 'on']
        anchor = self._name(self.view.objects[self._choose(on_carrier)].parent) if on_carrier else None
        return self._choose(
            [
                p.Extreme(p.Relate(p.Noun('object'), 'on', anchor), 'leftmost') if anchor else None,
                p.Extreme(p.Empty(noun), 'nearest') if noun.noun in EMPTIABLE else None,
            ]
        )

    def _held_out_counting(self, noun: p.Noun, colored: p.Color) -> Program:
        return p.Extreme(self._choose((noun, colored)), 'rightmost', 2)

    def _held_out_intent(self) -> Program | None:
        purpose = self._intent()
        colors = [obj.color for obj in self.view.objects.values()]
        return p.Color(purpose, self._choose(colors)) if isinstance(purpose, p.Purpose) else None

"""Random programs of every type about a scene: candidates, most of which the scene does not bear out."""

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.relations import PAIRWISE
from instructsam.train.tabletop.world.catalog import CATEGORIES
from instructsam.train.tabletop.world.looks import confusable
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS

MATERIALS = {  # where the material can be told by looking
    'spoon': ('wood', 'metal', 'plastic'),
    'fork': ('metal', 'plastic'),
    'bowl': ('wood', 'metal'),
    'tray': ('wood', 'metal'),
    'bottle': ('glass', 'plastic'),
    'teapot': ('metal', 'ceramic'),
}
EMPTIABLE = ('mug', 'bowl', 'plate', 'tray', 'pan')
ORDERS = ('leftmost', 'rightmost', 'nearest', 'farthest', 'largest', 'smallest')


class Drafts:
    """Draws programs about one scene. Every method returns a program (union: several) or None."""

    def __init__(self, scene, relations, rng):
        self.scene, self.relations, self.rng = scene, relations, rng
        self.view = p.View(scene, relations)
        self.clear = sorted(self.view.objects)
        self.nouns = [self.view.objects[i].category for i in self.clear]
        self.repeated = sorted({noun for noun in self.nouns if self.nouns.count(noun) > 1})
        self.carried = [i for i in self.clear if self.view.objects[i].parent in self.view.objects]

    def pick(self, options):
        """One of a sequence, or None of an empty one."""
        return options[self.rng.integers(len(options))] if len(options) else None

    def chance(self, share):
        return self.rng.random() < share

    def noun(self, repeated=0.6):
        """A noun of the scene, rather one that several objects share."""
        if self.repeated and self.chance(repeated):
            return self.pick(self.repeated)
        return self.pick(self.nouns)

    def base(self, repeated=0.6, plain=0.7, group=0.08):
        """A noun, sometimes with a colour."""
        if self.chance(group):
            return p.Kind(self.pick(('fruit', 'cutlery')))
        noun = self.noun(repeated)
        return p.Kind(noun) if self.chance(plain) else p.Color(p.Kind(noun), self.color_of(noun))

    def color_of(self, noun):
        return self.pick([item.color for item in self.view.objects.values() if item.category == noun])

    def name(self, item):
        """A program that picks the object with id `item` and no other, by noun, colour or size, or None."""
        thing = self.view.objects[item]
        kind = p.Kind(thing.category)
        options = [kind, p.Color(kind, thing.color), p.Size(kind, thing.size)]
        if self.chance(0.3):
            options = options[1:]
        if self.chance(0.05):
            options = [p.Extreme(kind, self.pick(ORDERS[:4])), *options]
        for option in options:
            if self._finds(option) == {item}:
                return option
        return None

    def _finds(self, program):
        try:
            return program(self.view)
        except p.BorderlineError:
            return None

    def anchor(self, but=None):
        """A program for one object other than those called `but`."""
        options = [i for i in self.clear if self.view.objects[i].category != but]
        return self.name(self.pick(options)) if options else None

    def category(self):
        if self.chance(0.12):
            return p.Kind(self.pick(('fruit', 'cutlery')))
        return p.Kind(self.noun(0.4))

    def attribute(self):
        noun = self.noun(0.85)
        kind, dice = p.Kind(noun), self.rng.random()
        if dice < 0.68:
            return p.Color(kind, self.color_of(noun))
        if dice < 0.80:
            return p.Size(kind, self.pick(('small', 'large')))
        if dice < 0.87:
            return p.Size(p.Color(kind, self.color_of(noun)), self.pick(('small', 'large')))
        if dice < 0.93:
            return p.Color(p.Kind('object'), self.color_of(noun))
        material = self.pick(MATERIALS.get(noun, ()))
        return p.Material(kind, material) if material else None

    def relation(self):
        base = self.base(0.85, plain=0.75)
        noun = next(part.noun for part in p.parts(base) if isinstance(part, p.Kind))
        anchor, other = self.anchor(noun), self.anchor(noun)
        if anchor is None or other is None:
            return None
        dice = self.rng.random()
        if dice < 0.12:
            return p.Between(base, anchor, other)
        if dice < 0.26:
            return p.Closest(base, anchor, farthest=bool(self.chance(0.4)))
        program = p.Relate(base, self.pick(PAIRWISE), anchor)
        second = self.pick(PAIRWISE)
        if self.chance(0.15) and second != program.relation and other != anchor:
            program = p.Relate(program, second, other)
        if self.chance(0.06):
            program = p.Relate(self._sized(base), program.relation, anchor)
        if self.chance(0.06):
            material = self.pick(MATERIALS.get(noun, ()))
            program = p.Relate(p.Material(p.Kind(noun), material), program.relation, anchor) if material else None
        return program

    def _sized(self, base):
        return p.Size(base, self.pick(('small', 'large')))

    def containment(self):
        dice = self.rng.random()
        if dice < 0.18:
            holders = [noun for noun in self.nouns if noun in EMPTIABLE]
            return p.Empty(p.Kind(self.pick(holders))) if holders else None
        if not self.carried:
            return None
        item = self.view.objects[self.pick(self.carried)]
        carrier = self.view.objects[item.parent]
        if dice < 0.5:
            held = p.Kind(item.category) if self.chance(0.7) else p.Color(p.Kind(item.category), item.color)
            of = p.Kind(carrier.category) if self.chance(0.8) else p.Kind('object')
            return p.Holding(of, item.relation, held)
        anchor = self.name(item.parent)
        if anchor is None:
            return None
        dice = self.rng.random()
        kind = p.Kind(item.category)
        inner = kind if dice < 0.6 else p.Kind('object') if dice < 0.85 else p.Color(kind, item.color)
        return p.Relate(inner, item.relation, anchor)

    def superlative(self):
        base = self.base(0.95, plain=0.8)
        if self.chance(0.1):
            base = p.Kind('object')
        if self.chance(0.12):
            base = self.containment() or base
        return p.Extreme(base, self.pick(ORDERS))

    def counting(self):
        if self.chance(0.45):
            base = p.Kind('object') if self.chance(0.1) else self.base(1.0, plain=0.85)
            return p.Extreme(base, self.pick(ORDERS), int(self.rng.choice((2, 2, 2, 3))))
        base = self.base(1.0, plain=0.7, group=0.15)
        if self.chance(0.15):
            base = self.containment() or base
        found = self._finds(base)
        return p.Exactly(base, len(found)) if found and 2 <= len(found) <= 4 else None

    def exclusion(self):
        draft = self._exclusion()
        left_out = self._finds(draft.but) if draft else None
        return p.Except(draft.of, draft.but, len(left_out) > 1) if left_out else None

    def _exclusion(self):
        dice = self.rng.random()
        if dice < 0.3:
            some = p.Kind(self.noun()) if self.chance(0.4) else self.name(self.pick(self.clear))
            return p.Except(p.Kind('object'), some) if some else None
        if dice < 0.78:
            noun = self.noun(1.0)
            kind = p.Kind(noun)
            leave = p.Extreme(kind, self.pick(ORDERS)) if self.chance(0.25) else p.Color(kind, self.color_of(noun))
            return p.Except(kind, leave)
        if dice < 0.9:
            group = self.pick(('fruit', 'cutlery'))
            return p.Except(p.Kind(group), p.Kind(self.pick(p.GROUPS[group])))
        if not self.carried:
            return None
        item = self.view.objects[self.pick(self.carried)]
        anchor = self.name(item.parent)
        return p.Except(p.Relate(p.Kind('object'), item.relation, anchor), p.Kind(item.category)) if anchor else None

    def union(self):
        """Two programs for different objects, seldom three, seldom with one that finds nothing."""
        makers = (self.category, self.attribute, self.relation, self.superlative, self.containment)
        count = 3 if self.chance(0.15) else 2
        programs = [makers[self.rng.choice(5, p=(0.4, 0.25, 0.12, 0.12, 0.11))]() for _ in range(count)]
        if not all(program and self._finds(program) for program in programs):
            return None
        nouns = {list(p.heads(program))[-1] for program in programs}
        if len(nouns) < count and not all(isinstance(program, p.Color) for program in programs):
            return None  # "the bananas and the green banana"
        if self.chance(0.12):
            programs[-1] = self.missing_kind()
        return tuple(programs)

    def intent(self):
        present = [key for key, intent in INTENTS.items() if set(intent.serves) & set(self.nouns)]
        if not present:
            return None
        use = p.Use(self.pick(present))
        dice = self.rng.random()
        if dice < 0.1:
            return p.Color(use, self.pick([item.color for item in self.view.objects.values()]))
        if dice < 0.2:
            anchor = self.anchor()
            return p.Relate(use, self.pick(PAIRWISE), anchor) if anchor else None
        if dice < 0.26:
            return p.Extreme(use, self.pick(ORDERS[:4]))
        return use

    def missing_kind(self):
        """A noun that is not in the scene."""
        absent = [noun for noun in CATEGORIES if noun not in {item.category for item in self.scene.objects}]
        return p.Kind(self.pick(absent))

    def none(self):
        """Something that is not there, mostly by a little: right noun, wrong colour; both right, wrong relation."""
        makers = (
            self._wrong_color,
            self._wrong_noun,
            self.missing_kind,
            self._wrong_relation,
            self._wrong_place,
            self._wrong_material,
            self._unserved,
        )
        # what is drawn most is borne out least
        return makers[self.rng.choice(7, p=(0.19, 0.09, 0.06, 0.34, 0.22, 0.04, 0.06))]()

    def _wrong_color(self):
        """A colour that the noun could have, or that something else here has."""
        noun = self.noun(0.4)
        possible = [color for look in CATEGORIES[noun].looks for color in look.colors]
        around = [item.color for item in self.view.objects.values()]
        mine = {item.color for item in self.scene.objects if item.category == noun}
        wrong = [color for color in [*possible, *around] if not any(c == color or confusable(color, c) for c in mine)]
        novel = [color for color in wrong if self.scene.split == 'unseen' and (noun, color) in HELD_OUT_PAIRS]
        return p.Color(p.Kind(noun), self.pick(novel or wrong)) if wrong else None

    def _wrong_noun(self):
        """A colour of something here on a noun that is not."""
        missing = self.missing_kind()
        colors = {color for look in CATEGORIES[missing.noun].looks for color in look.colors}
        shared = [item.color for item in self.view.objects.values() if item.color in colors]
        return p.Color(missing, self.pick(shared)) if shared else None

    def _wrong_relation(self):
        noun = self.noun(0.4)
        anchor = self.anchor(noun)
        base = p.Kind(noun) if self.chance(0.7) else p.Color(p.Kind(noun), self.color_of(noun))
        return p.Relate(base, self.pick(PAIRWISE), anchor) if anchor else None

    def _wrong_place(self):
        """Something that is here, but not in or on that; or none of those is empty."""
        holders = [i for i in self.clear if CATEGORIES[self.view.objects[i].category].holds]
        if not holders:
            return None
        holder = self.pick(holders)
        name, surface = self.view.objects[holder].category, 'in' if self._is_deep(holder) else 'on'
        if name in EMPTIABLE and self.chance(0.2):
            return p.Empty(p.Kind(name))
        noun, anchor = self.noun(0.2), self.name(holder)
        return p.Relate(p.Kind(noun), surface, anchor) if anchor and noun != name else None

    def _is_deep(self, item):
        return self.view.objects[item].category in ('bowl', 'pan', 'mug')

    def _wrong_material(self):
        noun = self.noun(0.4)
        material = self.pick(MATERIALS.get(noun, ()))
        return p.Material(p.Kind(noun), material) if material else None

    def _unserved(self):
        here = {item.category for item in self.scene.objects}
        return p.Use(self.pick([key for key, intent in INTENTS.items() if not set(intent.serves) & here]))

    def combined(self, kind):
        """Operators that never meet in training (splits.HELD_OUT_COMBINATIONS), for a kind that has such; else None."""
        noun = self.noun(1.0)
        plain, colored = p.Kind(noun), p.Color(p.Kind(noun), self.color_of(noun))
        if kind == 'relation':
            one, other = self.anchor(noun), self.anchor(noun)
            material = self.pick(MATERIALS.get(noun, ()))
            options = [
                p.Relate(p.Relate(plain, 'left', one), 'behind', other),
                p.Relate(p.Relate(plain, 'right', one), 'near', other),
                p.Relate(self._sized(plain), 'behind', one),
                p.Relate(p.Material(plain, material), 'front', one) if material else None,
            ]
            return self.pick(options) if one and other and one != other else None
        if kind == 'exclusion' and self.carried:
            item = self.view.objects[self.pick(self.carried)]
            anchor = self.name(item.parent)
            return p.Except(p.Relate(p.Kind('object'), 'in', anchor), p.Kind(item.category)) if anchor else None
        if kind == 'superlative':
            on = [i for i in self.carried if self.view.objects[i].relation == 'on']
            anchor = self.name(self.view.objects[self.pick(on)].parent) if on else None
            on_it = p.Extreme(p.Relate(p.Kind('object'), 'on', anchor), 'leftmost') if anchor else None
            return self.pick((on_it, p.Extreme(p.Empty(plain), 'nearest') if noun in EMPTIABLE else None))
        if kind == 'counting':
            return p.Extreme(self.pick((plain, colored)), 'rightmost', 2)
        if kind == 'intent':
            use = self.intent()
            colors = [item.color for item in self.view.objects.values()]
            return p.Color(use, self.pick(colors)) if isinstance(use, p.Use) else None
        return None

"""The categories of household objects: their shapes, plausible colours, and what may rest on or in them."""

from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np

from instructsam.train.tabletop.world import shapes
from instructsam.train.tabletop.world.shapes import Part, Shape


@dataclass(frozen=True)
class Look:
    """One material that a category comes in, the colours that it has then, and the functions of its shapes.

    poses: what else than upright it may do: 'lie' (on its side), 'roll' (any way up), 'tip' (a little).
    """

    material: str
    colors: tuple[str, ...]
    shapes: tuple
    poses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """A kind of object.

    stretch: how much width (x and y alike) and height vary, as (low, high) each; `free` gives x, y and z their own.
    weight: how often it is drawn; holds: the categories that may rest on or in it.
    """

    name: str
    looks: tuple[Look, ...]
    stretch: tuple = ((0.95, 1.06), (0.92, 1.1))
    free: bool = False
    weight: float = 1.0
    holds: tuple[str, ...] = ()


FRUIT = ('apple', 'banana', 'lemon')
CUTLERY = ('spoon', 'fork', 'knife')
ROUND = ('apple', 'lemon', 'ball', 'napkin')
SMALL = (*ROUND, 'banana', 'mug', 'glass', 'can', 'sponge', 'scissors')

_MUGS = (shapes.mug, partial(shapes.mug, belly=0.005, height=0.085), partial(shapes.mug, belly=-0.002, height=0.108))
_BOTTLES = (shapes.bottle_round, partial(shapes.bottle_round, shoulder=0.115, neck=0.015, height=0.21))
_CARTONS = (
    shapes.carton,
    partial(shapes.carton, size=(0.16, 0.055, 0.20)),
    partial(shapes.carton, size=(0.15, 0.10, 0.06)),
)
_PARCELS = tuple(partial(shapes.carton, size=size, tape=True) for size in ((0.17, 0.13, 0.09), (0.13, 0.12, 0.12)))

CATEGORIES = {
    category.name: category
    for category in (
        Category(
            'mug',
            (Look('ceramic', ('red', 'blue', 'green', 'yellow', 'white', 'black', 'orange', 'gray', 'pink'), _MUGS),),
            weight=1.5,
            holds=('spoon',),
        ),
        Category(
            'glass',
            (Look('glass', ('clear', 'blue', 'green'), (shapes.tumbler, partial(shapes.tumbler, 0.034, 0.032, 0.1))),),
        ),
        Category(
            'bowl',
            (
                Look(
                    'ceramic',
                    ('white', 'blue', 'green', 'yellow', 'red', 'black', 'gray', 'pink'),
                    (shapes.bowl, partial(shapes.bowl, 0.003)),
                ),
                Look('wood', ('brown',), (shapes.bowl,)),
                Look('metal', ('silver',), (partial(shapes.bowl, 0.004),)),
            ),
            stretch=((0.95, 1.15), (0.85, 1.1)),
            weight=1.4,
            holds=ROUND,
        ),
        Category(
            'plate',
            (
                Look(
                    'ceramic',
                    ('white', 'blue', 'green', 'yellow', 'pink', 'black', 'gray', 'red'),
                    (shapes.plate, partial(shapes.plate, 0.085)),
                ),
            ),
            stretch=((0.88, 1.04), (0.9, 1.1)),
            holds=('apple', 'banana', 'lemon', 'napkin', 'sponge', 'mug', 'glass'),
        ),
        Category(
            'bottle',
            (
                Look('glass', ('green', 'brown', 'blue'), _BOTTLES, ('lie',)),
                Look(
                    'plastic', ('white', 'pink', 'yellow', 'orange', 'red', 'purple'), (shapes.bottle_pump, _BOTTLES[1])
                ),
            ),
        ),
        Category(
            'can',
            (
                Look(
                    'enamel',
                    ('red', 'blue', 'green', 'yellow', 'orange', 'black', 'white', 'purple'),
                    (shapes.can, partial(shapes.can, 0.037, 0.098)),
                    ('lie',),
                ),
            ),
        ),
        Category(
            'box',
            (
                Look('cardboard', ('brown',), _PARCELS),
                Look('cardboard', ('red', 'blue', 'green', 'yellow', 'white', 'orange', 'purple', 'pink'), _CARTONS),
            ),
            stretch=((0.8, 1.15), (0.75, 1.15)),
            free=True,
            holds=('apple', 'can', 'mug', 'sponge', 'napkin', 'glass', 'scissors'),
        ),
        Category(
            'book',
            (
                Look(
                    'paper',
                    ('red', 'blue', 'green', 'black', 'brown', 'purple', 'orange', 'white', 'yellow'),
                    (shapes.book,),
                ),
            ),
            stretch=((0.82, 1.1), (0.6, 1.4)),
            free=True,
            holds=('mug', 'glass', 'apple', 'sponge', 'scissors', 'napkin', 'banana', 'book', 'can'),
        ),
        Category(
            'spoon',
            (
                Look('metal', ('silver',), (shapes.spoon,)),
                Look('wood', ('brown',), (partial(shapes.spoon, 0.023, 0.21),)),
                Look(
                    'plastic', ('black', 'white', 'red', 'green', 'blue', 'pink'), (partial(shapes.spoon, 0.021, 0.18),)
                ),
            ),
        ),
        Category(
            'fork',
            (
                Look('metal', ('silver',), (shapes.fork,)),
                Look('plastic', ('black', 'white', 'red', 'green', 'blue', 'yellow'), (shapes.fork,)),
            ),
        ),
        Category(
            'knife',
            (
                Look('metal', ('silver',), (shapes.table_knife,)),
                Look('plastic', ('black', 'red', 'blue', 'green', 'yellow', 'white'), (shapes.kitchen_knife,)),
                Look('wood', ('brown',), (shapes.kitchen_knife,)),
            ),
        ),
        Category(
            'ball',
            (
                Look(
                    'rubber',
                    ('red', 'blue', 'green', 'yellow', 'orange', 'purple', 'pink', 'white'),
                    (shapes.ball, partial(shapes.ball, True)),
                    ('roll',),
                ),
            ),
            stretch=((0.9, 1.1), None),
        ),
        Category('banana', (Look('skin', ('yellow', 'green'), (shapes.banana,)),)),
        Category('apple', (Look('skin', ('red', 'green', 'yellow'), (shapes.apple,), ('tip',)),), weight=1.2),
        Category('lemon', (Look('skin', ('yellow',), (shapes.lemon,)),), weight=0.6),
        Category(
            'tray',
            (
                Look('wood', ('brown',), (shapes.tray, partial(shapes.tray, grips=True))),
                Look('plastic', ('black', 'white', 'gray', 'red', 'blue', 'green'), (shapes.tray,)),
                Look('metal', ('silver',), (partial(shapes.tray, wall=0.016),)),
            ),
            stretch=((0.82, 1.05), (0.9, 1.1)),
            free=True,
            weight=0.7,
            holds=(*SMALL, 'spoon', 'fork', 'knife', 'bowl', 'teapot', 'bottle'),
        ),
        Category(
            'pan',
            (
                Look('enamel', ('black', 'gray', 'red', 'blue', 'green'), (shapes.pan,)),
                Look('metal', ('silver',), (shapes.pan,)),
            ),
            stretch=((0.85, 1.0), (0.9, 1.15)),
            weight=0.8,
            holds=('apple', 'lemon', 'sponge', 'napkin', 'ball'),
        ),
        Category(
            'teapot',
            (
                Look(
                    'ceramic', ('white', 'blue', 'green', 'red', 'brown', 'black', 'yellow', 'pink'), (shapes.teapot,)
                ),
                Look('metal', ('silver',), (shapes.teapot,)),
            ),
            weight=0.8,
        ),
        Category(
            'sponge', (Look('foam', ('yellow', 'pink', 'blue', 'orange', 'purple'), (shapes.sponge,)),), free=True
        ),
        Category(
            'vase',
            (
                Look(
                    'ceramic',
                    ('white', 'blue', 'green', 'red', 'brown', 'purple', 'black', 'orange'),
                    (shapes.vase, partial(shapes.vase, 0.028, 0.043, 0.17), partial(shapes.vase, 0.013, 0.055, 0.19)),
                ),
            ),
            weight=0.8,
        ),
        Category(
            'scissors', (Look('plastic', ('red', 'black', 'orange', 'blue', 'green', 'purple'), (shapes.scissors,)),)
        ),
        Category(
            'napkin', (Look('paper', ('white', 'red', 'blue', 'yellow', 'green', 'pink'), (shapes.napkin,), ('roll',)),)
        ),
    )
}

# Sizes have names only within a category; the gaps keep a small one apart from a large one.
SIZES = {'small': (0.78, 0.87), 'medium': (0.96, 1.06), 'large': (1.18, 1.30)}


def shape_key(category, look, variant):
    """The name under which a shape's meshes are stored: category, index of the look, index of its shape."""
    return f'{category}.{look}.{variant}'


@lru_cache(maxsize=1)
def all_shapes():
    """Every shape, key -> Shape, standing on z = 0."""
    found = {}
    for category in CATEGORIES.values():
        for look_index, look in enumerate(category.looks):
            for variant, build in enumerate(look.shapes):
                found[shape_key(category.name, look_index, variant)] = _grounded(build())
    return found


def _grounded(shape):
    """The shape lowered or raised so that its lowest vertex lies on z = 0."""
    low = min(part.mesh.vertices[:, 2].min() for part in shape.parts)
    if abs(low) > 2e-3:
        raise ValueError(f'a shape should stand on z = 0, its lowest point is at {low:.4f} m')
    parts = tuple(Part(part.mesh.moved((0, 0, -low)), part.paint, part.texture) for part in shape.parts)
    return Shape(parts, shape.surface)


@cache
def corners(key):
    """The vertices of a shape that stick out furthest in some direction, [C, 3] m: its convex hull to under 1 mm."""
    k = np.arange(240) + 0.5  # evenly over the sphere, by the golden angle
    z, angle = 1 - k / 120, k * np.pi * (3 - 5**0.5)
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
    return outline(key)[np.unique((outline(key) @ directions.T).argmax(axis=0))]


@cache
def outline(key):
    """All vertices of a shape, [V, 3] m, unscaled."""
    return np.concatenate([part.mesh.vertices for part in all_shapes()[key].parts])

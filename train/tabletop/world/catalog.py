"""Categories of household objects: their shapes, plausible colours, and the categories that may rest on or in them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from instructsam.train.tabletop.world import shapes
from instructsam.train.tabletop.world.shapes import Part, Shape


@dataclass(frozen=True)
class Appearance:
    """One material of a category, with the colours and shapes that the category has in this material.

    Attributes:
        material: Name in `looks.FINISHES`.
        colors: Names in `looks.COLORS`.
        shapes: Functions that build the shapes.
        poses: Poses besides upright: 'lie' (on its side), 'roll' (any rotation), 'tip' (tilted a little).
    """

    material: str
    colors: tuple[str, ...]
    shapes: tuple[Callable[[], Shape], ...]
    poses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Category:
    """A category of objects.

    Attributes:
        name: Its noun.
        appearances: The materials that it comes in.
        stretch: Ranges (low, high) of the factors of width and height; None: the height scales with the width.
        independent_axes: Draw the factors of x and y independently instead of one for both.
        weight: Relative frequency.
        holds: Categories that may rest on or in it.
    """

    name: str
    appearances: tuple[Appearance, ...]
    stretch: tuple[tuple[float, float], tuple[float, float] | None] = ((0.95, 1.06), (0.92, 1.1))
    independent_axes: bool = False
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
            (
                Appearance(
                    'ceramic', ('red', 'blue', 'green', 'yellow', 'white', 'black', 'orange', 'gray', 'pink'), _MUGS
                ),
            ),
            weight=1.5,
            holds=('spoon',),
        ),
        Category(
            'glass',
            (
                Appearance(
                    'glass', ('clear', 'blue', 'green'), (shapes.tumbler, partial(shapes.tumbler, 0.034, 0.032, 0.1))
                ),
            ),
        ),
        Category(
            'bowl',
            (
                Appearance(
                    'ceramic',
                    ('white', 'blue', 'green', 'yellow', 'red', 'black', 'gray', 'pink'),
                    (shapes.bowl, partial(shapes.bowl, 0.003)),
                ),
                Appearance('wood', ('brown',), (shapes.bowl,)),
                Appearance('metal', ('silver',), (partial(shapes.bowl, 0.004),)),
            ),
            stretch=((0.95, 1.15), (0.85, 1.1)),
            weight=1.4,
            holds=ROUND,
        ),
        Category(
            'plate',
            (
                Appearance(
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
                Appearance('glass', ('green', 'brown', 'blue'), _BOTTLES, ('lie',)),
                Appearance(
                    'plastic', ('white', 'pink', 'yellow', 'orange', 'red', 'purple'), (shapes.bottle_pump, _BOTTLES[1])
                ),
            ),
        ),
        Category(
            'can',
            (
                Appearance(
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
                Appearance('cardboard', ('brown',), _PARCELS),
                Appearance(
                    'cardboard', ('red', 'blue', 'green', 'yellow', 'white', 'orange', 'purple', 'pink'), _CARTONS
                ),
            ),
            stretch=((0.8, 1.15), (0.75, 1.15)),
            independent_axes=True,
            holds=('apple', 'can', 'mug', 'sponge', 'napkin', 'glass', 'scissors'),
        ),
        Category(
            'book',
            (
                Appearance(
                    'paper',
                    ('red', 'blue', 'green', 'black', 'brown', 'purple', 'orange', 'white', 'yellow'),
                    (shapes.book,),
                ),
            ),
            stretch=((0.82, 1.1), (0.6, 1.4)),
            independent_axes=True,
            holds=('mug', 'glass', 'apple', 'sponge', 'scissors', 'napkin', 'banana', 'book', 'can'),
        ),
        Category(
            'spoon',
            (
                Appearance('metal', ('silver',), (shapes.spoon,)),
                Appearance('wood', ('brown',), (partial(shapes.spoon, 0.023, 0.21),)),
                Appearance(
                    'plastic', ('black', 'white', 'red', 'green', 'blue', 'pink'), (partial(shapes.spoon, 0.021, 0.18),)
                ),
            ),
        ),
        Category(
            'fork',
            (
                Appearance('metal', ('silver',), (shapes.fork,)),
                Appearance('plastic', ('black', 'white', 'red', 'green', 'blue', 'yellow'), (shapes.fork,)),
            ),
        ),
        Category(
            'knife',
            (
                Appearance('metal', ('silver',), (shapes.table_knife,)),
                Appearance('plastic', ('black', 'red', 'blue', 'green', 'yellow', 'white'), (shapes.kitchen_knife,)),
                Appearance('wood', ('brown',), (shapes.kitchen_knife,)),
            ),
        ),
        Category(
            'ball',
            (
                Appearance(
                    'rubber',
                    ('red', 'blue', 'green', 'yellow', 'orange', 'purple', 'pink', 'white'),
                    (shapes.ball, partial(shapes.ball, seam=True)),
                    ('roll',),
                ),
            ),
            stretch=((0.9, 1.1), None),
        ),
        Category('banana', (Appearance('skin', ('yellow', 'green'), (shapes.banana,)),)),
        Category('apple', (Appearance('skin', ('red', 'green', 'yellow'), (shapes.apple,), ('tip',)),), weight=1.2),
        Category('lemon', (Appearance('skin', ('yellow',), (shapes.lemon,)),), weight=0.6),
        Category(
            'tray',
            (
                Appearance('wood', ('brown',), (shapes.tray, partial(shapes.tray, grips=True))),
                Appearance('plastic', ('black', 'white', 'gray', 'red', 'blue', 'green'), (shapes.tray,)),
                Appearance('metal', ('silver',), (partial(shapes.tray, wall=0.016),)),
            ),
            stretch=((0.82, 1.05), (0.9, 1.1)),
            independent_axes=True,
            weight=0.7,
            holds=(*SMALL, 'spoon', 'fork', 'knife', 'bowl', 'teapot', 'bottle'),
        ),
        Category(
            'pan',
            (
                Appearance('enamel', ('black', 'gray', 'red', 'blue', 'green'), (shapes.pan,)),
                Appearance('metal', ('silver',), (shapes.pan,)),
            ),
            stretch=((0.85, 1.0), (0.9, 1.15)),
            weight=0.8,
            holds=('apple', 'lemon', 'sponge', 'napkin', 'ball'),
        ),
        Category(
            'teapot',
            (
                Appearance(
                    'ceramic', ('white', 'blue', 'green', 'red', 'brown', 'black', 'yellow', 'pink'), (shapes.teapot,)
                ),
                Appearance('metal', ('silver',), (shapes.teapot,)),
            ),
            weight=0.8,
        ),
        Category(
            'sponge',
            (Appearance('foam', ('yellow', 'pink', 'blue', 'orange', 'purple'), (shapes.sponge,)),),
            independent_axes=True,
        ),
        Category(
            'vase',
            (
                Appearance(
                    'ceramic',
                    ('white', 'blue', 'green', 'red', 'brown', 'purple', 'black', 'orange'),
                    (shapes.vase, partial(shapes.vase, 0.028, 0.043, 0.17), partial(shapes.vase, 0.013, 0.055, 0.19)),
                ),
            ),
            weight=0.8,
        ),
        Category(
            'scissors',
            (Appearance('plastic', ('red', 'black', 'orange', 'blue', 'green', 'purple'), (shapes.scissors,)),),
        ),
        Category(
            'napkin',
            (Appearance('paper', ('white', 'red', 'blue', 'yellow', 'green', 'pink'), (shapes.napkin,), ('roll',)),),
        ),
    )
}

# Range of the scale factor of each size. Sizes are relative to the category; the gaps between the ranges keep small and
# large objects distinguishable.
SIZES = {'small': (0.78, 0.87), 'medium': (0.96, 1.06), 'large': (1.18, 1.30)}


def shape_key(category: str, appearance_index: int, shape_index: int) -> str:
    """Return the key of a shape in `all_shapes`."""
    return f'{category}.{appearance_index}.{shape_index}'


@cache
def all_shapes() -> dict[str, Shape]:
    """Return every shape by its key; each stands on z = 0."""
    return {
        shape_key(category.name, appearance_index, shape_index): _grounded(build())
        for category in CATEGORIES.values()
        for appearance_index, appearance in enumerate(category.appearances)
        for shape_index, build in enumerate(appearance.shapes)
    }


def _grounded(shape: Shape) -> Shape:
    """Move the shape vertically so that its lowest vertex lies on z = 0."""
    low = min(part.mesh.vertices[:, 2].min() for part in shape.parts)
    if abs(low) > 2e-3:
        raise ValueError(f'a shape should stand on z = 0, its lowest point is at {low:.4f} m')
    parts = tuple(Part(part.mesh.moved((0, 0, -low)), part.paint, part.texture) for part in shape.parts)
    return Shape(parts, shape.surface)


@cache
def hull_vertices(key: str) -> np.ndarray:
    """Return the vertices [C, 3] m of a shape that approximate its convex hull to under 1 mm, unscaled.

    These are the extreme vertices along 240 directions, spread evenly over the sphere by the golden angle.
    """
    k = np.arange(240) + 0.5
    z, angle = 1 - k / 120, k * np.pi * (3 - 5**0.5)
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
    vertices = all_vertices(key)
    return vertices[np.unique((vertices @ directions.T).argmax(axis=0))]


@cache
def all_vertices(key: str) -> np.ndarray:
    """Return all vertices [V, 3] m of a shape, unscaled."""
    return np.concatenate([part.mesh.vertices for part in all_shapes()[key].parts])

"""More varied training scenes: 2-D cut-outs instead of some objects, and photographed tables, floors and walls.

The benchmarks' scenes have none of this. The pictures come from packages, see train/packages.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.train.packages import read_members
from instructsam.train.pictures import decode_cutout, turn_matrix, warp_cutout
from instructsam.train.tabletop.scenes.layout import PlacedObject
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.room import Room
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS, generator
from instructsam.train.tabletop.world.surfaces import read_surfaces


class CutoutFacts(NamedTuple):
    """Category, colour and material of a cut-out; `lies`: it may lie at any angle in the image."""

    category: str
    color: str
    material: str
    lies: bool = False


CUTOUTS = {  # Fluent Emoji by code point
    '2615': CutoutFacts('mug', 'white', 'ceramic'),
    '1f37e': CutoutFacts('bottle', 'green', 'glass'),
    '1f96b': CutoutFacts('can', 'red', 'enamel'),
    '1f4e6': CutoutFacts('box', 'brown', 'cardboard'),
    '1f4d5': CutoutFacts('book', 'red', 'paper', True),
    '1f4d7': CutoutFacts('book', 'green', 'paper', True),
    '1f4d8': CutoutFacts('book', 'blue', 'paper', True),
    '1f4d9': CutoutFacts('book', 'orange', 'paper', True),
    '1f944': CutoutFacts('spoon', 'silver', 'metal', True),
    '26be': CutoutFacts('ball', 'white', 'rubber', True),
    '1f3c0': CutoutFacts('ball', 'orange', 'rubber', True),
    '1f34c': CutoutFacts('banana', 'yellow', 'skin', True),
    '1f34e': CutoutFacts('apple', 'red', 'skin'),
    '1f34f': CutoutFacts('apple', 'green', 'skin'),
    '1f34b': CutoutFacts('lemon', 'yellow', 'skin', True),
    '1f9fd': CutoutFacts('sponge', 'yellow', 'foam', True),
    '1f3fa': CutoutFacts('vase', 'orange', 'ceramic'),
}
SHADOW = 0.4  # share of the light that the contact shadow of a cut-out takes away


@dataclass(frozen=True)
class Variation:
    """The packages that scenes are varied with.

    Attributes:
        cutouts: File of packages.EMOJI; None: no cut-outs.
        surfaces: File of packages.ROBOSUITE; None: no photographed surfaces.
        cutout_share: Share of the objects with a cut-out that are replaced by it. Only objects on the table that carry
            nothing are replaced.
        surface_share: Share of the tables, floors and walls that are photographed.
    """

    cutouts: Path | None = None
    surfaces: Path | None = None
    cutout_share: float = 0.2
    surface_share: float = 0.5


@dataclass(frozen=True, eq=False)
class Cutout:
    """A cut-out with its picture [H, W, 4] uint8 RGBA, cropped to what is opaque."""

    facts: CutoutFacts
    picture: np.ndarray


@lru_cache(maxsize=1)
def read_cutouts(path: Path) -> tuple[Cutout, ...]:
    """Return the cut-outs in the npm package `path`.

    Raises:
        DataError: The package cannot be read or lacks one.
    """
    names = {code: f'package/assets/{code}.webp' for code in CUTOUTS}
    contents = read_members(path, names.values())
    return tuple(
        Cutout(CUTOUTS[code], decode_cutout(contents[name], f'{path}: {name}')) for code, name in names.items()
    )


_read_surfaces = lru_cache(maxsize=1)(read_surfaces)


def varied_room(room: Room, variation: Variation, name: tuple[str, int, int]) -> Room:
    """Return the room with some of its surfaces photographed; `name`: split, seed and index of the scene."""
    if variation.surfaces is None:
        return room
    rng, surfaces = generator(*name, 'surfaces'), _read_surfaces(variation.surfaces)
    textures = dict(room.textures)
    for texture in textures:
        number, turns = int(rng.integers(len(surfaces))), int(rng.integers(4))
        is_used = rng.random() < variation.surface_share
        shade = rng.uniform(0.75, 1.05)
        if is_used:
            image = np.rot90(surfaces[number], turns) * shade
            textures[texture] = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8))
    return replace(room, textures=textures)


def choose_cutouts(
    objects: Sequence[PlacedObject], variation: Variation, name: tuple[str, int, int]
) -> tuple[list[PlacedObject], dict[int, Cutout]]:
    """Return the objects of a scene, and the cut-outs that take the place of some of them, by their indices."""
    objects, chosen = list(objects), {}
    if variation.cutouts is None:
        return objects, chosen
    rng, cutouts = generator(*name, 'cutouts'), read_cutouts(variation.cutouts)
    carriers = {obj.parent for obj in objects}
    for index, obj in enumerate(objects):
        options = [
            cutout
            for cutout in cutouts
            if cutout.facts.category == obj.category
            and (name[0] == 'unseen' or (obj.category, cutout.facts.color) not in HELD_OUT_PAIRS)
        ]
        dice, number = rng.random(), rng.random()
        if options and obj.parent < 0 and index not in carriers and dice < variation.cutout_share:
            cutout = options[int(number * len(options))]
            chosen[index] = cutout
            facts = cutout.facts
            objects[index] = replace(obj, color=facts.color, material=facts.material, size='medium')
    return objects, chosen


@dataclass(frozen=True, eq=False)
class Pasted:
    """A cut-out in its place: opacity and premultiplied colour on an image with `margin` px on every side."""

    alpha: np.ndarray  # [H + 2 margin, W + 2 margin] float32, 0 to 1
    color: np.ndarray  # [H + 2 margin, W + 2 margin, 3] float32, 0 to 255
    depth_m: float
    margin: int

    @property
    def silhouette(self) -> np.ndarray:
        """Pixels that it covers, also beyond the image, [H + 2 margin, W + 2 margin] bool."""
        return self.alpha > 0.5

    def visible(self, array: np.ndarray) -> np.ndarray:
        """Return the part of an array that lies within the image."""
        return array[self.margin : -self.margin, self.margin : -self.margin]


def place_cutout(obj: PlacedObject, cutout: Cutout, camera: Camera, margin: int, rng: np.random.Generator) -> Pasted:
    """Fit a cut-out to the projection of the object that it replaces: equal area of the box, and equal lower edge.

    Args:
        obj: The object.
        cutout: The cut-out.
        camera: The camera.
        margin: Pixels on every side of the image.
        rng: Random numbers.
    """
    points = camera.padded(margin).project(obj.hull_vertices)
    low, high = points.min(axis=0), points.max(axis=0)
    height, width = cutout.picture.shape[:2]
    scale = np.sqrt(np.prod(high - low) / (height * width))
    angle = rng.uniform(0, 2 * np.pi) if cutout.facts.lies else rng.normal(0, 0.08)
    turn = turn_matrix(scale, angle, is_mirrored=rng.random() < 0.5)
    half_height = np.abs(turn @ (np.array([[-1, 1], [-1, -1]]) * [[width / 2], [height / 2]]))[1].max()
    center = np.array([(low[0] + high[0]) / 2, high[1] - half_height])
    if cutout.facts.lies:
        center = (low + high) / 2
    size = (camera.width + 2 * margin, camera.height + 2 * margin)
    gain = rng.uniform(0.6, 0.95)  # the renderer is dim as well
    opacity, color = warp_cutout(cutout.picture, turn, center, size, scale=scale, softness=0.4, gain=gain)
    vertices = obj.vertices
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    return Pasted(opacity / 255, color, float(camera.to_camera(middle[None])[0, 2]), margin)


def paste_cutouts(
    rgb: np.ndarray, ids: np.ndarray, depth: np.ndarray, pasted: dict[int, Pasted]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return image [H, W, 3] uint8, ids [H, W] int16 and depth [H, W] float32 m with cut-outs drawn in, far ones first.

    A cut-out stands upright at the distance of the object that it replaces: nearer objects occlude it, the table never
    does.
    """
    image, ids, depth = rgb.astype(np.float32), ids.copy(), depth.copy()
    for index in sorted(pasted, key=lambda i: -pasted[i].depth_m):
        each = pasted[index]
        is_free = ~((ids >= 0) & (depth < each.depth_m))
        silhouette = each.silhouette
        rows = np.flatnonzero(silhouette.any(axis=1))
        if not len(rows):
            continue
        height = rows[-1] - rows[0] + 1
        shadow = cv2.GaussianBlur(each.alpha, (0, 0), 0.08 * height + 0.5)
        shadow = cv2.warpAffine(shadow, np.array([[1, 0, 0], [0, 1, 0.06 * height]]), shadow.shape[::-1])
        image *= (1 - SHADOW * each.visible(shadow) * (ids < 0))[..., None]
        alpha = (each.visible(each.alpha) * is_free)[..., None]
        image = image * (1 - alpha) + each.visible(each.color) * is_free[..., None]
        covered = each.visible(silhouette) & is_free
        ids[covered], depth[covered] = index, each.depth_m
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), ids, depth

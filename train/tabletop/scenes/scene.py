"""A rendered scene: an image with its complete ground truth. `render_scene(split, index, seed)` returns one."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from instructsam.train.tabletop.scenes import room as rooms
from instructsam.train.tabletop.scenes.layout import PlacedObject, sample_layout
from instructsam.train.tabletop.scenes.render import SUPERSAMPLING, Camera, Geom, Renderer
from instructsam.train.tabletop.scenes.room import Room
from instructsam.train.tabletop.scenes.sensor import photograph
from instructsam.train.tabletop.scenes.variation import (
    Cutout,
    Variation,
    choose_cutouts,
    paste_cutouts,
    place_cutout,
    varied_room,
)
from instructsam.train.tabletop.world.catalog import all_shapes, all_vertices
from instructsam.train.tabletop.world.looks import FINISHES, PAINT_FINISHES, sample_paint
from instructsam.train.tabletop.world.shapes import MAIN
from instructsam.train.tabletop.world.splits import generator
from instructsam.train.tabletop.world.textures import bank

PADDING = 0.2  # margin around the image in which silhouettes are rendered, as a share of its width


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object of a rendered scene.

    Attributes:
        id: Its value in `Scene.ids`, and its index in `Scene.objects`.
        category: Name in `catalog.CATEGORIES`.
        color: Name in `looks.COLORS`.
        material: Name in `looks.FINISHES`.
        size: 'small', 'medium' or 'large'.
        extent_m: [3], length, width and height along its own axes.
        center_m: [3], middle of its bounding box in the world.
        camera_m: [3], the same point in the optical frame.
        footprint: [N, 2] m, convex outline seen from above.
        box: (x0, y0, x1, y1) px of its whole silhouette, which may extend beyond the image.
        whole_px: Pixels of its whole silhouette.
        seen_px: Pixels of it that are visible in the image.
        parent: id of the object that carries it, or -1 for the table.
        relation: Its position relative to the parent: 'on' or 'in'.
    """

    id: int
    category: str
    color: str
    material: str
    size: str
    extent_m: np.ndarray
    center_m: np.ndarray
    camera_m: np.ndarray
    footprint: np.ndarray
    box: tuple[int, int, int, int]
    whole_px: int
    seen_px: int
    parent: int
    relation: str

    @property
    def visible(self) -> float:
        """Visible share of the silhouette, 0 to 1."""
        return self.seen_px / max(self.whole_px, 1)


@dataclass(frozen=True, eq=False)
class Scene:
    """An image of a table with its ground truth.

    Attributes:
        split: One of `splits.SPLITS`.
        seed: Seed of the dataset.
        index: Number of the scene under the seed.
        jpeg: The image as a file.
        rgb: [H, W, 3] uint8, decoded from `jpeg`.
        depth: [H, W] float32 m along the optical axis.
        ids: [H, W] int16, the id of the visible object, -1 where there is none.
        camera: The camera.
        objects: All objects, visible or not, by id.
    """

    split: str
    seed: int
    index: int
    jpeg: bytes
    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    camera: Camera
    objects: tuple[SceneObject, ...]

    @property
    def name(self) -> str:
        """Unique name: split, seed and index."""
        return f'{self.split}_{self.seed}_{self.index:06d}'

    def mask(self, object_ids: Iterable[int]) -> np.ndarray:
        """Return the pixels of the objects with these ids, [H, W] bool."""
        return np.isin(self.ids, list(object_ids))


class Stage(NamedTuple):
    """A scene before rendering."""

    objects: list[PlacedObject]
    room: Room
    camera: Camera


def render_scene(
    split: str, index: int, seed: int, size: tuple[int, int] = (224, 224), variation: Variation | None = None
) -> Scene:
    """Draw and render a scene; equal arguments give equal bytes.

    Args:
        split: One of `splits.SPLITS`.
        index: Number of the scene, from 0.
        seed: Seed of the dataset, from 0.
        size: (width, height) px.
        variation: Cut-outs and photographed surfaces; None: none, as in the benchmarks.

    Raises:
        RuntimeError: Another process rendered and this one was forked from it, or OpenGL does not work.
        ImportError: MuJoCo is not installed.
        ValueError: The split is unknown, or the seed or the index is negative.
    """
    if os.getpid() != _first_process():  # Mesa's threads do not exist in a forked process, and rendering would hang
        raise RuntimeError('OpenGL does not survive a fork: start the processes that draw scenes with "spawn"')
    objects, room, camera = stage_scene(split, index, seed, size)
    name, cutouts = (split, seed, index), {}
    if variation is not None:
        room = varied_room(room, variation, name)
        objects, cutouts = choose_cutouts(objects, variation, name)
    return photograph_objects(objects, room, camera, generator(*name, 'sensor'), name, cutouts)


def stage_scene(split: str, index: int, seed: int, size: tuple[int, int]) -> Stage:
    """Draw the scene that `render_scene` renders, with the same arguments."""
    camera = rooms.sample_camera(generator(split, seed, index, 'camera'), *size)
    room = rooms.sample_room(generator(split, seed, index, 'room'))
    objects = sample_layout(generator(split, seed, index, 'layout'), split, room.table, camera)
    return Stage(objects, room, camera)


def photograph_objects(
    objects: list[PlacedObject],
    room: Room,
    camera: Camera,
    rng: np.random.Generator,
    name: tuple[str, int, int] = ('train', 0, 0),
    cutouts: Mapping[int, Cutout] | None = None,
) -> Scene:
    """Render objects in a room and simulate the camera.

    Args:
        objects: The objects.
        room: Their surroundings.
        camera: The camera.
        rng: Random numbers of the camera model.
        name: Split, seed and index of the scene.
        cutouts: Pictures that take the place of objects, by their indices.
    """
    cutouts = cutouts or {}
    renderer = _renderer(camera.width, camera.height)
    for texture, image in room.textures.items():
        renderer.set_texture(texture, image)
    parts = [[] if index in cutouts else _geoms(obj, index) for index, obj in enumerate(objects)]
    geoms = [*room.geoms, *(geom for part in parts for geom in part)]
    rendered = renderer.color(geoms, room.lights, camera)
    ids, depth = renderer.ids(geoms, camera)
    silhouettes = _silhouettes(renderer, objects, parts, camera)
    if cutouts:
        margin, placing = round(PADDING * camera.width), generator(*name, 'placing')
        pasted = {i: place_cutout(objects[i], cutout, camera, margin, placing) for i, cutout in cutouts.items()}
        rendered, ids, depth = paste_cutouts(rendered, ids, depth, pasted)
        silhouettes = [
            _silhouette(pasted[i].silhouette, margin) if i in pasted else each for i, each in enumerate(silhouettes)
        ]
    seen_px = np.bincount(ids[ids >= 0], minlength=len(objects))
    jpeg = photograph(rendered, depth, camera.focal_px, rng)
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None  # OpenCV has just encoded it
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    scene_objects = tuple(
        _scene_object(index, obj, camera, silhouettes[index], int(seen_px[index])) for index, obj in enumerate(objects)
    )
    split, seed, index = name
    return Scene(split, seed, index, jpeg, rgb, depth, ids, camera, scene_objects)


@cache
def _first_process() -> int:
    """Return the id of the process that rendered first; processes forked from it inherit the cached value."""
    return os.getpid()


@lru_cache(maxsize=2)
def _renderer(width: int, height: int) -> Renderer:
    """Return this process's renderer for images of one size."""
    meshes = {f'{key}.{i}': part.mesh for key, shape in all_shapes().items() for i, part in enumerate(shape.parts)}
    surfaces = {name: draw(np.random.default_rng(0)) for name, draw in rooms.SURFACES.items()}
    largest = (max(round(SUPERSAMPLING * side), side + 2 * round(PADDING * width)) for side in (width, height))
    return Renderer({**meshes, **rooms.MESHES}, {**bank(), **surfaces}, *largest)


def _geoms(obj: PlacedObject, index: int) -> list[Geom]:
    """Return the painted parts of an object."""
    rng = np.random.default_rng(obj.paint_seed)
    matrix = obj.rotation @ np.diag(obj.scale)
    geoms, paints = [], {}
    for i, part in enumerate(all_shapes()[obj.shape].parts):
        if part.paint == MAIN:
            finish = FINISHES[obj.material]
            color, texture = (*obj.rgb, finish.alpha), finish.texture or part.texture
        else:
            finish = PAINT_FINISHES.get(part.paint, FINISHES['paper'])
            if part.paint not in paints:
                paints[part.paint] = sample_paint(part.paint, rng)
            color, texture = (*paints[part.paint], 1.0), part.texture
        texture += {'print': str(rng.integers(6)), 'cover': str(rng.integers(4))}.get(texture, '')
        geoms.append(
            Geom(
                mesh=f'{obj.shape}.{i}',
                position=obj.position,
                matrix=matrix,
                color=color,
                texture=texture,
                specular=finish.specular,
                shininess=finish.shininess,
                owner=index,
                casts_shadow=finish.alpha == 1,
            )
        )
    return geoms


class _Silhouette(NamedTuple):
    """The projection of one object, whether or not it is occluded or outside the image."""

    pixels: int
    box: tuple[int, int, int, int]


def _silhouettes(
    renderer: Renderer, objects: list[PlacedObject], parts: list[list[Geom]], camera: Camera
) -> list[_Silhouette]:
    """Render every object as if it were alone, also beyond the edge of the image.

    Objects whose projections cannot overlap share an image, so that a few small images suffice.
    """
    pad = round(PADDING * camera.width)
    padded = camera.padded(pad)
    projections = [padded.project(obj.hull_vertices) for obj in objects]
    spans = [(*np.floor(p.min(axis=0)) - 1, *np.ceil(p.max(axis=0)) + 1) for p in projections]
    waiting, silhouettes = list(range(len(objects))), [_Silhouette(0, (0, 0, 0, 0))] * len(objects)
    while waiting:
        chosen = []
        for i in waiting:
            x0, y0, x1, y1 = spans[i]
            if all(x1 < spans[j][0] or spans[j][2] < x0 or y1 < spans[j][1] or spans[j][3] < y0 for j in chosen):
                chosen.append(i)
        waiting = [i for i in waiting if i not in chosen]
        ids = renderer.owners([geom for i in chosen for geom in parts[i]], padded)
        for i in chosen:
            silhouettes[i] = _silhouette(ids == i, pad)
    return silhouettes


def _silhouette(mask: np.ndarray, pad: int) -> _Silhouette:
    """Return the silhouette of a mask on an image that is padded by `pad` px."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return _Silhouette(0, (0, 0, 0, 0))
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - pad
    return _Silhouette(len(rows), tuple(box.tolist()))


def _scene_object(index: int, obj: PlacedObject, camera: Camera, silhouette: _Silhouette, seen_px: int) -> SceneObject:
    vertices = obj.vertices
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    return SceneObject(
        id=index,
        category=obj.category,
        color=obj.color,
        material=obj.material,
        size=obj.size,
        extent_m=np.ptp(all_vertices(obj.shape) * obj.scale, axis=0),
        center_m=center,
        camera_m=camera.to_camera(center[None])[0],
        footprint=obj.footprint,
        box=silhouette.box,
        whole_px=silhouette.pixels,
        seen_px=seen_px,
        parent=obj.parent,
        relation=obj.relation,
    )

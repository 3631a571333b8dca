"""A finished scene: the picture with everything that is known about it. `scene(split, index, seed)` makes one."""

import os
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from instructsam.train.tabletop.scenes import room as rooms
from instructsam.train.tabletop.scenes.layout import sample_layout
from instructsam.train.tabletop.scenes.render import FINER, Camera, Geom, Renderer
from instructsam.train.tabletop.scenes.sensor import photograph
from instructsam.train.tabletop.world.catalog import all_shapes, outline
from instructsam.train.tabletop.world.looks import FINISHES, PAINT_FINISHES, sample_paint
from instructsam.train.tabletop.world.shapes import MAIN
from instructsam.train.tabletop.world.splits import generator
from instructsam.train.tabletop.world.textures import bank

PADDING = 0.2  # how much more than the picture is looked at to see whole objects, as a share of its width


@dataclass(frozen=True, eq=False)
class Object:
    """One object of a scene; `id` is its value in the id image.

    extent_m [3] is its length, width and height in its own axes; center_m [3] is the middle of its box in world
    coordinates, camera_m [3] the same in the optical frame;
    footprint [N, 2] m is its outline on the table from above. box: (x0, y0, x1, y1) px of its whole silhouette, which
    may reach beyond the picture; whole_px and seen_px its pixels alone and in the scene. parent: id of what carries
    it, -1 for the table; relation: 'on' or 'in'.
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
    def visible(self):
        """Share of the silhouette that is seen, 0 to 1."""
        return self.seen_px / max(self.whole_px, 1)


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of a table: jpeg is the file, rgb [H, W, 3] uint8 what it decodes to.

    depth [H, W] float32 m along the optical axis; ids [H, W] int16, -1 where there is no object.
    """

    split: str
    seed: int
    index: int
    jpeg: bytes
    rgb: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    camera: Camera
    objects: tuple[Object, ...]

    @property
    def name(self):
        """Unique among all scenes: split, seed and index."""
        return f'{self.split}_{self.seed}_{self.index:06d}'

    def mask(self, targets):
        """Pixels of the objects with these ids, [H, W] bool."""
        return np.isin(self.ids, list(targets))


def scene(split, index, seed, size=(224, 224)):
    """The scene number `index` of `split` under `seed`, at `size` (width, height) px. The same call, the same bytes."""
    if os.getpid() != _first_process():  # Mesa's threads stay behind in the parent, and drawing would wait for them
        raise RuntimeError('OpenGL does not survive a fork: start the processes that draw scenes with "spawn"')
    things, room, camera = staged(split, index, seed, size)
    return photograph_things(things, room, camera, generator(split, seed, index, 'sensor'), (split, seed, index))


def staged(split, index, seed, size):
    """What `scene` photographs: (things, room, camera)."""
    camera = rooms.sample_camera(generator(split, seed, index, 'camera'), *size)
    room = rooms.sample_room(generator(split, seed, index, 'room'))
    return sample_layout(generator(split, seed, index, 'layout'), split, room.table, camera), room, camera


def photograph_things(things, room, camera, rng, name=('train', 0, 0)):
    """The scene of `things` (a list of layout.Thing) in `room` seen by `camera`."""
    renderer = _renderer(camera.width, camera.height)
    for texture, image in room.images.items():
        renderer.set_texture(texture, image)
    parts = [_geoms(thing, index) for index, thing in enumerate(things)]
    geoms = [*room.geoms, *(geom for part in parts for geom in part)]
    picture = renderer.color(geoms, room.lights, camera)
    ids, depth = renderer.ids(geoms, camera)
    whole, boxes = _silhouettes(renderer, things, parts, camera)
    seen = np.bincount(ids[ids >= 0], minlength=len(things))
    jpeg = photograph(picture, depth, camera.focal_px, rng)
    rgb = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    objects = tuple(_object(i, thing, camera, boxes[i], whole[i], seen[i]) for i, thing in enumerate(things))
    split, seed, index = name
    return Scene(split, seed, index, jpeg, np.ascontiguousarray(rgb), depth, ids, camera, objects)


@lru_cache(maxsize=1)
def _first_process():
    """The process that drew first; those forked from it remember it."""
    return os.getpid()


@lru_cache(maxsize=2)
def _renderer(width, height):
    """The renderer of this process for pictures of one size."""
    meshes = {f'{key}.{i}': part.mesh for key, shape in all_shapes().items() for i, part in enumerate(shape.parts)}
    surfaces = {name: make(np.random.default_rng(0)) for name, make in rooms.SURFACES.items()}
    widest = (max(round(FINER * side), side + 2 * round(PADDING * width)) for side in (width, height))
    return Renderer({**meshes, **rooms.MESHES}, {**bank(), **surfaces}, *widest)


def _geoms(thing, index):
    """The painted parts of an object."""
    rng = np.random.default_rng(thing.paint_seed)
    matrix = thing.turn @ np.diag(thing.scale)
    geoms, paints = [], {}
    for i, part in enumerate(all_shapes()[thing.shape].parts):
        if part.paint == MAIN:
            finish = FINISHES[thing.material]
            color, texture = (*thing.rgb, finish.alpha), finish.texture or part.texture
        else:
            finish = PAINT_FINISHES.get(part.paint, FINISHES['paper'])
            if part.paint not in paints:
                paints[part.paint] = sample_paint(part.paint, rng)
            color, texture = (*paints[part.paint], 1.0), part.texture
        texture += {'print': str(rng.integers(6)), 'cover': str(rng.integers(4))}.get(texture, '')
        geoms.append(
            Geom(
                mesh=f'{thing.shape}.{i}',
                position=thing.position,
                matrix=matrix,
                color=color,
                texture=texture,
                specular=finish.specular,
                shininess=finish.shininess,
                owner=index,
                casts=finish.alpha == 1,
            )
        )
    return geoms


def _silhouettes(renderer, things, parts, camera):
    """Pixels and boxes of every object as if it were alone, also beyond the picture's edge.

    Objects whose projections cannot overlap share a picture, so that a few cheap pictures do for all.
    """
    pad = round(PADDING * camera.width)
    wide = camera.padded(pad)
    corners = [wide.project(thing.corners) for thing in things]
    spans = [(*np.floor(p.min(axis=0)) - 1, *np.ceil(p.max(axis=0)) + 1) for p in corners]
    waiting, pixels, boxes = list(range(len(things))), [0] * len(things), [(0, 0, 0, 0)] * len(things)
    while waiting:
        chosen = []
        for i in waiting:
            x0, y0, x1, y1 = spans[i]
            if all(x1 < spans[j][0] or spans[j][2] < x0 or y1 < spans[j][1] or spans[j][3] < y0 for j in chosen):
                chosen.append(i)
        waiting = [i for i in waiting if i not in chosen]
        ids = renderer.owners([geom for i in chosen for geom in parts[i]], wide)
        for i in chosen:
            rows, columns = np.nonzero(ids == i)
            pixels[i] = len(rows)
            if len(rows):
                box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - pad
                boxes[i] = tuple(box.tolist())
    return pixels, boxes


def _object(index, thing, camera, box, whole, seen):
    vertices = thing.vertices
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    center = (low + high) / 2
    return Object(
        id=index,
        category=thing.category,
        color=thing.color,
        material=thing.material,
        size=thing.size,
        extent_m=np.ptp(outline(thing.shape) * thing.scale, axis=0),
        center_m=center,
        camera_m=camera.to_camera(center[None])[0],
        footprint=thing.footprint,
        box=box,
        whole_px=int(whole),
        seen_px=int(seen),
        parent=thing.parent,
        relation=thing.relation,
    )

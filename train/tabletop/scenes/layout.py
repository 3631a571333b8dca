"""Layout of a scene: objects with an appearance and a pose, apart from each other, resting on a supporting surface.

No physics is simulated: an object is rotated, then lowered until its lowest vertex touches the table, a flat surface or
the inside of a bowl. Footprints are the convex hulls of the vertices seen from above.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.room import Table
from instructsam.train.tabletop.world.catalog import (
    CATEGORIES,
    CUTLERY,
    SIZES,
    all_shapes,
    all_vertices,
    hull_vertices,
    shape_key,
)
from instructsam.train.tabletop.world.looks import sample_color
from instructsam.train.tabletop.world.meshes import rotation
from instructsam.train.tabletop.world.shapes import SupportSurface
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS, allowed_colors

TRIES = 40  # positions tried for one object before it is left out
STACK_GAP_M = 0.004  # least distance between objects on the same plate, tray or book


@dataclass(frozen=True, eq=False)
class PlacedObject:
    """One object of a scene before rendering: its appearance and its pose.

    A vertex v of the shape is at `rotation @ (scale * v) + position` in the world.

    Attributes:
        category: Name in `catalog.CATEGORIES`.
        shape: Key in `catalog.all_shapes`.
        material: Name in `looks.FINISHES`.
        color: Name in `looks.COLORS`.
        rgb: [3], 0 to 1.
        size: 'small', 'medium' or 'large'.
        scale: [3], along the axes of the shape.
        paint_seed: Seed of the prints and the shades of details.
        rotation: [3, 3].
        position: [3] m.
        parent: Index of the object that carries this one, or -1 for the table.
        relation: Its position relative to the parent: 'on' or 'in'.
    """

    category: str
    shape: str
    material: str
    color: str
    rgb: np.ndarray
    size: str
    scale: np.ndarray
    paint_seed: int
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    parent: int = -1
    relation: str = 'on'

    @property
    def vertices(self) -> np.ndarray:
        """All vertices in world coordinates, [V, 3] m."""
        return (all_vertices(self.shape) * self.scale) @ self.rotation.T + self.position

    @property
    def hull_vertices(self) -> np.ndarray:
        """The vertices of its convex hull in world coordinates, [C, 3] m."""
        return (hull_vertices(self.shape) * self.scale) @ self.rotation.T + self.position

    @property
    def footprint(self) -> np.ndarray:
        """Convex hull seen from above, [N, 2] m."""
        points = np.ascontiguousarray(self.hull_vertices[:, :2], np.float32)
        return cv2.convexHull(points)[:, 0].astype(float)


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest gap in m between two convex polygons [N, 2], [M, 2] along any of their edge normals.

    This is the separating axis theorem: it is negative if and only if the polygons overlap.
    """
    edges = np.concatenate([np.roll(first, -1, axis=0) - first, np.roll(second, -1, axis=0) - second])
    edges /= np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-9)
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    a, b = normals @ first.T, normals @ second.T
    return max((b.min(axis=1) - a.max(axis=1)).max(), (a.min(axis=1) - b.max(axis=1)).max())


def are_apart(first: np.ndarray, second: np.ndarray, gap_m: float) -> bool:
    """Return whether two convex polygons are more than `gap_m` apart; bounding boxes are compared first, for speed."""
    if (first.min(axis=0) > second.max(axis=0) + gap_m).any() or (second.min(axis=0) > first.max(axis=0) + gap_m).any():
        return True
    return separation(first, second) > gap_m


def sample_object(
    rng: np.random.Generator, category: str, split: str, avoid: Container[str] = (), prefer: str | None = None
) -> PlacedObject:
    """Draw the appearance and size of an object that has no position yet.

    Args:
        rng: Random numbers.
        category: Name in `catalog.CATEGORIES`.
        split: Restricts the colours, see `splits.allowed_colors`.
        avoid: Colours to use only if there are no others.
        prefer: Colour to use if the category has it.
    """
    entry = CATEGORIES[category]
    options = [
        (index, color)
        for index, appearance in enumerate(entry.appearances)
        for color in allowed_colors(category, appearance.colors, split)
    ]
    wanted = [o for o in options if o[1] == prefer] or [o for o in options if o[1] not in avoid] or options
    # Half of the time all appearances are equally likely, otherwise in proportion to the number of their colours.
    indices = sorted({index for index, _ in wanted})
    index = indices[rng.integers(len(indices))]
    if rng.random() < 0.5:
        index = wanted[rng.integers(len(wanted))][0]
    colors = [color for i, color in wanted if i == index]
    color = colors[rng.integers(len(colors))]
    appearance = entry.appearances[index]
    size = ('small', 'medium', 'large')[rng.choice(3, p=(0.3, 0.4, 0.3))]
    width_range, height_range = entry.stretch
    widths = rng.uniform(*width_range, 2)
    if not entry.independent_axes:
        widths[1] = widths[0]
    height = widths[0] if height_range is None else rng.uniform(*height_range)
    return PlacedObject(
        category=category,
        shape=shape_key(category, index, int(rng.integers(len(appearance.shapes)))),
        material=appearance.material,
        color=color,
        rgb=sample_color(color, rng, natural=appearance.material == 'skin'),
        size=size,
        scale=np.array([*widths, height]) * rng.uniform(*SIZES[size]),
        paint_seed=int(rng.integers(2**31)),
    )


def _sample_rotation(rng: np.random.Generator, obj: PlacedObject, *, upright: bool = False) -> np.ndarray:
    """Draw a rotation [3, 3] that the object might have on a flat surface; `upright` excludes lying on its side."""
    index = int(obj.shape.split('.')[1])
    poses = CATEGORIES[obj.category].appearances[index].poses
    yaw = rotation('z', rng.uniform(0, 360))
    if 'roll' in poses:
        axis = rng.normal(size=3)
        matrix, _ = cv2.Rodrigues(axis / np.linalg.norm(axis) * rng.uniform(0, np.pi))
        return matrix
    if 'tip' in poses and rng.random() < 0.5:
        return yaw @ rotation('x', rng.uniform(5, 25))
    if 'lie' in poses and not upright and rng.random() < 0.15:
        return yaw @ rotation('x', 90) @ rotation('z', rng.uniform(0, 360))
    return yaw


def _rest(obj: PlacedObject, matrix: np.ndarray, xy: np.ndarray, height: float) -> PlacedObject:
    """Rotate the object by `matrix` and place it at `xy` [2] with its lowest vertex at `height`."""
    low = ((all_vertices(obj.shape) * obj.scale) @ matrix.T)[:, 2].min()
    return replace(obj, rotation=matrix, position=np.array([*xy, height - low]))


class Layout:
    """The objects placed so far on a table in view of a camera."""

    def __init__(self, rng: np.random.Generator, split: str, table: Table, camera: Camera) -> None:
        self.rng, self.split, self.table, self.camera = rng, split, table, camera
        self.objects: list[PlacedObject] = []
        self._footprints: list[np.ndarray] = []  # footprints of objects that stand on the table or lean over it
        self._gap_m = rng.uniform(0.003, 0.04)
        self._is_crowded = rng.random() < 0.6

    def put(self, obj: PlacedObject) -> int | None:
        """Place an object on the table in view; return its index, or None if it does not fit."""
        for _ in range(TRIES):
            xy = self._sample_position()
            if xy is None:
                continue
            placed = _rest(obj, _sample_rotation(self.rng, obj), xy, 0.0)
            if not self._is_in_view(placed.hull_vertices):
                continue
            footprint = placed.footprint
            if self.table.contains(footprint) and all(
                are_apart(footprint, other, self._gap_m) for other in self._footprints
            ):
                self.objects.append(placed)
                self._footprints.append(footprint)
                return len(self.objects) - 1
        return None

    def _is_in_view(self, points: np.ndarray) -> bool:
        """Return whether two thirds of the points are inside the image and span less than half of its width."""
        width, height = self.camera.width, self.camera.height
        pixels = self.camera.project(points)
        inside = ((pixels > 0) & (pixels < (width, height))).all(axis=1).mean()
        return inside > 0.67 and np.ptp(pixels, axis=0).max() < 0.5 * width

    def _sample_position(self) -> np.ndarray | None:
        """Draw a position [2] m on the table in view, in a crowded scene often near another object."""
        if self._footprints and self._is_crowded and self.rng.random() < 0.6:
            near = self._footprints[self.rng.integers(len(self._footprints))].mean(axis=0)
            xy = near + self.rng.normal(0, 0.13, 2)
            x, y = self.camera.project([(*xy, 0.0)])[0]
            inside = 0.06 < x / self.camera.width < 0.94 and 0.08 < y / self.camera.height < 0.94
            return xy if inside else None
        pixel = self.rng.uniform((0.06, 0.08), (0.94, 0.94)) * (self.camera.width, self.camera.height)
        point = self.camera.on_table(pixel)
        return None if point is None else point[:2]

    def load(self, carrier_index: int, items: list[PlacedObject]) -> list[int]:
        """Put as many of `items` as fit on or in another object; return their indices."""
        carrier = self.objects[carrier_index]
        surface = all_shapes()[carrier.shape].surface
        if surface is None or carrier.rotation[2, 2] < 0.999:
            return []
        if surface.rim and all(item.category in CUTLERY for item in items):
            placed = self._lean_clear(items[0], carrier_index, surface)
        elif surface.profile:
            placed = _pile(self.rng, items, carrier, surface)
        else:
            placed = _spread(self.rng, items, carrier, surface)
        start = len(self.objects)
        self.objects += [replace(item, parent=carrier_index, relation=surface.relation) for item in placed]
        return list(range(start, len(self.objects)))

    def _lean_clear(self, item: PlacedObject, carrier_index: int, surface: SupportSurface) -> list[PlacedObject]:
        """Lean the item in its vessel in a direction where nothing else stands; return [] if none is found."""
        others = [obj.footprint for index, obj in enumerate(self.objects) if index != carrier_index]
        for _ in range(6):
            candidate = _lean(self.rng, item, self.objects[carrier_index], surface)
            if all(are_apart(candidate.footprint, other, 0.0) for other in others):
                self._footprints.append(candidate.footprint)  # keeps later objects from being put under it
                return [candidate]
        return []


def _spread(
    rng: np.random.Generator, items: Sequence[PlacedObject], carrier: PlacedObject, surface: SupportSurface
) -> list[PlacedObject]:
    """Place items on a flat disc or rectangle, clear of its edge and of each other; leave out those that do not fit."""
    placed = []
    height = carrier.position[2] + surface.height * carrier.scale[2]
    half = np.array(surface.half if surface.half else (surface.radius,) * 2) * carrier.scale[:2]
    to_world = carrier.rotation[:2, :2]
    for item in items:
        for _ in range(TRIES // 2):
            local = rng.uniform(-1, 1, 2) * half * 0.8
            candidate = _rest(
                item, _sample_rotation(rng, item, upright=True), local @ to_world.T + carrier.position[:2], height
            )
            footprint = candidate.footprint
            local_footprint = (footprint - carrier.position[:2]) @ to_world
            if surface.half:
                fits = (np.abs(local_footprint) < half).all()
            else:
                fits = (np.linalg.norm(local_footprint, axis=1) < half[0]).all()
            if fits and all(are_apart(footprint, other.footprint, STACK_GAP_M) for other in placed):
                placed.append(candidate)
                break
    return placed


def _pile(
    rng: np.random.Generator, items: Sequence[PlacedObject], carrier: PlacedObject, surface: SupportSurface
) -> list[PlacedObject]:
    """Place up to three round items in a bowl side by side, each lowered until it touches the inside."""
    radii = [np.ptp((all_vertices(item.shape) * item.scale)[:, :2], axis=0).max() / 2 for item in items]
    inside = np.array(surface.profile)[::-1] * (carrier.scale[0], carrier.scale[2])
    while items and max(radii) * (1 + (0, 0, 1, 1.16)[len(items)]) > inside[-1, 0]:
        items, radii = items[:-1], radii[:-1]
    ring_m = max(radii, default=0) * (0, 0, 1.03, 1.19)[len(items)]  # distance of each item from the middle
    first = rng.uniform(0, 2 * np.pi)
    placed = []
    for k, item in enumerate(items):
        angle = first + 2 * np.pi * k / len(items)
        offset = ring_m * np.array([np.cos(angle), np.sin(angle)])
        candidate = _rest(item, _sample_rotation(rng, item, upright=True), offset, 0.0)
        points = candidate.vertices
        floor = np.interp(np.linalg.norm(points[:, :2], axis=1), inside[:, 0], inside[:, 1])
        lift = (floor - points[:, 2]).max()
        placed.append(replace(candidate, position=candidate.position + carrier.position + np.array((0, 0, lift))))
    return placed


def _lean(rng: np.random.Generator, item: PlacedObject, carrier: PlacedObject, surface: SupportSurface) -> PlacedObject:
    """Stand a spoon in a vessel: its end on the bottom at one side, leaning on the rim at the other."""
    length = all_vertices(item.shape)[:, 0].min() * item.scale[0]
    thickness = 0.006 * item.scale[2]
    foot = np.array([-surface.radius * 0.75 * carrier.scale[0], surface.height * carrier.scale[2] + thickness])
    rim = np.array([(surface.rim[0] - 0.004) * carrier.scale[0], surface.rim[1] * carrier.scale[2] + thickness])
    rise = np.arctan2(rim[1] - foot[1], rim[0] - foot[0])
    yaw = rotation('z', rng.uniform(0, 360)) @ carrier.rotation
    upright = yaw @ rotation('y', -np.degrees(rise))
    start = yaw @ np.array([foot[0], 0, foot[1]])
    return replace(item, rotation=upright, position=carrier.position + start - upright @ np.array([length, 0, 0]))


class _AppearanceSampler:
    """Draws objects of a scene by category, keeping track of the colours that each category has already."""

    def __init__(self, rng: np.random.Generator, split: str, *, distinct: bool) -> None:
        """`distinct` avoids colours that the category has already; otherwise they are often repeated."""
        self.rng, self.split, self.distinct = rng, split, distinct
        self._colors: dict[str, list[str]] = {}

    def sample(self, category: str) -> PlacedObject:
        """Draw an object of a category; in the split `unseen` often in its held-out colour."""
        rng, colors = self.rng, self._colors.setdefault(category, [])
        held_out = [color for name, color in sorted(HELD_OUT_PAIRS) if name == category]
        prefer = None
        if self.split == 'unseen' and held_out and rng.random() < 0.6 and held_out[0] not in colors:
            prefer = held_out[0]
        if prefer is None and not self.distinct and colors and rng.random() < 0.6:
            prefer = colors[rng.integers(len(colors))]
        obj = sample_object(rng, category, self.split, avoid=colors if self.distinct else (), prefer=prefer)
        colors.append(obj.color)
        return obj


def sample_layout(rng: np.random.Generator, split: str, table: Table, camera: Camera) -> list[PlacedObject]:
    """Draw the objects of a scene: up to two loaded carriers, several of one or two focus categories, and others."""
    layout = Layout(rng, split, table, camera)
    names = list(CATEGORIES)
    weights = np.array([CATEGORIES[name].weight for name in names])
    weights /= weights.sum()
    count = int(rng.integers(6, 14))
    focus = [names[i] for i in rng.choice(len(names), size=int(rng.integers(1, 3)), replace=False, p=weights)]
    sampler = _AppearanceSampler(rng, split, distinct=rng.random() < 0.6)
    for _ in range(rng.choice(3, p=(0.25, 0.5, 0.25))):
        carriers = [name for name in focus if CATEGORIES[name].holds]
        if not carriers or rng.random() < 0.6:
            carriers = [name for name in names if CATEGORIES[name].holds]
        carrier = carriers[rng.integers(len(carriers))]
        index = layout.put(sampler.sample(carrier))
        if index is None:
            continue
        possible = CATEGORIES[carrier].holds
        preferred = [name for name in possible if name in focus]
        items = []
        for _ in range(rng.integers(1, 4)):
            pool = preferred if preferred and rng.random() < 0.5 else possible
            items.append(sampler.sample(pool[rng.integers(len(pool))]))
        layout.load(index, items)
    for category in focus:
        for _ in range(rng.integers(1, 4)):
            layout.put(sampler.sample(category))
    while len(layout.objects) < count:
        if layout.put(sampler.sample(names[rng.choice(len(names), p=weights)])) is None:
            count -= 1
    return layout.objects

"""What lies where on the table: objects with looks and poses, apart from each other, resting on what carries them.

Nothing is simulated: an object is turned, then lowered until its lowest vertex touches the table, a flat surface or
the inside of a bowl. Footprints are the convex hulls of the vertices seen from above.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from instructsam.train.tabletop.world.catalog import CATEGORIES, CUTLERY, SIZES, all_shapes, corners, outline, shape_key
from instructsam.train.tabletop.world.looks import sample_color
from instructsam.train.tabletop.world.meshes import rotation
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS, colors_allowed

TRIES = 40  # places tried for one object before it is left out
STACK_GAP_M = 0.004  # between objects on the same plate, tray or book


@dataclass(frozen=True, eq=False)
class Thing:
    """One object of a scene: what it is, how it looks, and where it is.

    scale [3] is applied along the shape's own axes, then `turn` [3, 3], then `position` [3] m. `parent` is the index
    of what carries it (-1: the table) and `relation` how: 'on' or 'in'.
    """

    category: str
    shape: str
    material: str
    color: str
    rgb: np.ndarray
    size: str
    scale: np.ndarray
    paint_seed: int  # chooses prints and the shades of details
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    parent: int = -1
    relation: str = 'on'

    @property
    def vertices(self):
        """All vertices in world coordinates, [V, 3] m."""
        return (outline(self.shape) * self.scale) @ self.turn.T + self.position

    @property
    def corners(self):
        """The vertices that make its convex hull, [C, 3] m."""
        return (corners(self.shape) * self.scale) @ self.turn.T + self.position

    @property
    def footprint(self):
        """Convex hull seen from above, [N, 2] m."""
        return hull(self.corners)


def hull(vertices):
    """Convex hull of vertices [V, 3] seen from above, [N, 2]."""
    return cv2.convexHull(np.ascontiguousarray(vertices[:, :2], np.float32))[:, 0].astype(float)


def separation(first, second):
    """How far two convex polygons [N, 2], [M, 2] are apart along the best edge normal, m; negative if they overlap."""
    edges = np.concatenate([np.roll(first, -1, axis=0) - first, np.roll(second, -1, axis=0) - second])
    edges /= np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-9)
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    a, b = normals @ first.T, normals @ second.T
    return max((b.min(axis=1) - a.max(axis=1)).max(), (a.min(axis=1) - b.max(axis=1)).max())


def apart(first, second, gap):
    """Whether two convex polygons are more than `gap` m apart; boxes are compared first, for speed."""
    if (first.min(axis=0) > second.max(axis=0) + gap).any() or (second.min(axis=0) > first.max(axis=0) + gap).any():
        return True
    return separation(first, second) > gap


def sample_thing(rng, category, split, avoid=(), prefer=None):
    """An object without a place: its look, colour (not one of `avoid` if that can be had) and size."""
    kind = CATEGORIES[category]
    options = [
        (index, color)
        for index, look in enumerate(kind.looks)
        for color in colors_allowed(category, look.colors, split)
    ]
    wanted = [o for o in options if o[1] == prefer] or [o for o in options if o[1] not in avoid] or options
    # each look is as likely as the others until its colours are dealt out
    looks = sorted({index for index, _ in wanted})
    index = looks[rng.integers(len(looks))]
    if rng.random() < 0.5:  # but many colours also make a look more common
        index = wanted[rng.integers(len(wanted))][0]
    colors = [color for i, color in wanted if i == index]
    color = colors[rng.integers(len(colors))]
    look = kind.looks[index]
    size = ('small', 'medium', 'large')[rng.choice(3, p=(0.3, 0.4, 0.3))]
    width, height = kind.stretch
    wide = rng.uniform(*width, 2)
    if not kind.free:
        wide[1] = wide[0]
    tall = wide[0] if height is None else rng.uniform(*height)
    return Thing(
        category=category,
        shape=shape_key(category, index, int(rng.integers(len(look.shapes)))),
        material=look.material,
        color=color,
        rgb=sample_color(color, rng, natural=look.material == 'skin'),
        size=size,
        scale=np.array([*wide, tall]) * rng.uniform(*SIZES[size]),
        paint_seed=int(rng.integers(2**31)),
    )


def _stand(rng, thing, still=False):
    """A turn for the object as it might lie on a flat surface."""
    index = int(thing.shape.split('.')[1])
    poses = CATEGORIES[thing.category].looks[index].poses
    yaw = rotation('z', rng.uniform(0, 360))
    if 'roll' in poses:
        axis = rng.normal(size=3)
        turn, _ = cv2.Rodrigues(axis / np.linalg.norm(axis) * rng.uniform(0, np.pi))
        return turn
    if 'tip' in poses and rng.random() < 0.5:
        return yaw @ rotation('x', rng.uniform(5, 25))
    if 'lie' in poses and not still and rng.random() < 0.15:
        return yaw @ rotation('x', 90) @ rotation('z', rng.uniform(0, 360))
    return yaw


def _rest(thing, turn, at, height):
    """The object turned, over `at` [2], its lowest vertex at `height`."""
    low = ((outline(thing.shape) * thing.scale) @ turn.T)[:, 2].min()
    return replace(thing, turn=turn, position=np.array([*at, height - low]))


class Layout:
    """The objects placed so far on a table, as the camera sees it."""

    def __init__(self, rng, split, table, camera):
        self.rng, self.split, self.table, self.camera = rng, split, table, camera
        self.things = []
        self._ground = []  # footprints of what stands on the table or leans over it
        self.gap = rng.uniform(0.003, 0.04)
        self.crowded = rng.random() < 0.6

    def put(self, thing):
        """Place an object on the table within the picture; its index, or None where there is no room."""
        for _ in range(TRIES):
            spot = self._spot()
            if spot is None:
                continue
            placed = _rest(thing, _stand(self.rng, thing), spot, 0.0)
            if not self._in_picture(placed.corners):
                continue
            shadow = placed.footprint
            if self.table.contains(shadow) and all(apart(shadow, other, self.gap) for other in self._ground):
                self.things.append(placed)
                self._ground.append(shadow)
                return len(self.things) - 1
        return None

    def _in_picture(self, points):
        """Whether the camera sees most of it; a third may be cut off by the edge, and it must not fill the view."""
        width, height = self.camera.width, self.camera.height
        pixels = self.camera.project(points)
        inside = ((pixels > 0) & (pixels < (width, height))).all(axis=1).mean()
        return inside > 0.67 and np.ptp(pixels, axis=0).max() < 0.5 * width

    def _spot(self):
        """A place on the table, [2] m: anywhere in the picture, or near what is there in a crowded scene."""
        if self._ground and self.crowded and self.rng.random() < 0.6:
            near = self._ground[self.rng.integers(len(self._ground))].mean(axis=0)
            spot = near + self.rng.normal(0, 0.13, 2)
            x, y = self.camera.project([(*spot, 0.0)])[0]
            inside = 0.06 < x / self.camera.width < 0.94 and 0.08 < y / self.camera.height < 0.94
            return spot if inside else None
        pixel = self.rng.uniform((0.06, 0.08), (0.94, 0.94)) * (self.camera.width, self.camera.height)
        point = self.camera.on_table(pixel)
        return None if point is None else point[:2]

    def load(self, holder, items):
        """Put `items` on or in the object at index `holder`, as many as fit; their indices."""
        carrier = self.things[holder]
        surface = all_shapes()[carrier.shape].surface
        if surface is None or carrier.turn[2, 2] < 0.999:
            return []
        if surface.rim and all(item.category in CUTLERY for item in items):
            placed = self._lean_clear(items[0], holder, surface)
        elif surface.profile:
            placed = _pile(self.rng, items, carrier, surface)
        else:
            placed = _spread(self.rng, items, carrier, surface)
        start = len(self.things)
        self.things += [replace(item, parent=holder, relation=surface.relation) for item in placed]
        return list(range(start, len(self.things)))

    def _lean_clear(self, item, holder, surface):
        """The item leaning in its vessel towards where nothing else stands: a list of it, empty if there is no such."""
        others = [thing.footprint for index, thing in enumerate(self.things) if index != holder]
        for _ in range(6):
            candidate = _lean(self.rng, item, self.things[holder], surface)
            if all(apart(candidate.footprint, other, 0.0) for other in others):
                self._ground.append(candidate.footprint)  # nothing is put under it later
                return [candidate]
        return []


def _spread(rng, items, carrier, surface):
    """Items on a flat disc or rectangle, clear of its edge and of each other."""
    placed = []
    height = carrier.position[2] + surface.height * carrier.scale[2]
    half = np.array(surface.half if surface.half else (surface.radius,) * 2) * carrier.scale[:2]
    for item in items:
        for _ in range(TRIES // 2):
            local = rng.uniform(-1, 1, 2) * half * 0.8
            candidate = _rest(
                item, _stand(rng, item, still=True), local @ carrier.turn[:2, :2].T + carrier.position[:2], height
            )
            shadow = candidate.footprint
            own = (shadow - carrier.position[:2]) @ carrier.turn[:2, :2]  # in the carrier's own axes
            fits = (np.abs(own) < half).all() if surface.half else (np.linalg.norm(own, axis=1) < half[0]).all()
            if fits and all(apart(shadow, other.footprint, STACK_GAP_M) for other in placed):
                placed.append(candidate)
                break
    return placed


def _pile(rng, items, carrier, surface):
    """One to three round items in a bowl, touching each other, each lowered until it meets the inside."""
    radii = [np.ptp((outline(item.shape) * item.scale)[:, :2], axis=0).max() / 2 for item in items]
    inside = np.array(surface.profile)[::-1] * (carrier.scale[0], carrier.scale[2])
    while items and max(radii) * (1 + (0, 0, 1, 1.16)[len(items)]) > inside[-1, 0]:
        items, radii = items[:-1], radii[:-1]
    ring = max(radii, default=0) * (0, 0, 1.03, 1.19)[len(items)]
    first = rng.uniform(0, 2 * np.pi)
    placed = []
    for k, item in enumerate(items):
        angle = first + 2 * np.pi * k / len(items)
        offset = ring * np.array([np.cos(angle), np.sin(angle)])
        candidate = _rest(item, _stand(rng, item, still=True), offset, 0.0)
        points = candidate.vertices
        floor = np.interp(np.linalg.norm(points[:, :2], axis=1), inside[:, 0], inside[:, 1])
        lift = (floor - points[:, 2]).max()
        placed.append(replace(candidate, position=candidate.position + carrier.position + (0, 0, lift)))
    return placed


def _lean(rng, item, carrier, surface):
    """A spoon standing in a mug: its end on the bottom at one side, leaning on the rim at the other."""
    length = outline(item.shape)[:, 0].min() * item.scale[0]
    thick = 0.006 * item.scale[2]
    foot = np.array([-surface.radius * 0.75 * carrier.scale[0], surface.height * carrier.scale[2] + thick])
    rim = np.array([(surface.rim[0] - 0.004) * carrier.scale[0], surface.rim[1] * carrier.scale[2] + thick])
    rise = np.arctan2(rim[1] - foot[1], rim[0] - foot[0])
    turn = rotation('z', rng.uniform(0, 360)) @ carrier.turn
    upright = turn @ rotation('y', -np.degrees(rise))
    start = turn @ np.array([foot[0], 0, foot[1]])
    return replace(item, turn=upright, position=carrier.position + start - upright @ np.array([length, 0, 0]))


def sample_layout(rng, split, table, camera):
    """The objects of a scene: some of one kind, something that carries something, and others."""
    layout = Layout(rng, split, table, camera)
    names = list(CATEGORIES)
    weights = np.array([CATEGORIES[name].weight for name in names])
    weights /= weights.sum()
    count = int(rng.integers(6, 14))
    focus = [names[i] for i in rng.choice(len(names), size=int(rng.integers(1, 3)), replace=False, p=weights)]
    distinct = rng.random() < 0.6
    used = {}

    def new(category):
        colors = used.setdefault(category, [])
        held = [color for name, color in sorted(HELD_OUT_PAIRS) if name == category]
        prefer = held[0] if split == 'unseen' and held and rng.random() < 0.6 and held[0] not in colors else None
        if prefer is None and not distinct and colors and rng.random() < 0.6:
            prefer = colors[rng.integers(len(colors))]
        thing = sample_thing(rng, category, split, avoid=colors if distinct else (), prefer=prefer)
        colors.append(thing.color)
        return thing

    for _ in range(rng.choice(3, p=(0.25, 0.5, 0.25))):
        holders = [name for name in focus if CATEGORIES[name].holds]
        if not holders or rng.random() < 0.6:
            holders = [name for name in names if CATEGORIES[name].holds]
        holder = holders[rng.integers(len(holders))]
        index = layout.put(new(holder))
        if index is None:
            continue
        possible = CATEGORIES[holder].holds
        liked = [name for name in possible if name in focus]
        items = []
        for _ in range(rng.integers(1, 4)):
            pool = liked if liked and rng.random() < 0.5 else possible
            items.append(new(pool[rng.integers(len(pool))]))
        layout.load(index, items)
    for category in focus:
        for _ in range(rng.integers(1, 4)):
            layout.put(new(category))
    while len(layout.things) < count:
        if layout.put(new(names[rng.choice(len(names), p=weights)])) is None:
            count -= 1
    return layout.things

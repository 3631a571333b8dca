"""Triangle meshes of simple solids: surfaces of revolution, tubes, rounded boxes, crumpled balls, flat sheets.

All are closed or double-walled, so that back faces may be culled, and carry smooth normals except at creases.
Lengths are metres, z is up.
"""

from dataclasses import dataclass

import numpy as np

CREASE = np.cos(np.radians(38))  # profile corners sharper than this keep their edge


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices [V, 3] m, normals [V, 3] unit, uv [V, 2] texture coordinates, faces [F, 3] counter-clockwise."""

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray

    def moved(self, by=(0, 0, 0), turn=None, scale=(1, 1, 1)):
        """Scaled along its axes, then turned by the rotation `turn` [3, 3], then moved by `by` [3] m."""
        turn = np.eye(3) if turn is None else np.asarray(turn)
        normals = (self.normals / np.asarray(scale)) @ turn.T
        vertices = (self.vertices * scale) @ turn.T + by
        return Mesh(vertices, normals / np.linalg.norm(normals, axis=1, keepdims=True), self.uv, self.faces)


def merge(*meshes):
    """One mesh of several."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts)]),
    )


def rotation(axis, degrees):
    """Rotation matrix [3, 3] about 'x', 'y' or 'z'."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = {'x': (1, 2), 'y': (2, 0), 'z': (0, 1)}[axis]
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = c
    turn[first, second], turn[second, first] = -s, s
    return turn


def curve(points, steps=24):
    """A smooth curve through `points` [N, D], Catmull-Rom, sampled at `steps` + 1 places: [steps + 1, D]."""
    points = np.asarray(points, float)
    padded = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    at = np.linspace(0, len(points) - 1, steps + 1)
    i = np.minimum(at.astype(int), len(points) - 2)
    t = (at - i)[:, None]
    a, b, c, d = (padded[i + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def lathe(profile, segments=30):
    """Turn `profile` [N, 2], (radius, z) from the bottom outside upwards, about z.

    Corners sharper than CREASE stay sharp. Every step of the profile has its own two rings of vertices.
    """
    profile = np.asarray(profile, float)
    steps = np.diff(profile, axis=0)
    length = np.linalg.norm(steps, axis=1)
    normals = np.stack([steps[:, 1], -steps[:, 0]], axis=1) / length[:, None]
    smooth = (normals[1:] * normals[:-1]).sum(axis=1) > CREASE
    mean = (normals[1:] + normals[:-1]) / 2
    low, high = normals.copy(), normals.copy()
    low[1:][smooth] = high[:-1][smooth] = mean[smooth]
    rings = np.stack([profile[:-1], profile[1:]], axis=1).reshape(-1, 2)
    tilts = np.stack([low, high], axis=1).reshape(-1, 2)
    along = np.concatenate([[0], np.cumsum(length)]) / length.sum()
    heights = np.stack([along[:-1], along[1:]], axis=1).ravel()

    angle = np.linspace(0, 2 * np.pi, segments + 1)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def spin(rz):
        flat = rz[:, None, :1] * circle
        return np.concatenate([flat, np.broadcast_to(rz[:, None, 1:], (*flat.shape[:2], 1))], axis=2).reshape(-1, 3)

    uv = np.stack(np.broadcast_arrays(angle / (2 * np.pi), heights[:, None]), axis=-1).reshape(-1, 2)
    normals = spin(tilts)
    return Mesh(
        spin(rings), normals / np.linalg.norm(normals, axis=1, keepdims=True), uv, _strips(len(steps), segments)
    )


def _strips(count, segments):
    """Faces between pairs of rings: ring 2i and ring 2i + 1 are joined, each of `segments` + 1 vertices."""
    start = 2 * np.arange(count)[:, None] * (segments + 1) + np.arange(segments)
    quad = np.stack([start, start + 1, start + segments + 2, start + segments + 1], axis=-1).reshape(-1, 4)
    return np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


def tube(path, radius, flat=1.0, up=(0, 0, 1), segments=12, closed=False):
    """A tube along `path` [N, 3] with round ends, or a ring where `closed`.

    radius: half width, m, a number or [N]; flat: thickness / width, the thin side along `up`, a number or [N].
    """
    path = np.asarray(path, float)
    radius, flat = (np.broadcast_to(np.asarray(v, float), len(path)) for v in (radius, flat))
    if not closed:
        path, radius, flat = _round_ends(path, radius, flat)
    ahead = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(np.asarray(up, float), ahead)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    over = np.cross(ahead, side)
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None, :, None]
    wide, thick = radius[:, None, None], (radius * flat)[:, None, None]
    offset = wide * np.cos(angle) * side[:, None] + thick * np.sin(angle) * over[:, None]
    normals = np.cos(angle) * side[:, None] * flat[:, None, None] + np.sin(angle) * over[:, None]
    if not closed:  # the round ends look forward and back
        slope = -np.gradient(radius) / np.maximum(np.linalg.norm(np.gradient(path, axis=0), axis=1), 1e-9)
        normals = normals + (np.clip(slope, -8, 8) * np.minimum(flat, 1))[:, None, None] * ahead[:, None]
    rings = path[:, None] + offset
    along = np.linspace(0, 1, len(path))[:, None]
    uv = np.stack(np.broadcast_arrays(np.linspace(0, 1, segments + 1), along), axis=-1)
    if closed:
        rings, normals, uv = (np.concatenate([v, v[:1]]) for v in (rings, normals, uv))
    normals = normals.reshape(-1, 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    start = np.arange(len(rings) - 1)[:, None] * (segments + 1) + np.arange(segments)
    quad = np.stack([start, start + 1, start + segments + 2, start + segments + 1], axis=-1).reshape(-1, 4)
    return Mesh(
        rings.reshape(-1, 3), normals, uv.reshape(-1, 2), np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    )


def _round_ends(path, radius, flat):
    """The same with the first and last radius tapering to a point over a quarter of an ellipse."""
    angle = np.linspace(0, np.pi / 2, 5)[:-1, None]
    first, last = path[1] - path[0], path[-1] - path[-2]
    first *= radius[0] * min(flat[0], 1) / np.linalg.norm(first)
    last *= radius[-1] * min(flat[-1], 1) / np.linalg.norm(last)
    return (
        np.concatenate([path[0] - first * np.cos(angle), path, path[-1] + last * np.cos(angle[::-1])]),
        np.concatenate([radius[0] * np.sin(angle[:, 0]), radius, radius[-1] * np.sin(angle[::-1, 0])]),
        np.concatenate([np.full(4, flat[0]), flat, np.full(4, flat[-1])]),
    )


def box(size, bevel=0.002, steps=2):
    """A box standing on z = 0 with edges rounded by `bevel` m; uv runs over each side from 0 to 1."""
    half = np.asarray(size, float) / 2
    bevel = min(bevel, *(half * 0.98))
    edge = bevel * (1 - np.cos(np.linspace(0, np.pi / 2, steps + 1)))  # from the corner inwards
    parts = []
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        grid = [np.concatenate([edge - half[k], half[k] - edge[::-1]]) for k in (a, b)]
        for sign in (-1, 1):
            points = np.zeros((len(grid[0]), len(grid[1]), 3))
            points[..., a], points[..., b], points[..., axis] = grid[0][:, None], grid[1], sign * half[axis]
            inner = np.clip(points, bevel - half, half - bevel)
            normals = points - inner
            normals /= np.linalg.norm(normals, axis=2, keepdims=True)
            uv = np.stack([points[..., a] / half[a], points[..., b] / half[b]], axis=-1) / 2 + 0.5
            vertices = (inner + bevel * normals).reshape(-1, 3) + (0, 0, half[2])
            parts.append(
                Mesh(vertices, normals.reshape(-1, 3), uv.reshape(-1, 2), _grid(*points.shape[:2], flip=sign < 0))
            )
    return merge(*parts)


def sheet(steps=24):
    """A flat square of side 1 facing up, centred, in `steps` x `steps` cells (light is computed at vertices)."""
    at = np.linspace(-0.5, 0.5, steps + 1)
    x, y = np.meshgrid(at, at, indexing='ij')
    vertices = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3)
    return Mesh(
        vertices, np.tile((0.0, 0.0, 1.0), (len(vertices), 1)), vertices[:, :2] + 0.5, _grid(steps + 1, steps + 1)
    )


def _grid(rows, columns, flip=False):
    """Faces of a grid of vertices, looking along the third axis for axes in cyclic order."""
    start = np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)
    quad = np.stack([start, start + columns, start + columns + 1, start + 1], axis=-1).reshape(-1, 4)
    if flip:
        quad = quad[:, ::-1]
    return np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


def crumpled(radius, rng, subdivisions=3):
    """A crumpled ball standing on z = 0, every facet flat."""
    ball = lathe([(np.sin(a), -np.cos(a)) for a in np.linspace(0, np.pi, 3 * subdivisions + 2)], 5 * subdivisions)
    key = np.round(ball.vertices, 6) + 0.0
    unique, index = np.unique(key, axis=0, return_inverse=True)
    bumps = 1 + rng.uniform(-0.16, 0.12, len(unique))[:, None]
    twist = rng.uniform(-0.12, 0.12, unique.shape)
    corners = ((unique * bumps + twist) * radius)[index.ravel()][ball.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    corners, normals = corners[length > 1e-12], (normals / np.maximum(length, 1e-12)[:, None])[length > 1e-12]
    vertices = corners.reshape(-1, 3)
    vertices = vertices - (0, 0, vertices[:, 2].min())
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Mesh(vertices, np.repeat(normals, 3, axis=0), np.zeros((len(vertices), 2)), faces)

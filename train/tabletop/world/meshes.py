"""Triangle meshes of simple solids: surfaces of revolution, tubes, rounded boxes, crumpled balls, flat sheets.

All are closed or double-walled, so that back faces may be culled, and have smooth normals except at creases.
Lengths are in metres, z is up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CREASE = np.cos(np.radians(38))  # cosine of the angle above which a corner of a profile keeps a sharp edge


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: [V, 3] m.
        normals: [V, 3] unit vectors.
        uv: [V, 2] texture coordinates.
        faces: [F, 3] indices of vertices, counter-clockwise.
    """

    vertices: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray

    def moved(
        self, by: ArrayLike = (0, 0, 0), rotation: ArrayLike | None = None, scale: ArrayLike = (1, 1, 1)
    ) -> 'Mesh':
        """Return the mesh scaled along its axes, then rotated by `rotation` [3, 3], then moved by `by` [3] m."""
        matrix = np.eye(3) if rotation is None else np.asarray(rotation)
        normals = (self.normals / np.asarray(scale)) @ matrix.T
        vertices = (self.vertices * scale) @ matrix.T + by
        return Mesh(vertices, normals / np.linalg.norm(normals, axis=1, keepdims=True), self.uv, self.faces)


def merge(*meshes: Mesh) -> Mesh:
    """Return one mesh with the faces of all."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
    )


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Return the rotation matrix [3, 3] about the axis 'x', 'y' or 'z'."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = {'x': (1, 2), 'y': (2, 0), 'z': (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


def curve(points: ArrayLike, steps: int = 24) -> np.ndarray:
    """Return a Catmull-Rom spline through `points` [N, D], sampled at `steps` + 1 positions: [steps + 1, D]."""
    points = np.asarray(points, float)
    padded = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    at = np.linspace(0, len(points) - 1, steps + 1)
    i = np.minimum(at.astype(int), len(points) - 2)
    t = (at - i)[:, None]
    a, b, c, d = (padded[i + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def lathe(profile: ArrayLike, segments: int = 30) -> Mesh:
    """Return the surface of revolution of `profile` [N, 2] about z.

    The profile consists of (radius, z), upwards from the outside of the bottom. Its corners sharper than `CREASE` stay
    sharp. Every step of the profile has its own two rings of vertices.
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

    def revolve(rz: np.ndarray) -> np.ndarray:
        flat = rz[:, None, :1] * circle
        return np.concatenate([flat, np.broadcast_to(rz[:, None, 1:], (*flat.shape[:2], 1))], axis=2).reshape(-1, 3)

    uv = np.stack(np.broadcast_arrays(angle / (2 * np.pi), heights[:, None]), axis=-1).reshape(-1, 2)
    normals = revolve(tilts)
    return Mesh(
        revolve(rings), normals / np.linalg.norm(normals, axis=1, keepdims=True), uv, _strips(len(steps), segments)
    )


def _strips(count: int, segments: int) -> np.ndarray:
    """Return the faces between ring 2i and ring 2i + 1 for `count` pairs of rings of `segments` + 1 vertices."""
    start = 2 * np.arange(count)[:, None] * (segments + 1) + np.arange(segments)
    quad = np.stack([start, start + 1, start + segments + 2, start + segments + 1], axis=-1).reshape(-1, 4)
    return np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


def tube(
    path: ArrayLike,
    radius: ArrayLike,
    flat: ArrayLike = 1.0,
    up: ArrayLike = (0, 0, 1),
    segments: int = 12,
    *,
    closed: bool = False,
) -> Mesh:
    """Return a tube along a path, with an elliptic cross-section and round ends.

    Args:
        path: [N, 3] m, the middle line.
        radius: Half the width in m, a number or [N].
        flat: Ratio of thickness to width, a number or [N].
        up: [3], direction of the thickness.
        segments: Number of sides.
        closed: Join the ends to a ring instead of rounding them.
    """
    path = np.asarray(path, float)
    radius, flat = (np.broadcast_to(np.asarray(v, float), len(path)) for v in (radius, flat))
    if not closed:
        path, radius, flat = _round_ends(path, radius, flat)
    tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0) if closed else np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(np.asarray(up, float), tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    over = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None, :, None]
    half_width, half_thickness = radius[:, None, None], (radius * flat)[:, None, None]
    offset = half_width * np.cos(angle) * side[:, None] + half_thickness * np.sin(angle) * over[:, None]
    normals = np.cos(angle) * side[:, None] * flat[:, None, None] + np.sin(angle) * over[:, None]
    if not closed:  # the normals of the round ends lean forwards and backwards
        slope = -np.gradient(radius) / np.maximum(np.linalg.norm(np.gradient(path, axis=0), axis=1), 1e-9)
        normals = normals + (np.clip(slope, -8, 8) * np.minimum(flat, 1))[:, None, None] * tangent[:, None]
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


def _round_ends(path: np.ndarray, radius: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extend path, radius and flatness so that both ends taper to a point over a quarter of an ellipse."""
    angle = np.linspace(0, np.pi / 2, 5)[:-1, None]
    first, last = path[1] - path[0], path[-1] - path[-2]
    first *= radius[0] * min(flat[0], 1) / np.linalg.norm(first)
    last *= radius[-1] * min(flat[-1], 1) / np.linalg.norm(last)
    return (
        np.concatenate([path[0] - first * np.cos(angle), path, path[-1] + last * np.cos(angle[::-1])]),
        np.concatenate([radius[0] * np.sin(angle[:, 0]), radius, radius[-1] * np.sin(angle[::-1, 0])]),
        np.concatenate([np.full(4, flat[0]), flat, np.full(4, flat[-1])]),
    )


def box(size: ArrayLike, bevel: float = 0.002, steps: int = 2) -> Mesh:
    """Return a box of `size` [3] m standing on z = 0 with edges rounded by `bevel` m.

    The texture coordinates run from 0 to 1 over each side; an edge is rounded in `steps` steps.
    """
    half = np.asarray(size, float) / 2
    bevel = min(bevel, *(half * 0.98))
    edge = bevel * (1 - np.cos(np.linspace(0, np.pi / 2, steps + 1)))  # distances from the corner inwards
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
            vertices = (inner + bevel * normals).reshape(-1, 3) + np.array((0, 0, half[2]))
            parts.append(
                Mesh(vertices, normals.reshape(-1, 3), uv.reshape(-1, 2), _grid(*points.shape[:2], flip=sign < 0))
            )
    return merge(*parts)


def sheet(steps: int = 24) -> Mesh:
    """Return a centred square of side 1 that faces up, in `steps` x `steps` cells (OpenGL lights the vertices)."""
    at = np.linspace(-0.5, 0.5, steps + 1)
    x, y = np.meshgrid(at, at, indexing='ij')
    vertices = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3)
    return Mesh(
        vertices, np.tile((0.0, 0.0, 1.0), (len(vertices), 1)), vertices[:, :2] + 0.5, _grid(steps + 1, steps + 1)
    )


def _grid(rows: int, columns: int, *, flip: bool = False) -> np.ndarray:
    """Return the faces of a grid of vertices; they face along the third axis if rows and columns are in cyclic order.

    `flip` makes them face the other way.
    """
    start = np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)
    quad = np.stack([start, start + columns, start + columns + 1, start + 1], axis=-1).reshape(-1, 4)
    if flip:
        quad = quad[:, ::-1]
    return np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


def crumpled(radius: float, rng: np.random.Generator, subdivisions: int = 3) -> Mesh:
    """Return a crumpled ball with flat facets that stands on z = 0."""
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
    vertices = vertices - np.array((0, 0, vertices[:, 2].min()))
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Mesh(vertices, np.repeat(normals, 3, axis=0), np.zeros((len(vertices), 2)), faces)

"""Shapes as convex pieces, for a physics engine: `solid(key)`.

A part that is mostly air, such as the body of a mug or its handle, falls into wedges about the axis that it is round
about; then every piece is halved by a plane again and again, as long as that makes the convex hulls much smaller. What
is convex stays one piece. Scaling a shape keeps its pieces convex, so each shape is cut once.
"""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError

from instructsam.train.tabletop.catalog import all_shapes

WEDGES = 12
HOLLOW = 0.4  # of its hull, which a part fills at most that is cut into wedges
CUTS = np.arange(1, 8) / 8  # tried, of a piece's extent along each normal
SAVES = 0.08, 0.02  # what a cut saves at least, of the piece's volume and of the volume before all cuts
THIN_M, LEAST_M2 = 2e-4, 1e-10  # what is thinner has no hull of its own; smaller triangles do not count


@lru_cache(maxsize=None)
def solid(key):
    """The convex pieces of a shape of the catalog, unscaled: a tuple of the corners [N, 3] m of each."""
    return tuple(piece for part in all_shapes()[key].parts for piece in pieces(part.mesh))


def pieces(mesh):
    """The convex pieces of a mesh, [N, 3] m corners each; parts that are flat have none."""
    found = []
    for triangles in _connected(mesh):
        for wedge, normals in _wedges(triangles):
            first = _Piece.of(wedge)
            waiting = [first] if first else []
            while waiting:
                piece = waiting.pop()
                halves = _halved(piece, normals, max(SAVES[0] * piece.volume_m3, SAVES[1] * first.volume_m3))
                waiting += halves
                found += [] if halves else [piece.corners]
    return found


@dataclass(frozen=True, eq=False)
class _Piece:
    triangles: np.ndarray  # [T, 3, 3] m
    corners: np.ndarray  # [N, 3] m, of their convex hull
    volume_m3: float  # of the hull

    @classmethod
    def of(cls, triangles):
        """None where they are flat."""
        triangles = triangles[_areas(triangles) > LEAST_M2]
        points = np.unique(triangles.reshape(-1, 3), axis=0)
        if len(points) < 4:
            return None
        offsets = points - points.mean(axis=0)
        if np.ptp(offsets @ np.linalg.eigh(offsets.T @ offsets)[1][:, 0]) < THIN_M:
            return None
        try:
            hull = ConvexHull(points)
        except QhullError:  # flat for all its tolerances
            return None
        return cls(triangles, points[hull.vertices], hull.volume)


def _halved(piece, normals, saves_m3):
    """The two parts of the best cut, or [] where none saves so much."""
    best, halves = piece.volume_m3 - saves_m3, []
    for normal in normals:
        along = piece.triangles @ normal
        for place in along.min() + CUTS * np.ptp(along):
            parts = [_Piece.of(_clipped(piece.triangles, sign * (along - place))) for sign in (1, -1)]
            if all(parts) and sum(part.volume_m3 for part in parts) < best:
                best, halves = sum(part.volume_m3 for part in parts), parts
    return halves


def _wedges(triangles):
    """[(triangles, normals [M, 3] of the cuts to try)]: wedges of a hollow part, or all of any other."""
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    middle = (low + high) / 2
    whole = _Piece.of(triangles)
    around = triangles - middle
    filled = np.einsum('ti,ti->', around[:, 0], np.cross(around[:, 1], around[:, 2])) / 6
    if whole is None or filled > HOLLOW * whole.volume_m3:
        return [(triangles, np.eye(3))]
    extent = np.log(np.maximum(high - low, THIN_M))
    axis = min(range(3), key=lambda k: abs(extent[k - 2] - extent[k - 1]))
    found = []
    for angle in 2 * np.pi * np.arange(WEDGES) / WEDGES:
        ahead, behind, half = angle + np.pi / 2, angle + 2 * np.pi / WEDGES - np.pi / 2, angle + np.pi / WEDGES
        first, second, radial = (np.roll([0.0, np.cos(a), np.sin(a)], axis) for a in (ahead, behind, half))
        wedge = _clipped(around, around @ first)
        found.append((_clipped(wedge, wedge @ second) + middle, np.stack([np.eye(3)[axis], radial])))
    return found


def _clipped(triangles, heights):
    """What of the triangles [T, 3, 3] is above 0; heights [T, 3] of their corners."""
    above = heights > 0
    count = above.sum(axis=1)
    done = [triangles[count == 3]]
    for corners in (1, 2):  # above; the one that is alone on its side is put first
        chosen = count == corners
        first = (above if corners == 1 else ~above)[chosen].argmax(axis=1)[:, None]
        order = (first + np.arange(3)) % 3
        h = np.take_along_axis(heights[chosen], order, axis=1)
        a, b, c = np.take_along_axis(triangles[chosen], order[..., None], axis=1).transpose(1, 0, 2)
        ab, ac = (a + (h[:, :1] / (h[:, :1] - h[:, k : k + 1])) * (end - a) for k, end in ((1, b), (2, c)))
        done += [np.stack(t, axis=1) for t in ([(a, ab, ac)] if corners == 1 else [(ab, b, c), (ab, c, ac)])]
    return np.concatenate(done)


def _areas(triangles):
    return np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1) / 2


def _connected(mesh):
    """Triangles [T, 3, 3] m of each part, joined where exactly two of them share an edge."""
    faces = mesh.faces[_areas(mesh.vertices[mesh.faces]) > LEAST_M2]
    _, place = np.unique(np.round(mesh.vertices, 6) + 0.0, axis=0, return_inverse=True)
    corners = place.ravel()[faces]
    edges = np.sort(np.stack([corners, np.roll(corners, -1, axis=1)], axis=-1), axis=-1).reshape(-1, 2)
    _, edge, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(edge.ravel(), kind='stable')
    starts = np.cumsum(count) - count
    pairs = order[starts[count == 2, None] + np.arange(2)] // 3
    links = coo_matrix((np.ones(len(pairs)), pairs.T), (len(faces), len(faces)))
    _, labels = connected_components(links, directed=False)
    return [mesh.vertices[faces[labels == label]] for label in np.unique(labels)]

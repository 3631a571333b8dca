"""Approximate convex decomposition of the shapes, for physics engines: `convex_pieces(key)`.

A hollow part, such as the body or the handle of a mug, is first divided into wedges about its axis of revolution; then
every piece is recursively halved by a plane as long as that makes the convex hulls much smaller. Convex parts stay in
one piece, and a surface that encloses no volume is replaced by its hull. Scaling keeps pieces convex, so each shape is
divided only once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from manifold3d import Error, Manifold
from manifold3d import Mesh as ManifoldMesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from instructsam.train.tabletop.world.catalog import all_shapes
from instructsam.train.tabletop.world.meshes import Mesh


@dataclass(frozen=True)
class Decomposition:
    """Parameters of the decomposition.

    Attributes:
        wedges: Number of wedges of a hollow part.
        hollow: A part that fills less than this share of its hull is divided into wedges at once.
        slack: Any other part is divided into wedges if its pieces without wedges exceed its volume by more than this
            share and wedges fit better.
        cuts: Positions of the planes to try, as shares of a piece's extent along each normal.
        least_saving: Least volume that a cut must save, as a share of the piece's hull.
        least_saving_of_part: The same as a share of the part's hull; the larger of the two applies.
        least_m3: Pieces with a smaller volume are dropped.
    """

    wedges: int = 16
    hollow: float = 0.4
    slack: float = 0.2
    cuts: tuple[float, ...] = tuple(k / 8 for k in range(1, 8))
    least_saving: float = 0.06
    least_saving_of_part: float = 0.02
    least_m3: float = 1e-10


PARAMETERS = Decomposition()


@cache
def convex_pieces(key: str) -> tuple[np.ndarray, ...]:
    """Return the corners [N, 3] m of each convex piece of a shape of the catalog, unscaled."""
    return tuple(piece for part in all_shapes()[key].parts for piece in decompose(part.mesh))


def decompose(mesh: Mesh) -> list[np.ndarray]:
    """Return the corners [N, 3] m of each convex piece of a mesh; flat components have none."""
    pieces = []
    for points, faces in _components(mesh):
        whole = Manifold(ManifoldMesh(points.astype(np.float32), faces.astype(np.uint32)))
        if whole.status() != Error.NoError:  # the mesh is not closed
            whole = Manifold.hull_points(points)
        hulls = [] if _is_hollow(whole) else _divide(whole, np.eye(3))
        if _is_hollow(whole) or _volume(hulls) > (1 + PARAMETERS.slack) * whole.volume():
            wedges = [hull for wedge, normals in _wedges(whole) for hull in _divide(wedge, normals)]
            hulls = min((candidate for candidate in (wedges, hulls) if candidate), key=_volume, default=[])
        pieces += [np.asarray(hull.to_mesh().vert_properties, float) for hull in hulls]
    return pieces


def _is_hollow(part: Manifold) -> bool:
    return part.volume() < PARAMETERS.hollow * part.hull().volume()


def _volume(hulls: list[Manifold]) -> float:
    return sum(hull.volume() for hull in hulls)


def _divide(part: Manifold, normals: np.ndarray) -> list[Manifold]:
    """Divide a part by cuts along `normals` [M, 3] and return the convex hulls of the pieces."""
    least_m3, waiting, hulls = PARAMETERS.least_saving_of_part * part.hull().volume(), [part], []
    while waiting:
        piece = waiting.pop()
        halves = _best_cut(piece, normals, max(PARAMETERS.least_saving * piece.hull().volume(), least_m3))
        waiting += halves
        if not halves and piece.hull().volume() > PARAMETERS.least_m3:
            hulls.append(piece.hull())
    return hulls


def _best_cut(piece: Manifold, normals: np.ndarray, saving_m3: float) -> list[Manifold]:
    """Return the two halves after the cut that minimises their hulls, or [] if no cut saves `saving_m3`."""
    best, halves = piece.hull().volume() - saving_m3, []
    if piece.volume() > best:
        return []
    points = piece.to_mesh().vert_properties
    for normal in normals:
        along = points @ normal
        for position in along.min() + np.array(PARAMETERS.cuts) * np.ptp(along):
            parts = piece.split_by_plane(normal.tolist(), float(position))
            volume = sum(part.hull().volume() for part in parts)
            if volume < best and not any(part.is_empty() for part in parts):
                best, halves = volume, list(parts)
    return halves


def _wedges(whole: Manifold) -> list[tuple[Manifold, np.ndarray]]:
    """Divide a part about its axis of revolution: (wedge, normals [M, 3] of the cuts to try) of each wedge.

    The axis is the one whose two perpendicular extents are most alike.
    """
    low, high = np.reshape(whole.bounding_box(), (2, 3))
    middle, log_extent = (low + high) / 2, np.log(np.maximum(high - low, 1e-6))
    axis = min(range(3), key=lambda k: abs(log_extent[k - 2] - log_extent[k - 1]))
    wedges, width = [], 2 * np.pi / PARAMETERS.wedges
    for start in width * np.arange(PARAMETERS.wedges):
        first, last, radial = (
            np.roll([0.0, np.cos(a), np.sin(a)], axis)
            for a in (start + np.pi / 2, start + width - np.pi / 2, start + width / 2)
        )
        wedge = whole
        for normal in (first, last):
            wedge = wedge.trim_by_plane(normal.tolist(), float(normal @ middle))
        if not wedge.is_empty():
            wedges.append((wedge, np.stack([np.eye(3)[axis], radial])))
    return wedges


def _components(mesh: Mesh) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the points [N, 3] m and faces [F, 3] of each connected component.

    Two triangles are connected if they are the only two that share an edge.
    """
    points, index = np.unique(np.round(mesh.vertices, 6) + 0.0, axis=0, return_inverse=True)
    faces = index.ravel()[mesh.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1), axis=-1).reshape(-1, 2)
    _, edge, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(edge.ravel(), kind='stable')
    starts = np.cumsum(count) - count
    pairs = order[starts[count == 2, None] + np.arange(2)] // 3
    links = coo_matrix((np.ones(len(pairs)), pairs.T), (len(faces), len(faces)))
    _, labels = connected_components(links, directed=False)
    for label in np.unique(labels):
        used, corners = np.unique(faces[labels == label], return_inverse=True)
        yield points[used], corners.reshape(-1, 3)

"""Shapes as convex pieces, for a physics engine: `solid(key)`.

A part that is hollow, such as the body of a mug or its handle, falls into wedges about the axis that it is round about;
then every piece is halved by a plane again and again, as long as that makes the convex hulls much smaller. What is
convex stays one piece, and a surface that encloses nothing counts as its hull. Scaling a shape keeps its pieces convex,
so each shape is cut once.
"""

from functools import cache

import numpy as np
from manifold3d import Error, Manifold, Mesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from instructsam.train.tabletop.world.catalog import all_shapes

WEDGES = 16
HOLLOW = 0.4  # of its hull, which a part fills at most that is cut into wedges at once; and others,
SLACK = 0.2  # where without wedges the pieces would be so much larger than the part, if that is better
CUTS = np.arange(1, 8) / 8  # tried, of a piece's extent along each normal
SAVES = 0.06, 0.02  # what a cut saves at least, of the piece's hull and of the hull before all cuts
LEAST_M3 = 1e-10  # what is smaller is no piece


@cache
def solid(key):
    """The convex pieces of a shape of the catalog, unscaled: a tuple of the corners [N, 3] m of each."""
    return tuple(piece for part in all_shapes()[key].parts for piece in pieces(part.mesh))


def pieces(mesh):
    """The convex pieces of a mesh (meshes.Mesh), [N, 3] m corners each; parts that are flat have none."""
    found = []
    for points, faces in _connected(mesh):
        whole = Manifold(Mesh(points.astype(np.float32), faces.astype(np.uint32)))
        if whole.status() != Error.NoError:  # not closed
            whole = Manifold.hull_points(points)
        hulls = [] if _air(whole) else _divided(whole, np.eye(3))
        if _air(whole) or _volume(hulls) > (1 + SLACK) * whole.volume():
            wedges = [hull for part, normals in _wedges(whole) for hull in _divided(part, normals)]
            hulls = min((each for each in (wedges, hulls) if each), key=_volume, default=[])
        found += [np.asarray(hull.to_mesh().vert_properties, float) for hull in hulls]
    return found


def _air(part):
    """Whether it is mostly air."""
    return part.volume() < HOLLOW * part.hull().volume()


def _volume(hulls):
    return sum(hull.volume() for hull in hulls)


def _divided(part, normals):
    """The convex hulls that it falls into, by cuts along `normals` [M, 3]."""
    least, waiting, hulls = SAVES[1] * part.hull().volume(), [part], []
    while waiting:
        piece = waiting.pop()
        halves = _halved(piece, normals, max(SAVES[0] * piece.hull().volume(), least))
        waiting += halves
        if not halves and piece.hull().volume() > LEAST_M3:
            hulls.append(piece.hull())
    return hulls


def _halved(piece, normals, saves_m3):
    """The two parts of the best cut, or [] where none saves so much."""
    best, halves = piece.hull().volume() - saves_m3, []
    if piece.volume() > best:
        return []
    points = piece.to_mesh().vert_properties
    for normal in normals:
        along = points @ normal
        for place in along.min() + CUTS * np.ptp(along):
            parts = piece.split_by_plane(normal.tolist(), float(place))
            size = sum(part.hull().volume() for part in parts)
            if size < best and not any(part.is_empty() for part in parts):
                best, halves = size, list(parts)
    return halves


def _wedges(whole):
    """[(part, normals [M, 3] of the cuts to try)], about the axis that it is round about."""
    low, high = np.reshape(whole.bounding_box(), (2, 3))
    middle, extent = (low + high) / 2, np.log(np.maximum(high - low, 1e-6))
    axis = min(range(3), key=lambda k: abs(extent[k - 2] - extent[k - 1]))
    found, width = [], 2 * np.pi / WEDGES
    for start in width * np.arange(WEDGES):
        ahead, behind, radial = (
            np.roll([0.0, np.cos(a), np.sin(a)], axis)
            for a in (start + np.pi / 2, start + width - np.pi / 2, start + width / 2)
        )
        wedge = whole
        for normal in (ahead, behind):
            wedge = wedge.trim_by_plane(normal.tolist(), float(normal @ middle))
        if not wedge.is_empty():
            found.append((wedge, np.stack([np.eye(3)[axis], radial])))
    return found


def _connected(mesh):
    """(points [N, 3] m, faces [F, 3]) of each part, whose triangles hang together where just two share an edge."""
    points, place = np.unique(np.round(mesh.vertices, 6) + 0.0, axis=0, return_inverse=True)
    faces = place.ravel()[mesh.faces]
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

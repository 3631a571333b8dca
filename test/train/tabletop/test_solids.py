"""Convex decomposition of shapes."""

import numpy as np
import pytest
from manifold3d import Manifold
from scipy.spatial import ConvexHull, Delaunay

from instructsam.train.tabletop.world import meshes
from instructsam.train.tabletop.world.catalog import all_shapes
from instructsam.train.tabletop.world.solids import convex_pieces, decompose

SOME = ('mug.0.0', 'bowl.0.0', 'plate.0.0', 'box.1.0', 'tray.0.0', 'banana.0.0', 'fork.0.0')


def volume(key):
    """Return the volume of all parts, computed from their triangles."""
    triangles = np.concatenate([part.mesh.vertices[part.mesh.faces] for part in all_shapes()[key].parts])
    return np.einsum('ti,ti->', triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])) / 6


def inside(point, corners):
    return Delaunay(corners).find_simplex(point) >= 0


@pytest.mark.parametrize('key', SOME)
def test_pieces_fill_the_shape(key):
    hulls = [ConvexHull(corners) for corners in convex_pieces(key)]
    assert len(hulls) < 100
    assert all(hull.volume > 0 for hull in hulls)
    assert 0.99 < sum(hull.volume for hull in hulls) / volume(key) < 1.35

    vertices = np.concatenate([part.mesh.vertices for part in all_shapes()[key].parts])
    planes = [(hull.equations[:, :3], hull.equations[:, 3:]) for hull in hulls]
    outside_m = np.min([(normals @ vertices.T + offsets).max(axis=0) for normals, offsets in planes], axis=0)
    assert outside_m.max() < 5e-4  # every vertex of the surface is inside a piece


def test_a_mug_stays_hollow_and_has_a_bottom():
    corners = convex_pieces('mug.0.0')
    assert not any(inside((0, 0, 0.06), piece) for piece in corners)
    assert any(inside((0.001, 0.002, 0.004), piece) for piece in corners)
    assert any(inside((0.0375, 0.003, 0.09), piece) for piece in corners)


def test_convex_meshes_stay_whole_and_open_ones_become_their_hull():
    cube = meshes.box((0.1, 0.2, 0.3), 0.01)
    assert len(decompose(cube)) == 1
    tube = meshes.lathe([(0.03, 0.0), (0.03, 0.1)])
    found = decompose(tube)
    assert len(found) == 1
    assert ConvexHull(found[0]).volume == pytest.approx(np.pi * 0.03**2 * 0.1, rel=0.02)
    assert decompose(meshes.sheet(1)) == []


def test_same_shape_same_pieces():
    mesh = all_shapes()['bowl.0.0'].parts[0].mesh
    for first, second in zip(decompose(mesh), decompose(mesh), strict=True):
        np.testing.assert_array_equal(first, second)


def test_pieces_of_a_scaled_shape_are_the_scaled_pieces():
    whole = sum(ConvexHull(corners).volume for corners in convex_pieces('mug.0.0'))
    scaled = sum(Manifold.hull_points(corners * (2.0, 1.0, 0.5)).volume() for corners in convex_pieces('mug.0.0'))
    assert scaled == pytest.approx(whole, rel=1e-3)

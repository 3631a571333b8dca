"""Grasp candidates of surfaces whose correct grasps are known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import measure
from instructsam.core.spatial.grasping import Gripper, find_grasps, grasp_candidates, points_of_others

STEP_M = 0.002


def located(points, size_m):
    """Return a located object with points [N, 3] m, which stands at z = 0 above the origin."""
    center = np.array([0.0, 0.0, size_m[2] / 2])
    return SimpleNamespace(points=points, center=center, rotation=np.eye(3), size_m=np.array(size_m))


def grid(*ends):
    """Return points [N, 3] of a box or a face, from the (low, high) ends along each axis."""
    axes = [np.linspace(low, high, max(1, round((high - low) / STEP_M) + 1)) for low, high in ends]
    return np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 3)


def box(x, y, z):
    """Return a box as a camera above and towards -y sees it: its top and its front."""
    top = grid((-x / 2, x / 2), (-y / 2, y / 2), (z, z))
    front = grid((-x / 2, x / 2), (-y / 2, -y / 2), (0.0, z))
    return located(np.concatenate([top, front]), (x, y, z))


def cylinder(radius, height, hollow=False):
    """Return a cylinder as seen from above: a disc, or only its rim, 5 mm wide, and the wall towards -y."""
    flat = grid((-radius, radius), (-radius, radius), (height, height))
    distance = np.linalg.norm(flat[:, :2], axis=1)
    top = flat[(distance < radius) & (distance > radius - 0.005 if hollow else True)]
    angle, z = np.meshgrid(np.linspace(-np.pi, 0, 60), np.linspace(0, height, 30))
    wall = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1).reshape(-1, 3)
    return located(np.concatenate([top, wall]), (2 * radius, 2 * radius, height))


def moved(geometry, rotation, translation):
    return SimpleNamespace(
        points=geometry.points @ rotation.T + translation,
        center=rotation @ geometry.center + translation,
        rotation=rotation @ geometry.rotation,
        size_m=geometry.size_m,
    )


def test_box_is_grasped_across_its_narrow_side():
    grasps = grasp_candidates(box(0.04, 0.10, 0.06))
    best = grasps[0]
    assert abs(best.rotation[0, 0]) > np.cos(np.radians(12))
    assert best.width_m == pytest.approx(0.04, abs=0.004)
    np.testing.assert_allclose(best.position[:2], 0, atol=0.012)
    assert 0 < best.position[2] < 0.05
    np.testing.assert_allclose(best.rotation[:, 2], [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(best.rotation), 1)
    assert best.width_m < best.opening_m <= Gripper().opening_m
    assert len(grasps) <= 5
    assert [each.quality for each in grasps] == sorted((g.quality for g in grasps), reverse=True)


def test_cylinder_is_grasped_about_its_axis():
    best = grasp_candidates(cylinder(0.03, 0.10), limit=1)[0]
    assert best.width_m == pytest.approx(0.06, abs=0.006)
    np.testing.assert_allclose(best.position[:2], 0, atol=0.006)


def test_wide_vessel_is_grasped_by_its_rim():
    grasps = grasp_candidates(cylinder(0.07, 0.07, hollow=True))
    assert grasps
    for grasp in grasps:
        assert grasp.width_m < 0.03
        assert np.linalg.norm(grasp.position[:2]) == pytest.approx(0.068, abs=0.008)


@pytest.mark.parametrize('side', [0.09, 0.12])
def test_too_wide_is_named_with_both_widths(side):
    found = find_grasps(box(side, side, 0.08))
    assert found.candidates == grasp_candidates(box(side, side, 0.08)) == []
    assert f'{100 * side:.1f} cm wide' in found.reason
    assert 'the gripper opens 8.0 cm' in found.reason
    assert grasp_candidates(box(side, side, 0.08), Gripper(opening_m=0.16))


@pytest.mark.parametrize('size_m', [(0.5, 0.4, 0.3), (0.6, 0.4, 0.4), (0.8, 0.6, 0.6)])
def test_no_grasp_goes_through_a_crate(size_m):
    """The points of a large surface are thinned out, but the space between them is no room for a finger."""
    found = find_grasps(box(*size_m))
    assert found.candidates == []
    assert f'{100 * size_m[1]:.1f} cm wide' in found.reason


def test_no_grasp_goes_through_a_barrel():
    radius, height = 0.3, 0.8
    found = find_grasps(cylinder(radius, height))
    assert found.candidates == []
    assert 'cm wide' in found.reason


def test_flat_object_is_grasped_above_its_support():
    best = grasp_candidates(box(0.16, 0.012, 0.008))[0]
    assert 0 <= best.position[2] < 0.004
    assert best.width_m < 0.016


def test_frame_of_the_points_is_respected():
    geometry = box(0.04, 0.10, 0.06)
    rotation, translation = Rotation.from_euler('xyz', [2.3, -0.4, 1.1]).as_matrix(), np.array([0.1, -0.2, 0.8])
    grasps, others = grasp_candidates(geometry), grasp_candidates(moved(geometry, rotation, translation), limit=50)
    for grasp in grasps:  # equally good ones may be in another order
        expected = rotation @ grasp.position + translation
        other = min(others, key=lambda each: np.linalg.norm(each.position - expected))
        np.testing.assert_allclose(other.position, expected, atol=0.003)
        assert other.quality == pytest.approx(grasp.quality, abs=0.02)
        np.testing.assert_allclose(other.rotation[:, 2], -rotation[:, 2], atol=1e-6)


def test_fingers_keep_clear_of_obstacles():
    geometry = box(0.04, 0.10, 0.06)
    wall = grid((0.024, 0.03), (-0.02, 0.10), (0.0, 0.08))  # 4 mm from most of the box
    gripper = Gripper()
    grasps = grasp_candidates(geometry, gripper, around=wall)
    assert grasps
    for grasp in grasps:
        u, v, _ = np.abs((wall - grasp.position) @ grasp.rotation).T
        assert not ((u < grasp.opening_m / 2 + gripper.thickness_m) & (v < gripper.finger_m / 2)).any()
    assert 'touch' in find_grasps(geometry, around=wall + np.array([0, -0.04, 0])).reason
    assert (
        grasp_candidates(geometry, around=wall + np.array([0.1, 0, 0]))[0].quality
        == grasp_candidates(geometry)[0].quality
    )


def test_the_other_objects_of_an_answer_are_obstacles():
    middle, wall, nothing = (
        box(0.04, 0.10, 0.06),
        located(grid((0.03, 0.05), (-0.1, 0.1), (0, 0.1)), (0.02, 0.2, 0.1)),
        None,
    )
    not_requested = SimpleNamespace(points=None, center=None, rotation=None, size_m=None)
    around = points_of_others([middle, wall, nothing, not_requested], middle)
    np.testing.assert_array_equal(around, wall.points)
    assert find_grasps(middle).candidates
    assert 'touch' in find_grasps(middle, around=around).reason
    assert points_of_others([middle], middle).shape == (0, 3)


@pytest.mark.parametrize('is_occluded', [False, True])
def test_an_occluded_edge_is_not_a_side(is_occluded):
    """A box 4 cm wide is grasped from above, but not across an edge where an occluder may hide the rest of it."""
    depth = np.full((240, 320), 1.0, np.float32)
    mask = np.zeros(depth.shape, bool)
    mask[90:150, 150:168] = True
    depth[mask] = 0.92
    if is_occluded:
        depth[80:160, 168:220] = 0.75
    geometry = measure(mask, depth, CameraModel(240, 320, [[400, 0, 160], [0, 400, 120], [0, 0, 1]]))
    grasps = grasp_candidates(geometry, around=np.empty((0, 3)))  # without obstacles
    if is_occluded:
        assert not any(abs(grasp.rotation[0, 0]) > 0.9 for grasp in grasps)
    else:
        assert abs(grasps[0].rotation[0, 0]) > 0.9
        assert grasps[0].width_m == pytest.approx(0.041, abs=0.006)


def seen_by_a_camera(points, size_m, pitch=40.0, distance_m=0.7, hidden_rows=0):
    """Return the Geometry of an object whose outer surface is sampled by points [N, 3] m, which stands on a table.

    The camera looks at it along +y, down by `pitch` degrees; its image lacks the upper `hidden_rows`.
    """
    pitch = np.radians(pitch)
    forward = np.array([0, np.cos(pitch), -np.sin(pitch)])
    right = np.array([1.0, 0, 0])
    axes = np.stack([right, np.cross(forward, right), forward], axis=1)
    position = np.array([0, 0, size_m[2] / 2]) - distance_m * forward
    camera = CameraModel(480, 640, [[600, 0, 320], [0, 600, 240], [0, 0, 1]])
    rays = np.stack([*camera.rays, np.ones((480, 640))], axis=-1) @ axes.T
    table = np.where(rays[..., 2] < -1e-6, position[2] / -np.minimum(rays[..., 2], -1e-6), 0).astype(np.float32)
    local = (points - position) @ axes
    columns, rows = np.round(local[:, :2] / local[:, 2:] * 600 + (320, 240)).astype(int).T
    nearest = np.full((480, 640), np.inf, np.float32)
    np.minimum.at(nearest, (rows, columns), local[:, 2])
    mask = nearest < np.inf
    depth = np.where(mask, nearest, table)
    if hidden_rows:
        camera = CameraModel(480 - hidden_rows, 640, [[600, 0, 320], [0, 600, 240 - hidden_rows], [0, 0, 1]])
    return measure(mask[hidden_rows:], depth[hidden_rows:], camera).moved(axes, position)


def revolved(profile, count=400_000):
    """Return points [N, 3] of the surface of revolution of a polyline profile [M, 2] (radius, z)."""
    rng = np.random.default_rng(0)
    profile = np.asarray(profile, float)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    at, angle = rng.uniform(0, along[-1], count), rng.uniform(0, 2 * np.pi, count)
    radius, z = (np.interp(at, along, profile[:, k]) for k in (0, 1))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


BALL = [(0.035 * np.sin(a), 0.035 - 0.035 * np.cos(a)) for a in np.linspace(0, np.pi, 60)]
CAN = [(0.0, 0.0), (0.033, 0.0), (0.033, 0.11), (0.0, 0.11)]


@pytest.mark.parametrize(('profile', 'radius'), [(BALL, 0.035), (CAN, 0.033)], ids=['ball', 'can'])
@pytest.mark.parametrize('pitch', [25, 40, 60])
def test_fingers_close_about_the_hidden_side_of_a_round_object(profile, radius, pitch):
    geometry = seen_by_a_camera(revolved(profile), (2 * radius, 2 * radius, max(z for _, z in profile)), pitch)
    best = grasp_candidates(geometry, limit=1)[0]
    np.testing.assert_allclose(best.position[:2], 0, atol=0.004)
    assert best.width_m == pytest.approx(2 * radius, abs=0.004)


def test_a_round_object_that_is_too_wide_is_named():
    wide = [(0.0, 0.0), (0.05, 0.0), (0.05, 0.11), (0.0, 0.11)]
    for pitch in (25, 40, 60):
        found = find_grasps(seen_by_a_camera(revolved(wide), (0.1, 0.1, 0.11), pitch))
        assert not found.candidates
        assert '9.' in found.reason or '10.' in found.reason
        assert 'cm wide' in found.reason


def test_the_border_of_the_image_is_not_the_top_of_a_bottle():
    """The hand would hit the part above the image."""
    bottle = revolved([(0.0, 0.0), (0.033, 0.0), (0.033, 0.25), (0.0, 0.25)])
    assert grasp_candidates(seen_by_a_camera(bottle, (0.066, 0.066, 0.25)))
    found = find_grasps(seen_by_a_camera(bottle, (0.066, 0.066, 0.25), hidden_rows=200))
    assert not found.candidates
    assert 'the border of the image' in found.reason


RESOLUTIONS = [(480, 640, 600, 0.4), (720, 1280, 920, 0.5), (1080, 1920, 1400, 0.6)]
"""Height and width of an image, focal length in px, and distance of the object in m."""


def between_neighbours(gap_m, resolution):
    """Return depth [H, W] m, the mask and the camera of a box on a table between two higher ones, seen from above.

    Also return the points [N, 3] m of the neighbours, all in the optical frame. The gaps are wholly visible.
    """
    height, width, focal, distance_m = resolution
    camera = CameraModel(height, width, [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pitch = np.radians(55)
    forward = np.array([0, np.cos(pitch), -np.sin(pitch)])
    axes = np.stack([[1.0, 0, 0], np.cross(forward, [1.0, 0, 0]), forward], axis=1)
    position = -distance_m * forward
    rays = np.stack([*camera.rays, np.ones((height, width), np.float32)], axis=-1) @ axes.T.astype(np.float32)
    depth, owner = -position[2] / rays[..., 2], np.zeros((height, width), int)
    aside_m = 0.02 + gap_m + 0.015
    for index, (x, size_m) in enumerate(
        [(0, (0.04, 0.1, 0.06)), (-aside_m, (0.03, 0.2, 0.1)), (aside_m, (0.03, 0.2, 0.1))], start=1
    ):
        corner = np.array([x, 0, size_m[2] / 2]) - position
        with np.errstate(divide='ignore'):
            sides = np.stack([(corner + sign * np.array(size_m) / 2) / rays for sign in (-1, 1)])
        enters, leaves = sides.min(axis=0).max(axis=-1), sides.max(axis=0).min(axis=-1)
        is_hit = (enters < leaves) & (enters < depth)
        depth[is_hit], owner[is_hit] = enters[is_hit], index
    depth = depth.astype(np.float32)
    points = np.stack([*camera.rays, np.ones_like(depth)], axis=-1) * depth[..., None]
    return depth, owner == 1, camera, points[owner > 1]


def count_inside(grasp, points):
    """Return how many of points [N, 3] m are between or inside the open fingers."""
    gripper = Gripper()
    u, v, h = ((points - grasp.position) @ grasp.rotation).T
    in_fingers = (np.abs(u) < grasp.opening_m / 2 + gripper.thickness_m) & (np.abs(v) < gripper.finger_m / 2)
    return np.count_nonzero(in_fingers & (h < -0.002) & (h > -gripper.length_m))


@pytest.mark.parametrize('resolution', RESOLUTIONS)
@pytest.mark.parametrize(('gap_m', 'has_room'), [(0.015, False), (0.04, True)])
def test_the_hand_keeps_clear_of_visible_neighbours(resolution, gap_m, has_room):
    """A neighbour may be many pixels away and still within reach of the hand."""
    depth, mask, camera, neighbours = between_neighbours(gap_m, resolution)
    found = find_grasps(measure(mask, depth, camera))
    assert bool(found.candidates) == has_room
    assert has_room or 'touch its surroundings' in found.reason
    assert all(count_inside(grasp, neighbours) < 3 for grasp in found.candidates)


def test_neighbours_are_known_in_another_frame_and_after_the_image():
    """A driver may reuse the memory of the depth; many of its pixels have none."""
    depth, mask, camera, _ = between_neighbours(0.015, RESOLUTIONS[1])
    depth[:, 1::3] = np.nan
    geometry = measure(mask, depth, camera).moved(Rotation.from_euler('xyz', [1, 2, 3]).as_matrix(), np.ones(3))
    depth[:] = 0
    assert 'touch its surroundings' in find_grasps(geometry).reason


def test_candidates_are_reproducible():
    first, second = (grasp_candidates(cylinder(0.03, 0.1)) for _ in range(2))
    assert [(*a.position, *a.rotation.ravel(), a.quality) for a in first] == [
        (*b.position, *b.rotation.ravel(), b.quality) for b in second
    ]


def test_without_points():
    geometry = box(0.04, 0.10, 0.06)
    geometry.points = geometry.points[:5]
    assert grasp_candidates(geometry) == []
    geometry.points = None
    with pytest.raises(ValueError, match='no points'):
        grasp_candidates(geometry)

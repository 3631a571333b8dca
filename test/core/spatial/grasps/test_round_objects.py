"""The hidden part of round objects, of which the near half is given, is added; other objects stay as they are."""

import numpy as np
import pytest

from instructsam.core.spatial.grasps.round_objects import RoundFit, complete_round

TO_CAMERA = np.array([0.0, -1.0])


def half(profile, axis, turn=0.0, count=4000, noise_m=0.0):
    """Return points [N, 3] of the half towards -y of a surface of revolution, and all of its top.

    Args:
        profile: Radius and height [M, 2] m, upwards; the last radius is that of a flat top.
        axis: Position [2] m.
        turn: Angle by which the half is turned about the axis.
        count: Number of points.
        noise_m: Standard deviation of their noise.
    """
    rng, profile = np.random.default_rng(0), np.asarray(profile, float)
    height = rng.uniform(profile[0, 1], profile[-1, 1], count)
    angle = rng.uniform(-np.pi, 0, count) + turn
    radius = np.interp(height, profile[:, 1], profile[:, 0])
    wall = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    angle, radius = rng.uniform(-np.pi, np.pi, count // 3), profile[-1, 0] * np.sqrt(rng.random(count // 3))
    top = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(count // 3, profile[-1, 1])], axis=1)
    points = np.concatenate([wall, top]) + np.append(axis, 0.0)
    return points + rng.normal(0, noise_m, points.shape)


def completed(points, to_camera=TO_CAMERA):
    hidden, is_cut = complete_round(points, np.zeros(len(points), bool), to_camera)
    assert hidden.shape == (len(is_cut), 3)
    return hidden


@pytest.mark.parametrize('seed', range(12))
def test_the_far_side_of_any_round_object(seed):
    """Random profiles, axes and directions of view, with noise of 1 mm: the extents are those of the whole object."""
    rng = np.random.default_rng(seed)
    heights = np.linspace(0, rng.uniform(0.06, 0.2), 5)
    profile = np.stack([rng.uniform(0.025, 0.055) * rng.uniform(0.8, 1.0, 5), heights], axis=1)
    axis, turn = rng.uniform(-0.02, 0.02, 2), rng.uniform(-np.pi, np.pi)
    points = half(profile, axis, turn, noise_m=0.001)
    to_camera = np.array([np.sin(turn), -np.cos(turn)])
    hidden = completed(points, to_camera)
    assert len(hidden)
    distance = np.linalg.norm(hidden[:, :2] - axis, axis=1)
    limit = np.interp(hidden[:, 2], profile[:, 1], profile[:, 0])
    assert (distance < limit + 0.004).all()
    away = -to_camera
    far = ((hidden[:, :2] - axis) @ away).max()
    assert far == pytest.approx(profile[:, 0].max(), abs=0.005)


def test_the_inside_is_solid_unless_it_is_seen():
    can = half([(0.035, 0.0), (0.035, 0.1)], (0, 0))
    radius = np.linalg.norm(completed(can)[:, :2], axis=1)
    assert radius.min() < 0.01
    assert np.linalg.norm(completed(can, None)[:, :2], axis=1).min() > 0.03  # the direction of view is not known
    mug = can[(np.linalg.norm(can[:, :2], axis=1) > 0.03)]
    far_inside = half([(0.032, 0.0), (0.032, 0.1)], (0, 0), turn=np.pi)
    mug = np.concatenate([mug, far_inside[far_inside[:, 2] > 0.04]])  # its inside is seen down to a height of 4 cm
    hidden = completed(mug)
    inside = hidden[np.linalg.norm(hidden[:, :2], axis=1) < 0.02]
    assert inside[:, 2].max() < 0.045


def test_the_inside_is_filled_as_deep_as_fingertips_reach():
    barrel = half([(0.3, 0.0), (0.3, 0.8)], (0, 0), count=40_000)
    hidden = completed(barrel)
    inside = hidden[np.linalg.norm(hidden[:, :2], axis=1) < 0.28]
    assert len(inside) < 60_000
    assert inside[:, 2].min() == pytest.approx(0.8 - RoundFit().filled_m, abs=0.01)
    assert inside[:, 2].max() > 0.79


def test_a_narrower_part_above_does_not_leave_the_wider_one_empty():
    bottle = half([(0.04, 0.0), (0.04, 0.1), (0.015, 0.11), (0.015, 0.3)], (0, 0), count=12_000)
    hidden = completed(bottle)
    body = hidden[hidden[:, 2] < 0.095]
    distance = np.linalg.norm(body[:, :2], axis=1)
    assert ((distance > 0.02) & (distance < 0.03)).any()


def test_an_object_wider_than_any_gripper_stays_as_it_was_seen():
    assert not len(completed(half([(5.0, 0.0), (5.0, 3.0)], (0, 0), count=100_000)))


def test_a_handle_does_not_matter():
    can = half([(0.035, 0.0), (0.035, 0.1)], (0, 0))
    handle = np.random.default_rng(1).uniform((0.035, -0.006, 0.02), (0.065, 0.006, 0.08), (300, 3))
    hidden = completed(np.concatenate([can, handle]))
    assert np.linalg.norm(hidden[:, :2], axis=1).max() == pytest.approx(0.035, abs=0.002)


@pytest.mark.parametrize('size', [(0.06, 0.06, 0.1), (0.05, 0.12, 0.04), (0.2, 0.15, 0.03)])
@pytest.mark.parametrize('turn', [0.0, 0.5, 0.8])
def test_a_box_is_not_round(size, turn):
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (4000, 3)) * size
    axis = rng.integers(0, 3, len(points))
    points[axis == 2, 2] = size[2] / 2
    points[axis == 0, 0], points[axis == 1, 1] = size[0] / 2, -size[1] / 2
    cos, sin = np.cos(turn), np.sin(turn)
    assert not len(completed(points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])))


def test_an_arc_is_not_round():
    """A banana is not the edge of a disc."""
    rng = np.random.default_rng(0)
    angle, around = rng.uniform(-1.2, 1.2, 4000), rng.uniform(0, np.pi, 4000)
    radius = 0.09 + 0.017 * np.cos(around)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), 0.017 + 0.017 * np.sin(around)], axis=1)
    assert not len(completed(points))


def test_what_is_cut_off_stays_cut_off():
    """The far side of a bottle that ends at the border of the image may continue upwards, like its near side."""
    points = half([(0.03, 0.0), (0.03, 0.12)], (0, 0))
    points = points[points[:, 2] < 0.115]
    hidden, is_cut = complete_round(points, points[:, 2] > 0.1, TO_CAMERA)
    assert is_cut[hidden[:, 2] > 0.105].all() or (hidden[:, 2] < 0.105).all()
    assert not is_cut[hidden[:, 2] < 0.09].any()


def test_few_points():
    assert not len(completed(np.zeros((5, 3))))
    assert not len(completed(np.empty((0, 3))))
    assert not len(completed(np.tile([0.01, 0.02, 0.03], (500, 1))))

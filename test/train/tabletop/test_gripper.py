"""The simulated gripper on boxes for which the outcome is obvious."""

import numpy as np
import pytest

from instructsam.core.spatial.grasping import Grasp, Gripper
from instructsam.train.tabletop.physics.gripper import try_grasp
from instructsam.train.tabletop.scenes.layout import PlacedObject
from instructsam.train.tabletop.world.catalog import all_vertices
from instructsam.train.tabletop.world.meshes import rotation

DOWN = np.diag([1.0, -1.0, -1.0])  # a vertical grasp that closes along x


def box(size_m, at=(0.0, 0.0), yaw=0.0):
    """A carton of size_m [3] standing on the table."""
    scale = np.array(size_m) / np.ptp(all_vertices('box.1.0'), axis=0)
    return PlacedObject(
        'box',
        'box.1.0',
        'cardboard',
        'red',
        np.zeros(3),
        'medium',
        scale,
        0,
        rotation=rotation('z', yaw),
        position=np.array([*at, 0.0]),
    )


def grasp(x=0.0, y=0.0, z=0.03, width_m=0.04, pose=DOWN):
    return Grasp(np.array([x, y, z]), pose, width_m, min(0.08, width_m + 0.024), 1.0)


@pytest.fixture(scope='module')
def small():
    return box((0.04, 0.06, 0.07))


def test_a_box_held_in_its_middle_is_lifted(small):
    outcome = try_grasp([small], 0, grasp())
    assert outcome.success
    assert outcome.reason == 'lifted'
    turned = box((0.04, 0.06, 0.07), at=(0.1, -0.2), yaw=35)
    assert try_grasp([turned], 0, grasp(0.1, -0.2, pose=rotation('z', 35) @ DOWN)).success


@pytest.mark.parametrize(
    ('candidate', 'reason'),
    [
        (grasp(y=0.06), 'nothing between the fingers'),
        (grasp(z=0.069), 'slipped'),
        (grasp(x=0.03), 'hits the object'),
        (grasp(pose=np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])), 'not from above'),
    ],
)
def test_other_grasps_fail_for_a_reason(small, candidate, reason):
    outcome = try_grasp([small], 0, candidate)
    assert not outcome.success
    assert outcome.reason == reason


def test_the_table_is_hit():
    flat = box((0.04, 0.06, 0.02))
    assert try_grasp([flat], 0, grasp(z=0.001)).success
    assert try_grasp([flat], 0, grasp(z=-0.01)).reason == 'hits the table'


def test_too_wide_an_object_is_hit():
    assert try_grasp([box((0.1, 0.1, 0.07))], 0, grasp(width_m=0.08)).reason == 'hits the object'
    assert try_grasp(
        [box((0.1, 0.1, 0.07))], 0, Grasp(np.array([0, 0, 0.03]), DOWN, 0.1, 0.12, 1.0), Gripper(opening_m=0.12)
    ).success


def test_neighbours(small):
    other = box((0.04, 0.06, 0.07), at=(0.05, 0.0))
    assert try_grasp([small, other], 0, grasp()).reason == 'hits a neighbour'
    far = box((0.04, 0.06, 0.07), at=(0.0, 0.15))
    assert try_grasp([small, far], 0, grasp()).success
    assert try_grasp([small, far], 1, grasp()).reason == 'another object'


def test_same_grasp_same_outcome(small):
    other = box((0.05, 0.03, 0.05), at=(0.02, 0.06), yaw=20)
    edge = grasp(y=0.024, z=0.05)
    assert len({try_grasp([small, other], 0, edge) for _ in range(3)}) == 1


def test_no_such_object(small):
    with pytest.raises(IndexError, match='no object 1'):
        try_grasp([small], 1, grasp())

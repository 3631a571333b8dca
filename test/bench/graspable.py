"""Tests in simulation if the gripper can lift an object at all, by its true shape, seen or not: `graspable`.

Candidates are computed from the complete surface of the object, all sides sampled from its meshes, with a search that
is wider than the default one, and several different ones are tried in physics.
"""

from types import SimpleNamespace

import numpy as np

from instructsam.core.spatial.grasping import GraspSearch, grasp_candidates
from instructsam.core.spatial.grasps.segments import SegmentSearch
from instructsam.train.tabletop.physics.gripper import try_grasp
from instructsam.train.tabletop.world.catalog import all_shapes

YES = 'graspable'
BLOCKED = 'graspable alone, but not among its neighbours'
NO = 'not graspable'


POINTS = 20_000  # sampled on each object
TRIES = 10  # grasps that are simulated before an object counts as not graspable
APART_M, APART_COS = 0.01, 0.9  # grasps nearer and less turned than this are alike, and one of them is tried
SEARCH = GraspSearch(
    segments=SegmentSearch(slices=9, slice_range=0.9, depths_m=(0.045, 0.035, 0.025, 0.015, 0.008), max_slant=2.0),
    max_points=6000,
    max_obstacle_points=20_000,
    finger_clearance_m=0.006,
    min_quality=0.0,
)


def graspable(objects, target):
    """Return YES, BLOCKED or NO. objects: the PlacedObjects of a scene; target: index of the object to lift."""
    if _is_lifted(objects, target):
        return YES
    return BLOCKED if _is_lifted([objects[target]], 0) else NO


def sample_surface(obj):
    """Return points [N, 3] m, uniform over all sides of an object, in the world."""
    rng, parts = np.random.default_rng(0), [part.mesh for part in all_shapes()[obj.shape].parts]
    corners = np.concatenate([mesh.vertices[mesh.faces] for mesh in parts]) * obj.scale @ obj.rotation.T + obj.position
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.linalg.norm(np.cross(first, second), axis=1)
    face = rng.choice(len(corners), POINTS, p=areas / areas.sum())
    a, b = rng.random((2, POINTS, 1))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    return corners[face, 0] + a * first[face] + b * second[face]


def _is_lifted(objects, target):
    """Return whether one of the different grasps that the true shape suggests lifts the object."""
    surfaces = [sample_surface(obj) for obj in objects]
    own = surfaces.pop(target)
    low, high = own.min(axis=0), own.max(axis=0)
    located = SimpleNamespace(points=own, center=(low + high) / 2, rotation=np.eye(3), size_m=high - low)
    around = np.concatenate([np.empty((0, 3)), *surfaces])
    tried = []
    for grasp in grasp_candidates(located, limit=10_000, around=around, search=SEARCH):
        if any(_are_alike(grasp, other) for other in tried):
            continue
        if try_grasp(objects, target, grasp).success:
            return True
        tried.append(grasp)
        if len(tried) == TRIES:
            break
    return False


def _are_alike(grasp, other):
    is_near = np.linalg.norm(grasp.position - other.position) < APART_M
    return is_near and abs(grasp.rotation[:, 0] @ other.rotation[:, 0]) > APART_COS

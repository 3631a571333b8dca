"""Objects in 3D as the page shows them: points, boxes and grasp candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instructsam.core.result import Result
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import Geometry
from instructsam.core.spatial.grasping import Grasp, LocatedObject, find_grasps, points_of_others
from instructsam.core.spatial.surface import back_project, to_meters

MOST_POINTS = 12_000  # points of the surroundings; a browser rotates about 100,000 smoothly
MOST_OBJECT_POINTS = 1500  # points of one object
MOST_GRASPS = 3  # candidates per object
MOST_PLANNED = 6  # objects for which grasps are looked for, which takes some 50 ms each
FAR_SHARE = 90  # percentile of the depth beyond which the surroundings are left out if no object is located
BEHIND_M = 0.4  # surroundings farther than this behind the farthest object are left out: they would make it small


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One located object."""

    index: int  # index of the instance in the result
    points: np.ndarray  # [N, 3] m
    center: np.ndarray  # [3] m
    rotation: np.ndarray  # [3, 3], the columns are the axes of the box
    size_m: np.ndarray  # [3], along these axes
    grasps: tuple[Grasp, ...] = ()
    no_grasp: str = ''  # reason why there is no candidate

    @property
    def corners(self) -> np.ndarray:
        """Corners [8, 3] m of the box; the bits of the index say on which side of each axis one is."""
        sides = np.array([[bit >> axis & 1 for axis in range(3)] for bit in range(8)]) - 0.5
        return self.center + (sides * self.size_m) @ self.rotation.T


@dataclass(frozen=True, eq=False)
class Scene:
    """Located objects in one frame."""

    objects: tuple[SceneObject, ...]
    frame: str  # name of the frame
    is_optical: bool  # x right, y down, z forward (REP 103); otherwise z up
    points: np.ndarray  # [N, 3] m, of the surroundings; may be empty
    colors: np.ndarray  # [N, 3] uint8 RGB, of the points


def scene_of_depth(result: Result, image: np.ndarray, depth: np.ndarray, camera: CameraModel) -> Scene:
    """Return the scene in front of a camera.

    Args:
        result: A result with geometry, see `spatial.geometry.locate`.
        image: [H, W, 3] uint8 RGB.
        depth: [H, W], as in `spatial.geometry.measure`.
        camera: The camera model of both.
    """
    step = max(1, int(np.ceil((depth.size / MOST_POINTS) ** 0.5)))
    depth_m = to_meters(depth[::step, ::step])
    x, y = (ray[::step, ::step] for ray in camera.rays)
    seen = (depth_m > 0) & np.isfinite(x)
    objects = located_objects([instance.geometry for instance in result.instances])
    if objects:
        seen &= depth_m <= max(float(each.corners[:, 2].max()) for each in objects) + BEHIND_M
    elif seen.any():
        seen &= depth_m <= np.percentile(depth_m[seen], FAR_SHARE)
    rows, columns = np.nonzero(seen)
    points = back_project(depth_m, (rows, columns), (x, y))
    return Scene(objects, 'camera', is_optical=True, points=points, colors=image[::step, ::step][seen])


def located_objects(objects: Sequence[LocatedObject | None]) -> tuple[SceneObject, ...]:
    """Return those of the objects that have points and a box, with grasp candidates for the first ones.

    The hand keeps clear of all that is seen around a Geometry, and else of the other objects.

    Args:
        objects: One per instance of the result, in its order.
    """
    found: list[SceneObject] = []
    for index, each in enumerate(objects):
        if each is None or each.points is None or each.center is None or each.rotation is None or each.size_m is None:
            continue
        grasps, why_not = (), ''
        if len(found) < MOST_PLANNED:
            around = None if isinstance(each, Geometry) else points_of_others(objects, each)
            outcome = find_grasps(each, limit=MOST_GRASPS, around=around)
            grasps, why_not = tuple(outcome.candidates), outcome.reason
        points = each.points[:: max(1, -(-len(each.points) // MOST_OBJECT_POINTS))]
        found.append(SceneObject(index, points, each.center, each.rotation, each.size_m, grasps, why_not))
    return tuple(found)

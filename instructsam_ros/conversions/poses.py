"""Positions, rotations and object geometry to and from geometry_msgs and the Geometry message."""

from typing import TypeVar

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3

from instructsam.core.errors import GeometryError
from instructsam.core.spatial import geometry as spatial
from instructsam.core.spatial.rotations import matrix_to_quaternion, quaternion_to_matrix
from instructsam_ros.msg import Geometry

PointOrVector = TypeVar('PointOrVector', Point, Vector3)


def pose(position: np.ndarray, rotation: np.ndarray) -> Pose:
    """Return the Pose with `position` [3] m and `rotation` [3, 3], whose columns are the axes."""
    x, y, z, w = matrix_to_quaternion(rotation).tolist()
    return Pose(position=_xyz(Point, position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def position_of(msg: Point | Vector3) -> np.ndarray:
    """Return x, y and z of a Point or Vector3, [3]. Raises GeometryError if one of them is not finite."""
    position = np.array([msg.x, msg.y, msg.z])
    if not np.isfinite(position).all():
        raise GeometryError(f'a position is finite, got (x, y, z) = {tuple(position.tolist())}')
    return position


def rotation_of(msg: Quaternion) -> np.ndarray:
    """Return the rotation matrix of a Quaternion, [3, 3]. Raises GeometryError if it is zero or not finite."""
    return quaternion_to_matrix([msg.x, msg.y, msg.z, msg.w])


def geometry_to_msg(geometry: spatial.Geometry) -> Geometry:
    """Return the Geometry message of a core Geometry."""
    return Geometry(
        pose=pose(geometry.center, geometry.rotation),
        size=_xyz(Vector3, geometry.size_m),
        visible=_xyz(Vector3, geometry.visible_m),
        centroid=_xyz(Point, geometry.centroid),
        points=geometry.surface.count,
        valid_depth=geometry.valid,
        has_support=geometry.has_support,
    )


def _xyz(msg_type: type[PointOrVector], values: np.ndarray) -> PointOrVector:
    x, y, z = (float(value) for value in values)
    return msg_type(x=x, y=y, z=z)

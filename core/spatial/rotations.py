"""Conversions between rotation matrices and quaternions in ROS's order (x, y, z, w)."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation


def quaternion_to_matrix(xyzw: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the rotation matrix [3, 3] float64 of a quaternion (x, y, z, w), which need not have unit length."""
    return Rotation.from_quat(xyzw).as_matrix()


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return the unit quaternion [4] float64 (x, y, z, w) of a rotation matrix [3, 3]."""
    return Rotation.from_matrix(matrix).as_quat()

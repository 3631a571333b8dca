"""Conversions between rotation matrices and quaternions in ROS's order (x, y, z, w)."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from instructsam.core.errors import GeometryError

MIN_QUATERNION = 1e-6
"""Largest component below which a quaternion counts as zero."""


def quaternion_to_matrix(xyzw: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the rotation matrix [3, 3] float64 of a quaternion (x, y, z, w), which need not have unit length.

    Raises:
        GeometryError: The quaternion is zero or not finite, and therefore no rotation.
    """
    largest = np.abs(xyzw).max()
    if not np.isfinite(xyzw).all() or largest < MIN_QUATERNION:
        raise GeometryError(f'a quaternion of a rotation is finite and not zero, got (x, y, z, w) = {tuple(xyzw)}')
    # The squares of the components of a long quaternion would be infinite.
    return Rotation.from_quat(np.asarray(xyzw, float) / largest).as_matrix()


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return the unit quaternion [4] float64 (x, y, z, w) of a rotation matrix [3, 3]."""
    return Rotation.from_matrix(matrix).as_quat()

"""Rotation matrices and quaternions (x, y, z, w)."""

import numpy as np

from instructsam.core.spatial.rotations import matrix_to_quaternion, quaternion_to_matrix


def test_a_quarter_turn_about_z():
    half = np.sqrt(0.5)
    matrix = quaternion_to_matrix([0, 0, half, half])
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(np.abs(matrix_to_quaternion(matrix)), [0, 0, half, half], atol=1e-12)


def test_the_length_of_a_quaternion_does_not_matter():
    expected = quaternion_to_matrix([1, 2, 3, 4])
    np.testing.assert_allclose(expected.T @ expected, np.eye(3), atol=1e-12)
    for scale in (2, -3, 1e-5, 1e160, 4e307):
        np.testing.assert_allclose(quaternion_to_matrix(np.multiply([1, 2, 3, 4], scale)), expected, atol=1e-12)

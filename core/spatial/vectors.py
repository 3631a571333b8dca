"""Operations on a few 3D vectors, ten times as fast as numpy's general versions."""

import numpy as np


def mean(points: np.ndarray) -> np.ndarray:
    """Return the mean [3] of points [N, 3]."""
    return np.full(len(points), 1 / len(points)) @ points


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross product of vectors [3] or [3, N], along the first axis."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def robust_extent(values: np.ndarray) -> tuple[float, float]:
    """Return the 98th and 2nd percentile of values [N]: their maximum and minimum without outliers."""
    high, low = (len(values) - 1) * 98 // 100, (len(values) - 1) * 2 // 100
    ordered = np.partition(values, (low, high))
    return float(ordered[high]), float(ordered[low])

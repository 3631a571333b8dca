"""Lens models of sensor_msgs/CameraInfo: from distorted to ideal image coordinates, with a check of every pixel.

Why not cv2.undistortPoints: its fixed-point iteration stops after five steps, diverges for wide lenses, can converge to
a second solution beyond the fold of the polynomial, and reports none of this. Here a pixel has its exact ray or none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from instructsam.core.errors import GeometryError

COEFFICIENT_COUNTS = {  # lens model -> the numbers of coefficients it can have
    'plumb_bob': (4, 5),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
}

FISHEYES = ('equidistant', 'fisheye', 'kannala_brandt', 'kannala_brandt4')
"""Names of models that differ from a pinhole even if all their coefficients are zero."""

MAX_ANGLE = np.radians(80.0)
"""Largest angle between a ray and the optical axis. Beyond it, x / z changes by more than 0.1 from pixel to pixel."""

MIN_RESOLUTION = 0.1
"""Smallest derivative of the image radius by the ray's angle, in focal lengths. A fitted polynomial reaches a maximum
outside the calibrated part of the image and shrinks beyond it, so pixels there have no ray or two."""

MAX_MAGNIFICATION = 4.0
"""Largest derivative of the image radius by that of a pinhole. A rational function grows without limit at a pole."""

TOLERANCE = 1e-9
"""Largest error of a solved ray's projection, in focal lengths: 1e-5 px even for a lens of 10,000 px."""

_CHUNK = 16_384  # points that are solved together, so that their intermediate results stay in the processor's cache
_STEPS = 10  # steps of Newton's method; from the radial solution, three or four suffice


@dataclass(frozen=True)
class Lens:
    """Distortion of a lens, as in OpenCV's calib3d.

    Args:
        model: A key of COEFFICIENT_COUNTS; '' is plumb_bob.
        coefficients: None, or all zero, for a pinhole without distortion.

    Raises:
        GeometryError: The model is unknown, has another number of coefficients, or they are not finite.
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        name, values = self.model or 'plumb_bob', self.coefficients
        if not np.isfinite(values).all():
            raise GeometryError(f'the coefficients of the lens are not finite: {list(values)}')
        if not any(values):
            if name in FISHEYES:
                raise GeometryError(
                    f'the lens is {name!r} and its coefficients are all zero: an ideal fisheye, or an image without '
                    'distortion. If it is the latter, set the parameter `rectified` to true'
                )
        elif len(values) not in COEFFICIENT_COUNTS.get(name, ()):
            known = ', '.join(
                f'{name} with {" or ".join(map(str, counts))}' for name, counts in COEFFICIENT_COUNTS.items()
            )
            raise GeometryError(f'the lens is one of {known} coefficients, got {name!r} with {list(values)}')

    @property
    def has_distortion(self) -> bool:
        """Return whether the lens differs from a pinhole."""
        return any(self.coefficients)

    def undistort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rays (x / z, y / z), each [N] float64, that the lens projects to x and y.

        NaN where the lens projects no ray to that point, or only rays beyond MAX_ANGLE or MIN_RESOLUTION.

        Args:
            x: Distorted coordinates [N] in focal lengths: (column - cx) / fx.
            y: (row - cy) / fy, [N].
        """
        if not self.has_distortion:
            return x, y
        solve = _EquidistantSolver if self.model == 'equidistant' else _BrownSolver
        rays = np.empty((2, len(x)))
        with np.errstate(all='ignore'):  # diverging rays become NaN
            solver = solve(self.coefficients)
            for first in range(0, len(x), _CHUNK):
                part = slice(first, first + _CHUNK)
                rays[:, part] = solver.solve(x[part], y[part])
        return rays[0], rays[1]


class _RadialTable:
    """The monotonic part of an image radius as a function of the ray's angle, from the optical axis outwards."""

    def __init__(self, angles: np.ndarray, radii: np.ndarray) -> None:
        growth = np.diff(radii)
        is_good = (growth > MIN_RESOLUTION * np.diff(angles)) & (growth < MAX_MAGNIFICATION * np.diff(np.tan(angles)))
        bad = np.flatnonzero(~is_good)  # NaN included
        stop = bad[0] + 1 if bad.size else len(radii)
        self.angles, self.radii = angles[:stop], radii[:stop]

    def angle_of(self, radius: np.ndarray) -> np.ndarray:
        """Return the approximate angle of each radius; NaN beyond the table."""
        return np.interp(radius, self.radii, self.angles, right=np.nan)


_ANGLES = np.linspace(0.0, MAX_ANGLE, 4096)


class _EquidistantSolver:
    """theta_d = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8), along the direction of the pixel."""

    def __init__(self, coefficients: tuple[float, ...]) -> None:
        self._powers = np.zeros(10)
        self._powers[1], self._powers[3::2] = 1.0, coefficients
        self._slopes = np.polynomial.polynomial.polyder(self._powers)
        self._table = _RadialTable(_ANGLES, np.polynomial.polynomial.polyval(_ANGLES, self._powers))

    def solve(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius = np.hypot(x, y)
        angle = self._table.angle_of(radius)
        for _ in range(4):  # the table is exact to 1e-7, and each step squares the error
            error = np.polynomial.polynomial.polyval(angle, self._powers) - radius
            angle = angle - error / np.polynomial.polynomial.polyval(angle, self._slopes)
        error = np.polynomial.polynomial.polyval(angle, self._powers) - radius
        angle[~((np.abs(error) < TOLERANCE) & (angle <= self._table.angles[-1]))] = np.nan
        scale = np.where(radius > 0, np.tan(angle) / radius, 1.0)
        return x * scale, y * scale


class _BrownSolver:
    """plumb_bob and rational_polynomial: radial, tangential, thin-prism and tilt terms, in OpenCV's order."""

    def __init__(self, coefficients: tuple[float, ...]) -> None:
        every = np.zeros(14)
        every[: len(coefficients)] = coefficients
        k1, k2, self._p1, self._p2, k3, k4, k5, k6, *prism = every
        self._numerator, self._denominator = (1.0, k1, k2, k3), (1.0, k4, k5, k6)  # polynomials in r^2
        self._prism = prism[:4]
        self._untilt = np.linalg.inv(_tilt(*prism[4:])) if any(prism[4:]) else None
        radii = np.tan(_ANGLES)
        factor, _ = self._radial(radii**2)
        bad = ~(_polynomial(self._denominator, radii**2) > 0)  # beyond a pole
        self._table = _RadialTable(_ANGLES, np.where(np.logical_or.accumulate(bad), np.nan, radii * factor))
        self._max_radius = np.tan(self._table.angles[-1])

    def solve(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._untilt is not None:
            tilted = self._untilt @ np.stack([x, y, np.ones_like(x)])
            x, y = tilted[0] / tilted[2], tilted[1] / tilted[2]
        radius = np.hypot(x, y)
        scale = np.where(radius > 0, np.tan(self._table.angle_of(radius)) / radius, 1.0)
        # Just beyond the table the tangential terms may still lead back into it.
        is_near = np.isnan(scale) & (radius < 1.05 * self._table.radii[-1])
        scale = np.where(is_near, self._max_radius / radius, scale)
        u, v = x * scale, y * scale
        is_solved = np.zeros(len(x), bool)
        for _ in range(_STEPS):
            error_x, error_y, (xx, xy, yx, yy) = self._errors(u, v, x, y)
            determinant = xx * yy - xy * yx
            is_solved = (np.maximum(np.abs(error_x), np.abs(error_y)) < TOLERANCE) & (determinant > 0)
            if (is_solved | np.isnan(determinant)).all():
                break
            u = u - (yy * error_x - xy * error_y) / determinant
            v = v - (xx * error_y - yx * error_x) / determinant
        is_solved &= np.hypot(u, v) <= self._max_radius
        u[~is_solved] = v[~is_solved] = np.nan
        return u, v

    def _errors(
        self, u: np.ndarray, v: np.ndarray, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
        """Return how far the projections of the rays (u, v) are from (x, y), and the Jacobian (xx, xy, yx, yy)."""
        p1, p2 = self._p1, self._p2
        s1, s2, s3, s4 = self._prism
        r2, uv = u * u + v * v, u * v
        factor, slope = self._radial(r2)
        error_x = u * factor + 2 * p1 * uv + p2 * (r2 + 2 * u * u) + (s1 + s2 * r2) * r2 - x
        error_y = v * factor + p1 * (r2 + 2 * v * v) + 2 * p2 * uv + (s3 + s4 * r2) * r2 - y
        slope_x, slope_y = 2 * (s1 + 2 * s2 * r2), 2 * (s3 + 2 * s4 * r2)
        cross = 2 * uv * slope + 2 * p1 * u + 2 * p2 * v
        xx = factor + 2 * u * u * slope + 2 * p1 * v + 6 * p2 * u + slope_x * u
        yy = factor + 2 * v * v * slope + 6 * p1 * v + 2 * p2 * u + slope_y * v
        return error_x, error_y, (xx, cross + slope_x * v, cross + slope_y * u, yy)

    def _radial(self, r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the radial factor and its derivative by r^2."""
        above, below = _polynomial(self._numerator, r2), _polynomial(self._denominator, r2)
        factor = above / below
        return factor, (_derivative(self._numerator, r2) - factor * _derivative(self._denominator, r2)) / below


def _polynomial(terms: tuple[float, ...], r2: np.ndarray) -> np.ndarray:
    return ((terms[3] * r2 + terms[2]) * r2 + terms[1]) * r2 + terms[0]


def _derivative(terms: tuple[float, ...], r2: np.ndarray) -> np.ndarray:
    return (3 * terms[3] * r2 + 2 * terms[2]) * r2 + terms[1]


def _tilt(tau_x: float, tau_y: float) -> np.ndarray:
    """Return the homography [3, 3] of a sensor that is tilted by two angles (Scheimpflug), as in OpenCV."""
    cx, sx, cy, sy = np.cos(tau_x), np.sin(tau_x), np.cos(tau_y), np.sin(tau_y)
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    return np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]]) @ turn

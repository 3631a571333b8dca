"""Pinhole camera with lens distortion, as in sensor_msgs/CameraInfo; gives the ray of every pixel."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.lens import Lens

FOCAL_LENGTHS = 1 / 12, 1000.0
"""Bounds of the focal length in image sizes: the field of view of a pinhole is then 0.06 to 160 degrees."""


class CameraModel:
    """A pinhole camera with a lens. Pixel (0, 0) has its centre at the origin of K's coordinates.

    Args:
        height: Image height, px.
        width: Image width, px.
        intrinsics: K [3, 3], px.
        distortion: Coefficients of the lens model; none, or all zero, for an undistorted image.
        model: Lens model, a key of lens.COEFFICIENT_COUNTS.

    Raises:
        GeometryError: K is not a camera matrix, or the lens model is unknown or has another number of coefficients.
    """

    def __init__(
        self,
        height: int,
        width: int,
        intrinsics: np.ndarray | Sequence[Sequence[float]],
        distortion: np.ndarray | Sequence[float] = (),
        model: str = 'plumb_bob',
    ) -> None:
        k = np.asarray(intrinsics, np.float64)
        if k.shape != (3, 3) or not np.isfinite(k).all() or min(k[0, 0], k[1, 1]) <= 0:
            raise GeometryError(f'intrinsics are K [3, 3] with focal lengths above 0, got {k.tolist()}')
        expected = np.array([[k[0, 0], 0, k[0, 2]], [0, k[1, 1], k[1, 2]], [0, 0, 1]])
        if not k[2, 2]:  # Some drivers fill in the focal lengths and the principal point only.
            expected[2, 2] = 0
        if not np.allclose(k, expected, rtol=0, atol=1e-6):
            raise GeometryError(f'intrinsics are K [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], got {k.tolist()}')
        if not all(FOCAL_LENGTHS[0] <= f / px <= FOCAL_LENGTHS[1] for f, px in ((k[0, 0], width), (k[1, 1], height))):
            raise GeometryError(
                f'the focal lengths {k[0, 0]:g} and {k[1, 1]:g} px cannot be those of an image of {width} x {height} '
                'px: K must be in pixels of its full resolution'
            )
        self.height, self.width, self.intrinsics = height, width, k
        self._lens = Lens(model, tuple(float(value) for value in distortion))

    @cached_property
    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Undistorted ray (x / z, y / z) of every pixel, each [H, W] float32 and read-only.

        Both are NaN where the lens model does not define the ray: such a pixel has no position in 3D.
        """
        k, shape = self.intrinsics, (self.height, self.width)
        x = (np.arange(self.width) - k[0, 2]) / k[0, 0]
        y = (np.arange(self.height) - k[1, 2]) / k[1, 1]
        if not self._lens.has_distortion:
            x, y = x.astype(np.float32), y.astype(np.float32)
            return np.broadcast_to(x, shape), np.broadcast_to(y[:, None], shape)  # broadcasting takes no memory
        rays = self._lens.undistort(np.tile(x, self.height), np.repeat(y, self.width))
        u, v = (axis.astype(np.float32).reshape(shape) for axis in rays)
        u.flags.writeable = v.flags.writeable = False
        return u, v

    @cached_property
    def is_complete(self) -> bool:
        """True if every pixel has a ray."""
        return not self._lens.has_distortion or bool(np.isfinite(self.rays[0]).all())

"""Pinhole camera with lens distortion, as in sensor_msgs/CameraInfo; gives the ray of every pixel."""

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from instructsam.core.errors import GeometryError

LENS_COEFFICIENTS = {  # distortion model -> the numbers of coefficients it can have
    'plumb_bob': (4, 5),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
}


class CameraModel:
    """A pinhole camera with a lens. Pixel (0, 0) has its centre at the origin of K's coordinates.

    Args:
        height: Image height, px.
        width: Image width, px.
        intrinsics: K [3, 3], px.
        distortion: Coefficients of the lens model; none, or all zero, for an undistorted image.
        model: Lens model, a key of LENS_COEFFICIENTS.

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
        lens = np.asarray(distortion, np.float64)
        has_distortion = bool(lens.any())
        if has_distortion and (len(lens) not in LENS_COEFFICIENTS.get(model, ()) or not np.isfinite(lens).all()):
            known = ', '.join(
                f'{name} with {" or ".join(map(str, counts))}' for name, counts in LENS_COEFFICIENTS.items()
            )
            raise GeometryError(f'the lens is one of {known} coefficients, got {model!r} with {lens.tolist()}')
        self.height, self.width, self.intrinsics = height, width, k
        self._lens, self._model, self._has_distortion = lens, model, has_distortion

    @cached_property
    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Undistorted ray (x / z, y / z) of every pixel, each [H, W] float32 and read-only."""
        k, shape = self.intrinsics, (self.height, self.width)
        if not self._has_distortion:
            x = ((np.arange(self.width) - k[0, 2]) / k[0, 0]).astype(np.float32)
            y = ((np.arange(self.height) - k[1, 2]) / k[1, 1]).astype(np.float32)
            return np.broadcast_to(x, shape), np.broadcast_to(y[:, None], shape)  # broadcasting takes no memory
        pixels = np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), axis=-1).astype(np.float64)
        undistort = cv2.fisheye.undistortPoints if self._model == 'equidistant' else cv2.undistortPoints
        rays = undistort(pixels.reshape(-1, 1, 2), k, self._lens)
        return rays[:, 0, 0].astype(np.float32).reshape(shape), rays[:, 0, 1].astype(np.float32).reshape(shape)

"""What a camera's pixels look along: a pinhole with its lens, as sensor_msgs/CameraInfo describes it."""

from functools import cached_property

import cv2
import numpy as np

from instructsam.core.errors import GeometryError

LENSES = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}  # model -> coefficients


class CameraModel:
    """A camera of `height` x `width` px with K = `intrinsics` [3, 3] px and the lens `model` of `distortion`.

    Pixel (0, 0) has its centre at the origin of K's coordinates. Raises GeometryError.
    """

    def __init__(self, height, width, intrinsics, distortion=(), model='plumb_bob'):
        k = np.asarray(intrinsics, np.float64)
        if k.shape != (3, 3) or not np.isfinite(k).all() or min(k[0, 0], k[1, 1]) <= 0:
            raise GeometryError(f'intrinsics are K [3, 3] with focal lengths above 0, got {k.tolist()}')
        lens = np.asarray(distortion, np.float64)
        is_straight = not lens.any()
        if not is_straight and (len(lens) not in LENSES.get(model, ()) or not np.isfinite(lens).all()):
            known = ', '.join(f'{name} with {" or ".join(map(str, counts))}' for name, counts in LENSES.items())
            raise GeometryError(f'the lens is one of {known} coefficients, got {model!r} with {lens.tolist()}')
        self.height, self.width, self.intrinsics = height, width, k
        self._lens, self._model, self._is_straight = lens, model, is_straight

    @cached_property
    def rays(self):
        """What each pixel looks along: (x / z, y / z), [H, W] float32 each, with the distortion undone. Read-only."""
        k, shape = self.intrinsics, (self.height, self.width)
        if self._is_straight:
            x = np.float32((np.arange(self.width) - k[0, 2]) / k[0, 0])
            y = np.float32((np.arange(self.height) - k[1, 2]) / k[1, 1])
            return np.broadcast_to(x, shape), np.broadcast_to(y[:, None], shape)  # which takes no memory
        pixels = np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), axis=-1).astype(np.float64)
        if self._model == 'equidistant':
            rays = cv2.fisheye.undistortPoints(pixels.reshape(-1, 1, 2), k, self._lens)
        else:
            rays = cv2.undistortPoints(pixels.reshape(-1, 1, 2), k, self._lens)
        return tuple(np.float32(rays[:, 0, axis]).reshape(shape) for axis in range(2))

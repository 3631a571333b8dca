"""Carries the masks of an answer to every later image of a camera, by optical flow.

A model answers about an image that is seconds old by then. Here every image costs two runs of OpenCV's DIS flow at a
reduced size. Their results are kept for a while, so that an answer about an older image can be brought forward.

Masks are not warped from image to image, which would blur their outlines. Instead, the answer's own outline is drawn
once per image, moved by what the points inside it did (see `objects`).
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import cv2
import numpy as np

from instructsam.core.result import Result
from instructsam.core.spatial.carrying.objects import Carried, CarriedObjects, CarryParams, Step
from instructsam.core.spatial.tracking import MIN_FLOW_SIDE, shrink

DEFAULTS = CarryParams()


class MaskCarrier:
    """Carries the instances of the newest answer to every image of one camera. Not thread-safe."""

    def __init__(self, params: CarryParams = DEFAULTS) -> None:
        self._params = params
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        # The refinement takes more than half of the time and gains nothing here, where points are aligned anyway.
        self._dis.setVariationalRefinementIterations(0)
        self._steps: deque[Step] = deque(maxlen=params.max_images)
        self.clear()

    def clear(self) -> None:
        """Forget all images and the answer."""
        self._steps.clear()
        self._size: tuple[int, int] | None = None  # height and width of the images, px
        self._grey: np.ndarray | None = None  # the last image, [h, w] uint8, reduced
        self.drop_answer()

    def drop_answer(self) -> None:
        """Forget the answer, as when the instruction changes."""
        self._objects: CarriedObjects | None = None

    def add_image(self, image: np.ndarray, stamp_ns: int) -> list[Carried]:
        """Return the instances of the newest answer, carried to `image`; without an answer, none.

        An image of another size, or one that is not newer than the last, begins anew: nothing is carried until there is
        an answer about it or a later one.

        Args:
            image: [H, W, 3] uint8 RGB.
            stamp_ns: Its stamp, ns.
        """
        height, width = image.shape[:2]
        if (height, width) != self._size or (self._steps and stamp_ns <= self._steps[-1].stamp_ns):
            self.clear()
        self._size = height, width
        reduced = shrink(image, self._params.longer_side_px)
        grey = cv2.cvtColor(reduced, cv2.COLOR_RGB2GRAY)
        flow = is_consistent = None
        if self._grey is not None and min(grey.shape) >= MIN_FLOW_SIDE:
            flow, is_consistent = self._flow_between(self._grey, grey)
        self._grey = grey
        step = Step(stamp_ns, cv2.GaussianBlur(reduced, (5, 5), 0), flow, is_consistent)
        self._steps.append(step)
        if self._objects is None:
            return []
        self._objects.advance(step)
        return self._objects.carried()

    def add_answer(self, result: Result, stamp_ns: int) -> bool:
        """Carry the instances of `result` from the next image on, brought forward from the image with `stamp_ns`.

        Returns:
            Whether they can be: that image is one of the last `max_images`, and has the result's size.
        """
        self.drop_answer()
        stamps = [step.stamp_ns for step in self._steps]
        if stamp_ns not in stamps or self._size != (result.height, result.width):
            return False
        begin = stamps.index(stamp_ns)
        objects = CarriedObjects(result, self._steps[begin].colors, stamp_ns, self._params)
        for step in islice(self._steps, begin + 1, None):
            objects.advance(step)
        self._objects = objects
        return True

    def _flow_between(self, before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the flow from `before` to `now`, and where it agrees with the one back.

        Both are on every second pixel of `before`, which loses nothing: DIS computes the flow on every fourth.
        """
        forward = np.ascontiguousarray(self._dis.calc(before, now, None)[::2, ::2])
        backward = np.ascontiguousarray(self._dis.calc(now, before, None)[::2, ::2])
        rows, columns = forward.shape[:2]
        x = np.arange(columns, dtype=np.float32) + forward[..., 0] / 2
        y = np.arange(rows, dtype=np.float32)[:, None] + forward[..., 1] / 2
        error = forward + cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        is_consistent = np.einsum('ijk,ijk->ij', error, error) < self._params.max_inconsistency_px**2
        return forward.astype(np.float16), is_consistent.astype(np.uint8)

"""Carries the masks of an answer to every later image of a camera, by optical flow.

When the model's answer is ready, its image may be seconds old. Carrying takes two runs of OpenCV's DIS flow per image,
at a reduced size. The flows are kept for a while, so that an answer about an older image can be brought forward.

Masks are not warped from image to image, which would blur their outlines. Instead, the answer's own outline is drawn
once per image, moved as the points inside it (see `objects`).
"""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np

from instructsam.core.result import Result
from instructsam.core.spatial.carrying.objects import Carried, CarriedObjects, CarryParams, Step
from instructsam.core.spatial.tracking import MIN_FLOW_SIDE, dense_flow

DEFAULTS = CarryParams()


class MaskCarrier:
    """Carries the instances of the newest answer to every image of one camera. Not thread-safe."""

    def __init__(self, params: CarryParams = DEFAULTS) -> None:
        self._params = params
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        # The refinement takes more than half of the time and gains nothing, because points are aligned afterwards.
        self._dis.setVariationalRefinementIterations(0)
        self._steps: deque[Step] = deque(maxlen=params.max_images)
        self.clear()

    def clear(self) -> None:
        """Forget all images and the answer."""
        self._steps.clear()
        self._size: tuple[int, int] | None = None  # height and width of the images, px
        self._latest_before_ns = -math.inf  # time of the latest image before time went back
        self.drop_answer()

    def drop_answer(self) -> None:
        """Forget the answer, as when the instruction changes."""
        self._objects: CarriedObjects | None = None

    def add_image(self, image: np.ndarray, time_ns: int) -> list[Carried]:
        """Take the newest image and return the instances that are carried to it, see `carried`.

        An image of another size, or one that is not later than the last, starts from scratch: nothing is carried until
        there is an answer about it or a later one.

        Args:
            image: [H, W, 3] uint8 RGB.
            time_ns: When it was taken, ns on any clock.
        """
        height, width = image.shape[:2]
        if (height, width) != self._size:
            self.clear()
        elif self._steps and time_ns <= self._steps[-1].time_ns:
            latest_ns = max(self._steps[-1].time_ns, self._latest_before_ns)
            self.clear()
            self._latest_before_ns = latest_ns
        self._size = height, width
        step = self._step(self._steps[-1].colors if self._steps else None, self._reduced(image), time_ns)
        self._steps.append(step)
        if self._objects is not None:
            self._objects.advance(step)
        return self.carried()

    def add_answer(self, result: Result, image: np.ndarray, time_ns: int) -> bool:
        """Carry the instances of `result` from now on, brought forward from its image to the newest one.

        After time has gone back, an answer whose image is later than the newest one, but not later than those before
        the jump, is about one of these. It is refused: its image would become the newest, and time would seem to go
        back again with the next one.

        Args:
            result: The answer about `image`; its instances have ids.
            image: [H, W, 3] uint8 RGB. It need not have been added, and may be older than all images that are kept;
                objects that the flow to the oldest of these does not find are lost.
            time_ns: Its time, on the clock of `add_image`.

        Returns:
            True if it is carried from now on. False if it is refused, and the previous answer is still carried; or if
            its image has another size than those that are kept, and nothing is carried.
        """
        if self._steps and self._steps[-1].time_ns < time_ns <= self._latest_before_ns:
            return False
        self.drop_answer()
        if self._steps and image.shape[:2] != self._size:
            return False
        if not self._steps or time_ns > self._steps[-1].time_ns:
            self.add_image(image, time_ns)
        later = [step for step in self._steps if step.time_ns >= time_ns]
        if later[0].time_ns == time_ns:
            colors = later.pop(0).colors
        else:  # The image was not added, so the flow from it to the next one that was is not known yet.
            colors = self._reduced(image)
            later[0] = self._step(colors, later[0].colors, later[0].time_ns)
        objects = CarriedObjects(result, colors, time_ns, self._params)
        for step in later:
            objects.advance(step)
        self._objects = objects
        return True

    @property
    def has_answer(self) -> bool:
        """True while an answer is carried, see `add_image` and `add_answer`."""
        return self._objects is not None

    def carried(self) -> list[Carried]:
        """Return the instances of the newest answer in the newest image; those that were lost are left out."""
        return [] if self._objects is None else self._objects.carried()

    def _reduced(self, image: np.ndarray) -> np.ndarray:
        """Return an image as it is compared, [h, w, 3] uint8: reduced and slightly blurred, against noise."""
        return cv2.GaussianBlur(_shrink(image, self._params.longer_side_px), (5, 5), 0)

    def _step(self, before: np.ndarray | None, colors: np.ndarray, time_ns: int) -> Step:
        """Return the step from the reduced image `before`, None if there is none, to `colors`."""
        if before is None or min(colors.shape[:2]) < MIN_FLOW_SIDE:
            return Step(time_ns, colors, None, None)
        greys = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (before, colors))
        return Step(time_ns, colors, *self._flow_between(*greys))

    def _flow_between(self, before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the flow from `before` to `now`, and where it agrees with the one back.

        Both are on every second pixel of `before`, which loses nothing: DIS computes the flow on every fourth.
        """
        forward = np.ascontiguousarray(dense_flow(self._dis, before, now)[::2, ::2])
        backward = np.ascontiguousarray(dense_flow(self._dis, now, before)[::2, ::2])
        rows, columns = forward.shape[:2]
        x = np.arange(columns, dtype=np.float32) + forward[..., 0] / 2
        y = np.arange(rows, dtype=np.float32)[:, None] + forward[..., 1] / 2
        error = forward + cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        is_consistent = np.einsum('ijk,ijk->ij', error, error) < self._params.max_inconsistency_px**2
        return forward.astype(np.float16), is_consistent.astype(np.uint8)


def _shrink(image: np.ndarray, longer_side_px: int) -> np.ndarray:
    """Return an image [H, W, C] reduced to about `longer_side_px`; smaller ones as they are.

    Halved several times, for which OpenCV is several times as fast as for the same factor at once.
    """
    while max(image.shape[:2]) >= 2 * longer_side_px and min(image.shape[:2]) > 1:
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    factor = longer_side_px / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

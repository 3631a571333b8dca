"""Interfaces between the pipeline and its surroundings: callers, depth, transforms, settings and goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from instructsam_ros.pipeline.settings import Settings

if TYPE_CHECKING:
    from instructsam_ros.pipeline.scheduling.goal import Outcome


class Caller(Protocol):
    """The party that waits for an answer: it is notified of the progress and can cancel the work.

    All methods are called in the thread that computes the answer, between steps and often within long ones, so they
    must return at once.
    """

    def is_cancelled(self) -> bool:
        """Return whether the answer is no longer wanted."""
        ...

    def is_encoding_cancelled(self) -> bool:
        """Return whether even the encoded image is no longer wanted, although it could serve another instruction."""
        ...

    def report_step(self, step: str) -> None:
        """Report that `step`, a constant of Segment.Feedback, begins."""
        ...


class DepthPair(NamedTuple):
    """A depth image and the camera info that describes it and the color image."""

    depth: Image | CompressedImage
    camera_info: CameraInfo
    image_topic: str = ''  # topic of the color image; '' if it did not come on one


class DepthSource(Protocol):
    """Finds the depth of a color image."""

    def find_depth(self, stamp: Time, settings: Settings, caller: Caller) -> DepthPair:
        """Return the depth image and camera info for a color image with `stamp`; may wait for them.

        Raises:
            NoDepthError: There is none; the message says why.
        """
        ...


class Transform(NamedTuple):
    """Rigid transform: p_target = rotation @ p_source + translation."""

    rotation: np.ndarray  # [3, 3]
    translation: np.ndarray  # [3], m


class TransformSource(Protocol):
    """Looks up the transform between two coordinate frames."""

    def lookup(self, target: str, source: str, stamp: Time, settings: Settings, caller: Caller) -> Transform:
        """Return the transform from frame `source` to frame `target` at `stamp`; may wait for it.

        Raises:
            TransformError: There is none; the message says why.
        """
        ...


class SettingsSource(Protocol):
    """Provides the current settings, which may change at any time."""

    def current(self) -> Settings:
        """Return the settings of this moment."""
        ...


class GoalClient(Protocol):
    """Receives the progress and the end of one goal, from any thread."""

    def notify_stage(self, stage: str) -> None:
        """Forward a new stage, a constant of Segment.Feedback."""
        ...

    def notify_end(self, outcome: Outcome) -> None:
        """Forward the outcome; called exactly once."""
        ...

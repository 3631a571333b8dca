"""Questions of the page, their answers, and the interface of a source of answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from instructsam.core.result import Result
from instructsam.core.web.scene import Scene

if TYPE_CHECKING:
    from instructsam.core.spatial.camera_model import CameraModel

Cancelled = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Question:
    """A question of one tab."""

    instruction: str
    image: np.ndarray | None  # [H, W, 3] uint8 RGB; None: the newest image of the source's camera
    threshold: float = 0.5  # instances must score above it, 0 to 1
    depth: np.ndarray | None = None  # [H, W] of the image, as in spatial.geometry.measure
    camera: CameraModel | None = None  # camera model of `depth`


@dataclass(frozen=True, eq=False)
class Answer:
    """A result with the image that it is about, as the page shows it."""

    image: np.ndarray  # [H, W, 3] uint8 RGB, the image that the result is about
    result: Result
    scene: Scene | None = None  # None without depth
    note: str = ''  # about the times or the 3D, for example that the image had been encoded before


class Source(Protocol):
    """Answers questions: a model in this process, or a running node."""

    name: str  # for display
    has_camera: bool  # whether a question may leave the image out
    takes_depth: bool  # whether a question may have depth

    def answer(self, question: Question, cancelled: Cancelled) -> Answer:
        """Answer a question; called from several threads.

        Raises:
            InstructSAMError: There is no answer; the message says why and what to do.
            CancelledError: `cancelled` returned true.
        """
        ...

    def newest_image(self) -> np.ndarray | None:
        """Return the newest image of the camera, [H, W, 3] uint8 RGB; None if there is none yet, or no camera."""
        ...

    def close(self) -> None:
        """Release what the source holds."""
        ...

"""Answers one query about one camera frame: decode, encode, segment, localize, track.

`answer_query` is the whole pipeline. The camera streams, the goals of the action `segment` and `instructsam bag` all
call it; they differ in the source of the depth, the party that cancels, and the receiver of the answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from std_msgs.msg import Header

from instructsam.core import CancelledError
from instructsam.core.errors import InstructSAMError
from instructsam.core.result import Result
from instructsam.core.spatial.grasping import GraspResult
from instructsam_ros.action import Segment
from instructsam_ros.conversions.grasps import instance_grasps
from instructsam_ros.conversions.instances import cut_off_message, to_msg
from instructsam_ros.msg import InstanceArray
from instructsam_ros.pipeline.localization import localize
from instructsam_ros.pipeline.protocols import Caller, DepthSource, TransformSource
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.tracker_pool import TrackerPool, TrackGroup

if TYPE_CHECKING:  # importing the engine imports torch
    from instructsam.core import InstructSAM
    from instructsam_ros.pipeline.camera_frame import CameraFrame


class CutOffError(InstructSAMError):
    """A limit ended the model's answer before its first phrase was complete."""


@dataclass(frozen=True, eq=False)
class Query:
    """An instruction, and how to answer it."""

    text: str
    settings: Settings
    track_group: TrackGroup | None  # whose object ids the answer continues; None: the answer has no ids

    @property
    def key(self) -> tuple[TrackGroup | None, str, Settings]:
        """Everything that distinguishes the answers to two queries about the same frame."""
        return self.track_group, self.text, self.settings


@dataclass(frozen=True, eq=False)
class Answer:
    """The engine's result, located in 3D if depth is available, and how long each step took."""

    result: Result
    geometry_frame_id: str = ''  # coordinate frame of the geometry; '' if nothing was located
    geometry_message: str = ''  # reason why nothing was located
    times_ms: dict[str, float] = field(default_factory=dict)  # empty if an equal query was segmented before

    @cached_property
    def grasps(self) -> list[GraspResult]:
        """The grasps of each instance, computed on first access."""
        return instance_grasps(self.result)

    def to_msg(self, image_header: Header, instruction: str, instruction_id: int) -> InstanceArray:
        """Return the InstanceArray; the arguments are those of conversions.instances.to_msg."""
        return to_msg(
            self.result, image_header, instruction, instruction_id, self.geometry_frame_id, self.geometry_message
        )

    def geometry_header(self, image_header: Header) -> Header:
        """Return the header of all 3D output: the image's stamp and the frame of the geometry."""
        return Header(stamp=image_header.stamp, frame_id=self.geometry_frame_id or image_header.frame_id)


def answer_query(
    engine: InstructSAM,
    frame: CameraFrame,
    query: Query,
    *,
    depth_source: DepthSource,
    transforms: TransformSource,
    trackers: TrackerPool,
    caller: Caller,
) -> Answer:
    """Answer one query about one camera frame.

    An equal query about the same frame (see Query.key) is answered from memory. If its answer lacks the geometry, the
    depth or the transform may have arrived meanwhile, so its instances are located again.

    Args:
        engine: The model.
        frame: The image; keeps its decoded and encoded form and its answers until it is released.
        query: The instruction and its settings.
        depth_source: Asked for the depth if the engine finds an instance.
        transforms: Asked for the transform if the settings name a target frame.
        trackers: Assign the object ids.
        caller: Is notified of each step, and asked between and within steps whether it still wants the answer.

    Returns:
        The answer. Missing depth or a missing transform is not an error: the answer then has no geometry and says why.

    Raises:
        CancelledError: The caller no longer wants the answer.
        ImageFormatError: The image cannot be decoded.
        CutOffError: `max_new_tokens` or `time_budget_s` is too low for the first phrase of the answer.
        InstructSAMError: The engine cannot answer.
    """
    known = frame.answers.get(query.key)
    if known is not None and not known.geometry_message:
        return replace(known, times_ms={})
    times_ms: dict[str, float] = {}
    if known is None:
        with timed(times_ms, 'conversion'):
            frame.decode(query.settings.max_megapixels)
        trackers.follow(frame, query.track_group)

        caller.report_step(Segment.Feedback.ENCODING)
        frame.encode(engine, caller)
        _check(caller)

        caller.report_step(Segment.Feedback.SEGMENTING)
        result = frame.segment(engine, query.text, query.settings, caller)
        if result.status == 'error':
            raise CutOffError(cut_off_message(result))
    else:
        result = known.result

    caller.report_step(Segment.Feedback.LOCATING)
    located = localize(result, frame.header, query.settings, depth_source, transforms, caller)
    _check(caller)  # Depth may have been waited for; ids must not advance for a result that is never seen.

    result = located.result
    if known is None:
        times_ms |= result.timings_ms
        with timed(times_ms, 'tracking'):
            result = trackers.track(result, frame, query.track_group)
    answer = Answer(result, located.frame_id, located.message, times_ms)
    frame.answers[query.key] = answer
    return answer


@contextmanager
def timed(times_ms: dict[str, float], step: str) -> Iterator[None]:
    """Store the milliseconds that the block takes under `step`, unless it raises."""
    start_s = time.perf_counter()
    yield
    times_ms[step] = (time.perf_counter() - start_s) * 1e3


def _check(caller: Caller) -> None:
    if caller.is_cancelled():
        raise CancelledError('the caller no longer wants this answer')

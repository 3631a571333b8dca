"""Object ids that persist from frame to frame, kept apart for each series of results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from instructsam.core.result import Result
from instructsam.core.spatial.tracking import Tracker
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.newest import NewestDict

if TYPE_CHECKING:
    from instructsam_ros.pipeline.camera_frame import CameraFrame

KEPT_TRACKERS = 8  # groups whose ids continue; with more of them the least recently used starts again

TrackGroup: TypeAlias = Instruction | str
"""The results that share object ids: those to one instruction on the topic, or to goals with the same text."""


@dataclass
class _Track:
    tracker: Tracker = field(default_factory=Tracker)
    latest_s: float = float('-inf')  # CameraFrame.received_s of the latest tracked frame


class TrackerPool:
    """One tracker for each track group of one camera. Used by one thread only, the one that computes answers."""

    def __init__(self) -> None:
        self._tracks: NewestDict[TrackGroup, _Track] = NewestDict(KEPT_TRACKERS)

    def track(self, result: Result, frame: CameraFrame, group: TrackGroup | None) -> Result:
        """Return `result` with the object ids of `group`.

        Without a group the result is returned without ids, and so is a result on a frame that was received before the
        group's latest one, as a goal with a stamp may ask for: tracking cannot go back in time.
        """
        if group is None:
            return result
        track = self._tracks.get(group) or _Track()
        self._tracks[group] = track  # now the most recently used
        if frame.received_s <= track.latest_s:
            return result
        result = track.tracker.update(result, frame.decode())
        track.latest_s = frame.received_s
        return result

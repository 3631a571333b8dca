"""Object ids that persist from frame to frame, separately for each track group."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
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
    followed_s: float = float('-inf')  # CameraFrame.received_s of the latest frame that the tracker was moved to
    following: Future[None] | None = None  # the warping to it, until `wait`

    def follow(self, frame: CameraFrame, thread: ThreadPoolExecutor) -> None:
        """Start warping the masks of the objects to a frame, if it is later than the latest one."""
        if frame.received_s > self.followed_s:
            self.wait()
            self.followed_s = frame.received_s
            self.following = thread.submit(self.tracker.follow, frame.decode())

    def wait(self) -> None:
        """Wait until the warping has ended. Raises what it raised."""
        following, self.following = self.following, None  # it holds the image
        if following is not None:
            following.result()


class TrackerPool:
    """One tracker for each track group of one camera. Used by one thread only, the one that computes answers.

    The optical flow needs no answer, so it runs in another thread while the model works.
    """

    def __init__(self) -> None:
        self._tracks: NewestDict[TrackGroup, _Track] = NewestDict(KEPT_TRACKERS)
        self._thread = ThreadPoolExecutor(1, 'ids')  # starts with the first frame

    def follow(self, frame: CameraFrame, group: TrackGroup | None) -> None:
        """Start warping the masks of `group` to a frame that will be answered; without a group, do nothing."""
        if group is not None:
            self._track(group).follow(frame, self._thread)

    def track(self, result: Result, frame: CameraFrame, group: TrackGroup | None) -> Result:
        """Return `result` with the object ids of `group`.

        Without a group the result is returned without ids, and so is a result on a frame that was received before the
        group's latest one, as a goal with a stamp may ask for: tracking cannot go back in time.
        """
        if group is None:
            return result
        track = self._track(group)
        if frame.received_s < track.followed_s:
            return result
        track.follow(frame, self._thread)
        track.wait()
        return track.tracker.identify(result)

    def _track(self, group: TrackGroup) -> _Track:
        """Return the track of a group, which is now the most recently used."""
        track = self._tracks.get(group) or _Track()
        self._tracks[group] = track
        return track

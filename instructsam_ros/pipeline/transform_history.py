"""A record of the transforms of TF, which shows when the pose of a frame at one time is not determined.

tf2 answers more than is known: it interpolates across any gap, uses the parent before a change of parents for the time
after it, lets the later of a static and a dynamic transform win, and mixes transforms from before and after time went
back. It does not expose its samples, so they are recorded here.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import NamedTuple

from geometry_msgs.msg import TransformStamped

from instructsam.core.spatial.calibration import frame_name
from instructsam.core.text import shorten
from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.pipeline.stamp_rounds import StampRounds

KEPT_NS = 10_000_000_000
"""Samples that are older than the newest one of their frame by more than this are forgotten, as in tf2."""

FARTHEST_M = 1e7
"""Longest translation: the radius of the Earth and the northings of maps are shorter."""

UNIT_TOLERANCE = 1e-2
"""tf2 ignores quaternions whose squared norm differs from 1 by more."""

NEVER_NS = 1 << 63
"""A step back that no stamp reaches: transforms open no round, since their publishers may lag and overtake."""


class Sample(NamedTuple):
    """A transform of a frame, without the pose."""

    stamp_ns: int
    parent: str
    fault: str = ''  # reason why it cannot be used


class TransformHistory:
    """Records the parents of each frame, whether it is static, and the stamps of its transforms. Not thread-safe.

    The images of the cameras decide when time goes back, however far: all dynamic transforms are forgotten then. Those
    that arrive late are ignored, see StampRounds.
    """

    def __init__(self, on_forget: Callable[[], None]) -> None:
        """Create an empty record; `on_forget()` is called when all dynamic transforms are forgotten."""
        self._on_forget = on_forget
        self._rounds = StampRounds()
        self._image_ns = 0  # stamp of the latest image
        self._static: dict[str, dict[str, Sample]] = {}  # {child: {parent: the latest}}
        self._dynamic: dict[str, list[Sample]] = {}  # {child: in order of stamps}; a known child's may be empty

    @property
    def newest_round(self) -> int:
        """The round of stamps that the transforms belong to."""
        return self._rounds.newest

    def put_image(self, camera: str, stamp_ns: int) -> int:
        """Return the round of an image; called for all in the order of arrival. 0 is a stamp that is not set."""
        newest = self._rounds.newest
        if not stamp_ns:
            return newest
        self._image_ns = stamp_ns
        image_round = self._rounds.assign(f'image {camera}', stamp_ns)
        if self._rounds.newest > newest:
            self.forget()
        return image_round

    def put(self, transform: TransformStamped, *, is_static: bool) -> bool:
        """Record a transform; return whether tf2 may have it."""
        child, parent = frame_name(transform.child_frame_id), frame_name(transform.header.frame_id)
        if not child or not parent or child == parent:
            return False
        sample = Sample(nanoseconds(transform.header.stamp), parent, _fault(transform))
        if is_static:
            self._static.setdefault(child, {})[parent] = sample
            return not sample.fault
        samples = self._dynamic.setdefault(child, [])
        if self._rounds.assign(f'transform {child}', sample.stamp_ns, NEVER_NS) < self._rounds.newest:
            return False
        if samples and sample.stamp_ns < samples[-1].stamp_ns - KEPT_NS:
            expected_ns = self._image_ns + KEPT_NS
            if not sample.stamp_ns <= expected_ns < samples[-1].stamp_ns:
                return False
            self.forget()  # A wrong stamp, far after the images, would shut out the right ones.
        insort(samples, sample)
        first = bisect_left(samples, (samples[-1].stamp_ns - KEPT_NS,))
        del samples[: max(0, first - 1)]  # One older sample stays, across which tf2 would interpolate.
        return not sample.fault and child not in self._static  # In tf2 it would replace the static transform.

    def forget(self) -> None:
        """Forget the dynamic transforms."""
        for samples in self._dynamic.values():
            samples.clear()
        self._on_forget()

    def gap_in(self, target: str, source: str, stamp_ns: int, max_gap_ns: int) -> str:
        """Return the reason why the pose of `source` in `target` at `stamp_ns` is not known; '' if there is none here.

        Frames that are unknown or not connected are left to tf2, which names them.
        """
        from_source, reason = self._ancestors(source, stamp_ns, max_gap_ns)
        from_target, other_reason = self._ancestors(target, stamp_ns, max_gap_ns)
        return (reason or other_reason) if set(from_source).isdisjoint(from_target) else ''

    def _ancestors(self, frame: str, stamp_ns: int, max_gap_ns: int) -> tuple[list[str], str]:
        """Return `frame` and its known ancestors, and the reason why the next is not known; '' if there is none."""
        frames = [frame]
        while True:
            parent, reason = self._parent(frames[-1], stamp_ns, max_gap_ns)
            if not parent:
                return frames, reason
            if parent in frames:
                return [], f'the transforms from {_quoted(frame)} upwards are a loop that contains {_quoted(parent)}'
            frames.append(parent)

    def _parent(self, child: str, stamp_ns: int, max_gap_ns: int) -> tuple[str, str]:
        """Return the parent of `child`, to which its pose is known at `stamp_ns`, or '' and the reason if it is not."""
        name = _quoted(child)
        static, dynamic = self._static.get(child), self._dynamic.get(child)
        if not static and dynamic is None:
            return '', ''
        dynamic = dynamic or []
        first = bisect_left(dynamic, stamp_ns - max_gap_ns, key=_stamp)
        near = dynamic[first : bisect_right(dynamic, stamp_ns + max_gap_ns, key=_stamp)]
        if static:
            if near:
                return '', f'{name} has transforms in /tf_static and in /tf: it must be either static or not'
            used = list(static.values())
        else:
            before, after = bisect_right(dynamic, stamp_ns, key=_stamp) - 1, bisect_left(dynamic, stamp_ns, key=_stamp)
            if reason := _extrapolation(dynamic, before, after, stamp_ns):
                return '', f'{name} {reason}'
            used = dynamic[min(before, after) : max(before, after) + 1]
        parents = {each.parent for each in used + near}
        if len(parents) > 1:
            return '', f'{name} has several parents in TF: {", ".join(map(_quoted, sorted(parents)))}; it must have one'
        if not static and used[-1].stamp_ns - used[0].stamp_ns > max_gap_ns:
            return '', (
                f'{name} has no transform from {_seconds(used[0].stamp_ns)} to {_seconds(used[-1].stamp_ns)}, which is '
                f'longer than tf_max_gap_s ({max_gap_ns * 1e-9:g} s)'
            )
        for sample in used:
            if sample.fault:
                return '', f'the transform from {name} to {_quoted(sample.parent)} cannot be used: {sample.fault}'
        return used[0].parent, ''


def _extrapolation(samples: list[Sample], before: int, after: int, stamp_ns: int) -> str:
    """Return which of the neighbors with these indices does not exist; '' if both do."""
    image = f'and the image is of {_seconds(stamp_ns)}'
    if not samples:
        return 'has no transform since all were forgotten, because stamps went back or the node was activated'
    if before < 0:
        return f'has transforms from {_seconds(samples[0].stamp_ns)} on, {image}'
    if after == len(samples):
        return f'has transforms until {_seconds(samples[-1].stamp_ns)}, {image}'
    return ''


def _fault(transform: TransformStamped) -> str:
    """Return the reason why a transform is invalid; '' if it is valid."""
    translation, rotation = transform.transform.translation, transform.transform.rotation
    position = translation.x, translation.y, translation.z
    quaternion = rotation.x, rotation.y, rotation.z, rotation.w
    if not all(map(math.isfinite, (*position, *quaternion))):
        return f'its numbers are not finite: position {position}, quaternion {quaternion}'
    if max(map(abs, position)) > FARTHEST_M:
        return f'its position {position} is farther than {FARTHEST_M:g} m'
    if abs(sum(min(abs(each), 2.0) ** 2 for each in quaternion) - 1.0) > UNIT_TOLERANCE:
        return f'its quaternion {quaternion} is not of length 1'
    return ''


def _stamp(sample: Sample) -> int:
    return sample.stamp_ns


def _seconds(stamp_ns: int) -> str:
    return f'{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d} s'


def _quoted(name: str) -> str:
    return f"'{shorten(name)}'"

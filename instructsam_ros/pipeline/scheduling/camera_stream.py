"""One camera: its newest image and those before it, its depth, and the instruction that has been answered on it."""

from collections import deque

from builtin_interfaces.msg import Time

from instructsam_ros.conversions.stamps import nanoseconds
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.depth_sync import RECENT, DepthBuffer
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.scheduling.mailbox import Mailbox
from instructsam_ros.pipeline.scheduling.result_publisher import ResultPublisher
from instructsam_ros.pipeline.settings import CONTINUOUS
from instructsam_ros.pipeline.tracker_pool import TrackerPool

KEPT_FRAMES = RECENT  # frames that a goal may ask for by their stamp
OVERTAKING = 3  # this many newer images in a row mean that an image is lost, not overtaken


class CameraStream:
    """State of one camera.

    Not thread-safe unless noted: the scheduler calls every method while it holds its lock. `mailbox` and `depth` have
    their own locks; `trackers` belongs to the worker's thread.
    """

    def __init__(self, name: str, results: ResultPublisher) -> None:
        """Create the stream of the camera `name`, '' for the only one; `results` publishes its results."""
        self.name = name
        self.of_camera = f' of {name}' if name else ''  # for texts
        self.results = results
        self.mailbox: Mailbox[CameraFrame] = Mailbox()
        self.depth = DepthBuffer()
        self.trackers = TrackerPool()
        self.frame: CameraFrame | None = None  # the latest frame taken, kept for the next instruction
        self.answered: Instruction | None = None  # the latest instruction with a published result
        self.must_answer_current = False
        """`frame` still needs an answer, because its computation was cancelled or because a goal took it."""
        self._recent: deque[CameraFrame] = deque(maxlen=KEPT_FRAMES)

    def put_frame(self, frame: CameraFrame, *, is_used: bool) -> None:
        """Store a new frame; `is_used` if a goal uses it as well."""
        frame.stamp_round = self.depth.put_image(nanoseconds(frame.header.stamp), frame.message)
        self._recent.append(frame)
        self.mailbox.put(frame, is_used=is_used)

    def clear(self) -> None:
        """Drop all images and depth images."""
        self.frame = None
        self.must_answer_current = False
        self._recent.clear()
        self.mailbox.clear()
        self.depth.clear()

    @property
    def has_frame(self) -> bool:
        """True if there is a frame to answer on. Safe to call without the lock."""
        return self.mailbox.has_message or self.frame is not None

    def is_newest(self, frame: CameraFrame) -> bool:
        """Return whether no frame has arrived after `frame`."""
        return bool(self._recent) and self._recent[-1] is frame

    def take_for_goal(self) -> CameraFrame | None:
        """Return the newest frame and make it the current one, which the stream must answer later."""
        if self.mailbox.has_message:
            self._replace_current(self.mailbox.take())
            self.must_answer_current = True
        return self.frame

    def find_frame(self, stamp: Time) -> CameraFrame | None:
        """Return the recent frame with `stamp`, or None if it may still arrive.

        Raises:
            ValueError: Newer frames have arrived, so it will not.
        """
        found = next((frame for frame in reversed(self._recent) if frame.header.stamp == stamp), None)
        if found is None and (reason := self._reason_if_passed(stamp, 1)):
            raise ValueError(reason)
        return found

    def reason_if_lost(self, stamp: Time) -> str:
        """Return the reason why the frame with `stamp`, which has not arrived, is no longer expected; '' if it is."""
        return self._reason_if_passed(stamp, OVERTAKING)

    def _reason_if_passed(self, stamp: Time, images: int) -> str:
        latest = [frame.header.stamp for frame in list(self._recent)[-images:]]
        if len(latest) < images or any(nanoseconds(each) <= nanoseconds(stamp) for each in latest):
            return ''
        newest = latest[-1]
        return (
            f'no image with the stamp {stamp.sec}.{stamp.nanosec:09d} is buffered, the newest has '
            f'{newest.sec}.{newest.nanosec:09d}: ask within {KEPT_FRAMES} images'
        )

    def has_work(self, instruction: Instruction, trigger: str) -> bool:
        """Return whether there is a frame that `instruction` must be answered on."""
        if instruction is not self.answered:
            return self.has_frame
        return (self.mailbox.has_message or self.must_answer_current) and trigger == CONTINUOUS

    def take_for_stream(self, trigger: str) -> CameraFrame | None:
        """Return the frame for the next answer, normally the newest one.

        In continuous mode an instruction that arrives while an image is being answered is answered on that image first,
        because it is encoded already; a newer one follows anyway.
        """
        keep = self.must_answer_current and self.frame is not None and trigger == CONTINUOUS
        if self.mailbox.has_message and not keep:
            self._replace_current(self.mailbox.take())
        self.must_answer_current = False
        return self.frame

    def _replace_current(self, frame: CameraFrame) -> None:
        if self.frame is not None and self.frame is not frame:
            self.frame.release()
        self.frame = frame

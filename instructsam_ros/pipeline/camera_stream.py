"""One camera: its newest image and those before it, its depth, and what has been answered on it."""

from collections import deque

from instructsam.core.spatial.tracking import Tracker
from instructsam_ros.pipeline.depth_sync import Depths, NoDepthError, nanoseconds
from instructsam_ros.pipeline.mailbox import Mailbox
from instructsam_ros.pipeline.newest import NewestDict
from instructsam_ros.pipeline.settings import CONTINUOUS

KEPT_IMAGES = 10  # that a goal may ask for by their stamp
KEPT_TRACKERS = 8  # series of results whose ids go on


class Stream:
    """State of one camera. What is not said to be safe is guarded by the worker's lock."""

    def __init__(self, name, outputs, statistics):
        """`outputs` makes the messages of this camera, see Outputs."""
        self.name = name
        self.outputs = outputs
        self.mailbox = Mailbox()  # of Shots
        self.depths = Depths()
        self.shot = None  # the latest image taken, kept for the next instruction
        self.answered = None  # the latest instruction with a published result
        self.owes = False  # an answer on `shot`: work on it was given up, or a goal took it out of the mailbox
        self._statistics = statistics
        self._recent = deque(maxlen=KEPT_IMAGES)
        self._trackers = NewestDict(
            KEPT_TRACKERS
        )  # series -> (Tracker, when its latest image came); in the worker's thread alone

    def offer(self, shot, is_used):
        """An image has come; it is only stored. is_used: a goal has it."""
        self._recent.append(shot)
        self.mailbox.put(shot, is_used)

    def clear(self):
        """Forgets all images."""
        self.shot = None
        self.owes = False
        self._recent.clear()
        self.mailbox.clear()
        self.depths.clear()

    @property
    def has_image(self):
        return self.mailbox.waiting or self.shot is not None

    def newest(self):
        """The newest Shot, which `shot` is from now on."""
        if self.mailbox.waiting:
            self._move_on(self.mailbox.take())
            self.owes = True
        return self.shot

    def with_stamp(self, stamp):
        """The Shot with that stamp, None where it is not in hand. ValueError: images have gone past it already."""
        found = next((shot for shot in reversed(self._recent) if shot.header.stamp == stamp), None)
        if found is None and self._recent:
            newest = self._recent[-1].header.stamp
            if nanoseconds(newest) > nanoseconds(stamp):
                raise ValueError(
                    f'no image with the stamp {stamp.sec}.{stamp.nanosec:09d} is in hand, the newest has '
                    f'{newest.sec}.{newest.nanosec:09d}: ask within {KEPT_IMAGES} images'
                )
        return found

    def has_work(self, instruction, trigger):
        """Whether there is something to answer `instruction` on."""
        if instruction is not self.answered:
            return self.has_image
        return (self.mailbox.waiting or self.owes) and trigger == CONTINUOUS

    def next_shot(self, trigger):
        """The Shot for the next attempt, the newest there is.

        In continuous mode an instruction that came in the midst of an image is answered on that image at once, since
        it is encoded already; a newer one follows anyway.
        """
        keep = self.owes and self.shot is not None and trigger == CONTINUOUS
        if self.mailbox.waiting and not keep:
            self._move_on(self.mailbox.take())
        self.owes = False
        return self.shot

    def _move_on(self, shot):
        if self.shot is not None and self.shot is not shot:
            self.shot.release()
        self.shot = shot

    # in the worker's thread

    def find_depth(self, settings, cancelled):
        """For Locator: finds the depth image and camera info of a stamp, and counts."""

        def find(stamp):
            try:
                found = self.depths.find(stamp, settings.depth_tolerance_s, settings.depth_timeout_s, cancelled)
            except NoDepthError:
                self._statistics.unpaired += self.depths.received > 0 and not cancelled()
                raise
            self._statistics.paired += 1
            return found

        return find

    def tracking(self, series, received_s):
        """For Question.track: gives a result ids that stay within `series`, an instruction.

        An image that came before the latest of the series, as a goal may want one, is left without ids.
        """

        def track(result, image):
            tracker, latest_s = self._trackers.get(series) or (Tracker(), float('-inf'))
            if is_next := received_s > latest_s:
                result = tracker.update(result, image)
            self._trackers[series] = tracker, received_s if is_next else latest_s
            return result

        return track

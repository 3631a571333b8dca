"""Which depth image and camera info belong to a picture: those of its stamp, or within a tolerance that was set.

Nothing is guessed: a picture whose depth did not come has none, and the reason is told.
"""

import threading

from instructsam_ros.pipeline.newest import NewestDict

KEPT = 30  # depth images: a second of a camera at 30 Hz
ANEW = 1_000_000_000  # ns by which stamps go back where a recording begins again, and what came before is over
LATER = 1_000_000  # ns by which a stamp must be later to say that what came before it is complete


class NoDepthError(Exception):
    """A picture has no depth or no camera info; the message says why."""


def nanoseconds(stamp):
    """A builtin_interfaces/Time as one number."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


class Depths:
    """The latest depth images and camera infos of one camera. Any number of threads may put and find."""

    def __init__(self, kept=KEPT):
        self.received = 0  # depth images since the start
        self._came = threading.Condition()  # guards the three below
        self._depths = NewestDict(kept)  # ns -> message, in the order in which they came
        self._infos = NewestDict(kept)
        self._newest_info = None

    def put(self, message):
        """A depth image has come."""
        with self._came:
            self.received += 1
            _keep(self._depths, message)
            self._came.notify_all()

    def put_info(self, message):
        """A camera info has come."""
        with self._came:
            self._newest_info = message
            _keep(self._infos, message)
            self._came.notify_all()

    def clear(self):
        """Forgets what came, as the stream begins anew."""
        with self._came:
            self._depths.clear()
            self._infos.clear()
            self._newest_info = None

    def find(self, stamp, tolerance_s=0.0, timeout_s=0.0, cancelled=lambda: False):
        """(depth image, camera info) for a picture of `stamp`: the nearest within the tolerance.

        Waits up to timeout_s for a depth image that may still come, in short steps between which `cancelled` is asked.
        Of camera infos, which do not change from image to image, the newest will do. Raises NoDepthError.
        """
        wanted, tolerance = nanoseconds(stamp), round(tolerance_s * 1e9)

        def is_decided():
            return wanted in self._depths or any(other > wanted + tolerance + LATER for other in self._depths)

        with self._came:
            if not self._depths:
                raise NoDepthError('no depth image has come')
            left_s = timeout_s
            while not (is_decided() and self._newest_info) and left_s > 0 and not cancelled():
                self._came.wait(min(left_s, 0.05))
                left_s -= 0.05
            nearest = min(self._depths, key=lambda other: abs(other - wanted), default=None)
            off = abs(nearest - wanted)
            if off > tolerance:
                raise NoDepthError(
                    f'no depth image with the stamp of the image, the nearest is {off * 1e-9:.3f} s off (see the '
                    'parameter depth_tolerance_s)'
                )
            info = self._infos.get(wanted, self._newest_info)
            if info is None:
                raise NoDepthError('a depth image has come, but no camera info')
            return self._depths[nearest], info


def _keep(messages, message):
    stamp = nanoseconds(message.header.stamp)
    if messages and stamp < next(reversed(messages)) - ANEW:
        messages.clear()
    messages[stamp] = message

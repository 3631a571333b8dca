"""The thread that carries the masks of the newest answer to every image of a camera and publishes them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from instructsam.core.spatial.carrying.carrier import MaskCarrier
from instructsam.core.spatial.carrying.objects import Carried
from instructsam_ros.conversions.images import ImageFormatError, to_rgb
from instructsam_ros.conversions.stamps import is_set, nanoseconds
from instructsam_ros.pipeline.answer import Answer, timed
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.localization import localize
from instructsam_ros.pipeline.protocols import SettingsSource
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.error_log import FAILURES, ErrorLog
from instructsam_ros.pipeline.scheduling.result_publisher import CarriedAnswer
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler, Session, StreamWork
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.transforms import TransformLookup

PAUSE_S = 0.1  # pause after a bug, so that one that recurs at once does not occupy the processor
BURST = 1.5  # images that may be taken at once: a camera that stutters keeps its rate


class _NewAnswer(NamedTuple):
    work: StreamWork
    answer: Answer
    image: np.ndarray  # [H, W, 3] uint8 RGB


@dataclass(eq=False)
class _Camera:
    """One camera. The lock of MaskThread guards the first fields; the others are the thread's own."""

    stream: CameraStream
    waiting: CameraFrame | None = None  # the newest image
    new_answer: _NewAnswer | None = None  # the newest answer, until it is taken over
    must_clear: bool = False
    credit: float = 0.0  # images that may be taken
    credit_s: float = 0.0  # time of the latest change of credit, time.perf_counter()

    carrier: MaskCarrier = field(default_factory=MaskCarrier)
    carried: _NewAnswer | None = None  # the answer that is carried
    session: Session | None = None  # None: no image has been taken since clear()
    stamp_round: int = 0

    def clear(self) -> None:
        """Forget the answer and all images."""
        self.carrier.clear()
        self.carried = self.session = None

    def adopt(self, answer: _NewAnswer) -> None:
        """Carry another answer from now on."""
        if self.carrier.add_answer(answer.answer.result, answer.image, _time_ns(answer.work.frame)):
            self.carried = answer


class _Caller:
    """Caller of localize: waits for the depth of an image only as long as its masks may be published."""

    def __init__(self, scheduler: Scheduler, work: StreamWork) -> None:
        self._scheduler = scheduler
        self._work = work

    def is_cancelled(self) -> bool:
        """Return whether the answer that is carried is no longer in force."""
        return not self._scheduler.is_in_force(self._work)

    def is_encoding_cancelled(self) -> bool:
        """Return the same as is_cancelled(): nothing is encoded."""
        return self.is_cancelled()

    def report_step(self, step: str) -> None:
        """Do nothing: no client follows the progress."""


class MaskThread(threading.Thread):
    """Carries masks at the rate of the cameras while the parameter track_rate_hz is set and there is a subscriber.

    A separate daemon thread, so that neither the executor nor the model's thread waits for it. If it is too slow for
    a camera, the newest image replaces the one that waits.
    """

    def __init__(
        self,
        streams: Sequence[CameraStream],
        settings: SettingsSource,
        scheduler: Scheduler,
        transforms: TransformLookup,
        statistics: Statistics,
        error_log: ErrorLog,
    ) -> None:
        """Create the thread of all cameras; start() begins."""
        super().__init__(name='masks', daemon=True)
        self._settings = settings
        self._scheduler = scheduler
        self._transforms = transforms
        self._statistics = statistics
        self._error_log = error_log
        self._changed = threading.Condition()
        self._cameras = {stream: _Camera(stream) for stream in streams}
        self._turns = deque(self._cameras.values())
        self._is_closed = False

    # Called from any thread

    def offer(self, stream: CameraStream, frame: CameraFrame) -> None:
        """Take a new image of a camera, unless images come faster than `track_rate_hz`."""
        rate_hz = self._settings.current().track_rate_hz
        with self._changed:
            camera = self._cameras[stream]
            if not rate_hz:
                self._drop_images(camera)
                return
            passed_s = max(0.0, frame.received_s - camera.credit_s)
            camera.credit, camera.credit_s = min(BURST, camera.credit + passed_s * rate_hz), frame.received_s
            if camera.credit >= 1:
                camera.credit -= 1
                camera.waiting = frame
                self._changed.notify()

    def put_answer(self, work: StreamWork, answer: Answer) -> None:
        """Carry the instances of an answer that has been published; called in the thread that made it."""
        with self._changed:  # even while the rate is 0: with trigger on_instruction it is the only answer
            if self._scheduler.is_in_force(work):  # otherwise clear() may have been called already
                self._cameras[work.stream].new_answer = _NewAnswer(work, answer, work.frame.decode())

    def clear(self) -> None:
        """Forget all images and answers, soon."""
        with self._changed:
            for camera in self._cameras.values():
                camera.new_answer = None
                self._drop_images(camera)

    def _drop_images(self, camera: _Camera) -> None:
        camera.waiting = None
        camera.must_clear = camera.session is not None
        self._changed.notify()

    def close(self, timeout_s: float) -> bool:
        """End the thread; return whether it has ended."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self.join(timeout_s)
        return not self.is_alive()

    # Called in this thread

    def run(self) -> None:
        """Run until close()."""
        while (camera := self._wait_for_camera()) is not None:
            try:
                self._serve(camera)
            except FAILURES as error:  # The next image may succeed.
                self._error_log.report_bug('the thread of the carried masks', error)
                camera.clear()
                time.sleep(PAUSE_S)

    def _wait_for_camera(self) -> _Camera | None:
        """Wait for work and return the camera whose turn it is; None after close()."""
        with self._changed:
            while not self._is_closed:
                for camera in list(self._turns):
                    if camera.waiting is not None or camera.must_clear:
                        self._turns.remove(camera)
                        self._turns.append(camera)
                        return camera
                self._changed.wait()
            return None

    def _serve(self, camera: _Camera) -> None:
        """Carry the newest answer of a camera to its newest image, and publish the result."""
        with self._changed:
            frame, answer, camera.waiting = camera.waiting, None, None
            if frame is not None:  # otherwise the answer waits for the next image
                answer, camera.new_answer = camera.new_answer, None
            if camera.must_clear:
                camera.must_clear = False
                camera.clear()
        session = self._scheduler.session
        if frame is None or session is None:
            camera.clear()
            return
        if not camera.stream.results.is_tracked:  # The answer may be wanted before the next one comes.
            self._keep(camera, answer or camera.carried)
            camera.clear()
            return
        settings, times_ms = self._settings.current(), dict[str, float]()
        try:
            with timed(times_ms, 'carrying'):
                image = to_rgb(frame.message, settings.max_megapixels)
                self._carry(camera, frame, image, answer, session)
                found = camera.carrier.carried()
        except ImageFormatError:  # The answer to this image reports it.
            self._keep(camera, answer)
            return
        if camera.carried is not None and camera.carrier.has_answer and settings.track_rate_hz:
            self._publish(camera.carried, frame, image, found, settings, times_ms)

    def _carry(
        self, camera: _Camera, frame: CameraFrame, image: np.ndarray, answer: _NewAnswer | None, session: Session
    ) -> None:
        """Add an image to the carrier of its camera, and the answer that has come since the image before.

        Images are ordered by when they were received, since stamps may be missing or go back.
        """
        if camera.session is not session or camera.stamp_round != frame.stamp_round:
            camera.clear()
            camera.session, camera.stamp_round = session, frame.stamp_round
        if camera.carried is not None and not self._scheduler.is_in_force(camera.carried.work):
            camera.carrier.drop_answer()
            camera.carried = None
        if answer is not None and (
            not self._scheduler.is_in_force(answer.work) or answer.work.frame.stamp_round != frame.stamp_round
        ):
            answer = None
        if answer is not None and _time_ns(answer.work.frame) < _time_ns(frame):
            camera.adopt(answer)
            answer = None
        camera.carrier.add_image(image, _time_ns(frame))
        if answer is not None and answer.work.frame is frame:
            camera.adopt(answer)
        elif answer is not None:  # It is about a later image, which was skipped: the next one will be later still.
            self._keep(camera, answer)

    def _keep(self, camera: _Camera, answer: _NewAnswer | None) -> None:
        """Keep an answer for the next image, unless a newer one has come or it is no longer in force."""
        with self._changed:
            if answer is not None and self._scheduler.is_in_force(answer.work):
                camera.new_answer = camera.new_answer or answer

    def _publish(
        self,
        carried: _NewAnswer,
        frame: CameraFrame,
        image: np.ndarray,
        found: Sequence[Carried],
        settings: Settings,
        times_ms: dict[str, float],
    ) -> None:
        work, stream = carried.work, carried.work.stream
        result = replace(carried.answer.result, instances=tuple(each.instance for each in found), timings_ms={})
        # An image waits for its depth until the next one is due at most.
        wait_s = min(settings.depth_timeout_s, 1 / settings.track_rate_hz)
        located = localize(
            result,
            frame.header,
            replace(settings, depth_timeout_s=wait_s),
            stream.depth.in_round(frame.stamp_round, is_counted=False),
            self._transforms.in_round(frame.transform_round),
            _Caller(self._scheduler, work),
        )
        answer = CarriedAnswer(
            Answer(located.result, located.frame_id, located.message),
            [each.confidence for each in found],
            work.frame.header.stamp,
            _age_s(work.frame, frame),
            has_target=bool(carried.answer.result.instances),
        )
        messages = stream.results.tracked_messages(frame, image, work.instruction, answer)
        if self._scheduler.publish_carried(work, messages):
            self._statistics.tracked_results += 1
            times_ms['receive_to_publish_tracked'] = (time.perf_counter() - frame.received_s) * 1e3
            for step, ms in times_ms.items():
                self._statistics.add_time(step, ms)


def _time_ns(frame: CameraFrame) -> int:
    return int(frame.received_s * 1e9)


def _age_s(older: CameraFrame, newer: CameraFrame) -> float:
    """Return the time between two images: of their stamps, or of their arrival if those are not set."""
    stamps = older.header.stamp, newer.header.stamp
    if all(is_set(stamp) for stamp in stamps):
        return (nanoseconds(stamps[1]) - nanoseconds(stamps[0])) * 1e-9
    return newer.received_s - older.received_s

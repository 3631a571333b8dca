"""The thread of the carried masks, call by call: it is not started."""

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from fakes import FakePublisher, FakeSettings
from std_msgs.msg import Header

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.pipeline.answer import Answer
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.scheduling.camera_stream import CameraStream
from instructsam_ros.pipeline.scheduling.mask_thread import MaskThread
from instructsam_ros.pipeline.scheduling.result_publisher import OutgoingMessage
from instructsam_ros.pipeline.scheduling.scheduler import Scheduler
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.pipeline.settings import Settings
from instructsam_ros.pipeline.transforms import TransformLookup

HEIGHT, WIDTH = 120, 160


class Bench:
    """A camera whose masks are carried, and the stamps of the images that they were carried to."""

    def __init__(self):
        self.settings, self.publisher = FakeSettings(), FakePublisher()
        self.settings.value = Settings(track_rate_hz=30.0)
        results = SimpleNamespace(
            is_tracked=True,
            tracked_messages=lambda frame, *_: [OutgoingMessage(self.publisher, frame.header.stamp.sec)],
        )
        self.stream, statistics = CameraStream('', results), Statistics()
        self.scheduler = Scheduler([self.stream], self.settings, statistics)
        self.scheduler.activate()
        self.scheduler.instruct('the mug')
        self.masks = MaskThread(
            [self.stream], self.settings, self.scheduler, TransformLookup(lambda _: None), statistics, error_log=None
        )
        self.pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

    def see(self, sec, *, is_broken=False):
        message = image_msg(self.pixels, Header(frame_id='camera', stamp=Time(sec=sec)))
        if is_broken:
            message.data = message.data[:1000]
        frame = CameraFrame(message, float(sec))
        self.scheduler.offer(self.stream, frame)
        self.masks.offer(self.stream, frame)
        self.masks._serve(self.masks._cameras[self.stream])

    def answer(self, work):
        assert self.scheduler.publish_if_current(work, [])
        self.put_answer(work)

    def put_answer(self, work):
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[30:80, 40:100] = True
        result = Result('the mug', 'mug', HEIGHT, WIDTH, (Instance(Rle.encode(mask), 0.9, 'mug', slot=0),))
        self.masks.put_answer(work, Answer(result))


def test_an_answer_from_before_the_rate_was_set_is_carried():
    """With trigger on_instruction no other answer would come."""
    bench = Bench()
    bench.settings.value = Settings(track_rate_hz=0.0)
    bench.see(1)
    bench.answer(bench.scheduler.next_work())
    bench.see(2)
    bench.settings.value = Settings(track_rate_hz=30.0)
    bench.see(3), bench.see(4)
    assert bench.publisher.published == [3, 4]


@pytest.mark.parametrize('is_broken', [False, True])
def test_an_image_that_cannot_be_decoded_does_not_lose_the_answer(is_broken):
    bench = Bench()
    bench.see(1)
    work = bench.scheduler.next_work()
    bench.see(2)
    bench.answer(work)
    bench.see(3, is_broken=is_broken)
    bench.see(4), bench.see(5)
    assert bench.publisher.published == ([4, 5] if is_broken else [3, 4, 5])


def test_an_answer_that_comes_after_deactivation_is_not_kept():
    """Its frame would keep the model in memory."""
    bench = Bench()
    bench.see(1)
    work = bench.scheduler.next_work()
    assert bench.scheduler.publish_if_current(work, [])
    bench.scheduler.deactivate()
    bench.masks.clear()
    bench.put_answer(work)
    frame = weakref.ref(work.frame)
    del work
    gc.collect()
    assert frame() is None

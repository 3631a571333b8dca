"""A resumed run of `instructsam bag annotate`: finished results are recalled as they were made."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.bag.offline_camera import OfflineCamera, RecordedFrame
from instructsam_ros.bag.topics import Topics
from instructsam_ros.conversions.images import ImageFormatError
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.settings import Settings

HEIGHT, WIDTH, PAN_PX = 120, 160, 44
RED = Instruction('the red square', 1)


class RedEngine:
    """Finds what is bright red; cannot answer on the second image."""

    def encode(self, image, cancelled=None):
        return SimpleNamespace(image=image, timings_ms={})

    def segment(self, encoded, instruction, **_):
        is_red = (encoded.image[..., 0] > 250) & (encoded.image[..., 1] < 40)
        if is_red[:, 10 + PAN_PX].any() and not is_red[:, 12].any():
            raise RuntimeError('out of memory')
        return Result(instruction, 'red', HEIGHT, WIDTH, (Instance(Rle.encode(is_red), 0.9, 'red', 0),), timings_ms={})


def recorded(count):
    """Return frames of a camera that pans so fast that the objects of two successive ones do not overlap."""
    noise = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH + count * PAN_PX, 3), np.uint8)
    scenery = ((cv2.GaussianBlur(noise, (0, 0), 2).astype(int) - 128) * 4 + 110).clip(0, 190).astype(np.uint8)
    frames = []
    for index in range(count):
        left = (count - index) * PAN_PX
        image = scenery[:, left : left + WIDTH].copy()
        image[40:60, 10 + PAN_PX * index :][:, :16] = (255, 30, 30)
        message = image_msg(image, Header(frame_id='camera', stamp=Time(sec=index + 1)))
        frames.append(RecordedFrame(index, index, serialize_message(message), RED, 0))
    return frames


def offline_camera(**settings):
    bag = SimpleNamespace(types={'/image': 'sensor_msgs/msg/Image'})
    return OfflineCamera(bag, Topics('/image'), None, Settings(depth_timeout_s=0.0, **settings))


def test_ids_continue_after_an_image_with_an_error():
    """Its motion counts, as in an undisturbed run."""
    camera, engine, frames = offline_camera(), RedEngine(), recorded(3)
    whole = [camera.answer(engine, frame, RED).message for frame in frames]
    assert [len(message.instances) for message in whole] == [1, 0, 1]
    assert whole[2].instances[0].track_id == 0
    resumed = offline_camera()
    for frame, message in zip(frames[:2], whole[:2], strict=True):
        resumed.recall(frame, message)
    assert resumed.answer(engine, frames[2], RED).message.instances[0].track_id == 0


def test_the_limit_of_the_image_size_is_that_of_the_settings():
    engine, (frame,) = RedEngine(), recorded(1)
    message = offline_camera().answer(engine, frame, RED).message
    with pytest.raises(ImageFormatError, match='max_megapixels'):
        offline_camera(max_megapixels=0.001).recall(frame, message)


def test_an_image_that_could_not_be_decoded_is_passed_over():
    engine, (frame,) = RedEngine(), recorded(1)
    broken = RecordedFrame(0, 0, frame.data[:40], RED, 0)
    camera = offline_camera()
    answer = camera.answer(engine, broken, RED)
    assert answer.error is not None
    resumed = offline_camera()
    resumed.recall(broken, answer.message)
    assert resumed.answer(engine, frame, RED).message.instances[0].track_id == 0

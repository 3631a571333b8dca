"""Fakes of what surrounds the pipeline from a frame to an answer: engine, depth, transforms, caller."""

import numpy as np
from builtin_interfaces.msg import Time
from fakes import FakeEngine
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import depth_msg, image_msg
from instructsam_ros.pipeline.answer import Query, answer_query
from instructsam_ros.pipeline.camera_frame import CameraFrame
from instructsam_ros.pipeline.depth_sync import NoDepthError
from instructsam_ros.pipeline.instruction import Instruction
from instructsam_ros.pipeline.localization import TransformError
from instructsam_ros.pipeline.protocols import DepthPair, Transform
from instructsam_ros.pipeline.settings import Settings

HEIGHT, WIDTH = 48, 64
STEPS = [Segment.Feedback.ENCODING, Segment.Feedback.SEGMENTING, Segment.Feedback.LOCATING]
MUGS = Instruction('the mugs', 1)


class World:
    """Everything around the pipeline: depth, transforms and caller, and a log of what happened in which order."""

    def __init__(self):
        self.log = []
        self.engine = FakeEngine(self.log)
        self.has_depth = True
        self.depth_frame, self.image_topic, self.info = 'camera', '/camera/image_raw', {}
        self.transform = Transform(np.eye(3), np.zeros(3))
        self.cancel_at = None  # an entry of the log after which the caller no longer wants the answer

    # the depth source and the transform source

    def find_depth(self, stamp, settings, caller):
        self.log.append('find depth')
        if not self.has_depth:
            raise NoDepthError('no depth image has been received')
        depth_mm = np.full((HEIGHT, WIDTH), 1000, np.uint16)
        k = [60.0, 0.0, (WIDTH - 1) / 2, 0.0, 60.0, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0]
        header = Header(frame_id='camera', stamp=stamp)
        info = CameraInfo(**{'header': header, 'height': HEIGHT, 'width': WIDTH, 'k': k, **self.info})
        return DepthPair(depth_msg(depth_mm, Header(frame_id=self.depth_frame, stamp=stamp)), info, self.image_topic)

    def lookup(self, target, source, stamp, settings, caller):
        self.log.append(f'transform {source} to {target} at {stamp.sec}')
        if self.transform is None:
            raise TransformError('no transform')
        return self.transform

    # the caller

    def is_cancelled(self):
        return self.cancel_at in self.log

    def is_encoding_cancelled(self):
        return self.cancel_at == 'encode' and self.is_cancelled()

    def report_step(self, step):
        self.log.append(step)


def camera_frame(received_s=0.0, **fields):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    message = image_msg(image, Header(frame_id='camera', stamp=Time(sec=7)))
    for name, value in fields.items():
        setattr(message, name, value)
    return CameraFrame(message, received_s)


def answer(world, trackers, frame, group=MUGS, text='the mugs', **settings):
    query = Query(text, Settings(**settings), group)
    return answer_query(
        world.engine, frame, query, depth_source=world, transforms=world, trackers=trackers, caller=world
    )

"""A perception node in a process of its own, with probes that say whether it still answers rightly."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import messages, pictures
from harness.engine import ROOT
from harness.target import WrongAnswerError, check_finite, check_terminal, limit_memory, reset_peak, status_mb

NODE = Path(__file__).with_name('fuzz_node.py')
PROBE_S = 20.0  # time in which a valid input has to be answered
RESEND_S = 0.5  # images are sent best-effort, and one may be lost
PROBE_NS = 7  # nanoseconds of the stamps of valid images
MOST_LOG_LINES = 60  # of one example


class RunningNode:
    """The node, and a robot that talks to it. It is replaced once it has ended.

    Args:
        parameters: Of the node, name:=value.
        memory_mb: Memory that its process may take beyond that at its start.
    """

    def __init__(self, *parameters: str, memory_mb: int) -> None:
        sys.path[:0] = [str(ROOT / 'test' / 'ros' / 'support'), str(ROOT / 'test' / 'support')]
        os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        self._parameters = parameters
        self._memory_mb = memory_mb
        self.is_compressed = 'image_transport:=compressed' in parameters
        self.robot: Any = None
        self.node: Any = None
        self._expected: Any = None
        self._read = 0  # lines of the log that have been judged
        self.stamp = 1000

    def ensure(self) -> None:
        """Start the node unless it runs."""
        if self.node is not None and self.node.process.poll() is None:
            return
        self.stop()
        from robot import Robot
        from ros_domain import reserve_domain

        self._reservation, domain = reserve_domain()
        self.robot = Robot(domain)
        self.node = self.robot.start(
            'instruction:=the red and the green thing', 'depth_timeout_s:=1.0', *self._parameters,
            command=(sys.executable, str(NODE)),
        )  # fmt: skip
        self.robot.wait(lambda: self.node.logged('model '))
        self.robot.wait_until_heard()
        self._expected = None
        self._expected = self.probe()
        limit_memory(self.pid, self._memory_mb)
        self._read = len(self.node.log)

    @property
    def pid(self) -> int:
        """Process id of the node."""
        return self.node.process.pid

    def stop(self) -> None:
        """End the node and the robot."""
        if self.node is not None:
            self.node.process.kill()
            self.node.process.wait()
            self.robot.close()
            self._reservation.close()
            self.node = None

    def begin(self) -> None:
        """Prepare for an example."""
        self.ensure()
        self.robot.results.clear()
        reset_peak(self.pid)

    def resident_mb(self) -> float:
        """Return the node's memory, MB."""
        return status_mb(self.pid, 'VmRSS') if self.node is not None else 0.0

    def peak_mb(self) -> float:
        """Return the node's largest memory since begin(), MB."""
        return status_mb(self.pid, 'VmHWM') if self.node is not None else 0.0

    # Probes

    def probe(self) -> Any:
        """Send a valid image with depth until it is answered; check the answer and return what identifies it."""
        deadline = time.monotonic() + PROBE_S
        while True:
            self.stamp += 1
            stamp = self.stamp
            self.see(stamp)
            found: list[Any] = []

            def is_answered(stamp: int = stamp, found: list[Any] = found) -> bool:
                found[:] = [
                    each for each in self.robot.results if self.is_probe(each) and each.header.stamp.sec == stamp
                ]
                return bool(found) or self.node.process.poll() is not None

            self.robot.wait_or_time_out(is_answered, RESEND_S * 4)
            self.check_alive()
            if found and (found[0].geometry_message == '' or time.monotonic() > deadline):
                break  # depth and camera info are sent best-effort, too
            if time.monotonic() > deadline:
                self.fail(f'a valid image is not answered within {PROBE_S:.0f} s')
        answer = found[0]
        self._check_answer(answer)
        identity = [
            (each.phrase, round(each.score, 4), list(each.mask.counts), each.has_geometry, _position(each))
            for each in answer.instances
        ]
        if len(identity) != 2 or not all(each[3] for each in identity):
            self.fail(
                f'a valid image has {len(identity)} instances; 3D: {answer.geometry_message!r}, {answer.message!r}'
            )
        if self._expected is not None and identity != self._expected:
            self.fail(f'a valid image is answered otherwise than before: {identity} and {self._expected}')
        return identity

    @staticmethod
    def is_probe(answer: Any) -> bool:
        """Return whether a result is about a valid image."""
        return answer.header.stamp.nanosec == PROBE_NS

    def see(self, stamp: int) -> None:
        """Publish the valid picture with its depth and camera info."""
        info, depth = camera_info(), messages.image_message('16UC1', is_depth=True)
        image = messages.image_message('png' if self.is_compressed else 'rgb8')
        for message in (info, depth, image):
            message.header.stamp.sec, message.header.stamp.nanosec = stamp, PROBE_NS
        self.robot._info.publish(info)
        self.robot._depth.publish(depth)
        (self.robot._compressed if self.is_compressed else self.robot._image).publish(image)

    def check(self) -> None:
        """Check what the node has said and published during an example."""
        self.check_alive()
        for answer in list(self.robot.results):
            self._check_answer(answer)
        self.check_log()

    def check_alive(self) -> None:
        """Fail if the node has ended."""
        if self.node.process.poll() is not None:
            self.fail(f'the node has ended with {self.node.process.returncode}')

    def check_log(self) -> None:
        """Check the new lines of the log: no traceback, no control characters, not a flood."""
        lines = self.node.log[self._read :]
        self._read = len(self.node.log)
        text = '\n'.join(lines)
        if 'Traceback (most recent call last)' in text:
            frames = re.findall(r'File "[^"]*?/(?:instructsam_ros|core)/([\w/]+\.py)", line \d+, in (\w+)', text)
            raise WrongAnswerError(f'a traceback in the log, in {frames[-1:]}:\n{text[-3000:]}')
        check_terminal(text)
        if len(lines) > MOST_LOG_LINES or len(text) > 400 * MOST_LOG_LINES:
            raise WrongAnswerError(f'{len(lines)} lines, {len(text)} letters in the log: {text[:1000]}')

    def fail(self, reason: str) -> None:
        """Raise WrongAnswerError with the end of the log; the node is replaced."""
        log = '\n'.join(self.node.log[-40:])
        self.node.process.kill()
        self.node.process.wait()
        raise WrongAnswerError(f'{reason}\n{log}')

    @staticmethod
    def _check_answer(answer: Any) -> None:
        """Check what holds of any result."""
        check_finite(messages.to_tree(answer))
        if answer.status == answer.STATUS_ERROR and not answer.message:
            raise WrongAnswerError('an error without a message')
        if (answer.status == answer.STATUS_OK) != bool(answer.instances):
            raise WrongAnswerError(f'status {answer.status} with {len(answer.instances)} instances')
        for each in answer.instances:
            if sum(each.mask.counts) != answer.height * answer.width:
                raise WrongAnswerError('a mask that is not of the size of the image')


class NodeTarget:
    """Base of targets whose code under test is the node of the latest example, `_node`."""

    _node: RunningNode

    def resident_mb(self) -> float:
        """Return the memory of the node, MB."""
        return self._node.resident_mb()

    def peak_mb(self) -> float:
        """Return the largest memory of the node since the example began, MB."""
        return self._node.peak_mb()


def camera_info() -> Any:
    """Return the valid camera info of the picture."""
    from sensor_msgs.msg import CameraInfo

    height, width = pictures.HEIGHT, pictures.WIDTH
    k = [60.0, 0.0, (width - 1) / 2, 0.0, 60.0, (height - 1) / 2, 0.0, 0.0, 1.0]
    p = [60.0, 0.0, (width - 1) / 2, 0.0, 0.0, 60.0, (height - 1) / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = CameraInfo(height=height, width=width, k=k, p=p, d=[0.0] * 5, distortion_model='plumb_bob')
    info.r = np.eye(3).ravel()
    info.header.frame_id = 'camera_color_optical_frame'
    return info


def _position(instance: Any) -> tuple[float, ...]:
    centroid = instance.geometry.centroid
    return round(centroid.x, 4), round(centroid.y, 4), round(centroid.z, 4)


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `condition()` is true; return whether it is."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True

"""The demo with recordings: the camera is replayed, and the user waits for a result and its overlay on the topics."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import String

from instructsam.core import DEFAULT_MODEL
from instructsam.core.display.table import print_result
from instructsam.core.files.image_file import write_image
from instructsam_ros.bag.recordings import RecordingError, open_recording
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.demo.listener import KEPT_MESSAGES, Stamp, TopicListener, stamp_of
from instructsam_ros.demo.names import IMAGE_TOPIC, NODE, SHOWCASES, Showcase
from instructsam_ros.demo.processes import NoResultError, node_command, run_processes
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos
from instructsam_ros.pipeline.newest import NewestDict


def show_recordings(out: str, recording: Path | None, instruction: str | None, model: str, timeout_s: float) -> None:
    """Ask the node about recordings, print its results and write the overlays side by side.

    Args:
        out: The image file to write.
        recording: The caller's recording; None shows those that ship with the package.
        instruction: What to look for; None uses each showcase's own. Required with `recording`.
        model: Built-in model, folder or hub id.
        timeout_s: Longest time to wait for each result.

    Raises:
        RecordingError: The recording has no images or cannot be read.
        NoResultError: There was no result in time, or the node reported an error.
    """
    showcases = SHOWCASES if recording is None else (Showcase(recording, instruction or ''),)
    overlays = [_show(each.recording, instruction or each.instruction, model, timeout_s) for each in showcases]
    write_image(out, _side_by_side(overlays))
    if model == DEFAULT_MODEL and recording is None:
        print('The built-in model has been trained on rendered tables only, such as the left image. On real images,')
        print('such as the right one, its masks are guesses that a robot must not act on.')
    print(f'overlays from /{NODE}/overlay: {Path(out).resolve()}')


def _show(recording: Path, instruction: str, model: str, timeout_s: float) -> np.ndarray:
    """Ask the node about one recording and print the result; return the overlay [H, W, 3] uint8."""
    with run_processes(_commands(model, recording, _image_topic(recording))) as check:
        domain = os.environ['ROS_DOMAIN_ID']
        print(f'ROS domain {domain}: replay of {recording.name} on {IMAGE_TOPIC}, node /{NODE} with model {model}')
        with _User() as user:
            start = time.monotonic()
            print(f'instruction sent: {instruction}', flush=True)
            result, overlay = user.ask(instruction, timeout_s, check)
    print(f'result received on /{NODE}/instances after {time.monotonic() - start:.1f} s, loading the model included\n')
    print_result(result_from_msg(result))
    return overlay


class _ImageTopic(NamedTuple):
    name: str
    is_compressed: bool


def _image_topic(recording: Path) -> _ImageTopic:
    """Return the recording's first topic of colour images, raw ones first; raise RecordingError if there is none."""
    types = open_recording(recording).types
    for kind in ('Image', 'CompressedImage'):
        for topic, type_name in types.items():
            if type_name == f'sensor_msgs/msg/{kind}' and 'depth' not in topic:
                return _ImageTopic(topic, kind == 'CompressedImage')
    raise RecordingError(f'{recording} has no topic of images')


def _commands(model: str, recording: Path, topic: _ImageTopic) -> dict[str, list[str]]:
    """Return {name: command line} of the child processes."""
    parameters = {'model': model}
    target = IMAGE_TOPIC
    if topic.is_compressed:
        parameters['image_transport'] = 'compressed'
        target += '/compressed'
    replay = [sys.executable, '-m', 'instructsam_ros.simulation.replay_node', str(recording), '--loop', '--ros-args']
    # What a recording has on these topics is of another user and of other nodes.
    remappings = [f'{topic.name}:={target}', *(f'/{name}:=/recorded/{name}' for name in ('instruction', 'diagnostics'))]
    return {
        'perception node': node_command('node.perception_node', parameters, f'image:={IMAGE_TOPIC}', f'__node:={NODE}'),
        'replay': [*replay, *(part for remapping in remappings for part in ('-r', remapping))],
    }


def _side_by_side(images: list[np.ndarray]) -> np.ndarray:
    """Return images [H, W, 3] in a row, scaled to the height of the tallest."""
    height = max(len(image) for image in images)
    return np.hstack(
        [
            cv2.resize(image, (round(image.shape[1] * height / len(image)), height), interpolation=cv2.INTER_CUBIC)
            for image in images
        ]
    )


class _User(TopicListener):
    """Sends an instruction and receives results and overlays."""

    def __init__(self) -> None:
        super().__init__('instructsam_demo')
        self._results: NewestDict[Stamp, Any] = NewestDict(KEPT_MESSAGES)
        self._overlays: NewestDict[Stamp, np.ndarray] = NewestDict(KEPT_MESSAGES)
        self._node.create_subscription(InstanceArray, f'/{NODE}/instances', self._on_result, 10)
        self._node.create_subscription(Image, f'/{NODE}/overlay', self._on_overlay, 10)
        self._instruction = self._node.create_publisher(String, 'instruction', qos.LATCHED)

    def ask(self, instruction: str, timeout_s: float, check: Callable[[], object]) -> tuple[Any, np.ndarray]:
        """Send `instruction`; return the InstanceArray and the overlay [H, W, 3] uint8 of one image.

        Args:
            instruction: What to look for.
            timeout_s: Longest time to wait for both.
            check: Called repeatedly; raises if waiting is pointless.

        Raises:
            NoResultError: The time limit has passed, or the node reported an error.
        """
        self._instruction.publish(String(data=instruction))
        deadline_s = time.monotonic() + timeout_s
        self.wait_for(self._complete_stamps, check, deadline_s, f'no result within {timeout_s:g} s')
        stamp = self._complete_stamps().pop()
        return self._results[stamp], self._overlays[stamp]

    def _complete_stamps(self) -> set[Stamp]:
        return self._results.keys() & self._overlays.keys()

    def _on_result(self, message: Any) -> None:
        if message.status == InstanceArray.STATUS_ERROR:
            raise NoResultError(f'the node reports: {message.message}')
        self._results[stamp_of(message)] = message

    def _on_overlay(self, message: Image) -> None:
        self._overlays[stamp_of(message)] = to_rgb(message)

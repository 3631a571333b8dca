"""The demo with recordings: the camera is replayed; the user asks, and waits for results and overlays on the topics."""

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
    """Ask the node about recordings, print its results and write the overlays, a row for each recording.

    Args:
        out: The image file to write.
        recording: The caller's recording; None shows those that ship with the package.
        instruction: What to look for; None asks each showcase's own. Required with `recording`.
        model: Built-in model, folder or hub id.
        timeout_s: Longest time to wait for each result.

    Raises:
        RecordingError: The recording has no images or cannot be read.
        NoResultError: There was no result in time, or the node reported an error.
    """
    showcases = SHOWCASES if recording is None else (Showcase(recording, ()),)
    if instruction:
        showcases = tuple(each._replace(instructions=(instruction,)) for each in showcases)
    write_image(out, _grid([_show(each, model, timeout_s) for each in showcases]))
    if model == DEFAULT_MODEL and recording is None:
        print('The built-in model has been trained on rendered tables only, such as the upper images. On real images,')
        print('such as the lower ones, its masks are guesses that a robot must not act on.')
    print(f'overlays from /{NODE}/overlay: {Path(out).resolve()}')


def _show(showcase: Showcase, model: str, timeout_s: float) -> list[np.ndarray]:
    """Ask the node about one recording and print the results; return the overlays, each [H, W, 3] uint8."""
    recording, overlays = showcase.recording, []
    with run_processes(_commands(model, recording, _image_topic(recording))) as check:
        domain = os.environ['ROS_DOMAIN_ID']
        print(f'\nROS domain {domain}: replay of {recording.name} on {IMAGE_TOPIC}, node /{NODE} with model {model}')
        with _User() as user:
            for instruction in showcase.instructions:
                start = time.monotonic()
                print(f'\ninstruction sent: {instruction}', flush=True)
                result, overlay = user.ask(instruction, timeout_s, check)
                loading = '' if overlays else ', loading the model included'
                print(f'result received on /{NODE}/instances after {time.monotonic() - start:.1f} s{loading}\n')
                print_result(result_from_msg(result))
                overlays.append(overlay)
    return overlays


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


def _grid(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Return rows of images [H, W, 3], those of a row of equal size, below each other; scaled to the widest row."""
    joined = [np.hstack(row) for row in rows]
    width = max(row.shape[1] for row in joined)
    return np.vstack(
        [
            cv2.resize(row, (width, round(len(row) * width / row.shape[1])), interpolation=cv2.INTER_CUBIC)
            for row in joined
        ]
    )


class _User(TopicListener):
    """Sends instructions and receives results and overlays."""

    def __init__(self) -> None:
        super().__init__('instructsam_demo')
        self._asked = ''
        self._has_changed = False  # there was another instruction before
        self._results: NewestDict[Stamp, Any] = NewestDict(KEPT_MESSAGES)
        self._overlays: NewestDict[Stamp, np.ndarray] = NewestDict(KEPT_MESSAGES)
        self._node.create_subscription(InstanceArray, f'/{NODE}/instances', self._on_result, 10)
        self._node.create_subscription(Image, f'/{NODE}/overlay', self._on_overlay, 10)
        self._instruction = self._node.create_publisher(String, 'instruction', qos.LATCHED)

    def ask(self, instruction: str, timeout_s: float, check: Callable[[], object]) -> tuple[Any, np.ndarray]:
        """Send `instruction`; return its InstanceArray and overlay [H, W, 3] uint8 of one image.

        Args:
            instruction: What to look for.
            timeout_s: Longest time to wait for both.
            check: Called repeatedly; raises if waiting is pointless.

        Raises:
            NoResultError: The time limit has passed, or the node reported an error.
        """
        self._has_changed, self._asked = bool(self._asked), instruction
        self._results.clear()
        self._overlays.clear()
        self._instruction.publish(String(data=instruction))
        deadline_s = time.monotonic() + timeout_s
        self.wait_for(self._complete_stamps, check, deadline_s, f'no result within {timeout_s:g} s')
        stamp = self._complete_stamps().pop()
        return self._results[stamp], self._overlays[stamp]

    def _complete_stamps(self) -> set[Stamp]:
        # The first image may have been answered for the previous instruction, too, and its overlay be of that answer.
        stamps = list(self._results)[1:] if self._has_changed else self._results
        return self._overlays.keys() & stamps

    def _on_result(self, message: Any) -> None:
        if message.status == InstanceArray.STATUS_ERROR:
            raise NoResultError(f'the node reports: {message.message}')
        if message.instruction == self._asked:
            self._results[stamp_of(message)] = message

    def _on_overlay(self, message: Image) -> None:
        self._overlays[stamp_of(message)] = to_rgb(message)

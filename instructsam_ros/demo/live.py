"""`instructsam demo --live`: a simulated RGB-D camera, the perception node and a user who would grasp, three processes.

From an instruction to masks, to 3D, to where a gripper might close. What the camera sees is simulated, so the truth is
known: the table tells which object each instance is, and how far off its center was found.
"""

import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import Future

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sensor_msgs.msg import Image
from std_msgs.msg import String

from instructsam.core.display.overlay import draw_overlay
from instructsam.core.rle import Rle, ious
from instructsam.core.spatial.grasping import grasp_candidates
from instructsam_ros.client import Perception, PerceptionError
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.demo.command import NODE
from instructsam_ros.demo.listener import Listener, keep
from instructsam_ros.demo.processes import NoResultError, node_command, running
from instructsam_ros.node import qos

CAMERA = 'simulated_camera'
RATE_HZ = 5.0
WHOLE = 0.95  # of an object, seen
SAME_IOU = 0.5  # of an instance and an object that it is then taken for
FINGER_M = 0.05  # length of a drawn finger
INK, PAPER = (0, 0, 0), (255, 255, 255)


def show(seed, instruction, model, timeout_s):
    """Asks about the table of that seed and prints what comes of it; the picture [H, W, 3] uint8 with masks and grasps.

    instruction: None names an object of which there is one. Raises NoResultError.
    """
    commands = {
        'simulated camera': node_command(f'simulation.{CAMERA}', {'seed': seed, 'rate_hz': RATE_HZ}),
        'perception node': node_command('node.perception_node', {'model': model}, f'__node:={NODE}'),
    }
    deadline = time.monotonic() + timeout_s
    with running(commands) as check, _Observer(check, deadline) as observer, Perception(NODE) as perception:
        domain = os.environ['ROS_DOMAIN_ID']
        print(f'ROS domain {domain}: /{CAMERA} with table {seed}, node /{NODE} with model {model}', flush=True)
        observer.wait(lambda: observer.truth and observer.is_ready, 'no node that is ready')
        objects = observer.truth['objects']
        instruction = instruction or f'the {_name(_singled_out(objects))}'
        print(f'instruction sent: {instruction}', flush=True)
        start = time.monotonic()
        asked = _in_background(perception.find, instruction, max(0.1, deadline - start), freshness='next')
        observer.wait(asked.done, 'no answer', grace_s=10)  # the node's own refusal says more, and comes first
        try:
            found = asked.result()
        except PerceptionError as error:
            raise NoResultError(str(error)) from error
        print(f'answer of /{NODE}/segment after {time.monotonic() - start:.1f} s\n')
        stamp = found.message.header.stamp
        observer.wait(lambda: (stamp.sec, stamp.nanosec) in observer.images, 'no image of the answer')
        image, k = observer.images[stamp.sec, stamp.nanosec], np.array(observer.truth['intrinsics'])
    grasps = [next(iter(grasp_candidates(each)), None) if each.center is not None else None for each in found]
    _print(instruction, found, grasps, objects)
    picture = draw_overlay(image, result_from_msg(found.message))
    for grasp in filter(None, grasps):
        _draw_grasp(picture, grasp, k)
    return picture


def _name(item):
    return f'{item["color"]} {item["category"]}'


def _singled_out(objects):
    """The object of the truth that is nearest to the optical axis, of those seen as a whole whose name no other has."""
    names = Counter(map(_name, objects))

    def rank(item):
        x, y, z = item['camera_m']
        return names[_name(item)] > 1, item['visible'] < WHOLE, np.hypot(x, y) / z

    return min(objects, key=rank)


def _in_background(function, *args, **kwargs):
    """The Future of a call in a thread that does not keep the process from ending."""
    future = Future()

    def call():
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _print(instruction, found, grasps, objects):
    console = Console(highlight=False)
    if found:
        console.print(_table(instruction, found, grasps, objects))
    else:
        console.print(Text(f'no target: nothing matches {instruction!r}'), soft_wrap=True)
    for why in dict.fromkeys(
        filter(None, (found.message.geometry_message, *(each.geometry_message for each in found)))
    ):
        console.print(Text(f'not measured: {why}'), soft_wrap=True)
    if found.message.message:
        console.print(Text(f'WARNING: {found.message.message}', style='bold yellow'))


def _table(instruction, found, grasps, objects):
    title = f'{instruction} (mm in {found.frame_id})' if found.frame_id else instruction
    table = Table(title=Text(title), title_justify='left', box=box.SIMPLE_HEAD)  # fits a line of 80 characters
    for name in ('score', 'phrase', 'center', 'it is', 'off', 'grasp', 'width'):
        table.add_column(name, justify='left' if name in ('phrase', 'it is') else 'right', overflow='fold')
    truths = [Rle.from_coco(item['mask']) for item in objects]
    overlap = ious([Rle.encode(each.mask) for each in found], truths)
    for each, grasp, row in zip(found, grasps, overlap, strict=True):
        item = objects[row.argmax()] if row.max() > SAME_IOU else None
        is_measured = item is not None and each.center is not None
        table.add_row(
            f'{each.score:.2f}',
            Text(each.phrase),
            _millimetres(each.center),
            _name(item) if item else '-',
            f'{1e3 * np.linalg.norm(each.center - item["camera_m"]):.0f}' if is_measured else '-',
            _millimetres(grasp.position if grasp else None),
            f'{1e3 * grasp.width_m:.0f}' if grasp else '-',
        )
    return table


def _millimetres(values):
    return '-' if values is None else ' '.join(f'{1e3 * value:.0f}' for value in values)


def _draw_grasp(picture, grasp, k):
    """Two fingers and what joins them, as they close. k: [3, 3] px."""
    tips = grasp.position + np.outer([-0.5, 0.5], grasp.width_m * grasp.rotation[:, 0])
    ends = tips - FINGER_M * grasp.rotation[:, 2]
    line = np.array([tips[0], ends[0], ends[1], tips[1]]) @ k.T
    if (line[:, 2] <= 0).any():  # behind the camera
        return
    pixels = np.round(line[:, :2] / line[:, 2:]).astype(np.int32)
    for color, width in ((INK, 5), (PAPER, 2)):
        cv2.polylines(picture, [pixels], False, color, width, cv2.LINE_AA)


class _Observer(Listener):
    """Hears what the two others say: the truth, the images, and how the node is."""

    def __init__(self, check, deadline_s):
        """check: called now and then, raises where waiting is in vain."""
        super().__init__('instructsam_live_demo')
        self.truth = None
        self.images = {}  # stamp -> [H, W, 3] uint8
        self.is_ready = False  # the node is active and receives images
        self._check, self._deadline_s = check, deadline_s
        self._node.create_subscription(String, f'/{CAMERA}/truth', self._on_truth, qos.LATCHED)
        self._node.create_subscription(Image, '/image', self._on_image, 5)

    def wait(self, condition, otherwise, grace_s=0.0):
        """Until `condition()`. Raises NoResultError that begins with `otherwise` when the time is over."""
        self.wait_for(condition, self._check, self._deadline_s + grace_s, f'{otherwise} in time.')

    def _on_truth(self, message):
        self.truth = json.loads(message.data)

    def _on_image(self, message):
        keep(self.images, message.header.stamp, to_rgb(message))

    def _on_diagnostics(self, message):
        super()._on_diagnostics(message)
        for status in message.status:
            told = {value.key: value.value for value in status.values}
            self.is_ready = told.get('state') == 'active' and int(told['frames_in']) > 0

"""The demo with a simulated RGB-D camera: from an instruction to masks, to 3D and to grasp candidates.

The ground truth of a simulated table is known: the printed table names the object that each instance covers and the
error of its center.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sensor_msgs.msg import Image
from std_msgs.msg import String

from instructsam.core.display.overlay import draw_overlay
from instructsam.core.files.image_file import write_image
from instructsam.core.rle import Rle, ious
from instructsam.core.spatial.grasping import Grasp, GraspResult, find_grasps, points_of_others
from instructsam_ros.client import Detections, Instance, Perception, PerceptionError
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import result_from_msg
from instructsam_ros.demo.listener import KEPT_MESSAGES, Stamp, TopicListener, stamp_of
from instructsam_ros.demo.names import NODE, SIMULATED_CAMERA
from instructsam_ros.demo.processes import NoResultError, node_command, run_processes
from instructsam_ros.node import qos
from instructsam_ros.pipeline.newest import NewestDict

RATE_HZ = 5.0
FULLY_VISIBLE = 0.95  # least visible share of an object that counts as fully visible
MATCH_IOU = 0.5  # least mask IoU of an instance and the object that it is matched to
FINGER_M = 0.05  # length of a drawn finger
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def show_live(out: str, seed: int, instruction: str | None, model: str, timeout_s: float) -> None:
    """Ask the node about a simulated table, print the result and write the image with masks and grasps.

    Args:
        out: The image file to write.
        seed: Seed of the table.
        instruction: What to look for; None names an object that is unique on the table.
        model: Built-in model, folder or hub id.
        timeout_s: Longest time to wait for the result.

    Raises:
        NoResultError: There was no result in time, or the node reported an error.
    """
    commands = {
        'simulated camera': node_command(f'simulation.{SIMULATED_CAMERA}', {'seed': seed, 'rate_hz': RATE_HZ}),
        'perception node': node_command('node.perception_node', {'model': model}, f'__node:={NODE}'),
    }
    deadline_s = time.monotonic() + timeout_s
    with (
        run_processes(commands) as check,
        _Observer(check, deadline_s) as observer,
        Perception(NODE) as perception,
    ):
        domain = os.environ['ROS_DOMAIN_ID']
        print(
            f'ROS domain {domain}: /{SIMULATED_CAMERA} with table {seed}, node /{NODE} with model {model}', flush=True
        )
        observer.wait(lambda: observer.ground_truth and observer.is_ready, 'the node was not ready')
        objects = observer.ground_truth['objects']
        instruction = instruction or f'the {_name(_most_distinct(objects))}'
        print(f'instruction sent: {instruction}', flush=True)
        detections = _find(perception, observer, instruction, deadline_s)
        stamp = stamp_of(detections.message)
        observer.wait(lambda: stamp in observer.images, 'the image of the answer did not arrive')
        image, intrinsics = observer.images[stamp], np.array(observer.ground_truth['intrinsics'])
    found = [_find_grasps(each, detections) for each in detections]
    _print_result(instruction, detections, found, objects)
    overlay = draw_overlay(image, result_from_msg(detections.message))
    for grasps in found:
        for grasp in grasps.candidates[:1]:
            _draw_grasp(overlay, grasp, intrinsics)
    write_image(out, overlay)
    print(f'masks and grasp candidates: {Path(out).resolve()}')


def _find(perception: Perception, observer: '_Observer', instruction: str, deadline_s: float) -> Detections:
    """Return the answer on the next image, while the observer watches the processes and the node's diagnostics."""
    start = time.monotonic()
    answer = _in_background(lambda: perception.find(instruction, max(0.1, deadline_s - start), freshness='next'))
    # The grace period lets the node's own error, which says more, arrive first.
    observer.wait(answer.done, 'no answer', grace_s=10)
    try:
        detections = answer.result()
    except PerceptionError as error:
        raise NoResultError(str(error)) from error
    print(f'answer of /{NODE}/segment after {time.monotonic() - start:.1f} s\n')
    return detections


def _in_background(function: Callable[[], Detections]) -> 'Future[Detections]':
    """Call `function` in a daemon thread, which does not keep the process from ending."""
    future: Future[Detections] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _name(item: dict[str, Any]) -> str:
    return f'{item["color"]} {item["category"]}'


def _most_distinct(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fully visible, uniquely named object nearest to the optical axis."""
    names = Counter(map(_name, objects))

    def rank(item: dict[str, Any]) -> tuple[bool, bool, float]:
        x, y, z = item['camera_m']
        return names[_name(item)] > 1, item['visible'] < FULLY_VISIBLE, np.hypot(x, y) / z

    return min(objects, key=rank)


def _find_grasps(instance: Instance, detections: Detections) -> GraspResult:
    """Return the best grasp that keeps clear of the other objects of the answer."""
    if instance.center is None:
        return GraspResult([])
    return find_grasps(instance, limit=1, around=points_of_others(detections, instance))


def _print_result(
    instruction: str, detections: Detections, grasps: list[GraspResult], objects: list[dict[str, Any]]
) -> None:
    console = Console(highlight=False)
    if detections:
        console.print(_table(instruction, detections, grasps, objects))
    else:
        console.print(Text(f'no target: nothing matches {instruction!r}'), soft_wrap=True)
    reasons = (detections.message.geometry_message, *(each.geometry_message for each in detections))
    for reason in dict.fromkeys(filter(None, reasons)):
        console.print(Text(f'not measured: {reason}'), soft_wrap=True)
    for each, found in zip(detections, grasps, strict=True):
        if found.reason:
            console.print(Text(f'not graspable: {each.phrase}: {found.reason}'), soft_wrap=True)
    if detections.message.message:
        console.print(Text(f'WARNING: {detections.message.message}', style='bold yellow'))


def _table(instruction: str, detections: Detections, grasps: list[GraspResult], objects: list[dict[str, Any]]) -> Table:
    title = f'{instruction} (mm in {detections.frame_id})' if detections.frame_id else instruction
    table = Table(title=Text(title), title_justify='left', box=box.SIMPLE_HEAD)  # fits into 80 characters
    for name in ('score', 'phrase', 'center', 'it is', 'off', 'grasp', 'width'):
        table.add_column(name, justify='left' if name in ('phrase', 'it is') else 'right', overflow='fold')
    ground_truth = [Rle.from_coco(item['mask']) for item in objects]
    overlaps = ious([Rle.encode(each.mask) for each in detections], ground_truth)
    for each, found, overlap in zip(detections, grasps, overlaps, strict=True):
        grasp = next(iter(found.candidates), None)
        item = objects[overlap.argmax()] if overlap.max() > MATCH_IOU else None
        error_m = None if item is None or each.center is None else np.linalg.norm(each.center - item['camera_m'])
        table.add_row(
            f'{each.score:.2f}',
            Text(each.phrase),
            _millimetres(each.center),
            _name(item) if item else '-',
            '-' if error_m is None else f'{1e3 * error_m:.0f}',
            _millimetres(grasp.position if grasp else None),
            f'{1e3 * grasp.width_m:.0f}' if grasp else '-',
        )
    return table


def _millimetres(position: np.ndarray | None) -> str:
    return '-' if position is None else ' '.join(f'{1e3 * value:.0f}' for value in position)


def _draw_grasp(image: np.ndarray, grasp: Grasp, intrinsics: np.ndarray) -> None:
    """Draw the two closing fingers and the line between them into `image`; intrinsics: K [3, 3] px."""
    tips = grasp.position + np.outer([-0.5, 0.5], grasp.width_m * grasp.rotation[:, 0])
    ends = tips - FINGER_M * grasp.rotation[:, 2]
    line = np.array([tips[0], ends[0], ends[1], tips[1]]) @ intrinsics.T
    if (line[:, 2] <= 0).any():  # behind the camera
        return
    pixels = np.round(line[:, :2] / line[:, 2:]).astype(np.int32)
    for color, width in ((BLACK, 5), (WHITE, 2)):
        cv2.polylines(image, [pixels], False, color, width, cv2.LINE_AA)


class _Observer(TopicListener):
    """Receives the simulated camera's ground truth and images, and the node's diagnostics.

    Args:
        check: Called repeatedly while it waits; raises if waiting is pointless.
        deadline_s: Latest time of every wait, as of time.monotonic().
    """

    def __init__(self, check: Callable[[], object], deadline_s: float) -> None:
        super().__init__('instructsam_live_demo')
        self.ground_truth: dict[str, Any] = {}
        self.images: NewestDict[Stamp, np.ndarray] = NewestDict(KEPT_MESSAGES)  # [H, W, 3] uint8
        self.is_ready = False  # the node is active and receives images
        self._check, self._deadline_s = check, deadline_s
        self._node.create_subscription(String, f'/{SIMULATED_CAMERA}/truth', self._on_truth, qos.LATCHED)
        self._node.create_subscription(Image, '/image', self._on_image, 5)

    def wait(self, condition: Callable[[], object], reason: str, grace_s: float = 0.0) -> None:
        """Wait until `condition()`; raise NoResultError that begins with `reason` after the deadline and grace_s."""
        self.wait_for(condition, self._check, self._deadline_s + grace_s, f'{reason} in time')

    def _on_truth(self, message: String) -> None:
        self.ground_truth = json.loads(message.data)

    def _on_image(self, message: Image) -> None:
        self.images[stamp_of(message)] = to_rgb(message)

    def _on_diagnostics(self, message: Any) -> None:
        super()._on_diagnostics(message)
        for status in message.status:
            values = {value.key: value.value for value in status.values}
            self.is_ready = values.get('state') == 'active' and int(values['frames_in']) > 0

"""A running node as the source of answers: about the newest image of its camera, or about an image of the user."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from instructsam.core.errors import InstructSAMError
from instructsam.core.web.scene import Scene, located_objects
from instructsam.core.web.source import Answer, Cancelled, Question
from instructsam_ros.client import Detections, Perception, PerceptionError
from instructsam_ros.conversions.images import to_rgb
from instructsam_ros.conversions.instances import image_msg, result_from_msg
from instructsam_ros.conversions.stamps import is_set
from instructsam_ros.web.camera_images import CameraImages

PATIENCE_S = 5.0  # time that the node has to be discovered
TRIES = 3  # attempts with the newest image, if the node no longer has the one that was asked about
FRAME_ID = 'instructsam_web'  # frame_id of images of the user, which belong to no camera


class NodeSource:
    """Asks a perception node through the Python client.

    Args:
        node: Name of the node, including its namespace.
        camera: Name of the camera, if the node has several; '' is the first.
        topic: Topic of the camera's images; '': found among the subscriptions of the node.
        timeout_s: Longest time until an answer.

    Raises:
        InstructSAMError: There is no such node.
    """

    has_camera = True
    takes_depth = False

    def __init__(self, node: str, camera: str = '', topic: str = '', timeout_s: float = 60.0) -> None:
        self.name = f'/{node.strip("/")}'
        self._camera = camera
        self._timeout_s = timeout_s
        self._images = CameraImages(node, camera, topic, PATIENCE_S)
        self._perception = Perception(node)

    def answer(self, question: Question, cancelled: Cancelled) -> Answer:
        """See `core.web.source.Source`.

        About the camera, the question names the stamp of the image that the page has, so that the masks are shown on
        the image that they belong to.
        """
        start_s = time.monotonic()
        for tries_left in reversed(range(TRIES)):
            message, asked = self._asked(question)
            try:
                detections = self._perception.find(
                    question.instruction,
                    self._timeout_s,
                    score_threshold=question.threshold,
                    camera=self._camera,
                    cancelled=cancelled,
                    **asked,
                )
                break
            except PerceptionError as error:  # the node keeps few images, and a question may take a while to reach it
                if not tries_left or 'freshness' not in asked or 'is buffered' not in str(error):
                    raise
        return _answer(message, detections, time.monotonic() - start_s)

    def _asked(self, question: Question) -> tuple[Image | CompressedImage, dict[str, Any]]:
        """Return the image that the question is about, and the client's arguments for it."""
        if question.image is not None:
            message = image_msg(question.image, Header(frame_id=FRAME_ID))
            return message, {'image': message}
        message = self._images.newest()
        stamp = message.header.stamp
        return message, {'freshness': stamp} if is_set(stamp) else {'image': message}

    def newest_image(self) -> np.ndarray | None:
        """Return the newest image of the camera, [H, W, 3] uint8 RGB; None if there is none that can be shown."""
        with suppress(InstructSAMError):  # a question says why
            return to_rgb(self._images.newest())
        return None

    def close(self) -> None:
        """Leave ROS."""
        self._perception.close()
        self._images.close()


def _answer(message: Image | CompressedImage, detections: Detections, waited_s: float) -> Answer:
    image, result = to_rgb(message), result_from_msg(detections.message)
    if message.header != detections.message.header or image.shape[:2] != (result.height, result.width):
        theirs = detections.message.header.frame_id
        raise InstructSAMError(
            f"the answer is about another image ({result.width} x {result.height} px, frame '{theirs}') than that of "
            f"the page ({image.shape[1]} x {image.shape[0]} px, frame '{message.header.frame_id}'): give --camera and "
            '--image-topic of one camera'
        )
    instances = zip(result.instances, detections, strict=True)
    explained = tuple(replace(mine, geometry_message=theirs.geometry_message) for mine, theirs in instances)
    objects = located_objects(detections.instances)
    scene = None
    if objects:
        frame, nothing = detections.frame_id, np.zeros((0, 3), np.float32)
        scene = Scene(objects, frame, is_optical='optical' in frame, points=nothing, colors=nothing.astype(np.uint8))
    note = f'{1000 * waited_s:.0f} ms with waiting and transport'
    return Answer(image, replace(result, instances=explained), scene, note)

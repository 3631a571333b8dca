"""`instructsam-simulated-camera`: an RGB-D camera in front of a rendered table, with ground truth.

    image            sensor_msgs/Image rgb8
    depth            sensor_msgs/Image 16UC1: mm along the optical axis, aligned to `image`, of the same stamp
    camera_info      intrinsics of both, of the same stamp
    /tf              the camera's optical frame (REP 103) in `world`, where tf2_msgs is installed
    ~/pose           the same pose as geometry_msgs/PoseStamped
    ~/truth          std_msgs/String, latched, JSON: the table as of the stamp in it (see `ground_truth`)
    ~/reset          srv/ResetScene: shows another table

A still scene is rendered once and published repeatedly, a moving one is rendered for every image. If rendering takes
longer than the rate allows, images are published as fast as they are rendered, and a warning is logged.
"""

import argparse
import importlib
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, PoseStamped, Transform, TransformStamped, Vector3

# Humble has no rclpy.clock_type.
from rclpy.clock import Clock, ClockType  # pyright: ignore[reportPrivateImportUsage]
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time as RosTime
from rclpy.utilities import remove_ros_args, try_shutdown
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from instructsam.core.text import one_line
from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.records import scene_facts
from instructsam.train.tabletop.scenes.motion import Motion
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.scene import Scene, photograph_objects, stage_scene
from instructsam.train.tabletop.world.splits import generator
from instructsam_ros.conversions.instances import depth_msg, image_msg
from instructsam_ros.conversions.poses import pose
from instructsam_ros.dds import configure_dds
from instructsam_ros.node import qos, signals
from instructsam_ros.node.guarded_executor import GuardedExecutor, run
from instructsam_ros.node.parameters import AT_START, Parameter, help_text
from instructsam_ros.pipeline.scheduling.error_log import ErrorLog
from instructsam_ros.pipeline.scheduling.statistics import Statistics
from instructsam_ros.srv import ResetScene

WORLD = 'world'
REPORT_S = 10.0  # interval over which the rate is measured
SLOW = 0.9  # share of the requested rate below which a warning is logged
# All are fixed at the start; ~/reset can replace the scene.
PARAMETERS = (
    Parameter('split', 'test', AT_START, 'Split of the first scene: train, val, test or unseen.'),
    Parameter('seed', 0, AT_START, 'Seed of the first scene.', range=(0, 2**32 - 1)),
    Parameter('index', 0, AT_START, 'Index of the first scene, as in `instructsam tabletop generate`.',
              range=(0, 2**32 - 1)),
    Parameter('width', 640, AT_START, 'Width of the images, px.', range=(32, 1920)),
    Parameter('height', 480, AT_START, 'Height of the images, px.', range=(32, 1920)),
    Parameter('rate_hz', 10.0, AT_START, 'Images per second.', range=(0.1, 120.0)),
    Parameter('moving', False, AT_START, 'Whether the camera sways and some objects slide along the table.'),
    Parameter('frame_id', 'camera_color_optical_frame', AT_START, "Name of the camera's optical frame."),
)  # fmt: skip


class TableView:
    """The table in front of the camera, over time.

    Args:
        split: Split of the scene: train, val, test or unseen.
        seed: Seed of the scene.
        index: Index of the scene.
        size: (width, height) of the images, px.
        moving: Whether the camera sways and some objects slide.

    Raises:
        ValueError: There is no such split, seed or index.
    """

    def __init__(self, split: str, seed: int, index: int, size: tuple[int, int], *, moving: bool) -> None:
        self.moving = moving
        self._id = split, seed, index
        objects, self._room, camera = stage_scene(split, index, seed, size)
        self._motion = Motion(seed, objects, self._room, camera, slide=moving, sway=moving)

    def photograph(self, time_s: float) -> Scene:
        """Return what the camera sees at a time since the start."""
        objects, camera = self._motion.at(time_s)
        rng = generator(*self._id, 'sensor')  # the same for every image: one camera, whose settings do not change
        return photograph_objects(objects, self._room, camera, rng, self._id)


class SimulatedCamera(Node):
    """Node `simulated_camera`. Everything, rendering included, runs in the executor's one thread, as OpenGL requires.

    Args:
        kwargs: Those of rclpy's Node.

    Raises:
        ParameterException, ValueError: A parameter cannot be used.
        ImportError, RuntimeError: Nothing can be rendered here; the message says why.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('simulated_camera', **kwargs)
        self.log = ErrorLog(self.get_logger(), Statistics())
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        self._rate_hz, self._moving = self._value('rate_hz'), self._value('moving')
        self._size = self._value('width'), self._value('height')
        self._header = Header(frame_id=self._value('frame_id'))
        if not self._header.frame_id:
            raise ValueError("frame_id is empty: give the camera's optical frame a name")
        view = TableView(
            self._value('split'), self._value('seed'), self._value('index'), self._size, moving=self._moving
        )
        self._camera_publishers = [
            self.create_publisher(kind, topic, qos.CAMERA_OUTPUT)
            for kind, topic in ((Image, 'image'), (Image, 'depth'), (CameraInfo, 'camera_info'))
        ]
        self._pose_publisher = self.create_publisher(PoseStamped, '~/pose', 10)
        self._truth_publisher = self.create_publisher(String, '~/truth', qos.LATCHED)
        self._tf = self._transform_publisher()
        self._sent, self._sent_since_s = 0, time.monotonic()
        self._show(view)
        self.create_service(ResetScene, '~/reset', self._on_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # publish images also while simulated time stands still
        self.create_timer(1 / self._rate_hz, self._on_timer, clock=steady)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _transform_publisher(self) -> '_TransformPublisher | None':
        """Return a publisher on /tf; None if tf2_msgs is not installed."""
        try:
            message_type = importlib.import_module('tf2_msgs.msg').TFMessage
        except ImportError:
            self.get_logger().warning('tf2_msgs is not installed here: the camera pose is on ~/pose, but not on /tf')
            return None
        return _TransformPublisher(message_type, self.create_publisher(message_type, '/tf', 100))

    def _show(self, view: TableView) -> Time:
        """Put a table in front of the camera and publish its first image; return the image's stamp."""
        self._view, self._start, self._messages = view, self.get_clock().now(), None
        return self._publish(self._start)

    def _on_reset(self, request: Any, response: Any) -> Any:
        split = request.split or 'test'
        try:
            view = TableView(split, request.seed, request.index, self._size, moving=self._moving)
        except ValueError as error:
            response.success, response.message = False, f'the scene stays as it is: {error}'
            return response
        response.stamp = self._show(view)
        response.success, response.message = True, f'{split} {request.seed} {request.index}'
        self.get_logger().info(f'scene {response.message}')
        return response

    def _on_timer(self) -> None:
        self._publish(self.get_clock().now())
        self._sent += 1
        passed_s = time.monotonic() - self._sent_since_s
        if passed_s > REPORT_S:
            self.log.flush()
            if self._sent < SLOW * self._rate_hz * passed_s:
                self.get_logger().warning(
                    f'{self._sent / passed_s:.1f} images per second instead of {self._rate_hz:g}: rendering is slow, '
                    'set a smaller width and height'
                )
            self._sent, self._sent_since_s = 0, time.monotonic()

    def _publish(self, now: RosTime) -> Time:
        """Publish what the camera sees at the time `now`; return it as a stamp."""
        self._header.stamp = now.to_msg()
        if self._messages is None or self._view.moving:
            scene = self._view.photograph((now - self._start).nanoseconds * 1e-9)
            self._messages = (
                image_msg(scene.rgb, self._header),
                depth_msg(depth_mm(scene.depth), self._header),
                _camera_info(scene.camera, self._header),
            )
            self._optical_pose = pose(scene.camera.position, scene.camera.rotation)
            self._truth_publisher.publish(String(data=json.dumps(ground_truth(scene, self._header))))
        # The pose comes first, because a subscriber that has the image may look it up at once.
        world = Header(stamp=self._header.stamp, frame_id=WORLD)
        self._pose_publisher.publish(PoseStamped(header=world, pose=self._optical_pose))
        if self._tf is not None:
            self._tf.publish(_transform(world, self._header.frame_id, self._optical_pose))
        for publisher, message in zip(self._camera_publishers, self._messages, strict=True):
            message.header = self._header
            publisher.publish(message)
        return self._header.stamp


@dataclass(frozen=True)
class _TransformPublisher:
    message_type: Any  # tf2_msgs.msg.TFMessage, which may not be installed
    publisher: Publisher

    def publish(self, transform: TransformStamped) -> None:
        self.publisher.publish(self.message_type(transforms=[transform]))


def ground_truth(scene: Scene, header: Header) -> dict[str, Any]:
    """Return the ground truth of a scene as plain types.

    These are tabletop.records.scene_facts, among them each object's mask (COCO's run lengths) and `camera_m`, the
    center of its box in the camera's frame, with `stamp` and `frame_id`.
    """
    facts = scene_facts(scene)
    del facts['image'], facts['depth']  # names of files that are not written here
    stamp = {'sec': header.stamp.sec, 'nanosec': header.stamp.nanosec}
    return {**facts, 'stamp': stamp, 'frame_id': header.frame_id}


def _camera_info(camera: Camera, header: Header) -> CameraInfo:
    k = camera.intrinsics
    return CameraInfo(
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel(),
    )


def _transform(world: Header, frame_id: str, optical: Pose) -> TransformStamped:
    translation = Vector3(x=optical.position.x, y=optical.position.y, z=optical.position.z)
    transform = Transform(translation=translation, rotation=optical.orientation)
    return TransformStamped(header=world, child_frame_id=frame_id, transform=transform)


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog='instructsam-simulated-camera',
        description='Publish rendered RGB-D images of a table and their ground truth (ROS 2 node).',
        epilog=f'parameters (--ros-args -p name:=value):\n{help_text(PARAMETERS)}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit code: 2, after one line of text, if it cannot run."""
    caught = signals.catch()
    try:
        _parser().parse_args(remove_ros_args(args if args is not None else sys.argv)[1:])
        configure_dds(publishes_images=True)
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = SimulatedCamera()
    except ImportError as error:
        print(f'instructsam-simulated-camera: {error}, or "instructsam-ros[tabletop]"', file=sys.stderr)
        return 2
    except (ParameterException, NameValidationException, RuntimeError, ValueError) as error:
        print(f'instructsam-simulated-camera: {one_line(error)}', file=sys.stderr)
        return 2
    executor = GuardedExecutor(node.log.report_bug)
    executor.add_node(node)
    code = run('instructsam-simulated-camera', executor, caught)
    executor.shutdown()
    node.destroy_node()
    try_shutdown()
    signals.ignore()
    return code


if __name__ == '__main__':
    sys.exit(main())

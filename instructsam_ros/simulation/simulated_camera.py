"""`instructsam-simulated-camera`: an RGB-D camera before a rendered table of the tabletop world, with the truth.

    image            sensor_msgs/Image rgb8
    depth            sensor_msgs/Image 16UC1: mm along the optical axis, aligned to `image`, of the same stamp
    camera_info      of both, of the same stamp
    /tf              the camera's optical frame (REP 103) in `world`, where tf2_msgs is installed
    ~/pose           the same as geometry_msgs/PoseStamped
    ~/truth          std_msgs/String, latched: what is on the table from the stamp in it on, as JSON (see `truth`)
    ~/reset          srv/ResetScene: another table

A still scene is drawn once and sent again and again, a moving one is drawn for every image. Where that takes longer
than the rate allows, images come as fast as they are drawn, and the log says so.
"""

import argparse
import importlib
import json
import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Transform, TransformStamped, Vector3
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from instructsam.train.tabletop.generate import depth_mm
from instructsam.train.tabletop.records import scene_facts
from instructsam.train.tabletop.scenes.motion import Motion
from instructsam.train.tabletop.scenes.scene import photograph_objects, stage_scene
from instructsam.train.tabletop.world.splits import generator
from instructsam_ros.conversions.instances import depth_msg, image_msg
from instructsam_ros.conversions.poses import pose
from instructsam_ros.node import qos, signals
from instructsam_ros.node.dds import use_large_image_dds_profile
from instructsam_ros.node.parameters import AT_START, Parameter, help_text
from instructsam_ros.srv import ResetScene

WORLD = 'world'
REPORT_S = 10.0  # over which the rate is looked at
SLOW = 0.9  # of the rate that was asked for
# all are fixed at the start, a scene can be replaced by ~/reset
PARAMETERS = (
    Parameter('split', 'test', AT_START, 'Split of the first scene: train, val, test or unseen.'),
    Parameter('seed', 0, AT_START, 'Seed of the first scene.', range=(0, 2**32 - 1)),
    Parameter('index', 0, AT_START, 'Number of the first scene, as in `instructsam tabletop generate`.',
              range=(0, 2**32 - 1)),
    Parameter('width', 640, AT_START, 'Width of the images, px.', range=(32, 1920)),
    Parameter('height', 480, AT_START, 'Height of the images, px.', range=(32, 1920)),
    Parameter('rate_hz', 10.0, AT_START, 'Images a second.', range=(0.1, 120.0)),
    Parameter('moving', False, AT_START, 'Whether the camera sways and some objects slide along the table.'),
    Parameter('frame_id', 'camera_color_optical_frame', AT_START, "Name of the camera's optical frame."),
)  # fmt: skip


class Table:
    """What stands before the camera, over time. Raises ValueError where there is no such split, seed or index."""

    def __init__(self, split, seed, index, size, moving):
        self.moving = moving
        self._name = split, seed, index
        objects, self._room, camera = stage_scene(split, index, seed, size)
        # without objects and sway it is still
        self._motion = Motion(seed, objects, self._room, camera, slide=moving, sway=moving)

    def shot(self, time_s):
        """The scene.Scene that the camera sees, so long after the beginning."""
        objects, camera = self._motion.at(time_s)
        rng = generator(*self._name, 'sensor')  # one camera, whose settings stay
        return photograph_objects(objects, self._room, camera, rng, self._name)


class SimulatedCamera(Node):
    """Node `simulated_camera`. Everything runs in the executor's one thread, drawing, too: OpenGL wants it so."""

    def __init__(self, **kwargs):
        """kwargs: for rclpy's Node.

        Raises ParameterException or ValueError: a parameter cannot be used; ImportError or RuntimeError: nothing can be
        drawn here. The message says why.
        """
        super().__init__('simulated_camera', **kwargs)
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        self._rate_hz, self._moving = self._value('rate_hz'), self._value('moving')
        self._size = self._value('width'), self._value('height')
        self._header = Header(frame_id=self._value('frame_id'))
        if not self._header.frame_id:
            raise ValueError("frame_id is empty: give the camera's optical frame a name")
        table = Table(self._value('split'), self._value('seed'), self._value('index'), self._size, self._moving)
        self._cameras = [
            self.create_publisher(kind, topic, qos.CAMERA_OUTPUT)
            for kind, topic in ((Image, 'image'), (Image, 'depth'), (CameraInfo, 'camera_info'))
        ]
        self._pose = self.create_publisher(PoseStamped, '~/pose', 10)
        self._truth = self.create_publisher(String, '~/truth', qos.LATCHED)
        self._tf_message, self._tf = self._make_tf()
        self._seen, self._seen_since_s = 0, time.monotonic()
        self._show(table)
        self.create_service(ResetScene, '~/reset', self._on_reset)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # images come also while simulated time stands still
        self.create_timer(1 / self._rate_hz, self._on_timer, clock=steady)

    def _value(self, name):
        return self.get_parameter(name).value

    def _make_tf(self):
        """(class of the message, publisher), or (None, None) where tf2_msgs is not installed."""
        try:
            kind = importlib.import_module('tf2_msgs.msg').TFMessage
        except ImportError:
            self.get_logger().warning('tf2_msgs is not installed here: nothing on /tf, the camera is on ~/pose alone')
            return None, None
        return kind, self.create_publisher(kind, '/tf', 100)

    def _show(self, table):
        """Puts `table` before the camera and sends its first image. Returns the image's stamp."""
        self._table, self._start, self._messages = table, self.get_clock().now(), None
        return self._take(self._start)

    def _on_reset(self, request, response):
        split = request.split or 'test'
        try:
            table = Table(split, request.seed, request.index, self._size, self._moving)
        except ValueError as error:
            response.success, response.message = False, f'the scene stays as it is: {error}'
            return response
        response.stamp = self._show(table)
        response.success, response.message = True, f'{split} {request.seed} {request.index}'
        self.get_logger().info(f'scene {response.message}')
        return response

    def _on_timer(self):
        self._take(self.get_clock().now())
        self._seen += 1
        passed_s = time.monotonic() - self._seen_since_s
        if passed_s > REPORT_S:
            if self._seen < SLOW * self._rate_hz * passed_s:
                self.get_logger().warning(
                    f'{self._seen / passed_s:.1f} images a second in place of {self._rate_hz:g}: drawing is slow, '
                    'set a smaller width and height'
                )
            self._seen, self._seen_since_s = 0, time.monotonic()

    def _take(self, now):
        """Sends what the camera sees at the time `now`; returns it as a stamp."""
        self._header.stamp = now.to_msg()
        if self._messages is None or self._table.moving:
            shot = self._table.shot((now - self._start).nanoseconds * 1e-9)
            self._messages = *_images(shot, self._header), _info(shot.camera, self._header)
            self._optical = pose(shot.camera.position, shot.camera.rotation)
            self._truth.publish(String(data=json.dumps(truth(shot, self._header))))
        # the pose first, for who has an image may ask for it at once
        world = Header(stamp=self._header.stamp, frame_id=WORLD)
        self._pose.publish(PoseStamped(header=world, pose=self._optical))
        if self._tf is not None:
            self._tf.publish(self._tf_message(transforms=[_transform(world, self._header.frame_id, self._optical)]))
        for publisher, message in zip(self._cameras, self._messages, strict=True):
            message.header = self._header
            publisher.publish(message)
        return self._header.stamp


def truth(shot, header):
    """What is known about a scene.Scene as plain types: tabletop.records.scene_facts, among them each object's mask
    (COCO's run lengths) and `camera_m`, the middle of its box in the camera's frame, with `stamp` and `frame_id`.
    """
    facts = scene_facts(shot)
    del facts['image'], facts['depth']  # names of files
    stamp = {'sec': header.stamp.sec, 'nanosec': header.stamp.nanosec}
    return {**facts, 'stamp': stamp, 'frame_id': header.frame_id}


def _images(shot, header):
    """Colour and depth of a shot."""
    return image_msg(shot.rgb, header), depth_msg(depth_mm(shot.depth), header)


def _info(camera, header):
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


def _transform(world, frame_id, optical):
    place = Vector3(x=optical.position.x, y=optical.position.y, z=optical.position.z)
    transform = Transform(translation=place, rotation=optical.orientation)
    return TransformStamped(header=world, child_frame_id=frame_id, transform=transform)


def _parser():
    return argparse.ArgumentParser(
        prog='instructsam-simulated-camera',
        description='Publishes rendered RGB-D images of a table, and the truth about them (ROS 2 node).',
        epilog=f'parameters (--ros-args -p name:=value):\n{help_text(PARAMETERS)}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def main(args=None):
    """Runs the node until SIGINT or SIGTERM; returns the process's exit code: 2 with one line where it cannot run."""
    caught = signals.catch()
    try:
        _parser().parse_args(remove_ros_args(args if args is not None else sys.argv)[1:])
        use_large_image_dds_profile()
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = SimulatedCamera()
    except ImportError as error:
        print(f'instructsam-simulated-camera: {error}, or "instructsam-ros[tabletop]"', file=sys.stderr)
        return 2
    except (ParameterException, NameValidationException, RuntimeError, ValueError) as error:
        print(f'instructsam-simulated-camera: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    signals.spin_until(caught, executor)

    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    signals.ignore()
    return 0


if __name__ == '__main__':
    sys.exit(main())

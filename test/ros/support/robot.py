"""A robot for tests and benchmarks that talks to a perception node in another process, over real DDS."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, String

from instructsam_ros.action import Segment
from instructsam_ros.conversions.instances import image_msg
from instructsam_ros.msg import InstanceArray
from instructsam_ros.node import qos
from instructsam_ros.own_node import SpinThread

STANDIN = Path(__file__).parent / 'standin.py'
PATIENCE_S = 60.0  # time that a machine under load may take; reached only by a test that fails


class Node:
    """A node process and its log."""

    def __init__(self, command, env, changed):
        self.log = []
        self.expected = ''  # 'Traceback' if the test provokes one
        self._changed = changed
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace'
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.log.append(line.rstrip())
                self._changed.notify_all()

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def exit_code(self, timeout_s=PATIENCE_S):
        return self.process.wait(timeout_s)

    def logged(self, text):
        return [line for line in self.log if text in line]


class Goal:
    """A goal of the action: the stages so far, and the outcome."""

    def __init__(self, robot):
        self.stages = []
        self._robot = robot
        self.sent = self.response = self.cancel_response = None

    @property
    def handle(self):
        self._robot.wait(lambda: self.sent)
        assert self.sent.accepted
        return self.sent

    def end(self):
        """Wait for the end; return (status, answer), where the status is one of action_msgs/GoalStatus."""
        self._robot.wait(lambda: self.response)
        return self.response.status, self.response.result.answer

    def cancel(self):
        """Request cancellation; return whether the node accepts it."""
        handle = self.handle
        keep = self._robot.keep_in(self, 'cancel_response')
        self._robot.in_executor(lambda: handle.cancel_goal_async().add_done_callback(keep))
        self._robot.wait(lambda: self.cancel_response)
        return bool(self.cancel_response.goals_canceling)


class Robot:
    """Camera, commander and listener in one rclpy node; its executor spins in a thread."""

    def __init__(self, domain_id, name='robot'):
        self.changed = threading.Condition()
        self.results, self.diagnostics, self.views = [], [], []
        self.nodes = []
        self.domain_id = domain_id
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = node = rclpy.create_node(name, context=self._context)
        self._image = node.create_publisher(Image, 'image', 10)
        self._compressed = node.create_publisher(CompressedImage, 'image/compressed', 10)
        self._instruction = node.create_publisher(String, 'instruction', qos.LATCHED)
        self._depth = node.create_publisher(Image, 'depth', 10)
        self._info = node.create_publisher(CameraInfo, 'camera_info', 10)
        self._action = self._compressed_depth = None
        listen = partial(node.create_subscription, qos_profile=100)
        self._listener = listen(InstanceArray, 'perception/instances', self.keep(self.results))
        listen(DiagnosticArray, '/diagnostics', self.keep(self.diagnostics))
        self.frames = 0  # images published so far
        self._clients = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = SpinThread(self._executor)
        self._thread.start()

    def keep(self, messages):
        def keep(message):
            with self.changed:
                messages.append(message)
                self.changed.notify_all()

        return keep

    # Nodes

    def start(self, *parameters, command=(sys.executable, str(STANDIN))):
        """Start the stand-in node with `name:=value` parameters."""
        arguments = [part for parameter in parameters for part in ('--ros-args', '-p', parameter)]
        env = os.environ | {
            'ROS_DOMAIN_ID': str(self.domain_id),
            'PYTHONUNBUFFERED': '1',
            'STANDIN_PARENT': str(os.getpid()),
        }
        node = Node([*command, *arguments], env, self.changed)
        self.nodes.append(node)
        return node

    def start_active(self, *parameters):
        """Start a node and wait until it is connected, see connect()."""
        node = self.start(*parameters)
        self.connect(node)
        return node

    def wait_until_heard(self):
        """Wait until instructions reach the node and its results reach this robot."""
        self.wait(lambda: self._listener.get_publisher_count() and self._instruction.get_subscription_count())

    def connect(self, node, see=None):
        """Wait until images reach `node` as well; sends some by `see` and discards their results."""
        seen = len(node.logged('first image'))
        deadline = time.monotonic() + PATIENCE_S
        while len(node.logged('first image')) == seen:  # best-effort images are lost before discovery
            assert time.monotonic() < deadline, node.log
            assert node.process.poll() is None, node.log
            (see or self.see)()
            self.wait_or_time_out(lambda: len(node.logged('first image')) > seen, 0.05)
        self.wait_until_heard()
        before = None
        while (now := self.status()['frames_in']) != before:  # more may be in transit
            before = now
        self.results.clear()

    # Output

    def see(self, image=None, **fields):
        """Publish one image, grey by default; return its stamp in seconds, which counts up from 1."""
        self.frames += 1
        header = Header(frame_id='camera_color_optical_frame')
        header.stamp.sec = self.frames
        message = image_msg(np.full((48, 64, 3), 128, np.uint8) if image is None else image, header)
        for name, value in fields.items():
            setattr(message, name, value)
        self._image.publish(message)
        return self.frames

    @contextmanager
    def stream(self, image=None, depth=None):
        """Publish images while the block runs, and `depth` with each if it is given.

        `image` returns an image for the number of those before it.
        """
        is_done = threading.Event()

        def publish():
            while not is_done.wait(0.05):
                if depth is not None:
                    self.measure(depth, stamp=self.frames + 1)
                self.see(image and image(self.frames))

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            yield
        finally:
            is_done.set()
            thread.join()

    def measure(self, depth=None, stamp=None, k=None, frame_id=None, info=None, **fields):
        """Publish a depth image, by default a plane 1 m away, and its camera info.

        They have the stamp of the latest image unless a `stamp` is given. `frame_id` and `fields` are those of the
        depth image, `info` those of the camera info.
        """
        depth = np.full((48, 64), 1000, np.uint16) if depth is None else depth
        message = image_msg(depth, Header(frame_id='camera_color_optical_frame'))
        message.encoding = '16UC1' if depth.dtype == np.uint16 else '32FC1'
        message.header.stamp.sec = self.frames if stamp is None else stamp
        for name, value in fields.items():
            setattr(message, name, value)
        height, width = depth.shape
        k = [60.0, 0.0, (width - 1) / 2, 0.0, 60.0, (height - 1) / 2, 0.0, 0.0, 1.0] if k is None else k
        camera_info = CameraInfo(header=copy.deepcopy(message.header), height=height, width=width, k=k)
        for name, value in (info or {}).items():
            setattr(camera_info.header if name == 'frame_id' else camera_info, name, value)
        if frame_id is not None:
            message.header.frame_id = frame_id
        self._info.publish(camera_info)
        self._depth.publish(message)

    def measure_compressed(self, message, stamp):
        """Publish a CompressedImage of depth on depth/compressedDepth, and the camera info of 48 x 64 px."""
        if self._compressed_depth is None:
            self._compressed_depth = self.node.create_publisher(CompressedImage, 'depth/compressedDepth', 10)
        message.header = Header(frame_id='camera_color_optical_frame')
        message.header.stamp.sec = stamp
        k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
        self._info.publish(CameraInfo(header=message.header, height=48, width=64, k=k))
        self._compressed_depth.publish(message)

    def see_compressed(self, data):
        self.frames += 1
        message = CompressedImage(format='jpeg', data=data)
        message.header.stamp.sec = self.frames
        self._compressed.publish(message)
        return self.frames

    def ask(self, instruction, **fields):
        """Send a goal of the action with the given fields of Segment.Goal; return the Goal."""
        if self._action is None:
            self._action = ActionClient(
                self.node,
                Segment,
                '/perception/segment',
                goal_service_qos_profile=qos.ACTION,
                result_service_qos_profile=qos.ACTION,
                cancel_service_qos_profile=qos.ACTION,
                feedback_sub_qos_profile=qos.ACTION,
            )
            self.wait(self._action.server_is_ready)
            deadline = time.monotonic() + PATIENCE_S
            # The first response may be lost, see call(). A goal without an instruction is aborted at once.
            while not self._has_end(self.ask('')):
                assert time.monotonic() < deadline
        goal = Goal(self)
        request = Segment.Goal(instruction=instruction, **fields)

        def on_sent(future):
            self.keep_in(goal, 'sent')(future)
            if goal.sent.accepted:
                goal.sent.get_result_async().add_done_callback(self.keep_in(goal, 'response'))

        keep_stage = self.keep(goal.stages)

        def send():
            sent = self._action.send_goal_async(request, lambda message: keep_stage(message.feedback.stage))
            sent.add_done_callback(on_sent)

        self.in_executor(send)
        return goal

    def _has_end(self, goal):
        return self.wait_or_time_out(lambda: goal.response, 2)

    def keep_in(self, goal, name):
        def keep(future):
            with self.changed:
                setattr(goal, name, future.result())
                self.changed.notify_all()

        return keep

    def say(self, text):
        self._instruction.publish(String(data=text))

    def look_at(self, topic, kind=Image):
        """Subscribe to a topic that the node publishes on demand; its messages arrive in `views`."""
        self.node.create_subscription(kind, topic, self.keep(self.views), 10)
        self.wait(lambda: self.node.count_publishers(topic) == 1)

    # Input

    def wait_or_time_out(self, condition, timeout_s=PATIENCE_S):
        """Wait until `condition()` is true; return whether it is. Checked whenever a message or a log line arrives."""
        deadline = time.monotonic() + timeout_s
        with self.changed:
            while not condition():
                if time.monotonic() > deadline:
                    return False
                self.changed.wait(min(0.1, timeout_s))
        return True

    def wait(self, condition):
        assert self.wait_or_time_out(condition), '\n'.join(line for node in self.nodes for line in node.log)

    def next_result(self):
        """Wait for a result and return the oldest that has not been fetched yet."""
        self.wait(lambda: self.results)
        return self.results.pop(0)

    def result_of(self, stamp):
        """Wait for the result on the image with that stamp and return it; discards older ones."""
        while (result := self.next_result()).header.stamp.sec != stamp:
            assert result.header.stamp.sec < stamp
        return result

    def status(self):
        """Wait for diagnostics; return the values, the level under 'level' and the summary under ''."""
        seen = len(self.diagnostics)
        self.wait(lambda: len(self.diagnostics) > seen)
        status = self.diagnostics[-1].status[0]
        return {value.key: value.value for value in status.values} | {'': status.message, 'level': status.level}

    def see_several(self, count=3):
        """Publish images and wait until the node has received them; return the newest stamp."""
        before = int(self.status()['frames_in'])
        newest = [self.see() for _ in range(count)][-1]
        while int(self.status()['frames_in']) < before + count:
            pass
        return newest

    # Services

    def in_executor(self, send):
        """Call `send` in the executor's thread, soon.

        rclpy registers a request after sending it: sent from another thread, its response could come in between, and
        would be lost.
        """
        self._executor.create_task(send)

    def call(self, service_type, name, request, attempts=3):
        """Call the service /perception/`name` and return its response.

        Repeated if no response arrives: on a machine under load the first response to a new client may be lost, because
        the two ends have not discovered each other yet.
        """
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, f'/perception/{name}')
            self.wait(self._clients[name].service_is_ready)
        for _ in range(attempts):
            answered = threading.Event()
            futures = []

            def send(futures=futures, answered=answered):
                futures.append(self._clients[name].call_async(request))
                futures[0].add_done_callback(lambda _: answered.set())

            self.in_executor(send)
            if answered.wait(PATIENCE_S / attempts):
                return futures[0].result()
        raise AssertionError(f'{name} did not answer')

    def state(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def change_state(self, label):
        """Request the transition of that name; return whether it succeeded."""
        if 'change_state' not in self._clients:
            self.call(ChangeState, 'change_state', self._transition('none'))  # may be repeated, a real one may not
        return self.call(ChangeState, 'change_state', self._transition(label), attempts=1).success

    @staticmethod
    def _transition(label):
        request = ChangeState.Request()
        request.transition.label = label
        return request

    def get(self, name):
        return self.call(GetParameters, 'get_parameters', GetParameters.Request(names=[name])).values[0]

    def set(self, name, value):
        """Set a parameter; return (successful, reason)."""
        parameters = [Parameter(name, value=value).to_parameter_msg()]
        result = self.call(SetParameters, 'set_parameters', SetParameters.Request(parameters=parameters)).results[0]
        return result.successful, result.reason

    def close(self):
        self._thread.stop()
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

"""A robot for tests: it talks to a perception node in another process, over real DDS."""
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

STANDIN = Path(__file__).parent / 'standin.py'
PATIENCE_S = 30.0  # how long a machine under load may take; nothing waits this long when all is well


class Node:
    """A process, its log and its end."""

    def __init__(self, command, env, changed):
        self.log = []
        self.expected = ''  # in the log of a node that is made to fail
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


class Robot:
    """Camera, commander and listener in one rclpy node; its executor spins in a thread."""

    def __init__(self, domain_id):
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import String

        from instructsam_ros.msg import InstanceArray

        self.changed = threading.Condition()
        self.results, self.diagnostics, self.pictures = [], [], []
        self.nodes = []
        self.domain_id = domain_id
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = node = rclpy.create_node('robot', context=self._context)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._image = node.create_publisher(Image, 'image', 10)
        self._compressed = node.create_publisher(CompressedImage, 'image/compressed', 10)
        self._instruction = node.create_publisher(String, 'instruction', latched)
        listen = partial(node.create_subscription, qos_profile=100)
        self._listener = listen(InstanceArray, 'perception/instances', self._keep(self.results))
        listen(DiagnosticArray, '/diagnostics', self._keep(self.diagnostics))
        self._frames = 0
        self._clients = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _keep(self, messages):
        def keep(message):
            with self.changed:
                messages.append(message)
                self.changed.notify_all()

        return keep

    # the node

    def start(self, *parameters, command=(sys.executable, str(STANDIN))):
        """Starts the stand-in node with `name:=value` parameters."""
        arguments = ['--ros-args', *(part for parameter in parameters for part in ('-p', parameter))]
        env = os.environ | {'ROS_DOMAIN_ID': str(self.domain_id), 'PYTHONUNBUFFERED': '1'}
        node = Node([*command, *arguments], env, self.changed)
        self.nodes.append(node)
        return node

    def start_active(self, *parameters):
        """The same, ready to receive images and heard by this one. One image has been sent by then."""
        node = self.start(*parameters)
        self.connect(node)
        return node

    def connect(self, node):
        """Images reach `node` and its results are heard when this returns. Sends at least one image."""
        seen = len(node.logged('first image'))
        deadline = time.monotonic() + PATIENCE_S
        while len(node.logged('first image')) == seen:  # a best-effort image before the match is lost
            assert time.monotonic() < deadline and node.process.poll() is None, node.log
            self.see()
            self.wait_or_time_out(lambda: len(node.logged('first image')) > seen, 0.05)
        self.wait(lambda: self._listener.get_publisher_count() and self._instruction.get_subscription_count())

    # what the robot does

    def see(self, image=None, **fields):
        """Publishes one image, grey by default; returns its stamp in seconds, which counts up from 1."""
        from instructsam_ros.messages import image_msg
        from std_msgs.msg import Header

        self._frames += 1
        header = Header(frame_id='camera_color_optical_frame')
        header.stamp.sec = self._frames
        message = image_msg(np.full((48, 64, 3), 128, np.uint8) if image is None else image, header)
        for name, value in fields.items():
            setattr(message, name, value)
        self._image.publish(message)
        return self._frames

    def see_compressed(self, data):
        from sensor_msgs.msg import CompressedImage

        self._frames += 1
        message = CompressedImage(format='jpeg', data=data)
        message.header.stamp.sec = self._frames
        self._compressed.publish(message)
        return self._frames

    def say(self, text):
        from std_msgs.msg import String

        self._instruction.publish(String(data=text))

    def look_at(self, topic):
        """Subscribes to a picture topic; its images arrive in `pictures`."""
        from sensor_msgs.msg import Image

        self._node.create_subscription(Image, topic, self._keep(self.pictures), 10)
        self.wait(lambda: self._node.count_publishers(topic) == 1)

    # what the robot knows

    def wait_or_time_out(self, condition, timeout_s=PATIENCE_S):
        """Whether `condition()` came true; it is asked whenever a message or a line of a log arrives."""
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
        """The oldest result that was not fetched yet."""
        self.wait(lambda: self.results)
        return self.results.pop(0)

    def status(self):
        """The next diagnostics: its summary under '', its level under 'level', and its values."""
        seen = len(self.diagnostics)
        self.wait(lambda: len(self.diagnostics) > seen)
        status = self.diagnostics[-1].status[0]
        return {value.key: value.value for value in status.values} | {'': status.message, 'level': status.level}

    def see_several(self, count=3):
        """Publishes images and waits until the node has them; returns the newest's stamp."""
        before = int(self.status()['frames_in'])
        newest = [self.see() for _ in range(count)][-1]
        while int(self.status()['frames_in']) < before + count:
            pass
        return newest

    # services

    def call(self, service_type, name, request):
        """The response of /perception/`name`."""
        if name not in self._clients:
            self._clients[name] = self._node.create_client(service_type, f'/perception/{name}')
            self.wait(self._clients[name].service_is_ready)
        answered = threading.Event()
        future = self._clients[name].call_async(request)
        future.add_done_callback(lambda _: answered.set())
        assert answered.wait(PATIENCE_S), f'{name} did not answer'
        return future.result()

    def state(self):
        from lifecycle_msgs.srv import GetState

        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def change_state(self, label):
        """Whether the transition of that name succeeded."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, 'change_state', request).success

    def get(self, name):
        from rcl_interfaces.srv import GetParameters

        return self.call(GetParameters, 'get_parameters', GetParameters.Request(names=[name])).values[0]

    def set(self, name, value):
        """(successful, reason) of setting a parameter."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        parameters = [Parameter(name, value=value).to_parameter_msg()]
        result = self.call(SetParameters, 'set_parameters', SetParameters.Request(parameters=parameters)).results[0]
        return result.successful, result.reason

    def close(self):
        self._executor.shutdown()
        self._thread.join(5)
        self._node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def robot(monkeypatch):
    """A Robot alone on its domain. Every node that it started must end with exit code 0 and without a traceback."""
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    robot = Robot(random.randrange(1, 102))
    try:
        yield robot
        for node in robot.nodes:
            if node.process.poll() is None:
                node.interrupt()
            assert node.exit_code() == 0
            assert not node.logged('Traceback') or 'Traceback' in node.expected, '\n'.join(node.log)
    finally:
        for node in robot.nodes:
            node.process.kill()
            node.process.wait()
        robot.close()

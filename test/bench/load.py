"""Load for a node in another process, over DDS: cameras, clients and time, with accounts of what was sent.

Shared by the storm and the soak.
"""

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(ROOT / 'instructsam_ros' / 'data' / 'fastdds_images.xml'))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
sys.path.insert(0, str(ROOT / 'test' / 'ros' / 'support'))

import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from unique_identifier_msgs.msg import UUID  # noqa: E402

from instructsam_ros.action import Segment  # noqa: E402
from instructsam_ros.conversions.instances import image_msg  # noqa: E402
from instructsam_ros.node import qos  # noqa: E402

CAMERAS = ('left', 'right', 'front', 'rear')
INSTRUCTIONS = ('the red mug', 'the spoons left of the kettle', 'everything that can be eaten')
FRAMES = ('frames_in', 'frames_lost_in_transport', 'frames_lost_in_queue')
"""Values of the diagnostics that add up to the images that were sent, see docs/node.md."""

JUMPS_S = (30.0, -20.0, 3600.0, -3590.0)  # of simulated time, one after the other
JUMP_EVERY_S = 45.0
REST_S = 1.0  # time without a change after which no image is under way
PATIENCE_S = 120.0


class Repeated(threading.Thread):
    """Calls a function at a fixed rate until stop() is called."""

    def __init__(self, function, period_s):
        super().__init__(daemon=True)
        self._function, self._period_s = function, period_s
        self._stopped = threading.Event()

    def run(self):
        next_s = time.monotonic()
        while not self._stopped.wait(max(0.0, next_s - time.monotonic())):
            self._function()
            next_s += self._period_s

    def stop(self):
        self._stopped.set()
        self.join()


class Time:
    """The time of the run: the machine's, or simulated time that jumps."""

    def __init__(self, robot, is_simulated):
        self._offset_ns = 0
        self._publisher = robot.node.create_publisher(Clock, '/clock', 10) if is_simulated else None

    def now_ns(self):
        return time.time_ns() + self._offset_ns

    def tick(self, run_s):
        """Publish /clock, whose offset depends on the seconds since the start of the run."""
        jumps = int(run_s / JUMP_EVERY_S)
        self._offset_ns = int(sum(JUMPS_S[number % len(JUMPS_S)] for number in range(jumps)) * 1e9)
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self.now_ns(), 1_000_000_000)
        self._publisher.publish(message)


class Cameras:
    """Publish images in turn, with the time of the run as their stamp. Thread-safe."""

    def __init__(self, robot, names, size, clock):
        self.sent = 0
        self._robot, self._lock = robot, threading.Lock()
        width, height = size
        self._clock = clock
        prefixes = [f'{name}/' if name else '' for name in names]
        self.publishers = [robot.node.create_publisher(Image, f'{prefix}image', 10) for prefix in prefixes]
        images = np.random.default_rng(0).integers(0, 256, (10, height, width, 3), np.uint8)
        self._messages = [image_msg(image, Header(frame_id='camera')) for image in images]

    def see(self, **fields):
        """Publish one image of each camera; `fields` replace those of the message."""
        with self._lock:
            message = self._messages[self.sent % len(self._messages)]
            if fields:
                message = Image(**{'data': [1, 2, 3], **fields})
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(self._clock.now_ns(), 1_000_000_000)
            for publisher in self.publishers:
                publisher.publish(message)
                self.sent += 1

    def settle(self):
        """Publish images until one of every camera arrives; return the counts of FRAMES and of sent images at rest.

        Lost images are counted when a later one of their camera arrives, and no image is lost before the first one.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            before = self._counts_at_rest()['frames_in']
            self.see()
            counts = self._counts_at_rest()
            if counts['frames_in'] == before + len(self.publishers):
                return counts | {'sent': self.sent}
            assert time.monotonic() < deadline, f'not every camera reaches the node: {counts}'

    def _counts_at_rest(self):
        last, now, since_s = None, None, time.monotonic()
        while now is None or time.monotonic() - since_s < REST_S:
            status = self._robot.status()
            last, now = now, {name: int(status[name]) for name in FRAMES}
            since_s = since_s if now == last else time.monotonic()
        return now


class Clients:
    """Action clients in a process of their own, each of which asks once per round.

    They use the services of the action alone: with 200 of rclpy's ActionClients, each of which takes the feedback of
    all goals, the clients would need more of the processor than the node.
    """

    def __init__(self, domain_id, count, round_s):
        spawn = multiprocessing.get_context('spawn')
        self._sent, self._ended, self._is_ready = spawn.Value('i'), spawn.Value('i'), spawn.Event()
        self._is_asking = spawn.Event()
        arguments = (domain_id, count, round_s, self._sent, self._ended, self._is_ready, self._is_asking)
        self._process = spawn.Process(target=_run_clients, args=arguments, daemon=True)
        self._process.start()
        assert self._is_ready.wait(PATIENCE_S)

    def start(self):
        self._is_asking.set()

    def stop(self):
        """Ask no more; the goals that have been sent are still waited for."""
        self._is_asking.clear()

    def suspend(self):
        """Stop the process, as a debugger would."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self._process.pid, signal.SIGCONT)

    @property
    def sent(self):
        return self._sent.value

    @property
    def ended(self):
        return self._ended.value


def _run_clients(domain_id, count, round_s, sent, ended, is_ready, is_asking):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node('clients', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    prefix = '/perception/segment/_action/'
    send_type, result_type = Segment.Impl.SendGoalService, Segment.Impl.GetResultService
    clients = [
        (
            node.create_client(send_type, f'{prefix}send_goal', qos_profile=qos.ACTION),
            node.create_client(result_type, f'{prefix}get_result', qos_profile=qos.ACTION),
        )
        for _ in range(count)
    ]
    while not all(send.service_is_ready() and result.service_is_ready() for send, result in clients):
        executor.spin_once(0.1)
    is_ready.set()

    def ask(number):
        send, result = clients[number % count]
        goal = Segment.Goal(instruction=INSTRUCTIONS[number % 3], points=number % 3 == 0, timeout_s=60.0)
        goal_id = UUID(uuid=list(uuid.uuid4().bytes))

        def on_end(_):
            ended.value += 1

        def on_sent(_):
            result.call_async(result_type.Request(goal_id=goal_id)).add_done_callback(on_end)

        send.call_async(send_type.Request(goal_id=goal_id, goal=goal)).add_done_callback(on_sent)
        sent.value += 1

    next_s = time.monotonic()
    while True:
        if not is_asking.is_set():
            next_s = time.monotonic()
        elif time.monotonic() >= next_s:
            ask(sent.value)
            next_s += round_s / count
            if round_s:
                continue
        executor.spin_once(0.01)


def private_mb(pid):
    """Return the memory of a process that is its own, MB: not that of files; swapped out or not.

    Resident memory would also count pages of files, which the kernel drops and reads again as it likes, and pages of
    the publishers' shared memory.
    """
    status = Path(f'/proc/{pid}/status').read_text()
    return sum(int(re.search(rf'{name}:\s+(\d+) kB', status)[1]) for name in ('RssAnon', 'VmSwap')) / 1024

"""A long run: the node with a model on CPU, its cameras, clients and nonsense, as processes over DDS.

    python test/bench/soak.py --minutes 10                               # one camera of 30 Hz
    python test/bench/soak.py --hours 2 --everything --report soak.jsonl   # in the background; see --help

Once per second the node's memory, its diagnostics and its response time to a parameter request are recorded; the
instruction changes every 20 s. --everything adds four cameras, a subscriber that never reads, 200 action clients,
simulated time that jumps back and forth, and bursts of nonsense (images, goals, parameters, transitions, instructions).
The report file receives one line of JSON per minute, so a run in the background can be followed, and what was measured
until it was killed is not lost.

Exits with 1 unless, after the warm-up, memory stays flat, latency does not grow, every image is accounted for, every
goal has an end, no unexpected error is counted and parameter requests are answered quickly.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(ROOT / 'instructsam_ros' / 'data' / 'fastdds_images.xml'))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
sys.path.insert(0, str(ROOT / 'test' / 'ros' / 'support'))

import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from robot import Robot  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from unique_identifier_msgs.msg import UUID  # noqa: E402

from instructsam_ros.action import Segment  # noqa: E402
from instructsam_ros.conversions.instances import image_msg  # noqa: E402
from instructsam_ros.msg import InstanceArray  # noqa: E402
from instructsam_ros.node import qos  # noqa: E402

NODE = (sys.executable, '-m', 'instructsam_ros.node.perception_node')
INSTRUCTIONS = ('the red mug', 'the spoons left of the kettle', 'everything that can be eaten')
INSTRUCTION_S = 20  # duration of each instruction
PARTS = 5  # equal parts of the run after the warm-up that are compared with each other
MEMORY_TOLERANCE = 0.02
LATENCY_TOLERANCE = 0.2
ANSWER_S = 0.1
CAMERAS = ('left', 'right', 'front', 'rear')
CLIENTS = 200
CLIENT_ROUND_S = 300.0  # time in which every client asks once
NONSENSE_S = 15.0  # time between two bursts of nonsense
JUMPS_S = (30.0, -20.0, 3600.0, -3590.0)  # of simulated time, one after the other
JUMP_EVERY_S = 45.0
REPORT_S = 60.0
GOAL_S = 120.0  # longest time for a goal to end at the end of the run
COUNTS = ('results', 'frames_in', 'frames_used', 'frames_dropped', 'frames_waiting', 'frames_lost_in_transport')


@dataclass(frozen=True)
class Sample:
    """One second of the run."""

    time_s: float
    memory_mb: float  # resident memory of the node
    latency_s: float  # median time from the reception of an image to the publication of its result
    answer_s: float  # response time to a parameter request
    results: int
    frames_in: int
    frames_used: int
    frames_dropped: int
    frames_waiting: int
    frames_lost_in_transport: int


class Run(NamedTuple):
    """Everything recorded by observe()."""

    samples: list[Sample]
    before: Sample
    after: Sample
    sent: int  # number of images
    goals: int  # sent by the clients
    ended: int  # of these
    bugs: int  # unexpected errors that the node counted


class Finding(NamedTuple):
    """A requirement and whether it is met."""

    requirement: str
    measured: str
    is_good: bool


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
    """Publish images in turn, with the time of the run as their stamp."""

    def __init__(self, robot, names, size, clock):
        self.sent = 0
        width, height = size
        self._clock = clock
        prefixes = [f'{name}/' if name else '' for name in names]
        self.publishers = [robot.node.create_publisher(Image, f'{prefix}image', 10) for prefix in prefixes]
        images = np.random.default_rng(0).integers(0, 256, (10, height, width, 3), np.uint8)
        self._messages = [image_msg(image, Header(frame_id='camera')) for image in images]

    def see(self, **fields):
        """Publish one image of each camera; `fields` replace those of the message."""
        message = self._messages[self.sent % len(self._messages)]
        if fields:
            message = Image(**{'data': [1, 2, 3], **fields})
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(self._clock.now_ns(), 1_000_000_000)
        for publisher in self.publishers:
            publisher.publish(message)
            self.sent += 1


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
        assert self._is_ready.wait(GOAL_S)

    def start(self):
        self._is_asking.set()

    def stop(self):
        """Ask no more; the goals that have been sent are still waited for."""
        self._is_asking.clear()

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


def talk_nonsense(robot, cameras, rng):
    """Send what no program should; the node answers it or leaves it out."""
    cameras.see(encoding=rng.choice(('rainbow', '', '\x1b[2J')), width=2**31, height=rng.randrange(5))
    robot.say(rng.choice(('\x1b[31m\n' * 20, 'x' * 50_000, '\u202e', ' ')))
    for fields in (
        {'timeout_s': 1e10},
        {'timeout_s': float('nan')},
        {'score_threshold': -1.0},
        {'freshness': 77},
        {'camera': '\x00' * 100},
        {'image': Image(width=5, height=5, encoding='rgb8', step=15, data=bytes(3))},
    ):
        robot.ask('nonsense', **fields)
    for name, value in (('score_threshold', float('nan')), ('trigger', None), ('model', 'x' * 1000), ('cameras', 1)):
        robot.set(name, value)
    robot.change_state(rng.choice(('configure', 'cleanup', 'fly')))


def observe(args):
    """Return a Run: samples of the run, before and after it with the cameras at rest, and what was sent in between."""
    robot, repeated, rng = Robot(random.randrange(1, 102)), [], random.Random(0)
    size = tuple(map(int, args.size.split('x')))
    names = CAMERAS if args.everything else ('',)
    clock = Time(robot, args.everything)
    try:
        parameters = [f'model:={args.model}', 'device:=cpu', f'answer:={args.answer}']
        if args.everything:
            parameters += [f'cameras:=[{", ".join(CAMERAS)}]', 'use_sim_time:=true']
        node = robot.start(*parameters, command=NODE)
        robot.wait(lambda: node.logged("model '"))
        robot.wait(lambda: robot.status()['state'] == 'active')
        cameras = Cameras(robot, names, size, clock)
        robot.wait(lambda: all(publisher.get_subscription_count() for publisher in cameras.publishers))
        start_s = time.monotonic()

        def sample():
            status = robot.status()
            asked_s = time.monotonic()
            robot.get('score_threshold')
            answered_s = time.monotonic()
            robot.results.clear()
            robot.diagnostics.clear()
            return Sample(
                time_s=answered_s - start_s,
                memory_mb=resident_mb(node.process.pid),
                latency_s=float(status.get('receive_to_publish_ms_p50', 'nan')) / 1e3,
                answer_s=answered_s - asked_s,
                **{name: int(status[name]) for name in COUNTS},
            )

        clients = Clients(robot.domain_id, CLIENTS if args.everything else 1, CLIENT_ROUND_S)
        if args.everything:
            reader = Robot(robot.domain_id, 'never_reads')
            reader._executor.shutdown()  # its subscriptions stay, and nothing takes their messages
            for camera in CAMERAS:
                reader.node.create_subscription(PointCloud2, f'/perception/{camera}/points', print, 10)
                reader.node.create_subscription(InstanceArray, f'/perception/{camera}/instances', print, 10)
            repeated.append(Repeated(lambda: clock.tick(time.monotonic() - start_s), 0.05))
            clients.start()
        before = settled(sample)
        repeated.append(Repeated(cameras.see, 1 / args.rate))
        for thread in repeated:
            thread.start()
        samples, reported_s, nonsense_s = [], 0.0, time.monotonic()
        while time.monotonic() - start_s < args.hours * 3600:
            robot.say(INSTRUCTIONS[int(time.monotonic() - start_s) // INSTRUCTION_S % len(INSTRUCTIONS)])
            samples.append(sample())
            if args.everything and time.monotonic() - nonsense_s > NONSENSE_S:
                talk_nonsense(robot, cameras, rng)
                nonsense_s = time.monotonic()
            if len(samples) % 30 == 0:
                print(describe(samples[-1]), flush=True)
            if args.report and time.monotonic() - reported_s > REPORT_S:
                reported_s = time.monotonic()
                growth = samples[-1].memory_mb / samples[min(len(samples) - 1, int(args.warm_up))].memory_mb - 1
                line = asdict(samples[-1]) | {'sent': cameras.sent, 'goals': clients.sent, 'ended': clients.ended}
                with args.report.open('a') as file:
                    file.write(json.dumps(line | {'memory_growth': growth}) + '\n')
        for thread in repeated:
            thread.stop()
        clients.stop()
        robot.say('')
        robot.wait_or_time_out(lambda: clients.ended == clients.sent, GOAL_S)
        after = settled(sample)
        bugs = int(robot.status()['unexpected_errors'])
        node.interrupt()
        assert node.exit_code() == 0
        return Run(samples, before, after, cameras.sent, clients.sent, clients.ended, bugs)
    finally:
        for node in robot.nodes:
            node.process.kill()
        robot.close()


def settled(sample):
    """Return the first sample that counts no more images than the one before."""
    last = sample()
    while True:
        now = sample()
        if now.frames_in == last.frames_in:
            return now
        last = now


def settled_counts(robot):
    """Return the counts of images once they no longer change."""
    last, now = None, {name: int(robot.status()[name]) for name in COUNTS}
    while now != last:
        last, now = now, {name: int(robot.status()[name]) for name in COUNTS}
    return now


def resident_mb(pid):
    status = Path(f'/proc/{pid}/status').read_text()
    return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) / 1024


def describe(sample):
    return (
        f'{sample.time_s:6.0f} s  {sample.memory_mb:7.1f} MB  latency {sample.latency_s:6.3f} s  '
        f'parameter {sample.answer_s * 1e3:5.1f} ms  {sample.results} results, {sample.frames_dropped} dropped'
    )


def judge(run, warm_up_s):
    """Return a Finding for each requirement."""
    samples = [sample for sample in run.samples if sample.time_s > warm_up_s]
    before, after = run.before, run.after
    parts = np.array_split(np.arange(len(samples)), PARTS)
    memory_mb = [float(np.median([samples[i].memory_mb for i in part])) for part in parts]
    # A backlog would lengthen every latency, a burst of work of another program only some.
    latency_s = [float(np.nanpercentile([samples[i].latency_s for i in part], 25)) for part in parts]
    change = max(abs(part / memory_mb[0] - 1) for part in memory_mb)
    growth = latency_s[-1] / latency_s[0] - 1
    answers_s = [sample.answer_s for sample in samples]
    came = after.frames_in - before.frames_in
    lost = after.frames_lost_in_transport - before.frames_lost_in_transport
    adds_up = all(
        sample.frames_in == sample.frames_used + sample.frames_dropped + sample.frames_waiting for sample in samples
    )
    p95_s = float(np.percentile(answers_s, 95))
    return [
        Finding(
            'median memory by fifths, MB', f'{numbers(memory_mb, 1)}, {change:.2%} off', change <= MEMORY_TOLERANCE
        ),
        Finding(
            'p25 of the median time from image to result by fifths, s',
            f'{numbers(latency_s, 3)}, {growth:+.1%}',
            growth <= LATENCY_TOLERANCE,
        ),
        Finding('images', f'{run.sent} sent = {came} in + {lost} lost in transport', run.sent == came + lost),
        Finding(
            'images in',
            f'{after.frames_in} = {after.frames_used} used + {after.frames_dropped} dropped + '
            f'{after.frames_waiting} waiting; so in every sample',
            adds_up,
        ),
        Finding(
            'parameter answers',
            f'median {np.median(answers_s) * 1e3:.1f} ms, p95 {p95_s * 1e3:.1f} ms, '
            f'longest {max(answers_s) * 1e3:.1f} ms',
            p95_s <= ANSWER_S,
        ),
        Finding('goals', f'{run.goals} sent, {run.ended} ended', run.goals == run.ended),
        Finding('unexpected errors', str(run.bugs), not run.bugs),
        Finding('results', str(after.results - before.results), after.results > before.results),
    ]


def numbers(values, digits):
    return ' '.join(f'{value:.{digits}f}' for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, help='(default: 10)')
    length.add_argument('--hours', type=float)
    parser.add_argument('--everything', action='store_true', help='also the cameras, clients and nonsense above')
    parser.add_argument('--report', type=Path, help='append a line of JSON to this file every minute')
    parser.add_argument(
        '--warm-up', type=float, default=60.0, help='seconds excluded from the checks (default: %(default)s)'
    )
    parser.add_argument('--model', default='tabletop', help='folder, hub id or built-in (default: %(default)s)')
    parser.add_argument(
        '--answer',
        default='instruction',
        choices=('generate', 'instruction'),
        help='generate needs trained weights (default: %(default)s)',
    )
    parser.add_argument('--rate', type=float, default=30.0, help='images per second (default: %(default)s)')
    parser.add_argument('--size', default='640x480', help='size of the rgb8 images, px (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='also write every sample to this file')
    args = parser.parse_args()

    args.hours = args.hours or (args.minutes or 10.0) / 60
    run = observe(args)
    if args.json:
        args.json.write_text(json.dumps([asdict(sample) for sample in run.samples], indent=1))
    findings = judge(run, args.warm_up)
    for finding in findings:
        print(f'{"ok  " if finding.is_good else "FAIL"}  {finding.requirement}: {finding.measured}')
    return int(not all(finding.is_good for finding in findings))


if __name__ == '__main__':
    sys.exit(main())

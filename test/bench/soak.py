"""A long run: the node with a model on CPU and a camera of 30 Hz, as two processes over DDS.

    python test/bench/soak.py [--minutes 10] [--model tabletop] [--rate 30] [--size 640x480] [--json FILE]

Once per second the node's memory, its diagnostics and its response time to a parameter request are recorded; the
instruction changes every 20 s. Exits with 1 unless, after the warm-up, memory stays flat, latency does not grow, every
image is accounted for and parameter requests are answered quickly.
"""

import argparse
import json
import os
import random
import re
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(ROOT / 'instructsam_ros' / 'data' / 'fastdds_images.xml'))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
sys.path.insert(0, str(ROOT / 'test' / 'ros' / 'support'))

import numpy as np  # noqa: E402
from robot import Robot  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

NODE = (sys.executable, '-m', 'instructsam_ros.node.perception_node')
INSTRUCTIONS = ('the red mug', 'the spoons left of the kettle', 'everything that can be eaten')
INSTRUCTION_S = 20  # duration of each instruction
PARTS = 5  # equal parts of the run after the warm-up that are compared with each other
MEMORY_TOLERANCE = 0.02
LATENCY_TOLERANCE = 0.2
ANSWER_S = 0.1
COUNTS = ('results', 'frames_in', 'frames_used', 'frames_dropped', 'frames_waiting', 'frames_lost_in_transport')


@dataclass(frozen=True)
class Sample:
    """One second of the run."""

    time_s: float
    memory_mb: float  # resident memory of the node
    latency_s: float  # latency of the latest result, from the image's stamp to its publication
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


class Finding(NamedTuple):
    """A requirement and whether it is met."""

    requirement: str
    measured: str
    is_good: bool


class Camera(threading.Thread):
    """Publishes images with the current time as their stamp until stop() is called."""

    def __init__(self, robot, width, height, rate_hz):
        super().__init__(daemon=True)
        self.sent = 0
        self._robot = robot
        self._images = np.random.default_rng(0).integers(0, 256, (10, height, width, 3), np.uint8)
        self._period_s = 1 / rate_hz
        self._stopped = threading.Event()

    def run(self):
        next_s = time.monotonic()
        while not self._stopped.wait(max(0.0, next_s - time.monotonic())):
            header = Header(frame_id='camera')
            header.stamp.sec, header.stamp.nanosec = divmod(time.time_ns(), 1_000_000_000)
            self._robot.see(self._images[self.sent % len(self._images)], header=header)
            self.sent += 1
            next_s += self._period_s

    def stop(self):
        self._stopped.set()
        self.join()


def observe(args, width, height):
    """Return a Run: samples of the run, before and after it with the camera at rest, and the images sent in between."""
    robot = Robot(random.randrange(1, 102))
    try:
        parameters = [f'model:={args.model}', 'device:=cpu', f'answer:={args.answer}']
        node = robot.start(*parameters, command=NODE)
        robot.wait(lambda: node.logged("model '"))
        robot.connect(node)
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
                latency_s=float(status.get('last_result_latency_s', 'nan')),
                answer_s=answered_s - asked_s,
                **{name: int(status[name]) for name in COUNTS},
            )

        before = settled(sample)
        camera = Camera(robot, width, height, args.rate)
        camera.start()
        samples = []
        while time.monotonic() - start_s < args.minutes * 60:
            robot.say(INSTRUCTIONS[int(time.monotonic() - start_s) // INSTRUCTION_S % len(INSTRUCTIONS)])
            samples.append(sample())
            if len(samples) % 30 == 0:
                print(describe(samples[-1]), flush=True)
        camera.stop()
        robot.say('')
        after = settled(sample)
        node.interrupt()
        assert node.exit_code() == 0
        return Run(samples, before, after, camera.sent)
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
        Finding('p25 of latency by fifths, s', f'{numbers(latency_s, 3)}, {growth:+.1%}', growth <= LATENCY_TOLERANCE),
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
        Finding('results', str(after.results - before.results), after.results > before.results),
    ]


def numbers(values, digits):
    return ' '.join(f'{value:.{digits}f}' for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=10.0, help='(default: %(default)s)')
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

    run = observe(args, *map(int, args.size.split('x')))
    if args.json:
        args.json.write_text(json.dumps([asdict(sample) for sample in run.samples], indent=1))
    findings = judge(run, args.warm_up)
    for finding in findings:
        print(f'{"ok  " if finding.is_good else "FAIL"}  {finding.requirement}: {finding.measured}')
    return int(not all(finding.is_good for finding in findings))


if __name__ == '__main__':
    sys.exit(main())

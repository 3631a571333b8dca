"""A long run: the node with a model on CPU, its cameras, clients and nonsense, as processes over DDS.

    python test/bench/soak.py --minutes 10                               # one camera of 30 Hz
    python test/bench/soak.py --hours 2 --everything --report soak.jsonl   # in the background; see --help
    python test/bench/soak.py --judge soak.jsonl                          # a run that goes on, or was killed

Once per second the node's memory, its diagnostics and its response time to a parameter request are recorded; the
instruction changes every 20 s. --everything adds four cameras, a subscriber that never reads, 200 action clients,
simulated time that jumps back and forth, and bursts of nonsense (images, goals, parameters, transitions, instructions).
Every record is a line of JSON in the report, so nothing that was measured is lost if the run is killed.

Exits with 1 unless, after the warm-up, memory does not grow by more than 2 %, no backlog builds up, every image is
accounted for, every goal has an end, no unexpected error is counted and parameter requests are answered quickly.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from load import CAMERAS, FRAMES, INSTRUCTIONS, Cameras, Clients, Repeated, Time, private_mb
from robot import Robot
from sensor_msgs.msg import Image, PointCloud2

from instructsam_ros.msg import InstanceArray

NODE = (sys.executable, '-m', 'instructsam_ros.node.perception_node')
INSTRUCTION_S = 20  # duration of each instruction
PARTS = 5  # equal parts of the run after the warm-up that are compared with each other
MEMORY_TOLERANCE = 0.02
LATENCY_TOLERANCE = 0.2
ANSWER_S = 0.1  # for the median: programs that compete for the processor delay some
LONGEST_ANSWER_S = 10.0
CLIENTS = 200
CLIENT_ROUND_S = 600.0  # time in which every client asks once
NONSENSE_S = 15.0  # time between two bursts of nonsense
WARM_UP_S = 900.0  # more than a round of the clients, after which the memory for all of them has been allocated
SHOWN_S = 30.0
START_S = 600.0  # longest time for the model to load
GOAL_S = 300.0  # longest time for a goal to end at the end of the run
COUNTS = (*FRAMES, 'results', 'frames_used', 'frames_dropped', 'frames_waiting', 'unexpected_errors')
WAITS = ('receive_to_publish',)  # steps that include others


@dataclass(frozen=True)
class Sample:
    """One second of the run."""

    time_s: float
    memory_mb: float  # see private_mb()
    latency_s: float  # median time from the reception of an image to the publication of its result
    work_s: float  # of this, the sum of the median times of the steps
    answer_s: float  # response time to a parameter request
    sent: int  # number of images
    goals: int  # number sent
    ended: int  # of these
    results: int
    frames_in: int
    frames_used: int
    frames_dropped: int
    frames_waiting: int
    frames_lost_in_transport: int
    frames_lost_in_queue: int
    unexpected_errors: int

    @property
    def waiting(self):
        """Latency per time of the work; NaN before the first result."""
        return self.latency_s / self.work_s if self.work_s else float('nan')


class Run(NamedTuple):
    """A report."""

    settings: dict  # warm_up_s, length_s
    before: dict  # counts of Cameras.settle()
    samples: list[Sample]
    after: dict | None  # counts of Cameras.settle(), `goals`, `ended` and `exit_code`; None if the run did not end


class Finding(NamedTuple):
    """A requirement and whether it is met."""

    requirement: str
    measured: str
    is_good: bool


class Nonsense:
    """Sends messages that no program should send; the node answers them or leaves them out."""

    def __init__(self, robot, cameras):
        self._robot, self._cameras, self._rng = robot, cameras, random.Random(0)
        self._open, self.sent = [], 0  # goals

    @property
    def ended(self):
        self._open = [goal for goal in self._open if not goal.response]
        return self.sent - len(self._open)

    def talk(self):
        robot, rng = self._robot, self._rng
        self._cameras.see(encoding=rng.choice(('rainbow', '', '\x1b[2J')), width=2**31, height=rng.randrange(5))
        robot.say(rng.choice(('\x1b[31m\n' * 20, 'x' * 50_000, '\u202e', ' ')))
        for fields in (
            {'timeout_s': 1e10},
            {'timeout_s': float('nan')},
            {'score_threshold': -1.0},
            {'freshness': 77},
            {'camera': '\x00' * 100},
            {'image': Image(width=5, height=5, encoding='rgb8', step=15, data=bytes(3))},
        ):
            self._open.append(robot.ask('nonsense', **fields))
            self.sent += 1
        for name, value in (('score_threshold', float('nan')), ('trigger', None), ('model', 'x' * 999), ('cameras', 1)):
            robot.set(name, value)
        robot.change_state(rng.choice(('configure', 'cleanup', 'fly')))


def observe(args, report):
    """Run the node under load and write to `report`, a text file: settings, counts before, samples, counts after."""
    robot, repeated = Robot(random.randrange(1, 102)), []
    clock = Time(robot, args.everything)

    def write(**record):
        report.write(json.dumps(record) + '\n')
        report.flush()

    write(settings={'warm_up_s': args.warm_up, 'length_s': args.hours * 3600})
    try:
        parameters = [f'model:={args.model}', 'device:=cpu', f'answer:={args.answer}']
        if args.everything:
            parameters += [f'cameras:=[{", ".join(CAMERAS)}]', 'use_sim_time:=true']
        node = robot.start(*parameters, command=NODE)
        is_active = robot.wait_or_time_out(lambda: robot.status()['state'] == 'active', START_S)
        assert is_active, f'the node did not start: {node.log}'
        size = tuple(map(int, args.size.split('x')))
        cameras = Cameras(robot, CAMERAS if args.everything else ('',), size, clock)
        nonsense = Nonsense(robot, cameras)
        clients = Clients(robot.domain_id, CLIENTS if args.everything else 1, CLIENT_ROUND_S)
        robot.ask('nothing to see yet')  # connects the action
        write(before=cameras.settle())
        start_s = time.monotonic()

        def sample():
            status = robot.status()
            asked_s = time.monotonic()
            robot.get('score_threshold')
            answered_s = time.monotonic()
            robot.results.clear()
            robot.diagnostics.clear()
            ended = clients.ended + nonsense.ended  # before those that were sent
            steps = [name for name in status if name.endswith('_ms_p50') and not name.startswith(WAITS)]
            return Sample(
                time_s=answered_s - start_s,
                memory_mb=private_mb(node.process.pid),
                latency_s=float(status.get('receive_to_publish_ms_p50', 'nan')) / 1e3,
                work_s=sum(float(status[name]) for name in steps) / 1e3,
                answer_s=answered_s - asked_s,
                sent=cameras.sent,
                goals=clients.sent + nonsense.sent,
                ended=ended,
                **{name: int(status[name]) for name in COUNTS},
            )

        if args.everything:
            reader = Robot(robot.domain_id, 'never_reads')
            reader._thread.stop()  # its subscriptions stay, and nothing takes their messages
            for camera in CAMERAS:
                reader.node.create_subscription(PointCloud2, f'/perception/{camera}/points', print, 10)
                reader.node.create_subscription(InstanceArray, f'/perception/{camera}/instances', print, 10)
            repeated.append(Repeated(lambda: clock.tick(time.monotonic() - start_s), 0.05))
            clients.start()
        repeated.append(Repeated(cameras.see, 1 / args.rate))
        for thread in repeated:
            thread.start()
        shown_s = nonsense_s = time.monotonic()
        while time.monotonic() - start_s < args.hours * 3600:
            robot.say(INSTRUCTIONS[int(time.monotonic() - start_s) // INSTRUCTION_S % len(INSTRUCTIONS)])
            latest = sample()
            write(sample=asdict(latest))
            if args.everything and time.monotonic() - nonsense_s > NONSENSE_S:
                nonsense.talk()
                nonsense_s = time.monotonic()
            if time.monotonic() - shown_s > SHOWN_S:
                shown_s = time.monotonic()
                print(describe(latest), flush=True)
        for thread in repeated:
            thread.stop()
        clients.stop()
        robot.say('')
        robot.wait_or_time_out(lambda: clients.ended + nonsense.ended == clients.sent + nonsense.sent, GOAL_S)
        ended, goals = clients.ended + nonsense.ended, clients.sent + nonsense.sent
        counts = cameras.settle()
        errors = int(robot.status()['unexpected_errors'])
        node.interrupt()
        write(
            after=counts | {'goals': goals, 'ended': ended, 'unexpected_errors': errors, 'exit_code': node.exit_code()}
        )
    finally:
        for node in robot.nodes:
            node.process.kill()
        robot.close()


def describe(sample):
    return (
        f'{sample.time_s:6.0f} s  {sample.memory_mb:7.1f} MB  latency {sample.latency_s:6.3f} s  '
        f'parameter {sample.answer_s * 1e3:5.1f} ms  {sample.results} results, {sample.frames_dropped} dropped'
    )


def read(path):
    """Return the Run in a report; an incomplete last line is left out."""
    settings, before, samples, after = {}, {}, [], None
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if 'settings' in record:  # begins a run; of several in a file, the latest counts
            settings, before, samples, after = record['settings'], {}, [], None
        elif 'sample' in record:
            samples.append(Sample(**record['sample']))
        before, after = record.get('before', before), record.get('after', after)
    return Run(settings, before, samples, after)


def judge(run):
    """Return a Finding for each requirement."""
    samples = [sample for sample in run.samples if sample.time_s > run.settings['warm_up_s']]
    length_s = run.samples[-1].time_s if run.samples else 0.0
    complete = (
        'to its end' if run.after else 'and did not end: counts of the latest second, in which messages are under way'
    )
    ran = Finding('the run', f'{length_s:.0f} of {run.settings["length_s"]:.0f} s, {complete}', bool(run.after))
    if len(samples) < PARTS:
        return [ran, Finding('samples after the warm-up', str(len(samples)), is_good=False)]
    parts = np.array_split(np.arange(len(samples)), PARTS)
    memory_mb = [float(np.median([samples[i].memory_mb for i in part])) for part in parts]
    hours = (samples[-1].time_s - samples[0].time_s) / 3600
    slope = float(np.polyfit([each.time_s / 3600 for each in samples], [each.memory_mb for each in samples], 1)[0])
    change = max(part / memory_mb[0] - 1 for part in memory_mb)
    # A backlog would lengthen the waiting of every image; other programs lengthen the work as well.
    waits = [float(np.nanpercentile([samples[i].waiting for i in part], 25)) for part in parts]
    latency_s = [float(np.nanpercentile([samples[i].latency_s for i in part], 25)) for part in parts]
    growth = waits[-1] / waits[0] - 1
    answers_s = [sample.answer_s for sample in samples]
    median_s, p95_s = np.percentile(answers_s, (50, 95))
    after = run.after or asdict(run.samples[-1])
    sent, came, transport, queue = (after[name] - run.before[name] for name in ('sent', *FRAMES))
    adds_up = all(each.frames_in == each.frames_used + each.frames_dropped + each.frames_waiting for each in samples)
    last = run.samples[-1]
    return [
        ran,
        Finding(
            'median memory by fifths, MB',
            f'{numbers(memory_mb, 1)}, at most {change:+.2%}; {slope:+.1f} MB per hour over {hours:.1f} hours',
            change <= MEMORY_TOLERANCE,
        ),
        Finding(
            'p25 of the time from image to result by fifths, s',
            f'{numbers(latency_s, 3)}; per time of the work {numbers(waits, 2)}, {growth:+.1%}',
            growth <= LATENCY_TOLERANCE,
        ),
        Finding(
            'images',
            f'{sent} sent = {came} in + {transport} lost in transport + {queue} lost in the queue',
            sent == came + transport + queue,
        ),
        Finding(
            'images in',
            f'{last.frames_in} = {last.frames_used} used + {last.frames_dropped} dropped + '
            f'{last.frames_waiting} waiting; so in every sample',
            adds_up,
        ),
        Finding(
            'parameter answers',
            f'median {median_s * 1e3:.1f} ms, p95 {p95_s * 1e3:.1f} ms, longest {max(answers_s) * 1e3:.1f} ms',
            median_s <= ANSWER_S and max(answers_s) <= LONGEST_ANSWER_S,
        ),
        Finding('goals', f'{after["goals"]} sent, {after["ended"]} ended', after['goals'] == after['ended']),
        Finding('unexpected errors', str(after['unexpected_errors']), not after['unexpected_errors']),
        Finding('exit code', str(after.get('exit_code')), after.get('exit_code') == 0),
        Finding('results', str(last.results), last.results > 0),
    ]


def numbers(values, digits):
    return ' '.join(f'{value:.{digits}f}' for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, help='(default: 10)')
    length.add_argument('--hours', type=float)
    parser.add_argument('--everything', action='store_true', help='also the cameras, clients and nonsense above')
    parser.add_argument('--report', type=Path, help='append to this file (default: a temporary one)')
    parser.add_argument('--judge', type=Path, metavar='REPORT', help='only judge what a report holds so far')
    parser.add_argument(
        '--warm-up',
        type=float,
        help=f'seconds excluded from the checks (default: a fifth of the run, at most {WARM_UP_S:.0f})',
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
    args = parser.parse_args()

    path = args.judge
    if path is None:
        args.hours = args.hours or (args.minutes or 10.0) / 60
        if args.warm_up is None:
            args.warm_up = min(WARM_UP_S, args.hours * 3600 / 5)
        path = args.report or Path(tempfile.mkstemp(suffix='.jsonl')[1])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the node as well
        print(f'report: {path}', flush=True)
        with path.open('a') as report:
            try:
                observe(args, report)
            except AssertionError as error:
                print(f'FAIL  the run ended early: {error}', flush=True)
    run = read(path)
    if not run.settings:
        parser.error(f'{path} is not a report of this program')
    findings = judge(run)
    for finding in findings:
        print(f'{"ok  " if finding.is_good else "FAIL"}  {finding.requirement}: {finding.measured}')
    return int(not all(finding.is_good for finding in findings))


if __name__ == '__main__':
    sys.exit(main())

"""Storms over DDS on the node with a stand-in engine: no lost answer, no leak.

    python test/bench/bench_storm.py [--goals 300] [--clients 200] [--cycles 100] [--seconds 20]

Goals at once, from one client and from many; cancels of all of them; clients that are killed while their goals run;
lifecycle cycles while goals arrive; four cameras at 60 Hz. Exits with 1 if a goal has no end, an image is not accounted
for, a cycle fails, the node counts an unexpected error, or its memory grows by more than 2 % over the second half.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(ROOT / 'instructsam_ros' / 'data' / 'fastdds_images.xml'))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
sys.path[:0] = [str(ROOT / 'test' / 'ros' / 'support'), str(Path(__file__).parent)]

from robot import Robot  # noqa: E402
from soak import CAMERAS, Cameras, Clients, Repeated, Time, resident_mb, settled_counts  # noqa: E402

MEMORY_TOLERANCE = 0.02
KILLED_CLIENTS = 10


def burst(robot, count):
    """Send goals at once; return the number of those that ended, by status."""
    goals = [robot.ask(f'the mugs {number}') for number in range(count)]
    robot.wait_or_time_out(lambda: all(goal.response for goal in goals), 120)
    return Counter(goal.response.status if goal.response else 'no end' for goal in goals)


def cancels(robot, count):
    """Send goals at once and cancel each of them three times; return the number of those that ended, by status."""
    goals = [robot.ask(f'sleep 0.0{number % 5}') for number in range(count)]
    robot.wait_or_time_out(lambda: all(goal.sent for goal in goals), 120)
    for _ in range(3):
        for goal in goals:
            goal.handle.cancel_goal_async()
    robot.wait_or_time_out(lambda: all(goal.response for goal in goals), 120)
    return Counter(goal.response.status if goal.response else 'no end' for goal in goals)


def killed_clients(robot, count):
    """Kill clients while their goals run; return whether the node still answers."""
    code = (
        f'from robot import Robot; import time; robot = Robot({robot.domain_id}, "killed"); '
        'goals = [robot.ask(f"sleep 0.{number}") for number in range(5)]; print("asked", flush=True); time.sleep(60)'
    )
    for _ in range(count):
        folder = ROOT / 'test' / 'ros' / 'support'
        client = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=folder)
        client.stdout.readline()
        client.send_signal(signal.SIGKILL)
        client.wait()
    return robot.ask('the mugs').end()[0] == 4


def cycles(robot, count):
    """Return the number of full lifecycle cycles that succeeded, while goals arrive."""
    done = 0
    for _ in range(count):
        robot.ask('sleep 0.05')
        results = [robot.change_state(step) for step in ('deactivate', 'cleanup', 'configure', 'activate')]
        done += all(results)
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--goals', type=int, default=300, help='at once (default: %(default)s)')
    parser.add_argument('--clients', type=int, default=200, help='(default: %(default)s)')
    parser.add_argument('--cycles', type=int, default=100, help='of the lifecycle (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=20.0, help='of four cameras at 60 Hz (default: %(default)s)')
    args = parser.parse_args()

    robot, failures = Robot(random.randrange(1, 102)), []

    def check(name, measured, is_good):
        print(f'{"ok  " if is_good else "FAIL"}  {name}: {measured}', flush=True)
        failures.extend([] if is_good else [name])

    try:
        node = robot.start(f'cameras:=[{", ".join(CAMERAS)}]')
        robot.wait(lambda: robot.status()['state'] == 'active')
        cameras = Cameras(robot, CAMERAS, (640, 480), Time(robot, is_simulated=False))
        robot.wait(lambda: all(publisher.get_subscription_count() for publisher in cameras.publishers))
        before = settled_counts(robot)
        cameras.see()
        robot.ask('the mugs').end()

        repeated = Repeated(cameras.see, 1 / 60)
        cpu_s, start_s = cpu_time_s(node.process.pid), time.monotonic()
        repeated.start()
        time.sleep(args.seconds)
        repeated.stop()
        load = (cpu_time_s(node.process.pid) - cpu_s) / (time.monotonic() - start_s)
        after = settled_counts(robot)
        came, lost = (after[name] - before[name] for name in ('frames_in', 'frames_lost_in_transport'))
        rate_hz = (cameras.sent - 4) / (time.monotonic() - start_s)
        check(
            'four cameras, 640x480, no instruction',
            f'{cameras.sent} sent ({rate_hz:.0f} Hz) = {came} in + {lost} lost, {load:.0%} of a core',
            cameras.sent == came + lost,
        )

        memory_mb = []
        for _ in range(6):
            ends = burst(robot, args.goals)
            check(f'{args.goals} goals at once', dict(ends), 'no end' not in ends)
            ends = cancels(robot, args.goals // 3)
            check('cancels', dict(ends), 'no end' not in ends)
            memory_mb.append(resident_mb(node.process.pid))
        clients = Clients(robot.domain_id, args.clients, 1.0)
        clients.start()
        robot.wait_or_time_out(lambda: clients.sent >= args.clients, 120)
        clients.stop()
        robot.wait_or_time_out(lambda: clients.ended == clients.sent, 120)
        measured = f'{clients.sent} goals, {clients.ended} ended'
        check(f'{args.clients} clients within a second', measured, clients.ended == clients.sent)
        check(f'{KILLED_CLIENTS} clients killed', 'the node answers', killed_clients(robot, KILLED_CLIENTS))
        done = cycles(robot, args.cycles)
        check('lifecycle cycles', f'{done} of {args.cycles}', done == args.cycles)
        for _ in range(6):
            burst(robot, args.goals)
            memory_mb.append(resident_mb(node.process.pid))
        growth = memory_mb[-1] / memory_mb[5] - 1
        shown = ' '.join(f'{each:.0f}' for each in memory_mb)
        check('memory after each burst, MB', f'{shown}, {growth:+.1%}', growth <= MEMORY_TOLERANCE)
        status = robot.status()
        check('unexpected errors', status['unexpected_errors'], status['unexpected_errors'] == '0')
        node.interrupt()
        check('exit code', node.exit_code(), node.exit_code() == 0)
    finally:
        for each in robot.nodes:
            each.process.kill()
        robot.close()
    return int(bool(failures))


def cpu_time_s(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


if __name__ == '__main__':
    sys.exit(main())

"""Storms over DDS on the node with a stand-in engine: no lost answer, no leak.

    python test/bench/bench_storm.py [--goals 300] [--clients 200] [--cycles 100] [--seconds 20]

Four cameras at 60 Hz, without and with an instruction; clients whose process is stopped (SIGSTOP); then rounds of goals
at once, cancels of goals that wait or run, a goal from each of many clients within a second, clients that are killed
while their goals run, and lifecycle cycles while goals arrive. Prints a table. Exits with 1 if a goal has no end, a
canceled one ends otherwise, an image is not accounted for, a cycle fails, the node counts an unexpected error, or its
memory grows by more than 2 % from the middle to the last round.
"""

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from action_msgs.msg import GoalStatus
from load import CAMERAS, FRAMES, ROOT, Cameras, Clients, Repeated, Time, private_mb
from robot import Robot

MEMORY_TOLERANCE = 0.02
KILLED_CLIENTS = 2  # in each round
ROUNDS = 6
SHORT_STOP_S, LONG_STOP_S = 10.0, 25.0
"""Below and above 20 s without a sign of life, after which Fast DDS takes a process for dead (its lease duration)."""
END_S = 120.0  # longest time for goals to end
CLIENTS_S = 600.0
"""Longest time for the goals of the clients, each of which receives the responses to all of them."""

REFUSAL = 'goals are waiting already'

NAMES = {
    GoalStatus.STATUS_SUCCEEDED: 'succeeded',
    GoalStatus.STATUS_CANCELED: 'canceled',
    GoalStatus.STATUS_ABORTED: 'aborted',
}


def ends(robot, goals):
    """Wait for the goals; return the number of those that ended, by how."""
    robot.wait_or_time_out(lambda: all(goal.response for goal in goals), END_S)
    return Counter(_end(goal.response) for goal in goals)


def _end(response):
    if response is None:
        return 'no end'
    is_refused = response.status == GoalStatus.STATUS_ABORTED and REFUSAL in response.result.answer.message
    return 'refused' if is_refused else NAMES.get(response.status, str(response.status))


def burst(robot, count):
    """Send goals at once; return how they ended."""
    return ends(robot, [robot.ask(f'the mugs {number}') for number in range(count)])


def cancels(robot, count):
    """Cancel goals of which one runs and the others wait, each three times; return how they ended."""
    goals = [robot.ask(f'sleep {END_S + number:.0f}') for number in range(count)]
    robot.wait_or_time_out(lambda: all(goal.sent for goal in goals), END_S)
    for _again in range(3):
        for goal in goals:
            robot.in_executor(goal.sent.cancel_goal_async)
    return ends(robot, goals)


def from_clients(robot, clients, count, while_asking=lambda: None, timeout_s=CLIENTS_S):
    """Let each client ask once within a second; return the numbers of goals and of their ends."""
    first, ended = clients.sent, clients.ended
    clients.start()
    while_asking()
    robot.wait_or_time_out(lambda: clients.sent >= first + count, END_S)
    clients.stop()
    robot.wait_or_time_out(lambda: clients.ended - ended >= clients.sent - first, timeout_s)
    return clients.sent - first, clients.ended - ended


def suspended(robot, clients, count, seconds):
    """Stop the clients' process once half of them have asked; return from_clients() and how others ended then."""
    others = Counter()

    def suspend():
        first = clients.sent
        robot.wait_or_time_out(lambda: clients.sent >= first + count // 2, END_S)
        clients.suspend()
        clients.stop()  # when it goes on, only the goals that it has sent are left
        end_s = time.monotonic() + seconds
        try:
            while time.monotonic() < end_s:
                others.update(burst(robot, 10))
        finally:
            clients.resume()

    # After the long stop most answers are lost, and need not be waited for.
    timeout_s = END_S if seconds == LONG_STOP_S else CLIENTS_S
    return from_clients(robot, clients, count // 2, suspend, timeout_s), others


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
    return robot.ask('the mugs').end()[0] == GoalStatus.STATUS_SUCCEEDED


def cycles(robot, count):
    """Return the number of full lifecycle cycles that succeeded, while goals arrive, and how the goals ended."""
    done, goals = 0, []
    for _ in range(count):
        goals.append(robot.ask('sleep 0.05'))
        results = [robot.change_state(step) for step in ('deactivate', 'cleanup', 'configure', 'activate')]
        done += all(results)
    return done, ends(robot, goals)


def see_at_60_hz(robot, cameras, node, seconds):
    """Publish images; return a description, and whether each of them is accounted for."""
    before, cpu_s, start_s = cameras.settle(), cpu_time_s(node.process.pid), time.monotonic()
    repeated = Repeated(cameras.see, 1 / 60)
    repeated.start()
    time.sleep(seconds)
    repeated.stop()
    took_s = time.monotonic() - start_s
    load, rate_hz = (cpu_time_s(node.process.pid) - cpu_s) / took_s, (cameras.sent - before['sent']) / took_s
    robot.say('')
    after = cameras.settle()
    sent, came, transport, queue = (after[name] - before[name] for name in ('sent', *FRAMES))
    described = (
        f'{sent} sent ({rate_hz:.0f} Hz) = {came} in + {transport} lost in transport + {queue} lost in the queue; '
        f'{load:.0%} of a core'
    )
    return described, sent == came + transport + queue


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--goals', type=int, default=300, help='at once (default: %(default)s)')
    parser.add_argument('--clients', type=int, default=200, help='(default: %(default)s)')
    parser.add_argument('--cycles', type=int, default=100, help='of the lifecycle (default: %(default)s)')
    parser.add_argument('--seconds', type=float, default=20.0, help='of four cameras at 60 Hz (default: %(default)s)')
    args = parser.parse_args()

    robot, failures = Robot(random.randrange(1, 102)), []

    def check(name, measured, is_good):
        print(f'| {name} | {measured} | {"ok" if is_good else "FAILED"} |', flush=True)
        failures.extend([] if is_good else [name])

    print('| storm | result | |\n|---|---|---|')
    try:
        node = robot.start(f'cameras:=[{", ".join(CAMERAS)}]')
        robot.wait(lambda: robot.status()['state'] == 'active')
        cameras = Cameras(robot, CAMERAS, (640, 480), Time(robot, is_simulated=False))
        check('four cameras of 640x480 px at 60 Hz', *see_at_60_hz(robot, cameras, node, args.seconds))
        robot.say('the mugs')
        check('the same with an instruction', *see_at_60_hz(robot, cameras, node, args.seconds))

        robot.ask('the mugs').end()
        clients = Clients(robot.domain_id, args.clients, 1.0)
        for seconds in (SHORT_STOP_S, LONG_STOP_S):
            (sent, ended), others = suspended(robot, clients, args.clients, seconds)
            check(
                f'{args.clients} clients stopped for {seconds:.0f} s while they ask',
                f'{sent} goals, {ended} ended; of other goals meanwhile {counted(others)}',
                (ended == sent or seconds == LONG_STOP_S) and set(others) == {'succeeded'},
            )
        memory_mb, bursts, canceled, cycled = [], Counter(), Counter(), Counter()
        asked = ended = answering = done = 0
        for _ in range(ROUNDS):
            bursts += burst(robot, args.goals)
            canceled += cancels(robot, args.goals // 3)
            numbers = from_clients(robot, clients, args.clients)
            asked, ended = asked + numbers[0], ended + numbers[1]
            answering += killed_clients(robot, KILLED_CLIENTS)
            numbers = cycles(robot, math.ceil(args.cycles / ROUNDS))
            done, cycled = done + numbers[0], cycled + numbers[1]
            cameras.settle()
            memory_mb.append(private_mb(node.process.pid))
        good = bursts['succeeded'] + bursts['refused'] == ROUNDS * args.goals and bursts['succeeded']
        check(f'{args.goals} goals at once, {ROUNDS} times', counted(bursts), good)
        good = canceled['canceled'] == ROUNDS * (args.goals // 3)
        check(f'{args.goals // 3} goals that wait or run canceled, {ROUNDS} times', counted(canceled), good)
        check(
            f'{args.clients} clients ask within a second, {ROUNDS} times',
            f'{asked} goals, {ended} ended',
            asked == ended,
        )
        measured = f'the node answers after {answering} of {ROUNDS} times'
        check(f'{KILLED_CLIENTS} clients killed, {ROUNDS} times', measured, answering == ROUNDS)
        total = ROUNDS * math.ceil(args.cycles / ROUNDS)
        measured = f'{done} succeeded; of a goal in each {counted(cycled)}'
        check(f'{total} lifecycle cycles', measured, done == total and not cycled['no end'])
        growth = memory_mb[-1] / memory_mb[ROUNDS // 2 - 1] - 1
        shown = ' '.join(f'{each:.0f}' for each in memory_mb)
        check('memory after each round, MB', f'{shown}; {growth:+.1%} in the second half', growth <= MEMORY_TOLERANCE)
        status = robot.status()
        check('unexpected errors', status['unexpected_errors'], status['unexpected_errors'] == '0')
        node.interrupt()
        check('exit code', node.exit_code(), node.exit_code() == 0)
    finally:
        for each in robot.nodes:
            each.process.kill()
        robot.close()
    return int(bool(failures))


def counted(counter):
    return ', '.join(f'{count} {name}' for name, count in sorted(counter.items()))


def cpu_time_s(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


if __name__ == '__main__':
    sys.exit(main())

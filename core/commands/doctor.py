"""`instructsam doctor`: check the installation, ROS and camera topics, and say what to do about each fault."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

from instructsam.core import DEFAULT_MODEL, exit_codes
from instructsam.core.commands.arguments import seconds
from instructsam.core.commands.options import add_revision, option
from instructsam.core.doctor.check import Check, fault, note, run_checks

ROS_CHECKS = 'instructsam_ros.doctor'
"""The room of the checks of ROS, imported by name: core does not know ROS."""

SIGNS = {'ok': 'ok   ', 'note': 'note ', 'fault': 'FAULT'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `instructsam doctor`."""
    parser.epilog = 'Changes and downloads nothing. The exit code is 3 if there is a fault.'
    option(parser, '--model', 'built-in model, folder or hub id (of which only the cache is looked at)', DEFAULT_MODEL)
    add_revision(parser)
    option(parser, '--node', 'also check this running node and every topic that it reads', metavar='/NODE')
    parser.add_argument(
        '--image-topic',
        action='append',
        default=[],
        metavar='TOPIC',
        help='also check the publishers and the rate of this topic; repeatable',
    )
    option(parser, '--seconds', 'time for which messages are counted', 3.0, type=seconds, metavar='S')
    parser.add_argument(
        '--json',
        nargs='?',
        const='-',
        metavar='FILE',
        help='write the checks as JSON; without FILE, or with -, to stdout instead of the lines',
    )


def run(args: argparse.Namespace) -> int:
    """Print one line per check, and one per advice. Returns 3 if there is a fault, otherwise 0."""
    from instructsam.core.files.json_file import check_json_path, write_json

    check_json_path(args.json)
    found: list[Check] = []
    for check in run_checks([*_checks_of_computer(args), *_checks_of_ros(args)]):
        found.append(check)
        if args.json != '-':
            _print(check)
    faults = sum(check.level == 'fault' for check in found)
    if args.json is not None:
        write_json(args.json, {'faults': faults, 'checks': [check.to_json() for check in found]})
    if args.json != '-':
        print(f'{faults} fault{"" if faults == 1 else "s"}' if faults else 'no faults')
    return exit_codes.SOME_FAILED if faults else exit_codes.DONE


def _print(check: Check) -> None:
    print(f'{SIGNS[check.level]} {check.name}: {check.text}')
    if check.advice:
        print(f'      -> {check.advice}')
    sys.stdout.flush()


Checks = list[tuple[str, Callable[[], Iterator[Check]]]]


def _checks_of_computer(args: argparse.Namespace) -> Checks:
    from instructsam.core.doctor import computer
    from instructsam.core.doctor.model import check_model

    return [
        ('Python', computer.check_python),
        ('packages', computer.check_packages),
        ('torch', computer.check_torch),
        ('model', lambda: check_model(args.model, args.revision or '')),
    ]


def _checks_of_ros(args: argparse.Namespace) -> Checks:
    if importlib.util.find_spec('instructsam_ros') is None:
        return [('ROS', lambda: _without_ros(is_needed=bool(args.node or args.image_topic)))]
    environment = importlib.import_module(f'{ROS_CHECKS}.environment')
    checks: Checks = [
        ('ROS', environment.check_source),
        ('middleware', environment.check_middleware),
        ('shared memory', environment.check_shared_memory),
        ('network', environment.check_network),
        ('messages', environment.check_messages),
        ('ros2 launch', environment.check_launch),
        ('tf2', environment.check_optional),
    ]
    if args.node or args.image_topic:
        checks.append(('topics', lambda: _topics(args)))
    return checks


def _without_ros(*, is_needed: bool) -> Iterator[Check]:
    text = 'this installation has no ROS side: no module instructsam_ros'
    advice = 'source a workspace that contains it, or install with pip where ROS is sourced or has wheels'
    yield fault('ROS', text, advice) if is_needed else note('ROS', text, f'to use the node, {advice}')


def _topics(args: argparse.Namespace) -> Iterator[Check]:
    # Starting a node with such faults ends the process, or prints several lines.
    environment = importlib.import_module(f'{ROS_CHECKS}.environment')
    start = [environment.check_source, environment.check_shared_memory, environment.check_network]
    if any(check.level == 'fault' for checks in start for check in checks()):
        yield note('topics', 'not checked', 'repair the faults above first')
        return
    with importlib.import_module(f'{ROS_CHECKS}.topics').TopicChecks(args.seconds) as topics:
        if args.node:
            yield from topics.check_node(args.node)
        if args.image_topic:
            yield from topics.check_images(args.image_topic)

"""`instructsam bag verify`: compares a bag that `annotate` wrote with its original, message by message."""

import argparse

from instructsam_ros.bag.storage.limits import add_limits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two bags."""
    parser.epilog = (
        'Compared are topics, types, definitions, offered QoS and, for each message, recording time and bytes. Exit '
        'code 3 if OUT lacks or changes anything of IN, or has more than IN and the results; what '
        'differs is named.'
    )
    parser.add_argument('output', metavar='OUT', help='a bag that `instructsam bag annotate` wrote')
    parser.add_argument('input', metavar='IN', nargs='?', help='its original (default: where it was, as OUT says)')
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the bags and return the exit code."""
    from instructsam_ros.bag.verify import verify

    return verify(args)

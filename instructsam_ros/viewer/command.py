"""`instructsam watch`: the answers of a running node as lines, and in the viewer Rerun."""

import argparse

from instructsam.core.commands.arguments import count, seconds, text
from instructsam.core.commands.options import option
from instructsam_ros.viewer.sinks import NEW_VIEWER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the instruction, the node and where its answers are shown."""
    parser.add_argument(
        'instruction',
        metavar='INSTRUCTION',
        nargs='?',
        type=text,
        help='published as the instruction of the node, in force until the next one (default: the present one)',
    )
    option(parser, '--node', 'name of the node, with its namespace', '/perception', metavar='NAME')
    option(parser, '--camera', 'name of the camera, if the node has several', metavar='NAME')
    option(
        parser,
        '--instruction-topic',
        'topic on which the node receives instructions (default: `instruction` in its namespace)',
        metavar='TOPIC',
    )
    option(parser, '--count', 'end after so many answers (default: at Ctrl-C)', type=count, metavar='N')
    option(parser, '--timeout', 'end with an error after so long without an answer', type=seconds, metavar='S')
    rerun = parser.add_argument_group('Rerun (extra rerun)')
    rerun.add_argument(
        '--rerun',
        metavar='WHERE',
        nargs='?',
        const=NEW_VIEWER,
        help='also show images, masks, boxes, points and scores in Rerun: in a new viewer, or WHERE is the URL of a '
        'running one (rerun+http://127.0.0.1:9876/proxy) or a file to write (.rrd)',
    )
    option(
        rerun,
        '--topic',
        'topic of the colour images, if it cannot be told from the topics that the node reads',
        metavar='TOPIC',
    )


def run(args: argparse.Namespace) -> int:
    """Show answers and return the exit code."""
    from instructsam_ros.viewer.watch import watch

    return watch(args)

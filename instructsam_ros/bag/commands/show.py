"""`instructsam bag show`: the results in a bag as a video, an animation, a strip of images or a recording for Rerun."""

import argparse

from instructsam.core.commands.arguments import count, seconds
from instructsam.core.commands.options import option
from instructsam_ros.bag.names import DEFAULT_NAME, SHOW_SUFFIXES
from instructsam_ros.bag.storage.limits import add_limits
from instructsam_ros.viewer.sinks import RECORDING_SUFFIX


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bag, the file to write and how to draw it."""
    parser.add_argument('bag', metavar='OUT', help='a bag with results, such as `instructsam bag annotate` writes')
    parser.add_argument(
        'file',
        metavar='FILE',
        help=f'what to write, by its ending: {", ".join(SHOW_SUFFIXES)} (a video, an animation, a strip of images, a '
        'recording for the viewer Rerun: extra rerun)',
    )
    option(parser, '--topic', 'topic of the images (default: the only topic of colour images)', metavar='TOPIC')
    option(parser, '--name', 'prefix of the topics of results, if several', DEFAULT_NAME, metavar='NAME')
    option(parser, '--fps', 'images per second of a video or GIF (default: as recorded)', type=seconds, metavar='N')
    option(parser, '--frames', 'number of images in a strip, evenly spread over the bag', 6, type=count, metavar='N')
    option(parser, '--width', 'largest width of a GIF or of each image of a strip', 480, type=count, metavar='PX')
    rerun = parser.add_argument_group('Rerun', 'Depth in a recording; it is shown with the results of its stamps.')
    option(
        rerun,
        '--depth',
        'topic of depth aligned to the images (default: found by its name; off: none)',
        metavar='TOPIC',
    )
    option(rerun, '--camera-info', 'topic of their intrinsics (default: beside the images)', metavar='TOPIC')
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Draw the results and return the exit code."""
    if args.file.lower().endswith(RECORDING_SUFFIX):
        from instructsam_ros.bag.drawing.rerun_file import write_recording

        return write_recording(args)
    from instructsam_ros.bag.drawing.show import show

    return show(args)

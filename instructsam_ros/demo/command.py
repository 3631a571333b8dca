"""`instructsam demo`: a camera, the perception node and a user.

The camera replays recordings of a rendered and of a real table, or one of the caller's (see recorded). With --live it
is simulated and has depth (see live).
"""

import argparse
import os
import sys
from pathlib import Path

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import seconds, text
from instructsam.core.commands.options import option
from instructsam.core.errors import InstructSAMError
from instructsam.core.files.image_file import check_image_path
from instructsam_ros.demo.processes import NoResultError, isolated_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recording or the simulated table, the instruction, the model and the output."""
    option(
        parser,
        '--recording',
        'a bag, an image file or a folder of image files (default: two that ship with the package)',
        metavar='PATH',
        type=Path,
    )
    parser.add_argument('--live', action='store_true', help='a simulated RGB-D camera: masks, 3D and grasp candidates')
    option(parser, '--seed', 'the table in front of the camera of --live (default: 0)', metavar='N', type=int)
    option(parser, '--instruction', 'what to look for (default: what suits the images)', type=text)
    option(parser, '--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    option(parser, '--out', 'file for the overlays', 'instructsam_demo.png', metavar='FILE')
    option(parser, '--timeout', 'how long to wait for a result', 180.0, metavar='S', type=seconds)


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 0 if there was a result, also one without objects, else 1.

    Raises:
        InstructSAMError: the arguments cannot be used.
    """
    check_image_path(args.out)
    if args.live and args.recording:
        raise InstructSAMError('give --recording or --live, not both')
    if args.seed is not None and not args.live:
        raise InstructSAMError('--seed chooses the table of --live: give --live too')
    if args.recording and not args.instruction:
        raise InstructSAMError('give an --instruction for your recording')
    os.environ.update(isolated_environment())
    try:
        if args.live:
            from instructsam_ros.demo.live import show_live

            show_live(args.out, args.seed or 0, args.instruction, args.model, args.timeout)
        else:
            from instructsam_ros.demo.recorded import show_recordings

            show_recordings(args.out, args.recording, args.instruction, args.model, args.timeout)
    except NoResultError as error:
        print(f'instructsam: error: {error}', file=sys.stderr)
        return 1
    return 0

"""`instructsam train stitch MODEL BEFORE OUT`: make further trained image encoders fit the modules that read them."""

import argparse
from pathlib import Path

from instructsam.core.errors import InstructSAMError

MAX_IMAGES = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three folders and the images."""
    parser.add_argument(
        'model', metavar='MODEL', help='a final folder or checkpoint whose encoders were trained without their readers'
    )
    parser.add_argument('before', metavar='BEFORE', help='the model folder that they started from')
    parser.add_argument('out', metavar='OUT', help='the folder to write')
    parser.add_argument(
        '--images', required=True, metavar='FOLDER', help=f'a folder of *.jpg; the first {MAX_IMAGES} are used'
    )


def run(args: argparse.Namespace) -> int:
    """Stitch the model and return exit code 0."""
    from instructsam.train.weights.stitch import stitch

    images = sorted(Path(args.images).glob('*.jpg'))[:MAX_IMAGES]
    if not images:
        raise InstructSAMError(f'there are no *.jpg in {args.images}')
    stitch(args.model, args.before, args.out, images)
    print(f'the stitched model is in {args.out}')
    return 0

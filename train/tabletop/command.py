"""`instructsam tabletop`: `generate` writes training data, `page` draws scenes for people, `bag` records one."""

import argparse
import sys
from contextlib import contextmanager
from pathlib import Path

from instructsam.core.commands.arguments import count, seconds
from instructsam.core.errors import InstructSAMError
from instructsam.train.tabletop.world.splits import SPLITS

SIDES_PX = (16, 4096)


def add_arguments(parser):
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)

    def action(name, summary):
        return actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + '.')

    generate = action('generate', 'write scenes, instructions about them and exact masks to a folder')
    generate.add_argument('out', metavar='OUT', type=Path, help='folder to write to; made where it is missing')
    add_scene_arguments(generate, split='train', scenes=100)
    add_size(generate, 224, 224)
    generate.add_argument('--workers', type=count, metavar='N', help='processes (default: one a core)')
    generate.add_argument('--no-depth', action='store_true', help='leave out the depth images')

    page = action('page', 'draw a page of scenes, each with an instruction and its answer')
    page.add_argument('out', metavar='OUT.png', help='picture file to write')
    add_scene_arguments(page, split='train', scenes=24)

    bag = action('bag', 'record a scene as a ROS 2 bag of an RGB-D camera, with the truth beside it')
    bag.add_argument('out', metavar='OUT', type=Path, help='folder to make')
    add_seed_arguments(bag, 'test')
    bag.add_argument('--scene', type=seed, default=0, metavar='I', help='number under the seed (default: 0)')
    bag.add_argument('--seconds', type=seconds, default=2.0, metavar='S', help='(default: %(default)s)')
    bag.add_argument('--fps', type=seconds, default=10.0, metavar='N', help='frames a second (default: %(default)s)')
    add_size(bag, 448, 448)


def add_scene_arguments(parser, split, scenes):
    """--split, --scenes and --seed, with these defaults: which scenes."""
    add_seed_arguments(parser, split)
    parser.add_argument('--scenes', default=scenes, type=count, metavar='N', help='how many (default: %(default)s)')


def add_seed_arguments(parser, split):
    parser.add_argument(
        '--split',
        default=split,
        choices=SPLITS,
        help='unseen: with pairs, combinations and wordings that training never shows (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', default=0, type=seed, metavar='S', help='another seed, other scenes (default: %(default)s)'
    )


def add_size(parser, width, height):
    parser.add_argument(
        '--size',
        type=side,
        nargs=2,
        default=(width, height),
        metavar=('WIDTH', 'HEIGHT'),
        help=f'px (default: {width} {height})',
    )


def run(args):
    """Returns exit code 0. Raises InstructSAMError."""
    return {'generate': _generate, 'page': _page, 'bag': _bag}[args.action](args)


def _generate(args):
    check_drawing()
    from instructsam.train.tabletop.generate import generate

    with _writing(args.out):
        done = generate(
            args.out,
            args.split,
            args.scenes,
            args.seed,
            args.size,
            args.workers,
            not args.no_depth,
            progress=sys.stderr.isatty(),
        )
    for name in ('sentences', 'phrases'):
        counts = getattr(done, name)
        total = sum(counts.values())
        print(f'{total} {name}: ' + ', '.join(f'{kind} {count / total:.1%}' for kind, count in sorted(counts.items())))
    return 0


def _page(args):
    from instructsam.core.image_file import check_path

    check_path(args.out)
    if Path(args.out).suffix.lower() != '.png':
        raise InstructSAMError(f'cannot write {args.out}: a page is a PNG file. Give a name that ends in .png')
    check_drawing()
    from instructsam.train.tabletop.page import write_page

    with _writing(args.out):
        write_page(args.out, args.split, args.seed, args.scenes)
    return 0


def _bag(args):
    from instructsam.train.tabletop.bag import write_bag

    if args.out.exists():
        raise InstructSAMError(f'{args.out} exists already: give the name of a folder to be made')
    check_drawing()
    with _writing(args.out):
        frames = write_bag(args.out, args.split, args.seed, args.scene, args.size, args.seconds, args.fps)
    print(f'{frames} frames: {args.out}')
    return 0


@contextmanager
def _writing(out):
    """An OSError inside is an InstructSAMError that names the file, or `out` where the error does not."""
    try:
        yield
    except OSError as error:
        raise InstructSAMError(f'cannot write {error.filename or out}: {error.strerror or error}') from error


def check_drawing():
    """Raises where no scene can be drawn: ModuleNotFoundError without MuJoCo, InstructSAMError without OpenGL."""
    import mujoco  # noqa: F401

    from instructsam.train.tabletop.scenes.render import Renderer

    try:
        Renderer({}, {}, 16, 16).close()
    except RuntimeError as error:
        raise InstructSAMError(f'no scene can be drawn: {error}') from error


def seed(value):
    """A whole number from 0."""
    if not (value.isascii() and value.isdigit()):
        raise argparse.ArgumentTypeError(f'expected a whole number from 0, got {value!a}')
    return int(value)


def side(value):
    """Pixels of a picture's side."""
    low, high = SIDES_PX
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise argparse.ArgumentTypeError(f'expected {low} to {high} px, got {value!a}')
    return int(value)

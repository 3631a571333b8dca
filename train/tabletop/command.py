"""`instructsam tabletop`: `generate` writes training data, `page` an overview image of scenes, `bag` a recording."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from instructsam.core.atomic_write import check_new, new_folder
from instructsam.core.commands.arguments import count, seconds
from instructsam.core.commands.options import option
from instructsam.core.commands.parser import CommandParser, sentence
from instructsam.core.errors import InstructSAMError
from instructsam.train.tabletop.world.splits import SPLITS

SIDES_PX = (16, 4096)  # smallest and largest side of an image


def add_arguments(parser: CommandParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(dest='tabletop_command', metavar='COMMAND', required=True)

    def add(name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=sentence(summary))
        command.set_defaults(run_command=run)
        return command

    generate = add('generate', 'write scenes, instructions about them and exact masks to a folder', _generate)
    generate.add_argument('out', metavar='OUT', type=Path, help='folder to write to; created if it does not exist')
    add_scene_arguments(generate, split='train', scenes=100)
    _add_size(generate, 224, 224)
    generate.add_argument('--workers', type=count, metavar='N', help='processes (default: one per core)')
    option(
        generate,
        '--contrasts',
        'pairs of instructions per scene that differ in one word, besides the others',
        0,
        type=seed,
        metavar='N',
    )
    generate.add_argument('--no-depth', action='store_true', help='do not write the depth images')

    for name, summary in (
        ('cutouts', 'cut-outs of Fluent Emoji'),
        ('surfaces', 'photographed tables, floors and walls'),
    ):
        generate.add_argument(
            f'--{name}',
            type=Path,
            nargs='?',
            const=Path(),
            metavar='DIR',
            help=f'also {summary}; DIR: folder with their package (default: fetched once)',
        )

    page = add('page', 'draw an overview image of scenes, each with an instruction and its answer', _page)
    page.add_argument('out', metavar='OUT.png', help='image file to write')
    add_scene_arguments(page, split='train', scenes=24)

    bag = add(
        'bag', 'record a scene as a ROS 2 bag of an RGB-D camera, with the ground truth in a file beside it', _bag
    )
    bag.add_argument('out', metavar='OUT', type=Path, help='folder to create')
    _add_seed_arguments(bag, 'test')
    option(bag, '--scene', 'number of the scene under the seed', 0, type=seed, metavar='I')
    option(bag, '--seconds', 'length of the recording', 2.0, type=seconds, metavar='S')
    option(bag, '--fps', 'images per second', 10.0, type=seconds, metavar='N')
    _add_size(bag, 448, 448)


def add_scene_arguments(parser: argparse.ArgumentParser, split: str, scenes: int) -> None:
    """Add --split, --seed and --scenes, which select scenes, with these defaults."""
    _add_seed_arguments(parser, split)
    option(parser, '--scenes', 'number of scenes', scenes, type=count, metavar='N')


def _add_seed_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    option(
        parser,
        '--split',
        'unseen: with pairs, combinations and wordings that never occur in training',
        split,
        choices=SPLITS,
    )
    option(parser, '--seed', 'other seeds give other scenes', 0, type=seed, metavar='S')


def _add_size(parser: argparse.ArgumentParser, width: int, height: int) -> None:
    parser.add_argument(
        '--size',
        type=side,
        nargs=2,
        default=(width, height),
        metavar=('WIDTH', 'HEIGHT'),
        help=f'px (default: {width} {height})',
    )


def _generate(args: argparse.Namespace) -> int:
    check_drawing()
    from instructsam.train.packages import EMOJI, ROBOSUITE, find_package
    from instructsam.train.tabletop.generate import generate
    from instructsam.train.tabletop.scenes.variation import Variation

    cutouts, surfaces = (
        None if folder is None else find_package(package, folder if folder.name else None)
        for package, folder in ((EMOJI, args.cutouts), (ROBOSUITE, args.surfaces))
    )
    written = generate(
        args.out,
        args.split,
        args.scenes,
        args.seed,
        args.size,
        args.workers,
        contrasts=args.contrasts,
        depth=not args.no_depth,
        progress=sys.stderr.isatty(),
        variation=Variation(cutouts, surfaces) if cutouts or surfaces else None,
    )
    for name, counts in (('sentences', written.sentences), ('phrases', written.phrases)):
        total = sum(counts.values())
        print(f'{total} {name}: ' + ', '.join(f'{kind} {count / total:.1%}' for kind, count in sorted(counts.items())))
    return 0


def _page(args: argparse.Namespace) -> int:
    from instructsam.core.atomic_write import check_path

    check_path(args.out)
    if Path(args.out).suffix.lower() != '.png':
        raise InstructSAMError(f'cannot write {args.out}: a page is a PNG file. Give a name that ends in .png')
    check_drawing()
    from instructsam.train.tabletop.page import write_page

    write_page(args.out, args.split, args.seed, args.scenes)
    return 0


def _bag(args: argparse.Namespace) -> int:
    from instructsam.train.tabletop.bag import write_bag

    check_new(args.out)
    check_drawing()
    with new_folder(args.out) as folder:
        frames = write_bag(folder, args.split, args.seed, args.scene, args.size, args.seconds, args.fps)
    print(f'{frames} frames: {args.out}')
    return 0


def check_drawing() -> None:
    """Check that scenes can be rendered.

    Raises:
        ModuleNotFoundError: MuJoCo is not installed.
        InstructSAMError: OpenGL does not work.
    """
    import mujoco  # noqa: F401

    from instructsam.train.tabletop.scenes.render import Renderer

    try:
        Renderer({}, {}, 16, 16).close()
    except RuntimeError as error:
        raise InstructSAMError(f'no scene can be drawn: {error}') from error


def seed(value: str) -> int:
    """Parse a non-negative whole number."""
    if not (value.isascii() and value.isdigit()):
        raise argparse.ArgumentTypeError(f'expected a whole number from 0, got {value!a}')
    return int(value)


def side(value: str) -> int:
    """Parse the width or height of an image in px."""
    low, high = SIDES_PX
    if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
        raise argparse.ArgumentTypeError(f'expected {low} to {high} px, got {value!a}')
    return int(value)

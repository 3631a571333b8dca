"""`instructsam segment`: answer one instruction on an image file, as a table, JSON and overlay, or on many images."""

from __future__ import annotations

import argparse
import glob
import importlib
import os
import sys
from typing import TYPE_CHECKING

from instructsam.core import exit_codes
from instructsam.core.commands.arguments import count, probability, seconds, text
from instructsam.core.commands.options import (
    add_keep_duplicates,
    add_max_megapixels,
    add_model_options,
    load_model,
    option,
)
from instructsam.core.files.json_file import check_json_path, write_json
from instructsam.core.modes import VIDEO_ENDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from instructsam.core.result import Result
    from instructsam.core.spatial.camera_model import CameraModel


AGENT = 'instructsam.train.engines.agent'
"""The room of the agent, imported by name: core does not know the training package."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `instructsam segment`."""
    parser.epilog = (
        'Images (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM) are rotated upright (EXIF) and converted to 8-bit RGB: of 16 '
        'bits the upper 8 are used, of an animation the first frame, transparency is dropped. With several images, a '
        'folder, a quoted pattern, a video or a webcam (its index), each image is a line, --out is a folder with an '
        'overlay of each and results.jsonl, from which the same command resumes, and --json is a list.'
    )
    parser.add_argument(
        'images', metavar='IMAGE', nargs='+', help='image files, folders, patterns, videos, or the index of a webcam'
    )
    parser.add_argument('instruction', metavar='INSTRUCTION', type=text, help="e.g. 'the mugs left of the kettle'")
    add_model_options(parser)
    option(parser, '--threshold', 'instances must score above it, 0 to 1', 0.5, type=probability)
    option(parser, '--out', 'write the overlay to this image file; of several images, to this folder', metavar='FILE')
    option(parser, '--json', 'write the result as JSON; - is stdout (the table then goes to stderr)', metavar='FILE')
    option(parser, '--coco', 'write all results as COCO JSON, a category for each phrase; - is stdout', metavar='FILE')
    option(
        parser,
        '--masks',
        'write a 16-bit PNG per image to this folder: 0 is background, i + 1 the i-th object',
        metavar='DIR',
    )
    option(parser, '--every', 'use every N-th frame of videos and webcams', 1, type=count, metavar='N')
    option(parser, '--max-images', 'end after this many images, such as frames of a webcam', type=count, metavar='N')
    option(parser, '--max-new-tokens', 'most tokens of the answer', 256, type=count, metavar='N')
    option(parser, '--time-budget', 'seconds after which decoding of the answer ends', type=seconds, metavar='S')
    option(
        parser,
        '--depth',
        'depth image, aligned to the image (16-bit mm, or .npy or TIFF in m): the table and the JSON then contain '
        'positions and sizes of the objects; requires --camera, and that neither file has an EXIF rotation',
        metavar='FILE',
    )
    parser.add_argument(
        '--camera',
        type=float,
        nargs=4,
        metavar=('FX', 'FY', 'CX', 'CY'),
        help='intrinsics of the image, which must be without distortion, px',
    )
    add_keep_duplicates(parser)
    add_max_megapixels(parser)
    forced = parser.add_mutually_exclusive_group()
    forced.add_argument('--phrase', type=text, action='append', help='skip decoding, look for this phrase; repeatable')
    forced.add_argument('--answer', type=text, help="skip decoding, use this answer in the model's notation")
    importlib.import_module(f'{AGENT}.options').add_agent_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print and write the result. Returns 0 if the model answered, even with 'no target', 1 if a limit ended it first.

    Raises InstructSAMError for input that cannot be used. All cheap checks come before torch is imported.
    """
    from instructsam.core.files.image_file import check_image_path, read_image, write_image

    importlib.import_module(f'{AGENT}.options').is_agent(args)  # checks the arguments
    if _is_many(args):
        from instructsam.core.commands.segment_many import run_many

        return run_many(args, _load)
    (name,) = args.images
    # Depth and intrinsics belong to the pixels as they are stored.
    image = read_image(name, args.max_megapixels, allow_rotation=args.depth is None)
    depth_and_camera = _read_depth(args, image)
    taken = [file for file in (name, args.depth) if file is not None]
    if args.out is not None:
        check_image_path(args.out, taken)
        taken.append(args.out)
    check_json_path(args.json, taken)

    result = _load(args)(image)
    if depth_and_camera is not None:
        result = _locate(result, *depth_and_camera)
    if args.out is not None:
        from instructsam.core.display.overlay import draw_overlay

        write_image(args.out, draw_overlay(image, result))
    if args.json is not None:
        write_json(args.json, result.to_json())

    from instructsam.core.display.table import print_result

    print_result(result, to_stderr=args.json == '-')
    return exit_codes.FAILED if result.status == 'error' else exit_codes.DONE


def _read_depth(args: argparse.Namespace, image: np.ndarray) -> tuple[np.ndarray, CameraModel] | None:
    """Read and check --depth and --camera; None if they are not given."""
    from instructsam.core.errors import InstructSAMError
    from instructsam.core.files.image_file import read_depth

    if (args.depth is None) != (args.camera is None):
        raise InstructSAMError('--depth and --camera go together: a position needs the distance and the direction')
    if args.depth is None:
        return None

    from instructsam.core.spatial.calibration import Calibration, camera_model
    from instructsam.core.spatial.geometry import check_alignment, check_units

    fx, fy, cx, cy = args.camera
    height, width = image.shape[:2]
    depth = read_depth(args.depth, args.max_megapixels)
    check_alignment(depth, (height, width))
    check_units(depth)
    camera = camera_model(Calibration(width, height, k=(fx, 0, cx, 0, fy, cy, 0, 0, 1)), (height, width))
    return depth, camera


def _is_many(args: argparse.Namespace) -> bool:
    name = args.images[0]
    if len(args.images) > 1 or args.coco is not None or args.masks is not None or os.path.isdir(name):
        return True
    if os.path.lexists(name):
        return name.lower().endswith(VIDEO_ENDINGS)
    return name.isdecimal() or glob.has_magic(name)


def _load(args: argparse.Namespace) -> Callable[[np.ndarray], Result]:
    """Load the model, and return the function that answers the instruction on an image."""
    if importlib.import_module(f'{AGENT}.options').is_agent(args):
        return _load_agent(args)
    engine = load_model(args)
    answer = engine.answer_for(args.phrase) if args.phrase else args.answer
    return lambda image: engine.segment(
        engine.encode(image),
        args.instruction,
        score_threshold=args.threshold,
        answer=answer,
        max_new_tokens=args.max_new_tokens,
        time_budget_s=args.time_budget,
        suppress_duplicates=not args.keep_duplicates,
    )


def _load_agent(args: argparse.Namespace) -> Callable[[np.ndarray], Result]:
    from instructsam.core.errors import InstructSAMError

    for name in ('phrase', 'answer', 'time_budget'):
        if getattr(args, name) is not None:
            raise InstructSAMError(f'--{name.replace("_", "-")} belongs to --engine model: leave it out')
    engine = importlib.import_module(f'{AGENT}.loading').load_agent(args, args.device)
    return lambda image: engine.segment(engine.encode(image), args.instruction, score_threshold=args.threshold)


def _locate(result: Result, depth: np.ndarray, camera: CameraModel) -> Result:
    """Locate the instances in 3D; print those that cannot be located."""
    from instructsam.core.spatial.geometry import locate

    result = locate(result, depth, camera)
    for instance in result.instances:
        if instance.geometry_message:
            print(f'{instance.phrase} at {instance.box}: {instance.geometry_message}', file=sys.stderr)
    return result

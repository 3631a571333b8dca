"""`instructsam train tabletop [DIR]`: the whole recipe of the small model, from nothing to a measured model."""

import argparse
import os
from pathlib import Path

from instructsam.core import exit_codes
from instructsam.core.commands.arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, and what to run."""
    parser.epilog = (
        'The same command resumes a recipe that was stopped, at any point. A step counts as done if its result, or '
        'that of a later training stage, exists: delete them to do it again.'
    )
    parser.add_argument(
        'folder', metavar='DIR', type=Path, nargs='?', default=Path(), help='folder for data/ and runs/ (default: .)'
    )
    parser.add_argument('--dry-run', action='store_true', help='print the steps and their expected times, and end')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        '--quick', action='store_true', help='two steps of each stage on a few scenes, without the network: a test'
    )
    sizes.add_argument('--gpu', action='store_true', help='train in one process with large batches in bfloat16')
    parser.add_argument(
        '--bfloat16',
        action='store_true',
        help='train in bfloat16, which is faster on CPUs with instructions for it; --gpu always does',
    )
    parser.add_argument('--minutes', type=count, metavar='N', help='stop after N minutes, to resume later')


def run(args: argparse.Namespace) -> int:
    """Run what is missing and return an exit code: 3 if the time is over before the end.

    Raises InstructSAMError.
    """
    from dataclasses import replace

    from instructsam.core.folder_lock import FolderLock
    from instructsam.core.storage import explained_storage_faults
    from instructsam.train.small_model.plan import BFLOAT16, CPU, GPU, QUICK, RUNS, plan
    from instructsam.train.small_model.run import describe, run_steps

    size = QUICK if args.quick else GPU if args.gpu else CPU
    if args.bfloat16:
        size = replace(size, changes=(*size.changes, BFLOAT16))
    steps = plan(size, os.cpu_count() or 1)
    if args.gpu:
        print('The expected times of the stages are those of one CPU core; a GPU has not been measured.')
    if args.dry_run:
        print(*describe(steps, args.folder), sep='\n')
        return exit_codes.DONE
    with FolderLock(args.folder / RUNS), explained_storage_faults(args.folder):
        left = run_steps(steps, args.folder, minutes=args.minutes, report=lambda line: print(line, flush=True))
    if left:
        print(f'the time is over before: {", ".join(step.name for step in left)}; the same command resumes')
        return exit_codes.SOME_FAILED
    print(f'the model is in {args.folder / RUNS / "model"}, its figures beside it')
    return exit_codes.DONE

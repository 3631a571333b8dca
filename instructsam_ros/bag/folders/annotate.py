"""`instructsam bag annotate IN OUT` of a folder with bags: each becomes a bag of the same name in OUT.

Beside each bag lies its record, NAME.json: the inputs that decided it, by which a second call knows what is finished.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from instructsam.core import exit_codes
from instructsam.core.errors import InstructSAMError
from instructsam.core.folder_lock import FolderLock
from instructsam.core.stop_signals import resume_hint
from instructsam.core.text import one_line, shorten
from instructsam_ros.bag.annotate import CommandModel
from instructsam_ros.bag.folders.one_bag import Annotated, annotate_one


def annotate_folder(args: argparse.Namespace, bags: Mapping[str, Path]) -> int:
    """Annotate bags and print a summary; return the exit code.

    Args:
        args: Options of the command.
        bags: The bags by name.

    Raises:
        InstructSAMError: The options, the model or the output cannot be used.
    """
    args = _with_whole_paths(args)
    out = Path(args.output)
    _check_folders(Path(args.input), out)
    if args.ray:
        from instructsam_ros.bag.folders.ray_actors import annotate_on_ray  # noqa: PLC0415  # of an extra
    elif args.ray_actors is not None or args.ray_gpus is not None:
        raise InstructSAMError('--ray-actors and --ray-gpus belong to --ray: add that, or leave them out')
    model = CommandModel(args)
    tasks = [
        argparse.Namespace(**{**vars(args), 'input': str(path), 'output': str(out / name)})
        for name, path in bags.items()
    ]
    with FolderLock(out), resume_hint(lambda: f'the same command continues with the bags that {out} lacks'):
        return _summarise(annotate_on_ray(args, tasks) if args.ray else _one_by_one(tasks, model), len(tasks))


def _one_by_one(tasks: Sequence[argparse.Namespace], model: CommandModel) -> Iterator[Annotated]:
    for task in tasks:
        print(f'\n{one_line(Path(task.output).name)}', flush=True)
        yield annotate_one(task, model)


def _summarise(results: Iterator[Annotated], total: int) -> int:
    """Print each result and the counts; return the exit code."""
    done, failed = [], []
    for result in results:
        if result.printed:
            print(f'\n{one_line(result.name)}\n{result.printed}', end='')
        if not result.is_new:
            print(f'{one_line(result.name)} is finished already')
        if result.error:
            print(f'instructsam: {one_line(result.name)} failed: {one_line(result.error)}', file=sys.stderr)
        (failed if result.error else done).append(result)
        print(f'{len(done) + len(failed)} of {total} bags', file=sys.stderr)
    before = sum(not each.is_new for each in done)
    print(f'\n{total} bags: {len(done) - before} annotated, {before} finished before, {len(failed)} failed')
    if failed:
        names = shorten(', '.join(each.name for each in failed))
        print(f'failed: {names}; the same command tries them again')
    codes = {each.exit_code for each in done} | {exit_codes.FAILED for _ in failed}
    if codes == {exit_codes.FAILED}:
        return exit_codes.FAILED
    return exit_codes.SOME_FAILED if codes != {exit_codes.DONE} else exit_codes.DONE


def _check_folders(bags: Path, out: Path) -> None:
    real_bags, real_out = bags.resolve(), out.resolve()
    if real_out.is_relative_to(real_bags) or real_bags.is_relative_to(real_out):
        raise InstructSAMError(f'{out} and {bags} are in each other: give another folder for the new bags')
    if out.exists() and not out.is_dir():
        raise InstructSAMError(f'{out} is not a folder: give a folder for the new bags')


def _with_whole_paths(args: argparse.Namespace) -> argparse.Namespace:
    """Return the options with whole paths, as processes of Ray have another working folder."""
    whole = dict(vars(args))
    for name in ('input', 'output', 'instructions'):
        if whole[name] is not None:
            whole[name] = str(Path(whole[name]).absolute())
    model = Path(args.model).expanduser()
    if model.is_dir():
        whole['model'] = str(model.absolute())
    return argparse.Namespace(**whole)

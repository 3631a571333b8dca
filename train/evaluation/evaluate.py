"""Implementation of `instructsam eval BENCHMARK`: load a model, run it on a benchmark, and print the figures."""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import instructsam.core
from instructsam.core import builtin, exit_codes
from instructsam.core.atomic_write import check_path
from instructsam.core.commands.options import precision
from instructsam.core.errors import DataError, InstructSAMError
from instructsam.core.files.json_file import write_json
from instructsam.core.run_settings import fingerprint, model_fingerprint
from instructsam.core.version import version
from instructsam.train import engines, evaluation, tabletop, vlm
from instructsam.train.engines import autoregressive
from instructsam.train.evaluation import agent_runs
from instructsam.train.evaluation.benchmarks import BENCHMARKS, Benchmark
from instructsam.train.evaluation.figures.summary import summarise
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.readers import read_benchmark
from instructsam.train.evaluation.real.source import open_real
from instructsam.train.evaluation.reporting.console_table import print_table
from instructsam.train.evaluation.running.progress_bar import with_progress_bar
from instructsam.train.evaluation.running.prompting import PromptOptions, QueryEngine
from instructsam.train.evaluation.running.run_folder import Run, read_run, result_files
from instructsam.train.evaluation.running.runner import Process, run_benchmark
from instructsam.train.evaluation.running.sources import FileSource, Source
from instructsam.train.evaluation.tabletop import TabletopSource
from instructsam.train.tabletop.command import check_drawing

RESULTS = Path('runs/eval')
CODE = (instructsam.core, engines, evaluation, tabletop, vlm)
"""Packages that decide the results: a run can only be resumed with the same code."""


def evaluate(args: argparse.Namespace) -> int:
    """Run the benchmark and return the exit code; all processes but the first return that of success.

    Raises:
        InstructSAMError: The options, the data, the model or the run's folder cannot be used.
    """
    benchmark = BENCHMARKS[args.benchmark]
    options = prompt_options(benchmark, args)
    if args.json not in (None, '-'):
        check_path(args.json, result_files(args.results) if args.results else ())
    model_folder = agent_runs.model_folder(args) or builtin.folder(args.model, args.revision or '')
    source = open_source(args)
    header = run_header(args, options, source, Path(model_folder))
    folder = args.results or RESULTS / _run_name(args, header)
    process = Process.from_environment()
    title = f'{args.benchmark} {args.split}'

    agent = None
    if agent_runs.is_agent(args):
        agent = agent_runs.AgentRun(args, folder, header, process.rank, process.world_size)

    def load() -> QueryEngine:
        return load_engine(args, process, agent)

    def track(outcomes: Iterable[Outcome], num_images: int) -> Iterable[Outcome]:
        shown = with_progress_bar(outcomes, num_images, title=title, threshold=options.threshold, empty=args.empty)
        return shown if agent is None else agent.keep(shown)

    left = run_benchmark(load, source, options, folder, header, process, track)
    if process.rank:
        return exit_codes.DONE
    run = read_run(folder, header)
    if left:
        print(f'{left:,} of {len(source):,} images are left', file=sys.stderr)
        if not run.outcomes:
            return exit_codes.SOME_FAILED
    failed = report_figures(args, run, benchmark, left)
    if failed == len(run.outcomes):
        return exit_codes.FAILED
    return exit_codes.SOME_FAILED if failed or left else exit_codes.DONE


def prompt_options(benchmark: Benchmark, args: argparse.Namespace) -> PromptOptions:
    """Return how queries are put, from the benchmark and the command line.

    Raises:
        InstructSAMError: A prompt lacks the placeholder {text}.
    """
    if args.prompt is not None and '{text}' not in args.prompt and '{lowered}' not in args.prompt:
        raise InstructSAMError(f'--prompt {args.prompt!r} lacks the placeholder {{text}}')
    lowest = args.lowest if args.lowest is not None else benchmark.lowest
    prompts = agent_runs.prompts(args, benchmark)
    if args.prompt is not None:
        prompts = dict.fromkeys(prompts, str(args.prompt))
    return PromptOptions(
        threshold=args.threshold,
        lowest=args.threshold if lowest is None else min(lowest, args.threshold),
        prompts=prompts,
        suppress_duplicates=args.duplicates == 'suppress',
        max_new_tokens=args.max_new_tokens,
        phrase=getattr(args, 'phrase', 'generated'),
        own_queries=getattr(args, 'own_queries', False),
    )


def open_source(args: argparse.Namespace) -> Source:
    """Return the images and queries that the command line asks for.

    Raises:
        DataError: The data set is missing or broken.
        InstructSAMError: Scenes cannot be drawn on this machine.
    """
    if args.benchmark == 'tabletop':
        check_drawing()
        return TabletopSource(args.split, args.seed, args.scenes, args.kinds, args.workers, args.limit)
    if args.benchmark == 'real':
        return open_real(args.split, args.seed, args.images, args.data, args.limit)
    if args.data is None:
        raise DataError(f'{args.benchmark} is read from files: give their folder with --data')
    return FileSource(read_benchmark(args.benchmark, args.data, args.split, args.images, args.split_by), args.limit)


def run_header(args: argparse.Namespace, options: PromptOptions, source: Source, model_folder: Path) -> dict[str, Any]:
    """Return everything that decides the results; a run is resumed only if all of it is the same."""
    device = args.device if args.device != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu'
    return {
        'benchmark': args.benchmark,
        'split': args.split,
        **source.identity(),
        'model': agent_runs.model_name(args),
        'revision': builtin.commit_of(model_folder),
        'model_hash': model_fingerprint(model_folder),
        'mode': args.mode,
        **asdict(options),
        'empty': args.empty,
        'device': device.partition(':')[0],
        'dtype': args.dtype if agent_runs.is_agent(args) else precision(args, model_folder),
        'compile': args.compile,
        'threads': args.threads,
        **agent_runs.header(args),
        'code': f'{version()} {code_fingerprint([package_folder(package) for package in CODE])}',
    }


def code_fingerprint(folders: Sequence[Path]) -> str:
    """Return the fingerprint of all Python files in `folders` and their subfolders."""
    return fingerprint(
        (f'{folder.name}/{file.relative_to(folder).as_posix()}', file)
        for folder in folders
        for file in sorted(folder.rglob('*.py'))
    )


def package_folder(package: ModuleType) -> Path:
    """Return the folder of a package."""
    return Path(package.__path__[0])


def _run_name(args: argparse.Namespace, header: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:8]
    return f'{args.benchmark}_{args.split}_{agent_runs.run_name(args)}_{digest}'


def load_engine(args: argparse.Namespace, process: Process, agent: agent_runs.AgentRun | None) -> QueryEngine:
    """Load the engine that the command line asks for; with several GPUs, on the one of this process."""
    torch.set_num_threads(args.threads)
    device = args.device
    if device == 'auto' and torch.cuda.is_available():
        device = f'cuda:{process.local_rank % torch.cuda.device_count()}'
    if agent is not None:
        return agent.load(device)
    return autoregressive.load_engine(
        args.model, args.mode, device=device, dtype=args.dtype, revision=args.revision or '', compile=args.compile
    )


def report_figures(args: argparse.Namespace, run: Run, benchmark: Benchmark, left: int = 0) -> int:
    """Print the figures of a run, write them as JSON if asked to, and return the number of failed queries.

    Args:
        args: Options of the command.
        run: The run.
        benchmark: Its benchmark.
        left: Images that a spent budget has left.

    Raises:
        InstructSAMError: The run is empty, or the JSON file cannot be written.
    """
    if not run.outcomes:
        raise InstructSAMError('there is nothing to ask: no sample of these types. Ask for more samples or other types')
    document = {
        **run.header,
        'run': str(run.folder),
        'warning': builtin.warning(run.header['model']),
        **summarise(run.outcomes, args.threshold, args.empty),
        **({'images_left': left} if left else {}),
    }
    if args.json is not None:
        write_json(args.json, document)
    print_table(
        f'{agent_runs.title(args)} on {args.benchmark} {args.split}', document, benchmark, to_stderr=args.json == '-'
    )
    return document['failed']['queries']

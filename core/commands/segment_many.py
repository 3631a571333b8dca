"""`instructsam segment` on several images: a line for each, a progress bar, and outputs that a later run resumes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instructsam.core import builtin, exit_codes
from instructsam.core.batch.outputs import (
    OVERLAYS,
    RECORD,
    RESULTS,
    OutputNames,
    ResultFolder,
    Row,
    coco_document,
    row_of,
    write_label_image,
    write_overlay,
)
from instructsam.core.batch.sources import Source, SourceImage, find_sources
from instructsam.core.commands.options import precision
from instructsam.core.display.overlay import draw_overlay
from instructsam.core.errors import ImageError, InstructSAMError, ModelError
from instructsam.core.files.json_file import check_json_path, write_json
from instructsam.core.folder_lock import FolderLock
from instructsam.core.result import Result
from instructsam.core.run_settings import model_fingerprint
from instructsam.core.text import shorten

Segment = Callable[[np.ndarray], Result]
SETTINGS = (
    *('instruction', 'threshold', 'mode', 'dtype', 'phrase', 'answer', 'max_new_tokens', 'time_budget'),
    *('keep_duplicates', 'engine', 'vlm_model', 'agent_masks', 'sam3'),
)
"""Arguments that decide the results; the model counts by its contents."""


def run_many(args: argparse.Namespace, load: Callable[[argparse.Namespace], Segment]) -> int:
    """Answer the instruction on every image of the inputs. Returns an exit code.

    Args:
        args: The arguments of `instructsam segment`.
        load: Loads the model; called when there is something to do.
    """
    sources = find_sources(args.images, _outputs(args))
    if args.depth is not None or args.camera is not None:
        raise InstructSAMError('--depth and --camera describe one image: give one image file')
    if args.coco == args.json == '-':
        raise InstructSAMError('--coco and --json cannot both be -: give one of them a file')
    files = [source.path for source in sources if not source.is_live]
    for path in (args.coco, args.json):
        check_json_path(path, [*files, *(other for other in (args.coco, args.json) if other not in (None, '-', path))])
    with ExitStack() as stack:
        for folder in dict.fromkeys(os.path.realpath(each) for each in (args.out, args.masks) if each is not None):
            stack.enter_context(FolderLock(folder))
        stored = None
        if args.out is not None:
            stored = ResultFolder(Path(args.out), _settings(args))
            stack.callback(stored.close)
        run = _Run(args, load, stored)
        try:
            run.answer(sources)
        except KeyboardInterrupt:
            if any(source.is_live for source in sources):  # Ctrl-C is the usual end of a webcam
                run.write_documents()
            raise
        run.write_documents()
    return run.exit_code()


def _outputs(args: argparse.Namespace) -> list[Path]:
    """Return what the command writes to --out, which may also hold the inputs, and the folder of --masks."""
    outputs = [Path(args.out, name) for name in (RECORD, RESULTS, OVERLAYS)] if args.out is not None else []
    return outputs + ([Path(args.masks)] if args.masks is not None else [])


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    settings = {name: getattr(args, name) for name in SETTINGS}
    if args.engine != 'model':
        return settings | {'model': args.model}
    folder = builtin.folder(args.model, args.revision or '')
    return settings | {'model': model_fingerprint(folder), 'dtype': precision(args, folder)}


class _Run:
    """The loop over all images, and what it has found."""

    def __init__(
        self, args: argparse.Namespace, load: Callable[[argparse.Namespace], Segment], stored: ResultFolder | None
    ) -> None:
        self._args = args
        self._load = load
        self._segment: Segment | None = None
        self._stored = stored
        self._names = OutputNames(stored.rows if stored is not None else ())
        self._rows: list[Row] = []
        self._is_kept = args.coco is not None or args.json is not None
        self._done = self._resumed = self._failed = 0

    def answer(self, sources: list[Source]) -> None:
        """Answer all images, with a progress bar on a terminal."""
        args = self._args
        counts = [source.count(args.every) for source in sources]
        total = None if None in counts else sum(count or 0 for count in counts)
        if args.max_images is not None:
            total = min(args.max_images, total or args.max_images)
        console = Console(stderr=True)
        columns = (TextColumn('images'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Lines on a terminal appear above the bar; those for a file or a pipe must not become output of the bar.
        with Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        ) as progress:
            bar = progress.add_task('', total=total)
            for number, image in enumerate(self._images(sources), start=1):
                self._answer(image)
                progress.update(bar, completed=number)
                if number == args.max_images:
                    break

    def _images(self, sources: list[Source]) -> Iterator[SourceImage]:
        for source in sources:
            try:
                yield from source.images(self._args.max_megapixels, self._args.every)
            except ImageError as error:  # the source cannot be opened; its images raise theirs below
                self._fail(source.path, error)

    def _answer(self, image: SourceImage) -> None:
        args = self._args
        row = self._stored.rows.get(image.name) if self._stored is not None and image.identity else None
        if row is not None and row['identity'] == image.identity and self._has_mask(image.name):
            self._keep(row)
            self._resumed += 1
            return
        if self._segment is None:
            self._segment = self._load(args)
        try:
            pixels = image.read()
            result = self._segment(pixels)
        except (ImageError, ModelError) as error:  # errors of the instruction or the storage concern all images
            self._fail(image.name, error)
            return
        if result.status == 'error':
            self._fail(image.name, f'no answer: {result.ended_by}')
            return
        try:
            self._write_images(image.name, pixels, result)
        except OSError as error:  # of this image, such as a name that is too long; faults of the storage are no OSError
            self._fail(image.name, f'cannot write its outputs: {error.strerror or error}')
            return
        row = row_of(image.name, image.identity, result)
        if self._stored is not None:
            self._stored.add(row)
        self._keep(row)
        found = ', '.join(f'{each.phrase} {each.score:.2f}' for each in result.instances) or 'no target'
        is_document = '-' in (args.json, args.coco)  # on stdout
        print(f'{shorten(image.name)}: {shorten(found)}', file=sys.stderr if is_document else sys.stdout)

    def _has_mask(self, image: str) -> bool:
        """Return whether an image that was answered earlier has its label image, if they are written."""
        masks = self._args.masks
        return masks is None or Path(masks, self._names.take(image, '.png')).exists()

    def _write_images(self, image: str, pixels: np.ndarray, result: Result) -> None:
        args = self._args
        if args.masks is not None:
            write_label_image(Path(args.masks), self._names.take(image, '.png'), result)
        if args.out is not None:
            overlay = Path(OVERLAYS, self._names.take(image, '.jpg'))
            write_overlay(Path(args.out), overlay, draw_overlay(pixels, result))

    def _keep(self, row: Row) -> None:
        self._done += 1
        if self._is_kept:
            self._rows.append(row)

    def _fail(self, name: str, error: Exception | str) -> None:
        self._failed += 1
        print(f'instructsam: {shorten(name)} failed: {shorten(error)}', file=sys.stderr)

    def write_documents(self) -> None:
        """Write --coco and --json, with the images so far."""
        if self._args.coco is not None:
            write_json(self._args.coco, coco_document(self._rows))
        if self._args.json is not None:
            write_json(self._args.json, self._rows)

    def exit_code(self) -> int:
        """Print the summary and return the exit code."""
        done = self._done
        parts = [f'{done} answered'] + ([f'{self._resumed} of them earlier'] if self._resumed else [])
        parts += [f'{self._failed} failed'] if self._failed else []
        print(f'{done + self._failed} images: {", ".join(parts)}', file=sys.stderr)
        if not self._failed:
            return exit_codes.DONE
        return exit_codes.SOME_FAILED if done else exit_codes.FAILED

"""Writes the export of a run: every file completely or not at all, and the same files for the same rows."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from instructsam.core.atomic_write import replaced, write_text
from instructsam.core.errors import DataError
from instructsam.core.files.json_file import write_json
from instructsam.core.folder_lock import FolderLock
from instructsam.core.storage import explained_storage_faults
from instructsam.train.data_engine.export.documents import array_of, benchmark_records, coco, training_records
from instructsam.train.data_engine.export.page import (
    REJECTED_SHOWN,
    Card,
    Counts,
    cards_of,
    rejected_card,
    render,
    summary,
)
from instructsam.train.data_engine.export.samples import FOLDER, SPLITS, Exported, exported
from instructsam.train.data_engine.images.files import ImageFiles
from instructsam.train.data_engine.recipe import EngineRecipe
from instructsam.train.data_engine.rows import STAGES, Row
from instructsam.train.data_engine.runners.store import StageFile

BENCHMARK_SPLITS = {'test': 'validation'}  # split of the benchmark -> split of the export


def export(recipe: EngineRecipe) -> dict[str, Any]:
    """Write the export of a run into OUTPUT/export and return its figures.

    - train.json, validation.json: training records; `images` is the folder of the export
    - test.json: the questions of the validation images in the form of the benchmark
    - coco.json: all of them for other tools
    - samples.html, summary.json: samples, counts, rejections by rule
    - images/: links to the pictures, or copies

    Raises:
        DataError: The rows are missing or damaged.
        StorageError: A file cannot be written.
    """
    run = Path(recipe.output)
    folder, settings = run / 'export', recipe.export
    files = ImageFiles(run, recipe.sources, recipe.images.max_megapixels)
    with StageFile(run / f'{STAGES[-1]}.jsonl') as file, FolderLock(folder):

        def rows() -> Iterator[Exported]:
            return exported(file, settings)

        _write_images(rows(), files, folder, copy=settings.copy_images)
        for split in SPLITS:
            _write(folder / f'{split}.json', array_of(training_records(rows(), split, negatives=settings.negatives)))
        for name, split in BENCHMARK_SPLITS.items():
            _write(folder / f'{name}.json', array_of(benchmark_records(rows(), split)))
        _write(folder / 'coco.json', coco(rows))
        counts = Counts()
        for row in file:
            counts.add(row)
        figures = summary(counts, rows(), negatives=settings.negatives)
        write_json(folder / 'summary.json', figures)
        write_text(folder / 'samples.html', render(figures, *_cards(file, files, settings.samples)))
    print(
        f'{folder}: {figures["questions_exported"]:,} of {figures["questions"]:,} questions about '
        f'{sum(figures["images_by_split"].values()):,} of {figures["images"]:,} images',
        file=sys.stderr,
    )
    splits = figures['images_by_split']
    if figures['questions'] and not splits:
        print(f'no question is left: {folder / "samples.html"} shows why they were rejected', file=sys.stderr)
    elif splits and 'validation' not in splits:
        print(
            f'{folder / "validation.json"} is empty: raise export.validation_share ({settings.validation_share:g}) to '
            f'have some of the images in it',
            file=sys.stderr,
        )
    return figures


def _write(path: Path, texts: Iterable[str]) -> None:
    with replaced(path) as part, part.open('w', encoding='utf-8') as file:
        file.writelines(texts)


def _write_images(images: Iterable[Exported], files: ImageFiles, folder: Path, *, copy: bool) -> None:
    """Link or copy the pictures; those of an earlier export that are gone are removed."""
    with explained_storage_faults(folder):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        wanted = set()
        for each in images:
            source, target = files.path(each.image).absolute(), folder / each.name
            wanted.add(target.name)
            if not source.is_file():
                raise DataError(f'{each.image.origin} of source {each.image.source!r} is no longer a file: restore it')
            if target.is_symlink() and (copy or os.readlink(target) != str(source)):
                target.unlink()
            if not os.path.lexists(target):
                if copy:
                    with replaced(target) as part:
                        shutil.copyfile(source, part)
                else:
                    target.symlink_to(source)
        for entry in (folder / FOLDER).iterdir():
            if entry.name not in wanted:
                entry.unlink()


def _cards(file: StageFile, files: ImageFiles, samples: int) -> tuple[list[Card], dict[str, list[Card]]]:
    """Return the cards of evenly spaced rows, and of the first rejections by each rule."""
    kept: list[int] = []
    rejected: dict[str, list[Card]] = {}
    for row in file:
        if row.kept_questions():
            kept.append(row.order)
        for rejection in row.rejections:
            cards = rejected.setdefault(f'{rejection.stage}: {rejection.rule}', [])
            if samples and len(cards) < REJECTED_SHOWN:
                cards.append(rejected_card(row, rejection, files))
    chosen: list[Row] = []
    if kept and samples:
        step = max(1, -(-len(kept) // samples))
        chosen = [file.read(order) for order in kept[::step]]
    return cards_of(chosen, files), dict(sorted(rejected.items()))

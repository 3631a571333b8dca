"""Write a split of the tabletop world to a folder: `instructsam tabletop generate`.

    images/NAME.jpg            the colour images
    depth/NAME.png             16 bit, mm along the optical axis, 0 beyond 65 m
    SPLIT_phrases.json         bare phrases with all objects that they describe (stage 1)
    SPLIT_sentences.json       instructions (stage 2)
    SPLIT_scenes.jsonl         one line per scene: camera, pose, objects with their masks
    SPLIT_run.json             the settings, and the numbers of what was written

The files depend only on split, seed, size and the number of scenes, not on the number of workers. Until all scenes are
written, their records are kept in SPLIT.part, from which the same call resumes after an interruption.
"""

import json
import os
import sys
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from instructsam.core.folder_lock import FolderLock
from instructsam.core.run_settings import RunRecord, check_settings
from instructsam.core.stop_signals import resume_hint
from instructsam.core.storage import explained_storage_faults
from instructsam.core.version import version
from instructsam.train.tabletop.language.instructions import sample_concepts, sample_instructions
from instructsam.train.tabletop.records import record, scene_facts
from instructsam.train.tabletop.scenes.scene import render_scene
from instructsam.train.tabletop.scenes.variation import Variation
from instructsam.train.tabletop.workers import in_order


@dataclass(frozen=True)
class Written:
    """The numbers of scenes, and of instructions and phrases by type, that `generate` wrote."""

    scenes: int
    sentences: dict[str, int]
    phrases: dict[str, int]


def generate(
    out: Path | str,
    split: str,
    scenes: int,
    seed: int,
    size: tuple[int, int] = (224, 224),
    workers: int | None = None,
    *,
    contrasts: int = 0,
    depth: bool = True,
    progress: bool = True,
    variation: Variation | None = None,
) -> Written:
    """Write scenes, instructions and masks to a folder; a call with as many scenes or more resumes an interrupted one.

    Args:
        out: The folder.
        split: One of `splits.SPLITS`.
        scenes: Number of scenes.
        seed: Seed of the dataset.
        size: (width, height) px.
        workers: Number of processes, by default one per core.
        contrasts: Pairs of instructions per scene that differ in one word, see `sample_instructions`.
        depth: Write the depth images.
        progress: Show a progress bar.
        variation: Cut-outs and photographed surfaces; the packages are pinned by their checksums.

    Raises:
        OtherSettingsError: The folder holds this split with other settings, or with more scenes.
        FolderInUseError: Another process writes the folder.
        StorageError: A file cannot be written.
        ValueError: `scenes` is less than one.
    """
    if scenes < 1:
        raise ValueError(f'at least one scene is needed, got {scenes}')
    out = Path(out)
    settings = {'split': split, 'seed': seed, 'size': list(size), 'depth': depth, 'version': version()}
    if contrasts:
        settings['contrasts'] = contrasts
    if variation is not None:
        packages = {name: str(path.name) for name, path in vars(variation).items() if isinstance(path, Path)}
        settings['variation'] = vars(variation) | packages
    with explained_storage_faults(out), FolderLock(out):
        record, part = RunRecord(out / f'{split}_run.json'), out / f'{split}.part'
        written = _check_started(record, part, settings, split, scenes)
        if written is not None and written.scenes == scenes:
            print(f'{out} holds the {scenes} scenes of {split} already', file=sys.stderr)
            return written
        for folder in ('images', 'depth') if depth else ('images',):
            (out / folder).mkdir(exist_ok=True)
        missing = range(min(_drop_truncated_line(part), scenes), scenes)
        if missing.start:
            print(f'{split} resumes after {missing.start} of {scenes} scenes', file=sys.stderr)
        write = partial(
            _write_scene,
            out=out,
            split=split,
            seed=seed,
            size=(size[0], size[1]),
            contrasts=contrasts,
            variation=variation,
            depth=depth,
        )
        workers = min(workers or os.cpu_count() or 1, len(missing) or 1)
        with ExitStack() as stack:
            hint = resume_hint(
                lambda: f'the same command resumes after {_drop_truncated_line(part)} of {scenes} scenes'
            )
            stack.enter_context(hint)
            file = stack.enter_context(part.open('a', encoding='utf-8'))
            bar = stack.enter_context(_progress_bar(progress))
            task = bar.add_task(f'{split} scenes', total=scenes, completed=missing.start)
            lines = map(write, missing)
            if workers > 1:
                lines = stack.enter_context(closing(in_order(write, missing, workers)))
            for line in lines:
                file.write(line + '\n')
                file.flush()
                bar.advance(task)
        written = _finish(part, out, split, scenes)
        record.start(settings, written=asdict(written))
        part.unlink()
        return written


def _check_started(record: RunRecord, part: Path, settings: dict[str, Any], split: str, scenes: int) -> Written | None:
    """Return what an earlier call has written, or None; record the settings if there is nothing of this split yet."""
    lists = [part.with_name(f'{split}_{name}') for name in ('scenes.jsonl', 'sentences.json', 'phrases.json')]
    has_results = all(file.exists() for file in lists) or _drop_truncated_line(part)
    found = record.read() if has_results else None
    if found is None:
        record.start(settings)
        part.unlink(missing_ok=True)  # without a record, nobody knows what it belongs to
        return None
    advice = 'give another folder, or delete this one'
    check_settings(found['settings'], settings, output=f'{split} in {part.parent}', advice=advice)
    if part.exists() or 'written' not in found:
        return None
    written = Written(**found['written'])
    if written.scenes > scenes:
        now = {'scenes': scenes}
        check_settings({'scenes': written.scenes}, now, output=f'{split} in {part.parent}', advice=advice)
    return written


def _drop_truncated_line(part: Path) -> int:
    """Return the number of scenes in `part`; drop a last line that was not written to its end."""
    if not part.exists():
        return 0
    complete_bytes = count = 0
    with part.open('rb') as file:
        for line in file:
            if line.endswith(b'\n'):
                complete_bytes, count = complete_bytes + len(line), count + 1
    os.truncate(part, complete_bytes)
    return count


def _finish(part: Path, out: Path, split: str, scenes: int) -> Written:
    """Write the lists of records and of scenes from `part`."""
    counts: dict[str, Counter[str]] = {'sentences': Counter(), 'phrases': Counter()}
    with part.open(encoding='utf-8') as lines, ExitStack() as stack:
        facts = stack.enter_context(_ListFile(out / f'{split}_scenes.jsonl', is_jsonl=True))
        files = {name: stack.enter_context(_ListFile(out / f'{split}_{name}.json')) for name in counts}
        for line in islice(lines, scenes):
            scene = json.loads(line)
            facts.add(json.dumps(scene['scene']))
            for name, (kinds, record_of_scene) in scene['records'].items():
                counts[name].update(kinds)
                if kinds:
                    files[name].add(json.dumps(record_of_scene))
    return Written(scenes, dict(counts['sentences']), dict(counts['phrases']))


def _write_scene(
    index: int,
    out: Path,
    split: str,
    seed: int,
    size: tuple[int, int],
    contrasts: int,
    variation: Variation | None,
    *,
    depth: bool,
) -> str:
    """Render a scene and write its images; return its facts and records as a line of JSON."""
    cv2.setNumThreads(1)  # the processes share the cores
    scene = render_scene(split, index, seed, size, variation)
    (out / 'images' / f'{scene.name}.jpg').write_bytes(scene.jpeg)
    if depth:
        _, png = cv2.imencode('.png', depth_mm(scene.depth), [cv2.IMWRITE_PNG_COMPRESSION, 2])
        (out / 'depth' / f'{scene.name}.png').write_bytes(png.tobytes())  # cv2.imwrite does not tell why it fails
    sentences, phrases = sample_instructions(scene, contrasts=contrasts), sample_concepts(scene)
    return json.dumps(
        {
            'scene': scene_facts(scene),
            'records': {
                'sentences': ([one.kind for one in sentences], record(scene, sentences)),
                'phrases': ([one.kind for one in phrases], record(scene, phrases, bare=True)),
            },
        }
    )


def depth_mm(depth: np.ndarray) -> np.ndarray:
    """Convert depth [H, W] float32 m to [H, W] uint16 mm."""
    return (depth * 1000).round().clip(0, 65535).astype('uint16')


class _ListFile:
    """A JSON list or JSON Lines file, written item by item under a temporary name until it is complete."""

    def __init__(self, path: Path, *, is_jsonl: bool = False) -> None:
        self._path, self._part = path, path.with_name(path.name + '.part')
        self._opening, self._separator, self._ending = ('', '\n', '\n') if is_jsonl else ('[', ',\n', ']\n')
        self._empty = '\n' if is_jsonl else '[]\n'
        self._is_empty = True

    def __enter__(self) -> '_ListFile':
        self._file = self._part.open('w', encoding='utf-8')
        return self

    def add(self, text: str) -> None:
        """Append one item, already encoded as JSON."""
        self._file.write((self._opening if self._is_empty else self._separator) + text)
        self._is_empty = False

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.write(self._empty if self._is_empty else self._ending)
        self._file.close()
        if error_type is None:
            self._part.replace(self._path)


def _progress_bar(is_shown: bool) -> Progress:
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not is_shown,
    )

"""Write a split of the tabletop world to a folder: `instructsam tabletop generate`.

    images/NAME.jpg            the colour images
    depth/NAME.png             16 bit, mm along the optical axis, 0 beyond 65 m
    SPLIT_phrases.json         bare phrases with all objects that they describe (stage 1)
    SPLIT_sentences.json       instructions (stage 2)
    SPLIT_scenes.jsonl         one line per scene: camera, pose, objects with their masks

The files depend only on split, seed, size and the number of scenes, not on the number of workers. Until all scenes are
written, their records are kept in SPLIT.part, from which the same call resumes after an interruption.
"""

import json
import os
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from instructsam.core.errors import InstructSAMError
from instructsam.train.tabletop.language.instructions import sample_concepts, sample_instructions
from instructsam.train.tabletop.records import records, scene_facts
from instructsam.train.tabletop.scenes.scene import render_scene
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
    depth: bool = True,
    progress: bool = True,
) -> Written:
    """Write scenes, instructions and masks to a folder; a call with as many scenes or more resumes an interrupted one.

    Args:
        out: The folder.
        split: One of `splits.SPLITS`.
        scenes: Number of scenes.
        seed: Seed of the dataset.
        size: (width, height) px.
        workers: Number of processes, by default one per core.
        depth: Write the depth images.
        progress: Show a progress bar.

    Raises:
        InstructSAMError: The folder holds the output of an interrupted call with other settings.
        ValueError: `scenes` is less than one.
        OSError: A file cannot be written.
    """
    if scenes < 1:
        raise ValueError(f'at least one scene is needed, got {scenes}')
    out = Path(out)
    for folder in ('images', 'depth') if depth else ('images',):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write = partial(_write_scene, out=out, split=split, seed=seed, size=(size[0], size[1]), depth=depth)
    part = out / f'{split}.part'
    first = _resume(part, json.dumps({'seed': seed, 'size': list(size), 'depth': depth}))
    missing = range(min(first, scenes), scenes)
    workers = min(workers or os.cpu_count() or 1, len(missing) or 1)
    with ExitStack() as stack:
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
    return _finish(part, out, split, scenes)


def _resume(part: Path, settings: str) -> int:
    """Return the number of scenes in `part`; create it if it does not exist, and drop a truncated last line.

    Raises:
        InstructSAMError: `part` is from a call with other settings.
    """
    if not part.exists() or not part.stat().st_size:
        part.write_text(settings + '\n', encoding='utf-8')
        return 0
    with part.open('rb') as file:
        found = file.readline().decode().strip()
        if found != settings:
            raise InstructSAMError(
                f'{part} is from an interrupted call with other settings: {found}. Finish that one, or delete the file'
            )
        complete_bytes, count = file.tell(), 0
        for line in file:
            if line.endswith(b'\n'):
                complete_bytes, count = complete_bytes + len(line), count + 1
    os.truncate(part, complete_bytes)
    return count


def _finish(part: Path, out: Path, split: str, scenes: int) -> Written:
    """Write the lists of records and of scenes from `part`, and remove it."""
    counts: dict[str, Counter[str]] = {'sentences': Counter(), 'phrases': Counter()}
    with part.open(encoding='utf-8') as lines, ExitStack() as stack:
        next(lines)  # the first line holds the settings
        facts = stack.enter_context(_ListFile(out / f'{split}_scenes.jsonl', is_jsonl=True))
        files = {name: stack.enter_context(_ListFile(out / f'{split}_{name}.json')) for name in counts}
        for line in islice(lines, scenes):
            scene = json.loads(line)
            facts.add(json.dumps(scene['scene']))
            for name, (kinds, scene_records) in scene['records'].items():
                counts[name].update(kinds)
                for record in scene_records:
                    files[name].add(json.dumps(record))
    part.unlink()
    return Written(scenes, dict(counts['sentences']), dict(counts['phrases']))


def _write_scene(index: int, out: Path, split: str, seed: int, size: tuple[int, int], *, depth: bool) -> str:
    """Render a scene and write its images; return its facts and records as a line of JSON."""
    cv2.setNumThreads(1)  # the processes share the cores
    scene = render_scene(split, index, seed, size)
    (out / 'images' / f'{scene.name}.jpg').write_bytes(scene.jpeg)
    if depth:
        path = out / 'depth' / f'{scene.name}.png'
        if not cv2.imwrite(str(path), depth_mm(scene.depth), [cv2.IMWRITE_PNG_COMPRESSION, 2]):
            raise OSError(f'could not write {path}')
    sentences, phrases = sample_instructions(scene), sample_concepts(scene)
    return json.dumps(
        {
            'scene': scene_facts(scene),
            'records': {
                'sentences': ([one.kind for one in sentences], records(scene, sentences)),
                'phrases': ([one.kind for one in phrases], records(scene, phrases, bare=True)),
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

"""Write a split of the tabletop world to a folder: `instructsam tabletop generate`.

    images/NAME.jpg            what the camera saw
    depth/NAME.png             16 bit, mm along the optical axis, 0 beyond 65 m
    SPLIT_phrases.json         bare phrases with all that they fit (stage 1)
    SPLIT_sentences.json       instructions (stage 2)
    SPLIT_scenes.jsonl         a line a scene: camera, pose, objects with their masks

The files depend on split, seed, size and the number of scenes alone, not on the number of workers. Until all is made,
it is kept in SPLIT.part, from which the same call goes on after an interruption.
"""

import json
import os
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from instructsam.core.errors import InstructSAMError
from instructsam.train.tabletop.language.instructions import concepts, instructions
from instructsam.train.tabletop.records import records, scene_facts
from instructsam.train.tabletop.scenes.scene import scene
from instructsam.train.tabletop.workers import in_order


@dataclass(frozen=True)
class Written:
    """What `generate` wrote: instructions and phrases by kind, and the number of scenes."""

    scenes: int
    sentences: dict[str, int]
    phrases: dict[str, int]


def generate(out, split, scenes, seed, size=(224, 224), workers=None, depth=True, progress=True):
    """Write `scenes` scenes of `split` under `seed` to the folder `out` at `size` (width, height) px: `Written`.

    workers: processes, by default one a core. An interrupted call is gone on with by the same call, with as many scenes
    or more. Raises InstructSAMError: `out` holds what is left of another call for the split.
    """
    if scenes < 1:
        raise ValueError(f'at least one scene, got {scenes}')
    out = Path(out)
    for folder in ('images', 'depth')[: 1 + depth]:
        (out / folder).mkdir(parents=True, exist_ok=True)
    make = partial(_scene_to_files, out=out, split=split, seed=seed, size=tuple(size), depth=depth)
    part = out / f'{split}.part'
    first = _resume(part, json.dumps({'seed': seed, 'size': list(size), 'depth': depth}))
    missing = range(min(first, scenes), scenes)
    workers = min(workers or os.cpu_count() or 1, len(missing) or 1)
    with ExitStack() as stack:
        file = stack.enter_context(part.open('a', encoding='utf-8'))
        bar = stack.enter_context(_bar(progress))
        task = bar.add_task(f'{split} scenes', total=scenes, completed=missing.start)
        if workers == 1:
            results = map(make, missing)
        else:
            results = stack.enter_context(closing(in_order(make, missing, workers)))
        for result in results:
            file.write(result + '\n')
            file.flush()
            bar.advance(task)
    return _finish(part, out, split, scenes)


def _resume(part, settings):
    """How many scenes `part` has from a call with these settings; makes it if need be, cuts half a line off."""
    if not part.exists() or not part.stat().st_size:
        part.write_text(settings + '\n', encoding='utf-8')
        return 0
    with part.open('rb') as file:
        found = file.readline().decode().strip()
        if found != settings:
            raise InstructSAMError(
                f'{part} is from an interrupted call with other settings: {found}. Finish that one, or delete the file'
            )
        whole, count = file.tell(), 0
        for line in file:
            if line.endswith(b'\n'):
                whole, count = whole + len(line), count + 1
    os.truncate(part, whole)
    return count


def _finish(part, out, split, scenes):
    """Makes the lists of records and of scenes from `part`, and removes it: Written."""
    counts = {'sentences': Counter(), 'phrases': Counter()}
    with part.open(encoding='utf-8') as lines, ExitStack() as stack:
        next(lines)
        facts = stack.enter_context(_ListFile(out / f'{split}_scenes.jsonl', lines=True))
        files = {name: stack.enter_context(_ListFile(out / f'{split}_{name}.json')) for name in counts}
        for line in islice(lines, scenes):
            made = json.loads(line)
            facts.add(json.dumps(made['scene']))
            for name, (kinds, found) in made['records'].items():
                counts[name].update(kinds)
                for record in found:
                    files[name].add(json.dumps(record))
    part.unlink()
    return Written(scenes, dict(counts['sentences']), dict(counts['phrases']))


def _scene_to_files(index, out, split, seed, size, depth):
    """Make and write one scene; its facts and records as a line of JSON."""
    cv2.setNumThreads(1)  # the processes share the cores already
    made = scene(split, index, seed, size)
    (out / 'images' / f'{made.name}.jpg').write_bytes(made.jpeg)
    if depth:
        path = out / 'depth' / f'{made.name}.png'
        if not cv2.imwrite(str(path), depth_mm(made.depth), [cv2.IMWRITE_PNG_COMPRESSION, 2]):
            raise OSError(f'could not write {path}')
    found = {'sentences': (instructions(made), False), 'phrases': (concepts(made), True)}
    return json.dumps(
        {
            'scene': scene_facts(made),
            'records': {
                name: ([one.kind for one in many], records(made, many, bare)) for name, (many, bare) in found.items()
            },
        }
    )


def depth_mm(depth):
    """Depth [H, W] float32 m as [H, W] uint16 mm."""
    return (depth * 1000).round().clip(0, 65535).astype('uint16')


class _ListFile:
    """A JSON list (or JSON lines) written item by item under another name until it is complete."""

    def __init__(self, path, lines=False):
        self.path, self.lines, self.part = path, lines, path.with_name(path.name + '.part')
        self.started = False

    def __enter__(self):
        self.file = self.part.open('w', encoding='utf-8')
        return self

    def add(self, text):
        between, opening = ('\n', '') if self.lines else (',\n', '[')
        self.file.write((between if self.started else opening) + text)
        self.started = True

    def __exit__(self, kind, *_):
        self.file.write('\n' if self.lines else ']\n' if self.started else '[]\n')
        self.file.close()
        if kind is None:
            self.part.replace(self.path)


def _bar(shown):
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )

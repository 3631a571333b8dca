"""Settings of a run, as its output records them: a run that resumes has to share them, but for MAY_CHANGE."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from instructsam.core import builtin
from instructsam.core.run_settings import RunRecord, check_settings, fingerprint, model_fingerprint
from instructsam.core.version import version
from instructsam.train.data.mixing import Source, mixing_list
from instructsam.train.loop.checkpoints import FINAL, last_checkpoint, step_of
from instructsam.train.loop.recipe import Recipe

RECORD = 'run.json'

MAY_CHANGE = frozenset(
    {
        # where files are; their contents count
        *('output', 'model', 'revision', 'model_commit', 'data[].annotations', 'data[].images'),
        *('base.scenes[].annotations', 'base.scenes[].images'),
        # reports and checkpoints
        *('log_every', 'save_every', 'keep', 'evaluate_every', 'validation_samples', 'max_broken_share'),
        *(
            'validation',
            *(f'validation[].{key}' for key in ('annotations', 'images', 'repeat', 'content', 'image_sizes')),
        ),
        # speed and memory
        *('workers', 'phrases_per_call'),
        'version',
    }
)
"""Keys that may differ when a run resumes, because they do not change what it learns."""

SIZED_IMAGES = 512  # images of a source whose sizes are compared, evenly spaced
_IMAGE = re.compile(rb'"image"\s*:\s*("(?:[^"\\]|\\.)*")')


def check_resumed(recipe: Recipe, model: Path, processes: int) -> None:
    """Compare the recipe with that of the run in its output, if there is one, and record it if it is new.

    Prints from which step the run resumes, or that it is finished, and which settings differ.

    Args:
        recipe: The recipe; its output is locked.
        model: Folder of the model that it starts from.
        processes: Number of processes that train together.

    Raises:
        OtherSettingsError: The output belongs to a run with other settings or data.
        DataError: The data are missing.
    """
    output = Path(recipe.output)
    record, settings = RunRecord(output / RECORD), run_settings(recipe, model, processes)
    last = last_checkpoint(output)
    if last is None and not (output / FINAL).exists():  # nothing would be lost
        record.start(settings)
        return
    state = f'{output} resumes after step {step_of(last)}' if last is not None else f'{output} is finished'
    found = record.read()
    if found is None:
        print(f'{state}; the settings that it was started with are unknown', file=sys.stderr)
        return
    final = output / FINAL
    learned = f' (with model: {final}, it starts from what this one has learned)' if final.exists() else ''
    changed = check_settings(
        with_defaults(found['settings']),
        settings,
        output=output,
        advice=f'give another output{learned}',
        may_change=MAY_CHANGE,
    )
    print('; '.join([state, *changed]), file=sys.stderr, flush=True)


def run_settings(recipe: Recipe, model: Path, processes: int) -> dict[str, Any]:
    """Return everything that decides what a run learns."""
    settings = {**asdict(recipe), 'version': version(), 'processes': processes}
    settings['data'] = with_contents(recipe.data)
    settings['validation'] = with_contents(recipe.validation)
    if recipe.base is not None:
        settings['base']['scenes'] = with_contents(recipe.base.scenes)
    settings['model_commit'] = builtin.commit_of(model)
    settings['model_content'] = model_fingerprint(model)
    return settings


def with_defaults(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return recorded settings by dotted key, with the default of each key that the recipe has and the record lacks.

    The version that wrote the record may not have known the key.
    """
    repeats = {key.removesuffix('annotations') + 'repeat': 1 for key in record if key.endswith('].annotations')}
    return {**_defaults(Recipe, '', record), **repeats, **record}


def _defaults(cls: Any, prefix: str, record: Mapping[str, Any]) -> dict[str, Any]:
    found, types = {}, get_type_hints(cls)
    for each in fields(cls):
        key, annotation = prefix + each.name, types[each.name]
        section = next(filter(is_dataclass, get_args(annotation) or (annotation,)), None)
        is_present = any(name.startswith((f'{key}.', f'{key}[')) for name in record)
        if section and (is_present or each.default is not None):
            found.update(_defaults(section, f'{key}.', record))
        elif not is_present and each.default is not MISSING:
            found[key] = each.default
        elif not is_present and each.default_factory is not MISSING:
            found[key] = each.default_factory()
    return found


def with_contents(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of a mixing list with fingerprints of their files, and `repeat` also where it is left out."""
    sources = mixing_list(entries, Path()) if entries else []
    return [
        {
            **entry,
            'repeat': source.repeat,
            'content': fingerprint([('', source.annotations)]),
            'image_sizes': image_sizes(source),
        }
        for entry, source in zip(entries, sources, strict=True)
    ]


def image_sizes(source: Source) -> str:
    """Return a fingerprint of the sizes of a source's images in bytes, at most SIZED_IMAGES of them.

    Reading the images themselves would take longer than a checkpoint's interval on large data sets.
    """
    digest = hashlib.sha256()
    for name in _image_names(source.annotations):
        try:
            size = os.stat(source.images / name).st_size
        except (OSError, ValueError):
            size = -1
        digest.update(f'{name} {size}\n'.encode('utf-8', 'surrogatepass'))
    return digest.hexdigest()[:16]


def _image_names(annotations: Path) -> list[str]:
    """Return at most SIZED_IMAGES names under the key `image`, evenly spaced over the file."""
    if not annotations.stat().st_size:
        return []
    kept: list[bytes] = []
    stride = 1
    with annotations.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for number, match in enumerate(_IMAGE.finditer(text)):
            if number % stride:
                continue
            kept.append(match[1])
            if len(kept) > SIZED_IMAGES:
                kept, stride = kept[::2], 2 * stride
    names = []
    for text in kept:
        try:
            names.append(str(json.loads(text)))
        except ValueError:
            continue  # a broken record, which training skips
    return names

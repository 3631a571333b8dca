"""Results on many images: a folder that a later run resumes, label images and a COCO file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from instructsam.core.atomic_write import replaced
from instructsam.core.result import Result
from instructsam.core.run_settings import RunRecord, check_settings
from instructsam.core.storage import explained_storage_faults

RECORD, RESULTS = 'run.json', 'results.jsonl'

Row = dict[str, Any]
"""A result as JSON, with the name of its image."""


class ResultFolder:
    """The rows of a run in OUT/results.jsonl: one line per image, which is complete once add() has returned.

    Args:
        folder: OUT; it exists and is locked.
        settings: Plain values that decide the results.

    Raises:
        OtherSettingsError: OUT belongs to a run with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._file = folder / RESULTS
        self.rows: dict[str, Row] = {}  # by the name of the image
        record = RunRecord(folder / RECORD)
        with explained_storage_faults(folder):
            before = record.read()
            if before is None:
                record.start(settings)
                return
            check_settings(before['settings'], settings, output=folder, advice='give another --out')
            self._read()

    def _read(self) -> None:
        """Read the rows; what a kill has truncated at the end is dropped."""
        if not self._file.exists():
            return
        lines = self._file.read_text(encoding='utf-8').splitlines(keepends=True)
        kept = [line for line in lines if line.endswith('\n')]
        if len(kept) < len(lines):
            with replaced(self._file) as part:
                part.write_text(''.join(kept), encoding='utf-8')
        for line in kept:
            row = json.loads(line)
            self.rows[row['image']] = row

    def add(self, row: Row) -> None:
        """Append a row."""
        with explained_storage_faults(self._file), self._file.open('a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')
        self.rows[row['image']] = row


def write_label_image(path: Path, result: Result) -> None:
    """Write a 16-bit PNG: 0 is background and i + 1 instance i, the higher score on top. Raises StorageError."""
    labels = np.zeros((result.height, result.width), np.uint16)
    for index in reversed(range(len(result.instances))):
        labels[result.instances[index].mask.decode()] = index + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as part:
        Image.fromarray(labels).save(part)


def file_name(image: str, ending: str) -> Path:
    """Return the relative path of an output for an image.

    Folders are kept, so that images of one name have different outputs; none is outside the output's folder.
    """
    parts = ['__' if part == '..' else part for part in Path(image).parts if part != '/']
    return Path(*parts[:-1], f'{parts[-1].replace("#", ".")}{ending}')


def coco_document(rows: Iterable[Row]) -> dict[str, Any]:
    """Return rows in COCO's format for instance segmentation.

    A phrase is a category; the masks are compressed RLE; annotations also have a score, as in COCO's results.
    """
    images, annotations = [], []
    categories: dict[str, int] = {}
    for image_id, row in enumerate(rows, start=1):
        images.append({'id': image_id, 'file_name': row['image'], 'height': row['height'], 'width': row['width']})
        for instance in row['instances']:
            x0, y0, x1, y1 = instance['box']
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': categories.setdefault(instance['phrase'], len(categories) + 1),
                    'segmentation': instance['segmentation'],
                    'bbox': [x0, y0, x1 - x0, y1 - y0],
                    'area': instance['area'],
                    'score': instance['score'],
                    'iscrowd': 0,
                }
            )
    return {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': number, 'name': name} for name, number in categories.items()],
    }


def row_of(image: str, identity: str, result: Result) -> Row:
    """Return the row of a result."""
    document = result.to_json()
    for instance, entry in zip(result.instances, document['instances'], strict=True):
        entry['area'] = instance.mask.area
    return {'image': image, 'identity': identity, **document}

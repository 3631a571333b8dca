"""Results on many images: a folder that a later run resumes, label images and a COCO file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from instructsam.core.appended_file import AppendedFile
from instructsam.core.atomic_write import replaced
from instructsam.core.display.label_map import label_map
from instructsam.core.result import Result
from instructsam.core.run_settings import RunRecord, check_settings
from instructsam.core.storage import explained_storage_faults

RECORD, RESULTS, OVERLAYS = 'run.json', 'results.jsonl', 'overlays'

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
        self.rows: dict[str, Row] = {}  # image name -> row
        record = RunRecord(folder / RECORD)
        with explained_storage_faults(folder):
            before = record.read()
            if before is None:
                record.start(settings)
            else:
                check_settings(before['settings'], settings, output=folder, advice='give another --out')
        self._file = AppendedFile(folder / RESULTS)
        if before is not None:
            for line in self._file.lines():
                row = json.loads(line)
                self.rows[row['image']] = row
            self._file.drop_cut_line('its image is answered again')

    def add(self, row: Row) -> None:
        """Append a row."""
        self._file.append(json.dumps(row).encode())
        self.rows[row['image']] = row

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def write_overlay(folder: Path, name: Path, overlay: np.ndarray) -> None:
    """Write an overlay, [H, W, 3] uint8 RGB, to folder/name. Raises StorageError, also if the folder has gone."""
    path = _with_parents(folder, name)
    with replaced(path) as part:
        Image.fromarray(overlay).save(part)


def write_label_image(folder: Path, name: Path, result: Result) -> None:
    """Write a 16-bit PNG to folder/name: 0 is background and i + 1 instance i, the higher score on top.

    Raises StorageError, also if the folder has gone.
    """
    path = _with_parents(folder, name)
    with replaced(path) as part:
        Image.fromarray(label_map(result.instances, result.height, result.width)).save(part)


def _with_parents(folder: Path, name: Path) -> Path:
    """Return folder/name after making the folders between.

    A folder that was removed during the run is not made again: it would lack the outputs until then, and the run would
    end as if it had written all of them.
    """
    parent = folder
    with explained_storage_faults(folder / name):
        for part in name.parent.parts:
            parent = parent / part
            parent.mkdir(exist_ok=True)
    return folder / name


def file_name(image: str, ending: str) -> Path:
    """Return the relative path of an output for an image.

    Folders are kept, so that images of one name have different outputs; none is outside the output's folder. Few
    images share a path, such as a/x.png and /a/x.png: see OutputNames.
    """
    parts = ['__' if part == '..' else part for part in Path(image).parts if part != '/']
    return Path(*parts[:-1], f'{parts[-1].replace("#", ".")}{ending}')


class OutputNames:
    """The relative paths of the outputs of a run: images of different names never share one.

    An image has the path that `file_name` gives. If an earlier image has taken it, a hash of the name is appended.

    Args:
        images: Names of the images whose outputs exist, in the order in which they were written.
    """

    def __init__(self, images: Iterable[str] = ()) -> None:
        self._owners: dict[Path, str] = {}
        for image in images:
            self.take(image, '')

    def take(self, image: str, ending: str) -> Path:
        """Return the path of an output for an image, which keeps it from then on."""
        path = file_name(image, '')
        owner = self._owners.setdefault(path, image)
        suffix = '' if owner == image else f'-{hashlib.sha256(os.fsencode(image)).hexdigest()[:12]}'
        return path.with_name(f'{path.name}{suffix}{ending}')


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

"""Referring expressions on COCO's images: refs beside an instances.json, or converted to lists of texts and masks."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError, read_mask
from instructsam.train.evaluation.readers.formats.documents import Record, read_json
from instructsam.train.evaluation.readers.formats.files import DatasetFiles
from instructsam.train.evaluation.readers.formats.records import (
    GroundTruth,
    QueryOfImage,
    failed_query,
    image_path,
    make_query,
    read_size,
    read_targets,
    require_pixels,
    text_of,
)

NO_TARGET = -1
"""Annotation id of a ref without a target."""


class _Instances:
    """Images and annotations of a COCO file, and the decoded masks, which many sentences share."""

    def __init__(self, path: Path):
        """Read the file.

        Raises:
            DataError: It is missing or broken.
        """
        if not path.is_file():
            raise DataError(f'there is no {path}, which holds the masks. Put it there: it comes with the expressions')
        content = read_json(path)
        try:
            self._images = {entry['id']: entry for entry in content['images']}
            self._annotations = {entry['id']: entry for entry in content['annotations']}
        except (KeyError, TypeError) as error:
            raise DataError(f'{path} has no images and annotations with ids in the form of COCO: {error!r}') from error
        self._masks: dict[tuple[int, int], Rle] = {}

    def image(self, image_id: Any) -> Record:
        """Return the entry of an image; empty if there is none."""
        return (self._images.get(image_id) if isinstance(image_id, int) else None) or {}

    def mask(self, annotation_id: int, image_id: int) -> Rle:
        """Return the mask of an annotation.

        Raises:
            RecordError: The mask is broken, or the image has no such annotation.
        """
        key = annotation_id, image_id
        if key not in self._masks:
            annotation = self._annotations.get(annotation_id)
            if annotation is None or annotation.get('image_id') != image_id:
                raise RecordError(f'instances.json has no annotation {annotation_id!r} of the image {image_id!r}')
            size = read_size(self._images[image_id])
            self._masks[key] = require_pixels(read_mask(annotation.get('segmentation'), *size))
        return self._masks[key]


def read_refs(
    files: DatasetFiles, path: Path, refs: list[Record], query_id: Callable[[Record, Record], str]
) -> Iterator[QueryOfImage]:
    """Yield a query for each sentence of the split's refs, with one mask per annotation of its ref.

    A ref that does not give its split fails in every split.

    Args:
        files: The data set.
        path: The file of the refs, beside instances.json.
        refs: The refs.
        query_id: Returns a query's id for (ref, sentence).

    Raises:
        DataError: There is no such split, or instances.json is missing or broken.
    """
    splits = {text_of(ref, 'split') for ref in refs}
    if files.split not in splits:
        raise files.missing_split_error(sorted(splits - {''}))
    instances = _Instances(path.with_name('instances.json'))
    kept = [
        (number, ref, instances.image(ref.get('image_id')))
        for number, ref in enumerate(refs)
        if text_of(ref, 'split') in (files.split, '')
    ]
    folder = files.image_folder([text_of(entry, 'file_name') for _, _, entry in kept], path.parent)
    for number, ref, entry in kept:
        where, image = f'{path}, record {number}', image_path(entry, 'file_name', folder)
        sentences = ref.get('sentences')
        if not text_of(ref, 'split') or not isinstance(sentences, list) or not sentences:
            yield failed_query(where, f'ref {number}', image, 'a ref needs a split and a list of sentences')
            continue
        for index, item in enumerate(sentences):
            sentence = item if isinstance(item, dict) else {}
            yield make_query(
                f'{where}, sentence {index}',
                query_id(ref, sentence) if 'sent_id' in sentence else f'ref {number}-{index}',
                image,
                sentence,
                'sent' if 'sent' in sentence else 'raw',
                partial(_read_annotated, instances, ref, entry),
            )


def _read_annotated(instances: _Instances, ref: Record, image: Record) -> GroundTruth:
    return GroundTruth(tuple(instances.mask(annotation_id, image['id']) for annotation_id in _target_ids(ref)))


def _target_ids(ref: Record) -> list[int]:
    """Return the annotation ids of a ref; empty if it has no target."""
    value = ref.get('ann_id')
    ids: list[Any] = value if isinstance(value, list) else [value]
    if not ids or not all(isinstance(annotation_id, int) for annotation_id in ids):
        raise RecordError(f'ann_id must be the number of an annotation, or a list of them, got {str(ids)[:60]}')
    return [annotation_id for annotation_id in ids if annotation_id != NO_TARGET]


def read_converted(files: DatasetFiles, path: Path, records: list[Record]) -> Iterator[QueryOfImage]:
    """Yield a query for each text in `cat` of converted records; masks[i] has the mask, masks or none of cat[i]."""
    folder = files.image_folder([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        where, image, texts = f'{path}, record {number}', image_path(record, 'image', folder), record.get('cat')
        if not isinstance(texts, list) or not texts:
            yield failed_query(where, str(number), image, 'a record needs a list of texts under cat')
            continue
        for index, text in enumerate(texts):
            yield make_query(
                f'{where}, text {index}',
                f'{number}-{index}',
                image,
                {'cat': text},
                'cat',
                partial(_read_converted_masks, record, index, len(texts)),
            )


def _read_converted_masks(record: Record, index: int, num_texts: int) -> GroundTruth:
    masks = record.get('masks')
    if not isinstance(masks, list) or len(masks) != num_texts:
        raise RecordError(f'a record needs masks for each of its {num_texts} texts, got {str(masks)[:60]}')
    return GroundTruth(read_targets(masks[index], read_size(record)))

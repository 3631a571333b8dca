"""The files of the export as streams of JSON texts: training records, the benchmark's form and COCO."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from instructsam.train.data_engine.export.samples import Answered, Exported

Rows = Callable[[], Iterable[Exported]]
"""Returns the exported images from the first one on, each time that it is called."""


def training_records(images: Iterable[Exported], split: str, *, negatives: bool) -> Iterator[dict[str, Any]]:
    """Yield the records that `train.data.records` reads: one per image, one annotation per question.

    Args:
        images: The images.
        split: The split to yield.
        negatives: Questions about something absent are samples, too.
    """
    for each in images:
        annotations = [_sentence(answer) for answer in each.answered if negatives or answer.masks]
        if each.split == split and annotations:
            yield {'type': 'seg', **_image(each), 'annotation': annotations}


def _sentence(answer: Answered) -> dict[str, Any]:
    return {
        'type': 'sentence',
        'text': answer.question.text,
        'category': answer.question.answer,
        'ann_type': 'mask',
        'ann': [json.dumps(mask.to_coco()) for mask in answer.masks] or None,
    }


def benchmark_records(images: Iterable[Exported], split: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a split as `train.evaluation.readers.inst2seg` reads them."""
    for each in images:
        if each.split == split:
            annotations = [
                {'text': answer.question.text, 'mask': [mask.to_coco() for mask in answer.masks] or None}
                for answer in each.answered
            ]
            yield {**_image(each), 'annotation': annotations}


def _image(each: Exported) -> dict[str, Any]:
    return {'image': each.name, 'height': each.image.height, 'width': each.image.width}


def array_of(values: Iterable[Any]) -> Iterator[str]:
    """Yield the text of a JSON array with one value per line."""
    yield '['
    separator = '\n'
    for value in values:
        yield separator + json.dumps(value)
        separator = ',\n'
    yield '\n]\n'


def coco(rows: Rows) -> Iterator[str]:
    """Yield the text of a COCO file for other tools: one annotation per target of a question, one category per answer.

    Fields that COCO does not know: question, question_id and object_phrase of an annotation.
    """
    names = sorted({answer.question.answer for each in rows() for answer in each.answered if answer.masks})
    categories = {name: number for number, name in enumerate(names, start=1)}
    licences = sorted({each.image.licence for each in rows()})
    yield '{"info": {"description": "made by the data engine of instructsam_ros"},\n"licenses": '
    yield from array_of({'id': number, 'name': name} for number, name in enumerate(licences, start=1))
    yield ',"categories": '
    yield from array_of({'id': number, 'name': name} for name, number in categories.items())
    yield ',"images": '
    yield from array_of(
        {
            'id': number,
            'file_name': each.name,
            'height': each.image.height,
            'width': each.image.width,
            'license': licences.index(each.image.licence) + 1,
        }
        for number, each in enumerate(rows(), start=1)
    )
    yield ',"annotations": '
    yield from array_of(
        {'id': number, **annotation} for number, annotation in enumerate(_coco_annotations(rows(), categories), start=1)
    )
    yield '}\n'


def _coco_annotations(images: Iterable[Exported], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    for image_id, each in enumerate(images, start=1):
        for answer in each.answered:
            for phrase, mask in zip(answer.phrases, answer.masks, strict=True):
                x0, y0, x1, y1 = mask.box
                yield {
                    'image_id': image_id,
                    'category_id': categories[answer.question.answer],
                    'segmentation': mask.to_coco(),
                    'bbox': [x0, y0, x1 - x0, y1 - y0],
                    'area': mask.area,
                    'iscrowd': 0,
                    'question': answer.question.text,
                    'question_id': answer.question.id,
                    'object_phrase': phrase,
                }

"""The official JSON records as samples: an image, turns of question and answer phrases, what each phrase means.

Kinds of annotation: phrase, sentence, OCR; masks (COCO RLE in either form, polygons), boxes, or nothing there (`ann`
null). A record of type `instseg` asks for all of its phrases at once half of the time.
"""
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from instructsam.core.rle import Rle

MAX_PHRASES, MAX_OBJECTS = 10, 100  # of a sample
MERGE_IOU = 0.05  # phrases whose unions overlap less may be asked for together

PHRASE_QUESTIONS = (
    "Please segment '{}' in this picture.",
    "Find '{}' and give me its mask.",
    "Can you mark '{}' in the image with a mask?",
    "Segment '{}'.",
    "Where is '{}'? Answer with a segmentation mask.",
    "Show me '{}' in this image as a mask.",
    "Please outline '{}'.",
    "I need the mask of '{}'.",
)
OCR_QUESTIONS = (
    "Please segment the text '{}' in this picture.",
    "Where does it say '{}'? Answer with a segmentation mask.",
    "Find the writing '{}' and mark it with a mask.",
)


class RecordError(ValueError):
    """A record that cannot be used; the message says which part of it and why."""


@dataclass(frozen=True)
class Target:
    """What one phrase means: masks, or boxes where there are no masks, or neither: nothing is there."""

    masks: tuple[Rle, ...] = ()  # at the image's size
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # xyxy, 0 to 1

    def __len__(self):
        return len(self.masks) + len(self.boxes)


@dataclass(frozen=True)
class Turn:
    """One question, the phrases of its answer and their targets."""

    question: str
    phrases: tuple[str, ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Sample:
    """One image with its turns."""

    image: Path
    height: int  # px
    width: int  # px
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class _Annotation:
    question: str | None  # None: made of the phrase
    phrase: str
    target: Target
    is_plain: bool  # a phrase, which may be asked for together with others


def parse(record, folder, num_queries, rng):
    """The Sample of one record.

    folder: where image paths start; num_queries: K, annotations with more instances are left out; rng: a numpy
    Generator that chooses questions. Raises RecordError.
    """
    if not isinstance(record, dict):
        raise RecordError(f'a record is a JSON object, got {type(record).__name__}')
    image, height, width = _header(record)
    annotations = [a for a in _annotations(record, height, width, rng) if len(a.target) <= num_queries]
    annotations = _within_limits(annotations)
    if not annotations:
        raise RecordError(f'no annotation is left: each is empty or has more than {num_queries} instances')
    if record.get('type') == 'instseg' and rng.random() < 0.5:
        turns = [_ask_together(annotations, rng)]
    else:
        turns = _turns(annotations, rng)
    return Sample(Path(folder) / image, height, width, tuple(turns))


def _header(record):
    try:
        image, height, width = record['image'], int(record['height']), int(record['width'])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f'a record has image, height and width: {error!r}') from error
    if not isinstance(image, str) or height < 1 or width < 1:
        raise RecordError(f'image {image!r} of {height} x {width} px cannot be')
    return image, height, width


def _annotations(record, height, width, rng):
    annotations = record.get('annotation')
    if isinstance(annotations, str):
        try:
            annotations = json.loads(annotations)
        except ValueError as error:
            raise RecordError(f'annotation is no JSON: {error}') from error
    if not isinstance(annotations, list) or not annotations:
        raise RecordError('annotation is a list that is not empty')
    return [_annotation(annotation, height, width, rng) for annotation in annotations]


def _annotation(raw, height, width, rng):
    if not isinstance(raw, dict) or not isinstance(raw.get('text'), str) or not raw['text'].strip():
        raise RecordError(f'an annotation has a text, got {str(raw)[:80]!r}')
    kind = raw.get('type', 'phrase')
    target = _target(raw, height, width)
    if kind == 'phrase':
        return _Annotation(None, tidy(raw['text']), target, True)
    if kind == 'sentence':
        if not isinstance(raw.get('category'), str) or not raw['category'].strip():
            raise RecordError(f"the sentence {raw['text'][:60]!r} has no category, which is its answer")
        return _Annotation(raw['text'].strip(), tidy(raw['category']), target, False)
    if kind == 'OCR':
        text = raw['text'].strip()
        return _Annotation(_choose(OCR_QUESTIONS, rng).format(text), text, target, False)
    raise RecordError(f'annotation type {kind!r} is not one of phrase, sentence, OCR')


def tidy(phrase):
    """As answers write phrases: no full stop, the first letter small unless the word is an abbreviation."""
    phrase = phrase.strip().rstrip('.').strip()
    return phrase if phrase[1:2].isupper() else phrase[:1].lower() + phrase[1:]


def _target(raw, height, width):
    entries, kind = raw.get('ann', raw.get('mask')), raw.get('ann_type', 'mask')
    if entries is None:
        return Target()
    entries = entries if isinstance(entries, list) else [entries]
    if kind == 'bbox':
        return Target(boxes=tuple(_box(_loaded(entry), height, width) for entry in entries))
    if kind != 'mask':
        raise RecordError(f'ann_type {kind!r} is not one of mask, bbox')
    return Target(masks=tuple(read_mask(_loaded(entry), height, width) for entry in entries))


def _loaded(entry):
    if not isinstance(entry, str):
        return entry
    try:
        return json.loads(entry)
    except ValueError as error:
        raise RecordError(f'an entry of ann is no JSON: {error}') from error


def _box(box, height, width):
    """[x, y, w, h] px -> xyxy 0 to 1, cut at the image's border."""
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
        raise RecordError(f'a box is [x, y, w, h], got {str(box)[:60]}')
    x0, y0 = max(0.0, box[0] / width), max(0.0, box[1] / height)
    x1, y1 = min(1.0, (box[0] + box[2]) / width), min(1.0, (box[1] + box[3]) / height)
    if x1 <= x0 or y1 <= y0:
        raise RecordError(f'the box {box} lies outside the image of {width} x {height} px, or is empty')
    return (x0, y0, x1, y1)


def read_mask(segmentation, height, width):
    """RLE (compressed or not) or polygons as an Rle. Raises RecordError where it is not of the image's size."""
    if isinstance(segmentation, dict):
        if list(segmentation.get('size', ())) != [height, width]:
            raise RecordError(f"a mask of size {segmentation.get('size')} on an image of {[height, width]}")
        try:
            return Rle.from_coco(segmentation)
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(f'a mask cannot be read: {error}') from error
    if isinstance(segmentation, list) and segmentation:
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        if all(len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
            merged = coco.merge(coco.frPyObjects([list(map(float, p)) for p in polygons], height, width))
            return Rle.from_coco(merged)
    raise RecordError(f'a mask is RLE or polygons of three points or more, got {str(segmentation)[:60]}')


def _within_limits(annotations):
    kept, objects = [], 0
    for annotation in annotations[:MAX_PHRASES]:
        if objects + len(annotation.target) <= MAX_OBJECTS:
            kept.append(annotation)
            objects += len(annotation.target)
    return kept


def _turns(annotations, rng):
    """One turn an annotation. Of three or more, the first phrase is asked for with another that is apart from it."""
    turns = [_turn(annotation, rng) for annotation in annotations]
    first, rest = annotations[0], [a for a in annotations[1:] if a.is_plain and len(a.target)]
    if len(annotations) >= 3 and first.is_plain and first.target.masks and rest:
        other = rest[int(rng.integers(len(rest)))]
        if other.target.masks and _union(first.target).iou([_union(other.target)])[0] < MERGE_IOU:
            turns[0] = _ask_together([first, other], rng)
    return turns


def _turn(annotation, rng):
    question = annotation.question or _choose(PHRASE_QUESTIONS, rng).format(annotation.phrase)
    return Turn(question, (annotation.phrase,), (annotation.target,))


def _ask_together(annotations, rng):
    phrases = tuple(annotation.phrase for annotation in annotations)
    named = ' and '.join([', '.join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]
    question = _choose(PHRASE_QUESTIONS, rng).format(named)
    return Turn(question, phrases, tuple(annotation.target for annotation in annotations))


def _union(target):
    return Rle.encode(np.any([mask.decode() for mask in target.masks], axis=0))


def _choose(options, rng):
    return options[int(rng.integers(len(options)))]

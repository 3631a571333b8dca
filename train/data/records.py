"""Converts the official JSON records to samples: an image, and turns of a question and answer phrases with targets.

A record has image, height, width and its text in one of three forms:

- `annotation`: phrases, sentences (answered with their category) and OCR; masks (COCO RLE in either form, or polygons),
  boxes, or nothing there (`ann` null). Annotations with too many instances are left out. A record of type `instseg`
  asks for all of its phrases in one question half of the time. Annotations with the same `instruction` are always asked
  for together, in those words.
- `mask` (one, a list, or null): the record is its own only annotation. The question is `question`, or else `text`; the
  answer is `category`, or else `text`, or else `question`. If question and answer are the same, it is a phrase.
- `conversations` in LLaVA's form. An answer names its phrases between `<|object_ref_start|>` and `<|object_ref_end|>`,
  or each before a `[SEG]`; the rest of the answer is left out. The record's `mask` has one entry per phrase, in order:
  one mask, a list of masks, or null. (If there is one phrase only, all entries belong to it.) An answer that names no
  phrase is text.

A conversation, and the annotations of one `instruction`, are used whole or not at all.

An annotation may have a concise form of its phrase under `concise`, shorter ones under `shorter`, and the masks of the
other objects that its question names under `anchors`, which records of the tabletop world do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError, Target, listed, read_list, read_target, read_text
from instructsam.train.data.sample import Sample, Turn

MAX_PHRASES = 10
"""Largest number of phrases of a sample."""

MAX_OBJECTS = 100
"""Largest number of instances of a sample, over all its phrases."""

MERGE_IOU = 0.05
"""Two phrases may be asked for in one question if the IoU of their unions is below this."""

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
_TAGGED_PHRASE = re.compile(r'<\|object_ref_start\|>(.*?)<\|object_ref_end\|>', re.DOTALL)
_MASK_MARK = re.compile(r'(?:<\|mask_start\|>)?(?:\[SEG\]\s*)+(?:<\|mask_end\|>)?(?:[\s,;]*and\b)?')


@dataclass(frozen=True)
class _Annotation:
    question: str | None  # None: the question is composed from the phrase
    phrase: str
    target: Target
    is_plain: bool  # a phrase that may be asked for together with others
    concise: str = ''  # '': the phrase
    shorter: tuple[str, ...] = ()
    anchors: Target = field(default_factory=Target)
    instruction: str | None = None  # asks for all annotations that have it


def parse(record: Any, folder: str | Path, num_queries: int, rng: np.random.Generator) -> Sample:
    """Return the sample of one record, its image unread.

    Args:
        record: The parsed JSON record.
        folder: Folder that image paths are relative to.
        num_queries: K; annotations with more instances are left out.
        rng: Draws the questions.

    Raises:
        RecordError: If the record cannot be used.
    """
    image, height, width = read_header(record)
    if 'conversations' in record and 'annotation' not in record:
        turns = _conversation_turns(record, height, width, num_queries)
    else:
        turns = _annotation_turns(record, _annotations(record, height, width, rng), num_queries, rng)
    return Sample(Path(folder) / image, height, width, tuple(turns))


def tidy(phrase: str) -> str:
    """Return a phrase in answer form: no full stop, and a lower-case first letter unless it begins an acronym."""
    phrase = phrase.strip().rstrip('.').strip()
    return phrase if phrase[1:2].isupper() else phrase[:1].lower() + phrase[1:]


def read_header(record: Any) -> tuple[str, int, int]:
    """Return the image path, height and width of a record.

    Raises:
        RecordError: If it is no JSON object, or one of them is missing or impossible.
    """
    if not isinstance(record, dict):
        raise RecordError(f'a record must be a JSON object, got {type(record).__name__}')
    try:
        image, height, width = record['image'], int(record['height']), int(record['width'])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f'a record needs image, height and width: {error!r}') from error
    if not isinstance(image, str) or not image or height < 1 or width < 1:
        raise RecordError(f'image {image!r} of {height} x {width} px is not possible')
    return image, height, width


def _annotation_turns(
    record: dict[str, Any], annotations: list[_Annotation], num_queries: int, rng: np.random.Generator
) -> list[Turn]:
    if 'instruction' in record:
        raise RecordError('instruction belongs to each annotation that it asks for, not to the record')
    kept = _drawn(_asked_together(annotations), num_queries, rng)
    if not kept:
        raise RecordError(
            f'no annotation is left: each has more than {num_queries} instances, or its instruction more than '
            f'{MAX_PHRASES} phrases or {MAX_OBJECTS} instances'
        )
    if record.get('type') == 'instseg' and rng.random() < 0.5 and all(_is_single(group) for group in kept):
        return [_ask_together([annotation for (annotation,) in kept], rng)]
    return _turns(kept, rng)


def _asked_together(annotations: list[_Annotation]) -> list[list[_Annotation]]:
    """Return the annotations in groups: those of each instruction, and each other one alone."""
    groups: dict[str | int, list[_Annotation]] = {}
    for number, annotation in enumerate(annotations):
        groups.setdefault(number if annotation.instruction is None else annotation.instruction, []).append(annotation)
    return list(groups.values())


def _is_single(group: list[_Annotation]) -> bool:
    return group[0].instruction is None


def _drawn(groups: list[list[_Annotation]], num_queries: int, rng: np.random.Generator) -> list[list[_Annotation]]:
    """Return those that can be asked, and of more than a sample may have, others in each epoch, in their order."""
    usable = [group for group in groups if all(len(each.target) <= num_queries for each in group)]
    targets = [each.target for group in usable for each in group]
    order = range(len(usable))
    if len(targets) > MAX_PHRASES or sum(map(len, targets)) > MAX_OBJECTS:
        order = rng.permutation(len(usable)).tolist()
    kept, num_phrases, num_objects = [], 0, 0
    for index in order:
        phrases = num_phrases + len(usable[index])
        objects = num_objects + sum(len(annotation.target) for annotation in usable[index])
        if phrases <= MAX_PHRASES and objects <= MAX_OBJECTS:
            kept.append(index)
            num_phrases, num_objects = phrases, objects
    return [usable[index] for index in sorted(kept)]


def _annotations(record: dict[str, Any], height: int, width: int, rng: np.random.Generator) -> list[_Annotation]:
    if 'annotation' in record:
        annotations = read_list(record, 'annotation')
    elif 'mask' in record:
        annotations = [_own_annotation(record)]
    else:
        raise RecordError('a record needs annotation, mask or conversations')
    return [_annotation(annotation, height, width, rng) for annotation in annotations]


def _own_annotation(record: dict[str, Any]) -> dict[str, Any]:
    """Return the annotation that a record with a top-level mask is equivalent to."""
    texts = {key: read_text(record, key, 'the record') for key in ('question', 'text', 'category') if record.get(key)}
    if not texts:
        raise RecordError('a record with a mask needs a text or a question')
    question = texts.get('question') or texts.get('text') or texts['category']
    answer = texts.get('category') or texts.get('text') or question
    if answer.endswith('?'):
        raise RecordError(f'the question {question[:60]!r} has no category, which is its answer')
    annotation_type = 'phrase' if question == answer else 'sentence'
    return {'type': annotation_type, 'text': question, 'category': answer, 'ann': listed(record['mask'])}


def _annotation(raw: Any, height: int, width: int, rng: np.random.Generator) -> _Annotation:
    text = read_text(raw, 'text', 'an annotation')
    if 'ann' not in raw and 'mask' not in raw:
        raise RecordError(f'the annotation {text[:60]!r} has no ann; use null if no object is there')
    target = read_target(raw.get('ann', raw.get('mask')), raw.get('ann_type', 'mask'), height, width)
    annotation_type = raw.get('type', 'phrase')
    if annotation_type == 'OCR':
        return _Annotation(_choose(OCR_QUESTIONS, rng).format(text), text, target, False)
    forms = _concise(raw), _shorter(raw), read_target(raw.get('anchors') or None, 'mask', height, width)
    if annotation_type == 'phrase':
        instruction = read_text(raw, 'instruction', f'the phrase {text[:60]!r}') if raw.get('instruction') else None
        return _Annotation(instruction, _phrase(text), target, instruction is None, *forms, instruction)
    if annotation_type == 'sentence':
        phrase = _phrase(read_text(raw, 'category', f'the sentence {text[:60]!r}'))
        return _Annotation(text, phrase, target, False, *forms)
    raise RecordError(f'annotation type {annotation_type!r} is not one of phrase, sentence, OCR')


def _concise(raw: dict[str, Any]) -> str:
    """Return the concise form of an annotation's phrase, '' if it has none."""
    return _phrase(read_text(raw, 'concise', 'an annotation')) if raw.get('concise') else ''


def _shorter(raw: dict[str, Any]) -> tuple[str, ...]:
    """Return the shorter forms of an annotation's phrase."""
    texts = raw.get('shorter', [])
    if not isinstance(texts, list):
        raise RecordError(f'shorter must be a list of phrases, got {str(texts)[:60]}')
    return tuple(_phrase(read_text({'shorter': text}, 'shorter', 'an annotation')) for text in texts)


def _phrase(text: str) -> str:
    phrase = tidy(text)
    if not phrase:
        raise RecordError(f'{text!r} is not a phrase')
    return phrase


def _turns(groups: list[list[_Annotation]], rng: np.random.Generator) -> list[Turn]:
    """Return one turn per group.

    If there are three or more, the first phrase is asked for together with another one whose masks do not overlap its
    own.
    """
    turns = [_turn(group, rng) for group in groups]
    first, candidates = groups[0][0], [g[0] for g in groups[1:] if g[0].is_plain and len(g[0].target)]
    if len(groups) >= 3 and first.is_plain and first.target.masks and candidates:
        other = candidates[int(rng.integers(len(candidates)))]
        if other.target.masks and _union(first.target).iou([_union(other.target)])[0] < MERGE_IOU:
            turns[0] = _ask_together([first, other], rng)
    return turns


def _turn(group: list[_Annotation], rng: np.random.Generator) -> Turn:
    question = group[0].question or _choose(PHRASE_QUESTIONS, rng).format(group[0].phrase)
    return _joint_turn(question, group)


def _ask_together(annotations: list[_Annotation], rng: np.random.Generator) -> Turn:
    phrases = [annotation.phrase for annotation in annotations]
    enumeration = ' and '.join([', '.join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]
    return _joint_turn(_choose(PHRASE_QUESTIONS, rng).format(enumeration), annotations)


def _joint_turn(question: str, annotations: list[_Annotation]) -> Turn:
    phrases, targets, concise, shorter, anchors = zip(
        *((a.phrase, a.target, a.concise or a.phrase, a.shorter, a.anchors) for a in annotations), strict=True
    )
    return Turn(question, phrases, targets, concise=concise, shorter=shorter if any(shorter) else (), anchors=anchors)


def _conversation_turns(record: dict[str, Any], height: int, width: int, num_queries: int) -> Iterator[Turn]:
    messages = read_list(record, 'conversations')
    roles = [message.get('from') if isinstance(message, dict) else None for message in messages]
    if len(roles) % 2 or roles != ['human', 'gpt'] * (len(roles) // 2):
        raise RecordError(f'conversations must alternate between human and gpt, got {roles}')
    values = [read_text(message, 'value', 'a message') for message in messages]
    phrases_of_answers = [_phrases_of_answer(answer) for answer in values[1::2]]
    targets = iter(_targets_in_order(record, height, width, sum(map(len, phrases_of_answers))))
    answers = [
        [_Annotation(None, phrase, next(targets), False) for phrase in phrases] for phrases in phrases_of_answers
    ]
    _check_limits([annotation.target for answer in answers for annotation in answer], num_queries)
    for question, text, answer in zip(values[::2], values[1::2], answers, strict=True):
        question = read_text({'question': question.replace('<image>', '')}, 'question', 'a turn')
        yield _joint_turn(question, answer) if answer else Turn(question, (), (), text)


def _check_limits(targets: list[Target], num_queries: int) -> None:
    sizes = [len(target) for target in targets]
    if len(sizes) > MAX_PHRASES or max(sizes, default=0) > num_queries or sum(sizes) > MAX_OBJECTS:
        raise RecordError(
            f'the answer would be incomplete: a sample has at most {MAX_PHRASES} phrases, {num_queries} instances of '
            f'each and {MAX_OBJECTS} of all'
        )


def _phrases_of_answer(answer: str) -> list[str]:
    """Return the phrases that an answer names; none if the answer is only text."""
    return [_phrase(p.strip(' \n,;:.')) for p in _TAGGED_PHRASE.findall(answer) or _MASK_MARK.split(answer)[:-1]]


def _targets_in_order(record: dict[str, Any], height: int, width: int, count: int) -> list[Target]:
    masks = listed(record.get('mask')) or []
    if count == 1 and len(masks) != 1 and 'mask' in record:
        masks = [record['mask']]
    if len(masks) != count:
        raise RecordError(f'the answers name {count} phrases, but the record has {len(masks)} masks')
    return [read_target(listed(entry), 'mask', height, width) for entry in masks]


def _union(target: Target) -> Rle:
    return Rle.encode(np.any([mask.decode() for mask in target.masks], axis=0))


def _choose(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]

"""The official JSON records as samples: an image, turns of question and answer phrases, what each phrase means.

A record has image, height, width and its text in one of three forms:
- `annotation`: phrases, sentences (answered with their category) and OCR; masks (COCO RLE in either form, polygons),
  boxes, or nothing there (`ann` null). Annotations with too many instances are left out. A record of type `instseg`
  asks for all of its phrases at once half of the time; one with an `instruction` always does, in those words.
- `mask` (one, a list, or null): the record is its own only annotation. `question`, or else `text`, is asked, and
  `category`, or else `text`, or else `question` answered. Where both are the same it is a phrase.
- `conversations` in LLaVA's form. An answer names its phrases between `<|object_ref_start|>` and `<|object_ref_end|>`,
  or each in front of a `[SEG]`, and what else it says is left out; the record's `mask` has an entry a phrase, in order:
  one mask, a list of masks, or null. (All entries belong to a phrase that is the only one.) An answer that names none
  is text. Conversations and instructions are taken whole or not at all.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from instructsam.core.errors import ImageError
from instructsam.core.image_file import read_image
from instructsam.core.model.preprocess import to_chw
from instructsam.core.rle import Rle
from instructsam.train.data.record_fields import RecordError, Target, listed, read_list, read_target, read_text

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
_TAGGED = re.compile(r'<\|object_ref_start\|>(.*?)<\|object_ref_end\|>', re.DOTALL)
_MARK = re.compile(r'(?:<\|mask_start\|>)?(?:\[SEG\]\s*)+(?:<\|mask_end\|>)?(?:[\s,;]*and\b)?')


@dataclass(frozen=True)
class Turn:
    """One question, the phrases of its answer and their targets."""

    question: str
    phrases: tuple[str, ...]
    targets: tuple[Target, ...]
    text: str = ''  # the answer where there are no phrases


@dataclass(frozen=True)
class Sample:
    """One image with its turns."""

    image: Path
    height: int  # px
    width: int  # px
    turns: tuple[Turn, ...]
    pixels: torch.Tensor | None = field(default=None, compare=False, repr=False)  # [3, H, W] uint8, once it is read
    chosen: tuple[int, ...] | None = None  # phrases, counted over the turns, that reach the detector; None: all

    def choose(self, most, rng):
        """The sample with at most `most` of its phrases (0: all) for the detector, drawn from `rng`."""
        phrases = sum(len(turn.phrases) for turn in self.turns)
        if not most or phrases <= most:
            return self
        return replace(self, chosen=tuple(sorted(rng.permutation(phrases)[:most].tolist())))

    def with_pixels(self):
        """The sample with its image read. Raises RecordError: no such picture, or not of the record's size."""
        if self.pixels is not None:
            return self
        try:
            pixels = to_chw(read_image(self.image))
        except ImageError as error:
            raise RecordError(str(error)) from error
        height, width = pixels.shape[1:]
        if (height, width) != (self.height, self.width):
            raise RecordError(
                f'{self.image} is {width} x {height} px, the record says width {self.width} and height {self.height}'
            )
        return replace(self, pixels=pixels)


@dataclass(frozen=True)
class _Annotation:
    question: str | None  # None: made of the phrase
    phrase: str
    target: Target
    is_plain: bool  # a phrase, which may be asked for together with others


def parse(record, folder, num_queries, rng):
    """The Sample of one record, its image unread.

    folder: where image paths start; num_queries: K, annotations with more instances are left out; rng: a numpy
    Generator that chooses questions. Raises RecordError.
    """
    if not isinstance(record, dict):
        raise RecordError(f'a record is a JSON object, got {type(record).__name__}')
    image, height, width = _header(record)
    if 'conversations' in record and 'annotation' not in record:
        turns = _conversation(record, height, width, num_queries)
    else:
        turns = _asked(record, _annotations(record, height, width, rng), num_queries, rng)
    return Sample(Path(folder) / image, height, width, tuple(turns))


def _header(record):
    try:
        image, height, width = record['image'], int(record['height']), int(record['width'])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f'a record has image, height and width: {error!r}') from error
    if not isinstance(image, str) or not image or height < 1 or width < 1:
        raise RecordError(f'image {image!r} of {height} x {width} px cannot be')
    return image, height, width


def _asked(record, annotations, num_queries, rng):
    kept = _within_limits(annotations, num_queries)
    if not kept:
        raise RecordError(f'no annotation is left: each has more than {num_queries} instances')
    if record.get('type') == 'instseg' and record.get('instruction'):
        _check_whole(kept, annotations, num_queries)
        return [_together(read_text(record, 'instruction', 'the record'), annotations)]
    if record.get('type') == 'instseg' and rng.random() < 0.5:
        return [_ask_together(kept, rng)]
    return _turns(kept, rng)


def _within_limits(annotations, num_queries):
    kept, objects = [], 0
    for annotation in [a for a in annotations if len(a.target) <= num_queries][:MAX_PHRASES]:
        if objects + len(annotation.target) <= MAX_OBJECTS:
            kept.append(annotation)
            objects += len(annotation.target)
    return kept


def _check_whole(kept, annotations, num_queries):
    if len(kept) < len(annotations):
        raise RecordError(
            f'the answer would be incomplete: at most {MAX_PHRASES} phrases, {num_queries} instances of each and '
            f'{MAX_OBJECTS} of all are taken'
        )


def _annotations(record, height, width, rng):
    if 'annotation' in record:
        annotations = read_list(record, 'annotation')
    elif 'mask' in record:
        annotations = [_own_annotation(record)]
    else:
        raise RecordError('a record has annotation, mask or conversations')
    return [_annotation(annotation, height, width, rng) for annotation in annotations]


def _own_annotation(record):
    """The annotation that a record with a mask of its own stands for."""
    texts = {key: read_text(record, key, 'the record') for key in ('question', 'text', 'category') if record.get(key)}
    if not texts:
        raise RecordError('a record with a mask has a text or a question')
    asked = texts.get('question') or texts.get('text') or texts['category']
    answered = texts.get('category') or texts.get('text') or asked
    if answered.endswith('?'):
        raise RecordError(f'the question {asked[:60]!r} has no category, which is its answer')
    kind = 'phrase' if asked == answered else 'sentence'
    return {'type': kind, 'text': asked, 'category': answered, 'ann': listed(record['mask'])}


def _annotation(raw, height, width, rng):
    text = read_text(raw, 'text', 'an annotation')
    if 'ann' not in raw and 'mask' not in raw:
        raise RecordError(f'the annotation {text[:60]!r} has no ann; null says that nothing is there')
    target = read_target(raw.get('ann', raw.get('mask')), raw.get('ann_type', 'mask'), height, width)
    kind = raw.get('type', 'phrase')
    if kind == 'phrase':
        return _Annotation(None, _phrase(text), target, True)
    if kind == 'sentence':
        return _Annotation(text, _phrase(read_text(raw, 'category', f'the sentence {text[:60]!r}')), target, False)
    if kind == 'OCR':
        return _Annotation(_choose(OCR_QUESTIONS, rng).format(text), text, target, False)
    raise RecordError(f'annotation type {kind!r} is not one of phrase, sentence, OCR')


def tidy(phrase):
    """As answers write phrases: no full stop, the first letter small unless the word is an abbreviation."""
    phrase = phrase.strip().rstrip('.').strip()
    return phrase if phrase[1:2].isupper() else phrase[:1].lower() + phrase[1:]


def _phrase(text):
    phrase = tidy(text)
    if not phrase:
        raise RecordError(f'{text!r} is no phrase')
    return phrase


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
    return _together(question, [annotation])


def _ask_together(annotations, rng):
    phrases = [annotation.phrase for annotation in annotations]
    named = ' and '.join([', '.join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]
    return _together(_choose(PHRASE_QUESTIONS, rng).format(named), annotations)


def _together(question, annotations):
    return Turn(question, tuple(a.phrase for a in annotations), tuple(a.target for a in annotations))


def _conversation(record, height, width, num_queries):
    said = read_list(record, 'conversations')
    roles = [message.get('from') if isinstance(message, dict) else None for message in said]
    if len(roles) % 2 or roles != ['human', 'gpt'] * (len(roles) // 2):
        raise RecordError(f'conversations go from human to gpt in turn, got {roles}')
    values = [read_text(message, 'value', 'a message') for message in said]
    named = [_named(answer) for answer in values[1::2]]
    targets = iter(_targets_in_order(record, height, width, sum(map(len, named))))
    answers = [[_Annotation(None, phrase, next(targets), False) for phrase in phrases] for phrases in named]
    annotations = sum(answers, [])
    _check_whole(_within_limits(annotations, num_queries), annotations, num_queries)
    for question, text, answer in zip(values[::2], values[1::2], answers, strict=True):
        question = read_text({'question': question.replace('<image>', '')}, 'question', 'a turn')
        yield _together(question, answer) if answer else Turn(question, (), (), text)


def _named(answer):
    """The phrases that an answer names, none if it is just text."""
    return [_phrase(p.strip(' \n,;:.')) for p in _TAGGED.findall(answer) or _MARK.split(answer)[:-1]]


def _targets_in_order(record, height, width, count):
    masks = listed(record.get('mask')) or []
    if count == 1 and len(masks) != 1 and 'mask' in record:
        masks = [record['mask']]
    if len(masks) != count:
        raise RecordError(f'the answers name {count} phrases, and the record has {len(masks)} masks')
    return [read_target(listed(entry), 'mask', height, width) for entry in masks]


def _union(target):
    return Rle.encode(np.any([mask.decode() for mask in target.masks], axis=0))


def _choose(options, rng):
    return options[int(rng.integers(len(options)))]

"""Contracts of the stages: the row of an image, which each stage returns with its own part filled in.

| stage | reads | fills in |
|---|---|---|
| images | an image file or a frame of a video | `Row.image`; rejections of whole images |
| questions | the image | `Row.questions`, without `object_ids` |
| objects | the image, `questions` | `Row.objects`, without `mask`; `Question.object_ids` |
| masks | the image, `objects` | `SegmentedObject.mask` |
| filter | all of it | `Row.evidence` by models, then `Row.rejections` by rules that are pure functions of the row |
| export | rows in order | files; a question counts if no rejection is about it, its objects or its image |

Every stage adds a `StageRecord` and may add `Rejection`s. A row that has a rejection of its image passes through later
stages unchanged. Coordinates are pixels of the upright picture. Nothing in a row tells an API key or a person's folder:
paths are relative to the folder of their source or of the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.core.text import shorten

SCHEMA_VERSION = 1
"""Raised whenever a row of an earlier version would be misread."""

STAGES = ('images', 'questions', 'objects', 'masks', 'filter')
"""The stages that write rows, in their order."""

Quantifier = Literal['one', 'all', 'count', 'some', 'none']

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in px of the upright picture; x1 and y1 are exclusive."""


@dataclass(frozen=True)
class EngineImage:
    """The image of a row.

    Attributes:
        id: SHA-256 of the image file, or of the pixels of a frame, hexadecimal. Two rows can share it: the second one
            is then rejected.
        path: Upright image: a file of the source, or one that stage images wrote (rotated images, frames of videos).
        in_run: `path` is relative to the folder of the run instead of that of the source.
        height: Rows of the upright picture, px.
        width: Columns of the upright picture, px.
        source: Name of the source in the recipe.
        licence: Licence tag of the source in the recipe.
        origin: File that the image was made from, relative to its source; of a video also the frame, as `clip.mp4#120`.
        sharpness: Variance of the Laplacian of the grey picture with its longer side at 512 px.
        perceptual_hash: 64 bits, hexadecimal, of which near duplicates differ in few.
    """

    id: str
    path: str
    in_run: bool
    height: int
    width: int
    source: str
    licence: str
    origin: str
    sharpness: float
    perceptual_hash: str


@dataclass(frozen=True)
class Ground:
    """Number of targets of a question as its author states it: the paper's field `ground`.

    Attributes:
        quantifier: one: a single target; all: all objects of a description; count: exactly `count` of them; some:
            several; none: nothing, which only a question that is not `is_present` has.
        count: Number of targets; None if the author states none.
    """

    quantifier: Quantifier
    count: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True)
class Question:
    """An instruction about an image.

    Attributes:
        id: `q0`, `q1`, ...; unique in the row.
        text: The question.
        answer: The concise noun phrase that answers it: the phrase of the training record.
        ground: Number of targets.
        kind: attribute, relation, superlative, counting, exclusion, intent, part, or another word of the author.
        distractors: Noun phrases of things in the picture that could be taken for the target.
        is_present: The target is in the picture; False: a hard negative, whose ground is `none`.
        object_ids: Targets, by `SegmentedObject.id`; empty before stage objects and for a hard negative.
    """

    id: str
    text: str
    answer: str
    ground: Ground
    kind: str = ''
    distractors: tuple[str, ...] = ()
    is_present: bool = True
    object_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObjectMask:
    """The mask of an object, with what its model says of it.

    Attributes:
        size: (height, width) of the upright picture, px.
        counts: COCO's compressed run lengths; empty for a mask without a pixel.
        predicted_iou: IoU with the true mask as the model estimates it; None: the model does not estimate it.
        stability: IoU of the masks at logits above +1 and above -1 (SAM's stability score, offset 1); None: unknown.
        object_score: Logit of the object being there, above 0 if it is; None: the model has no such score.
        box_iou: IoU of the mask's tight box with the box that prompted it.
    """

    size: tuple[int, int]
    counts: str
    predicted_iou: float | None = None
    stability: float | None = None
    object_score: float | None = None
    box_iou: float = 0.0

    @property
    def rle(self) -> Rle:
        """The mask as run lengths."""
        return Rle.from_coco({'size': list(self.size), 'counts': self.counts})


@dataclass(frozen=True)
class SegmentedObject:
    """An object or part, shared by the questions about it.

    Attributes:
        id: `o0`, `o1`, ...; unique in the row.
        phrase: Noun phrase that names it.
        box: Its box; may exceed the picture or be empty, which the filter rejects.
        mask: Its mask; None before stage masks.
    """

    id: str
    phrase: str
    box: Box
    mask: ObjectMask | None = None


@dataclass(frozen=True)
class Evidence:
    """Findings of other models about the answer to one question; the filter's rules read them.

    Attributes:
        question_id: The question.
        opinion_iou: IoU of the union of the answer's masks with the union that a concept prompt finds; None: not asked,
            or the answer singles out some of the objects of its concept ("leftmost mug"), which no such prompt can.
        opinion_count: Number of instances that the concept prompt finds; None as for `opinion_iou`.
        round_trip_ids: Objects that a VLM chose by their numbers for the question, without the answer; None: not asked.
        is_exhaustive: The VLM's answer that no target lacks a mask; None: not asked.
        opinion_cover: Share of the answer's masks that those of its concept cover ("mug"); None: not asked.
    """

    question_id: str
    opinion_iou: float | None = None
    opinion_count: int | None = None
    round_trip_ids: tuple[str, ...] | None = None
    is_exhaustive: bool | None = None
    opinion_cover: float | None = None


@dataclass(frozen=True)
class Rejection:
    """A named reason to leave something out of the export.

    Attributes:
        stage: Stage that found it, one of STAGES.
        rule: Name of the rule, such as `counts.one_with_several`; the table of rejections counts by it.
        question_id: The question that is left out; empty: the image with all of its questions.
        object_id: The object that is at fault, if the rule is about one.
        value: Measured number, if the rule compares one.
        limit: The number that it is compared with.
        detail: The values that contradict each other, or an error's text, in one line.
    """

    stage: str
    rule: str
    question_id: str = ''
    object_id: str = ''
    value: float | None = None
    limit: float | None = None
    detail: str = ''


@dataclass(frozen=True)
class StageRecord:
    """The origin of a stage's part of the row, and its costs.

    Attributes:
        stage: One of STAGES.
        model: Name of the model; empty if the stage uses none.
        prompts: SHA-256 of the prompts, the first 16 hexadecimal digits; empty if the stage has none.
        calls: Answers of a VLM that the part was made of, whether they came from the cache or not.
        prompt_tokens: Tokens sent, as the server counts them.
        completion_tokens: Tokens received.
        seconds: Time of the stage; ignored where rows are compared.
    """

    stage: str
    model: str = ''
    prompts: str = ''
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Row:
    """One image on its way through the stages.

    Attributes:
        order: Position of the image among all images of the recipe: the row's key in the files of the stages.
        image: The image; None if its file cannot be read, which is a rejection.
        questions: Questions in the order of their ids.
        objects: Objects in the order of their ids.
        evidence: At most one entry per question.
        rejections: In the order in which they were found.
        stages: One record per stage that the row has been through.
        schema: Version of the contract.
    """

    order: int
    image: EngineImage | None
    questions: tuple[Question, ...] = ()
    objects: tuple[SegmentedObject, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    stages: tuple[StageRecord, ...] = ()
    schema: Literal[1] = SCHEMA_VERSION

    @property
    def is_rejected(self) -> bool:
        """True if the image as a whole is left out."""
        return any(not each.question_id for each in self.rejections)

    def rejected_ids(self) -> frozenset[str]:
        """Return the ids of the questions that are left out."""
        if self.is_rejected:
            return frozenset(question.id for question in self.questions)
        return frozenset(each.question_id for each in self.rejections)

    def kept_questions(self) -> tuple[Question, ...]:
        """Return the questions that nothing has rejected so far."""
        rejected = self.rejected_ids()
        return tuple(question for question in self.questions if question.id not in rejected)

    def objects_of(self, question: Question) -> tuple[SegmentedObject, ...]:
        """Return the targets of a question in the order of its `object_ids`; unknown ids are left out."""
        by_id = {each.id: each for each in self.objects}
        return tuple(by_id[name] for name in question.object_ids if name in by_id)

    def with_rejections(self, rejections: Iterable[Rejection]) -> Row:
        """Return the row with more rejections."""
        return replace(self, rejections=(*self.rejections, *rejections))

    def with_record(self, record: StageRecord) -> Row:
        """Return the row with the record of one more stage."""
        return replace(self, stages=(*self.stages, record))


_ROW = TypeAdapter(Row)


def to_json(row: Row) -> bytes:
    """Return a row as JSON on one line."""
    return _ROW.dump_json(row)


def from_json(text: bytes) -> Row:
    """Return the row of `to_json`.

    Raises:
        DataError: It is not a row; the message names the field.
    """
    try:
        return _ROW.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = '.'.join(map(str, first['loc'])) or 'the line'
        raise DataError(
            f'not a row of the data engine (schema {SCHEMA_VERSION}): {where}: {shorten(first["msg"])}'
        ) from error

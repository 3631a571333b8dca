"""Stage objects: a VLM names the targets of the questions, shared between questions, with their boxes."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import pydantic

from instructsam.core.text import shorten
from instructsam.train.data_engine.asking import Client, Costs, PictureReader, ask, check_max_side, prompt_hash
from instructsam.train.data_engine.coordinates import CONVENTIONS, Convention
from instructsam.train.data_engine.rows import EngineImage, Question, Rejection, Row, SegmentedObject
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.errors import BadReply

STAGE = 'objects'

SYSTEM = (
    'You locate things in images for the ground truth of a segmentation data set. Every box is tight around one whole '
    'visible thing. Reply with JSON alone.'
)
REQUEST = """\
Find the targets of the questions below in this image. Rules:
- objects: every target once, even if several questions ask for it. object_id is a short id of yours, phrase a noun \
phrase that names this object. The box is {box}.
- answers: for each question_id the object_ids of all of its targets and of nothing else; [] if there is none."""


class AnswerForm(pydantic.BaseModel):
    """The targets of one question."""

    question_id: str
    object_ids: list[str]


class ObjectForm(pydantic.BaseModel):
    """One object of a reply, without its box, whose field has the convention's name."""

    object_id: Annotated[str, pydantic.Field(min_length=1, max_length=100)]
    phrase: Annotated[str, pydantic.Field(min_length=1, max_length=1000)]


Values = Annotated[
    list[Annotated[float, pydantic.Field(allow_inf_nan=False)]], pydantic.Field(min_length=4, max_length=4)
]


class ObjectsForm(pydantic.BaseModel):
    """A reply of stage objects, whose ids belong together."""

    objects: list[Any]
    answers: list[AnswerForm]

    @pydantic.model_validator(mode='after')
    def check_ids(self) -> ObjectsForm:
        """Refuse ids that are given twice or to nothing."""
        known = [each.object_id for each in self.objects]
        asked = [each.question_id for each in self.answers]
        if repeated := sorted({name for name in known if known.count(name) > 1}):
            raise ValueError(f'object_id {shorten(repeated[0], 40)!r} is given to several objects')
        if repeated := sorted({name for name in asked if asked.count(name) > 1}):
            raise ValueError(f'question_id {shorten(repeated[0], 40)!r} has several answers: give it one')
        for answer in self.answers:
            if unknown := [name for name in answer.object_ids if name not in known]:
                raise ValueError(f'answers name object_id {shorten(unknown[0], 40)!r}, which is not among the objects')
        return self


@functools.cache
def objects_form(key: str) -> type[ObjectsForm]:
    """Return the form of replies whose boxes have the name `key`."""
    located = pydantic.create_model('LocatedObject', __base__=ObjectForm, **{key: (Values, ...)})  # type: ignore[call-overload]
    return pydantic.create_model('Objects', __base__=ObjectsForm, objects=(list[located], ...))  # pyright: ignore[reportInvalidTypeForm]


@dataclass(frozen=True)
class ObjectSettings:
    """Settings of stage objects."""

    convention: str = 'qwen3-vl'  # convention of the model's boxes, see coordinates.CONVENTIONS
    probe: bool = True  # check the convention on pictures of known boxes before anything is paid for
    max_side: int = 1536  # longer side of the picture that is sent, px

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise ValueError(
                f'convention must be one of {", ".join(CONVENTIONS)}, got {shorten(repr(self.convention))}'
            )
        check_max_side(self.max_side)


@dataclass(frozen=True)
class Located:
    """A usable reply of the VLM.

    Attributes:
        objects: (id, phrase, four numbers) of each object, as the VLM gives them.
        answers: Ids of the targets by id of the question; questions that the VLM left out are missing.
    """

    objects: tuple[tuple[str, str, tuple[float, ...]], ...]
    answers: dict[str, tuple[str, ...]]


async def locate(
    client: Client, picture: np.ndarray, questions: Sequence[Question], convention: Convention, costs: Costs
) -> Located:
    """Ask the VLM for the targets of questions about a picture [H, W, 3] uint8.

    Raises:
        BadReply: It gives none of the right form, in two calls.
        VlmError: There is no reply.
        BudgetSpent: The budget is used up.
    """
    form = objects_form(convention.key)
    reply = await ask(client, object_messages(picture, questions, convention), form, costs)
    objects = tuple((each.object_id, each.phrase, tuple(getattr(each, convention.key))) for each in reply.objects)
    return Located(objects, {each.question_id: tuple(dict.fromkeys(each.object_ids)) for each in reply.answers})


def object_messages(picture: np.ndarray, questions: Sequence[Question], convention: Convention) -> list[Message]:
    """Return the chat that asks for the targets of questions; the last text is JSON with the questions."""
    listed = [{'question_id': each.id, 'question': each.text, 'answer': each.answer} for each in questions]
    request = REQUEST.format(box=convention.describe())
    return [
        Message.of('system', SYSTEM),
        Message.of('user', picture, request, json.dumps({'questions': listed}, ensure_ascii=False)),
    ]


class AskObjects:
    """The stage as a function: row in, row out.

    Args:
        client: Client of the VLM.
        model: Its name, for the record.
        settings: Settings.
        read: Returns the picture of a row's image, [H, W, 3] uint8 RGB.
    """

    def __init__(
        self, client: Client, model: str, settings: ObjectSettings, read: Callable[[EngineImage], np.ndarray]
    ) -> None:
        self._client = client
        self._model = model
        self._picture = PictureReader(read, settings.max_side)
        self._convention = CONVENTIONS[settings.convention]
        self._prompts = prompts(self._convention)

    async def __call__(self, row: Row) -> Row:
        """Return the row with its objects and the targets of its questions.

        Questions about something absent are not asked, and a question that the reply leaves out is rejected.

        Raises:
            VlmError: There is no reply.
            BudgetSpent: The budget is used up.
            InstructSAMError: The image cannot be read any more.
        """
        questions = [each for each in row.kept_questions() if each.is_present]
        if row.image is None or not questions:
            return row
        start, costs = time.perf_counter(), Costs()
        picture = await self._picture(row.image)
        try:
            located = await locate(self._client, picture, questions, self._convention, costs)
        except BadReply as error:
            row = row.with_rejections(
                Rejection(STAGE, 'objects.bad_reply', each.id, detail=shorten(error)) for each in questions
            )
        else:
            row = self._with_objects(row, questions, located, picture.shape[:2])
        return row.with_record(costs.record(STAGE, self._model, self._prompts, time.perf_counter() - start))

    def _with_objects(self, row: Row, questions: Sequence[Question], located: Located, sent: tuple[int, int]) -> Row:
        assert row.image is not None
        full = (row.image.height, row.image.width)
        asked = {each.id for each in questions}
        used = {name for question, names in located.answers.items() if question in asked for name in names}
        kept = [each for each in located.objects if each[0] in used]
        ids = {name: f'o{number}' for number, (name, _, _) in enumerate(kept)}
        objects = tuple(
            SegmentedObject(ids[name], ' '.join(phrase.split()), self._convention.to_box(values, sent, full))
            for name, phrase, values in kept
        )
        answered = tuple(
            replace(each, object_ids=tuple(ids[name] for name in located.answers.get(each.id, ())))
            if each.id in asked
            else each
            for each in row.questions
        )
        unanswered = [
            Rejection(STAGE, 'objects.no_target', each.id, detail='the question has no target, though it is present')
            for each in questions
            if not located.answers.get(each.id)
        ]
        return replace(row, objects=objects, questions=answered).with_rejections(unanswered)


def prompts(convention: Convention) -> str:
    """Return the hash of the stage's prompts."""
    return prompt_hash(SYSTEM, REQUEST, convention.describe(), objects_form(convention.key))

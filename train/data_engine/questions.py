"""Stage questions: a VLM writes instructions about an image, with answers, counts and hard negatives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pydantic

from instructsam.core.text import shorten
from instructsam.train.data_engine.asking import Client, Costs, PictureReader, ask, check_max_side, prompt_hash
from instructsam.train.data_engine.rows import EngineImage, Ground, Quantifier, Question, Rejection, Row
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.errors import BadReply

STAGE = 'questions'

SYSTEM = (
    'You write questions that train a robot to find things in images. Each question refers to its target by what '
    'it is, looks like, is for, or where it is, so that a person who sees only this image would point at exactly the '
    'same things. Reply with JSON alone.'
)
REQUEST = """\
Write {count} different questions about this image. Rules:
- question: an instruction or a question that can be answered by pointing. It needs attributes, relations, order, \
counting, exclusion, purpose or parts to be answered; mix these, and mix questions with one target and with several.
- answer: the shortest noun phrase that names the target. No sentence, no pronoun, no coordinates.
- ground: quantifier is "one" for a single target, "all" for every object of a description, "count" for an exact \
number, "some" for several out of more; count is the number of targets in the image.
- kind: one of attribute, relation, superlative, counting, exclusion, intent, part.
- distractors: noun phrases of other things in the image that a careless reader would take for the target.
- present: true if the target is in the image.
{negatives}"""
NEGATIVES = (
    'For {count} of the questions the target must be absent, but close to something that is there (another colour, '
    'place or part of a visible thing): present is false, quantifier is "none" and count is 0.'
)
NO_NEGATIVES = 'Ask only about targets that are in the image.'


class GroundForm(pydantic.BaseModel):
    """The field `ground` of a reply."""

    quantifier: Quantifier
    count: Annotated[int, pydantic.Field(ge=0, le=1000)] | None = None


class QuestionForm(pydantic.BaseModel):
    """One question of a reply."""

    question: Annotated[str, pydantic.Field(min_length=1, max_length=1000)]
    answer: Annotated[str, pydantic.Field(min_length=1, max_length=1000)]
    ground: GroundForm
    kind: str = ''
    distractors: list[str] = []
    present: bool = True


class QuestionsForm(pydantic.BaseModel):
    """A reply of stage questions."""

    questions: Annotated[list[QuestionForm], pydantic.Field(min_length=1)]


@dataclass(frozen=True)
class QuestionSettings:
    """Settings of stage questions."""

    per_image: int = 5  # questions per image (paper: 5)
    negatives: int = 1  # of them, about something that is not there
    max_side: int = 1536  # longer side of the picture that is sent, px

    def __post_init__(self) -> None:
        if not 1 <= self.per_image <= 50 or not 0 <= self.negatives <= self.per_image:
            raise ValueError(
                f'per_image must be from 1 to 50 and negatives from 0 to per_image, got {self.per_image} and '
                f'{self.negatives}'
            )
        check_max_side(self.max_side)


PROMPTS = prompt_hash(SYSTEM, REQUEST, NEGATIVES, NO_NEGATIVES, QuestionsForm)


class AskQuestions:
    """The stage as a function: row in, row out.

    Args:
        client: Client of the VLM.
        model: Its name, for the record.
        settings: Settings.
        read: Returns the picture of a row's image, [H, W, 3] uint8 RGB.
    """

    def __init__(
        self, client: Client, model: str, settings: QuestionSettings, read: Callable[[EngineImage], np.ndarray]
    ) -> None:
        self._client = client
        self._model = model
        self._settings = settings
        self._picture = PictureReader(read, settings.max_side)

    async def __call__(self, row: Row) -> Row:
        """Return the row with its questions, or with a rejection if the VLM gives none of the right form.

        Raises:
            VlmError: There is no reply.
            BudgetSpent: The budget is used up.
            InstructSAMError: The image cannot be read any more.
        """
        if row.is_rejected or row.image is None:
            return row
        start, costs = time.perf_counter(), Costs()
        picture = await self._picture(row.image)
        try:
            reply = await ask(self._client, question_messages(picture, self._settings), QuestionsForm, costs)
        except BadReply as error:
            row = row.with_rejections([Rejection(STAGE, 'questions.bad_reply', detail=shorten(error))])
        else:
            drafts = reply.questions[: self._settings.per_image]
            row = replace(row, questions=tuple(_question(number, each) for number, each in enumerate(drafts)))
        return row.with_record(costs.record(STAGE, self._model, PROMPTS, time.perf_counter() - start))


def question_messages(picture: np.ndarray, settings: QuestionSettings) -> list[Message]:
    """Return the chat that asks for questions about a picture."""
    negatives = NEGATIVES.format(count=settings.negatives) if settings.negatives else NO_NEGATIVES
    request = REQUEST.format(count=settings.per_image, negatives=negatives)
    return [Message.of('system', SYSTEM), Message.of('user', picture, request)]


def _question(number: int, draft: QuestionForm) -> Question:
    ground = Ground(draft.ground.quantifier, draft.ground.count) if draft.present else Ground('none', 0)
    return Question(
        id=f'q{number}',
        text=' '.join(draft.question.split()),
        answer=' '.join(draft.answer.split()),
        ground=ground,
        kind=shorten(draft.kind, 40),
        distractors=tuple(' '.join(each.split()) for each in draft.distractors[:20]),
        is_present=draft.present,
    )

"""Evidence of other models about the answers of a row, which the filter's rules read.

- second opinion: a concept prompt with the answer phrase. Does it find about these instances, and as many? Of an answer
  that singles out some objects of its concept ("leftmost mug"): are these among the mugs that it finds?
- round trip: a VLM sees all objects of the row with numbers, and the question without its answer. Does it choose the
  numbers of the answer?
- exhaustivity: a VLM sees the answer's objects with numbers, and the question. Does no target lack a number?

Only questions that nothing has rejected so far are checked, because each check costs a call.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pydantic

from instructsam.core.engine import EncodedImage, InstructSAM
from instructsam.core.rle import Rle
from instructsam.core.text import shorten
from instructsam.train.data_engine.asking import Client, Costs, ask, prompt_hash
from instructsam.train.data_engine.filters.counts import concept, is_concept
from instructsam.train.data_engine.rows import Evidence, Question, Rejection, Row
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.errors import BadReply
from instructsam.train.vlm.marks import draw_marks

STAGE = 'filter'
MOST_MARKS = 30  # objects with numbers in one picture; more are not legible

ROUND_TRIP_PROMPT = """\
You check annotations of images. The image shows a scene in which objects are outlined and numbered from 1 to {count}.
Choose the numbers of all objects that answer the question, and no others. A number may be none of the answer, and none
of them may be. Reply with JSON: {{"numbers": [...]}}, with an empty list if no numbered object is meant."""

EXHAUSTIVE_PROMPT = """\
You check annotations of images. In the image, the objects that were found for the question are outlined and numbered
from 1 to {count}. Look for further objects that the question asks for and that have no number, or of which a large part
lies outside the outline. Reply with JSON: {{"is_complete": true}} if there are none, else {{"is_complete": false}}."""


class ChosenNumbers(pydantic.BaseModel):
    """A VLM's reply to the round trip."""

    numbers: list[int]


class Completeness(pydantic.BaseModel):
    """A VLM's reply to the question of exhaustivity."""

    is_complete: bool


PROMPTS = prompt_hash(ROUND_TRIP_PROMPT, EXHAUSTIVE_PROMPT, ChosenNumbers, Completeness)


class ConceptFinder(Protocol):
    """A model that finds all instances of a phrase in an image, which it encodes once."""

    def encode(self, image: np.ndarray) -> Any:
        """Return the encoded image [H, W, 3] uint8 RGB."""
        ...

    def find(self, encoded: Any, phrase: str) -> Sequence[Rle]:
        """Return the masks of the instances, of the image's size."""
        ...


@dataclass(frozen=True)
class EngineFinder:
    """A finder over an engine, such as a ConceptEngine: its masks for a phrase that it is told to answer."""

    engine: InstructSAM
    threshold: float = 0.3

    def encode(self, image: np.ndarray) -> EncodedImage:
        """Return the encoded image."""
        return self.engine.encode(image)

    def find(self, encoded: EncodedImage, phrase: str) -> list[Rle]:
        """Return the masks of the instances that score above the threshold."""
        answer = self.engine.answer_for([phrase])
        found = self.engine.segment(encoded, phrase, answer=answer, score_threshold=self.threshold)
        return [instance.mask for instance in found.instances]


def second_opinion(row: Row, image: np.ndarray, finder: ConceptFinder) -> Row:
    """Return the row with what a concept prompt with each answer phrase finds.

    Args:
        row: A row that has been through stage masks.
        image: Its picture, [H, W, 3] uint8 RGB, which is encoded once.
        finder: The model.
    """
    questions = row.kept_questions()
    if not questions:
        return row
    encoded = finder.encode(image)
    found: dict[str, Sequence[Rle]] = {}  # by concept: several questions may have one
    for question in questions:
        prompt = concept(question.answer)
        if not prompt:
            continue
        if prompt not in found:
            found[prompt] = finder.find(encoded, prompt)
        masks = found[prompt]
        given = [each.mask.rle for each in row.objects_of(question) if each.mask is not None and each.mask.counts]
        changes: dict[str, Any] = {'opinion_cover': cover(given, masks)} if given else {}
        if is_concept(question.answer):
            changes |= {'opinion_iou': union_iou(given, masks), 'opinion_count': len(masks)}
        row = with_evidence(row, question.id, **changes)
    return row


def cover(masks: Sequence[Rle], others: Sequence[Rle]) -> float:
    """Return the share of the union of `masks`, which is not empty, that the union of `others` covers."""
    union = Rle.merge(masks)
    return union.intersection_area(Rle.merge(others)) / union.area if others else 0.0


def union_iou(masks: Sequence[Rle], others: Sequence[Rle]) -> float:
    """Return the IoU of the unions of two lists of masks of one size; 1 if both are empty, 0 if one is."""
    if not masks or not others:
        return float(not masks and not others)
    return float(Rle.merge(masks).iou([Rle.merge(others)])[0])


async def round_trip(
    row: Row, image: np.ndarray, client: Client, costs: Costs, duplicates: Collection[str] = ()
) -> Row:
    """Return the row with the objects that a VLM chooses for each question by their numbers.

    The numbers follow the order of the row's objects. A reply that is unusable twice rejects the question.

    Args:
        row: A row that has been through stage masks.
        image: Its picture, [H, W, 3] uint8 RGB.
        client: The VLM, best another one than that which wrote the answers.
        costs: Receives the costs.
        duplicates: Ids of objects that are one thing with another one and that no question has. They get no number:
            of a thing with two numbers, a VLM would rightly choose both.

    Raises:
        VlmError: There is no reply.
        BudgetSpent: The budget is used up.
    """
    marked = [each for each in row.objects if each.mask is not None and each.mask.counts and each.id not in duplicates]
    if not marked:
        return row
    for question in row.kept_questions():
        # With too many for one picture, those of the answer must be among them.
        first = sorted(marked, key=lambda each: each.id not in question.object_ids)[:MOST_MARKS]
        shown = [each for each in marked if each in first]
        try:
            picture = draw_marks(image, [each.mask.rle for each in shown if each.mask is not None])
            messages = _chat(ROUND_TRIP_PROMPT.format(count=len(shown)), picture, question)
            reply = await ask(client, messages, ChosenNumbers, costs)
        except BadReply as error:
            row = row.with_rejections([Rejection(STAGE, 'opinions.bad_reply', question.id, detail=shorten(error))])
            continue
        # A number that nothing has is an id that nothing has: the rule then finds the two sets unequal.
        chosen = [shown[n - 1].id if 1 <= n <= len(shown) else f'mark {n}' for n in sorted(set(reply.numbers))]
        row = with_evidence(row, question.id, round_trip_ids=tuple(chosen))
    return row


async def exhaustivity(row: Row, image: np.ndarray, client: Client, costs: Costs) -> Row:
    """Return the row with a VLM's word that no target lacks a mask, for each question with targets.

    Arguments and errors as those of `round_trip`.
    """
    for question in row.kept_questions():
        masks = [each.mask.rle for each in row.objects_of(question) if each.mask is not None and each.mask.counts]
        if not masks:
            continue
        try:
            messages = _chat(EXHAUSTIVE_PROMPT.format(count=len(masks)), draw_marks(image, masks), question)
            reply = await ask(client, messages, Completeness, costs)
        except BadReply as error:
            row = row.with_rejections([Rejection(STAGE, 'opinions.bad_reply', question.id, detail=shorten(error))])
        else:
            row = with_evidence(row, question.id, is_exhaustive=reply.is_complete)
    return row


def with_evidence(row: Row, question_id: str, **changes: Any) -> Row:
    """Return the row with `changes` made to the evidence about a question."""
    known = {each.question_id: each for each in row.evidence}
    known[question_id] = replace(known.get(question_id, Evidence(question_id)), **changes)
    order = [question.id for question in row.questions]
    return replace(row, evidence=tuple(known[name] for name in order if name in known))


def _chat(prompt: str, picture: np.ndarray, question: Question) -> list[Message]:
    return [Message.of('system', prompt), Message.of('user', picture, f'Question: {question.text}')]

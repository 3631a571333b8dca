"""Rules about the findings of other models, which `verify` gathers; a check that was not asked for rejects nothing."""

from __future__ import annotations

from instructsam.train.data_engine.filters.finding import Finding
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Evidence, Question, Row


def _evidence(row: Row, question: Question) -> Evidence:
    """Return the evidence about a question, which may be that nothing was asked."""
    return next((each for each in row.evidence if each.question_id == question.id), Evidence(question.id))


def elsewhere(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer that a concept prompt finds elsewhere."""
    found = _evidence(row, question).opinion_iou
    if found is not None and found < limits.opinion_iou:
        return Finding('IoU of the unions', value=found, limit=limits.opinion_iou)
    return None


def uncovered(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer whose masks are not among those of its concept."""
    found = _evidence(row, question).opinion_cover
    if found is not None and found < limits.opinion_cover:
        return Finding('of the masks', value=found, limit=limits.opinion_cover)
    return None


def as_many(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer of which a concept prompt finds more or fewer instances."""
    found, given = _evidence(row, question).opinion_count, len(question.object_ids)
    if found is not None and abs(found - given) > limits.opinion_count:
        return Finding('instances', value=found, limit=given)
    return None


def round_trip(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question for which a VLM chooses other numbers than those of its objects."""
    chosen = _evidence(row, question).round_trip_ids
    if chosen is not None and set(chosen) != set(question.object_ids):
        return Finding(f'chosen: {", ".join(chosen) or "none"}, given: {", ".join(question.object_ids) or "none"}')
    return None


def not_all(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question of which a VLM says that a target lacks a mask."""
    return Finding('a target is missing') if _evidence(row, question).is_exhaustive is False else None

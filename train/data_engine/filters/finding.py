"""The answer of a rule: nothing, or a finding that becomes a rejection of the question."""

from collections.abc import Callable
from dataclasses import dataclass

from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Question, Row


@dataclass(frozen=True)
class Finding:
    """The reason of a rule for rejecting a question; fields as those of `rows.Rejection`."""

    detail: str = ''
    object_id: str = ''
    value: float | None = None
    limit: float | None = None


Rule = Callable[[Row, Question, Thresholds], Finding | None]
"""A rule: a pure function of a finished row, one of its questions and the thresholds; None keeps the question."""

"""Stage filter: rules on the row, then evidence of other models for the questions that are left, and rules on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from instructsam.train.data_engine.asking import Client, Costs
from instructsam.train.data_engine.filters.rules import OPINION_RULES, ROW_RULES, STAGE, duplicates, judge, merge_same
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import EngineImage, Row
from instructsam.train.data_engine.verify import PROMPTS, ConceptFinder, exhaustivity, round_trip, second_opinion


@dataclass(frozen=True)
class FilterSettings:
    """Settings of stage filter.

    Attributes:
        thresholds: Limits of the rules.
        second_opinion: Ask a concept prompt for the answer phrase.
        round_trip: Ask a VLM to choose the answer among numbered objects.
        exhaustivity: Ask a VLM whether a target lacks a mask.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    second_opinion: bool = True
    round_trip: bool = True
    exhaustivity: bool = True


class FilterAnswers:
    """The stage as a function: row in, row out.

    Args:
        settings: Settings.
        client: Client of the VLM that checks; not used if no check of a VLM is set.
        model: Its name, for the record.
        finder: Model of the second opinion; not used if none is set. One row at a time uses it.
        read: Returns the picture of a row's image, [H, W, 3] uint8 RGB.
    """

    def __init__(
        self,
        settings: FilterSettings,
        client: Client | None,
        model: str,
        finder: ConceptFinder | None,
        read: Callable[[EngineImage], np.ndarray],
    ) -> None:
        self._settings = settings
        self._client = client
        self._model = model
        self._finder = finder
        self._read = read
        self._finding = asyncio.Lock()

    async def __call__(self, row: Row) -> Row:
        """Return the row with its evidence and the rejections of all rules.

        Raises:
            VlmError: There is no reply.
            BudgetSpent: The budget is used up.
            InstructSAMError: The image cannot be read any more.
        """
        picture = row.image
        if row.is_rejected or picture is None:
            return row
        start, costs, settings = time.perf_counter(), Costs(), self._settings
        row = merge_same(judge(row, settings.thresholds, ROW_RULES), settings.thresholds)
        asks_vlm = self._client is not None and (settings.round_trip or settings.exhaustivity)
        asks_finder = self._finder is not None and settings.second_opinion
        if row.kept_questions() and (asks_vlm or asks_finder):
            image = self._read(picture)
            if self._finder is not None and asks_finder:
                async with self._finding:
                    row = await asyncio.to_thread(second_opinion, row, image, self._finder)
                row = judge(row, settings.thresholds, OPINION_RULES)
            if self._client is not None and settings.round_trip:
                hidden = duplicates(row, settings.thresholds)
                row = await round_trip(row, image, self._client, costs, hidden)
                row = judge(row, settings.thresholds, OPINION_RULES)
            if self._client is not None and settings.exhaustivity:
                row = judge(await exhaustivity(row, image, self._client, costs), settings.thresholds, OPINION_RULES)
        model, prompts = (self._model, PROMPTS) if asks_vlm else ('', '')
        return row.with_record(costs.record(STAGE, model, prompts, time.perf_counter() - start))

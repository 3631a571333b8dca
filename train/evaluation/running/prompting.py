"""Puts the queries of a benchmark to a model; each image is encoded once for all queries about it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np

from instructsam.core.engine import InstructSAM
from instructsam.core.errors import ImageError, InstructionError
from instructsam.core.result import Result
from instructsam.train.engines.concept import ConceptEngine
from instructsam.train.evaluation.benchmarks import fill_prompt
from instructsam.train.evaluation.figures.summary import ENCODE, SEGMENT
from instructsam.train.evaluation.query import ImageQueries, Order, Outcome, Query
from instructsam.train.modes import DUMMY_PHRASE


class QueryEngine(Protocol):
    """An engine that answers queries: InstructSAM or the agent."""

    def encode(self, image: np.ndarray) -> Any:
        """Encode an image [H, W, 3] uint8 RGB. Raises ImageError."""
        ...

    def segment(
        self,
        encoded: Any,
        instruction: str,
        *,
        score_threshold: float,
        answer: Any,
        max_new_tokens: int,
        suppress_duplicates: bool,
    ) -> Result:
        """Find the objects that `instruction` names. Raises InstructionError."""
        ...

    def answer_for(self, phrases: Iterable[str]) -> Any:
        """Return the answer that names `phrases`. Raises InstructionError."""
        ...


@dataclass(frozen=True)
class PromptOptions:
    """Prompts, thresholds and limits of a run. Its header stores the fields under these names."""

    threshold: float = 0.5  # instances that score above it are the answer
    lowest: float = 0.05  # instances that score above it take part in AP
    prompts: dict[str, str] = field(default_factory=lambda: {'': '{text}'})  # form -> prompt template
    suppress_duplicates: bool = True
    max_new_tokens: int = 256
    phrase: str = 'generated'  # source of the answer's phrases, one of benchmarks.PHRASE_SOURCES
    own_queries: bool = False  # concept prompting: the phrase prompts SAM3, which answers with its own learned queries

    def engine_for(self, engine: QueryEngine) -> QueryEngine:
        """Return the engine to query instead of `engine`: itself, or a ConceptEngine with the same model."""
        return ConceptEngine.from_engine(cast(InstructSAM, engine)) if self.own_queries else engine

    def forced_phrases(self, query: Query) -> tuple[str, ...]:
        """Return the phrases that the model is made to answer; empty if it generates them."""
        if self.phrase == 'generated':
            return ()
        return (DUMMY_PHRASE,) * len(query.phrases) if self.phrase == 'dummy' else query.phrases


def answer_image(
    engine: QueryEngine, index: int, image: ImageQueries, options: PromptOptions, skip: Collection[int] = frozenset()
) -> Iterator[Outcome]:
    """Yield an outcome for every query about one image, which is encoded once.

    Args:
        engine: The engine to query, see `PromptOptions.engine_for`.
        index: Index of the image in the split.
        image: The image with its queries. A query that cannot be asked becomes an outcome with an error.
        options: How the queries are put.
        skip: Indices of queries that are left out.
    """
    pending = [(number, query) for number, query in enumerate(image.queries) if number not in skip]
    encoded, encode_ms, reason = None, {}, ''
    if any(not query.error for _, query in pending):
        start = time.perf_counter()
        try:
            encoded = engine.encode(image.load())
        except (ImageError, InstructionError) as error:
            reason = str(error)
        encode_ms = {ENCODE: (time.perf_counter() - start) * 1e3}
    for number, query in pending:
        order = Order(index, number, len(image.queries))
        if query.error or encoded is None:
            yield Outcome(order, image.image, query, error=query.error or reason)
            continue
        yield _answer_query(engine, encoded, Outcome(order, image.image, query), options, encode_ms)
        encode_ms = {}


def answer_images(engine: QueryEngine, images: Iterable[ImageQueries], options: PromptOptions) -> Iterator[Outcome]:
    """Yield an outcome for every query about every image."""
    engine = options.engine_for(engine)
    for index, image in enumerate(images):
        yield from answer_image(engine, index, image, options)


def _answer_query(
    engine: QueryEngine, encoded: Any, unanswered: Outcome, options: PromptOptions, encode_ms: dict[str, float]
) -> Outcome:
    """Return `unanswered` with the model's predictions, or with an error.

    encode_ms: the time of the encoding if this is the first query about the image, else empty.
    """
    query = unanswered.query
    prompt = fill_prompt(options.prompts[query.form], query.text)
    forced = options.forced_phrases(query)
    start = time.perf_counter()
    try:
        result = engine.segment(
            encoded,
            prompt,
            score_threshold=min(options.lowest, options.threshold),
            answer=engine.answer_for(forced) if forced else None,
            max_new_tokens=options.max_new_tokens,
            suppress_duplicates=options.suppress_duplicates,
        )
    except InstructionError as error:
        usage: dict[str, int] = getattr(error, 'usage', {})  # of an agent whose endpoint failed
        timings_ms = {SEGMENT: (time.perf_counter() - start) * 1e3} if usage else {}
        return replace(unanswered, prompt=prompt, error=str(error), usage=usage, timings_ms=timings_ms)
    annotated = [*query.ground_truth, *([query.ignore] if query.ignore is not None else [])]
    sizes = {(mask.height, mask.width) for mask in annotated}
    if sizes - {(result.height, result.width)}:
        reason = (
            f'its masks are {sorted(sizes)} (height, width), the image {unanswered.image} is '
            f'{(result.height, result.width)}'
        )
        return replace(unanswered, prompt=prompt, error=reason)
    return replace(
        unanswered,
        prompt=prompt,
        masks=tuple(instance.mask for instance in result.instances),
        scores=tuple(instance.score for instance in result.instances),
        answer=result.answer,
        phrases=result.phrases,
        is_forced=bool(forced),
        timings_ms={**result.timings_ms, **encode_ms, SEGMENT: (time.perf_counter() - start) * 1e3},
        usage=result.usage,
    )

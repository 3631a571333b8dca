"""Asks an engine everything about an image, which it encodes once."""

import time
from dataclasses import dataclass, field

from instructsam.core.errors import ImageError, InstructionError
from instructsam.train.evaluation.benchmarks import prompt_of
from instructsam.train.evaluation.figures.summary import ENCODE, SEGMENT
from instructsam.train.evaluation.query import Outcome

PHRASES = ('generated', 'given', 'dummy')
DUMMY = 'object'


@dataclass(frozen=True)
class Asking:
    """How queries are asked.

    threshold: instances above it are the answer, those above `lowest` take part in AP. phrase: 'generated' by the
    model, or a forced answer: the true phrases ('given') or DUMMY for each ('dummy'). own_queries: the phrase prompts
    SAM3, which answers with learned queries of its own.
    """

    threshold: float = 0.5
    lowest: float = 0.05
    prompts: dict[str, str] = field(default_factory=lambda: {'': '{text}'})
    suppress_duplicates: bool = True
    max_new_tokens: int = 256
    phrase: str = 'generated'
    own_queries: bool = False

    def engine(self, engine):
        """The engine to ask, in the place of `engine`."""
        if not self.own_queries:
            return engine
        from instructsam.train.engines.concept import ConceptEngine

        return ConceptEngine.from_engine(engine)


def ask(engine, position, scene, asking, skip=frozenset()):
    """Yields an Outcome for each query of a query.Scene but those whose number is in `skip`; encodes its image once.

    position: the scene's in the split. What cannot be asked becomes an Outcome with an error.
    """
    queries = [(number, query) for number, query in enumerate(scene.queries) if number not in skip]
    frame, encode_ms, reason = None, {}, ''
    if any(not query.error for _, query in queries):
        start = time.perf_counter()
        try:
            frame = engine.encode(scene.load())
        except (ImageError, InstructionError) as error:
            reason = str(error)
        encode_ms = {ENCODE: (time.perf_counter() - start) * 1e3}
    for number, query in queries:
        about = {'order': (position, number, len(scene.queries)), 'image': scene.image, 'query': query}
        if query.error or reason:
            yield Outcome(**about, error=query.error or reason)
            continue
        yield _asked(engine, frame, query, asking, about, encode_ms)
        encode_ms = {}


def ask_all(engine, scenes, asking):
    """Yields an Outcome for every query of every one of `scenes`."""
    engine = asking.engine(engine)
    for position, scene in enumerate(scenes):
        yield from ask(engine, position, scene, asking)


def _asked(engine, frame, query, asking, about, encode_ms):
    prompt = prompt_of(asking.prompts[query.form], query.text)
    named = {'generated': (), 'dummy': (DUMMY,) * len(query.phrases)}.get(asking.phrase, query.phrases)
    start = time.perf_counter()
    try:
        result = engine.segment(
            frame,
            prompt,
            score_threshold=min(asking.lowest, asking.threshold),
            answer=engine.answer_for(named) if named else None,
            max_new_tokens=asking.max_new_tokens,
            suppress_duplicates=asking.suppress_duplicates,
        )
    except InstructionError as error:
        return Outcome(**about, prompt=prompt, error=str(error))
    sizes = {(mask.height, mask.width) for mask in (*query.truth, *filter(None, [query.ignore]))}
    if sizes - {(result.height, result.width)}:
        return Outcome(
            **about,
            prompt=prompt,
            error=(
                f'its masks are {sorted(sizes)} (height, width), the image {about["image"]} is '
                f'{(result.height, result.width)}'
            ),
        )
    return Outcome(
        **about,
        prompt=prompt,
        masks=tuple(one.mask for one in result.instances),
        scores=tuple(one.score for one in result.instances),
        answer=result.answer,
        phrases=result.phrases,
        named=bool(named),
        timings_ms={**result.timings_ms, **encode_ms, SEGMENT: (time.perf_counter() - start) * 1e3},
    )

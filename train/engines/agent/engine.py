"""Engine of the agent, with `encode` and `segment` as `instructsam.core.InstructSAM` has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from instructsam.core.errors import ImageError, InstructionError
from instructsam.core.model.prompt import check_instruction
from instructsam.core.result import Instance, Result
from instructsam.train.engines.agent import prompts
from instructsam.train.engines.agent.backends import PhraseBackend, PhraseImage
from instructsam.train.engines.agent.conversation import Conversation
from instructsam.train.engines.agent.loop import (
    best_so_far,
    check_messages,
    limit_reached,
    messages,
    refuse_phrase,
    start,
    step,
)
from instructsam.train.engines.agent.replies import parse_verdict
from instructsam.train.engines.agent.state import (
    DEFAULT_LIMITS,
    AgentState,
    Answer,
    CheckRequest,
    Limits,
    Mark,
    SegmentRequest,
)
from instructsam.train.engines.agent.tools import add_masks, keep_accepted
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.client import Reply, VlmClient
from instructsam.train.vlm.errors import EmptyReply, VlmError

CHECK_TRIES = 2
"""Replies about one mask; without a clear verdict the mask stays."""


class QueryFailed(InstructionError):  # noqa: N818 (its base class has the suffix)
    """The model's endpoint failed during a query; the next query may be answered.

    Attributes:
        usage: Calls and tokens until then, as in `Result.usage`.
    """

    def __init__(self, message: str, usage: dict[str, int]) -> None:
        super().__init__(message)
        self.usage = usage


class _TimeUp(Exception):  # noqa: N818
    """The seconds of a query are used up; it carries the state at that time."""

    def __init__(self, state: AgentState) -> None:
        super().__init__()
        self.state = state


@dataclass(frozen=True, eq=False)
class AgentImage:
    """An image and its encoding by the phrase segmenter."""

    image: np.ndarray  # [H, W, 3] uint8 RGB
    phrases: PhraseImage
    timings_ms: dict[str, float]
    engine: AgentEngine


class AgentEngine:
    """A vision-language model that answers instructions with a phrase segmenter as its tool.

    Args:
        client: The model.
        backend: The segmenter.
        limits: Limits of each query.
        record: Called with the conversation of each query when it has ended, also if it failed.
        warning: Human-readable limits of the segmenter; part of every result.
    """

    def __init__(
        self,
        client: VlmClient,
        backend: PhraseBackend,
        limits: Limits = DEFAULT_LIMITS,
        record: Callable[[dict[str, Any]], object] = lambda conversation: None,
        warning: str = '',
    ) -> None:
        self.client = client
        self.backend = backend
        self.limits = limits
        self.record = record
        self.warning = warning
        self.name = f'agent {client.settings.model}'

    def encode(self, image: np.ndarray) -> AgentImage:
        """Encode an image [H, W, 3] uint8 RGB for the segmenter, once for all instructions. Raises ImageError."""
        begin = time.perf_counter()
        phrases = self.backend.encode(image)
        return AgentImage(image, phrases, {'image_encoders': (time.perf_counter() - begin) * 1e3}, self)

    def segment(
        self,
        encoded: AgentImage,
        instruction: str,
        *,
        score_threshold: float = 0.5,
        answer: object = None,
        max_new_tokens: int = 256,
        suppress_duplicates: bool = True,
    ) -> Result:
        """Find the objects that `instruction` names.

        Args:
            encoded: The image, from this engine's `encode`.
            instruction: What to look for, as it is said to the model.
            score_threshold: Selected masks must score above it, too. Each has a score of the segmenter.
            answer: Must be None: the agent cannot be given an answer.
            max_new_tokens: Not used; the endpoint's settings have the limit.
            suppress_duplicates: Not used; the masks of a phrase do not overlap by more than tools.OVERLAP.

        Raises:
            InstructionError: The instruction cannot be used; QueryFailed: the endpoint failed in this query.
            ImageError: The image was encoded by another engine.
            VlmError: The endpoint is not there or refuses everything.
        """
        del max_new_tokens, suppress_duplicates
        if answer is not None:
            self.answer_for(())
        if encoded.engine is not self:
            raise ImageError('the image was encoded by another engine. Encode it again with this one')
        query = check_instruction(instruction)
        run = _Run(self, encoded, Conversation(query))
        try:
            ended = run.converse(query)
        except VlmError as error:
            run.conversation.error = str(error)
            if error.is_final:
                raise
            raise QueryFailed(str(error), run.conversation.usage()) from error
        finally:
            run.conversation.seconds = run.elapsed
            self.record(run.conversation.to_json())
        chosen = [mark for mark in ended.marks if mark.score > score_threshold]
        instances = [Instance(mark.mask, mark.score, ended.phrase, None) for mark in chosen]
        return Result(
            instruction=instruction,
            answer=ended.phrase if chosen else '',
            height=encoded.phrases.height,
            width=encoded.phrases.width,
            instances=tuple(sorted(instances, key=lambda instance: -instance.score)),
            phrases=(ended.phrase,) if chosen else (),
            finish_reason=ended.finish_reason,
            warning=self.warning,
            model=self.name,
            timings_ms={**encoded.timings_ms, **run.timings_ms},
            usage=run.conversation.usage(),
        )

    def answer_for(self, phrases: Iterable[str]) -> NoReturn:
        """Raise InstructionError: the agent chooses its phrases itself."""
        del phrases
        raise InstructionError('the agent cannot be given phrases: it chooses them itself')


class _Run:
    """One query: asks the model and the segmenter for what the loop requests, and records it."""

    def __init__(self, engine: AgentEngine, encoded: AgentImage, conversation: Conversation) -> None:
        self.engine = engine
        self.encoded = encoded
        self.conversation = conversation
        self.timings_ms = {'vlm': 0.0, 'masks': 0.0}
        self._begin = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the query began."""
        return time.perf_counter() - self._begin

    def converse(self, query: str) -> Answer:
        """Return the answer. Raises VlmError."""
        frame = self.encoded.phrases
        state = start(query, frame.height, frame.width, self.engine.limits)
        try:
            while (ended := limit_reached(state)) is None:
                outcome = self._ask_round(state)
                if isinstance(outcome, SegmentRequest):
                    outcome = self._segment(outcome)
                elif isinstance(outcome, CheckRequest):
                    outcome = self._check(outcome)
                if isinstance(outcome, Answer):
                    ended = outcome
                    break
                state = outcome
        except _TimeUp as stopped:
            ended = best_so_far(stopped.state, 'time_budget')
        self.conversation.finish_reason = ended.finish_reason
        return ended

    def _ask_round(self, state: AgentState) -> AgentState | SegmentRequest | CheckRequest | Answer:
        chat = messages(state, self.encoded.image)
        reply = self._ask(chat, state)
        self.conversation.rounds += 1
        shown = state.turns[-1].marks if state.turns else ()
        self.conversation.add('round', chat[-1].text, shown, reply)
        return step(state, reply.text, is_cut=reply.finish_reason == 'length')

    def _segment(self, request: SegmentRequest) -> AgentState:
        begin = time.perf_counter()
        try:
            found = self.engine.backend.segment(self.encoded.phrases, request.phrase)
        except InstructionError as error:
            return refuse_phrase(request, str(error))
        finally:
            self.timings_ms['masks'] += (time.perf_counter() - begin) * 1e3
        return add_masks(request.state, request.phrase, found)

    def _check(self, request: CheckRequest) -> AgentState:
        verdicts = [self._is_accepted(request.state, mark) for mark in request.state.marks]
        return keep_accepted(request.state, verdicts)

    def _is_accepted(self, state: AgentState, mark: Mark) -> bool:
        """Return the model's verdict on a mask; true if it gives none."""
        chat = check_messages(state.query, self.encoded.image, mark)
        for _ in range(CHECK_TRIES):
            reply = self._ask(chat, state)
            verdict = parse_verdict(reply.text)
            self.conversation.add('check', chat[-1].text, [mark], reply, accepted=verdict)
            if verdict is not None:
                return verdict
            chat = [
                *chat,
                Message.of('assistant', reply.text.strip() or '(no text)'),
                Message.of('user', prompts.ANOTHER_VERDICT),
            ]
        return True

    def _ask(self, chat: list[Message], state: AgentState) -> Reply:
        """Return the reply to a chat, an empty one too. Raises VlmError, and _TimeUp at the end of the time."""
        left_s = self.engine.limits.seconds - self.elapsed
        if left_s <= 0:
            raise _TimeUp(state)
        begin = time.perf_counter()
        try:
            return self.engine.client.ask_now(chat, time_limit_s=left_s)
        except EmptyReply as error:
            return replace(error.reply, seconds=time.perf_counter() - begin)
        except VlmError as error:
            if self.elapsed >= self.engine.limits.seconds and not error.is_final:
                raise _TimeUp(state) from None
            raise
        finally:
            self.timings_ms['vlm'] += (time.perf_counter() - begin) * 1e3

"""The loop of the agent without any input or output: a state and a reply in, the next state or the answer out.

state = start('the red mug', height, width)
while isinstance(state, AgentState) and (end := limit_reached(state)) is None:
reply = ask(messages(state, image))
state = step(state, reply)            # or a request for masks or verdicts, see tools
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from instructsam.train.engines.agent import prompts
from instructsam.train.engines.agent.replies import parse_call
from instructsam.train.engines.agent.state import (
    DEFAULT_LIMITS,
    AgentState,
    Answer,
    CheckRequest,
    Fault,
    Limits,
    Mark,
    SegmentRequest,
    Turn,
)
from instructsam.train.engines.agent.tools import call_tool, lasting_turns
from instructsam.train.vlm.chat import Message
from instructsam.train.vlm.marks import draw_marks, mask_views

MAX_SHOWN_REPLY = 4000
"""Characters of an unusable reply that stay in the conversation, of its end."""


def start(query: str, height: int, width: int, limits: Limits = DEFAULT_LIMITS) -> AgentState:
    """Return the state before the first reply."""
    return AgentState(query, height, width, limits)


def step(state: AgentState, reply: str, *, is_cut: bool = False) -> AgentState | SegmentRequest | CheckRequest | Answer:
    """Return what a reply leads to. Any text is possible: one that cannot be used becomes a message that says why.

    Args:
        state: The state that the messages were made of.
        reply: The text of the model.
        is_cut: It ended at the limit of tokens.
    """
    state = replace(state, rounds=state.rounds + 1)
    call = parse_call(reply, is_cut=is_cut)
    outcome = call if isinstance(call, Fault) else call_tool(state, call)
    return _repair(state, reply, outcome) if isinstance(outcome, Fault) else outcome


def refuse_phrase(request: SegmentRequest, reason: str) -> AgentState:
    """Return the state after the segmenter refused a phrase. It counts as used, and as a reply that cannot be used."""
    state = request.state
    fault = Fault('bad_phrase', f'The phrase {request.phrase!r} cannot be used: {reason}. Use another one.')
    # The call of segment_phrase is the newest turn already.
    turns = (*state.turns, Turn('user', fault.message, is_repair=True))
    phrases = (*state.phrases, request.phrase)
    return replace(state, phrases=phrases, marks=(), turns=turns, repairs=state.repairs + 1)


def limit_reached(state: AgentState) -> Answer | None:
    """Return the answer with the best masks so far if no further reply may be asked for."""
    if state.repairs > state.limits.repairs:
        return best_so_far(state, 'repair_budget')
    if state.rounds >= state.limits.rounds:
        return best_so_far(state, 'round_budget')
    return None


def best_so_far(state: AgentState, finish_reason: str) -> Answer:
    """Return the newest masks that were not rejected."""
    if not state.sets:
        return Answer((), finish_reason)
    return Answer(state.sets[-1].marks, finish_reason, state.sets[-1].phrase)


def messages(state: AgentState, image: np.ndarray) -> list[Message]:
    """Return the messages to send: at most eight, with at most two images.

    They are the system's, the first one with the image, the last call of segment_phrase with its result, a later
    examination with its result, and the last reply that could not be used with the message about it. Of earlier
    phrases only the names remain.

    Args:
        state: The state.
        image: [H, W, 3] uint8 RGB.
    """
    current = state.phrases[-1:] if state.marks else ()
    failed = tuple(phrase for phrase in state.phrases if phrase not in current)
    chat = [
        Message.of('system', prompts.SYSTEM),
        Message.of('user', image, prompts.first_text(state.query, failed)),
    ]
    shown = [index for index, turn in enumerate(state.turns) if turn.marks and state.marks]
    for index, turn in enumerate(state.turns):
        if index in shown[-1:]:
            chat.append(Message.of(turn.role, draw_marks(image, [mark.mask for mark in turn.marks]), turn.text))
        else:  # An older image has other numbers or rejected masks, which must not be selected.
            chat.append(Message.of(turn.role, prompts.OLD_IMAGE if turn.marks else turn.text))
    return chat


def check_messages(query: str, image: np.ndarray, mark: Mark) -> list[Message]:
    """Return the question about one mask, with three images."""
    outlined = draw_marks(image, [mark.mask])
    return [
        Message.of('system', prompts.CHECK_SYSTEM),
        Message.of('user', prompts.check_text(query), image, outlined, mask_views(image, mark.mask)),
    ]


def _repair(state: AgentState, reply: str, fault: Fault) -> AgentState:
    """Return the state with a message about an unusable reply, in place of an earlier one of the kind."""
    said = Turn('assistant', reply[-MAX_SHOWN_REPLY:].strip() or '(no text)')
    turns = (*lasting_turns(state.turns), said, Turn('user', fault.message, is_repair=True))
    return replace(state, turns=turns, repairs=state.repairs + 1)

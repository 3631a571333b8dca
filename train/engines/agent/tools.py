"""The agent's four tools as pure functions: a state and the parameters of a call in, what happens next out."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from instructsam.core.text import one_line, shorten
from instructsam.train.engines.agent import prompts
from instructsam.train.engines.agent.state import (
    MAX_MARKS,
    AgentState,
    Answer,
    CheckRequest,
    Fault,
    Mark,
    MarkSet,
    SegmentRequest,
    ToolCall,
    Turn,
)

MAX_PHRASE = 120  # characters
OVERLAP = 0.3
"""Largest share of the smaller of two masks that the better one may cover."""

Outcome = AgentState | SegmentRequest | CheckRequest | Answer | Fault


def call_tool(state: AgentState, call: ToolCall) -> Outcome:
    """Return what a call leads to; a Fault if it is not possible in this state."""
    if call.name == 'segment_phrase':
        return segment_phrase(state, call)
    if call.name == 'examine_each_mask':
        return examine_each_mask(state, call)
    if call.name == 'select_masks_and_return':
        return select_masks_and_return(state, call)
    return Answer((), 'stop')


def segment_phrase(state: AgentState, call: ToolCall) -> SegmentRequest | AgentState | Fault:
    """Return the request for the masks of a phrase; a message if the phrase was used before."""
    value = call.parameters['text_prompt']
    if not isinstance(value, str) or not value.strip():
        return Fault('bad_phrase', f'"text_prompt" is a phrase such as "red mug", not {shorten(repr(value), 80)}.')
    phrase = one_line(value)
    if len(phrase) > MAX_PHRASE:
        return Fault('bad_phrase', f'The phrase has {len(phrase)} characters. Use a short noun phrase, such as "mug".')
    if _key(phrase) in map(_key, state.phrases):
        return _with_result(state, call, prompts.used_text(phrase, state.phrases))
    # The conversation begins anew with this call: its masks replace all earlier ones.
    return SegmentRequest(replace(state, turns=(Turn('assistant', call.text),)), phrase)


def add_masks(state: AgentState, phrase: str, found: Sequence[Mark]) -> AgentState:
    """Return the state after a phrase was segmented: its masks, without overlapping ones, replace all others."""
    marks = suppress_overlaps(found)[:MAX_MARKS]
    text = prompts.found_text(phrase, len(marks), state.query) if marks else prompts.nothing_found_text(phrase)
    return replace(
        state,
        marks=marks,
        sets=(*state.sets, MarkSet(phrase, marks)) if marks else state.sets,
        phrases=(*state.phrases, phrase),
        turns=(*state.turns, Turn('user', text, marks)),
    )


def examine_each_mask(state: AgentState, call: ToolCall) -> CheckRequest | Fault:
    """Return the request for a verdict on every mask."""
    if not state.marks:
        return _no_masks(state)
    # Behind the call of segment_phrase and its result, in place of an earlier examination.
    return CheckRequest(replace(state, turns=(*state.turns[:2], Turn('assistant', call.text))))


def keep_accepted(state: AgentState, verdicts: Sequence[bool]) -> AgentState:
    """Return the state after the masks were examined: those with a false verdict are dropped, the others renumbered.

    verdicts: one per mark, in their order.
    """
    marks = tuple(mark for mark, accepted in zip(state.marks, verdicts, strict=True) if accepted)
    if marks:
        text = prompts.examined_text(len(marks), len(state.marks) - len(marks), state.query)
    else:
        text = prompts.all_removed_text(state.phrases[-1])
    sets = (*state.sets[:-1], MarkSet(state.phrases[-1], marks)) if marks else state.sets[:-1]
    return replace(state, marks=marks, sets=sets, turns=(*state.turns, Turn('user', text, marks)))


def select_masks_and_return(state: AgentState, call: ToolCall) -> Answer | Fault:
    """Return the answer with the selected masks, best score first."""
    if not state.marks:
        return _no_masks(state)
    value = call.parameters['final_answer_masks']
    if not isinstance(value, list) or not all(_is_integer(number) for number in value):
        return Fault('bad_numbers', f'"final_answer_masks" is a list of numbers, not {shorten(repr(value), 80)}.')
    count = len(state.marks)
    unknown = sorted({number for number in value if not 1 <= number <= count})
    if unknown:
        return Fault(
            'bad_numbers',
            f'There is no mask {shorten(", ".join(str(number)[:12] for number in unknown), 80)}: the numbers in the '
            f'newest image are 1 to {count}.',
        )
    if not value:
        return Fault(
            'bad_numbers', 'The list is empty. Select at least one mask, try another phrase, or call report_no_mask.'
        )
    return Answer(tuple(state.marks[number - 1] for number in sorted(set(value))), 'stop', state.phrases[-1])


def suppress_overlaps(marks: Sequence[Mark]) -> tuple[Mark, ...]:
    """Return non-empty masks, best score first, without those that overlap a better one by more than OVERLAP.

    The overlap is the intersection over the smaller area.
    """
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda each: -each.score):
        area = mark.mask.area
        if area and not any(
            mark.mask.intersection_area(other.mask) > OVERLAP * min(area, other.mask.area) for other in kept
        ):
            kept.append(mark)
    return tuple(kept)


def _no_masks(state: AgentState) -> Fault:
    tried = ' of the last phrase' if state.phrases else ''
    return Fault('no_masks', f'There are no masks{tried}. Call segment_phrase with a new phrase first.')


def _with_result(state: AgentState, call: ToolCall, text: str) -> AgentState:
    """Return the state with a call and its result as the newest turns."""
    turns = (*lasting_turns(state.turns), Turn('assistant', call.text), Turn('user', text, is_repair=True))
    return replace(state, turns=turns)


def lasting_turns(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns without a reply that could not be used and the message about it."""
    return turns[:-2] if turns and turns[-1].is_repair else turns


def _key(phrase: str) -> str:
    """Return a phrase as it is compared with others: letters that look alike are alike."""
    return ' '.join(unicodedata.normalize('NFKC', phrase).casefold().split())


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

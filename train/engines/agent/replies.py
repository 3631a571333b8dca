"""Parsing of a model's replies: a text becomes a tool call or a named fault, never an exception."""

from __future__ import annotations

import json
import re
from typing import Any

from instructsam.core.text import shorten
from instructsam.train.engines.agent.state import Fault, ToolCall

OPEN, CLOSE = '<tool>', '</tool>'
THOUGHT_END = '</think>'
MAX_REPLY = 100_000
"""Longest reply that is looked at, in characters; models that repeat themselves fill any limit."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    'segment_phrase': ('text_prompt',),
    'examine_each_mask': (),
    'select_masks_and_return': ('final_answer_masks',),
    'report_no_mask': (),
}
"""Tool -> its parameters."""

_FENCE = re.compile(r'\s*```(?:json)?\s*(.*?)\s*```\s*', re.DOTALL)
_VERDICT = re.compile(r'<verdict>\s*(accept|reject)\s*[.!]?\s*</verdict>', re.IGNORECASE)
_EXAMPLE = '{"name": "segment_phrase", "parameters": {"text_prompt": "mug"}}'
_FORM = f'End your reply with one call, such as {OPEN}{_EXAMPLE}{CLOSE}'


def parse_call(reply: str, *, is_cut: bool = False) -> ToolCall | Fault:
    """Return the first tool call of a reply.

    Accepted beyond the form that the prompt asks for: text after the call, a missing closing tag behind a complete
    call, a code block around the JSON, closing braces too many, and no parameters where a tool has none.

    Args:
        reply: The reply, with or without its reasoning.
        is_cut: The reply ended at the limit of tokens.
    """
    reply = reply[-MAX_REPLY:]
    # Tags within the reasoning are thoughts about a call.
    start = reply.rfind(THOUGHT_END) + len(THOUGHT_END) if THOUGHT_END in reply else 0
    opening = reply.find(OPEN, start)
    if opening < 0:
        problem = 'was cut off because it is too long' if is_cut else f'has no tool call between {OPEN} and {CLOSE}'
        return Fault('no_call', f'Your reply {problem}. {_FORM}.')
    closing = reply.find(CLOSE, opening)
    end = closing if closing >= 0 else len(reply)
    document = _parse_json(reply[opening + len(OPEN) : end])
    if isinstance(document, Fault):
        return document
    return _check_call(document, reply[:end] + CLOSE)


def _parse_json(text: str) -> dict[str, Any] | Fault:
    fenced = _FENCE.fullmatch(text)
    text = (fenced[1] if fenced else text).strip()
    try:
        document, end = json.JSONDecoder().raw_decode(text)
        rest = text[end:].strip(' \t\r\n}')
        if rest:
            raise ValueError(f'text after the object: {rest!r}')
    except (ValueError, RecursionError) as error:
        return Fault('bad_json', f'The text of the call is no JSON ({shorten(error, 120)}). {_FORM}.')
    if not isinstance(document, dict):
        return Fault('bad_json', f'The call has to be a JSON object, not {shorten(text, 60)!r}. {_FORM}.')
    return document


def _check_call(document: dict[str, Any], text: str) -> ToolCall | Fault:
    """Return the call in a JSON object, if it has the name and the parameters of a tool."""
    name = document.get('name')
    if not isinstance(name, str) or name not in PARAMETERS:
        return Fault(
            'unknown_tool', f'There is no tool {shorten(repr(name), 60)}. The tools are {", ".join(PARAMETERS)}.'
        )
    expected = PARAMETERS[name]
    parameters = document.get('parameters', {} if not expected else None)
    if not isinstance(parameters, dict) or set(parameters) != set(expected):
        wanted = ', '.join(f'"{key}"' for key in expected) or 'no keys'
        return Fault(
            'bad_parameters',
            f'The parameters of {name} are an object with {wanted}, not {shorten(repr(parameters), 120)}.',
        )
    return ToolCall(name, parameters, text)


def parse_verdict(reply: str) -> bool | None:
    """Return whether a reply accepts the mask; None if it has both verdicts or none."""
    reply = reply[-MAX_REPLY:]
    found = {word.lower() for word in _VERDICT.findall(reply.rpartition(THOUGHT_END)[2])}
    return found == {'accept'} if len(found) == 1 else None

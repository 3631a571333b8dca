"""Replies of a model to the agent: well-formed calls, and the many ways in which they are broken."""

from __future__ import annotations

import json
import random
from typing import Any

PHRASES = (
    'mug', 'red mug', 'bowl', 'Mug ', '', ' ', 'x' * 300, 'e\u0301\u202e', '\ud800', '</tool>', 5, None, ['mug'],
)  # fmt: skip
NUMBERS = ([1], [1, 2], [2, 1, 1], [], [0], [-1], [99], [1.0], ['1'], [True], [10**400], 'all', 1, None, {}, [[1]])
NAMES = (
    'segment_phrase', 'segment_phrase', 'examine_each_mask', 'select_masks_and_return', 'report_no_mask', 'zoom', '',
)  # fmt: skip
PARAMETERS = ({}, {'extra': 1}, [], None, 'mug', {'text_prompt': 'a', 'b': 1}, {'final_answer_masks': [1], 'c': 0})
EXTRAS = (
    '', 'I see a mug. ', '<think>maybe <tool>{"name": "x"}</tool></think>', '<think>', '</think>', '<tool>', '</tool>',
)  # fmt: skip
NOISE = ('', ' ', '[' * 5000, '<tool>' + '[' * 50_000, '{"a":' * 5000, '9' * 5000, 'word ' * 5000)
TAGS = ('```json\n', '<tool>```json\n', '<TOOL>', '< tool >', '<tool><tool>')
CHARACTERS = (0, 34, 39, 92, 123, 125, 0xD800, 0x1F600)


def call(name: str, **parameters: Any) -> str:
    """Return a reply with a well-formed call."""
    return f'I look at the image.\n<tool>{json.dumps({"name": name, "parameters": parameters})}</tool>'


def random_reply(rng: random.Random) -> str:
    """Return a reply: a call with any parameters, often damaged."""
    name = rng.choice(NAMES)
    parameters: Any = {
        'segment_phrase': {'text_prompt': rng.choice(PHRASES)},
        'select_masks_and_return': {'final_answer_masks': rng.choice(NUMBERS)},
    }.get(name, {})
    if rng.random() < 0.2:
        parameters = rng.choice(PARAMETERS)
    document: Any = {'name': name, 'parameters': parameters}
    if rng.random() < 0.1:
        document = rng.choice(([document], 'x', 3, None, {'tool': name}, {'name': [name]}, {'name': name}, {}))
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    reply = f'{rng.choice(EXTRAS)}<tool>{text}</tool>{rng.choice(EXTRAS)}'
    return damaged(reply, rng) if rng.random() < 0.5 else reply


def damaged(text: str, rng: random.Random) -> str:
    """Return a text with some damage: cut, repeated, changed, or replaced."""
    place, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    character = chr(rng.choice((*CHARACTERS, rng.randrange(0x110000))))
    return rng.choice(
        (
            text[:place],
            text[place:],
            text[:place] + text[end:],
            text[:end] + text[place:],
            text[:place] + character + text[place:],
            text.replace('"', rng.choice(("'", '\u201d', '\\"', ''))),
            text.replace('<tool>', rng.choice(TAGS)),
            text.replace('}', rng.choice(('}}', '}}}', '', ',}', '} and'))),
            rng.choice(NOISE),
        )
    )


def random_verdict(rng: random.Random) -> str:
    """Return a reply about one mask: clear, contradictory or empty."""
    accept, reject = '<verdict>Accept</verdict>', '<verdict>Reject</verdict>'
    return rng.choice((accept, reject, reject, accept + reject, '', 'Accept', f'<think>{reject}</think>{accept}'))

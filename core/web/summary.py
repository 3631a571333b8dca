"""The parts of the page that show an answer; in the HTML, all text from outside is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from instructsam.core.display.jpeg import jpeg_url, shrink_to
from instructsam.core.display.lettering import printable
from instructsam.core.display.overlay import draw_overlay
from instructsam.core.result import Result
from instructsam.core.text import shorten
from instructsam.core.web.mask_view import mask_view
from instructsam.core.web.scene_view import scene_figure
from instructsam.core.web.source import Answer

THUMBNAIL_PX = 220
HINT = 'Try other words, a lower score (Options) or another model'
COLORS = {
    'image_encoders': '#0072b2',
    'prefill': '#56b4e9',
    'generation': '#009e73',
    'detector': '#e69f00',
    'masks': '#cc79a7',
}
"""Color of each of core.result.STEPS in the bar of times."""


@dataclass(frozen=True)
class Entry:
    """A question and the parts of the page that show its answer."""

    instruction: str
    outcome: str  # '2 objects', 'nothing matches', 'no answer'
    thumbnail: str  # URL of the overlay
    status: str  # HTML
    masks: str  # HTML
    times: str  # HTML
    figure: str | None  # JSON of plotly.js; None without located objects and depth


def entry_of(answer: Answer) -> Entry:
    """Return the entry of an answer."""
    result, scene = answer.result, answer.scene
    return Entry(
        instruction=result.instruction,
        outcome=outcome(result),
        thumbnail=jpeg_url(shrink_to(draw_overlay(answer.image, result), THUMBNAIL_PX)),
        status=status_view(result),
        masks=mask_view(answer.image, result, scene),
        times=times_view(result, answer.note),
        figure=None if scene is None else json.dumps(scene_figure(scene, result)),
    )


def outcome(result: Result) -> str:
    """Return the outcome in two words."""
    count = len(result.instances)
    if count:
        return f'{count} object{"s" * (count > 1)}'
    return 'no answer' if result.status == 'error' else 'nothing matches'


def status_view(result: Result) -> str:
    """Return the outcome, the instruction, the phrases that the model looked for, and the limits of the model."""
    kind = {'ok': 'ok', 'no_target': 'none', 'error': 'error'}[result.status]
    phrases = ', '.join(f'<q>{escape(printable(phrase))}</q>' for phrase in result.phrases)
    looked = f'looked for {phrases}' if phrases else f'answer: <q>{escape(shorten(result.answer))}</q>'
    cut = f' ({result.ended_by})' if result.ended_by else ''
    remarks = (result.warning, '' if result.instances else HINT)
    small = ''.join(f'<small>{escape(printable(remark))}</small>' for remark in remarks if remark)
    asked = f'<span class="is-asked">{escape(printable(shorten(result.instruction)))}</span>'
    return (
        f'<div class="is-status is-{kind}">{asked}<b>{outcome(result)}</b> <span>{looked}{escape(cut)}</span>'
        f'{small}</div>'
    )


def error_view(message: str) -> str:
    """Return the reason why there is no answer."""
    return f'<div class="is-status is-error"><b>no answer</b> <span>{escape(printable(message))}</span></div>'


def times_view(result: Result, note: str = '') -> str:
    """Return the latency of each stage, ms, as a bar with a legend."""
    total = sum(result.timings_ms.values())
    if not total:
        return ''
    parts = [(step.replace('_', ' '), ms, COLORS.get(step, '#999')) for step, ms in result.timings_ms.items()]
    bars = ''.join(
        f'<i style="flex:{ms:.3f};background:{color}" title="{name} {ms:.0f} ms"></i>' for name, ms, color in parts
    )
    legend = ''.join(
        f'<span><i style="background:{color}"></i>{name} <b>{ms:.0f}</b></span>' for name, ms, color in parts
    )
    remark = f'<span>({escape(note)})</span>' if note else ''
    return (
        f'<div class="is-times"><div class="is-bar">{bars}</div>'
        f'<div class="is-stages"><span>total <b>{total:.0f} ms</b></span>{legend}{remark}</div></div>'
    )


def history_view(entries: Sequence[Entry]) -> str:
    """Return a button per question, the newest first; `data-index` counts from the oldest."""
    if not entries:
        return '<div class="is-history"><small>Your questions appear here.</small></div>'
    buttons = ''.join(
        f'<button type="button" data-index="{index}"><img src="{entry.thumbnail}" alt="">'
        f'<span>{escape(shorten(entry.instruction, 80))}</span><small>{entry.outcome}</small></button>'
        for index, entry in reversed(list(enumerate(entries)))
    )
    return f'<div class="is-history">{buttons}</div>'

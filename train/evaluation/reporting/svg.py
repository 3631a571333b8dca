"""Plots as inline SVG: precision-recall curves, and calibration of the scores.

They are written by hand instead of by matplotlib, which is not needed at run time otherwise: a report is one small file
whose plots take their colours from the page, in light and dark mode, through the classes `first` and `second` and
`currentColor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from instructsam.train.evaluation.figures.metrics import IOUS, MaskMatch

NUM_BINS = 10
MAX_STEPS = 300
"""Points of a curve at most: about as many as it has pixels."""

CURVE_CLASSES = ('first', 'second')

LEFT, RIGHT, TOP, BOTTOM = 40, 12, 52, 40
"""Margins around the axes, px."""

SIDE = 250
"""Side of the square of the axes, px."""


@dataclass(frozen=True)
class Bin:
    """Predictions that score from `low` up to `high`."""

    low: float
    high: float
    count: int
    mean_score: float
    precision: float  # share of true positives at IoU 0.5


def calibration_bins(matches: Sequence[MaskMatch]) -> list[Bin]:
    """Return the bins of all predictions by score, without the empty ones."""
    scores = np.concatenate([match.scores for match in matches])
    is_true_positive = np.concatenate([match.true_positives[:, IOUS.index(0.5)] for match in matches])
    bin_indices = np.clip((scores * NUM_BINS).astype(int), 0, NUM_BINS - 1)  # a score of 1 is in the last bin
    bins = []
    for index in np.unique(bin_indices):
        members = bin_indices == index
        mean_score, precision = float(scores[members].mean()), float(is_true_positive[members].mean())
        bins.append(Bin(index / NUM_BINS, (index + 1) / NUM_BINS, int(members.sum()), mean_score, precision))
    return bins


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error, 0 to 1: |mean score - precision|, averaged over predictions."""
    return sum(one.count * abs(one.precision - one.mean_score) for one in bins) / sum(one.count for one in bins)


def calibration_svg(bins: Sequence[Bin]) -> Markup:
    """Plot precision over mean score, with a bar per bin for the number of predictions above."""
    largest = max(one.count for one in bins)
    parts = [_axes('score', 'precision'), _line('faint', _x(0), _y(0), _x(1), _y(1))]
    for one in bins:
        left, width, height = _x(one.low) + 2, SIDE / NUM_BINS - 4, 28 * one.count / largest
        x, y = _x(one.mean_score), _y(one.precision)
        parts += [
            f'<g><title>score {one.low:.1f} to {one.high:.1f}: {one.count} predictions, mean score '
            f'{one.mean_score:.2f}, precision {100 * one.precision:.1f} %</title>',
            f'<rect class="bar" x="{left:.1f}" y="{TOP - 8 - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>',
            _text(left + width / 2, TOP - 11 - height, _short(one.count), 'small middle'),
            _line('first thin', x, _y(one.mean_score), x, y),
            f'<circle class="first" cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>',
        ]
    return _svg('Precision by score', parts)


def precision_recall_svg(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Markup:
    """Plot one or two curves, {name: (recall [R], precision [R])}, with their names above."""
    parts = [_axes('recall', 'precision')]
    for row, (name, (recall, precision)) in enumerate(curves.items()):
        css_class = CURVE_CLASSES[row]
        points = np.unique(np.linspace(0, len(recall) - 1, MAX_STEPS).round().astype(int)) if len(recall) else []
        steps = ''.join(f'V{_y(float(precision[i])):.1f}H{_x(float(recall[i])):.1f}' for i in points)
        start = f'M{_x(0):.1f} {_y(precision[0] if len(recall) else 0):.1f}'
        y = 16 * row + 14
        parts += [
            f'<path class="{css_class} curve" d="{start}{steps}"/>',
            _line(f'{css_class} curve', _x(0), y - 4, _x(0.08), y - 4),
            _text(_x(0.11), y, name),
        ]
    return _svg('Precision over recall', parts)


def _svg(label: str, parts: Sequence[str]) -> Markup:
    width, height = LEFT + SIDE + RIGHT, TOP + SIDE + BOTTOM
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def _axes(x_label: str, y_label: str) -> str:
    """Draw a square from 0 to 1 with grid lines at every fifth."""
    parts = []
    for tick in range(6):
        share = tick / 5
        parts.append(_line('grid', _x(0), _y(share), _x(1), _y(share)))
        parts.append(_line('grid', _x(share), _y(0), _x(share), _y(1)))
        parts.append(_text(_x(share), _y(0) + 15, f'{share:.1f}', 'small middle'))
        parts.append(_text(_x(0) - 5, _y(share) + 4, f'{share:.1f}', 'small end'))
    parts.append(_text(_x(0.5), _y(0) + 33, x_label, 'middle'))
    parts.append(f'<g transform="translate(11 {_y(0.5):.1f}) rotate(-90)">{_text(0, 0, y_label, "middle")}</g>')
    return ''.join(parts)


def _x(share: float) -> float:
    return LEFT + SIDE * share


def _y(share: float) -> float:
    return TOP + SIDE * (1 - share)


def _line(css_class: str, x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line class="{css_class}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _text(x: float, y: float, text: str, css_class: str = '') -> str:
    return f'<text class="{css_class}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _short(count: int) -> str:
    """Format a number in at most four characters."""
    if count < 10_000:
        return str(count)
    return f'{count / 1e3:.0f}k' if count < 999_500 else f'{count / 1e6:.0f}M'

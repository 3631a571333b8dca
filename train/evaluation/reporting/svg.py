"""What a run's scores are worth, with the plots as inline SVG: precision-recall curves, and scores against being right.

Colours come from the page: the classes `first` and `second`, and `currentColor`.
"""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from instructsam.train.evaluation.figures.metrics import IOUS

BINS = 10
STEPS = 300  # of a curve at most: about as many as there are pixels
LEFT, RIGHT, TOP, FOOT, SIDE = 40, 12, 52, 40, 250  # px: margins, and the square of the axes


@dataclass(frozen=True)
class Bin:
    """Predictions that score from `low` up to `high`."""

    low: float
    high: float
    count: int
    score: float  # mean
    right: float  # the share that takes a true mask at IoU 0.5


def calibration(queries):
    """The Bins of all predictions of metrics.Compared, without the empty ones."""
    scores = np.concatenate([query.scores for query in queries])
    right = np.concatenate([query.right[:, IOUS.index(0.5)] for query in queries])
    numbers = np.clip((scores * BINS).astype(int), 0, BINS - 1)  # a score of 1 is in the last
    found = []
    for number in np.unique(numbers):
        chosen = numbers == number
        of_scores, of_right = float(scores[chosen].mean()), float(right[chosen].mean())
        found.append(Bin(number / BINS, (number + 1) / BINS, int(chosen.sum()), of_scores, of_right))
    return found


def calibration_error(bins):
    """The expected calibration error: how far score and share are apart, averaged over predictions. 0 to 1."""
    return sum(one.count * abs(one.right - one.score) for one in bins) / sum(one.count for one in bins)


def calibration_svg(bins):
    """Dots at mean score and share, above them how many predictions there are."""
    most = max(one.count for one in bins)
    parts = [_axes('score', 'share that is right'), _line('faint', _x(0), _y(0), _x(1), _y(1))]
    for one in bins:
        left, width, tall = _x(one.low) + 2, SIDE / BINS - 4, 28 * one.count / most
        x, y = _x(one.score), _y(one.right)
        parts += [
            f'<g><title>score {one.low:.1f} to {one.high:.1f}: {one.count} predictions, mean score {one.score:.2f}, '
            f'{100 * one.right:.1f} % right</title>',
            f'<rect class="bar" x="{left:.1f}" y="{TOP - 8 - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"/>',
            _text(left + width / 2, TOP - 11 - tall, _short(one.count), 'small middle'),
            _line('first thin', x, _y(one.score), x, y),
            f'<circle class="first" cx="{x:.1f}" cy="{y:.1f}" r="4"/></g>',
        ]
    return _svg('Score against the share of predictions that is right', parts)


def precision_recall_svg(curves):
    """curves: name -> (recall, precision), one or two; their names are above them."""
    parts = [_axes('recall', 'precision')]
    for row, (kind, (name, (recall, precision))) in enumerate(zip(('first', 'second'), curves.items())):
        chosen = np.unique(np.linspace(0, len(recall) - 1, STEPS).round().astype(int)) if len(recall) else []
        steps = ''.join(f'V{_y(precision[i]):.1f}H{_x(recall[i]):.1f}' for i in chosen)
        start = f'M{_x(0):.1f} {_y(precision[0] if len(recall) else 0):.1f}'
        y = 16 * row + 14
        parts += [
            f'<path class="{kind} curve" d="{start}{steps}"/>',
            _line(f'{kind} curve', _x(0), y - 4, _x(0.08), y - 4),
            _text(_x(0.11), y, name),
        ]
    return _svg('Precision over recall', parts)


def _svg(label, parts):
    width, height = LEFT + SIDE + RIGHT, TOP + SIDE + FOOT
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>')


def _axes(below, beside):
    """A square from 0 to 1 with lines at every fifth."""
    parts = []
    for tick in range(6):
        share = tick / 5
        parts.append(_line('grid', _x(0), _y(share), _x(1), _y(share)))
        parts.append(_line('grid', _x(share), _y(0), _x(share), _y(1)))
        parts.append(_text(_x(share), _y(0) + 15, f'{share:.1f}', 'small middle'))
        parts.append(_text(_x(0) - 5, _y(share) + 4, f'{share:.1f}', 'small end'))
    parts.append(_text(_x(0.5), _y(0) + 33, below, 'middle'))
    parts.append(f'<g transform="translate(11 {_y(0.5):.1f}) rotate(-90)">{_text(0, 0, beside, "middle")}</g>')
    return ''.join(parts)


def _x(share):
    return LEFT + SIDE * share


def _y(share):
    return TOP + SIDE * (1 - share)


def _line(kind, x0, y0, x1, y1):
    return f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _text(x, y, text, kind=''):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _short(count):
    """A number in four characters or less."""
    if count < 10_000:
        return str(count)
    return f'{count / 1e3:.0f}k' if count < 999_500 else f'{count / 1e6:.0f}M'

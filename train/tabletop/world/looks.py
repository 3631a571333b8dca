"""What things look like: named colours, the fixed paints of details, and how each material takes light."""

from dataclasses import dataclass

import cv2
import numpy as np

# Hue in degrees (a negative start wraps), saturation and value from 0 to 1; the gaps between the ranges are what
# keeps one name apart from the next.
COLORS = {
    'red': ((-8, 7), (0.78, 0.95), (0.60, 0.88)),
    'orange': ((20, 30), (0.82, 0.98), (0.88, 1.0)),
    'yellow': ((46, 55), (0.68, 0.92), (0.88, 1.0)),
    'green': ((98, 150), (0.50, 0.85), (0.35, 0.68)),
    'blue': ((206, 228), (0.62, 0.92), (0.48, 0.88)),
    'purple': ((268, 286), (0.42, 0.68), (0.38, 0.62)),
    'pink': ((328, 345), (0.30, 0.50), (0.90, 1.0)),
    'brown': ((18, 30), (0.50, 0.72), (0.30, 0.50)),
    'black': ((0, 360), (0.0, 0.15), (0.04, 0.11)),
    'gray': ((0, 360), (0.0, 0.06), (0.40, 0.54)),
    'white': ((20, 60), (0.0, 0.06), (0.90, 1.0)),
    'silver': ((190, 230), (0.0, 0.05), (0.74, 0.86)),
    'clear': ((150, 210), (0.02, 0.10), (0.85, 0.98)),
}

NATURAL = {'green': ((74, 98), (0.55, 0.80), (0.50, 0.72)), 'red': ((-6, 8), (0.75, 0.92), (0.55, 0.82))}  # of fruit

# Pairs that a person might call either way in poor light; instructions never rest on telling them apart.
CONFUSABLE = frozenset(
    frozenset(pair)
    for pair in (
        ('gray', 'silver'), ('white', 'silver'), ('gray', 'black'), ('gray', 'white'), ('clear', 'white'),
        ('clear', 'silver'), ('clear', 'gray'), ('orange', 'brown'), ('orange', 'red'), ('orange', 'yellow'),
        ('pink', 'red'), ('pink', 'purple'), ('purple', 'blue'), ('brown', 'red'), ('brown', 'black'),
    )
)  # fmt: skip

# RGB of details that keep their colour whatever the object's; a dark and a light one to blend between.
PAINTS = {
    'steel': ((0.70, 0.71, 0.73), (0.84, 0.85, 0.87)),
    'cap': ((0.10, 0.10, 0.11), (0.92, 0.91, 0.88)),
    'label': ((0.86, 0.83, 0.74), (0.98, 0.98, 0.96)),
    'tape': ((0.62, 0.50, 0.32), (0.80, 0.70, 0.52)),
    'pages': ((0.82, 0.78, 0.68), (0.95, 0.93, 0.88)),
    'stalk': ((0.22, 0.15, 0.08), (0.36, 0.27, 0.14)),
    'grip': ((0.05, 0.05, 0.05), (0.16, 0.14, 0.13)),
    'scour': ((0.10, 0.28, 0.16), (0.16, 0.40, 0.24)),
}


@dataclass(frozen=True)
class Finish:
    """How a material takes light: specular and shininess from 0 to 1, opacity, and the texture that it brings."""

    specular: float
    shininess: float
    alpha: float = 1.0
    texture: str = ''


FINISHES = {
    'ceramic': Finish(0.22, 0.75),
    'plastic': Finish(0.18, 0.4),
    'metal': Finish(0.45, 0.6, texture='steel'),
    'enamel': Finish(0.18, 0.6),
    'glass': Finish(0.90, 0.9, alpha=0.42),
    'wood': Finish(0.08, 0.2, texture='grain'),
    'cardboard': Finish(0.0, 0.1),
    'paper': Finish(0.0, 0.1),
    'rubber': Finish(0.10, 0.2),
    'foam': Finish(0.0, 0.1),
    'skin': Finish(0.14, 0.3),
}
PAINT_FINISHES = {'steel': FINISHES['metal'], 'cap': FINISHES['plastic'], 'grip': FINISHES['plastic']}


def sample_color(name, rng, natural=False):
    """RGB [3] from 0 to 1 somewhere within the range of a colour's name; `natural` for what grows."""
    (h0, h1), saturation, value = (NATURAL if natural and name in NATURAL else COLORS)[name]
    hsv = np.array([[[rng.uniform(h0, h1) % 360, rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def sample_paint(name, rng):
    """RGB [3] of a detail."""
    dark, light = np.array(PAINTS[name])
    return dark + (light - dark) * rng.uniform()


def confusable(first, second):
    """Whether one colour may pass for the other."""
    return first != second and frozenset((first, second)) in CONFUSABLE

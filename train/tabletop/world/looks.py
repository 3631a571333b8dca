"""Appearance of objects: named colours, fixed paints of details, and the surface finish of each material."""

from dataclasses import dataclass

import cv2
import numpy as np

# Ranges of hue in degrees (a negative start wraps around), saturation and value from 0 to 1. The gaps between the
# ranges keep the names distinguishable.
HSVRange = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
COLORS: dict[str, HSVRange] = {
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

# Ranges that replace those of `COLORS` for fruit.
NATURAL_COLORS: dict[str, HSVRange] = {
    'green': ((74, 98), (0.55, 0.80), (0.50, 0.72)),
    'red': ((-6, 8), (0.75, 0.92), (0.55, 0.82)),
}

# Pairs that people might confuse in poor light; no instruction depends on distinguishing them.
CONFUSABLE = frozenset(
    frozenset(pair)
    for pair in (
        ('gray', 'silver'), ('white', 'silver'), ('gray', 'black'), ('gray', 'white'), ('clear', 'white'),
        ('clear', 'silver'), ('clear', 'gray'), ('orange', 'brown'), ('orange', 'red'), ('orange', 'yellow'),
        ('pink', 'red'), ('pink', 'purple'), ('purple', 'blue'), ('brown', 'red'), ('brown', 'black'),
    )
)  # fmt: skip

# Darkest and lightest RGB of details whose colour does not depend on the object's colour.
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
    """Surface finish of a material.

    Attributes:
        specular: Specular reflectance, 0 to 1.
        shininess: 0 to 1.
        alpha: Opacity, 0 to 1.
        texture: Name of the texture that every part of this material has, or ''.
    """

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


def sample_color(name: str, rng: np.random.Generator, *, natural: bool = False) -> np.ndarray:
    """Draw an RGB colour [3] from 0 to 1 within the range of a colour name; `natural` selects the ranges of fruit."""
    ranges = NATURAL_COLORS if natural and name in NATURAL_COLORS else COLORS
    (h0, h1), saturation, value = ranges[name]
    hsv = np.array([[[rng.uniform(h0, h1) % 360, rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def sample_paint(name: str, rng: np.random.Generator) -> np.ndarray:
    """Draw the RGB colour [3] of a detail from 0 to 1."""
    dark, light = np.array(PAINTS[name])
    return dark + (light - dark) * rng.uniform()


def confusable(first: str, second: str) -> bool:
    """Return whether one colour may be mistaken for the other."""
    return first != second and frozenset((first, second)) in CONFUSABLE

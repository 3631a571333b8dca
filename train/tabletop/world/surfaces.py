"""Photographed surfaces for tables, floors and walls, from the package robosuite: `read_surfaces(path)`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from instructsam.train.packages import read_members
from instructsam.train.pictures import decode_rgb
from instructsam.train.tabletop.world.textures import SURFACE_PX

TRAINING = (
    'blue-wood', 'brass-ambra', 'ceramic', 'clay', 'gray-felt', 'gray-woodgrain', 'green-wood', 'light-gray-floor-tile',
    'light-gray-plaster', 'metal', 'pink-plaster', 'red-wood', 'steel-brushed', 'white-bricks', 'white-plaster',
    'wood-varnished-panels', 'yellow-plaster',
)  # fmt: skip
HELD_OUT = ('cream-plaster', 'dark-wood', 'gray-plaster', 'light-wood', 'steel-scratched', 'wood-tiles')
"""Surfaces that the benchmark `real` is made from, so that no model is trained on them."""


def member_name(name: str) -> str:
    """Return the path of a surface in the package."""
    return f'robosuite/models/assets/textures/{name}.png'


def read_surfaces(path: str | Path) -> list[np.ndarray]:
    """Return the surfaces for training in the wheel `path`, [256, 256, 3] uint8 RGB.

    Raises:
        DataError: The wheel cannot be read or lacks one.
    """
    contents = read_members(path, [member_name(name) for name in TRAINING])
    surfaces = []
    for name in TRAINING:
        image = decode_rgb(contents[member_name(name)], f'{path}: {member_name(name)}')
        side = min(image.shape[:2])
        surfaces.append(cv2.resize(image[:side, :side], (SURFACE_PX, SURFACE_PX), interpolation=cv2.INTER_AREA))
    return surfaces

"""Photographed surfaces for tables, floors and walls, from the package robosuite: `read_surfaces(path)`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from instructsam.core.errors import DataError
from instructsam.train.packages import read_members
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
        image = cv2.imdecode(np.frombuffer(contents[member_name(name)], np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f'{path}: {member_name(name)} is not an image')
        side = min(image.shape[:2])
        square = cv2.resize(image[:side, :side, ::-1], (SURFACE_PX, SURFACE_PX), interpolation=cv2.INTER_AREA)
        surfaces.append(np.ascontiguousarray(square))
    return surfaces

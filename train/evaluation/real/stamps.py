"""Photographs of single objects with transparency, from the stamps of Tux Paint: `read_stamps(path)`.

Only photographs are listed, no drawings. They are used for measuring alone, never for training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instructsam.train.packages import read_members
from instructsam.train.pictures import decode_cutout

FOLDER = 'usr/share/tuxpaint/stamps/'


@dataclass(frozen=True)
class StampFacts:
    """Facts about a stamp.

    Attributes:
        noun: Its noun.
        color: Its colour, or '' if it has several or an ambiguous one.
        length_cm: Approximate length of the longer side.
        rolls: It may lie at any angle in the image.
        solid: Opacity from which a pixel belongs to the object, 0 to 1; low for glass.
    """

    noun: str
    color: str
    length_cm: float
    rolls: bool = False
    solid: float = 0.5


KNOWN = {  # nouns of the tabletop world
    'food/fruit/apple_red.png': StampFacts('apple', 'red', 8),
    'food/fruit/apple_green.png': StampFacts('apple', 'green', 8),
    'food/fruit/apple_granny_smith.png': StampFacts('apple', 'green', 8),
    'food/fruit/apple_fuji.png': StampFacts('apple', 'red', 8),
    'food/fruit/apple_sierra_beauty.png': StampFacts('apple', '', 8),
    'food/fruit/banana.png': StampFacts('banana', '', 16, True),
    'food/fruit/lemon.png': StampFacts('lemon', 'yellow', 9, True),
    'household/dishes/mug.png': StampFacts('mug', 'white', 11),
    'household/dishes/glass.png': StampFacts('glass', 'clear', 14, solid=0.12),
    'household/dishes/teapot.png': StampFacts('teapot', '', 18),
    'household/arttools/scissors_small_closed.png': StampFacts('scissors', 'silver', 12, True),
    'household/arttools/scissors_small_open.png': StampFacts('scissors', 'silver', 12, True),
    'sports/basketball.png': StampFacts('ball', 'orange', 12, True),
    'sports/cricketball.png': StampFacts('ball', 'red', 8, True),
    'sports/soccer.png': StampFacts('ball', 'white', 12, True),
    'sports/tennis_ball.png': StampFacts('ball', 'green', 7, True),
}
OTHER = {  # nouns that it does not have
    'food/fruit/orange.png': StampFacts('orange', 'orange', 8),
    'food/fruit/pear.png': StampFacts('pear', '', 9),
    'food/fruit/avocado.png': StampFacts('avocado', '', 10, True),
    'food/fruit/Strawberry2.png': StampFacts('strawberry', 'red', 5, True),
    'food/fruit/kiwi.png': StampFacts('kiwi', 'brown', 6, True),
    'food/vegetables/tomato.png': StampFacts('tomato', 'red', 7),
    'food/vegetables/yellowpepper.png': StampFacts('pepper', 'yellow', 10),
    'food/vegetables/broccoli.png': StampFacts('broccoli', 'green', 14),
    'food/vegetables/carrot.png': StampFacts('carrot', '', 14, True),
    'food/vegetables/corn.png': StampFacts('corn', 'yellow', 18, True),
    'food/vegetables/onion.png': StampFacts('onion', '', 9),
    'food/vegetables/garlic.png': StampFacts('garlic', 'white', 6),
    'household/dishes/pitcher_small.png': StampFacts('pitcher', '', 14),
    'household/kettle.png': StampFacts('kettle', '', 20),
    'household/key.png': StampFacts('key', 'silver', 7, True),
    'household/rubberduck.png': StampFacts('rubber duck', 'yellow', 10),
    'household/Lightbulb.png': StampFacts('light bulb', '', 11, True),
    'household/arttools/pen_dryerase.png': StampFacts('pen', '', 13, True),
    'household/tools/hammer.png': StampFacts('hammer', '', 20, True),
    'household/tools/wrench.png': StampFacts('wrench', '', 17, True),
    'household/tools/plyers.png': StampFacts('pliers', '', 15, True),
    'household/tools/paintbrush_large.png': StampFacts('paintbrush', '', 15, True),
    'hobbies/camera_35mm.png': StampFacts('camera', 'black', 13),
}


@dataclass(frozen=True, eq=False)
class Stamp:
    """A stamp with its picture [H, W, 4] uint8 RGBA, cropped to what is opaque."""

    facts: StampFacts
    picture: np.ndarray


def read_stamps(path: str | Path, table: Mapping[str, StampFacts]) -> list[Stamp]:
    """Return the stamps of `table` in the Debian package `path`.

    Raises:
        DataError: The package, or a stamp in it, cannot be read.
    """
    contents = read_members(path, [FOLDER + name for name in table])
    return [make_stamp(facts, contents[FOLDER + name], f'{path}: {name}') for name, facts in table.items()]


def make_stamp(facts: StampFacts, content: bytes, where: str) -> Stamp:
    """Return the stamp in an image file with transparency; raise DataError, which names `where`."""
    return Stamp(facts, decode_cutout(content, where, facts.solid))

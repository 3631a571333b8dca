"""A page of random scenes with an instruction and its answer drawn in: `instructsam tabletop page`.

For people: does the world look like a table, and do the words fit?
"""

from PIL import Image

from instructsam.core.display.overlay import instance_color
from instructsam.train import drawing as sheet
from instructsam.train.tabletop.language.instructions import KINDS, instructions
from instructsam.train.tabletop.scenes.scene import scene

COLUMNS = 6


def page(split, seed, count=24, size=(224, 224)):
    """A picture [H, W, 3] uint8 of `count` scenes, the kinds of instruction taken in turn."""
    cells = []
    order = [*KINDS, 'none']
    for index in range(count):
        made = scene(split, index, seed, size)
        said = {one.kind: one for one in instructions(made)}
        wanted = [order[(index + step) % len(order)] for step in range(len(order))]
        cells.append(_cell(made, next((said[kind] for kind in wanted if kind in said), None)))
    return sheet.contact_sheet(cells, COLUMNS)


def _cell(made, said):
    """The picture with masks, and below it the kind, the instruction and the answer."""
    picture = made.rgb.copy()
    lines = ['', '', '', '']
    if said:
        for group, targets in enumerate(said.targets):
            for target in targets:
                sheet.tint(picture, made.ids == target, instance_color(group), 0.12)
                sheet.outline(picture, made.ids == target, instance_color(group))
        answer = ' + '.join(f'{phrase} ({len(ids)})' for phrase, ids in zip(said.phrases, said.targets))
        lines = [said.kind, *sheet.wrap(said.text, picture.shape[1]), f'> {answer}']
    return sheet.cell(picture, list(zip(lines, (sheet.FAINT, sheet.INK, sheet.INK, sheet.FAINT))))


def write_page(path, split, seed, count=24):
    """Write the page of `count` scenes to a PNG file; few colours keep photographs in one small."""
    picture = Image.fromarray(page(split, seed, count))
    palette = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, 'PNG', optimize=True)

"""An overview image of random scenes with an instruction and its answer drawn in: `instructsam tabletop page`.

It serves to check by eye that the scenes look realistic and that the instructions fit them.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from instructsam.core.atomic_write import replaced
from instructsam.core.display.overlay import instance_color
from instructsam.train import drawing
from instructsam.train.tabletop.language.instructions import KINDS, Instruction, sample_instructions
from instructsam.train.tabletop.scenes.scene import Scene, render_scene

COLUMNS = 6


def draw_page(split: str, seed: int, count: int = 24, size: tuple[int, int] = (224, 224)) -> np.ndarray:
    """Draw `count` scenes with the types of instruction in rotation: an image [H, W, 3] uint8."""
    cells = []
    kinds = [*KINDS, 'none']
    for index in range(count):
        scene = render_scene(split, index, seed, size)
        by_kind = {instruction.kind: instruction for instruction in sample_instructions(scene)}
        preferred = [kinds[(index + step) % len(kinds)] for step in range(len(kinds))]
        cells.append(_cell(scene, next((by_kind[kind] for kind in preferred if kind in by_kind), None)))
    return drawing.contact_sheet(cells, COLUMNS)


def _cell(scene: Scene, instruction: Instruction | None) -> np.ndarray:
    """Draw the image with masks, and below it the type, the instruction and the answer."""
    image = scene.rgb.copy()
    lines = ['', '', '', '']
    if instruction:
        for group, targets in enumerate(instruction.targets):
            for target in targets:
                drawing.tint(image, scene.ids == target, instance_color(group), 0.12)
                drawing.outline(image, scene.ids == target, instance_color(group))
        answer = ' + '.join(
            f'{phrase} ({len(ids)})' for phrase, ids in zip(instruction.phrases, instruction.targets, strict=True)
        )
        lines = [instruction.kind, *drawing.wrap(instruction.text, image.shape[1]), f'> {answer}']
    inks = (drawing.FAINT, drawing.INK, drawing.INK, drawing.FAINT)
    return drawing.cell(image, list(zip(lines, inks, strict=True)))


def write_page(path: Path | str, split: str, seed: int, count: int = 24) -> None:
    """Write the overview of `count` scenes to a PNG file; 256 colours keep a file of photographs small."""
    image = Image.fromarray(draw_page(split, seed, count))
    palette = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    with replaced(path) as part:
        image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(part, 'PNG', optimize=True)

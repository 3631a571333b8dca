"""Previews of a model in training: its predictions on a few samples, as one image.

Outlines are the ground truth, filled masks the model's: for every phrase the masks that score above THRESHOLD, or else
its best mask, faintly.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import cv2
import numpy as np
import torch

from instructsam.core.display.lettering import printable
from instructsam.core.display.overlay import instance_color
from instructsam.core.engine import InstructSAM, mask_nms
from instructsam.core.errors import InstructionError
from instructsam.core.model.instructsam import InstructSAMModel
from instructsam.core.model.preprocess import load_preprocessor
from instructsam.core.model.tokenizer import load_prompter
from instructsam.train.data.sample import Sample
from instructsam.train.data.scene_labels import CATEGORY, DenseBatch, SceneItem
from instructsam.train.drawing import FAINT, INK, PAPER, cell, contact_sheet, outline, tint, wrap

if TYPE_CHECKING:
    from instructsam.core.result import Result

SIDE_PX = 224  # side of the square that images are fitted into, px
COLUMNS = 6  # largest number of samples in a preview, one per column
THRESHOLD = 0.5
FILL, FAINT_FILL = 0.5, 0.2  # opacity of masks that score above and below the threshold
MAX_NEW_TOKENS = 48  # an untrained model does not end its answers

T = TypeVar('T')


class CategoryModel(Protocol):
    """A stage's module that predicts categories per pixel."""

    def categories(self, batch: DenseBatch) -> torch.Tensor:
        """Return category numbers [B, h, w]; 0: no object."""
        ...


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` of `items`, evenly spaced."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def answer_preview(
    engine_class: type[InstructSAM],
    model: InstructSAMModel,
    folder: str | Path,
    samples: Sequence[Sample],
    *,
    mode: str = 'consistent',
    use_true_phrases: bool = False,
) -> np.ndarray | None:
    """Draw a model's answers to a few of `samples`; None if none of them names a phrase.

    Args:
        engine_class: Class of the engine that answers.
        model: The model.
        folder: Model folder with its tokenizer and preprocessor.
        samples: Validation samples.
        mode: Arithmetic of the query blocks, see core.modes.
        use_true_phrases: See answer_strip.
    """
    drawn = evenly([sample for sample in samples if any(turn.phrases for turn in sample.turns)], COLUMNS)
    if not drawn:
        return None
    prompter, stop_ids = load_prompter(folder, model.config)
    engine = engine_class(model, prompter, load_preprocessor(folder, model.config), stop_ids, mode=mode)
    return answer_strip(engine, drawn, use_true_phrases=use_true_phrases)


def answer_strip(engine: InstructSAM, samples: Sequence[Sample], *, use_true_phrases: bool = False) -> np.ndarray:
    """Draw the first turn that names phrases of each sample, as `engine` answers it, [H, W, 3] uint8.

    use_true_phrases: draw the masks of the true phrases; the answer shown is the model's all the same.
    """
    cells = [_answer_cell(engine, sample.with_pixels(), use_true_phrases) for sample in samples]
    return contact_sheet(cells, COLUMNS)


def _answer_cell(engine: InstructSAM, sample: Sample, use_true_phrases: bool) -> np.ndarray:
    turn = next(turn for turn in sample.turns if turn.phrases)
    assert sample.pixels is not None  # with_pixels has read the image
    image = np.ascontiguousarray(sample.pixels.permute(1, 2, 0).numpy())
    canvas, scores = _fitted(image), ''
    try:
        encoded = engine.encode(image)
        options: dict[str, Any] = {
            'score_threshold': 0.0,
            'suppress_duplicates': False,
            'max_new_tokens': MAX_NEW_TOKENS,
        }
        said = predicted = engine.segment(encoded, turn.question, **options)
        if use_true_phrases:
            predicted = engine.segment(encoded, turn.question, **options, answer=engine.answer_for(turn.phrases))
        answer, scores = said.answer, _draw_instances(canvas, predicted)
    except InstructionError as error:  # questions of records may be longer than an engine accepts
        answer = f'({error})'
    for group, target in enumerate(turn.targets):
        for mask in target.masks:
            outline(canvas, _fitted(mask.decode().astype(np.uint8), 0) > 0, instance_color(group))
        for box in target.boxes:
            _draw_box(canvas, box, image.shape[:2], instance_color(group))
    true = ', '.join(f'{phrase} ({len(target)})' for phrase, target in zip(turn.phrases, turn.targets, strict=True))
    texts = (*wrap(printable(turn.question), SIDE_PX), f'= {printable(true)}', f'> {printable(answer)}', scores)
    return cell(canvas, list(zip(texts, (INK, INK, FAINT, INK, FAINT), strict=True)))


def _draw_instances(canvas: np.ndarray, result: Result) -> str:
    """Fill the masks of a result and return their scores as text, the phrases separated."""
    texts = []
    for group in range(len(result.phrases)):
        instances = [each for each in result.instances if each.group == group]
        above = mask_nms([each for each in instances if each.score > THRESHOLD])
        for instance in above or instances[:1]:
            mask = _fitted(instance.mask.decode().astype(np.uint8), 0) > 0
            tint(canvas, mask, instance_color(group), FILL if above else FAINT_FILL)
        texts.append(' '.join(f'{each.score:.2f}' for each in above or instances[:1]) or 'no mask')
    return ' | '.join(texts)


def _fitted(image: np.ndarray, paper: int = PAPER[0]) -> np.ndarray:
    """Fit an image [H, W, 3] or a mask [H, W] into the middle of a square of SIDE_PX.

    Colours are averaged where the image shrinks; masks take the nearest pixel.
    """
    height, width = image.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    interpolation = cv2.INTER_NEAREST
    if image.ndim == 3:
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    top, left = (SIDE_PX - size[1]) // 2, (SIDE_PX - size[0]) // 2
    square = np.full((SIDE_PX, SIDE_PX, *image.shape[2:]), paper, np.uint8)
    square[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=interpolation)
    return square


def _draw_box(
    canvas: np.ndarray, box: tuple[float, float, float, float], shape: tuple[int, ...], rgb: tuple[int, int, int]
) -> None:
    """Outline a box (xyxy, 0 to 1) of an image of `shape` (H, W)."""
    mask = np.zeros(shape, np.uint8)
    (x0, y0), (x1, y1) = (np.array(box).reshape(2, 2) * shape[::-1]).round().astype(int)
    mask[y0:y1, x0:x1] = 1
    outline(canvas, _fitted(mask, 0) > 0, rgb)


@torch.no_grad()
def category_strip(training: CategoryModel, items: Sequence[SceneItem], batches: Sequence[DenseBatch]) -> np.ndarray:
    """Draw the images of `items` and below each its predicted categories, one colour per category: [H, W, 3] uint8.

    batches: each item as a batch.
    """
    names = ['', *CATEGORY]
    top, bottom = [], []
    for (image, scene), batch in zip(items, batches, strict=True):
        true = batch.labels.sam.category[0].cpu().numpy()
        predicted = training.categories(batch)[0].cpu().numpy()
        size = image.shape[1::-1]
        canvas = _fitted(image)
        painted = _fitted(cv2.resize(_COLORS[predicted], size, interpolation=cv2.INTER_NEAREST))
        for number in np.unique(scene.ids[scene.ids > 0]):
            contour = _fitted((scene.ids == number).astype(np.uint8), 0) > 0
            outline(canvas, contour, INK)
            outline(painted, contour, INK)
        accuracy = (true == predicted)[true > 0].mean() if (true > 0).any() else np.nan
        counts = np.bincount(predicted[predicted > 0], minlength=len(names))
        shown = ', '.join(names[i] for i in counts.argsort()[::-1] if counts[i])
        top.append(cell(canvas, [('= ' + ', '.join(names[i] for i in np.unique(true[true > 0])), INK)]))
        bottom.append(cell(painted, [(f'{accuracy:.0%} of object pixels', INK), (f'> {shown}', FAINT)]))
    return np.vstack([contact_sheet(top, COLUMNS), contact_sheet(bottom, COLUMNS)])


def _category_colors() -> np.ndarray:
    """Return colours [categories + 1, 3] uint8: white for no object, and hues that differ between neighbours."""
    hues = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.75, 0.95 - 0.15 * (i % 3)) for i in range(len(CATEGORY))]
    return (np.array([(1, 1, 1), *hues]) * 255).astype(np.uint8)


_COLORS = _category_colors()

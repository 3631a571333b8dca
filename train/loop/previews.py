"""What a model in training finds in a few samples, as one picture: `answer_strip`, or `category_strip` of stage pixels.

Lines are the truth, what is filled is the model's: of every phrase the masks that score above 0.5, or else its best
one, faintly.
"""

import colorsys

import cv2
import numpy as np
import torch

from instructsam.core.display.lettering import printable
from instructsam.core.display.overlay import instance_color
from instructsam.core.engine import mask_nms
from instructsam.core.errors import InstructionError
from instructsam.train.drawing import FAINT, INK, PAPER, cell, contact_sheet, outline, tint, wrap
from instructsam.train.stages.dense import CATEGORY

SIDE_PX = 224  # pictures are fitted into a square of this side
COLUMNS = 6
THRESHOLD = 0.5
FILL, FAINT_FILL = 0.5, 0.2  # opacity above and below the threshold
MAX_NEW_TOKENS = 48  # of an answer: a model that has learnt nothing yet does not end it


def answer_strip(engine, samples, given=False):
    """The first turn that names phrases of every Sample, as `engine` answers it, [H, W, 3] uint8.

    given: masks are those of the true phrases (but the answer shown is the model's).
    """
    return contact_sheet([_answer_cell(engine, sample.with_pixels(), given) for sample in samples], COLUMNS)


def _answer_cell(engine, sample, given):
    turn = next(turn for turn in sample.turns if turn.phrases)
    image = np.ascontiguousarray(sample.pixels.permute(1, 2, 0).numpy())
    picture, scores = _fitted(image), ''
    try:
        frame = engine.encode(image)
        options = {'score_threshold': 0.0, 'suppress_duplicates': False, 'max_new_tokens': MAX_NEW_TOKENS}
        said = found = engine.segment(frame, turn.question, **options)
        if given:
            found = engine.segment(frame, turn.question, **options, answer=engine.answer_for(turn.phrases))
        answer, scores = said.answer, _draw_found(picture, found)
    except InstructionError as error:  # what records hold goes further than what an engine takes
        answer = f'({error})'
    for group, target in enumerate(turn.targets):
        for mask in target.masks:
            outline(picture, _fitted(mask.decode().astype(np.uint8), 0) > 0, instance_color(group))
        for box in target.boxes:
            _draw_box(picture, box, image.shape[:2], instance_color(group))
    true = ', '.join(f'{phrase} ({len(target)})' for phrase, target in zip(turn.phrases, turn.targets, strict=True))
    texts = (*wrap(printable(turn.question), SIDE_PX), f'= {printable(true)}', f'> {printable(answer)}', scores)
    return cell(picture, list(zip(texts, (INK, INK, FAINT, INK, FAINT), strict=True)))


def _draw_found(picture, found):
    """Fills the masks of a Result and returns its scores as text, the groups apart."""
    texts = []
    for group in range(len(found.phrases)):
        instances = [each for each in found.instances if each.group == group]
        above = mask_nms([each for each in instances if each.score > THRESHOLD])
        for instance in above or instances[:1]:
            mask = _fitted(instance.mask.decode().astype(np.uint8), 0) > 0
            tint(picture, mask, instance_color(group), FILL if above else FAINT_FILL)
        texts.append(' '.join(f'{each.score:.2f}' for each in above or instances[:1]) or 'no mask')
    return ' | '.join(texts)


def _fitted(image, paper=PAPER[0], interpolation=cv2.INTER_NEAREST):
    """An image [H, W] or [H, W, 3] in the middle of a square of SIDE_PX; colours are averaged where it shrinks."""
    height, width = image.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    if image.ndim == 3:
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    top, left = (SIDE_PX - size[1]) // 2, (SIDE_PX - size[0]) // 2
    square = np.full((SIDE_PX, SIDE_PX, *image.shape[2:]), paper, np.uint8)
    square[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=interpolation)
    return square


def _draw_box(picture, box, shape, rgb):
    """box: xyxy, 0 to 1, of an image of `shape` (H, W)."""
    mask = np.zeros(shape, np.uint8)
    (x0, y0), (x1, y1) = (np.array(box).reshape(2, 2) * shape[::-1]).round().astype(int)
    mask[y0:y1, x0:x1] = 1
    outline(picture, _fitted(mask, 0) > 0, rgb)


@torch.no_grad()
def category_strip(training, items, batches):
    """The pictures of `items` (ScenePictures'), and below each what PixelTraining `training` takes its pixels for.

    batches: each item as a PixelBatch. Each category has a colour.
    """
    names = ['', *CATEGORY]
    top, bottom = [], []
    for (image, ids, _), batch in zip(items, batches, strict=True):
        true, guess = batch.sam.category[0].cpu().numpy(), training.categories(batch)[0].cpu().numpy()
        size = image.shape[1::-1]
        picture, painted = _fitted(image), _fitted(cv2.resize(_COLORS[guess], size, interpolation=cv2.INTER_NEAREST))
        for number in np.unique(ids[ids > 0]):
            outline(picture, _fitted((ids == number).astype(np.uint8), 0) > 0, INK)
            outline(painted, _fitted((ids == number).astype(np.uint8), 0) > 0, INK)
        right = (true == guess)[true > 0].mean() if (true > 0).any() else np.nan
        counts = np.bincount(guess[guess > 0], minlength=len(names))
        shown = ', '.join(names[i] for i in counts.argsort()[::-1] if counts[i])
        top.append(cell(picture, [('= ' + ', '.join(names[i] for i in np.unique(true[true > 0])), INK)]))
        bottom.append(cell(painted, [(f'{right:.0%} of object pixels', INK), (f'> {shown}', FAINT)]))
    return np.vstack([contact_sheet(top, COLUMNS), contact_sheet(bottom, COLUMNS)])


def _category_colors():
    """[categories + 1, 3] uint8: white for no object, hues of neighbours far apart."""
    hues = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.75, 0.95 - 0.15 * (i % 3)) for i in range(len(CATEGORY))]
    return np.array([(1, 1, 1), *hues]) * 255


_COLORS = _category_colors().astype(np.uint8)

"""Probe of the coordinate convention: drawn scenes with known boxes go through the same call as real images.

A wrong order or unit of the numbers, or a server that shifts boxes, gives training data that look right and are not.
The run stops before anything is paid for, with the convention that would fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from instructsam.core.display.jpeg import shrink_to
from instructsam.core.errors import InstructSAMError
from instructsam.core.text import shorten
from instructsam.train.data_engine.asking import Client, Costs
from instructsam.train.data_engine.coordinates import CONVENTIONS, Convention, box_iou
from instructsam.train.data_engine.objects import Located, ObjectSettings, locate
from instructsam.train.data_engine.rows import Box, Ground, Question
from instructsam.train.vlm.errors import BadReply

LEAST_IOU = 0.6
"""Mean IoU that the convention must reach: far above that of another order or unit."""

MARGIN = 0.15
"""Gain in mean IoU by a shift and scale that is taken for a fault of the server rather than for imprecision."""

LEAST_FOUND = 0.5  # share of the shapes that must be found

COLOURS = {'red': (200, 30, 30), 'green': (30, 150, 50), 'blue': (40, 70, 200), 'yellow': (235, 200, 40)}
LAYOUTS: tuple[tuple[tuple[int, int], dict[str, Box]], ...] = (
    (
        (480, 640),
        {'red circle': (60, 40, 180, 160), 'blue square': (400, 90, 560, 250), 'green triangle': (180, 300, 380, 450)},
    ),
    (
        (900, 500),
        {'yellow square': (40, 90, 200, 250), 'blue circle': (250, 400, 470, 620), 'red triangle': (60, 660, 200, 860)},
    ),
    (
        (360, 1000),
        {'green circle': (90, 30, 240, 180), 'blue triangle': (420, 140, 600, 330), 'red square': (760, 60, 960, 260)},
    ),
)
"""Pictures by (height, width): shapes at places that no two conventions have in common."""


class ProbeError(InstructSAMError):
    """The VLM's boxes do not have the convention of the recipe; the message names the one that would fit."""


@dataclass(frozen=True, eq=False)
class ProbeScene:
    """A drawn picture [H, W, 3] uint8 RGB and the boxes of its shapes by their phrase."""

    image: np.ndarray
    boxes: dict[str, Box]

    def questions(self) -> tuple[Question, ...]:
        """Return one question per shape."""
        return tuple(
            Question(f'q{number}', f'Find the {phrase}.', phrase, Ground('one', 1), 'attribute')
            for number, phrase in enumerate(self.boxes)
        )


def probe_scenes() -> tuple[ProbeScene, ...]:
    """Return the pictures of the probe: one of 4:3, one tall, one wide."""
    return tuple(ProbeScene(_draw(size, boxes), boxes) for size, boxes in LAYOUTS)


def _draw(size: tuple[int, int], boxes: dict[str, Box]) -> np.ndarray:
    image = np.full((*size, 3), 225, np.uint8)
    for phrase, (x0, y0, x1, y1) in boxes.items():
        colour, shape = COLOURS[phrase.split()[0]], phrase.split()[1]
        left, top, right, bottom = int(x0), int(y0), int(x1) - 1, int(y1) - 1
        if shape == 'square':
            cv2.rectangle(image, (left, top), (right, bottom), colour, cv2.FILLED)
        elif shape == 'circle':
            axes = ((right - left) // 2, (bottom - top) // 2)
            cv2.ellipse(image, ((left + right) // 2, (top + bottom) // 2), axes, 0, 0, 360, colour, cv2.FILLED)
        else:
            corners = np.array([[(left + right) // 2, top], [left, bottom], [right, bottom]], np.int32)
            cv2.fillPoly(image, [corners], colour)
    return image


@dataclass(frozen=True)
class _Sighting:
    """Four numbers of a reply for a shape whose box is known."""

    values: tuple[float, ...]
    box: Box
    sent: tuple[int, int]
    full: tuple[int, int]


async def probe_convention(client: Client, settings: ObjectSettings) -> float:
    """Return the mean IoU of the VLM's boxes with the known ones.

    Raises:
        ProbeError: The boxes have another convention, or are shifted or scaled, or too few shapes are found.
        VlmError: There is no reply.
    """
    convention = CONVENTIONS[settings.convention]
    scenes = probe_scenes()
    found = await asyncio.gather(*(_ask(client, scene, convention, settings.max_side) for scene in scenes))
    shapes = sum(len(scene.boxes) for scene in scenes)
    return check_sightings([each for sightings in found for each in sightings], convention, shapes)


async def _ask(client: Client, scene: ProbeScene, convention: Convention, max_side: int) -> list[_Sighting]:
    picture = shrink_to(scene.image, max_side)
    questions = scene.questions()
    try:
        located = await locate(client, picture, questions, convention, Costs())
    except BadReply as error:
        raise ProbeError(
            f'the VLM does not answer the probe of its coordinates: {shorten(error)}. Use a model that gives boxes, or '
            f'set vlm.structured'
        ) from error
    return _sightings(located, scene, questions, picture.shape[:2])


def _sightings(
    located: Located, scene: ProbeScene, questions: Sequence[Question], sent: tuple[int, int]
) -> list[_Sighting]:
    values = {name: numbers for name, _, numbers in located.objects}
    return [
        _Sighting(values[names[0]], scene.boxes[question.answer], sent, scene.image.shape[:2])
        for question in questions
        if len(names := located.answers.get(question.id, ())) == 1
    ]


def check_sightings(sightings: Sequence[_Sighting], convention: Convention, shapes: int) -> float:
    """Return the mean IoU of the boxes under the convention. Raises ProbeError if another one fits, or none."""
    if len(sightings) < LEAST_FOUND * shapes:
        raise ProbeError(
            f'the VLM found {len(sightings)} of the {shapes} plain shapes of the probe, expected at least half: use a '
            f'model that gives boxes'
        )
    figures = {each.name: _mean_iou(sightings, each) for each in CONVENTIONS.values()}
    own = figures[convention.name]
    best = max(figures, key=lambda name: (figures[name], name == convention.name))
    if own < LEAST_IOU and figures[best] >= LEAST_IOU:
        raise ProbeError(
            f'the boxes of the VLM do not have the convention {convention.name!r} (mean IoU {own:.2f} on drawn '
            f'shapes), but fit {best!r} ({figures[best]:.2f}): set objects.convention to {best}'
        )
    fitted, description = _fit(sightings, convention)
    if fitted >= LEAST_IOU and fitted > own + MARGIN:
        raise ProbeError(
            f'the boxes of the VLM have the convention {convention.name!r} but are {description} (mean IoU {own:.2f} '
            f'on drawn shapes, {fitted:.2f} without that): update the server, which resizes or pads images wrongly'
        )
    if own < LEAST_IOU:
        others = ', '.join(f'{name} {value:.2f}' for name, value in sorted(figures.items()))
        raise ProbeError(
            f'the boxes of the VLM fit no known convention on drawn shapes (mean IoU: {others}; expected {LEAST_IOU}): '
            f'use a model that gives boxes'
        )
    return own


def _mean_iou(sightings: Sequence[_Sighting], convention: Convention) -> float:
    ious = [box_iou(convention.to_box(each.values, each.sent, each.full), each.box) for each in sightings]
    return float(np.mean(ious))


def _fit(sightings: Sequence[_Sighting], convention: Convention) -> tuple[float, str]:
    """Return the mean IoU after the best shift and scale of each axis, and these in words.

    They are fitted in shares of the picture's sides: a fault of a server concerns all pictures alike.
    """
    moved, words = np.empty((len(sightings), 4)), []
    sides = np.array([[each.full[1], each.full[0]] * 2 for each in sightings], float)
    boxes = np.array([convention.to_box(each.values, each.sent, each.full) for each in sightings]) / sides
    truth = np.array([each.box for each in sightings]) / sides
    for axis, name in enumerate('xy'):
        columns = [axis, axis + 2]
        ends, true_ends = boxes[:, columns].ravel(), truth[:, columns].ravel()
        scale, shift = np.polyfit(ends, true_ends, 1) if np.ptp(ends) else (1.0, 0.0)
        moved[:, columns] = boxes[:, columns] * scale + shift
        if scale:
            words.append(f'scaled by {1 / scale:.2f} and shifted by {-shift / scale:+.0%} in {name}')
    ious = [box_iou(tuple(box), each.box) for box, each in zip(moved * sides, sightings, strict=True)]
    return float(np.mean(ious)), ' and '.join(words)

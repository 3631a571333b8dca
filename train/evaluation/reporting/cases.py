"""Cases of an HTML report: the worst and best answers of a run, with their masks drawn into the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from instructsam.core.display.jpeg import jpeg_url
from instructsam.core.errors import InstructSAMError
from instructsam.core.files.image_file import read_image
from instructsam.core.rle import Rle
from instructsam.train.evaluation.figures.metrics import MaskMatch
from instructsam.train.evaluation.figures.summary import group_members
from instructsam.train.evaluation.query import Outcome
from instructsam.train.evaluation.real.source import open_real
from instructsam.train.tabletop.scenes.scene import render_scene

NUM_CASES = 12
"""Number of the worst, and of the best cases."""

NUM_CASES_OF_MEMBER = 4
"""Number of the worst cases of each member of a group."""

IMAGE_SIDE_PX = 320
"""Longest side of a case's image."""

JPEG_QUALITY = 80
GROUND_TRUTH_RGB, PREDICTION_RGB, RIM_RGB = (86, 180, 233), (230, 159, 0), (20, 20, 20)
PREDICTION_OPACITY, IGNORED_OPACITY = 0.35, 0.7


class CaseImage(NamedTuple):
    """The image of a case, or the reason why there is none; one of them is empty."""

    data_uri: str
    reason: str


@dataclass(frozen=True, eq=False)
class Case:
    """An answered query with its match."""

    outcome: Outcome
    match: MaskMatch
    iou: float  # IoU of the unions; the benchmark's value if neither has a pixel
    members: list[str]  # each as 'group:member'

    @classmethod
    def create(cls, outcome: Outcome, match: MaskMatch, empty: float) -> Case:
        """Create the case of an outcome; empty: IoU of a query with neither a target nor a prediction."""
        members = [f'{group}:{member}' for group, member in group_members(outcome, match)]
        return cls(outcome, match, match.union_iou(empty), members)

    @property
    def verdict(self) -> str:
        """Number of targets and of predictions, in words."""
        return f'{self.match.num_targets or "nothing"} expected, {self.match.num_found or "nothing"} found'

    @property
    def expected_phrases(self) -> tuple[str, ...]:
        """Phrases that the answer should have named, if it named others; else empty."""
        return self.outcome.query.phrases if self.outcome.answer_accuracy == 0 else ()

    def draw(self, image: np.ndarray) -> CaseImage:
        """Draw the masks into the image, [H, W, 3] uint8 RGB."""
        query, found = self.outcome.query, self.outcome.masks[: self.match.num_found]  # masks are sorted by score
        masks = [*query.ground_truth, *found, *([query.ignore] if query.ignore is not None else [])]
        sizes = {(mask.height, mask.width) for mask in masks}
        if sizes - {image.shape[:2]}:
            return CaseImage('', f'its masks are {sorted(sizes)} (height, width), the image is {image.shape[:2]} now')
        drawn = draw_masks(image, query.ground_truth, found, query.ignore)
        return CaseImage(jpeg_url(drawn, JPEG_QUALITY), '')


def draw_masks(
    image: np.ndarray, ground_truth: Sequence[Rle], predictions: Sequence[Rle], ignore: Rle | None = None
) -> np.ndarray:
    """Return the image, resized to IMAGE_SIDE_PX, with outlined masks.

    Args:
        image: [H, W, 3] uint8 RGB.
        ground_truth: Masks to outline.
        predictions: Masks to outline and fill.
        ignore: Region to darken.
    """
    height, width = image.shape[:2]
    scale = IMAGE_SIDE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = _resize(image, size)
    if ignore is not None:
        _fill(canvas, _resize(ignore.decode().astype(np.float32), size) > 0.5, RIM_RGB, IGNORED_OPACITY)
    for masks, color, opacity in (
        (predictions, PREDICTION_RGB, PREDICTION_OPACITY),
        (ground_truth, GROUND_TRUTH_RGB, 0),
    ):
        for mask in masks:
            coverage = _resize(mask.decode().astype(np.float32), size)
            inside = coverage >= min(0.5, coverage.max() or 1)  # keeps masks that are thinner than a pixel visible
            _fill(canvas, inside, color, opacity)
            contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            for rgb, thickness in ((RIM_RGB, 4), (color, 2)):
                cv2.drawContours(canvas, contours, -1, rgb, thickness, cv2.LINE_AA)
    return canvas


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    is_smaller = size[0] < array.shape[1] or size[1] < array.shape[0]
    return cv2.resize(array, size, interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)


def _fill(canvas: np.ndarray, inside: np.ndarray, color: tuple[int, int, int], opacity: float) -> None:
    canvas[inside] = ((1 - opacity) * canvas[inside] + opacity * np.array(color)).astype(np.uint8)


def choose_cases(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Choose the 'worst' cases, the 'best', and as 'more' the worst of every member of a group; each case once.

    The worst cases are of different images as far as possible. A query with neither a target nor a prediction has no
    IoU and is not among the best.

    cases: in the order of the split.
    """
    worst = _worst(cases, NUM_CASES)
    chosen = set(map(id, worst))
    with_pixels = [case for case in cases if case.match.union and id(case) not in chosen]
    best = sorted(with_pixels, key=lambda case: -case.iou)[:NUM_CASES]
    chosen |= set(map(id, best))
    more = []
    for member in sorted({member for case in cases for member in case.members}):
        for case in _worst([case for case in cases if member in case.members], NUM_CASES_OF_MEMBER):
            if id(case) not in chosen:
                chosen.add(id(case))
                more.append(case)
    return {'worst': worst, 'best': best, 'more': sorted(more, key=lambda case: case.iou)}


def _worst(cases: Sequence[Case], count: int) -> list[Case]:
    """Return the worst cases, with a second case of an image only if there are too few images."""
    ordered = sorted(cases, key=lambda case: case.iou)
    first: dict[str, Case] = {}
    for case in ordered:
        first.setdefault(case.outcome.image, case)
    repeated = [case for case in ordered if first[case.outcome.image] is not case]
    return sorted([*first.values(), *repeated][:count], key=lambda case: case.iou)


def draw_cases(cases: Sequence[Case], header: Mapping[str, Any]) -> dict[str, CaseImage]:
    """Return the drawn images by query id; each image is read or drawn once.

    header: that of the cases' run.
    """
    try:
        load = _loader(header)
    except InstructSAMError as error:
        return {case.outcome.query.id: CaseImage('', str(error)) for case in cases}
    by_image: dict[str, list[Case]] = {}
    for case in cases:
        by_image.setdefault(case.outcome.image, []).append(case)
    drawn = {}
    for cases_of_image in by_image.values():
        try:
            image = load(cases_of_image[0].outcome)
        except InstructSAMError as error:
            drawn |= {case.outcome.query.id: CaseImage('', str(error)) for case in cases_of_image}
            continue
        drawn |= {case.outcome.query.id: case.draw(image) for case in cases_of_image}
    return drawn


def _loader(header: Mapping[str, Any]) -> Callable[[Outcome], np.ndarray]:
    """Return the function that reads an outcome's image, or draws it again as the benchmark did: [H, W, 3] uint8 RGB.

    The function raises InstructSAMError if it cannot.

    Raises:
        InstructSAMError: A package that the images are made from is missing.
    """
    if header['benchmark'] == 'tabletop':
        return lambda outcome: _render(outcome.image)
    if header['benchmark'] == 'real':
        source = open_real(header['split'], header['seed'], header['images'])
        return lambda outcome: next(image.load() for _, image in source.open([outcome.order.image]))
    return lambda outcome: read_image(outcome.image)


def _render(name: str) -> np.ndarray:
    """Return the image of the tabletop scene `name`."""
    try:
        split, seed, index = name.rsplit('_', 2)
        return render_scene(split, int(index), int(seed)).rgb
    except (ImportError, RuntimeError, ValueError) as error:  # no MuJoCo, no OpenGL, or no scene of this name
        raise InstructSAMError(f'{name} cannot be drawn: {error}') from error

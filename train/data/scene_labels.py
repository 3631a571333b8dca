"""Dense labels of rendered scenes: category, colour and box distances of every pixel, on the grids of both encoders.

They come from the *_scenes.jsonl files of `instructsam tabletop generate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from instructsam.core.errors import DataError, ImageError
from instructsam.core.files.image_file import read_image
from instructsam.core.model.preprocess import Preprocessor, sam_pixels, to_chw
from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam.train.data.augmentation import Augmentation
from instructsam.train.data.batch import Batch
from instructsam.train.data.collate import Collator
from instructsam.train.data.mixing import Source
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.sample import Sample
from instructsam.train.data.scene_file import SceneFacts, SceneLine, scene_lines
from instructsam.train.tabletop.world.catalog import CATEGORIES
from instructsam.train.tabletop.world.looks import COLORS

CATEGORY = {name: index for index, name in enumerate(CATEGORIES, 1)}
"""Label of each category; 0: no object."""

COLOR = {name: index for index, name in enumerate(COLORS, 1)}
"""Label of each colour; 0: no object."""

CELLS = 4
"""Label samples per token along each axis."""

SMALLEST_CROP = 0.4
"""Smallest side of a random crop, as a share of the image's side."""


class Scene(NamedTuple):
    """The objects of one image."""

    ids: np.ndarray  # [H, W] int64, row of `objects`; 0: no object
    objects: np.ndarray  # [N + 1, 6] float32: category, color, box xyxy 0 to 1; row 0 is unused


class SceneItem(NamedTuple):
    """One image of a scene dataset with its objects."""

    image: np.ndarray  # [H, W, 3] uint8
    scene: Scene


@dataclass
class Labels:
    """Dense labels of B images, on a grid."""

    category: torch.Tensor  # [B, h, w] int64
    color: torch.Tensor  # [B, h, w] int64
    # [B, 4, h, w] distances to the left, top, right and bottom of the object's box, as shares of the image's side.
    box_distances: torch.Tensor


@dataclass
class EncoderLabels:
    """The labels on the grids of both encoders, CELLS times as fine as the tokens."""

    sam: Labels
    qwen: Labels


@dataclass
class DenseBatch:
    """B images preprocessed for both encoders, with dense labels on the encoders' grids."""

    pixels: torch.Tensor  # [B, 3, S, S]
    patches: torch.Tensor  # [P, 3 * t * p * p]
    grids: list[tuple[int, int, int]]  # (1, rows, columns) in patches, one per image
    labels: EncoderLabels

    def counts(self) -> dict[str, int]:
        """Return the count of each unit that loss sums are divided by."""
        return {'images': len(self.pixels)}


@dataclass
class LabelledBatch(Batch):
    """A batch of samples whose images also have dense labels."""

    labels: EncoderLabels | None = None

    def counts(self) -> dict[str, int]:
        """Return the count of each unit that loss sums are divided by."""
        return {**super().counts(), 'images': len(self.pixels)}


class SceneDataset(Dataset):
    """Images of scenes with their objects; half of them are mirrored, and some are random crops around an object."""

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int = 0,
        random_crop: float = 0.0,
        augmentation: Augmentation | None = None,
    ):
        """Read the scene files.

        Args:
            sources: Sources of *_scenes.jsonl files.
            seed: Seed of mirroring and cropping.
            random_crop: Share of the images that are cropped.
            augmentation: Random changes of the images.
        """
        self.items = [
            (Path(source.images), line)
            for source in sources
            for line in scene_lines(source.annotations)
            for _ in range(source.repeat)
        ]
        if not self.items:
            raise DataError(f'no scenes in {", ".join(str(source.annotations) for source in sources) or "no sources"}')
        self.seed, self.random_crop, self.augmentation = seed, random_crop, augmentation
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see it

    def set_epoch(self, epoch: int) -> None:
        """Select the crops of another epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> SceneItem:
        folder, line = self.items[index]
        facts = line.read()
        scene = line_scene(line, facts)
        try:
            image = read_image(folder / facts.image)
        except ImageError as error:
            raise DataError(f'{line.file}, line {line.number}: {error}') from error
        if image.shape[:2] != scene.ids.shape:
            raise DataError(
                f'{line.file}, line {line.number}: the scene is {facts.width} x {facts.height} px, its image '
                f'{folder / facts.image} is {image.shape[1]} x {image.shape[0]} px'
            )
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        is_mirrored = rng.random() < 0.5
        if rng.random() < self.random_crop:
            image, scene = _cropped(image, scene, rng)
        if self.augmentation is not None:
            image = self.augmentation.apply(image, rng)
        return _mirrored(image, scene) if is_mirrored else SceneItem(image, scene)


def _mirrored(image: np.ndarray, scene: Scene) -> SceneItem:
    objects = scene.objects.copy()
    objects[:, [2, 4]] = 1 - objects[:, [4, 2]]
    return SceneItem(image[:, ::-1].copy(), Scene(scene.ids[:, ::-1].copy(), objects))


def _cropped(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> SceneItem:
    """Crop around an object and resize to the whole image's size; the boxes become those of the visible parts."""
    ids, objects = scene
    height, width = ids.shape
    share = rng.uniform(SMALLEST_CROP, 1.0)
    visible = np.unique(ids[ids > 0])
    box = objects[rng.choice(visible), 2:] if len(visible) else np.array([0, 0, 1, 1])
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.3, 0.3, 2) * share
    x0, y0 = np.clip(centre - share / 2, 0, 1 - share)
    rows = ((y0 + share * (np.arange(height) + 0.5) / height) * height).astype(int)
    columns = ((x0 + share * (np.arange(width) + 0.5) / width) * width).astype(int)
    ids = ids[rows][:, columns]
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    objects = objects.copy()
    for row in np.unique(ids[ids > 0]):
        at_rows, at_columns = np.nonzero((ids == row).any(1))[0], np.nonzero((ids == row).any(0))[0]
        objects[row, 2:] = (
            at_columns[0] / width,
            at_rows[0] / height,
            (at_columns[-1] + 1) / width,
            (at_rows[-1] + 1) / height,
        )
    return SceneItem(cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR), Scene(ids, objects))


def line_scene(line: SceneLine, facts: SceneFacts | None = None) -> Scene:
    """Return the objects of one line of a scene file; raise DataError, which names file and line."""
    facts = facts or line.read()
    try:
        return scene_of(facts)
    except RecordError as error:
        raise DataError(f'{line.file}, line {line.number}: {error}') from error


def scene_of(facts: SceneFacts) -> Scene:
    """Return the objects of an image as labels.

    Raises:
        RecordError: A category or colour is not one of the tabletop world, or the image has too many pixels.
    """
    height, width = facts.height, facts.width
    if height * width > MAX_MEGAPIXELS * 1e6:
        raise RecordError(f'the scene has {width} x {height} px, expected at most {MAX_MEGAPIXELS:g} megapixels')
    ids = np.zeros((height, width), np.int64)
    objects = np.zeros((len(facts.objects) + 1, 6), np.float32)
    for row, item in enumerate(facts.objects, 1):
        ids[item.mask.decode()] = row
        x0, y0, x1, y1 = item.mask.box
        box = (x0 / width, y0 / height, x1 / width, y1 / height)
        if item.category not in CATEGORY or item.color not in COLOR:
            raise RecordError(
                f'there is no category {item.category!r} or no color {item.color!r} in the tabletop world'
            )
        objects[row] = (CATEGORY[item.category], COLOR[item.color], *box)
    return Scene(ids, objects)


class DenseCollator:
    """Collates items of a SceneDataset to a DenseBatch."""

    def __init__(self, preprocessor: Preprocessor, image_size: int, rows: int):
        """Keep the grids of both encoders.

        Args:
            preprocessor: The preprocessor of Qwen's vision tower.
            image_size: Side of the input of SAM3 or of the trunk in px.
            rows: Rows of SAM3's token grid, as many as its columns.
        """
        self.preprocessor = preprocessor
        self.image_size = image_size
        self.rows = rows

    def __call__(self, items: Sequence[SceneItem]) -> DenseBatch:
        """Return the batch of `items`."""
        images = [to_chw(item.image) for item in items]
        patches, grids = zip(*(self.preprocessor(image, 'cpu', torch.float32) for image in images), strict=True)
        scenes = [item.scene for item in items]
        return DenseBatch(
            torch.cat([sam_pixels(image, self.image_size, 'cpu', torch.float32) for image in images]),
            torch.cat(patches),
            list(grids),
            encoder_labels(scenes, self.rows, grids, self.preprocessor.merge_size),
        )


class LabelledCollator:
    """Adds dense labels to the batches of a Collator; every image must be one of the scenes."""

    def __init__(self, collator: Collator, sources: Sequence[Source], rows: int):
        """Read the scene files.

        Args:
            collator: Makes the batches.
            sources: Sources of *_scenes.jsonl files.
            rows: Rows of SAM3's token grid, as many as its columns.
        """
        self.collator, self.rows = collator, rows
        self.lines: dict[Path, SceneLine] = {}
        for source in sources:
            for line in scene_lines(source.annotations):
                self.lines[source.images / line.read_image_name()] = line

    def __call__(self, samples: Sequence[Sample]) -> LabelledBatch:
        """Return the batch of `samples`.

        Raises:
            DataError: If an image is not one of the scenes.
        """
        missing = [str(sample.image) for sample in samples if sample.image not in self.lines]
        if missing:
            raise DataError(f'{missing[0]} is in none of the files that `base.scenes` names')
        batch = self.collator(samples)
        scenes = [line_scene(self.lines[sample.image]) for sample in samples]
        return LabelledBatch(
            **{each.name: getattr(batch, each.name) for each in fields(batch)},
            labels=encoder_labels(scenes, self.rows, batch.grids, self.collator.merge),
        )


def encoder_labels(
    scenes: Sequence[Scene], rows: int, grids: Sequence[tuple[int, int, int]], merge: int
) -> EncoderLabels:
    """Return the labels of scenes on both encoders' grids.

    Args:
        scenes: One per image.
        rows: Rows of SAM3's token grid, as many as its columns.
        grids: (1, rows, columns) in Qwen's patches, one per image.
        merge: Qwen's patches per token along each axis.
    """
    return EncoderLabels(
        sam=labels_at(scenes, [(CELLS * rows, CELLS * rows)] * len(scenes)),
        qwen=labels_at(scenes, [(CELLS * h // merge, CELLS * w // merge) for _, h, w in grids]),
    )


def labels_at(scenes: Sequence[Scene], sizes: Sequence[tuple[int, int]]) -> Labels:
    """Sample the labels of scenes at the centres of rows x columns cells; `sizes` must be equal."""
    labels = [_labels(scene, *size) for scene, size in zip(scenes, sizes, strict=True)]
    return Labels(*(torch.stack(each) for each in zip(*labels, strict=True)))


def _labels(scene: Scene, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return category [rows, columns], colour [rows, columns] and box distances [4, rows, columns]."""
    ids = scene.ids
    y, x = (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns
    cells = ids[(y * ids.shape[0]).astype(int)][:, (x * ids.shape[1]).astype(int)]
    objects = torch.from_numpy(scene.objects[cells])  # [rows, columns, 6]
    cell_x, cell_y = torch.from_numpy(x).float()[None, :], torch.from_numpy(y).float()[:, None]
    x0, y0, x1, y1 = objects[..., 2:].unbind(-1)
    distances = torch.stack([cell_x - x0, cell_y - y0, x1 - cell_x, y1 - cell_y])
    return objects[..., 0].long(), objects[..., 1].long(), distances

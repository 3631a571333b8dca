"""Rows as samples of a data set: the questions that are left, their masks, the name of the picture and the split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from instructsam.core.rle import Rle
from instructsam.train.data_engine.recipe import ExportSettings
from instructsam.train.data_engine.rows import EngineImage, Question, Row

FOLDER = 'images'
SPLITS = ('train', 'validation')


@dataclass(frozen=True)
class Answered:
    """A question that is exported, with its masks; none for a question about something absent."""

    question: Question
    phrases: tuple[str, ...]
    masks: tuple[Rle, ...]


@dataclass(frozen=True)
class Exported:
    """An image that is exported.

    Attributes:
        image: The image.
        name: Path of its picture in the folder of the export.
        split: One of SPLITS.
        answered: Its questions.
    """

    image: EngineImage
    name: str
    split: str
    answered: tuple[Answered, ...]


def exported(rows: Iterable[Row], settings: ExportSettings) -> Iterator[Exported]:
    """Yield the images that have a question left, in the order of the rows."""
    for row in rows:
        image = row.image
        if image is None or {image.source, image.licence} & set(settings.leave_out):
            continue
        answered = tuple(
            answer for each in row.kept_questions() if (answer := _answered(row, each, settings)) is not None
        )
        if answered:
            suffix = Path(image.path).suffix.lower()
            yield Exported(image, f'{FOLDER}/{image.id[:32]}{suffix}', split_of(image, settings), answered)


def _answered(row: Row, question: Question, settings: ExportSettings) -> Answered | None:
    """Return a question with its masks; None if it has none although it should, or too many."""
    objects = row.objects_of(question)
    masks = tuple(each.mask.rle for each in objects if each.mask is not None and each.mask.counts)
    if question.is_present:
        is_whole = 1 <= len(masks) == len(question.object_ids) <= settings.max_targets
        return Answered(question, tuple(each.phrase for each in objects), masks) if is_whole else None
    return None if objects else Answered(question, (), ())


def split_of(image: EngineImage, settings: ExportSettings) -> str:
    """Return the split of an image, which depends on nothing else; all frames of a video have the same one."""
    video, is_frame, _ = image.origin.rpartition('#')
    key = f'{image.source}/{video}' if is_frame and image.in_run else image.id
    share = int.from_bytes(hashlib.sha256(key.encode('utf-8', 'surrogateescape')).digest()[:8], 'big') / 2**64
    return 'validation' if share < settings.validation_share else 'train'

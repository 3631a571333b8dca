"""Rows of known scenes as the simulated annotator fills them in, for measurements that need no run's files."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.optimize import linear_sum_assignment

from instructsam.core.rle import ious
from instructsam.train.data_engine.asking import Client
from instructsam.train.data_engine.masks.stage import SegmentObjects
from instructsam.train.data_engine.objects import AskObjects, ObjectSettings
from instructsam.train.data_engine.questions import AskQuestions, QuestionSettings
from instructsam.train.data_engine.rows import EngineImage, Question, Row
from instructsam.train.data_engine.simulated.annotator import SimulatedAnnotator
from instructsam.train.data_engine.simulated.masks import SimulatedMasks
from instructsam.train.data_engine.simulated.server import MODEL
from instructsam.train.data_engine.simulated.world import KnownScene

SOURCE = 'simulated'
QUESTIONS = QuestionSettings(per_image=8, negatives=1)


def start_row(scene: KnownScene, order: int = 0) -> Row:
    """Return the row of a scene's image before the first request; the name of its file is that of the scene."""
    height, width = scene.image.shape[:2]
    name, digest = f'{scene.name}.jpg', hashlib.sha256(scene.jpeg).hexdigest()
    return Row(order, EngineImage(digest, name, False, height, width, SOURCE, SOURCE, name, 0.0, '0' * 16))


async def segmented_row(scene: KnownScene, client: Client, annotator: SimulatedAnnotator, order: int = 0) -> Row:
    """Return the row of a scene after the stages questions, objects and masks.

    Args:
        scene: The scene.
        client: A client of the annotator's server.
        annotator: The annotator, for its convention of boxes and its masks.
        order: Position of the row.
    """

    def read(_: EngineImage) -> np.ndarray:
        return scene.image

    row = await AskQuestions(client, MODEL, QUESTIONS, read)(start_row(scene, order))
    row = await AskObjects(client, MODEL, ObjectSettings(annotator.convention), read)(row)
    return SegmentObjects(SimulatedMasks(annotator), MODEL, read)(row)


def is_good(scene: KnownScene, row: Row, question: Question, least_iou: float = 0.5) -> bool:
    """Return whether the phrase of a question is the true one and its masks match the true ones one to one.

    Args:
        scene: The scene of the row.
        row: A row after stage masks.
        question: One of its questions.
        least_iou: Least IoU of a mask with the true one.
    """
    known = scene.question(question.text)
    if known is None or question.answer != known.answer or question.is_present != bool(known.targets):
        return False
    given = [each.mask.rle for each in row.objects_of(question) if each.mask is not None and each.mask.counts]
    true = [scene.masks[i] for i in known.targets]
    if not len(given) == len(true) == len(question.object_ids):
        return False
    overlaps = ious(given, true)
    return bool((overlaps[linear_sum_assignment(overlaps, maximize=True)] >= least_iou).all())

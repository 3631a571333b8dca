"""The simulated annotator's replies to the requests of the data engine, as a function of the request alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from instructsam.core.errors import DataError
from instructsam.train.data_engine.coordinates import CONVENTIONS
from instructsam.train.data_engine.simulated.noise import Annotation, Noise, annotate, generator
from instructsam.train.data_engine.simulated.world import Gallery, KnownQuestion, KnownScene
from instructsam.train.vlm.marks import mark_color

COVERED = 0.5  # least share of an object's pixels under a mark for the mark to be on it
CHANGE = 6.0  # least change of a tinted pixel, sum over the channels, grey levels
DRAWN = 60.0  # least change of a pixel of an outline
ALIGNED = 0.95


@dataclass(frozen=True)
class CheckErrors:
    """Rates of the mistakes that the annotator makes as a checker: a perfect one would make any filter perfect.

    Attributes:
        round_trip: Share of the questions for which it chooses wrong numbers.
        exhaustivity: Share of the questions for which it says the opposite of the truth.
        seed: Seed of all draws.
    """

    round_trip: float = 0.1
    exhaustivity: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class Request:
    """A request of the data engine.

    Attributes:
        form: Name of the JSON schema that the reply shall have.
        picture: [H, W, 3] uint8 RGB.
        texts: All texts of the chat, in order.
        key: Identifies the whole request, for the draws of broken JSON.
    """

    form: str
    picture: np.ndarray
    texts: Sequence[str]
    key: str


@dataclass(frozen=True)
class SimulatedAnnotator:
    """A simulated vision-language model.

    Attributes:
        gallery: The scenes that it knows.
        noise: Its mistakes as an annotator.
        errors: Its mistakes as a checker.
        convention: Convention of its boxes, one of `coordinates.CONVENTIONS`.
    """

    gallery: Gallery
    noise: Noise = field(default_factory=Noise)
    errors: CheckErrors = field(default_factory=CheckErrors)
    convention: str = 'qwen3-vl'

    def reply(self, request: Request) -> str:
        """Return the text of the reply, JSON of the form that is asked for unless `noise.broken_json` breaks it.

        Raises:
            DataError: The form or the picture is unknown.
        """
        replies = {
            'QuestionsForm': self._questions,
            'Objects': self._objects,
            'ChosenNumbers': self._numbers,
            'Completeness': self._completeness,
        }
        if request.form not in replies:
            raise DataError(f'a simulated annotator knows the forms {", ".join(replies)}, not {request.form!r}')
        scene = self.gallery.recognise(request.picture)
        text = json.dumps(replies[request.form](scene, request))
        if generator(self.noise.seed, 'broken', request.key).random() < self.noise.broken_json:
            return text[: len(text) // 2]
        return text

    def annotation(self, scene: KnownScene) -> Annotation:
        """Return all that the annotator says about a scene."""
        return annotate(scene, self.noise)

    def _questions(self, scene: KnownScene, request: Request) -> dict[str, Any]:
        return {
            'questions': [
                {
                    'question': each.text,
                    'answer': each.answer,
                    'ground': {'quantifier': each.quantifier if each.present else 'none', 'count': each.count},
                    'kind': each.kind,
                    'distractors': list(each.distractors),
                    'present': each.present,
                }
                for each in self.annotation(scene).questions
            ]
        }

    def _objects(self, scene: KnownScene, request: Request) -> dict[str, Any]:
        asked = _listed_questions(request.texts)
        annotation, convention = self.annotation(scene), CONVENTIONS[self.convention]
        answers = {each.text: ids for each, ids in zip(annotation.questions, annotation.answers, strict=True)}
        sent, full = request.picture.shape[:2], scene.image.shape[:2]
        return {
            'objects': [
                {
                    'object_id': each.object_id,
                    'phrase': each.phrase,
                    convention.key: [round(value, 2) for value in convention.to_values(each.box, sent, full)],
                }
                for each in annotation.objects
            ],
            'answers': [
                {'question_id': name, 'object_ids': list(answers.get(text, ()))} for name, text in asked.items()
            ],
        }

    def _numbers(self, scene: KnownScene, request: Request) -> dict[str, Any]:
        question = _checked_question(scene, request.texts)
        marks = read_marks(request.picture, scene, _count_of_marks(request.texts))
        targets = question.targets if question else ()
        numbers = {marks[i] for i in targets if i in marks}
        rng = generator(self.errors.seed, scene.name, question.text if question else '', 'round trip')
        if marks and rng.random() < self.errors.round_trip:
            numbers ^= {int(rng.choice(sorted(set(marks.values()))))}  # one too many, or one missed
        return {'numbers': sorted(numbers)}

    def _completeness(self, scene: KnownScene, request: Request) -> dict[str, Any]:
        question = _checked_question(scene, request.texts)
        marks = read_marks(request.picture, scene, _count_of_marks(request.texts))
        is_complete = all(i in marks for i in (question.targets if question else ()))
        rng = generator(self.errors.seed, scene.name, question.text if question else '', 'exhaustivity')
        return {'is_complete': is_complete != (rng.random() < self.errors.exhaustivity)}


def read_marks(picture: np.ndarray, scene: KnownScene, count: int) -> Mapping[int, int]:
    """Return the number of the mark on each object of a scene that has one, by id.

    The annotator really reads the picture: it compares it with the scene, takes objects of which enough is tinted, and
    tells each one's number by the hue of the outline. Hues of marks that touch mix, and may be mistaken.

    Args:
        picture: The scene with a set of marks drawn in, [H, W, 3] uint8 RGB, of the scene's size.
        scene: The scene.
        count: Number of marks, which the prompt tells.
    """
    if picture.shape != scene.image.shape or count < 1:
        return {}
    change = np.abs(picture.astype(np.float32) - scene.image).sum(axis=2)
    chroma = _chroma(picture) * (change > DRAWN)
    hues = _chroma(np.array([mark_color(index) for index in range(count)]))
    hues /= np.abs(hues)
    marked, likeness = [], []  # objects, and how much each outline has the hue of each mark
    for object_id, mask in scene.masks.items():
        pixels = mask.decode()
        if (change[pixels] > CHANGE).mean() < COVERED:
            continue
        kernel = np.ones((3, 3), np.uint8)
        rim = cv2.dilate(pixels.astype(np.uint8), kernel) - cv2.erode(pixels.astype(np.uint8), kernel, iterations=2)
        outline = chroma[rim.astype(bool)]
        aligned = (outline[:, None] * hues.conj()).real / np.maximum(np.abs(outline[:, None]), 1.0)
        likeness.append((aligned > ALIGNED).sum(axis=0))
        marked.append(object_id)
    if not marked:
        return {}
    # No number is given twice, which decides between similar hues.
    rows, columns = linear_sum_assignment(np.array(likeness), maximize=True)
    return {marked[row]: 1 + int(column) for row, column in zip(rows, columns, strict=True)}


def _chroma(colors: np.ndarray) -> np.ndarray:
    """Return the chroma of colours [..., 3] RGB as complex numbers [...], whose angle is the hue."""
    red, green, blue = (colors[..., channel].astype(np.float32) for channel in range(3))
    return red - (green + blue) / 2 + 1j * (3**0.5 / 2) * (green - blue)


def _listed_questions(texts: Sequence[str]) -> dict[str, str]:
    """Return the questions of a request for objects by id; the last text that is JSON lists them."""
    for text in reversed(texts):
        try:
            listed = json.loads(text)['questions']
            return {each['question_id']: each['question'] for each in listed}
        except (ValueError, LookupError, TypeError):
            continue
    raise DataError('a request for objects has no list of questions')


def _count_of_marks(texts: Sequence[str]) -> int:
    """Return the number of marks that a prompt tells."""
    found = [re.search(r'numbered\s+from 1 to (\d+)', text) for text in texts]
    return next((int(each.group(1)) for each in found if each), 0)


def _checked_question(scene: KnownScene, texts: Sequence[str]) -> KnownQuestion | None:
    """Return the known question of a check."""
    for text in texts:
        if text.startswith('Question: '):
            return scene.question(text.removeprefix('Question: '))
    return None

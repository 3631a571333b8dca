"""Scenes of the tabletop world as the simulated annotator knows them: exact questions, answers, boxes and masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.train.data_engine.probe import ProbeScene, probe_scenes
from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.instructions import Instruction, sample_instructions
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.language.words import canonical
from instructsam.train.tabletop.scenes.scene import Scene, SceneObject, render_scene

MOST_DISTRACTORS = 3
PROBE = 'probe_'  # start of the names of scenes of the probe, which are annotated without noise
THUMBNAIL = 16  # side of the picture by which a scene is recognised, px
FARTHEST = 20.0  # mean difference in grey levels at which a picture is of no known scene
MOST_DIFFERENCE = 60.0  # grey levels that a pixel counts for at most: the plates of numbers are black and white

Box = tuple[float, float, float, float]
"""xyxy in px of the upright image."""


@dataclass(frozen=True)
class KnownQuestion:
    """A question about a scene with its exact answer.

    Attributes:
        text: The question.
        answer: The noun phrase of its targets.
        kind: Type of instruction, see `instructions.KINDS`.
        targets: Ids of the targets; () if nothing fits.
        distractors: Phrases of objects that are near to the targets without being meant.
    """

    text: str
    answer: str
    kind: str
    targets: tuple[int, ...]
    distractors: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class KnownScene:
    """A rendered scene with everything that is true about it.

    Attributes:
        name: Unique name of the scene.
        image: [H, W, 3] uint8.
        jpeg: The image as a file.
        masks: The visible pixels of each object that can be referred to, by id.
        phrases: The description of each such object: colour and category.
        questions: Questions with their answers.
    """

    name: str
    image: np.ndarray
    jpeg: bytes
    masks: Mapping[int, Rle]
    phrases: Mapping[int, str]
    questions: tuple[KnownQuestion, ...]

    def box(self, object_id: int) -> Box:
        """Return the tight box of an object."""
        x0, y0, x1, y1 = self.masks[object_id].box
        return (float(x0), float(y0), float(x1), float(y1))

    def question(self, text: str) -> KnownQuestion | None:
        """Return the question with this wording, or None."""
        return next((each for each in self.questions if each.text == text), None)


def draw_known_scene(index: int, split: str = 'test', seed: int = 0, size: tuple[int, int] = (224, 224)) -> KnownScene:
    """Render a scene of the tabletop world; arguments and errors as those of `render_scene`."""
    return known_scene(render_scene(split, index, seed, size))


def known_scene(scene: Scene, count: int = 8) -> KnownScene:
    """Return a rendered scene with up to `count` questions that have one answer phrase each."""
    clear = p.View(scene, Relations(scene)).objects
    described = {i: _description(obj) for i, obj in clear.items()}
    asked = [each for each in sample_instructions(scene, count) if len(each.phrases) == 1]
    return KnownScene(
        scene.name,
        scene.rgb,
        scene.jpeg,
        {i: Rle.encode(scene.ids == i) for i in clear},
        described,
        tuple(_known_question(each, clear, described) for each in asked),
    )


def _description(obj: SceneObject) -> str:
    return canonical(p.Color(p.Noun(obj.category), obj.color), 1)


def _known_question(
    asked: Instruction, objects: Mapping[int, SceneObject], described: Mapping[int, str]
) -> KnownQuestion:
    targets = asked.targets[0]
    looks = {(objects[i].category, objects[i].color) for i in targets}
    near = [
        described[i]
        for i, obj in objects.items()
        if i not in targets and any(obj.category == category or obj.color == color for category, color in looks)
    ]
    distractors = tuple(dict.fromkeys(near))[:MOST_DISTRACTORS]
    return KnownQuestion(asked.text, asked.phrases[0], asked.kind, targets, distractors)


def known_probe_scenes() -> list[KnownScene]:
    """Return the pictures by which a run checks the coordinates of a VLM, as known scenes."""
    return [_known_probe_scene(number, scene) for number, scene in enumerate(probe_scenes())]


def _known_probe_scene(number: int, scene: ProbeScene) -> KnownScene:
    phrases = dict(enumerate(scene.boxes))
    masks = {}
    for i, phrase in phrases.items():
        x0, y0, x1, y1 = map(int, scene.boxes[phrase])
        filled = np.zeros(scene.image.shape[:2], bool)
        filled[y0:y1, x0:x1] = True
        masks[i] = Rle.encode(filled)
    questions = tuple(
        KnownQuestion(asked.text, asked.answer, asked.kind, (i,), ()) for i, asked in enumerate(scene.questions())
    )
    return KnownScene(f'{PROBE}{number}', scene.image, b'', masks, phrases, questions)


class Gallery:
    """The scenes that a simulated annotator knows; a picture of one is recognised after JPEG and with marks drawn in.

    It is compared by a thumbnail, which survives compression, and the outlines and numbers of a set of marks. The
    pictures of the probe of coordinates are known besides.
    """

    def __init__(self, scenes: Iterable[KnownScene]) -> None:
        self.scenes: Sequence[KnownScene] = (*scenes, *known_probe_scenes())
        self._thumbnails = np.stack([_thumbnail(scene.image) for scene in self.scenes])  # [N, pixels]

    def recognise(self, image: np.ndarray) -> KnownScene:
        """Return the scene of a picture [H, W, 3] uint8 of any size. Raises DataError if it shows none of them."""
        differences = np.abs(self._thumbnails - _thumbnail(image))
        distances = np.minimum(differences, MOST_DIFFERENCE).mean(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] > FARTHEST:
            raise DataError(
                f'the picture shows none of the {len(self.scenes)} known scenes: the nearest, '
                f'{self.scenes[nearest].name}, differs by {distances[nearest]:.0f} grey levels'
            )
        return self.scenes[nearest]


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a picture's thumbnail as one vector of float32."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32).ravel()

"""Mistakes of the simulated annotator: kinds, rates, and the noisy annotation of a scene that they lead to.

Every draw depends only on the seed, the scene and the question, so that a repeated request gets the same answer, in
whatever order requests arrive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from instructsam.core.errors import InstructSAMError
from instructsam.train.data_engine.simulated.world import PROBE, Box, KnownQuestion, KnownScene

# Faults of a question, then of its objects, then of their masks.
QUESTION_FAULTS = ('wrong_count', 'wrong_phrase', 'sentence', 'absent_present')
OBJECT_FAULTS = ('wrong_object', 'missed', 'extra', 'split_id', 'merged_ids', 'shifted_box', 'swapped_axes')
MASK_FAULTS = ('eroded_mask', 'leaking_mask', 'half_mask')
FAULTS = (*QUESTION_FAULTS, *OBJECT_FAULTS, *MASK_FAULTS)
ABSENT_FAULTS = ('sentence', 'absent_present')  # those that a question without a target may have
NEEDS_ANOTHER = ('wrong_object', 'extra', 'merged_ids', 'wrong_phrase', 'absent_present')  # object besides the targets


@dataclass(frozen=True)
class Noise:
    """Rates of the mistakes.

    A question has at most one fault. It has one with the sum of all rates as the probability, and among the kinds that
    it can have, each is drawn in proportion to its rate (only a question with several targets can lack one of them).

    Attributes:
        rates: Rate of each kind of fault, 0 to 1; kinds that are missing never occur.
        broken_json: Share of the replies whose JSON is cut off.
        consistent: Share of the wrong sets of objects (`missed`, `extra`) whose number the ground states too, so that
            no comparison of counts can find them.
        shift: Displacement of a shifted box, as a share of its sides.
        seed: Seed of all draws.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    broken_json: float = 0.0
    consistent: float = 0.5
    shift: float = 0.35
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rates) - set(FAULTS))
        if unknown:
            raise InstructSAMError(f'unknown kinds of noise: {", ".join(unknown)}. Known: {", ".join(FAULTS)}')
        if min((*self.rates.values(), self.broken_json), default=0.0) < 0 or sum(self.rates.values()) > 1:
            raise InstructSAMError(f'rates of noise are 0 or more and add up to 1 at most, got {dict(self.rates)}')
        object.__setattr__(self, 'rates', MappingProxyType(dict(self.rates)))

    @classmethod
    def uniform(cls, total: float, kinds: Sequence[str] = FAULTS, seed: int = 0) -> Noise:
        """Return noise that strikes a share `total` of the questions, with equal rates of all `kinds`."""
        return cls({kind: total / len(kinds) for kind in kinds}, seed=seed)


def generator(seed: int, *key: object) -> np.random.Generator:
    """Return the random generator that belongs to a key of texts and numbers."""
    digest = hashlib.sha256('\0'.join(map(str, (seed, *key))).encode()).digest()
    return np.random.default_rng(list(digest))


@dataclass(frozen=True)
class StatedQuestion:
    """A question as the annotator states it; `text` is always that of a known question."""

    text: str
    answer: str
    kind: str
    quantifier: str  # one, all, count or some
    count: int
    present: bool
    distractors: tuple[str, ...] = ()


@dataclass(frozen=True)
class StatedObject:
    """An object as the annotator states it; its box is xyxy in px."""

    object_id: str
    phrase: str
    box: Box


@dataclass(frozen=True)
class Annotation:
    """All that the simulated annotator says about a scene.

    Attributes:
        questions: The questions.
        objects: All objects that they are about.
        answers: Ids of the objects of each question.
        faults: The fault of each question; '' if it has none.
        mask_faults: Faults of masks by the id of the object in the scene.
    """

    questions: tuple[StatedQuestion, ...]
    objects: tuple[StatedObject, ...]
    answers: tuple[tuple[str, ...], ...]
    faults: tuple[str, ...]
    mask_faults: Mapping[int, str]


def annotate(scene: KnownScene, noise: Noise) -> Annotation:
    """Return the annotation of a scene with all mistakes of `noise`; without any, it is exact."""
    draft = _Draft(scene, noise)
    for known in scene.questions:
        draft.add(known)
    return draft.finish()


class _Draft:
    """An annotation that is being made."""

    def __init__(self, scene: KnownScene, noise: Noise) -> None:
        self._scene, self._noise = scene, noise
        self._objects = {f'o{i}': StatedObject(f'o{i}', scene.phrases[i], scene.box(i)) for i in scene.masks}
        self._same: dict[str, str] = {}  # ids that stand for two objects, by the ids that they replace
        self._questions: list[StatedQuestion] = []
        self._answers: list[list[str]] = []
        self._faults: list[str] = []
        self._mask_faults: dict[int, str] = {}

    def add(self, known: KnownQuestion) -> None:
        """State a known question, perhaps with a fault."""
        rng = generator(self._noise.seed, self._scene.name, known.text)
        fault = self._draw_fault(known, rng)
        stated, ids = exact_question(known), [f'o{i}' for i in known.targets]
        if fault in QUESTION_FAULTS:
            stated, ids = self._misstate(fault, known, stated, ids, rng)
        elif fault in ('wrong_object', 'missed', 'extra'):
            ids = self._wrong_set(fault, known, ids, rng)
            if fault != 'wrong_object' and rng.random() < self._noise.consistent:
                quantifier = 'one' if len(ids) == 1 else 'count' if stated.quantifier == 'one' else stated.quantifier
                stated = replace(stated, count=len(ids), quantifier=quantifier)
        elif fault:
            ids = self._spoil(fault, known, ids, rng)
        self._questions.append(stated)
        self._answers.append(ids)
        self._faults.append(fault)

    def _draw_fault(self, known: KnownQuestion, rng: np.random.Generator) -> str:
        if rng.random() >= sum(self._noise.rates.values()) or self._scene.name.startswith(PROBE):
            return ''
        possible = [kind for kind in FAULTS if self._noise.rates.get(kind, 0.0) > 0 and self._is_possible(kind, known)]
        if not possible:
            return ''
        weights = np.array([self._noise.rates[kind] for kind in possible])
        return str(rng.choice(possible, p=weights / weights.sum()))

    def _is_possible(self, fault: str, known: KnownQuestion) -> bool:
        """Return whether a question can have a fault: an absent target cannot be missed, nor a single one in part."""
        if not known.targets and fault not in ABSENT_FAULTS:
            return False
        if fault in NEEDS_ANOTHER and not self._others(known):
            return False
        return not (fault == 'absent_present' and known.targets) and (fault != 'missed' or len(known.targets) > 1)

    def _others(self, known: KnownQuestion) -> list[int]:
        return [i for i in self._scene.masks if i not in known.targets]

    def _misstate(
        self, fault: str, known: KnownQuestion, stated: StatedQuestion, ids: list[str], rng: np.random.Generator
    ) -> tuple[StatedQuestion, list[str]]:
        """Return the question with a fault in its statement, and its objects."""
        if fault == 'sentence':
            return replace(stated, answer=f'The answer is the {stated.answer}.'), ids
        other = int(rng.choice(self._others(known)))
        if fault == 'wrong_phrase':
            return replace(stated, answer=self._scene.phrases[other]), ids
        if fault == 'absent_present':
            return replace(stated, present=True, quantifier='one', count=1), [f'o{other}']
        more = stated.count + (1 if stated.count == 1 or rng.random() < 0.5 else -1)
        return replace(stated, quantifier='one' if more == 1 else 'count', count=more), ids

    def _wrong_set(self, fault: str, known: KnownQuestion, ids: list[str], rng: np.random.Generator) -> list[str]:
        """Return a set of objects that is not the right one."""
        at = int(rng.integers(len(ids)))
        if fault == 'missed':
            return ids[:at] + ids[at + 1 :]
        other = f'o{rng.choice(self._others(known))}'
        return [*ids, other] if fault == 'extra' else [*ids[:at], other, *ids[at + 1 :]]

    def _spoil(self, fault: str, known: KnownQuestion, ids: list[str], rng: np.random.Generator) -> list[str]:
        """Put a fault into one of the question's objects, for all questions that share it; return the ids."""
        target = int(rng.choice(known.targets))
        name = f'o{target}'
        stated = self._objects[name]
        if fault in MASK_FAULTS:
            self._mask_faults[target] = fault
        elif fault == 'split_id':
            self._objects[f'{name}b'] = replace(stated, object_id=f'{name}b')
            return [*ids, f'{name}b']
        elif fault == 'merged_ids':
            other = f'o{_nearest(self._scene, target, self._others(known))}'
            both = np.array([stated.box, self._objects[other].box])
            union = (*both[:, :2].min(axis=0).tolist(), *both[:, 2:].max(axis=0).tolist())
            self._objects[name] = replace(stated, box=union)
            self._same[other] = name
        else:
            self._objects[name] = replace(stated, box=self._wrong_box(fault, stated.box, rng))
        return ids

    def _wrong_box(self, fault: str, box: Box, rng: np.random.Generator) -> Box:
        x0, y0, x1, y1 = box
        height, width = self._scene.image.shape[:2]
        if fault == 'swapped_axes':
            return (y0 / height * width, x0 / width * height, y1 / height * width, x1 / width * height)
        right, down = self._noise.shift * np.array([x1 - x0, y1 - y0]) * rng.choice([-1, 1], 2)
        xs, ys = np.clip([x0 + right, x1 + right], 0, width), np.clip([y0 + down, y1 + down], 0, height)
        return (float(xs[0]), float(ys[0]), float(xs[1]), float(ys[1]))

    def finish(self) -> Annotation:
        """Return the annotation."""
        return Annotation(
            tuple(self._questions),
            tuple(each for name, each in self._objects.items() if name not in self._same),
            tuple(tuple(dict.fromkeys(self._same.get(i, i) for i in ids)) for ids in self._answers),
            tuple(self._faults),
            MappingProxyType(self._mask_faults),
        )


def exact_question(known: KnownQuestion) -> StatedQuestion:
    """Return a known question without any mistake."""
    count = len(known.targets)
    quantifier = 'count' if known.kind == 'counting' and count > 1 else 'all' if count > 1 else 'one'
    return StatedQuestion(
        known.text, known.answer, known.kind, quantifier, count, present=count > 0, distractors=known.distractors
    )


def _nearest(scene: KnownScene, target: int, others: Iterable[int]) -> int:
    """Return the one of `others` whose box has the nearest centre."""

    def centre(object_id: int) -> np.ndarray:
        return np.reshape(scene.box(object_id), (2, 2)).mean(axis=0)

    return min(others, key=lambda i: (float(np.linalg.norm(centre(i) - centre(target))), i))

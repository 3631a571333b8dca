"""Instructions about a scene with their answers: `sample_instructions(scene)` and `sample_concepts(scene)`.

The answer phrase repeats what the instruction says about the targets, in one canonical form: [number] [superlative]
[size] [colour] [material] noun [place]. The noun is the targets' own even if the instruction does not name it
("something to drink from" -> "mug", "the red thing" -> "red mug"), unless they differ in it; attributes that the
instruction does not name are left out ("the mug left of the bowl" -> "mug left of the bowl", whatever its colour). If
there is no target, the phrase repeats the request, in its number: only the masks, not the phrase, may reveal that there
is no target. Its concise form, which the benchmark expects, is [size] [colour] [material] noun.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.contrasts import CONTRASTS, ContrastSampler
from instructsam.train.tabletop.language.program import Program
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.language.sampler import InstructionSampler
from instructsam.train.tabletop.language.words import (
    Wording,
    canonical,
    concise,
    definite,
    enumeration,
    is_pair,
    question,
    sentence,
    shortened,
)
from instructsam.train.tabletop.scenes.scene import Scene
from instructsam.train.tabletop.world.splits import HELD_OUT_COMBINATIONS, HELD_OUT_PAIRS, generator

KINDS = ('category', 'attribute', 'relation', 'containment', 'superlative', 'counting', 'exclusion', 'union', 'intent')
TRIES = {'relation': 40, 'intent': 8}  # candidates per type of instruction before it is left out
OTHER_TRIES = 14  # candidates of all other types
CONTRAST_TRIES = 40  # candidates of a pair
NONE_CONCEPT_TRIES = 40  # candidates of a concept without a target
MAX_TARGETS = 8
NONE_SHARE = 0.125  # share of the instructions without a target


@dataclass(frozen=True)
class Instruction:
    """An instruction about a scene with its meaning.

    Attributes:
        kind: Its type, one of `KINDS` or 'none'.
        text: The wording.
        phrases: The answer phrases, one per group of objects.
        concise: A concise form of each phrase, see `words.concise`; the phrases, if two would be the same.
        shorter: Shorter forms of each phrase, see `words.shortened`.
        targets: The ids of each group, () if nothing fits.
        anchors: The ids of the other objects that each phrase's part of the instruction names.
        program: The meaning of each phrase as text.
        novel: What never occurs in training ('pair', 'combination', 'wording'); () except in the split `unseen`.
    """

    kind: str
    text: str
    phrases: tuple[str, ...]
    concise: tuple[str, ...]
    shorter: tuple[tuple[str, ...], ...]
    targets: tuple[tuple[int, ...], ...]
    anchors: tuple[tuple[int, ...], ...]
    program: tuple[str, ...]
    novel: tuple[str, ...] = ()


def sample_instructions(scene: Scene, count: int = 8, contrasts: int = 0) -> list[Instruction]:
    """Draw up to `count` instructions of distinct types, about one in eight without a target, and pairs after them.

    Args:
        scene: The scene.
        count: Number of single instructions.
        contrasts: Number of pairs of instructions that differ in one word and have other targets, or one has none.
    """
    rng = generator(scene.split, scene.seed, scene.index, 'words')
    relations = Relations(scene)
    sampler = ContrastSampler(scene, relations, rng)
    if not sampler.clear:
        return []
    without_target = int(rng.binomial(count, NONE_SHARE))
    kinds = ['none'] * without_target + [KINDS[i] for i in rng.permutation(len(KINDS))]
    drawn: dict[str, Instruction] = {}  # instructions by their text
    for kind in kinds:
        if len(drawn) == count:
            break
        for _ in range(TRIES.get(kind, OTHER_TRIES)):
            instruction = _instruction(kind, sampler, scene, relations, rng)
            if instruction and instruction.text not in drawn:
                drawn[instruction.text] = instruction
                break
    for _ in range(contrasts):
        differing = tuple(CONTRASTS)[rng.choice(len(CONTRASTS), p=tuple(CONTRASTS.values()))]
        for _ in range(CONTRAST_TRIES):
            pair = _contrast(differing, sampler, scene, relations, rng)
            if pair and not drawn.keys() & {one.text for one in pair}:
                drawn |= {one.text: one for one in pair}
                break
    return list(drawn.values())


def _contrast(
    differing: str, sampler: ContrastSampler, scene: Scene, relations: Relations, rng: np.random.Generator
) -> tuple[Instruction, Instruction] | None:
    """Draw two instructions that differ in one word and in their targets; return None if they are unclear."""
    programs = sampler.contrast(differing)
    if programs is None:
        return None
    kind = differing if differing in KINDS else 'relation'
    targets = _targets(programs, scene, relations)
    if targets is None or targets[0] == targets[1]:
        return None
    number = max(map(len, targets))  # requests without a target have the number of the others
    seed = int(rng.integers(2**32))
    pair = []
    for program, group in zip(programs, targets, strict=True):
        wording = Wording(np.random.default_rng(seed))  # the same choices of words for both
        instruction = _worded(kind if group else 'none', (program,), (group,), scene, relations, wording, number)
        if instruction is None:
            return None
        pair.append(instruction)
    return pair[0], pair[1]


def _instruction(
    kind: str, sampler: InstructionSampler, scene: Scene, relations: Relations, rng: np.random.Generator
) -> Instruction | None:
    """Draw one candidate of a type; return None if it has no clear answer in the scene."""
    is_unseen = scene.split == 'unseen'
    is_held_out = is_unseen and rng.random() < 0.5
    programs = (sampler.sample_held_out(kind) if is_held_out else None) or sampler.sample(kind)
    if programs is None:
        return None
    targets = _targets(programs, scene, relations)
    if targets is None:
        return None
    return _worded(kind, programs, targets, scene, relations, Wording(rng, unseen=0.2 if is_unseen else 0.0))


def _targets(programs: tuple[Program, ...], scene: Scene, relations: Relations) -> tuple[tuple[int, ...], ...] | None:
    """Return the ids that each program selects; None if that is hard to judge."""
    try:
        return tuple(p.evaluate(program, scene, relations) for program in programs)
    except p.BorderlineError:
        return None


def _worded(
    kind: str,
    programs: tuple[Program, ...],
    targets: tuple[tuple[int, ...], ...],
    scene: Scene,
    relations: Relations,
    wording: Wording,
    number: int | None = None,
) -> Instruction | None:
    """Return the instruction with this meaning and these targets; None if they do not suit the type.

    `number` is the number of objects that is requested where there is no target, by default drawn.
    """
    if not _is_acceptable(kind, targets):
        return None
    counts = [len(group) if group else number or 1 + wording.chance(0.2) for group in targets]
    first = programs[0]
    if isinstance(first, p.Purpose) and kind in ('intent', 'none') and wording.chance(0.5):
        text = question(first.intent, wording)
        requested = [1]  # a question does not imply a number
    else:
        text = _sentence(programs, counts, wording)
        requested = counts
    novel = novelty(programs, targets, scene, wording)
    if bool(novel) != (scene.split == 'unseen'):
        return None
    answers = [answer_program(program, group, scene) for program, group in zip(programs, targets, strict=True)]
    numbers = [len(group) or number for group, number in zip(targets, requested, strict=True)]
    phrases = tuple(map(canonical, answers, numbers))
    if len(set(phrases)) < len(phrases):
        return None
    short = tuple(map(concise, answers, numbers))
    if len(set(short)) < len(short):
        short = phrases
    shorter = tuple(map(shortened, answers, numbers))
    view = p.View(scene, relations)
    anchors = tuple(tuple(sorted(p.anchors(program, view))) for program in programs)
    return Instruction(kind, text, phrases, short, shorter, targets, anchors, tuple(map(p.to_text, programs)), novel)


def _is_acceptable(kind: str, targets: tuple[tuple[int, ...], ...]) -> bool:
    """Return whether the targets suit the type of instruction."""
    together = [i for group in targets for i in group]
    if kind == 'none':
        return not together
    if kind == 'union':  # one group may be empty, and no object may be requested twice
        is_distinct = len(together) == len(set(together)) <= MAX_TARGETS
        return is_distinct and bool(together) and sum(not group for group in targets) < 2
    return 0 < len(together) <= MAX_TARGETS


def _sentence(programs: Sequence[Program], counts: Sequence[int], wording: Wording) -> str:
    """Return the words of an instruction for so many objects per program."""
    if len(programs) == 1:
        phrase = definite(programs[0], wording, plural=counts[0] > 1)
        return sentence(phrase, wording, plural=counts[0] > 1 or is_pair(programs[0]))
    return sentence(enumeration(programs, counts, wording), wording, plural=True)


def answer_program(program: Program, targets: tuple[int, ...], scene: Scene) -> Program:
    """Return the program that the answer phrase words, see the module's docstring; it is not to be evaluated.

    Args:
        program: The meaning.
        targets: The ids that it selects.
        scene: Provides the objects.
    """
    nouns = {scene.objects[i].category for i in targets}
    noun = p.Noun(nouns.pop()) if len(nouns) == 1 else None
    return _with_noun(program, noun) if targets else program


def _with_noun(program: Program, noun: p.Noun | None) -> Program:
    """Return the program with a noun at its head: `noun`, else its own, else "object"."""
    if isinstance(program, p.Filter):
        return replace(program, of=_with_noun(program.of, noun))
    return noun or (program if isinstance(program, p.Noun) else p.Noun('object'))


def sample_concepts(scene: Scene, count: int = 8) -> list[Instruction]:
    """Draw bare phrases ("red mug", "bowls") with all objects that they describe, as in stage 1 of training.

    One of them is "objects" unless it is borderline: it teaches most about what an object is.
    """
    rng = generator(scene.split, scene.seed, scene.index, 'concepts')
    relations = Relations(scene)
    sampler = InstructionSampler(scene, relations, rng)
    if not sampler.clear:
        return []
    everything = _concept('category', p.Noun('object'), scene, relations, rng)
    drawn = {everything.program: everything} if everything else {}
    for _ in range(count - len(drawn)):
        kind = 'none' if rng.random() < NONE_SHARE else ('category', 'attribute')[rng.integers(2)]
        for _ in range(NONE_CONCEPT_TRIES if kind == 'none' else OTHER_TRIES):
            programs = sampler.sample(kind)
            concept = _concept(kind, programs[0], scene, relations, rng) if programs else None
            if concept and concept.program not in drawn:
                drawn[concept.program] = concept
                break
    return list(drawn.values())


def _concept(
    kind: str, program: Program, scene: Scene, relations: Relations, rng: np.random.Generator
) -> Instruction | None:
    """Return the bare phrase of a program; None if it is not one or has no clear answer in the scene."""
    if not all(isinstance(part, (p.Noun, p.Color, p.Material)) for part in p.subprograms(program)):
        return None
    try:
        targets = p.evaluate(program, scene, relations)
    except p.BorderlineError:
        return None
    novel = novelty((program,), (targets,), scene, Wording())
    if bool(targets) == (kind == 'none') or len(targets) > MAX_TARGETS or bool(novel) != (scene.split == 'unseen'):
        return None
    number = 2 if len(targets) > 1 and rng.random() < 0.5 else 1
    text = canonical(program, number)
    shorter = (shortened(program, number),)
    return Instruction(kind, text, (text,), (text,), shorter, (targets,), ((),), (p.to_text(program),), novel)


def novelty(
    programs: Sequence[Program], targets: Sequence[tuple[int, ...]], scene: Scene, wording: Wording
) -> tuple[str, ...]:
    """Return what never occurs in training about an instruction: 'pair', 'combination', 'wording'."""
    novel = []
    mentioned = {pair for program in programs for pair in _pairs(program)}
    selected = {(scene.objects[i].category, scene.objects[i].color) for group in targets for i in group}
    if (mentioned | selected) & HELD_OUT_PAIRS:
        novel.append('pair')
    if any(combination <= operators(program) for program in programs for combination in HELD_OUT_COMBINATIONS):
        novel.append('combination')
    if wording.used_unseen:
        novel.append('wording')
    return tuple(novel)


def _pairs(program: Program) -> Iterator[tuple[str, str]]:
    """Yield the category and colour of all objects that a program mentions, also as anchors."""
    for part in p.subprograms(program):
        if isinstance(part, p.Color):
            nouns = [head.noun for head in p.heads(part) if isinstance(head, p.Noun)]
            categories = [name for noun in nouns if noun != 'object' for name in p.GROUPS.get(noun, (noun,))]
            yield from ((category, part.color) for category in categories)


def operators(program: Program) -> set[str]:
    """Return the names of all operators, relations and orders in a program; 'several': a superlative of several."""
    names = set()
    for part in p.subprograms(program):
        names.add(p.operator_name(part))
        if isinstance(part, (p.Relate, p.Holding)):
            names.add(part.relation)
        if isinstance(part, p.Extreme):
            names.add(part.order)
            if part.count > 1:
                names.add('several')
        if isinstance(part, p.Between):
            names.add('between')
    return names

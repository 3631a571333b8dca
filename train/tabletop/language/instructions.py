"""Instructions about a scene, with their answers: `instructions(scene)` and `concepts(scene)`.

The answer phrase says what the targets are and where, in one canonical form: [number] [superlative] [size] [colour]
[material] noun [place]. It names the targets' own noun and colour even where the instruction did not ("something to
drink from" -> "red mug", "the mug left of the bowl" -> "red mug left of the bowl"), for the phrase is all that tells
the detector in words what to find. Colour is left out where the targets differ in it, and where nothing is there the
phrase repeats what was asked, several where several were: it must not tell that nothing is there, masks do.
"""

from dataclasses import dataclass, fields, replace

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.drafts import Drafts
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.language.words import (
    Voice,
    canonical,
    definite,
    is_paired,
    noun_phrase,
    question,
    sentence,
)
from instructsam.train.tabletop.world.splits import HELD_OUT_COMBINATIONS, HELD_OUT_PAIRS, generator

KINDS = ('category', 'attribute', 'relation', 'containment', 'superlative', 'counting', 'exclusion', 'union', 'intent')
TRIES = {'relation': 40, 'intent': 8}  # drafts before a scene is taken not to bear out a kind; others 14
MOST_TARGETS = 8
NONE_SHARE = 0.125  # of all instructions


@dataclass(frozen=True)
class Instruction:
    """What is said about a scene and what is meant.

    phrases: one answer a group of objects; targets: the ids of each group, () where nothing fits.
    program: the meaning of each phrase as text. novel: what `unseen` has that training has not ('pair', 'combination',
    'wording'), empty in the other splits.
    """

    kind: str
    text: str
    phrases: tuple[str, ...]
    targets: tuple[tuple[int, ...], ...]
    program: tuple[str, ...]
    novel: tuple[str, ...] = ()


def instructions(scene, count=8):
    """Up to `count` instructions about `scene`, each of another kind and about an eighth for nothing that is there."""
    rng = generator(scene.split, scene.seed, scene.index, 'words')
    relations = Relations(scene)
    drafts = Drafts(scene, relations, rng)
    if not drafts.clear:
        return []
    none = int(rng.binomial(count, NONE_SHARE))
    kinds = ['none'] * none + [KINDS[i] for i in rng.permutation(len(KINDS))]
    found, seen = [], set()
    for kind in kinds:
        if len(found) == count:
            break
        for _ in range(TRIES.get(kind, 14)):
            made = _instruction(kind, drafts, scene, relations, rng)
            if made and made.text not in seen:
                seen.add(made.text)
                found.append(made)
                break
    return found


def _instruction(kind, drafts, scene, relations, rng):
    """One instruction of a kind from one draft; None where the scene does not bear it out."""
    rare = scene.split == 'unseen' and rng.random() < 0.5
    draft = (drafts.combined(kind) if rare else None) or getattr(drafts, kind)()
    if draft is None:
        return None
    programs = draft if kind == 'union' else (draft,)
    try:
        targets = tuple(p.truth(program, scene, relations) for program in programs)
    except p.BorderlineError:
        return None
    if not _acceptable(kind, targets):
        return None
    voice = Voice(rng, unseen=0.2 if scene.split == 'unseen' else 0.0)
    counts = [len(picked) if picked else 1 + voice.chance(0.2) for picked in targets]
    asked = isinstance(programs[0], p.Use) and kind in ('intent', 'none') and voice.chance(0.5)
    text = question(programs[0].intent, voice) if asked else _say(programs, counts, voice)
    novel = novelty(programs, targets, scene, voice)
    if bool(novel) != (scene.split == 'unseen'):
        return None
    said = [1] if asked else counts  # a question does not tell how many it means
    phrases = tuple(answer(*one, scene) for one in zip(programs, targets, said))
    if len(set(phrases)) < len(phrases):
        return None
    return Instruction(kind, text, phrases, targets, tuple(p.show(program) for program in programs), novel)


def _acceptable(kind, targets):
    together = [i for picked in targets for i in picked]
    if kind == 'none':
        return not together
    if kind == 'union':  # one of several may be missing, and none may be asked for twice
        different = len(together) == len(set(together)) <= MOST_TARGETS
        return different and together and sum(not picked for picked in targets) < 2
    return 0 < len(together) <= MOST_TARGETS


def _say(programs, counts, voice):
    """The words of an instruction for so many objects each."""
    named = [definite(program, count > 1, voice) for program, count in zip(programs, counts)]
    if len(named) == 1:
        return sentence(named[0], counts[0] > 1 or is_paired(programs[0]), voice)
    joined = f'{", ".join(named[:-1])} and {named[-1]}'
    return sentence(joined, True, voice)


def answer(program, targets, count, scene):
    """The canonical phrase for what a program picked (see above), or, where that is nothing, for `count` of it."""
    if not targets:
        return canonical(program, count)
    picked = [scene.objects[i] for i in targets]
    nouns, colors = {item.category for item in picked}, {item.color for item in picked}
    if isinstance(program, p.Except) and len(picked) == 1:
        return canonical(p.Color(p.Kind(picked[0].category), picked[0].color), 1)
    noun = p.Kind(nouns.pop()) if len(nouns) == 1 else None
    color = colors.pop() if len(colors) == 1 else None
    return canonical(_grounded(program, noun, color), len(picked))


def _grounded(program, noun, color):
    """The program with the targets' own noun and colour at its head; for words only, it is not run."""
    if isinstance(program, p.Material) and isinstance(program.of, p.Kind) and color and noun:
        return p.Color(replace(program, of=noun), color)
    if isinstance(program, p.Color):
        return replace(program, of=_bare(program.of, noun))
    if isinstance(program, (p.Kind, p.Use)):
        head = _bare(program, noun)
        return p.Color(head, color) if color else head
    return replace(program, of=_grounded(program.of, noun, color))


def _bare(head, noun):
    """The noun that the targets share, else the group's, else "object"."""
    return noun or (head if isinstance(head, p.Kind) else p.Kind('object'))


def concepts(scene, count=8):
    """Bare phrases ("red mug", "bowls") with all objects that they fit, as a detector is asked: stage 1.

    One of them is "objects" where it is clear what that means: it teaches most of what an object is.
    """
    rng = generator(scene.split, scene.seed, scene.index, 'concepts')
    relations = Relations(scene)
    drafts = Drafts(scene, relations, rng)
    if not drafts.clear:
        return []
    everything = _concept('category', p.Kind('object'), scene, relations, rng)
    found = {everything.program: everything} if everything else {}
    for _ in range(count - len(found)):
        kind = 'none' if rng.random() < NONE_SHARE else ('category', 'attribute')[rng.integers(2)]
        for _ in range(40 if kind == 'none' else 14):
            made = _concept(kind, getattr(drafts, kind)(), scene, relations, rng)
            if made and made.program not in found:
                found[made.program] = made
                break
    return list(found.values())


def _concept(kind, program, scene, relations, rng):
    """One bare phrase for a program; None where the scene does not bear it out."""
    if program is None or not all(isinstance(part, (p.Kind, p.Color, p.Material)) for part in p.parts(program)):
        return None
    try:
        targets = p.truth(program, scene, relations)
    except p.BorderlineError:
        return None
    novel = novelty((program,), (targets,), scene, Voice())
    if bool(targets) == (kind == 'none') or len(targets) > MOST_TARGETS or bool(novel) != (scene.split == 'unseen'):
        return None
    text = noun_phrase(program, len(targets) > 1 and rng.random() < 0.5, Voice())
    return Instruction(kind, text, (text,), (targets,), (p.show(program),), novel)


def novelty(programs, targets, scene, voice):
    """What about an instruction training never shows: 'pair', 'combination', 'wording'."""
    found = []
    asked = {pair for program in programs for pair in _pairs(program)}
    shown = {(scene.objects[i].category, scene.objects[i].color) for picked in targets for i in picked}
    if (asked | shown) & HELD_OUT_PAIRS:
        found.append('pair')
    if any(combination <= features(program) for program in programs for combination in HELD_OUT_COMBINATIONS):
        found.append('combination')
    if voice.used_unseen:
        found.append('wording')
    return tuple(found)


def _pairs(program):
    """The category and colour of everything that a program names, also in passing."""
    for part in p.parts(program):
        if isinstance(part, p.Color):
            nouns = [head.noun for head in p.heads(part) if isinstance(head, p.Kind)]
            categories = [name for noun in nouns if noun != 'object' for name in p.GROUPS.get(noun, (noun,))]
            yield from ((category, part.color) for category in categories)


def features(program):
    """The operators and relations that meet in a program: class names, relations, orders, 'several'."""
    found = set()
    for part in p.parts(program):
        found.add(type(part).__name__)
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name in ('relation', 'order'):
                found.add(value)
            if field.name == 'count' and isinstance(part, p.Extreme) and value > 1:
                found.add('several')
    return found | {name.lower() for name in found & {'Between'}}

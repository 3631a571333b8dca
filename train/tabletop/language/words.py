"""English wordings of programs: noun phrases for the objects that a program selects, canonical or varied."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.intents import INTENTS
from instructsam.train.tabletop.language.program import Program


@dataclass(frozen=True)
class Wordings:
    """Interchangeable wordings.

    Attributes:
        common: Wordings of all splits, the canonical one first.
        unseen: Wordings reserved for the split `unseen`.
    """

    common: tuple[str, ...]
    unseen: tuple[str, ...] = ()


# Pairs (singular, plural) of each category and group, the canonical one first.
NOUNS = {
    'mug': (('mug', 'mugs'), ('coffee mug', 'coffee mugs')),
    'glass': (('glass', 'glasses'), ('drinking glass', 'drinking glasses')),
    'bowl': (('bowl', 'bowls'),),
    'plate': (('plate', 'plates'), ('dinner plate', 'dinner plates')),
    'bottle': (('bottle', 'bottles'),),
    'can': (('can', 'cans'), ('soda can', 'soda cans')),
    'box': (('box', 'boxes'), ('carton', 'cartons')),
    'book': (('book', 'books'),),
    'spoon': (('spoon', 'spoons'),),
    'fork': (('fork', 'forks'),),
    'knife': (('knife', 'knives'),),
    'ball': (('ball', 'balls'),),
    'banana': (('banana', 'bananas'),),
    'apple': (('apple', 'apples'),),
    'lemon': (('lemon', 'lemons'),),
    'tray': (('tray', 'trays'), ('serving tray', 'serving trays')),
    'pan': (('pan', 'pans'), ('frying pan', 'frying pans')),
    'teapot': (('teapot', 'teapots'),),
    'sponge': (('sponge', 'sponges'),),
    'vase': (('vase', 'vases'), ('flower vase', 'flower vases')),
    'scissors': (('scissors', 'pairs of scissors'),),
    'napkin': (('napkin', 'napkins'), ('crumpled napkin', 'crumpled napkins')),
    'fruit': (('fruit', 'fruits'), ('piece of fruit', 'pieces of fruit')),
    'cutlery': (('piece of cutlery', 'pieces of cutlery'),),
    'object': (('object', 'objects'), ('thing', 'things'), ('item', 'items')),
}
NUMBERS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six')
MATERIALS = {'wood': 'wooden', 'metal': 'metal', 'plastic': 'plastic', 'glass': 'glass', 'ceramic': 'ceramic'}
SIZES = {'small': Wordings(('small', 'little')), 'large': Wordings(('large', 'big'))}

RELATIONS = {
    'left': Wordings(('left of', 'to the left of', 'on the left of'), ('on the left-hand side of',)),
    'right': Wordings(('right of', 'to the right of', 'on the right of'), ('on the right-hand side of',)),
    'front': Wordings(('in front of',), ('on the near side of',)),
    'behind': Wordings(('behind',), ('on the far side of',)),
    'near': Wordings(('next to', 'beside', 'near'), ('close by',)),
    'in': Wordings(('in', 'inside'), ('sitting in',)),
    'on': Wordings(('on', 'on top of'), ('resting on',)),
    'between': Wordings(('between',), ('in the gap between',)),
    'closest': Wordings(('closest to', 'nearest to'), ('at the shortest distance from',)),
    'furthest': Wordings(('farthest from', 'furthest away from'), ('most distant from',)),
    'with in': Wordings(('with {} in it', 'that holds {}', 'containing {}'), ('filled with {}',)),
    'with on': Wordings(('with {} on it', 'that has {} on top'), ('carrying {}',)),
    'with in many': Wordings(('with {} in them', 'that hold {}', 'containing {}'), ('filled with {}',)),
    'with on many': Wordings(('with {} on them', 'that have {} on top'), ('carrying {}',)),
    'but': Wordings(('except', 'but', 'other than'), ('apart from',)),
}
# {} stands for the noun.
EXTREMES = {
    'leftmost': Wordings(('leftmost {}', '{} furthest to the left', '{} on the far left'), ('{} at the left end',)),
    'rightmost': Wordings(
        ('rightmost {}', '{} furthest to the right', '{} on the far right'), ('{} at the right end',)
    ),
    'nearest': Wordings(('nearest {}', 'closest {}', '{} nearest to the camera'), ('{} right before you',)),
    'farthest': Wordings(('farthest {}', 'most distant {}', '{} farthest from the camera'), ('{} at the very back',)),
    'largest': Wordings(('largest {}', 'biggest {}'), ('{} of the greatest size',)),
    'smallest': Wordings(('smallest {}', 'tiniest {}'), ('{} of the least size',)),
}
BOTH = Wordings(('both', 'the two', 'both of the'), ('the pair of',))
ALL = Wordings(('all', 'all the', 'the', 'all of the'), ('the whole lot of',))
VERBS = Wordings(
    (
        'pick up', 'grab', 'take', 'get', 'fetch', 'find', 'grasp', 'bring me', 'hand me', 'pass me', 'give me',
        'show me', 'point at', 'locate', 'select', 'segment', 'highlight', 'mark',
    ),
    ('lift', 'reach for', 'collect'),
)  # fmt: skip
FRAMES = Wordings(
    (
        '{Verb} {np}.', '{Verb} {np}.', 'Please {verb} {np}.', '{Verb} {np}, please.', 'Can you {verb} {np}?',
        'Could you {verb} {np}?', 'Could you please {verb} {np}?', 'Would you {verb} {np}, please?',
        'I want you to {verb} {np}.', 'Now {verb} {np}.', 'I need {np}.', 'I would like {np}, please.',
        'Where {is} {np}?', 'Can you see {np}?', '{Np}.',
    ),
    (
        'Would you mind {getting} {np}?', 'I am looking for {np}.', 'Let me have {np}.',
        'Your task is to {verb} {np}.',
    ),
)  # fmt: skip


class Wording:
    """Chooses among wordings; without random numbers it always takes the canonical one.

    Attributes:
        used_unseen: Whether a wording was chosen that does not occur in training.
    """

    def __init__(self, rng: np.random.Generator | None = None, unseen: float = 0.0) -> None:
        """`unseen` is the probability of choosing a wording reserved for the split `unseen` where there is one."""
        self.rng, self.unseen, self.used_unseen = rng, unseen, False

    def pick(self, wordings: Wordings) -> str:
        """Return one of the wordings."""
        if self.rng is None:
            return wordings.common[0]
        if wordings.unseen and self.rng.random() < self.unseen:
            self.used_unseen = True
            return wordings.unseen[self.rng.integers(len(wordings.unseen))]
        return self.pick_from(wordings.common)

    def pick_from(self, options: Sequence[str]) -> str:
        """Return one of `options`, the first of which is canonical."""
        return options[0] if self.rng is None else options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        """Return True with a probability; always False in the canonical wording."""
        return self.rng is not None and self.rng.random() < probability


def noun_phrase(program: Program, wording: Wording, *, plural: bool = False) -> str:
    """Return the noun phrase of a program without an article: "large red mug left of the bowl"."""
    match program:
        case p.Noun(noun):
            number = 1 if plural else 0
            synonyms = NOUNS[noun] if wording.chance(0.35) else NOUNS[noun][:1]
            return wording.pick_from([forms[number] for forms in synonyms])
        case p.Purpose(intent):
            return f'{"objects" if plural else "object"} {_purpose_phrase(intent, wording, plural=plural)}'
        case p.Color(of, color):
            return f'{color} {noun_phrase(of, wording, plural=plural)}'
        case p.Material(of, material):
            return f'{MATERIALS[material]} {noun_phrase(of, wording, plural=plural)}'
        case p.Size(of, size):
            return f'{wording.pick(SIZES[size])} {noun_phrase(of, wording, plural=plural)}'
        case p.Empty(of):
            return f'empty {noun_phrase(of, wording, plural=plural)}'
        case p.Relate(of, relation, anchor):
            where = f'{wording.pick(RELATIONS[relation])} the {noun_phrase(anchor, wording)}'
            return f'{noun_phrase(of, wording, plural=plural)} {_connective(of, wording, plural=plural)}{where}'
        case p.Between(of, first, second):
            pair = f'the {noun_phrase(first, wording)} and the {noun_phrase(second, wording)}'
            where = wording.pick(RELATIONS['between'])
            return f'{noun_phrase(of, wording, plural=plural)} {_connective(of, wording, plural=plural)}{where} {pair}'
        case p.Closest(of, anchor, farthest):
            where = wording.pick(RELATIONS['furthest' if farthest else 'closest'])
            return f'{noun_phrase(of, wording, plural=plural)} {where} the {noun_phrase(anchor, wording)}'
        case p.Holding(of, relation, held):
            pattern = wording.pick(RELATIONS[f'with {relation}{" many" if plural else ""}'])
            phrase = noun_phrase(of, wording, plural=plural)
            return f'{phrase} {pattern.format(indefinite(noun_phrase(held, wording)))}'
        case p.Extreme(of, order, count):
            number = f'{NUMBERS[count]} ' if count > 1 else ''
            patterns = EXTREMES[order]
            if _has_tail(of):  # "the mug on the tray furthest to the left" could be about the tray
                before_noun = tuple(pattern for pattern in patterns.common if pattern.endswith('{}'))
                patterns = Wordings(before_noun)
            return number + wording.pick(patterns).format(noun_phrase(of, wording, plural=plural))
        case p.Exactly(of, count):
            return f'{NUMBERS[count]} {noun_phrase(of, wording, plural=plural)}'
        case p.Except(of):
            phrase, but = noun_phrase(of, wording, plural=plural), wording.pick(RELATIONS['but'])
            return f'{phrase} {but} the {_excluded(program, wording)}'
    raise TypeError(f'no words for {program!r}')


def _has_tail(program: Program) -> bool:
    """Return whether words follow the noun."""
    return any(isinstance(head, (p.Relate, p.Between, p.Holding, p.Closest, p.Purpose)) for head in p.heads(program))


def _connective(of: Program, wording: Wording, *, plural: bool) -> str:
    """Return the words between `of` and a relation: none, "that is ", or "and " after another relation."""
    if isinstance(of, (p.Relate, p.Between)):
        return 'and '
    if isinstance(of, p.Holding) or wording.chance(0.2):
        return f'that {"are" if plural or is_pair(of) else "is"} '
    return ''


def is_pair(program: Program) -> bool:
    """Return whether the noun of a single object is a plural: scissors."""
    return list(p.heads(program))[-1] == p.Noun('scissors')


def _excluded(program: p.Except, wording: Wording) -> str:
    """Return the words for an exception: "red mug", or "red one", "smallest one" right after the same noun."""
    of, but, several = program.of, program.but, program.several
    repeats_noun = getattr(but, 'of', None) == of and of != p.Noun('object') and not is_pair(of)
    if repeats_noun and wording.chance(0.6):
        if isinstance(but, p.Color):
            return f'{but.color} one{"s" if several else ""}'
        if isinstance(but, p.Extreme):
            return wording.pick(EXTREMES[but.order]).format('one')
    return noun_phrase(but, wording, plural=several)


def indefinite(phrase: str) -> str:
    """Prepend "a" or "an" by sound: a mug, an orange mug, a pair of scissors."""
    words = phrase.split()
    if 'scissors' in words and not phrase.startswith('pair'):
        return f'a pair of {phrase}'
    return f'{"an" if words[0][0] in "aeiou" else "a"} {phrase}'


def definite(program: Program, wording: Wording, *, plural: bool = False) -> str:
    """Return the noun phrase with an article or a quantifier: "the red mug", "both mugs", "everything but the mug"."""
    if isinstance(program, p.Except):
        return _exception(program, wording, plural=plural)
    if isinstance(program, p.Purpose):
        return _purpose(program, wording, plural=plural)
    if isinstance(program, p.Exactly):
        inner = noun_phrase(program.of, wording, plural=True)
        if program.count == 2:
            return f'{wording.pick(BOTH)} {inner}'
        number = NUMBERS[program.count]
        return f'{wording.pick_from((f"all {number}", f"the {number}", f"all {number} of the"))} {inner}'
    if plural and not isinstance(program, p.Extreme):
        return f'{wording.pick(ALL)} {noun_phrase(program, wording, plural=True)}'
    return f'the {noun_phrase(program, wording, plural=plural)}'


def enumeration(programs: Sequence[Program], counts: Sequence[int], wording: Wording) -> str:
    """Return "the mug, the bowl and the knives", for so many objects per program."""
    *others, last = (
        definite(program, wording, plural=count > 1) for program, count in zip(programs, counts, strict=True)
    )
    # "the bowl in front of the spoon and the knife" would be one bowl in front of both
    comma = ',' if any(map(_has_tail, programs[:-1])) else ''
    return f'{", ".join(others)}{comma} and {last}'


def _exception(program: p.Except, wording: Wording, *, plural: bool) -> str:
    """Return, e.g., "all mugs but the red one", "every mug except the red one", "the mugs that are not red"."""
    of, but = program.of, program.but
    if of == p.Noun('object'):
        phrase = wording.pick_from(('everything', 'all objects', 'all the things'))
    else:
        if isinstance(but, p.Color) and but.of == of and wording.chance(0.3):
            verb = 'are' if plural or is_pair(of) else 'is'
            return f'the {noun_phrase(of, wording, plural=plural)} that {verb} not {but.color}'
        phrase = f'every {"pair of " if is_pair(of) else ""}{noun_phrase(of, wording)}'
        if plural and not is_pair(of):
            phrase = wording.pick_from((f'all {noun_phrase(of, wording, plural=True)}', phrase))
    return f'{phrase} {wording.pick(RELATIONS["but"])} the {_excluded(program, wording)}'


def _purpose(program: p.Purpose, wording: Wording, *, plural: bool) -> str:
    """Return, e.g., "something to drink from" or "all the things to drink from"."""
    words = ('everything', 'all the things', 'all objects') if plural else ('something', 'the thing', 'the object')
    word = wording.pick_from(words)
    return f'{word} {_purpose_phrase(program.intent, wording, plural=plural and word != "everything")}'


def _purpose_phrase(intent: str, wording: Wording, *, plural: bool) -> str:
    """Return the words for a purpose with the verb agreeing in number."""
    forms = {'s': '', 'is_': 'are'} if plural else {'s': 's', 'is_': 'is'}
    return wording.pick_from(INTENTS[intent].phrases).format(**forms)


def sentence(phrase: str, wording: Wording, *, plural: bool) -> str:
    """Return a whole instruction to a robot about `phrase`, which has an article; `plural`: its verb is plural."""
    frame, verb = wording.pick(FRAMES), wording.pick(VERBS)
    text = frame.format(
        np=phrase,
        Np=phrase[0].upper() + phrase[1:],
        verb=verb,
        Verb=verb[0].upper() + verb[1:],
        getting=wording.pick_from(('getting', 'fetching', 'passing me')),
        **{'is': 'are' if plural and not phrase.startswith('every') else 'is'},
    )
    return _as_typed(text, wording)


def _as_typed(text: str, wording: Wording) -> str:
    """Sometimes drop the final mark or the initial capital, as in typed or transcribed text."""
    if wording.chance(0.25):
        text = text.rstrip('.?')
    if wording.chance(0.25) and not text.startswith('I '):
        text = text[0].lower() + text[1:]
    return text


def question(intent: str, wording: Wording) -> str:
    """Return a whole sentence that asks for a purpose."""
    wordings = Wordings(INTENTS[intent].questions, INTENTS[intent].unseen_questions)
    return _as_typed(wording.pick(wordings), wording)


def canonical(program: Program, count: int) -> str:
    """Return the answer phrase: the canonical noun phrase of a program that selects `count` objects."""
    return noun_phrase(program, Wording(), plural=count > 1)


def concise(program: Program, count: int) -> str:
    """Return `canonical(program, count)` without what tells its objects from others of their kind.

    These are place, contents, superlative, number and exception: "red mug" for "leftmost red mug on the tray".
    """
    return canonical(_described(program), count)


def shortened(program: Program, count: int) -> tuple[str, ...]:
    """Return the shorter forms of `canonical(program, count)`, the longest first.

    These are the concise phrase ("red mug" for "leftmost red mug on the tray"), the noun alone ("mug") and "object", as
    far as they differ.
    """
    programs = (program, _described(program), _described(program, nothing=True), p.Noun('object'))
    forms = (canonical(each, count) for each in programs)
    return tuple(dict.fromkeys(forms))[1:]


def _described(program: Program, *, nothing: bool = False) -> Program:
    """Return the noun of a program with its size, colour and material, or with `nothing`."""
    if isinstance(program, p.Filter):
        inner = _described(program.of, nothing=nothing)
        is_kept = isinstance(program, (p.Color, p.Material, p.Size)) and not nothing
        return replace(program, of=inner) if is_kept else inner
    is_head = isinstance(program, p.Noun) or (isinstance(program, p.Purpose) and not nothing)
    return program if is_head else p.Noun('object')

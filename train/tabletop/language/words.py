"""English words for programs: noun phrases for what a program picks, with one canonical wording and many others."""

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.intents import INTENTS

# category -> (singular, plural) pairs, the canonical one first
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
SIZES = {'small': ('small', 'little'), 'large': ('large', 'big')}

# The first is canonical; after the bar, wordings that only the split `unseen` uses.
RELATIONS = {
    'left': ('left of', 'to the left of', 'on the left of', '|', 'on the left-hand side of'),
    'right': ('right of', 'to the right of', 'on the right of', '|', 'on the right-hand side of'),
    'front': ('in front of', '|', 'on the near side of'),
    'behind': ('behind', '|', 'on the far side of'),
    'near': ('next to', 'beside', 'near', '|', 'close by'),
    'in': ('in', 'inside', '|', 'sitting in'),
    'on': ('on', 'on top of', '|', 'resting on'),
    'between': ('between', '|', 'in the gap between'),
    'closest': ('closest to', 'nearest to', '|', 'at the shortest distance from'),
    'furthest': ('farthest from', 'furthest away from', '|', 'most distant from'),
    'with in': ('with {} in it', 'that holds {}', 'containing {}', '|', 'filled with {}'),
    'with on': ('with {} on it', 'that has {} on top', '|', 'carrying {}'),
    'with in many': ('with {} in them', 'that hold {}', 'containing {}', '|', 'filled with {}'),
    'with on many': ('with {} on them', 'that have {} on top', '|', 'carrying {}'),
    'but': ('except', 'but', 'other than', '|', 'apart from'),
}
# before the noun, or after it where a bar follows the word
EXTREMES = {
    'leftmost': ('leftmost {}', '{} furthest to the left', '{} on the far left', '|', '{} at the left end'),
    'rightmost': ('rightmost {}', '{} furthest to the right', '{} on the far right', '|', '{} at the right end'),
    'nearest': ('nearest {}', 'closest {}', '{} nearest to the camera', '|', '{} right before you'),
    'farthest': ('farthest {}', 'most distant {}', '{} farthest from the camera', '|', '{} at the very back'),
    'largest': ('largest {}', 'biggest {}', '|', '{} of the greatest size'),
    'smallest': ('smallest {}', 'tiniest {}', '|', '{} of the least size'),
}


class Voice:
    """Chooses among wordings; `used_unseen` tells whether one was taken that training never shows.

    Without random numbers the canonical wording is always taken. `unseen` is the chance to prefer such wordings.
    """

    def __init__(self, rng=None, unseen=0.0):
        self.rng, self.unseen, self.used_unseen = rng, unseen, False

    def pick(self, options):
        """One of `options`; those after a '|' are for the split `unseen`."""
        options = tuple(options)
        bar = options.index('|') if '|' in options else len(options)
        common, rare = options[:bar], options[bar + 1 :]
        if self.rng is None:
            return common[0]
        if rare and self.rng.random() < self.unseen:
            self.used_unseen = True
            return rare[self.rng.integers(len(rare))]
        return common[self.rng.integers(len(common))]

    def chance(self, share):
        """True in a share of cases; never in the canonical wording."""
        return self.rng is not None and self.rng.random() < share


def noun_phrase(program, plural, voice):
    """What `program` picks, without an article: "large red mug left of the bowl"."""
    match program:
        case p.Kind(noun):
            return voice.pick(NOUNS[noun] if voice.rng is None or voice.chance(0.35) else NOUNS[noun][:1])[plural]
        case p.Use(intent):
            return f'{"objects" if plural else "object"} {_serving(intent, plural, voice)}'
        case p.Color(of, color):
            return f'{color} {noun_phrase(of, plural, voice)}'
        case p.Material(of, material):
            return f'{MATERIALS[material]} {noun_phrase(of, plural, voice)}'
        case p.Size(of, size):
            return f'{voice.pick(SIZES[size])} {noun_phrase(of, plural, voice)}'
        case p.Empty(of):
            return f'empty {noun_phrase(of, plural, voice)}'
        case p.Relate(of, relation, anchor):
            where = f'{voice.pick(RELATIONS[relation])} the {noun_phrase(anchor, False, voice)}'
            return f'{noun_phrase(of, plural, voice)} {_that(of, plural, voice)}{where}'
        case p.Between(of, first, second):
            pair = f'the {noun_phrase(first, False, voice)} and the {noun_phrase(second, False, voice)}'
            where = voice.pick(RELATIONS['between'])
            return f'{noun_phrase(of, plural, voice)} {_that(of, plural, voice)}{where} {pair}'
        case p.Closest(of, anchor, farthest):
            where = voice.pick(RELATIONS['furthest' if farthest else 'closest'])
            return f'{noun_phrase(of, plural, voice)} {where} the {noun_phrase(anchor, False, voice)}'
        case p.Holding(of, relation, item):
            pattern = voice.pick(RELATIONS[f'with {relation}{" many" if plural else ""}'])
            return f'{noun_phrase(of, plural, voice)} {pattern.format(indefinite(noun_phrase(item, False, voice)))}'
        case p.Extreme(of, order, count):
            number = f'{NUMBERS[count]} ' if count > 1 else ''
            patterns = EXTREMES[order]
            if _has_tail(of):  # "the mug on the tray furthest to the left" could be about the tray
                patterns = [pattern for pattern in patterns if pattern.endswith('{}')]
            return number + voice.pick(patterns).format(noun_phrase(of, plural, voice))
        case p.Exactly(of, count):
            return f'{NUMBERS[count]} {noun_phrase(of, plural, voice)}'
        case p.Except(of):
            return f'{noun_phrase(of, plural, voice)} {voice.pick(RELATIONS["but"])} the {_left_out(program, voice)}'
    raise TypeError(f'no words for {program!r}')


def _has_tail(program):
    """Whether words follow the noun."""
    return any(isinstance(part, (p.Relate, p.Between, p.Holding, p.Closest, p.Use)) for part in p.heads(program))


def _that(of, plural, voice):
    """What joins a relation to what is before it: nothing or "that is", "and" after another relation."""
    if isinstance(of, (p.Relate, p.Between)):
        return 'and '
    if isinstance(of, p.Holding) or voice.chance(0.2):
        return f'that {"are" if plural or is_paired(of) else "is"} '
    return ''


def is_paired(program):
    """Whether one of it is spoken of as several: scissors."""
    return list(p.heads(program))[-1] == p.Kind('scissors')


def _left_out(program, voice):
    """The exception: "red mug", or "red one", "smallest one" where the noun has just been said."""
    of, but, several = program.of, program.but, program.several
    again = getattr(but, 'of', None) == of and of != p.Kind('object') and not is_paired(of)
    if again and voice.chance(0.6):
        if isinstance(but, p.Color):
            return f'{but.color} one{"s" if several else ""}'
        if isinstance(but, p.Extreme):
            return voice.pick(EXTREMES[but.order]).format('one')
    return noun_phrase(but, several, voice)


def indefinite(phrase):
    """With "a" or "an" by sound: a mug, an orange mug, a pair of scissors."""
    words = phrase.split()
    if 'scissors' in words and not phrase.startswith('pair'):
        return f'a pair of {phrase}'
    return f'{"an" if words[0][0] in "aeiou" else "a"} {phrase}'


def definite(program, plural, voice):
    """With the article or quantifier that a speaker would use: "the red mug", "both mugs", "everything but it"."""
    if isinstance(program, p.Except) and program.of == p.Kind('object'):
        word = voice.pick(('everything', 'all objects', 'all the things'))
        return f'{word} {voice.pick(RELATIONS["but"])} the {_left_out(program, voice)}'
    if isinstance(program, p.Except):
        return _exception(program, plural, voice)
    if isinstance(program, p.Use):
        return _purpose(program, plural, voice)
    if isinstance(program, p.Exactly):
        inner = noun_phrase(program.of, True, voice)
        if program.count == 2:
            return f'{voice.pick(("both", "the two", "both of the", "|", "the pair of"))} {inner}'
        number = NUMBERS[program.count]
        return f'{voice.pick((f"all {number}", f"the {number}", f"all {number} of the"))} {inner}'
    if plural and not isinstance(program, p.Extreme):
        word = voice.pick(('all', 'all the', 'the', 'all of the', '|', 'the whole lot of'))
        return f'{word} {noun_phrase(program, True, voice)}'
    return f'the {noun_phrase(program, plural, voice)}'


def _exception(program, plural, voice):
    """ "All mugs but the red one", "every mug except the red one", "the mugs that are not red"."""
    of, but = program.of, program.but
    if isinstance(but, p.Color) and but.of == of and voice.chance(0.3):
        are = 'are' if plural or is_paired(of) else 'is'
        return f'the {noun_phrase(of, plural, voice)} that {are} not {but.color}'
    every = f'every {"pair of " if is_paired(of) else ""}{noun_phrase(of, False, voice)}'
    phrase = voice.pick((f'all {noun_phrase(of, True, voice)}', every)) if plural and not is_paired(of) else every
    return f'{phrase} {voice.pick(RELATIONS["but"])} the {_left_out(program, voice)}'


def _purpose(program, plural, voice):
    """ "Something to drink from", "all the things to drink from"."""
    words = ('everything', 'all the things', 'all objects') if plural else ('something', 'the thing', 'the object')
    word = voice.pick(words)
    return f'{word} {_serving(program.intent, plural and word != "everything", voice)}'


def _serving(intent, plural, voice):
    """The words for a purpose, its verb agreeing."""
    bend = {'s': '', 'is_': 'are'} if plural else {'s': 's', 'is_': 'is'}
    return voice.pick(INTENTS[intent].phrases).format(**bend)


VERBS = (
    'pick up', 'grab', 'take', 'get', 'fetch', 'find', 'grasp', 'bring me', 'hand me', 'pass me', 'give me', 'show me',
    'point at', 'locate', 'select', 'segment', 'highlight', 'mark', '|', 'lift', 'reach for', 'collect',
)  # fmt: skip
FRAMES = (
    '{Verb} {np}.', '{Verb} {np}.', 'Please {verb} {np}.', '{Verb} {np}, please.', 'Can you {verb} {np}?',
    'Could you {verb} {np}?', 'Could you please {verb} {np}?', 'Would you {verb} {np}, please?',
    'I want you to {verb} {np}.', 'Now {verb} {np}.', 'I need {np}.', 'I would like {np}, please.',
    'Where {is} {np}?', 'Can you see {np}?', '{Np}.',
    '|', 'Would you mind {getting} {np}?', 'I am looking for {np}.', 'Let me have {np}.',
    'Your task is to {verb} {np}.',
)  # fmt: skip


def sentence(phrase, many, voice):
    """A whole instruction about `phrase` (with its article), as people speak to a robot; `many`: its verb is plural."""
    frame, verb = voice.pick(FRAMES), voice.pick(VERBS)
    return tidy(
        frame.format(
            np=phrase,
            Np=phrase[0].upper() + phrase[1:],
            verb=verb,
            Verb=verb[0].upper() + verb[1:],
            getting=voice.pick(('getting', 'fetching', 'passing me')),
            **{'is': 'are' if many and not phrase.startswith('every') else 'is'},
        ),
        voice,
    )


def tidy(text, voice):
    """As typed or heard: now and then without the final mark or the capital."""
    if voice.chance(0.25):
        text = text.rstrip('.?')
    if voice.chance(0.25) and not text.startswith('I '):
        text = text[0].lower() + text[1:]
    return text


def question(intent, voice):
    """A whole sentence that asks for a purpose."""
    return tidy(voice.pick((*INTENTS[intent].asked, '|', *INTENTS[intent].unseen)), voice)


def canonical(program, count):
    """The answer phrase: the program in its canonical wording, for `count` objects."""
    return noun_phrase(program, count > 1, Voice())

"""Rules about the number of targets: the ground, the answer's grammatical number, and the slots of the model."""

from __future__ import annotations

from itertools import zip_longest

from instructsam.train.data_engine.filters.finding import Finding
from instructsam.train.data_engine.filters.text import word_set, words
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Question, Row

NUMBER_WORDS = ('one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
# Words before which the head of an English noun phrase ends: "mugs | left of the bowl", "man | holding a phone".
AFTER_HEAD = word_set(
    'of on in at to from with without that which who whose where left right next near nearest closest furthest '
    'farthest behind between under below above over beside by inside outside before after against along around across '
    'for except but than apart not beneath underneath beyond toward towards into onto off'
)
CONJUNCTIONS = frozenset({'and', 'or'})
# Words in -ing that are a noun or the first part of one, and not what a person does.
NOUNS_IN_ING = word_set(
    'ring earring string spring wing king railing ceiling painting drawing building clothing thing icing topping '
    'dressing stuffing pudding dumpling bedding awning bearing fitting covering lighting wrapping coating'
)
FIRST_PARTS_IN_ING = word_set(
    'cutting chopping mixing serving baking frying cooking measuring rolling carving drinking eating dining shopping '
    'sewing knitting washing cleaning ironing drying folding writing drawing painting reading packing sleeping '
    'swimming running hiking climbing walking rocking building parking filing'
)
DETERMINERS = frozenset({'the', 'a', 'an', 'all', 'both', *NUMBER_WORDS})
# Superlatives and places before a noun, which single out some of its objects.
ORDERS = word_set(
    'leftmost rightmost topmost bottommost uppermost lowest highest nearest closest farthest furthest largest biggest '
    'smallest tiniest tallest shortest longest widest narrowest first second third last middle central left right '
    'upper lower top bottom front rear back other remaining'
)
# Nouns with one form for one and several, and nouns of masses and collections.
EITHER_NUMBER = word_set(
    'scissors glasses sunglasses goggles binoculars headphones earphones tongs pliers tweezers trousers pants jeans '
    'shorts tights pyjamas pajamas stairs scales series species sheep fish deer fruit cutlery furniture food luggage '
    'equipment clothing tableware crockery silverware jewelry jewellery dishes produce bread grass hair people '
    'everything something anything pair set group bunch row stack pile lens gas canvas atlas'
)
COLLECTIONS = frozenset({'pair', 'pairs', 'set', 'sets', 'group', 'groups', 'bunch', 'bunches', 'row', 'rows'})
IRREGULAR_PLURALS = word_set('men women children feet teeth geese mice oxen cacti fungi dice policemen firemen')
SINGULAR_ENDINGS = ('ss', 'us', 'is')  # glass, cactus, iris
NUMBERS = {word: number for number, word in enumerate(NUMBER_WORDS, 1)}


def concept(answer: str) -> str:
    """Return the part of an answer that a concept prompt understands: adjectives and head noun.

    "two leftmost red mugs on the tray" -> "red mugs". Concept prompts know no places, orders and numbers.
    """
    found: list[str] = []
    said = words(answer)
    for word, following in zip_longest(said, said[1:], fillvalue=''):
        if word == 'of' and found and found[-1] in COLLECTIONS:  # "pairs of scissors" are scissors
            found.pop()
        elif found and (word in AFTER_HEAD or _is_participle(word, following)):
            break
        elif word not in DETERMINERS and (word not in ORDERS or found):
            found.append(word)
    return ' '.join(found)


def _is_participle(word: str, following: str) -> bool:
    """Return whether a word in -ing is a verb ("man holding a phone") and not part of a noun ("mixing bowl")."""
    is_first_part = word in FIRST_PARTS_IN_ING and _continues_noun(following)
    return word.endswith('ing') and word not in NOUNS_IN_ING and not is_first_part


def _continues_noun(word: str) -> bool:
    return bool(word) and word not in AFTER_HEAD and word not in DETERMINERS and word not in CONJUNCTIONS


def head(answer: str) -> str:
    """Return the head noun of an answer, its last word before what follows the noun; '' if there is none."""
    return concept(answer).rpartition(' ')[2]


def is_concept(answer: str) -> bool:
    """Return whether an answer restricts its concept by nothing but a number: "two red mugs"."""
    said = [word for word in words(answer) if word not in DETERMINERS and word not in (*COLLECTIONS, 'of')]
    return concept(answer) == ' '.join(said)


def number(answer: str) -> str:
    """Return 'one' or 'several' as the answer's head noun tells, or '' if it does not tell: "bunch of bananas"."""
    noun, said = head(answer), words(answer)
    if not noun or noun in EITHER_NUMBER or len(noun) < 3 or COLLECTIONS & set(said[: said.index(noun)]):
        return ''
    after = said[said.index(noun) + 1 :]
    # "man holding bags" and "bike racing gloves" have the same form, and "cup and saucer" are two.
    is_unsure = len(after) > 1 and after[0].endswith('ing') and _continues_noun(after[1])
    if is_unsure or CONJUNCTIONS & set(concept(answer).split()):
        return ''
    is_plural = noun in IRREGULAR_PLURALS or (noun.endswith('s') and not noun.endswith(SINGULAR_ENDINGS))
    return 'several' if is_plural else 'one'


def nothing(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question whose target is said to be there, and for which no object was given."""
    return Finding('present, without an object') if question.is_present and not question.object_ids else None


def absent_with_objects(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a hard negative for which objects were given, or whose ground states some."""
    if question.is_present:
        return None
    stated = question.ground.count or 0
    if question.object_ids or stated:
        return Finding(f'absent, with {len(question.object_ids)} objects and a count of {stated}')
    return None


def unknown_object(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question with an object that the row does not have."""
    missing = sorted(set(question.object_ids) - {each.id for each in row.objects})
    return Finding('no such object', object_id=missing[0]) if missing else None


def one_with_several(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question for a single target with several objects."""
    found = len(question.object_ids)
    return Finding('objects', value=found, limit=1) if question.ground.quantifier == 'one' and found > 1 else None


def several_with_one(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question for some targets, which are several, with a single object."""
    found = len(question.object_ids)
    return Finding('objects', value=found, limit=2) if question.ground.quantifier == 'some' and found == 1 else None


def other_than_stated(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question whose ground states another number than that of its objects."""
    stated, found = question.ground.count, len(question.object_ids)
    if question.is_present and stated is not None and stated != found:
        return Finding('objects', value=found, limit=stated)
    return None


def too_many(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question with more targets than the model has slots."""
    found = len(question.object_ids)
    return Finding('objects', value=found, limit=limits.targets) if found > limits.targets else None


def plural(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer whose noun is plural with one object, or singular with several."""
    found, told = len(question.object_ids), number(question.answer)
    if question.is_present and ((told == 'several' and found == 1) or (told == 'one' and found > 1)):
        return Finding(f'the noun "{head(question.answer)}"', value=found)
    return None


def other_than_worded(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer that begins with a number word other than the number of objects."""
    first, found = (words(question.answer) or [''])[0], len(question.object_ids)
    if question.is_present and first in NUMBERS and first != 'one' and NUMBERS[first] != found:
        return Finding(f'the word "{first}"', value=found, limit=NUMBERS[first])
    return None

"""Rules about the words of questions and answers. They know English only."""

from __future__ import annotations

import re

from instructsam.core.text import shorten
from instructsam.train.data_engine.filters.finding import Finding
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Question, Row

LETTERS_PER_TOKEN = 6  # longer words count as several tokens; an estimate, as a row knows no tokenizer


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


YES_OR_NO = frozenset({'yes', 'no', 'none', 'nothing', 'true', 'false', 'unknown', 'n/a', 'maybe'})
PRONOUNS = word_set(
    'it they them this that these those he she him her his hers one ones both all each any some someone something '
    'everything everyone everybody anything there here i you we us'
)
FINITE_VERBS = word_set("is are was were am has have isn't aren't it's there's they're")
RELATIVES = word_set('that which who whose where what')  # a finite verb may follow them in a phrase
# [12, 30], (0.1, 0.2, 0.5, 0.9), x=12, "bbox", "mask 3", "id 7", "object #2", "o3"
GIVEN_AWAY = re.compile(
    r'[\[(<]\s*-?\d+(?:\.\d+)?\s*(?:[,;]\s*-?\d+(?:\.\d+)?\s*)+[\])>]'
    r'|\b[xy]\d?\s*[=:]\s*\d|\bbbox(?:es)?\b|\bbounding box(?:es)?\b|\bcoordinates?\b'
    r'|\b(?:mask|id|object|instance|box|region|segment)\s*(?:no\.?\s*|number\s*)?#?\d|\bobject_id\b|\bo\d+\b',
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation around them."""
    return [word for word in (each.strip('.,;:!?"\'()[]') for each in text.lower().split()) if word]


def tokens(text: str) -> int:
    """Estimate the number of tokens of a text: its words in pieces of six letters, and its punctuation."""
    pieces = re.findall(r'\w+|[^\w\s]', text)
    return sum(-(-len(piece) // LETTERS_PER_TOKEN) for piece in pieces)


def sentence(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer that is a sentence: it ends like one, or has a finite verb outside a relative clause."""
    text, parts = question.answer.strip(), words(question.answer)
    if text.endswith(('.', '!', '?', ':')) or '\n' in text:
        return Finding(f'the answer {shorten(text)} ends like a sentence')
    for index, word in enumerate(parts):
        if word in FINITE_VERBS and not RELATIVES & set(parts[1:index]):
            return Finding(f'the answer {shorten(text)} has the verb "{word}"')
    return None


def no_noun(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer that names nothing: empty, yes or no, a number, or a pronoun."""
    parts = [word for word in words(question.answer) if word not in ('the', 'a', 'an')]
    is_empty = not any(any(letter.isalpha() for letter in word) for word in parts)
    if is_empty or (parts[0] in YES_OR_NO and len(parts) == 1) or all(word in PRONOUNS for word in parts):
        return Finding(f'the answer {shorten(question.answer)!r} names nothing')
    return None


def too_long(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject an answer that the model would cut off."""
    count = tokens(question.answer)
    return (
        Finding('tokens, estimated', value=count, limit=limits.answer_tokens) if count > limits.answer_tokens else None
    )


def repeated(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question that an earlier question of the row asks in the same words."""
    asked = words(question.text)
    for other in row.questions:
        if other.id == question.id:
            return None
        if words(other.text) == asked:
            return Finding(f'the same words as {other.id}')
    return None


def given_away(row: Row, question: Question, limits: Thresholds) -> Finding | None:
    """Reject a question or answer that tells coordinates or ids instead of describing the targets."""
    for text in (question.text, question.answer):
        found = GIVEN_AWAY.search(text)
        if found:
            return Finding(f'tells {shorten(found.group())!r}')
    return None

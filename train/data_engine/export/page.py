"""The page of samples for people: counts, the table of rejections by rule, and pictures with their questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from instructsam.core.display.jpeg import jpeg_url, shrink_to
from instructsam.core.errors import InstructSAMError
from instructsam.train.data_engine.export.samples import Exported
from instructsam.train.data_engine.images.files import ImageFiles
from instructsam.train.data_engine.rows import Question, Rejection, Row
from instructsam.train.vlm.marks import draw_marks

TEMPLATE = Path(__file__).with_name('page.html.jinja')
SIDE = 480  # longer side of a picture on the page, px
JPEG_QUALITY = 80
REJECTED_SHOWN = 3  # examples of each rule


@dataclass
class Counts:
    """Counts over all rows."""

    images: int = 0
    questions: int = 0
    rejections: Counter[str] = field(default_factory=Counter)  # by stage and rule
    rejected_images: int = 0
    rejected_questions: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.images += 1
        self.questions += len(row.questions)
        self.rejected_images += row.is_rejected
        self.rejected_questions += len(row.rejected_ids() & {each.id for each in row.questions})
        self.rejections.update(f'{each.stage}: {each.rule}' for each in row.rejections)

    def rules(self) -> list[tuple[str, int]]:
        """Return the rules with their counts, the most frequent first."""
        return sorted(self.rejections.items(), key=lambda item: (-item[1], item[0]))


def summary(counts: Counts, images: Iterable[Exported], *, negatives: bool) -> dict[str, Any]:
    """Return the figures of an export, ready for JSON: counts by source, licence, kind and number of targets."""
    by: dict[str, Counter[str]] = {
        name: Counter()
        for name in ('images_by_split', 'images_by_source', 'images_by_licence', 'by_kind', 'by_targets')
    }
    total = 0
    for each in images:
        by['images_by_split'][each.split] += 1
        by['images_by_source'][each.image.source] += 1
        by['images_by_licence'][each.image.licence or 'none given'] += 1
        for answer in each.answered:
            total += 1
            by['by_kind'][answer.question.kind or 'none given'] += 1
            by['by_targets'][str(len(answer.masks))] += 1
    return {
        'images': counts.images,
        'images_rejected': counts.rejected_images,
        'questions': counts.questions,
        'questions_rejected': counts.rejected_questions,
        'questions_exported': total,
        'negatives_are_trained': negatives,
        **{name: dict(sorted(counter.items())) for name, counter in by.items()},
        'rejections_by_rule': dict(counts.rules()),
    }


@dataclass(frozen=True)
class Card:
    """One picture on the page: an image as a data URL, and lines of text."""

    picture: str
    lines: tuple[tuple[str, str], ...]  # question, answer or reason


def cards_of(rows: Sequence[Row], files: ImageFiles) -> list[Card]:
    """Return one card per row that has a question left: its first one, drawn with numbered masks."""
    cards = []
    for row in rows:
        kept = row.kept_questions()
        if kept:
            cards.append(Card(_picture(row, kept[0], files), tuple((each.text, each.answer) for each in kept)))
    return cards


def rejected_card(row: Row, rejection: Rejection, files: ImageFiles) -> Card:
    """Return a card about a rejection."""
    question = next((each for each in row.questions if each.id == rejection.question_id), None)
    numbers = [
        f'{name} {number:g}'
        for name, number in (('measured', rejection.value), ('limit', rejection.limit))
        if number is not None
    ]
    reason = '; '.join(filter(None, (', '.join(numbers), rejection.detail)))
    text = f'{question.text} \N{RIGHTWARDS ARROW} {question.answer}' if question is not None else 'the whole image'
    return Card(_picture(row, question, files), ((text, reason),))


def _picture(row: Row, question: Question | None, files: ImageFiles) -> str:
    """Return a picture with the masks of a question as a data URL; empty if there is no picture."""
    if row.image is None or not row.image.path:
        return ''
    try:
        image = files.read(row.image)
    except InstructSAMError:
        return ''  # Frames of rejected images are not kept; the card says why.
    objects = row.objects_of(question) if question is not None else ()
    masks = [each.mask.rle for each in objects if each.mask is not None and each.mask.counts]
    if masks:
        image = draw_marks(image, masks)
    return jpeg_url(shrink_to(image, SIDE), JPEG_QUALITY)


def render(figures: dict[str, Any], kept: Sequence[Card], rejected: dict[str, list[Card]]) -> str:
    """Return the page as one HTML text; the template escapes everything that came from data."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding='utf-8'))
    return template.render(figures=figures, kept=kept, rejected=rejected)

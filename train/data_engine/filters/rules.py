"""The rules by name, their application to a row, and the table of rejections by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from instructsam.train.data_engine.filters import boxes, counts, masks, opinions, text
from instructsam.train.data_engine.filters.finding import Rule
from instructsam.train.data_engine.filters.thresholds import Thresholds
from instructsam.train.data_engine.rows import Rejection, Row

STAGE = 'filter'
ROW_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        'text.sentence': text.sentence,
        'text.no_noun': text.no_noun,
        'text.too_long': text.too_long,
        'text.repeated': text.repeated,
        'text.given_away': text.given_away,
        'counts.nothing': counts.nothing,
        'counts.absent_with_objects': counts.absent_with_objects,
        'counts.unknown_object': counts.unknown_object,
        'counts.one_with_several': counts.one_with_several,
        'counts.several_with_one': counts.several_with_one,
        'counts.other_than_stated': counts.other_than_stated,
        'counts.other_than_worded': counts.other_than_worded,
        'counts.too_many': counts.too_many,
        'counts.plural': counts.plural,
        'boxes.outside': boxes.outside,
        'boxes.too_thin': boxes.too_thin,
        'boxes.too_small': boxes.too_small,
        'boxes.too_large': boxes.too_large,
        'boxes.twice': boxes.twice,
        'masks.missing': masks.missing,
        'masks.doubted': masks.doubted,
        'masks.unstable': masks.unstable,
        'masks.no_object': masks.no_object,
        'masks.off_box': masks.off_box,
        'masks.outside_box': masks.outside_box,
        'masks.in_pieces': masks.in_pieces,
        'masks.overlapping': masks.overlapping,
    }
)
"""Rules that need nothing but the row."""
OPINION_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        'opinions.elsewhere': opinions.elsewhere,
        'opinions.uncovered': opinions.uncovered,
        'opinions.as_many': opinions.as_many,
        'opinions.round_trip': opinions.round_trip,
        'opinions.not_all': opinions.not_all,
    }
)
"""Rules that need evidence of other models, which costs calls: they come last, for the questions that are left."""
RULES: Mapping[str, Rule] = MappingProxyType({**ROW_RULES, **OPINION_RULES})
"""All rules."""


def judge(row: Row, limits: Thresholds, rules: Mapping[str, Rule] = RULES) -> Row:
    """Return the row with a rejection for each question and each rule that it breaks.

    Every rule sees every question that no earlier stage and no earlier call rejected, so that the numbers of the rules
    do not depend on their order.

    Args:
        row: A row that has been through stage masks.
        limits: The thresholds.
        rules: The rules to apply, by name.
    """
    found = [
        Rejection(STAGE, name, question.id, finding.object_id, finding.value, finding.limit, finding.detail)
        for question in row.kept_questions()
        for name, rule in rules.items()
        if (finding := rule(row, question, limits)) is not None
    ]
    return row.with_rejections(found)


def merge_same(row: Row, limits: Thresholds) -> Row:
    """Return the row with the questions' ids of one thing replaced by the first of them; the objects stay in the row.

    See `duplicates`.
    """
    first = duplicates(row, limits)
    if not first:
        return row
    questions = tuple(
        replace(each, object_ids=tuple(dict.fromkeys(first.get(name, name) for name in each.object_ids)))
        for each in row.questions
    )
    return replace(row, questions=questions)


def duplicates(row: Row, limits: Thresholds) -> dict[str, str]:
    """Return the ids of the objects that are one thing with an earlier one, with the id of that one.

    Two objects are one thing if both have masks whose IoU exceeds that of duplicates.
    """
    masked = [(each.id, each.mask.rle) for each in row.objects if each.mask is not None and each.mask.counts]
    first: dict[str, str] = {}
    for index, (name, mask) in enumerate(masked):
        earlier = [other for other, _ in masked[:index] if other not in first]
        overlaps = mask.iou([other for key, other in masked[:index] if key not in first])
        if len(earlier) and overlaps.max() > limits.duplicate_iou:
            first[name] = earlier[int(overlaps.argmax())]
    return first


def rejections_by_rule(rows: Iterable[Row]) -> dict[str, int]:
    """Return the number of rejections by stage and rule, `stage: rule`, the most frequent first."""
    found = Counter(f'{each.stage}: {each.rule}' for row in rows for each in row.rejections)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

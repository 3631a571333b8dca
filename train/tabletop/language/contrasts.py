"""Pairs of programs that differ in one word, so that a model has to learn what relations and orders mean."""

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.program import Program
from instructsam.train.tabletop.language.relations import PAIRWISE
from instructsam.train.tabletop.language.sampler import ORDERS, InstructionSampler

OPPOSITES = {
    one: other
    for pair in (
        ('left', 'right'),
        ('front', 'behind'),
        ('leftmost', 'rightmost'),
        ('nearest', 'farthest'),
        ('largest', 'smallest'),
    )
    for one, other in (pair, pair[::-1])
}
"""The relations and orders that exclude one another."""

CONTRASTS = {'relation': 0.4, 'distance': 0.08, 'anchor': 0.12, 'superlative': 0.28, 'attribute': 0.12}
"""Shares of the pairs by the word that differs."""


class ContrastSampler(InstructionSampler):
    """An InstructionSampler that draws pairs, too."""

    def contrast(self, kind: str) -> tuple[Program, Program] | None:
        """Draw two programs that differ in one word, or return None if the scene does not allow it.

        Args:
            kind: The word that differs, one of CONTRASTS.
        """
        if kind == 'superlative':
            base, order = self._base(0.95, plain=0.8), self._choose(ORDERS)
            return p.Extreme(base, order), p.Extreme(base, OPPOSITES[order])
        if kind == 'attribute':
            wrong = self._wrong_color()
            if not isinstance(wrong, p.Color) or not isinstance(wrong.of, p.Noun):
                return None
            return p.Color(wrong.of, self._color_of(wrong.of.noun)), wrong
        noun = self._noun(0.5)
        base = p.Noun(noun) if self._chance(0.75) else p.Color(p.Noun(noun), self._color_of(noun))
        anchor, other = self._anchor(noun), self._anchor(noun)
        if anchor is None or other is None:
            return None
        if kind == 'distance':
            return p.Closest(base, anchor), p.Closest(base, anchor, farthest=True)
        relation = self._choose([each for each in PAIRWISE if kind == 'anchor' or each in OPPOSITES])
        changed = (relation, other) if kind == 'anchor' else (OPPOSITES[relation], anchor)
        return p.Relate(base, relation, anchor), p.Relate(base, *changed)

"""Order, positions and attention of the tokens around a query block, in every mode."""

import pytest

from instructsam.core.model.config import Tokens
from instructsam.core.model.token_layout import TokenLayout

TOKENS = Tokens(phrase_start=10, phrase_end=11, query=12, mask_start=13, mask_end=14, image=15)
# The matrix in the module's docstring: x in every mode, h in consistent and reference, r in reference only.
ATTENTION = """
    x......
    xx.....
    xxx....
    xxxxhr.
    xxxxxr.
    xxxxxx.
    xxxxxxx
"""
MARKS = {'consistent': 'xh', 'reference': 'xhr', 'causal': 'x'}


def one_block(mode: str) -> TokenLayout:
    """Return a layout of one text token, a block of two queries and another text token."""
    layout = TokenLayout(TOKENS, 2, mode)
    layout.add_text([1])
    assert layout.add_query_block() == slice(3, 5)
    layout.add_text([2])
    return layout


@pytest.mark.parametrize('mode', MARKS)
def test_attention_is_that_of_the_matrix(mode):
    expected = [[mark in MARKS[mode] for mark in row] for row in ATTENTION.split()]
    layout = one_block(mode)
    assert layout.attention_mask().tolist() == expected
    assert layout.attention_mask(start=4).tolist() == expected[4:]


@pytest.mark.parametrize('mode', MARKS)
def test_ids_and_positions(mode):
    layout = one_block(mode)
    assert layout.ids == [1, 11, 13, 12, 12, 14, 2]
    late = mode == 'reference'  # the block starts one position late, the next token is at its index again
    block = range(1 + late, 6 + late)
    assert layout.position_ids()[0].tolist() == [0, *block, 6]
    assert (layout.position_ids() == layout.position_ids()[:1]).all()


def test_an_image_is_a_grid_with_m_rope_and_a_row_of_indices_in_reference_mode():
    for mode, expected in (
        ('consistent', [[0, 1, 1, 1, 1, 3], [0, 1, 1, 2, 2, 3], [0, 1, 2, 1, 2, 3]]),
        ('reference', [[0, 1, 2, 3, 4, 5]] * 3),
    ):
        layout = TokenLayout(TOKENS, 2, mode)
        layout.add_text([1])
        layout.add_image(2, 2)
        layout.add_text([2])
        assert layout.ids == [1, 15, 15, 15, 15, 2]
        assert layout.position_ids().tolist() == expected


def test_queries_see_earlier_blocks_but_not_later_ones():
    layout = TokenLayout(TOKENS, 2, 'consistent')
    first, second = layout.add_query_block(), layout.add_query_block()
    mask = layout.attention_mask()
    assert mask[first, first].all()
    assert mask[second, first].all()
    assert not mask[first, second].any()
    assert not mask[first, first.stop].any()  # <|mask_end|>

"""Draws the attention matrices of a short sequence in every mode: docs/attention.png.

    python scripts/draw_attention.py [OUT.png]

The sequence is laid out and masked by `instructsam.core.model.token_layout`, as in the model: four image tokens, an
instruction, and an answer with two phrases, each followed by a block of K = 3 queries. Needs the extra docs.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from instructsam.core.model.config import Tokens
from instructsam.core.model.token_layout import TokenLayout
from instructsam.core.modes import MODES

OUT = Path(__file__).parents[1] / 'docs' / 'attention.png'
TOKENS = Tokens(phrase_start=0, phrase_end=1, query=2, mask_start=3, mask_end=4, image=5)
LABELS = {0: 'ref_start', 1: 'ref_end', 2: 'query', 3: 'mask_start', 4: 'mask_end', 5: 'image'}
WORDS = ('mugs', 'and', 'spoon', 'red', 'mug')
NUM_QUERIES = 3  # K
COLORS = ['white', '#9db4c9', '#e08a3c']  # masked, causal, bidirectional
TITLES = {
    'consistent': 'consistent: as trained',
    'reference': "reference: as the authors' inference",
    'causal': 'causal: for ablation',
}


def example(mode):
    """Return the TokenLayout of an image, the instruction "mugs and spoon" and an answer with two phrases."""

    def words(text):
        return [len(LABELS) + WORDS.index(word) for word in text.split()]

    layout = TokenLayout(TOKENS, NUM_QUERIES, mode)
    layout.add_image(2, 2)
    layout.add_text(words('mugs and spoon'))
    layout.add_text([TOKENS.phrase_start, *words('red mug')])
    layout.add_query_block()
    layout.add_text([*words('and'), TOKENS.phrase_start, *words('spoon')])
    layout.add_query_block()
    return layout


def draw_mode(axes, mode, has_row_labels):
    """Draw the attention matrix of the example; rows attend to columns."""
    layout = example(mode)
    mask = layout.attention_mask().numpy()
    is_future = [[column > row for column in range(len(layout))] for row in range(len(layout))]
    axes.imshow(mask * (1 + mask * is_future), cmap=ListedColormap(COLORS), vmin=0, vmax=2)
    labels = [(*LABELS.values(), *WORDS)[token] for token in layout.ids]
    axes.set_xticks(range(len(layout)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(layout)), labels if has_row_labels else [''] * len(layout), fontsize=7)
    axes.set_xticks([edge - 0.5 for edge in range(len(layout) + 1)], minor=True)
    axes.set_yticks([edge - 0.5 for edge in range(len(layout) + 1)], minor=True)
    axes.grid(which='minor', color='#dddddd', linewidth=0.6)
    axes.tick_params(which='both', length=0)
    axes.set_title(TITLES[mode], fontsize=10)


def main():
    """Draw all modes side by side and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', nargs='?', type=Path, default=OUT)
    args = parser.parse_args()

    figure, panels = plt.subplots(1, len(MODES), figsize=(14, 5.9), dpi=100, layout='constrained')
    for axes, mode in zip(panels, MODES, strict=True):
        draw_mode(axes, mode, has_row_labels=axes is panels[0])
    panels[0].set_ylabel('row attends to column', fontsize=9)
    names = ('causal: what precedes the row', 'bidirectional: the rest of the query block')
    figure.legend(
        handles=[Patch(facecolor=color, label=name) for color, name in zip(COLORS[1:], names, strict=True)],
        loc='outside lower center',
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    figure.savefig(args.out, bbox_inches='tight')
    print(args.out)


if __name__ == '__main__':
    main()

"""Which scenes and instructions belong to which split, and what the split `unseen` keeps to itself."""

import numpy as np

SPLITS = ('train', 'val', 'test', 'unseen')

# Colours that these categories take only in the split `unseen`; each colour and each category is met in training.
HELD_OUT_PAIRS = frozenset(
    {
        ('mug', 'green'), ('bowl', 'red'), ('plate', 'yellow'), ('can', 'blue'), ('box', 'orange'), ('book', 'white'),
        ('ball', 'pink'), ('teapot', 'blue'), ('vase', 'purple'), ('bottle', 'red'), ('napkin', 'green'),
        ('sponge', 'blue'), ('knife', 'yellow'), ('tray', 'red'), ('scissors', 'purple'), ('spoon', 'white'),
    }
)  # fmt: skip


def generator(split, seed, index, stream):
    """The random numbers of one purpose (`stream`) in one scene: independent of every other scene, seed and split."""
    if split not in SPLITS:
        raise ValueError(f'split {split!r} is not one of {", ".join(SPLITS)}')
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index count from 0, got {seed} and {index}')
    return np.random.default_rng((SPLITS.index(split), seed, index, *stream.encode()))


def colors_allowed(category, colors, split):
    """Those of `colors` that objects of `category` may have in `split`."""
    return [color for color in colors if split == 'unseen' or (category, color) not in HELD_OUT_PAIRS]


# Operators that meet in one instruction only in the split `unseen`, though each is met in training.
HELD_OUT_COMBINATIONS = tuple(
    frozenset(pair)
    for pair in (
        ('behind', 'Size'), ('leftmost', 'on'), ('rightmost', 'several'), ('left', 'behind'), ('right', 'near'),
        ('Except', 'in'), ('Use', 'Color'), ('front', 'Material'), ('nearest', 'Empty'),
    )
)  # fmt: skip

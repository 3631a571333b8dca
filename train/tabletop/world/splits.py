"""Dataset splits: random generators of each split, and the combinations reserved for the split `unseen`."""

from collections.abc import Iterable

import numpy as np

SPLITS = ('train', 'val', 'test', 'unseen')

# Colours that these categories take only in the split `unseen`; each colour and each category occurs in training.
HELD_OUT_PAIRS = frozenset(
    {
        ('mug', 'green'), ('bowl', 'red'), ('plate', 'yellow'), ('can', 'blue'), ('box', 'orange'), ('book', 'white'),
        ('ball', 'pink'), ('teapot', 'blue'), ('vase', 'purple'), ('bottle', 'red'), ('napkin', 'green'),
        ('sponge', 'blue'), ('knife', 'yellow'), ('tray', 'red'), ('scissors', 'purple'), ('spoon', 'white'),
    }
)  # fmt: skip

# Operators that occur together in one instruction only in the split `unseen`, though each occurs in training. The names
# are those of `instructions.operators`.
HELD_OUT_COMBINATIONS = tuple(
    frozenset(pair)
    for pair in (
        ('behind', 'Size'), ('leftmost', 'on'), ('rightmost', 'several'), ('left', 'behind'), ('right', 'near'),
        ('Except', 'in'), ('Use', 'Color'), ('front', 'Material'), ('nearest', 'Empty'),
    )
)  # fmt: skip


def generator(split: str, seed: int, index: int, stream: str) -> np.random.Generator:
    """Return the random generator for one purpose in one scene.

    It is independent of the generators of every other scene, seed, split and stream.

    Args:
        split: One of `SPLITS`.
        seed: Seed of the dataset, from 0.
        index: Number of the scene under the seed, from 0.
        stream: Name of the purpose, such as 'layout' or 'words'.

    Raises:
        ValueError: The split is unknown, or the seed or the index is negative.
    """
    if split not in SPLITS:
        raise ValueError(f'split {split!r} is not one of {", ".join(SPLITS)}')
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index count from 0, got {seed} and {index}')
    return np.random.default_rng((SPLITS.index(split), seed, index, *stream.encode()))


def allowed_colors(category: str, colors: Iterable[str], split: str) -> list[str]:
    """Return those of `colors` that objects of `category` may have in `split`."""
    return [color for color in colors if split == 'unseen' or (category, color) not in HELD_OUT_PAIRS]

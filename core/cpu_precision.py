"""The faster precision on this CPU: bfloat16 where it has instructions for it, and a short trial shows a gain."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from instructsam.core.cpu_info import bfloat16_units

logger = logging.getLogger(__name__)

LARGE = 500_000_000  # parameters from which bfloat16 is tried: small models spend their time on other operations
ROWS = 64  # of the product that stands for images and prompts
ROUNDS = 2  # after one that warms up
LIMIT_S = 0.2  # after which no further round begins
GAIN = 1.3  # of many rows, from which the loss of precision is worth it

TimeProduct = Callable[[torch.dtype, int], float]
"""Returns the seconds that a product of a number of rows takes in a precision."""


class ModelSize(NamedTuple):
    """The sizes of a model on which its precision depends."""

    parameters: int
    width: int  # of the language model
    inner: int  # of the layers in its MLPs


def cpu_precision(
    size: ModelSize, units: Sequence[str] | None = None, time_product: TimeProduct | None = None
) -> torch.dtype:
    """Return bfloat16 if it makes a model faster on this CPU, else float32.

    Args:
        size: Sizes of the model.
        units: The CPU's instructions for bfloat16; None: those that it has.
        time_product: Measures products; None: with torch.
    """
    units = bfloat16_units() if units is None else units
    if size.parameters < LARGE or not units:
        return torch.float32
    gain = _gain(time_product or _products(size))
    chosen = torch.bfloat16 if gain >= GAIN else torch.float32
    logger.info(
        'dtype auto: %s. On this CPU (bfloat16 by %s), bfloat16 makes matrix products %.1f times as fast as float32',
        str(chosen).removeprefix('torch.'),
        ', '.join(units),
        gain,
    )
    return chosen


def _gain(time_product: TimeProduct) -> float:
    """Return how many times as fast bfloat16 is as float32, for many rows.

    Single rows, which decoded tokens are, are a twentieth of an answer's time, and too short to be timed on busy cores.
    """
    best: dict[torch.dtype, float] = {}
    start = time.perf_counter()
    for number in range(1 + ROUNDS):
        for dtype in (torch.float32, torch.bfloat16):
            taken = time_product(dtype, ROWS)
            best[dtype] = min(taken, best.get(dtype, taken))
        if number and time.perf_counter() - start > LIMIT_S:
            break
    return best[torch.float32] / best[torch.bfloat16]


def _products(size: ModelSize) -> TimeProduct:
    weights = {dtype: torch.ones(size.inner, size.width, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}

    def time_product(dtype: torch.dtype, rows: int) -> float:
        values = torch.ones(rows, size.width, dtype=dtype)
        start = time.perf_counter()
        with torch.inference_mode():
            F.linear(values, weights[dtype])
        return time.perf_counter() - start

    return time_product

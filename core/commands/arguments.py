"""argparse types for command-line arguments. A bad value ends in argparse's one-line error."""

from __future__ import annotations

import argparse
import math
from typing import TypeVar

from instructsam.core.modes import MAX_MEGAPIXELS_RANGE

Number = TypeVar('Number', int, float)


def text(value: str) -> str:
    """Accept valid UTF-8 only: Python represents other bytes of the command line by lone surrogates."""
    try:
        value.encode('utf-8')
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f'not valid UTF-8: {value!a}') from None
    return value


def probability(value: str) -> float:
    """Convert to a number from 0 to 1."""
    number = _number(float, value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, got {value}')
    return number


def seconds(value: str) -> float:
    """Convert to a finite time above 0 s."""
    number = _number(float, value)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'expected seconds, more than 0, got {value}')
    return number


def megapixels(value: str) -> float:
    """Convert to a limit of the size of an image."""
    number = _number(float, value)
    low, high = MAX_MEGAPIXELS_RANGE
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f'expected megapixels from {low:g} to {high:g}, got {value}')
    return number


def count(value: str) -> int:
    """Convert to a whole number of at least 1."""
    number = _number(int, value)
    if number < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, got {value}')
    return number


def _number(convert: type[Number], value: str) -> Number:
    try:
        return convert(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a number, got {value!a}') from None

"""What command-line arguments must look like; a bad one ends in argparse's one-line error."""

import argparse
import math


def text(value):
    """Valid UTF-8: Python hides other bytes of the command line in lone surrogates."""
    try:
        value.encode('utf-8')
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f'not valid UTF-8: {value!a}') from None
    return value


def probability(value):
    """A number from 0 to 1."""
    number = _number(float, value)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, got {value}')
    return number


def seconds(value):
    """A finite time above 0."""
    number = _number(float, value)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'expected seconds, more than 0, got {value}')
    return number


def count(value):
    """A whole number from 1."""
    number = _number(int, value)
    if number < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number from 1, got {value}')
    return number


def _number(kind, value):
    try:
        return kind(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a number, got {value!a}') from None

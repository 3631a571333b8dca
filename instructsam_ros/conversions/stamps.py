"""Header stamps as numbers, the stamp that means "not set", and the longest duration."""

from builtin_interfaces.msg import Time

LONGEST_S = 366 * 86400.0
"""Longest time limit of a goal, a year: rcl's timers count nanoseconds in 63 bits."""


def nanoseconds(stamp: Time) -> int:
    """Return a stamp as one number."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def is_set(stamp: Time) -> bool:
    """Return whether a stamp is a time. A stamp of zero is that of a publisher that does not set it."""
    return nanoseconds(stamp) != 0

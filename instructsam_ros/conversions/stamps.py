"""Header stamps as numbers, and the stamp that means "not set"."""

from builtin_interfaces.msg import Time


def nanoseconds(stamp: Time) -> int:
    """Return a stamp as one number."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def is_set(stamp: Time) -> bool:
    """Return whether a stamp is a time. A stamp of zero is that of a publisher that does not set it."""
    return nanoseconds(stamp) != 0

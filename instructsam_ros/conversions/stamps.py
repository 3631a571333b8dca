"""Header stamps as numbers, the stamp that means "not set", and the longest duration."""

import struct

from builtin_interfaces.msg import Time

LONGEST_S = 366 * 86400.0
"""Longest time limit of a goal, a year: rcl's timers count nanoseconds in 63 bits."""


def nanoseconds(stamp: Time) -> int:
    """Return a stamp as one number."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def is_set(stamp: Time) -> bool:
    """Return whether a stamp is a time. A stamp of zero is that of a publisher that does not set it."""
    return nanoseconds(stamp) != 0


def serialized_stamp_ns(data: bytes) -> int | None:
    """Return the stamp, ns, of a serialized message that begins with a header; None if it is too short for that."""
    if len(data) < 12:
        return None
    is_little_endian = data[1] & 1  # CDR encapsulation
    sec, nanosec = struct.unpack_from('<iI' if is_little_endian else '>iI', data, 4)
    return sec * 1_000_000_000 + nanosec

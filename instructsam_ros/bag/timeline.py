"""The instructions of a bag: one for the whole bag, a timeline from a YAML file, or those that were recorded."""

import bisect
import math
import sys
from collections.abc import Iterable
from pathlib import Path

from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from instructsam.core.errors import InstructionError, InstructSAMError
from instructsam.core.files.yaml_file import read_yaml
from instructsam.core.model.prompt import check_instruction
from instructsam.core.text import shorten
from instructsam_ros.bag.names import TIMELINE_EXAMPLE
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.pipeline.instruction import Instruction

LARGEST_BYTES = 16 << 20
"""Longest file of instructions."""


class InstructionTimeline:
    """The instruction in force at each time of a bag, numbered as the node numbers them.

    Args:
        changes: (bag time in ns, text) in order; '' stops. A repetition of the text in force changes nothing.
    """

    def __init__(self, changes: Iterable[tuple[int, str]]) -> None:
        self.changes = list(changes)
        self._times_ns: list[int] = []
        self._instructions: list[Instruction | None] = []
        current, count = None, 0
        for time_ns, text in self.changes:
            if current is not None and text == current.text:
                continue
            count += bool(text)
            current = Instruction(text, count) if text else None
            self._times_ns.append(time_ns)
            self._instructions.append(current)

    def at(self, time_ns: int) -> Instruction | None:
        """Return the instruction in force at a bag time; None before the first one and after a stop."""
        index = bisect.bisect_right(self._times_ns, time_ns) - 1
        return self._instructions[index] if index >= 0 else None


def constant_timeline(bag: BagFile, text: str) -> InstructionTimeline:
    """Return the timeline of one instruction for the whole bag; raise InstructionError if it cannot be used."""
    check_instruction(text)
    return InstructionTimeline([(bag.start_ns, text)])


def timeline_from_file(bag: BagFile, path: str | Path) -> InstructionTimeline:
    """Read a timeline from a YAML list of {at: seconds since the bag's first message, instruction: text}.

    Raises:
        YamlError: the file cannot be read, or is not YAML.
        InstructSAMError: an entry cannot be used; the message names the entry.
    """
    entries = read_yaml(path, LARGEST_BYTES)
    if not isinstance(entries, list) or not entries:
        raise InstructSAMError(f'{path} is not a timeline: expected a list such as {TIMELINE_EXAMPLE}')
    changes, previous_s = [], -math.inf
    for number, entry in enumerate(entries, 1):
        try:
            at_s, text = _parse_entry(entry)
            if at_s <= previous_s:
                raise ValueError(f'it is at {at_s:g} s, not after the previous one; sort them')
            if at_s - bag.duration_s >= 1e-9:  # the last image may be at the very end, and the only one is
                raise ValueError(f'it is at {at_s:g} s, and the bag ends after {bag.duration_s:.3f} s')
        except (ValueError, InstructionError) as error:
            raise InstructSAMError(f'{path}, entry {number} cannot be used: {error}') from error
        changes.append((bag.start_ns + round(at_s * 1e9), text))
        previous_s = at_s
    return InstructionTimeline(changes)


def _parse_entry(entry: object) -> tuple[float, str]:
    """Return (time in s, text) of one entry; raise ValueError or InstructionError if it cannot be used."""
    if not isinstance(entry, dict) or set(entry) != {'at', 'instruction'}:
        raise ValueError(f'expected `at` and `instruction`, such as {TIMELINE_EXAMPLE}')
    at_s, text = entry['at'], entry['instruction']
    if isinstance(at_s, bool) or not isinstance(at_s, (int, float)) or not 0 <= at_s <= sys.float_info.max:
        raise ValueError(f'`at` is a number of seconds from 0, got {shorten(repr(at_s))}')
    if not isinstance(text, str):
        raise ValueError(f'`instruction` is a text, got {shorten(repr(text))}')
    if text:
        check_instruction(text)
    return at_s, text


def recorded_timeline(bag: BagFile, topic: str) -> InstructionTimeline:
    """Return the timeline of the std_msgs/String messages on `topic`, as the node would have received them.

    Raises:
        InstructSAMError: there is no message, one cannot be read, or the bag is damaged.
    """
    changes = []
    for _, time_ns, data in bag.messages({topic}):
        try:
            changes.append((time_ns, deserialize_message(data, String).data))
        except Exception as error:  # the type that rclpy raises for malformed bytes depends on the middleware
            raise InstructSAMError(f'{bag.path} has a message on {topic} that is not a String: {error}') from error
    if not changes:
        raise InstructSAMError(f'{bag.path} has no message on {topic}; give --instruction or --instructions')
    return InstructionTimeline(changes)

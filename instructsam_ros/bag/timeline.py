"""What is asked during a bag, and from when on: one instruction, a timeline from a file, or what was recorded."""

import bisect
import math
from pathlib import Path

import yaml
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from instructsam.core.errors import InstructionError, InstructSAMError
from instructsam.core.model.prompt import check_instruction
from instructsam_ros.pipeline.instruction import Instruction

EXAMPLE = '"- {at: 0, instruction: the red mug}"'


class Script:
    """The instruction in force at each time of a bag, numbered as the node does."""

    def __init__(self, said):
        """`said`: [(ns of bag time, text)] in order; '' stops. A repetition of the text in force changes nothing."""
        self.said = list(said)
        self._times, self._instructions = [], []
        current, count = None, 0
        for time_ns, text in self.said:
            if current is not None and text == current.text:
                continue
            count += bool(text)
            current = Instruction(text, count) if text else None
            self._times.append(time_ns)
            self._instructions.append(current)

    def at(self, time_ns):
        """The Instruction, or None: stopped, or none has come yet."""
        index = bisect.bisect_right(self._times, time_ns) - 1
        return self._instructions[index] if index >= 0 else None


def constant(bag, text):
    """The Script of one instruction for the whole BagFile. Raises InstructionError."""
    check_instruction(text)
    return Script([(bag.start_ns, text)])


def timeline(bag, path):
    """The Script of a YAML file: a list of {at: s since the bag's first message, instruction: text}.

    Raises InstructSAMError, which says which entry is wrong.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise InstructSAMError(f'cannot read {path}: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InstructSAMError(f'{path} is no YAML: {" ".join(str(error).split())}') from error
    if not isinstance(entries, list) or not entries:
        raise InstructSAMError(f'{path} is no timeline: expected a list such as {EXAMPLE}')
    said, before = [], -math.inf
    for number, entry in enumerate(entries, 1):
        try:
            at, text = _entry(entry)
            if at <= before:
                raise ValueError(f'it is at {at:g} s, not after the one before it; sort them')
            if at >= bag.duration_s:
                raise ValueError(f'it is at {at:g} s, and the bag ends after {bag.duration_s:.3f} s')
        except (ValueError, InstructionError) as error:
            raise InstructSAMError(f'{path}, entry {number} cannot be used: {error}') from error
        said.append((bag.start_ns + round(at * 1e9), text))
        before = at
    return Script(said)


def _entry(entry):
    """(s, text) of one. Raises ValueError and InstructionError."""
    if not isinstance(entry, dict) or set(entry) != {'at', 'instruction'}:
        raise ValueError(f'expected `at` and `instruction`, such as {EXAMPLE}')
    at, text = entry['at'], entry['instruction']
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at < math.inf:
        raise ValueError(f'`at` is a number of seconds from 0, got {at!r}')
    if not isinstance(text, str):
        raise ValueError(f'`instruction` is a text, got {text!r}')
    if text:
        check_instruction(text)
    return at, text


def recorded(bag, topic):
    """The Script of the std_msgs/String messages on `topic`, as the node would have heard them.

    Raises RecordingError, InstructSAMError.
    """
    said = []
    for _, time_ns, data in bag.messages({topic}):
        try:
            said.append((time_ns, deserialize_message(data, String).data))
        except Exception as error:  # what rclpy raises for bytes that are no message depends on the middleware
            raise InstructSAMError(f'{bag.path} has a message on {topic} that is no text: {error}') from error
    if not said:
        raise InstructSAMError(f'{bag.path} has no message on {topic}; give --instruction or --instructions')
    return Script(said)

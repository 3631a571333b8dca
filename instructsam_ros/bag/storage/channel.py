"""Topics as a file of a bag describes them."""

import re
from dataclasses import dataclass

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos

CDR = 'cdr'
LATEST_NS = 2**63 - 1
"""The latest time that ROS 2 has, in the year 2262."""
DEFINITION_FORMATS = {
    'ros2msg': MessageDefinitionFormat.MSG,
    'ros2idl': MessageDefinitionFormat.IDL,
    'omgidl': MessageDefinitionFormat.IDL,
}
_DIGEST = re.compile(r'RIHS\d\d_\w{1,128}', re.ASCII)
NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, '')


@dataclass(frozen=True)
class Channel:
    """Messages of one type on a topic, as one file describes them.

    Attributes:
        topic: Name of the topic.
        type: 'package/msg/Name'; '' if the file does not say.
        encoding: Serialization of the messages; only `cdr` is ROS 2's.
        definition: The definition of the type.
        digest: RIHS01 hash of the type; '' if unknown.
        profiles: QoS that the publishers offered.
        note: A finding about it that the user should know; '' if there is none.
    """

    topic: str
    type: str
    encoding: str = CDR
    definition: MessageDefinition = NO_DEFINITION
    digest: str = ''
    profiles: tuple[Qos, ...] = ()
    note: str = ''


def known_digest(value: object) -> str:
    """Return the hash of a type (REP 2016); '' for anything else, which not every reader would find again in a copy."""
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else ''


def known_definition(format_name: str, text: str | bytes) -> MessageDefinition:
    """Return a definition as rosbags has it; NO_DEFINITION if its format is not one of ROS 2's."""
    if format_name not in DEFINITION_FORMATS:
        return NO_DEFINITION
    return MessageDefinition(DEFINITION_FORMATS[format_name], text if isinstance(text, str) else text.decode())

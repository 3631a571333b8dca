"""Topics as a file of a bag describes them."""

from dataclasses import dataclass

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Qos

CDR = 'cdr'
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

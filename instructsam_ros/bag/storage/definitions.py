"""Definitions of message types: those of ROS 2 and this package, and those that a bag holds."""

from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from instructsam_ros import msg

MESSAGES = ('Rle', 'Geometry', 'Instance', 'InstanceArray')  # this package's, each after those that it contains
MSG_NAMES = {'boolean': 'bool', 'float': 'float32', 'double': 'float64'}  # IDL type -> its name in .msg files


def typestore() -> Typestore:
    """Return the types of ROS 2 and of this package; the latter from the installed classes, without constants."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in MESSAGES:
        fields = getattr(msg, name).get_fields_and_field_types()
        definition = '\n'.join(f'{_msg_type(idl_type)} {field}' for field, idl_type in fields.items())
        store.register(get_types_from_msg(definition, f'instructsam_ros/msg/{name}'))
    return store


def _msg_type(idl_type: str) -> str:
    if idl_type.startswith('sequence<'):
        return f'{_msg_type(idl_type[9:-1])}[]'
    return MSG_NAMES.get(idl_type, idl_type)


def type_hash(connection: Connection) -> str:
    """Return the hash of a type from its definition, for recordings older than ROS 2 Iron; '' if it is unknown."""
    store = _recorded_types(connection)
    return store.hash_rihs01(connection.msgtype) if store else ''


def has_other_layout(connection: Connection) -> bool:
    """Return whether the bag defines a type with other fields than ROS 2, whose messages would be misread.

    Names of fields do not count, because serialized messages do not contain them. A definition that is missing or
    malformed is taken for ROS 2's.
    """
    recorded, known = _recorded_types(connection), get_typestore(Stores.ROS2_JAZZY)
    node = (Nodetype.NAME, connection.msgtype)
    if recorded is None or connection.msgtype not in known.fielddefs:
        return False
    return not _is_same(recorded, node, known, node)


def _recorded_types(connection: Connection) -> Typestore | None:
    """Return the type of a connection and those that it contains; None if the definition cannot be used."""
    store = get_typestore(Stores.EMPTY)
    definition, is_idl = connection.msgdef.data, connection.msgdef.format == MessageDefinitionFormat.IDL
    if not definition.strip():
        return None
    try:
        store.register(get_types_from_idl(definition) if is_idl else get_types_from_msg(definition, connection.msgtype))
        store.hash_rihs01(connection.msgtype)  # This fails if a contained type is missing.
        return store
    except Exception:  # Definitions fail in many ways, which must not prevent copying the messages.
        return None


def _is_same(recorded: Typestore, node: Any, known: Typestore, known_node: Any) -> bool:
    """Return whether two nodes of definitions are serialized alike.

    Both are followed only as far as they agree, so at most to the end of the known one: written out, a definition of 40
    types that each contain the next one twice would not end.
    """
    (kind, value), (known_kind, known_value) = node, known_node
    if kind != known_kind:
        return False
    if kind == Nodetype.NAME:
        fields, known_fields = recorded.fielddefs[value][1], known.fielddefs[known_value][1]
        return len(fields) == len(known_fields) and all(
            _is_same(recorded, field[1], known, known_field[1])
            for field, known_field in zip(fields, known_fields, strict=True)
        )
    if kind == Nodetype.BASE:
        return value[0] == known_value[0]
    return value[1] == known_value[1] and _is_same(recorded, value[0], known, known_value[0])

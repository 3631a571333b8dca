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
    return _layout(recorded, node) != _layout(known, node)


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


def _layout(store: Typestore, node: Any) -> Any:
    """Return the types of the fields of a definition's node, nested as they are serialized."""
    kind, value = node
    if kind == Nodetype.NAME:
        return tuple(_layout(store, field[1]) for field in store.fielddefs[value][1])
    if kind == Nodetype.BASE:
        return value[0]
    return kind, _layout(store, value[0]), value[1]

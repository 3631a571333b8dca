"""Definitions of message types in recordings, compared with ROS 2's."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat

from instructsam_ros.bag.storage.definitions import has_other_layout

LINE = f'{"=" * 80}\n'
TIME = f'{LINE}MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n'


def connection(text, type_name='std_msgs/msg/Header'):
    definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
    return Connection(1, '/topic', type_name, definition, '', 0, None, None)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (f'builtin_interfaces/Time stamp\nstring frame_id\n{TIME}', False),
        (f'builtin_interfaces/Time time\nstring frame\n{TIME}', False),  # Names are not serialized.
        (f'builtin_interfaces/Time stamp\nstring[] frame_id\n{TIME}', True),
        (f'builtin_interfaces/Time stamp\nstring frame_id\nint8 more\n{TIME}', True),
        ('nonsense', False),
    ],
)
def test_other_layouts(text, expected):
    assert has_other_layout(connection(text)) == expected


@pytest.mark.parametrize(('part', 'expected'), [('float64', False), ('float32', True), ('float64[1]', True)])
def test_other_layouts_of_parts(part, expected):
    text = f'Vector3 linear\nVector3 angular\n{LINE}MSG: geometry_msgs/Vector3\n{part} x\nfloat64 y\nfloat64 z\n'
    assert has_other_layout(connection(text, 'geometry_msgs/msg/Accel')) == expected


def test_a_definition_that_is_endless_when_written_out():
    parts = [f'{LINE}MSG: x/T{index}\nx/T{index + 1} a\nx/T{index + 1} b\n' for index in range(40)]
    assert has_other_layout(connection(f'x/T0 a\nx/T0 b\n{"".join(parts)}{LINE}MSG: x/T40\nuint8 a\n'))

"""`instructsam bag verify`, and what `annotate` and `replay` say about bags that cannot be copied as a whole."""

import json
import sqlite3
from contextlib import closing

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap
from bags import FRAMES, frame, header, info, read, recording, rgb_image, run, show, write
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader
from std_msgs.msg import String

from instructsam.core import cli
from instructsam_ros.conversions.instances import image_msg

pytest_plugins = ['bags']  # the fixture `engines`
pytestmark = pytest.mark.usefixtures('engines')


def verify(*arguments):
    return cli.main(['bag', 'verify', *map(str, arguments)])


@pytest.fixture
def annotated(tmp_path):
    """A bag (sqlite3, which a test can edit) and its copy with results."""
    twins = [(50, '/say', String(data='same')), (50, '/say', String(data='time'))]
    source = write(tmp_path / 'in', 'sqlite3', recording(info(), *twins))
    assert run(source, tmp_path / 'out', '--instruction', 'red', '--label-images') == 0
    return source, tmp_path / 'out'


def edit(out, script):
    with closing(sqlite3.connect(out / f'{out.name}.db3')) as database:
        database.executescript(script)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_copy_is_complete(tmp_path, capsys, storage):
    source = write(tmp_path / 'in', storage, recording(info()))
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert verify(tmp_path / 'out') == 0
    out = capsys.readouterr().out
    assert f'all {FRAMES + 4} messages are in the copy' in out
    assert f'results: {FRAMES} on /perception/instances' in out
    assert run(tmp_path / 'out', tmp_path / 'twice', '--instruction', 'green', '--name', 'second') == 0
    assert verify(tmp_path / 'twice') == 0
    assert verify(tmp_path / 'twice', source) == 3  # the results of the first run are additional to it


SAY = "topic_id = (SELECT id FROM topics WHERE name = '/say')"
IMAGE = "topic_id = (SELECT id FROM topics WHERE name = '/camera/image')"
DIFFERENCES = {
    'lost': (
        f'DELETE FROM messages WHERE {IMAGE} AND timestamp = 1700000000300000000',
        'lost: a message on /camera/image of 1700000000300000000 ns',
    ),
    'changed': (
        f"UPDATE messages SET data = x'00' WHERE {IMAGE} AND timestamp = 1700000000300000000",
        'changed: a message on /camera/image of 1700000000300000000 ns',
    ),
    'moved': (
        f'UPDATE messages SET timestamp = timestamp + 1 WHERE {IMAGE} AND timestamp = 1700000000300000000',
        'reordered: a message on /camera/image of 1700000000300000000 ns is at 1700000000300000001 ns',
    ),
    'reordered': (
        f'CREATE TABLE says AS SELECT * FROM messages WHERE {SAY} ORDER BY id DESC; DELETE FROM messages WHERE {SAY};'
        'INSERT INTO messages(topic_id, timestamp, data) SELECT topic_id, timestamp, data FROM says',
        'reordered: messages of the time 1700000000050000000 ns on /say',
    ),
    'additional': (
        "INSERT INTO messages(topic_id, timestamp, data) SELECT topic_id, 1700000000000000007, x'00010000' "
        f'FROM messages WHERE {SAY} LIMIT 1',
        'additional: a message on /say of 1700000000000000007 ns',
    ),
    'qos': ("UPDATE topics SET offered_qos_profiles = '' WHERE name = '/motor'", 'changed: the offered QoS of /motor'),
    'topic': (
        "INSERT INTO topics SELECT 99, '/new', type, serialization_format, '', '' FROM topics LIMIT 1",
        'additional: the topic /new of type',
    ),
    'definition': (
        "UPDATE message_definitions SET encoded_message_definition = 'int8 x' "
        "WHERE topic_type = 'robot_msgs/msg/Motor'",
        'changed: the definition of robot_msgs/msg/Motor',
    ),
}


@pytest.mark.parametrize('kind', DIFFERENCES)
def test_differences_are_named(annotated, capsys, kind):
    script, expected = DIFFERENCES[kind]
    source, out = annotated
    if kind == 'qos':  # metadata.yaml would fill it in
        (out / 'metadata.yaml').unlink()
    edit(out, script)
    code = verify(out, source)
    captured = capsys.readouterr()
    assert code == 3
    assert expected in captured.out + captured.err


def test_losses_are_named(annotated, capsys):
    source, out = annotated
    edit(source, DIFFERENCES['additional'][0])
    assert verify(out) == 3
    assert 'lost: a message on /say of 1700000000000000007 ns' in capsys.readouterr().out
    edit(source, "INSERT INTO topics SELECT 99, '/new', type, serialization_format, '', '' FROM topics LIMIT 1")
    assert verify(out) == 3
    assert 'lost: the topic /new of type' in capsys.readouterr().out


def test_an_original_that_moved(annotated, tmp_path, capsys):
    source, out = annotated
    source.rename(tmp_path / 'elsewhere')
    assert verify(out) == 2
    assert f'{source}, of which {out} is a copy, does not exist; give its present path as IN' in capsys.readouterr().err
    assert verify(out, tmp_path / 'elsewhere') == 0
    assert verify(tmp_path / 'elsewhere') == 2
    assert 'does not say what it is a copy of; give IN as well' in capsys.readouterr().err


# Bags that cannot be copied as a whole


def images(number=2):
    """Records of an MCAP file with images."""
    recorded = [
        mcap.message(1, 10 + index, bytes(serialize_message(image_msg(rgb_image(index), header(index)))))
        for index in range(number)
    ]
    return [mcap.schema(1, 'sensor_msgs/msg/Image', 'ros2msg', ''), mcap.channel(1, 1, '/image'), *recorded]


@pytest.mark.parametrize('schema', [[], [mcap.schema(9, 'Level', 'jsonschema', '{}')]])
def test_what_is_left_out_is_named(tmp_path, capsys, schema):
    other = [*schema, mcap.channel(9, 9 if schema else 0, '/battery', 'json'), mcap.message(9, 12, b'{"level": 3}')]
    source = mcap.write(tmp_path / 'in.mcap', *images(), *other, mcap.attachment('map'), mcap.metadata('site'))
    out = tmp_path / 'out'
    assert run(source, out, '--instruction', 'red') == 3
    captured = capsys.readouterr().out
    assert 'left out        1 messages on /battery (json)' in captured
    assert 'not copied      1 attachments, 1 metadata records' in captured
    assert len(read(out)) == 4
    assert show(out, tmp_path / 'strip.png') == 0
    assert verify(out) == 3
    assert 'left out: 1 messages on /battery (json)' in capsys.readouterr().out


@pytest.mark.parametrize('encoding', ['ros2idl', 'omgidl', 'ros3msg', ''])
def test_types_that_are_not_installed_are_copied(tmp_path, encoding):
    definition = 'module robot_msgs { module msg { struct Light { uint8 level; }; }; };'
    types = [mcap.schema(2, 'robot_msgs/msg/Light', encoding, definition), mcap.channel(2, 2, '/light')]
    source = mcap.write(tmp_path / 'in.mcap', *images(), *types, mcap.message(2, 11, b'\0\1\0\0\7'))
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert verify(tmp_path / 'out') == 0
    with Reader(tmp_path / 'out') as reader:
        light = next(each for each in reader.connections if each.topic == '/light')
    assert (definition in light.msgdef.data) == (encoding in ('ros2idl', 'omgidl'))


def test_a_topic_of_two_types_is_copied_but_not_answered(tmp_path, capsys):
    types = [mcap.schema(2, 'sensor_msgs/msg/CompressedImage', 'ros2msg', ''), mcap.channel(2, 2, '/image')]
    source = mcap.write(tmp_path / 'in.mcap', *images(), *types, mcap.message(2, 11))
    assert run(source, tmp_path / 'out', '--instruction', 'red', '--topic', '/image') == 2
    assert '/image in' in (err := capsys.readouterr().err)
    assert 'is of type sensor_msgs/msg/Image and sensor_msgs/msg/CompressedImage, expected' in err
    types = [mcap.schema(2, 'a/msg/A'), mcap.channel(2, 2, '/a'), mcap.schema(3, 'a/msg/B'), mcap.channel(3, 3, '/a')]
    both = [mcap.message(2, 11), mcap.message(3, 11), mcap.message(2, 11)]
    source = mcap.write(tmp_path / 'in.mcap', *images(), *types, *both)
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert verify(tmp_path / 'out') == 0


def test_names_from_a_bag_do_not_command_the_terminal(tmp_path, capsys):
    name = '/\x1b[2J\nimages  0'
    types = [mcap.schema(2, 'a/msg/A'), mcap.channel(2, 2, name, 'json'), mcap.message(2, 11)]
    records = images()
    records[1] = mcap.channel(1, 1, name)
    source = mcap.write(tmp_path / 'in.mcap', *records, *types)
    run(source, tmp_path / 'out', '--instruction', 'red')
    run(source, tmp_path / 'out', '--instruction', 'red', '--topic', '/nose')
    verify(tmp_path / 'out')
    verify(tmp_path / 'no\x1b[2J')
    captured = capsys.readouterr()
    assert '\\x1b[2J' in captured.out
    assert '\\x1b[2J' in captured.err
    assert '\x1b' not in captured.out + captured.err
    assert not [line for line in (captured.out + captured.err).splitlines() if line.startswith('images  0')]


def test_the_limits_are_options(tmp_path, capsys):
    data = bytes(serialize_message(frame(0)[2]))
    content = [*images(0)[:2], mcap.message(1, 10, data), mcap.record(0x90, bytes(2 << 20))]
    source = mcap.write(tmp_path / 'in.mcap', mcap.chunk(content, (10, 10)))
    assert run(source, tmp_path / 'out', '--instruction', 'red', '--max-message-mb', '1') == 2
    assert 'raise --max-message-mb' in capsys.readouterr().err
    assert run(source, tmp_path / 'out', '--instruction', 'red', '--max-message-mb', '3') == 0


def test_a_copy_that_no_reader_can_open_is_not_published(tmp_path, capsys, monkeypatch):
    from instructsam_ros.bag import writer

    class Broken(writer.Writer):
        def close(self):
            super().close()
            self.metapath.write_text('nothing')

    source = write(tmp_path / 'in', 'mcap', recording())
    with monkeypatch.context() as patch:
        patch.setattr(writer, 'Writer', Broken)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert 'was written but cannot be read' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0


def test_the_copy_names_its_original(annotated):
    source, out = annotated
    with Reader(out) as reader:
        copy = json.loads(reader.storage.metadata.custom['instructsam_copy'])
    assert copy == {'source': str(source), 'added': ['/perception/instances', '/perception/label_image']}


@pytest.mark.parametrize(
    ('definition', 'code'),
    [
        (
            'std_msgs/Header h\nuint32 H\nuint32 W\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data',
            0,
        ),
        ('std_msgs/Header header\nuint32 height\nuint16 width', 2),
        ('std_msgs/Header header\nmissing/Type thing', 0),
        ('nonsense', 0),
    ],
)
def test_a_type_that_the_bag_defines_otherwise_is_not_misread(tmp_path, capsys, definition, code):
    header_types = '\n'.join(
        f'{"=" * 80}\nMSG: {name}\n{fields}'
        for name, fields in {
            'std_msgs/Header': 'builtin_interfaces/Time stamp\nstring frame_id',
            'builtin_interfaces/Time': 'int32 sec\nuint32 nanosec',
        }.items()
    )
    records = images()
    records[0] = mcap.schema(1, 'sensor_msgs/msg/Image', 'ros2msg', f'{definition}\n{header_types}')
    source = mcap.write(tmp_path / 'in.mcap', *records)
    assert run(source, tmp_path / 'out', '--instruction', 'red') == code
    expected = 'defines sensor_msgs/msg/Image on /image otherwise than ROS 2, so that it would be misread'
    assert (expected in capsys.readouterr().err) == bool(code)

"""`instructsam bag annotate`: its errors for input that cannot be used."""

import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap
from bags import (
    FRAMES,
    HEIGHT,
    WIDTH,
    depth,
    frame,
    only_results,
    read,
    recording,
    results,
    run,
    show,
    write,
)
from std_msgs.msg import String

from instructsam.core import cli
from instructsam_ros.bag import topics
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.msg import InstanceArray

pytest_plugins = ['bags']  # the fixture `engines`
pytestmark = pytest.mark.usefixtures('engines')


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('.', 'give the name of a new folder'),
        ('/', 'give the name of a new folder'),
        ('', 'give the name of a new folder'),
        ('x' * 300, 'its name has 300 bytes, expected at most'),
        ('x' * 247, 'its name has 247 bytes, expected at most'),
        ('linked', 'linked.journal is a symbolic link'),
        ('dangling', 'dangling is a symbolic link'),
    ],
    ids=range(7),
)
def test_outputs_that_cannot_be_made(tmp_path, monkeypatch, capsys, name, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'other').mkdir()
    (tmp_path / 'linked.journal').symlink_to('other')
    (tmp_path / 'dangling').symlink_to('nowhere')
    assert run(write(tmp_path / 'in', 'mcap', recording()), name, '--instruction', 'red') == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count('\n') == 1


def test_images_that_cannot_be_read_are_errors(tmp_path, capfd):
    short = frame(1)[2]
    short.data = short.data[:100]
    backwards = frame(2)[2]
    backwards.header.stamp.sec = -5
    broken = [
        (100, '/camera/image', short),
        (200, '/camera/image', backwards),
        (300, '/camera/image', (b'\0\1\0\0\7', 'sensor_msgs/msg/Image')),
    ]
    source = write(tmp_path / 'in', 'mcap', [frame(0), *broken, frame(4)])
    assert run(source, tmp_path / 'out', '--instruction', 'red', '--label-images') == 3
    answers = only_results(tmp_path / 'out')
    assert [message.status for message in answers] == [0, 2, 2, 2, 0]
    assert 'data has 100 bytes' in answers[1].message
    assert (answers[1].height, answers[1].width) == (HEIGHT, WIDTH)
    assert 'header stamp' in answers[2].message
    assert answers[2].header.stamp.sec == -5
    assert 'is not a valid Image' in answers[3].message
    assert [each[0] for each in read(tmp_path / 'out', '/perception/label_image')] == [0, 400]
    assert [message.instances[0].track_id for message in answers if message.instances] == [0, 0]
    out, err = capfd.readouterr()
    assert 'errors          3: images 1, 2, 3' in out
    assert 'image 1: Image 64 x 48' in err
    assert 'Traceback' not in err
    assert show(tmp_path / 'out', tmp_path / 'strip.png') == 0
    assert '2 of 5 results' in capfd.readouterr().out


def test_where_every_image_is_an_error_the_exit_code_is_1(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    assert run(source, tmp_path / 'out', '--instruction', 'refuse') == 1
    assert {message.message for message in only_results(tmp_path / 'out')} == {'that is not a question'}
    assert show(tmp_path / 'out', tmp_path / 'strip.png') == 0


def test_an_answer_that_a_limit_ended_is_an_error(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    assert run(source, tmp_path / 'out', '--instruction', 'cut') == 1
    assert {message.status for message in only_results(tmp_path / 'out')} == {InstanceArray.STATUS_ERROR}
    shown = capsys.readouterr()
    assert 'ended by the token budget before its first phrase was complete: raise max_new_tokens' in shown.err
    assert 'no target       0' in shown.out


def test_what_a_node_has_drawn_is_no_camera(tmp_path):
    types = {
        '/camera/image': topics.IMAGE,
        '/perception/instances': topics.INSTANCES,
        '/perception/overlay': topics.IMAGE,
        '/perception/tracked/instances': topics.TRACKED,
        '/perception/tracked/overlay': topics.IMAGE,
    }
    records = []
    for number, (topic, type_name) in enumerate(types.items(), 1):
        records += [mcap.schema(number, type_name, definition=''), mcap.channel(number, number, topic)]
        records.append(mcap.message(number, 1))
    bag = BagFile(mcap.write(tmp_path / 'in.mcap', *records))
    assert topics.image_topic(bag) == '/camera/image'
    assert topics.unread_topics(bag, topics.Topics('/camera/image')) == {}


def two_cameras():
    return [*recording(), frame(0, '/left/image')]


BAD = [
    (recording(), ['--instruction', ''], 'the instruction is empty'),
    (recording(), [], 'has no topic `instruction` (std_msgs/msg/String); give --instruction or --instructions'),
    (recording((0, '/say', String())), [], 'or name one of /say with --instruction-topic'),
    (recording((900, '/say', String())), ['--instruction-topic', '/camera/image'], 'is of type sensor_msgs/msg/Image'),
    ([], ['--instruction', 'red'], 'has no topic of colour images'),
    ([depth(0)], ['--instruction', 'red'], 'it has /camera/aligned_depth_to_color/image_raw; if one'),
    (two_cameras(), ['--instruction', 'red'], 'several topics of images (/camera/image, /left/image); name one with'),
    (recording(), ['--instruction', 'red', '--topic', '/nose'], 'has no topic /nose; it has /camera/image, /motor'),
    (recording(), ['--instruction', 'red', '--topic', '/motor'], '/motor in '),
    (recording(), ['--instruction', 'red', '--topic', '/motor'], 'is of type robot_msgs/msg/Motor, expected sensor'),
    (recording(depth(0)), ['--instruction', 'red'], 'but no camera info beside it; name one with --camera-info'),
    (recording(), ['--instruction', 'red', '--depth', '/motor'], 'is of type robot_msgs/msg/Motor'),
    (recording(), ['--instruction', 'red', '--camera-info', '/motor'], '--camera-info is for depth'),
    (recording(), ['--instruction', 'red', '--instructions', 'x'], 'not allowed with argument --instruction'),
    (recording(), ['--instructions', '/no/file'], '/no/file cannot be read: No such file or directory'),
    (recording(), ['--instructions', '/dev/zero'], '/dev/zero cannot be read: expected a regular file'),
    (recording(), ['--instruction', 'red', '--name', 'a//b'], "--name is a ROS name such as /perception, got 'a//b'"),
    (recording(), ['third', '--instruction', 'red'], 'unrecognized arguments: third'),
]


@pytest.mark.parametrize(('recorded', 'arguments', 'expected'), BAD)
def test_unusable_bags_and_arguments(tmp_path, capsys, recorded, arguments, expected):
    source = write(tmp_path / 'in', 'mcap', recorded)
    try:
        code = run(source, tmp_path / 'out', *arguments)
    except SystemExit as error:  # from argparse
        code = error.code
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith('instructsam: error: ')
    assert expected in err
    assert err.count('\n') == 1
    assert [file.name for file in tmp_path.iterdir()] == ['in']


def test_paths_that_are_not_bags(tmp_path, capsys):
    (tmp_path / 'notes.txt').write_text('hello')
    errors = {'nothing': 'does not exist; give a bag', 'notes.txt': 'is not a bag', '.': 'is not a bag'}
    for name, expected in errors.items():
        assert run(tmp_path / name, tmp_path / 'out', '--instruction', 'red') == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(('storage', 'name'), [('mcap', 'in.mcap'), ('sqlite3', 'in.db3')])
@pytest.mark.parametrize('kept', [0.0, 0.3, 0.95])
@pytest.mark.parametrize('alone', [True, False])
def test_a_truncated_bag(tmp_path, capsys, storage, name, kept, alone):
    source = write(tmp_path / 'in', storage, recording())
    whole = (source / name).read_bytes()
    (source / name).write_bytes(whole[: int(kept * len(whole))])
    assert run(source / name if alone else source, tmp_path / 'out', '--instruction', 'red') == 2
    err = capsys.readouterr().err
    assert 'cannot be read as a bag' in err
    assert 'truncated' in err
    assert ('copy it again' if not kept else {'mcap': 'mcap recover', 'sqlite3': '.recover'}[storage]) in err
    assert not (tmp_path / 'out').exists()


def test_messages_missing_from_the_bag(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    metadata = (source / 'metadata.yaml').read_text()
    (source / 'metadata.yaml').write_text(metadata.replace('message_count: 8', 'message_count: 9'))
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert 'lists 9 messages of /camera/image and holds 8' in capsys.readouterr().err


def test_results_and_outputs_are_not_overwritten(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert 'out exists already: delete it or give another name' in capsys.readouterr().err
    assert run(tmp_path / 'out', tmp_path / 'twice', '--instruction', 'green') == 2
    assert 'has /perception/instances already; give another --name' in capsys.readouterr().err
    assert run(tmp_path / 'out', tmp_path / 'twice', '--instruction', 'green', '--name', 'second') == 0
    assert results(tmp_path / 'twice') == results(tmp_path / 'out')
    assert len(results(tmp_path / 'twice', '/second/instances')) == FRAMES
    assert run(source, tmp_path / 'no/folder', '--instruction', 'red') == 2
    assert 'there is no folder' in capsys.readouterr().err


def test_a_bag_without_a_subcommand_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        cli.main(['bag', str(tmp_path / 'in'), str(tmp_path / 'out'), '--instruction', 'red'])
    err = capsys.readouterr().err
    assert 'invalid choice' in err
    assert 'a bag is answered with `instructsam bag annotate IN OUT`' in err
    assert err.count('\n') == 1


@pytest.mark.parametrize('command', ['annotate', 'show'])
def test_help_is_quick(command):
    code = (
        'import sys\nfrom instructsam.core import cli\n'
        f'try:\n    cli.main(["bag", "{command}", "--help"])\nexcept SystemExit as end:\n    assert not end.code\n'
        'assert not {"torch", "cv2", "rclpy", "rosbags"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)

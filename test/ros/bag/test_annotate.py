"""`instructsam bag annotate`: the bag that it writes."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap
from bags import (
    FRAMES,
    HEIGHT,
    START_NS,
    STEREO,
    WIDTH,
    depth,
    frame,
    header,
    info,
    only_results,
    read,
    recording,
    results,
    rgb_image,
    run,
    write,
)
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import CompressionMode, Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image
from std_msgs.msg import String

from instructsam_ros.conversions.instances import rle_from_msg

STORAGES = ['mcap', 'sqlite3']
pytest_plugins = ['bags']  # the fixture `engines`
pytestmark = pytest.mark.usefixtures('engines')


COMPRESSIONS = [
    ('mcap', None), ('mcap', CompressionMode.STORAGE), ('mcap', CompressionMode.MESSAGE),
    ('sqlite3', None), ('sqlite3', CompressionMode.MESSAGE), ('sqlite3', CompressionMode.FILE),
]  # fmt: skip


@pytest.mark.parametrize(('storage', 'compression'), COMPRESSIONS)
def test_recorded_messages_are_copied_unchanged(tmp_path, storage, compression):
    source = write(tmp_path / 'in', storage, recording(info(), *map(depth, range(FRAMES))), compression)
    assert run(source, tmp_path / 'out', '--instruction', 'red green', '--label-images') == 0
    added = {'/perception/instances', '/perception/label_image'}
    assert [each for each in read(tmp_path / 'out') if each[1] not in added] == read(source)
    with Reader(source) as before, Reader(tmp_path / 'out') as after:
        assert before.compression_mode == after.compression_mode
        old = {each.topic: (each.msgtype, each.msgdef, each.digest, each.ext) for each in before.connections}
        new = {each.topic: (each.msgtype, each.msgdef, each.digest, each.ext) for each in after.connections}
        assert new.keys() - old.keys() == added
        assert {topic: new[topic] for topic in old} == old
        assert old['/motor'][3].offered_qos_profiles == [STEREO]
        assert new['/perception/instances'][2].startswith('RIHS01_')
    endings = {'.mcap' if storage == 'mcap' else '.db3', '.yaml', '.zstd'}
    assert {file.suffix for file in (tmp_path / 'out').iterdir()} <= endings
    assert not (tmp_path / 'out.journal').exists()


@pytest.mark.parametrize('storage', STORAGES)
def test_each_image_is_followed_by_one_result_at_its_time(tmp_path, storage):
    source = write(tmp_path / 'in', storage, recording())
    file = next(source.glob('in.*'))  # the file alone, without metadata.yaml
    assert run(file, tmp_path / 'out', '--instruction', 'red green', '--label-images', '--name', 'arm/seen') == 0
    written = [each for each in read(tmp_path / 'out') if each[1] in ('/camera/image', '/arm/seen/instances')]
    assert [each[:2] for each in written] == [
        (100 * index, topic) for index in range(FRAMES) for topic in ('/camera/image', '/arm/seen/instances')
    ]
    labels = read(tmp_path / 'out', '/arm/seen/label_image')
    for index, (ms, message) in enumerate(results(tmp_path / 'out', '/arm/seen/instances')):
        assert (ms, message.header, message.status) == (100 * index, header(index), message.STATUS_OK)
        assert (message.instruction, message.instruction_id) == ('red green', 1)
        assert [each.phrase for each in message.instances] == ['red thing', 'green thing']
        assert [each.track_id for each in message.instances] == [0, 1]
        red, green = (rle_from_msg(each.mask).decode() for each in message.instances)
        assert np.array_equal(red, rgb_image(index)[..., 0] > 200)
        label_image = deserialize_message(labels[index][2], Image)
        assert labels[index][0] == ms
        assert label_image.header == message.header
        assert np.array_equal(np.frombuffer(label_image.data, np.uint16).reshape(HEIGHT, WIDTH), red + 2 * green)


def test_result_types_match_the_installed_ones(tmp_path):
    """Rosbags knows this package only from the bag and reads what rclpy wrote."""
    run(write(tmp_path / 'in', 'mcap', recording()), tmp_path / 'out', '--instruction', 'red')
    with Reader(tmp_path / 'out') as reader:
        store = get_typestore(Stores.EMPTY)
        (connection,) = (each for each in reader.connections if each.topic == '/perception/instances')
        store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        assert store.hash_rihs01(connection.msgtype) == connection.digest
        _, _, data = next(reader.messages([connection]))
    message = store.deserialize_cdr(data, connection.msgtype)
    assert message.instances[0].phrase == 'red thing'
    assert message.instances[0].mask.counts.sum() == HEIGHT * WIDTH


# Depth


def test_depth_recorded_after_its_image_is_found(tmp_path):
    source = write(tmp_path / 'in', 'mcap', recording(info(), *map(depth, range(FRAMES))))
    run(source, tmp_path / 'out', '--instruction', 'red')
    for message in only_results(tmp_path / 'out'):
        assert (message.geometry_frame_id, message.geometry_message) == ('camera_color_optical_frame', '')
        assert message.instances[0].geometry.centroid.z == pytest.approx(1.0, abs=1e-3)


def test_an_image_without_its_own_depth_has_no_geometry(tmp_path, capsys):
    depths = [depth(index, value=1000 + index) for index in range(FRAMES) if index != 3]
    run(write(tmp_path / 'in', 'mcap', recording(info(), *depths)), tmp_path / 'out', '--instruction', 'red')
    answers = only_results(tmp_path / 'out')
    assert [message.instances[0].has_geometry for message in answers] == [index != 3 for index in range(FRAMES)]
    assert 'no depth image with the stamp of the image' in answers[3].geometry_message
    for index in (2, 4):
        assert answers[index].instances[0].geometry.centroid.z == pytest.approx(1 + index / 1000, abs=1e-4)
    assert 'without depth   1 results' in capsys.readouterr().out


def test_tolerance_and_no_depth_and_depth_by_name(tmp_path):
    depths = [depth(index, off_ms=20) for index in range(FRAMES)]
    depths = [(ms, '/camera/depth/image', message) for ms, _, message in depths]
    source = write(tmp_path / 'in', 'mcap', recording(info(), *depths))
    named = ('--depth', '/camera/depth/image')
    for out, more, expected in (
        ('unnamed', (), False),  # its view may differ from the images'
        ('exact', named, False),
        ('near', (*named, '--depth-tolerance', '0.03'), True),
        ('off', ('--depth', 'off'), False),
    ):
        assert run(source, tmp_path / out, '--instruction', 'red', *more) == 0
        assert [message.instances[0].has_geometry for message in only_results(tmp_path / out)] == [expected] * FRAMES


def test_unusable_depth_is_reported_in_the_result(tmp_path, capfd):
    wrong = [depth(0, value=0), depth(1), (260, depth(2)[1], (b'\0\1\0\0\7', 'sensor_msgs/msg/Image'))]
    wrong[1][2].height //= 2
    run(write(tmp_path / 'in', 'mcap', recording(info(), *wrong)), tmp_path / 'out', '--instruction', 'red')
    none, half, broken = only_results(tmp_path / 'out')[:3]
    assert 'depth' in none.instances[0].geometry_message
    assert not none.instances[0].has_geometry
    assert 'Image 64 x 24 16UC1' in half.geometry_message
    assert 'no depth image with the stamp' in broken.geometry_message
    assert '1 messages of depth and camera info cannot be read' in capfd.readouterr().err


def test_rectified_images_and_frames_as_in_the_node(tmp_path, capsys):
    """Topic, options and camera info decide together; every contradiction is named in the summary too."""
    p = [30.0, 0.0, (WIDTH - 1) / 2, 0.0, 0.0, 30.0, (HEIGHT - 1) / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    calibrated, other = info()[2], info()[2]
    calibrated.p, calibrated.d = p, [0.1, 0.0, 0.0, 0.0, 0.0]
    other.header.frame_id = 'depth_frame'

    def centers(name, image, camera_info, *options):
        recorded = [frame(0, image), depth(0), (0, '/camera/camera_info', camera_info)]
        source = write(tmp_path / f'{name}_in', 'mcap', recorded)
        assert run(source, tmp_path / name, '--instruction', 'red', *options) == 0
        (result,) = only_results(tmp_path / name)
        return [each.geometry.centroid.x for each in result.instances if each.has_geometry]

    (raw,) = centers('raw', '/camera/image', calibrated)
    (rectified,) = centers('rectified', '/camera/image_rect', calibrated)
    assert rectified == pytest.approx(2 * raw, rel=0.2)  # half the focal length
    assert centers('forced', '/camera/image', calibrated, '--rectified', 'true') == [rectified]
    assert centers('not', '/camera/image_rect', calibrated, '--rectified', 'false') == [raw]
    capsys.readouterr()
    assert centers('other', '/camera/image', other) == []
    assert (
        "camera_info is of the frame 'depth_frame', the image of 'camera_color_optical_frame'"
        in capsys.readouterr().out
    )
    pair = 'camera_color_optical_frame=depth_frame'
    assert len(centers('tolerated', '/camera/image', other, '--frame-tolerance', pair)) == 1
    with pytest.raises(SystemExit) as caught:
        run('in', 'out', '--instruction', 'red', '--frame-tolerance', 'any')
    assert caught.value.code == 2


def test_stamps_of_zero_pair_with_nothing(tmp_path):
    recorded = [frame(0), depth(0), info()]
    for _, _, message in recorded:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
    run(write(tmp_path / 'in', 'mcap', recorded), tmp_path / 'out', '--instruction', 'red')
    (result,) = only_results(tmp_path / 'out')
    assert not result.instances[0].has_geometry
    assert 'the stamp of the image is 0, which means that it is not set' in result.geometry_message


def test_stamps_that_go_backwards(tmp_path):
    """After a restart of the camera, every image has a result with the depth of its own stamp."""
    recorded = [info()]
    for at, index in enumerate((5, 6, 0, 1)):
        recorded += [(100 * at, *frame(index)[1:]), (100 * at + 60, *depth(index, value=1000 + index)[1:])]
    run(write(tmp_path / 'in', 'mcap', recorded), tmp_path / 'out', '--instruction', 'red')
    answers = only_results(tmp_path / 'out')
    assert [message.header.stamp.sec for message in answers] == [105, 106, 100, 101]
    assert [round(message.instances[0].geometry.centroid.z, 3) for message in answers] == [1.005, 1.006, 1.0, 1.001]


# Instructions


def test_a_timeline(tmp_path, capsys):
    timeline = tmp_path / 'timeline.yaml'
    timeline.write_text(
        '- {at: 0.15, instruction: red}\n- {at: 0.3, instruction: blue}\n- {at: 0.4, instruction: ""}\n'
        '- {at: 0.45, instruction: red green}\n- {at: 0.6, instruction: red green}\n'
    )
    assert run(write(tmp_path / 'in', 'mcap', recording()), tmp_path / 'out', '--instructions', timeline) == 0
    assert [(ms, each.instruction, each.instruction_id, each.status) for ms, each in results(tmp_path / 'out')] == [
        (200, 'red', 1, 0),
        (300, 'blue', 2, 1),
        *((ms, 'red green', 3, 0) for ms in (500, 600, 700)),
    ]
    ids = [[instance.track_id for instance in message.instances] for message in only_results(tmp_path / 'out')]
    assert ids == [[0], [], [0, 1], [0, 1], [0, 1]]  # track ids start again with each instruction
    out = capsys.readouterr().out
    for row in (
        'images          8',
        'answered        4',
        'no target       1',
        'errors          0',
        'no instruction  3',
        'instances       7',
    ):
        assert row in out


@pytest.mark.parametrize('times_ms', [[0], [0, 300]])
def test_a_timeline_reaches_the_last_image(tmp_path, times_ms):
    records = [mcap.schema(1, 'sensor_msgs/msg/Image', definition=''), mcap.channel(1, 1, '/camera/image')]
    records += [mcap.message(1, START_NS + ms * 1_000_000, serialize_message(frame(0)[2])) for ms in times_ms]
    (tmp_path / 'timeline.yaml').write_text(f'- {{at: {times_ms[-1] / 1e3}, instruction: red}}')
    bag = mcap.write(tmp_path / 'in.mcap', *records)
    assert run(bag, tmp_path / 'out', '--instructions', tmp_path / 'timeline.yaml') == 0
    assert [ms for ms, _ in results(tmp_path / 'out')] == times_ms[-1:]


def test_recorded_instructions(tmp_path):
    texts = [(150, 'green'), (250, 'green'), (300, 'red'), (550, ''), (650, 'red')]
    messages = [(ms, '/instruction', String(data=text)) for ms, text in texts]
    assert run(write(tmp_path / 'in', 'sqlite3', recording(*messages)), tmp_path / 'out') == 0
    assert [(ms, each.instruction, each.instruction_id) for ms, each in results(tmp_path / 'out')] == [
        (200, 'green', 1),
        (300, 'red', 2),
        (400, 'red', 2),
        (500, 'red', 2),
        (700, 'red', 3),
    ]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('at: 0', 'is not a timeline: expected a list'),
        ('[]', 'is not a timeline'),
        ('- [', 'is not valid YAML'),
        ('- {at: 0, instruction: red}\n- {at: 1}', 'entry 2 cannot be used: expected `at` and `instruction`'),
        ('- {at: yes, instruction: red}', 'entry 1 cannot be used: `at` is a number of seconds from 0, got True'),
        ('- {at: -1, instruction: red}', '`at` is a number of seconds from 0, got -1'),
        ('- {at: .nan, instruction: red}', '`at` is a number of seconds from 0, got nan'),
        ('- {at: 0, instruction: 5}', '`instruction` is a text, got 5'),
        ('- {at: 0.2, instruction: red}\n- {at: 0.1, instruction: red}', 'entry 2 cannot be used: it is at 0.1 s, not'),
        ('- {at: 9, instruction: red}', 'it is at 9 s, and the bag ends after 0.700 s'),
        ('- {at: 0, instruction: "\\x07"}', 'control character'),
        ('- {at: 2026-99-99, instruction: red}', 'is not valid YAML: month must be'),
        ('[' * 5000, 'is not valid YAML'),
        ('- {at: !!int "", instruction: red}', 'is not valid YAML'),
        (f'- {{at: 1{"0" * 400}, instruction: red}}', '`at` is a number of seconds from 0, got 1000'),
        ('- {at: 1:30, instruction: red}', "`at` is a number of seconds from 0, got '1:30'"),
    ],
)
def test_errors_of_a_timeline_name_the_entry(tmp_path, capsys, text, expected):
    timeline = tmp_path / 'timeline.yaml'
    timeline.write_text(text)
    assert run(write(tmp_path / 'in', 'mcap', recording()), tmp_path / 'out', '--instructions', timeline) == 2
    assert expected in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {'in', 'timeline.yaml'}

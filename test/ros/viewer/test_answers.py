"""Answers and the messages of their stamps, in whatever order they come."""

import errno

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from bags import HEIGHT, WIDTH, depth, frame, header, info
from geometry_msgs.msg import Vector3
from logged import LoggedRecording
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.conversions.instances import error_msg, to_msg
from instructsam_ros.conversions.point_clouds import POINT
from instructsam_ros.msg import InstanceArray
from instructsam_ros.viewer import answers
from instructsam_ros.viewer.answers import AnswerLog, Role, Topic

TOPICS = {
    role: Topic(f'/{role.value}', role, kind)
    for role, kind in (
        (Role.ANSWER, InstanceArray),
        (Role.IMAGE, Image),
        (Role.DEPTH, Image),
        (Role.CAMERA_INFO, CameraInfo),
        (Role.POINTS, PointCloud2),
    )
}


@pytest.fixture
def recording():
    return LoggedRecording()


@pytest.fixture
def log(recording):
    return AnswerLog(recording, [topic for role, topic in TOPICS.items() if role is not Role.POINTS])


def put(log, role, message):
    log.put(TOPICS[role].name, serialize_message(message))


def answer(index, size=(HEIGHT, WIDTH), mask_size=None, frame_id='camera_color_optical_frame'):
    """A measured object in the first 20 columns."""
    mask = np.zeros(mask_size or size, bool)
    mask[:, :20] = True
    result = Result('the mug', 'mug', *size, (Instance(Rle.encode(mask), 0.9, 'mug', 0, track_id=4),))
    message = to_msg(result, header(index), 'the mug', 1, geometry_frame_id=frame_id)
    message.instances[0].has_geometry = True
    message.instances[0].geometry.size = Vector3(x=1.0, y=1.0, z=1.0)
    return message


def image(index):
    return frame(index)[2]


@pytest.mark.parametrize('is_answer_first', [True, False])
def test_everything_of_a_stamp_is_shown_at_that_stamp(log, recording, is_answer_first):
    messages = [(Role.CAMERA_INFO, info()[2]), (Role.IMAGE, image(3)), (Role.DEPTH, depth(3)[2])]
    answers = [(Role.ANSWER, answer(3))]
    for role, message in answers + messages if is_answer_first else messages + answers:
        put(log, role, message)
    put(log, Role.IMAGE, image(4))  # nobody has answered it
    put(log, Role.DEPTH, depth(4)[2])
    assert log.notes == {}
    assert (log.answers, log.drawn) == (1, 1)
    assert {name: stamp for name, stamp, _ in recording.logged} == dict.fromkeys(
        ('answer', 'image', 'camera', 'depth', 'points'), 103
    )
    ((_, points, classes),) = recording.of('points')
    assert set(classes) == {5}
    np.testing.assert_allclose(points[:, 2], 1.0)
    np.testing.assert_allclose(points[:, 0].max(), (19 - (WIDTH - 1) / 2) / 60, rtol=1e-5)


@pytest.mark.parametrize(('most_bytes', 'drawn'), [(answers.MOST_BYTES, 1), (1 << 20, 0)])
def test_an_answer_that_took_seconds_has_its_image_while_there_is_memory(log, monkeypatch, most_bytes, drawn):
    monkeypatch.setattr(answers, 'MOST_BYTES', most_bytes)
    picture = image(0)
    for index in range(200):
        picture.header = header(index)
        put(log, Role.IMAGE, picture)
    put(log, Role.ANSWER, answer(0))
    put(log, Role.ANSWER, answer(199 - answers.KEPT_MESSAGES + 1))
    assert log.drawn == drawn + 1


def test_an_unchanged_camera_is_shown_once(log, recording):
    put(log, Role.CAMERA_INFO, info()[2])
    for index in range(3):
        put(log, Role.ANSWER, answer(index))
    assert len(recording.of('camera')) == 1


def test_points_of_the_node_replace_those_of_depth(log, recording):
    log.add_topic(TOPICS[Role.POINTS])
    cloud = PointCloud2(header=header(3), data=np.zeros(7, POINT).tobytes())
    for role, message in (
        (Role.CAMERA_INFO, info()[2]),
        (Role.DEPTH, depth(3)[2]),
        (Role.ANSWER, answer(3)),
        (Role.POINTS, cloud),
    ):
        put(log, role, message)
    ((_, points, classes),) = recording.of('points')
    assert (len(points), set(classes)) == (7, {5})


def test_no_points_where_the_node_has_measured_in_another_frame(log, recording):
    """The transform is not known here, and points in the wrong place would contradict the boxes."""
    for role, message in (
        (Role.CAMERA_INFO, info()[2]),
        (Role.DEPTH, depth(3)[2]),
        (Role.ANSWER, answer(3, frame_id='base')),
    ):
        put(log, role, message)
    assert recording.of('depth')
    assert not recording.of('points')


def test_images_without_stamps_belong_to_the_next_answer(log, recording):
    for _ in range(2):
        picture, message = image(0), answer(0)
        picture.header = message.header = Header()
        put(log, Role.IMAGE, picture)
        put(log, Role.ANSWER, message)
    assert len(recording.of('image')) == log.drawn == 2


@pytest.mark.parametrize(
    ('role', 'message', 'expected'),
    [
        (Role.ANSWER, answer(3, mask_size=(4, 4)), 'its image has 64 x 48 px, a mask 4 x 4'),
        (Role.ANSWER, InstanceArray(header=header(3), height=60_000, width=60_000), 'its image has 60000 x 60000 px'),
        (Role.IMAGE, Image(header=header(3), encoding='rgb8'), 'image on /image cannot be shown: '),
        (Role.DEPTH, Image(header=header(3), encoding='mono8'), 'mono8'),
        (Role.CAMERA_INFO, CameraInfo(header=header(3)), 'camera info on /camera info cannot be shown: '),
    ],
)
def test_a_message_that_cannot_be_shown_is_named_once(log, recording, role, message, expected):
    if role is Role.DEPTH:
        put(log, Role.CAMERA_INFO, info()[2])
    put(log, Role.ANSWER, answer(3))
    for _ in range(2):
        put(log, role, message)
    (note,) = log.notes
    assert expected in note
    assert len(recording.of('warning')) == 2


def test_bytes_that_are_no_message(log):
    log.put('/answer', b'\0\1\0\0')
    assert 'answer on /answer cannot be shown: it is not a valid InstanceArray' in next(iter(log.notes))


def test_an_image_of_another_size_is_another_topic(log):
    put(log, Role.IMAGE, image(3))
    put(log, Role.ANSWER, answer(3, size=(20, 30)))
    assert 'a result is of 30 x 20 px, but the image with its stamp has 64 x 48' in next(iter(log.notes))
    assert log.drawn == 0


def test_an_error_that_does_not_know_the_size_is_shown_with_its_image(log, recording):
    put(log, Role.CAMERA_INFO, info()[2])
    put(log, Role.IMAGE, image(3))
    put(log, Role.ANSWER, error_msg('the model is gone', header(3), 'the mug', 1))
    assert [name for name, _, _ in recording.logged] == ['answer', 'image']
    assert log.notes == {}


def test_a_full_disk_is_an_error(log, recording):
    def full(*_):
        raise OSError(errno.ENOSPC, 'full')

    recording.log_answer = full
    with pytest.raises(OSError, match='full'):
        put(log, Role.ANSWER, answer(3))

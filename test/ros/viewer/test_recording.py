"""The entities of a recording, as Rerun's own reader has them."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
pytest.importorskip('rerun.chunk', reason='needs the extra rerun')

from geometry_msgs.msg import Vector3
from rerun_rows import components, rows
from std_msgs.msg import Header

from instructsam.core.errors import GeometryError
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam_ros.conversions.instances import error_msg, result_from_msg, to_msg
from instructsam_ros.viewer.recording import Recording
from instructsam_ros.viewer.sinks import FileSink


def answer(second, frame_id='camera_optical_frame', track_id=0, phrase='mug'):
    """An object in the first four columns of an image of 8 x 6 px, measured in `frame_id`."""
    mask = np.zeros((6, 8), bool)
    mask[:, :4] = True
    header = Header(frame_id='camera_optical_frame')
    header.stamp.sec = second
    result = Result('it', phrase, 6, 8, (Instance(Rle.encode(mask), 0.5, phrase, 0, track_id=track_id),))
    message = to_msg(result, header, 'it', 1, geometry_frame_id=frame_id)
    message.instances[0].has_geometry = True
    message.instances[0].geometry.size = Vector3(x=0.3, y=0.2, z=0.1)
    return message


@pytest.fixture
def logged(tmp_path):
    """A function that logs messages and returns {entity: [values of a row]}."""

    def log(*messages):
        with Recording(FileSink(tmp_path / 'out.rrd')) as recording:
            for message in messages:
                recording.set_time(message.header.stamp)
                recording.log_answer(message, result_from_msg(message))
        entities = {}
        for row in rows(tmp_path / 'out.rrd'):
            entities.setdefault(row.entity, []).append(components(row))
        return entities

    return log


def test_objects_in_a_target_frame_are_apart_from_the_camera(logged):
    """Its transform is unknown here: in the camera's view they would be in a wrong place."""
    entities = logged(answer(1), answer(2, 'base'), answer(3))
    assert [row.get('labels') for row in entities['/frames/base/objects/boxes']] == [['#0 mug 0.50']]
    assert entities['/frames/base/objects'] == [{'is_recursive': [True]}]
    assert entities['/camera/objects'] == [{'is_recursive': [True]}]
    assert len(entities['/camera/objects/boxes']) == 2
    (axes,) = entities['/frames/base']
    assert axes['xyz'] == [[5, 4, 1]]  # forward, left, up


@pytest.mark.parametrize('text', ['a/b c', '\x1b[2J', 'Ü/../x', '/', '\n'], ids=ascii)
def test_odd_names(logged, text):
    entities = logged(answer(1, f'frame{text}', phrase=text))
    (boxes,) = [rows for entity, rows in entities.items() if entity.startswith('/frames/') and 'boxes' in entity]
    assert boxes[0]['labels'][0].isprintable()


def test_classes_beyond_a_byte_and_foreign_ids(logged):
    for track_id, expected in ((0, 1), (300, 301), (70_000, 4466), (-7, 65_529)):
        entities = logged(answer(1, track_id=track_id))
        (masks,) = entities['/camera/image/masks']
        kind = np.uint8 if expected < 256 else np.uint16
        assert set(np.frombuffer(bytes(masks['buffer'][0]), kind)) == {0, expected}
        assert entities['/camera/image/boxes'][0]['class_ids'] == [expected]


def test_an_error_leaves_no_mask_of_before(logged):
    first, failed = answer(1), answer(2)
    entities = logged(first, error_msg('no model', failed.header, 'it', 1))
    assert entities['/camera/image/masks'][1] == {'is_recursive': [False]}
    assert entities['/camera/image/boxes'][1]['labels'] == []
    assert entities['/log'][1] == {'level': ['ERROR'], 'text': ['it: error: no model']}


def test_a_position_that_is_none(logged):
    message = answer(1)
    message.instances[0].geometry.pose.position.x = float('nan')
    with pytest.raises(GeometryError, match='a position is finite'):
        logged(message)

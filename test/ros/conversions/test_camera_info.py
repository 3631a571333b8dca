"""CameraInfo messages to calibrations, and topics that say whether their images are rectified."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.calibration import Calibration, camera_model
from instructsam_ros.conversions.camera_info import calibration, is_rectified_topic

K = [500.0, 0.0, 31.5, 0.0, 510.0, 23.5, 0.0, 0.0, 1.0]


def test_every_field_is_read():
    info = CameraInfo(
        height=48,
        width=64,
        k=K,
        d=[0.1, 0.2, 0.0, 0.0],
        r=[float(i) for i in range(9)],
        p=[float(i) for i in range(12)],
        distortion_model='equidistant',
        binning_x=2,
        binning_y=3,
        roi=RegionOfInterest(x_offset=1, y_offset=2, width=3, height=4),
    )
    assert calibration(info) == Calibration(
        width=64,
        height=48,
        k=tuple(K),
        d=(0.1, 0.2, 0.0, 0.0),
        r=tuple(map(float, range(9))),
        p=tuple(map(float, range(12))),
        distortion_model='equidistant',
        binning_x=2,
        binning_y=3,
        roi=(1, 2, 3, 4),
    )


def test_equal_messages_share_their_camera_model():
    models = [camera_model(calibration(CameraInfo(height=48, width=64, k=K)), (48, 64)) for _ in range(2)]
    assert models[0] is models[1]  # its rays are not computed again for every image


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'k': [0.0] * 9}, 'focal lengths'),
        ({'k': [float('nan')] * 9}, 'k has numbers that are not finite'),
        ({'p': [float('inf')] * 12}, 'p has numbers that are not finite'),
        ({'height': 0, 'width': 0}, 'not filled in'),
        ({'distortion_model': 'magic', 'd': [0.1] * 5}, 'magic'),
    ],
    ids=['zeros', 'nan', 'infinite', 'empty', 'unknown lens'],
)
def test_unusable_camera_info_is_refused(fields, says):
    with pytest.raises(GeometryError, match=says):
        camera_model(calibration(CameraInfo(**{'height': 48, 'width': 64, 'k': K, **fields})), (48, 64))


@pytest.mark.parametrize(
    ('topic', 'expected'),
    [
        ('/camera/image_raw', False),
        ('/camera/image', False),
        ('/camera/image_color', False),
        ('/camera/image_rect', True),
        ('/camera/image_rect_color', True),
        ('/camera/image_rect_color/compressed', True),
        ('/camera/infra1/image_rect_raw', True),
        ('/zed/zed_node/rgb/color/rect/image', True),
        ('/zed/zed_node/rgb/color/rect/image/compressed', True),
        ('/camera/rect/image_raw', False),
        ('/stereo/image_rectified', True),
        ('/rect/front/image_raw', False),
        ('/direct/rectangle/image', False),
        ('/camera/image_unrectified', False),
        ('image', False),
        ('', False),
    ],
)
def test_names_of_rectified_topics(topic, expected):
    assert is_rectified_topic(topic) is expected

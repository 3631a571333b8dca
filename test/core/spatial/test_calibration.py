"""CameraInfo read whole: window, binning, rectification, and contradictions that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.calibration import Calibration, camera_model, check_frames, frame_pairs

W, H = 640, 480
K = (500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0)
P = (450.0, 0.0, 310.0, 0.0, 0.0, 450.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0)
D = (-0.3, 0.1, 0.001, 0.0, 0.0)
FULL = Calibration(width=W, height=H, k=K)
TURNED = (0.9998, 0.02, 0.0, -0.02, 0.9998, 0.0, 0.0, 0.0, 1.0)


def projection(calibration, size, **kwargs):
    """Return (fx, fy, cx, cy) of the image."""
    k = camera_model(calibration, size, **kwargs).intrinsics
    return k[0, 0], k[1, 1], k[0, 2], k[1, 2]


@pytest.mark.parametrize(
    ('fields', 'size', 'expected'),
    [
        ({}, (480, 640), (500, 510, 320, 240)),
        ({'roi': (0, 0, 640, 480)}, (480, 640), (500, 510, 320, 240)),
        ({'binning_x': 1, 'binning_y': 1}, (480, 640), (500, 510, 320, 240)),
        ({'roi': (60, 100, 340, 300)}, (300, 340), (500, 510, 260, 140)),
        ({'roi': (60, 100, 340, 300), 'width': 340, 'height': 300}, (300, 340), (500, 510, 260, 140)),
        ({'roi': (60, 100, 0, 0), 'width': 340, 'height': 300}, (300, 340), (500, 510, 260, 140)),
        ({'binning_x': 2, 'binning_y': 2}, (240, 320), (250, 255, 160, 120)),
        ({'binning_x': 2, 'binning_y': 3}, (160, 320), (250, 170, 160, 80)),
        ({'binning_x': 3}, (480, 213), (500 / 3, 510, 320 / 3, 240)),
        ({'binning_x': 3}, (480, 214), (500 / 3, 510, 320 / 3, 240)),
        ({'binning_x': 2, 'binning_y': 2, 'width': 320, 'height': 240}, (240, 320), (250, 255, 160, 120)),
        ({'binning_x': 2, 'binning_y': 2, 'roi': (60, 100, 340, 300)}, (150, 170), (250, 255, 130, 70)),
        (
            {'binning_x': 2, 'binning_y': 2, 'roi': (60, 100, 340, 300), 'width': 340, 'height': 300},
            (150, 170),
            (250, 255, 130, 70),
        ),
        (
            {'binning_x': 2, 'binning_y': 2, 'roi': (60, 100, 340, 300), 'width': 170, 'height': 150},
            (150, 170),
            (250, 255, 130, 70),
        ),
    ],
    ids=[
        *('full', 'explicit', 'binning of 1', 'roi', 'roi, window size', 'roi, no size', 'binning', 'unequal binning'),
        *('remainder dropped', 'remainder kept', 'binned size', 'both', 'both, window size', 'both, binned size'),
    ],
)
def test_window_and_binning_as_image_geometry_has_them(fields, size, expected):
    np.testing.assert_allclose(projection(replace(FULL, **fields), size), expected)


def test_rectified_images_are_described_by_p_alone():
    calibration = replace(FULL, d=D, p=P, r=TURNED, binning_x=2, binning_y=2, roi=(60, 100, 340, 300))
    camera = camera_model(calibration, (150, 170), is_rectified=True)
    np.testing.assert_allclose(camera.intrinsics, [[225, 0, 125], [0, 225, 75], [0, 0, 1]])
    assert camera.rays[0][0, 0] == np.float32(-125 / 225)  # no distortion
    raw = camera_model(replace(calibration, r=(0.0,) * 9), (150, 170))
    np.testing.assert_allclose(raw.intrinsics, [[250, 0, 130], [0, 255, 70], [0, 0, 1]])


def test_an_undistorted_camera_without_p_is_the_same_rectified():
    assert projection(FULL, (480, 640), is_rectified=True) == (500, 510, 320, 240)


@pytest.mark.parametrize(
    ('fields', 'size', 'says'),
    [
        ({}, (240, 320), 'is of 640 x 480 pixels, the image is of 320 x 240'),
        ({'width': 1280, 'height': 960}, (480, 640), 'is of 1280 x 960 pixels, the image is of 640 x 480'),
        ({}, (640, 480), 'is of 640 x 480 pixels, the image is of 480 x 640'),
        ({'binning_x': 2, 'binning_y': 2}, (160, 320), '640 x 480 pixels, binned by 2 x 2, the image is of 320 x 160'),
        (
            {'roi': (60, 100, 340, 300)},
            (480, 640),
            'a region of interest of 340 x 300 pixels, the image is of 640 x 48',
        ),
        ({'roi': (60, 100, 340, 0)}, (300, 340), 'a region of interest of 340 x 0 pixels'),
        ({'roi': (400, 100, 340, 300)}, (300, 340), r'340 x 300 pixels at \(400, 100\), is not within its 640 x 480'),
        ({'width': 0, 'height': 0}, (480, 640), 'not filled in'),
    ],
    ids=['half', 'other', 'turned', 'binned', 'not cropped', 'no height', 'outside', 'empty'],
)
def test_contradicting_sizes_are_refused_with_both_named(fields, size, says):
    with pytest.raises(GeometryError, match=says):
        camera_model(replace(FULL, **fields), size)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'k': (900.0, 0, 640.0, 0, 900.0, 480.0, 0, 0, 1)}, 'k is that of an image of about 1281 x 961 .* 640 x 480'),
        ({'k': (250.0, 0, 160.0, 0, 250.0, 120.0, 0, 0, 1)}, 'k is that of an image of about 321 x 241 .* 640 x 480'),
        ({'k': (0.8, 0, 0.5, 0, 1.1, 0.5, 0, 0, 1)}, 'about 2 x 2'),
        ({'k': (0.8, 0, 320.0, 0, 1.1, 240.0, 0, 0, 1)}, 'focal lengths 0.8 and 1.1 px cannot be those'),
        ({'k': (5e8, 0, 320.0, 0, 5e8, 240.0, 0, 0, 1)}, 'cannot be those'),
        ({'k': (0.0,) * 9}, 'focal lengths above 0'),
        ({'k': (-500.0, *K[1:])}, 'focal lengths above 0'),
        ({'k': (500.0, 3.0, *K[2:])}, r'K \[\[fx, 0, cx\]'),
        ({'k': (*K[:8], 2.0)}, r'K \[\[fx, 0, cx\]'),
        ({'k': (np.nan, *K[1:])}, 'camera_info.k has numbers that are not finite'),
        ({'d': (np.inf, 0.0, 0.0, 0.0)}, 'camera_info.d has numbers that are not finite'),
        ({'r': (np.nan,) * 9}, 'camera_info.r has numbers that are not finite'),
        ({'p': (*P[:11], -np.inf)}, 'camera_info.p has numbers that are not finite'),
        ({'r': TURNED}, 'camera_info.r turns the camera frame'),
        ({'distortion_model': 'equidistant', 'd': (0.0,) * 4}, 'all zero'),
        ({'binning_x': 2, 'width': 320, 'height': 240, 'k': (250.0, 0, 160.0, 0, 99.0, 60.0, 0, 0, 1)},
         'about 321 x 121 pixels'),
    ],
)  # fmt: skip
def test_calibrations_that_cannot_be_right_are_refused(fields, says):
    size = (240, 320) if 'width' in fields else (480, 640)
    with pytest.raises(GeometryError, match=says):
        camera_model(replace(FULL, **fields), size)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'d': D}, 'the image is rectified, but camera_info.p'),
        ({'p': (*P[:3], -45.0, *P[4:])}, r'has the offset \[-45.0, 0.0, 0.0\] of the second camera'),
        ({'p': (*P[:7], 12.0, *P[8:])}, r'has the offset \[0.0, 12.0, 0.0\] of the second camera'),
        ({'p': (900.0, 0, 640.0, 0, 0, 900.0, 480.0, 0, 0, 0, 1, 0)}, 'p is that of an image of about 1281 x 961'),
    ],
    ids=['zeros', 'right camera', 'lower camera', 'other size'],
)
def test_projections_that_do_not_say_enough_are_refused(fields, says):
    with pytest.raises(GeometryError, match=says):
        camera_model(replace(FULL, **fields), (480, 640), is_rectified=True)


@pytest.mark.parametrize('r', [(0.0,) * 9, (1.0, 0, 0, 0, 1, 0, 0, 0, 1), (1.0, 1e-3, 0, -1e-3, 1, 0, 0, 0, 1)])
def test_rotations_that_turn_nothing_are_ignored(r):
    assert projection(replace(FULL, r=r), (480, 640)) == (500, 510, 320, 240)


def test_last_number_of_k_may_be_missing():
    assert projection(replace(FULL, k=(*K[:8], 0.0)), (480, 640)) == (500, 510, 320, 240)


@pytest.mark.parametrize(
    ('frames', 'tolerated'),
    [
        (('camera', 'camera', 'camera'), ''),
        (('camera', '/camera', 'camera'), ''),
        (('', '', ''), ''),
        (('rgb', 'depth', 'rgb'), 'rgb=depth'),
        (('rgb', '/depth', 'info'), 'depth=/rgb, info = rgb'),
        (('rgb', '', 'rgb'), '=rgb'),
    ],
)
def test_frames_of_one_camera(frames, tolerated):
    check_frames(*frames, tolerated)


@pytest.mark.parametrize(
    ('frames', 'tolerated', 'says'),
    [
        (('rgb', 'depth', 'rgb'), '', "depth is of the frame 'depth', the image of 'rgb'"),
        (('rgb', 'rgb', 'depth'), '', "camera_info is of the frame 'depth', the image of 'rgb'"),
        (('rgb', 'depth', 'depth'), 'rgb=infra', "depth is of the frame 'depth'"),
        (('rgb', 'depth', 'info'), 'depth=info', "depth is of the frame 'depth'"),
        (('', 'depth', 'depth'), '', r"the image of '' \(not set\)"),
        (('rgb', 'rgb', ''), '', r"camera_info is of the frame '' \(not set\), the image of 'rgb'"),
        (('rgb', 'Rgb', 'rgb'), '', "depth is of the frame 'Rgb'"),
    ],
)
def test_frames_of_several_cameras_are_refused(frames, tolerated, says):
    with pytest.raises(GeometryError, match=says):
        check_frames(*frames, tolerated)


@pytest.mark.parametrize('text', ['any', 'a=b=c', 'a=a', 'a=b,', 'a=b;c=d', '='])
def test_other_texts_are_no_pairs(text):
    with pytest.raises(GeometryError, match='frame_tolerance is pairs of frames'):
        frame_pairs(text)


def test_the_models_that_are_kept_are_bounded_by_their_pixels():
    def model(number, height, width=1000):
        k = (1000.0 + number, 0.0, width / 2, 0.0, 1000.0, height / 2, 0.0, 0.0, 1.0)
        return camera_model(Calibration(width, height, k=k), (height, width))

    first = model(1, 480)
    assert model(1, 480) is first
    large = model(3, 8000, 8000)  # above the bound: kept as long as no other is used
    assert model(3, 8000, 8000) is large
    assert model(1, 480) is not first
    assert model(3, 8000, 8000) is not large
    models = [model(number, 480) for number in range(10)]
    assert [model(number, 480) is models[number] for number in (9, 8, 2)] == [True] * 3
    assert model(1, 480) is not models[1]

"""`instructsam bag show`."""

import errno
import os

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap
from bags import FRAMES, HEIGHT, WIDTH, Engine, header, recording, rgb_image, run, show, write
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from instructsam.core.result import Result
from instructsam_ros.bag import annotate
from instructsam_ros.bag.topics import INSTANCES
from instructsam_ros.conversions.instances import image_msg, to_msg


@pytest.fixture(scope='module')
def answered(tmp_path_factory):
    """Return a bag with results; its images are compressed and have an odd size."""
    folder = tmp_path_factory.mktemp('answered')
    recorded = []
    for index in range(FRAMES):
        _, jpeg = cv2.imencode('.png', rgb_image(index)[:-1, :-1, ::-1])
        message = CompressedImage(header=header(index), format='png', data=jpeg.tobytes())
        recorded.append((index * 100, '/camera/image/compressed', message))
    source = write(folder / 'in', 'mcap', recorded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotate, 'load_engine', lambda args, console: Engine())
        assert run(source, folder / 'out', '--instruction', 'red green', '--label-images') == 0
    return folder / 'out'


def check_is_drawn(pixels, index):
    """Check that the red square is tinted and the cloth is not."""
    expected = rgb_image(index)[:-1, :-1]
    red = np.zeros(expected.shape[:2], bool)
    red[10:18, 7 + 2 * index : 15 + 2 * index] = True
    assert np.abs(pixels[red].astype(int) - expected[red]).mean() > 30
    assert np.abs(pixels[:4].astype(int) - expected[:4]).mean() < 30


def test_a_video(answered, tmp_path, capsys):
    assert show(answered, tmp_path / 'v.mp4') == 0
    assert '8 of 8 results on /perception/instances drawn' in capsys.readouterr().out
    video = cv2.VideoCapture(str(tmp_path / 'v.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == FRAMES
    assert frames[0].shape == (46, 62, 3)


def test_an_animation(answered, tmp_path):
    assert show(answered, tmp_path / 'a.gif', '--fps', '4') == 0
    with PillowImage.open(tmp_path / 'a.gif') as gif:
        assert (gif.n_frames, gif.info['duration'], gif.size) == (FRAMES, 250, (WIDTH - 1, HEIGHT - 1))
        gif.seek(5)
        check_is_drawn(np.array(gif.convert('RGB')), 5)


def test_an_animation_of_a_fast_camera_is_not_slow_in_a_browser(answered, tmp_path):
    assert show(answered, tmp_path / 'a.gif', '--fps', '60') == 0
    with PillowImage.open(tmp_path / 'a.gif') as gif:
        assert gif.info['duration'] == 20


def test_a_strip(answered, tmp_path):
    assert show(answered / 'out.mcap', tmp_path / 's.png', '--frames', '3') == 0
    pixels = np.array(PillowImage.open(tmp_path / 's.png'))
    assert pixels.shape == (HEIGHT - 1, 3 * (WIDTH - 1), 3)
    for position, index in enumerate((0, 4, 7)):
        check_is_drawn(pixels[:, position * (WIDTH - 1) : (position + 1) * (WIDTH - 1)], index)


@pytest.mark.parametrize('name', ['a.png', 'a.rrd'])
def test_results_of_a_node_that_takes_seconds(tmp_path, name, capsys):
    if name == 'a.rrd':
        pytest.importorskip('rerun', reason='needs the extra rerun')
    images = [image_msg(rgb_image(0), header(index)) for index in range(120)]
    answers = [
        to_msg(Result('red', '', HEIGHT, WIDTH, ()), image.header, 'red', 1) for image in (images[0], images[10])
    ]
    records = [mcap.schema(1, 'sensor_msgs/msg/Image', definition=''), mcap.channel(1, 1, '/camera/image')]
    records += [mcap.schema(2, INSTANCES, definition=''), mcap.channel(2, 2, '/perception/instances')]
    records += [mcap.message(1, index, serialize_message(image)) for index, image in enumerate(images)]
    records += [mcap.message(2, 100 + index, serialize_message(answer)) for index, answer in enumerate(answers)]
    assert show(mcap.write(tmp_path / 'live.mcap', *records), tmp_path / name) == 0
    assert '2 of 2 results on /perception/instances' in capsys.readouterr().out


@pytest.fixture
def earlier(tmp_path):
    """Return a function that checks that files of an earlier run are as they were, and that there is nothing else."""
    for name in ('v.mp4', 'v.gif'):
        (tmp_path / name).write_text(name)

    def check():
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {'v.mp4': 'v.mp4', 'v.gif': 'v.gif'}

    return check


def test_a_video_that_is_incomplete_is_a_storage_fault(answered, tmp_path, capsys, monkeypatch, earlier):
    """OpenCV reports no error of writing."""

    class Truncating:
        fourcc = staticmethod(cv2.VideoWriter.fourcc)

        def __init__(self, file, *args):
            self._file = file

        def isOpened(self):  # noqa: N802
            return True

        def write(self, image):
            pass

        def release(self):
            with open(self._file, 'wb') as file:
                file.write(b'\0\0\0 ftypisom')

    monkeypatch.setattr(cv2, 'VideoWriter', Truncating)
    assert show(answered, tmp_path / 'v.mp4') == 4
    err = capsys.readouterr().err
    assert f'cannot write {tmp_path / "v.mp4"}: 0 of 8 images can be read back' in err
    earlier()


def test_a_full_disk(answered, tmp_path, capsys, monkeypatch, earlier):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PillowImage.Image, 'save', full)
    monkeypatch.setattr(os, 'fsync', full)
    for name in ('v.gif', 'v.mp4'):
        assert show(answered, tmp_path / name) == 4
        err = capsys.readouterr().err
        assert f'cannot write {tmp_path / name}: No space left on device; free some space' in err
        assert err.count('\n') == 1
        earlier()


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['v.avi'], 'FILE ends in .mp4, .gif, .png'),
        (['no/v.mp4'], 'there is no folder'),
        (['v.png', '--topic', '/motor'], 'is of type robot_msgs/msg/Motor'),
    ],
)
def test_what_cannot_be_shown(answered, tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert show(answered, *arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_missing_file_argument_is_a_usage_error(answered, capsys):
    with pytest.raises(SystemExit, match='2'):
        show(answered)
    assert 'the following arguments are required: FILE' in capsys.readouterr().err


def test_a_bag_without_results_cannot_be_shown(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    assert show(source, tmp_path / 'v.png') == 2
    assert 'has no results; make some with `instructsam bag annotate' in capsys.readouterr().err

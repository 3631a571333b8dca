"""`instructsam bag annotate` on depth that was recorded compressed, and what its summary says about unread topics."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import cv2
from bags import FRAMES, HEIGHT, WIDTH, depth, frame, header, info, only_results, recording, rgb_image, run, write
from depth_messages import compressed_depth, png, rvl
from sensor_msgs.msg import CompressedImage

pytest_plugins = ['bags']  # the fixture `engines`
pytestmark = pytest.mark.usefixtures('engines')

ALIGNED = '/camera/aligned_depth_to_color/image_raw'
FLAT_MM = np.full((HEIGHT, WIDTH), 1000, np.uint16)


def compressed(index, codec=png, values=FLAT_MM, topic=f'{ALIGNED}/compressedDepth', **fields):
    return index * 100 + 60, topic, compressed_depth(values, codec, header=header(index), **fields)


def plain_png(index):
    return compressed(index, topic=f'{ALIGNED}/compressed', format='16UC1; png compressed ', data=png(FLAT_MM))


def annotate(tmp_path, recorded, *options):
    source = write(tmp_path / 'in', 'mcap', recorded)
    assert run(source, tmp_path / 'out', '--instruction', 'red green', *options) == 0
    return only_results(tmp_path / 'out')


def centers(results):
    return [
        [getattr(each.geometry.pose.position, axis) for axis in 'xyz']
        for result in results
        for each in result.instances
    ]


@pytest.mark.parametrize(
    'kind',
    [
        compressed,
        lambda index: compressed(index, rvl),
        lambda index: compressed(index, values=(FLAT_MM / 1000).astype(np.float32)),
        plain_png,
    ],
    ids=['compressedDepth png', 'compressedDepth rvl', 'inverse depth', 'png'],
)
def test_compressed_depth_locates_as_raw_depth_does(tmp_path, kind, capsys):
    (tmp_path / 'raw').mkdir()
    raw = annotate(tmp_path / 'raw', recording(info(), *map(depth, range(FRAMES))))
    found = annotate(tmp_path, recording(info(), *map(kind, range(FRAMES))))
    assert all(each.has_geometry for result in found for each in result.instances)
    np.testing.assert_allclose(centers(found), centers(raw), atol=1e-3)
    assert f'in 3D by {ALIGNED}/compressed' in capsys.readouterr().out


def test_the_best_transport_with_messages_is_read_and_the_others_are_named(tmp_path, capsys):
    annotate(tmp_path, recording(info(), *map(depth, range(FRAMES)), *map(compressed, range(FRAMES)), plain_png(0)))
    out = capsys.readouterr().out
    assert f'in 3D by {ALIGNED}\n' in out
    assert f'not read        {ALIGNED}/compressedDepth: {ALIGNED} is read instead\n' in out
    assert f'not read        {ALIGNED}/compressed: {ALIGNED} is read instead\n' in out


@pytest.mark.parametrize('name', [f'{ALIGNED}/compressedDepth', ALIGNED])
def test_depth_option_takes_the_topic_of_the_transport_or_of_the_raw_images(tmp_path, name):
    results = annotate(tmp_path, recording(info(), *map(compressed, range(FRAMES))), '--depth', name)
    assert all(each.has_geometry for result in results for each in result.instances)


def test_jpeg_of_depth_is_refused_with_advice(tmp_path, capsys):
    jpeg = cv2.imencode('.jpg', np.zeros((HEIGHT, WIDTH), np.uint8))[1].tobytes()
    topic, name = f'{ALIGNED}/compressed', '16UC1; jpeg compressed mono8'
    recorded = [compressed(index, topic=topic, format=name, data=jpeg) for index in range(FRAMES)]
    results = annotate(tmp_path, recording(info(), *recorded))
    assert not any(each.has_geometry for result in results for each in result.instances)
    assert all('JPEG, which loses the depth' in result.geometry_message for result in results)
    assert f'{FRAMES} results; most often: depth in a CompressedImage' in capsys.readouterr().out


def test_images_and_depth_that_are_not_read_are_named(tmp_path, capsys):
    theora = (b'\0\1\0\0' + bytes(40), 'theora_image_transport/msg/Packet')
    others = [
        (5, '/camera/image/theora', theora),
        (5, '/camera/depth/image_rect_raw/compressedDepth', compressed(0)[2]),
        (5, '/right/image', frame(0)[2]),
        (5, f'{ALIGNED}/zstd', CompressedImage(header=header(0), format='16UC1; zstd', data=b'(\xb5/\xfd')),
    ]
    annotate(tmp_path, recording(*others), '--topic', '/camera/image')
    out = capsys.readouterr().out
    assert 'without depth   all results, because no topic of depth is read' in out
    for line in (
        '/camera/image/theora: theora_image_transport/msg/Packet of the transport theora cannot be read',
        '/camera/depth/image_rect_raw/compressedDepth: no depth is read; if it is aligned to the images, name it',
        '/right/image: /camera/image is read; --topic names another',
        f'{ALIGNED}/zstd: sensor_msgs/msg/CompressedImage of the transport zstd cannot be read',
    ):
        assert f'not read        {line}' in out


def test_raw_images_are_read_where_compressed_ones_are_recorded_too(tmp_path, capsys):
    jpeg = cv2.imencode('.jpg', rgb_image(0))[1].tobytes()
    second = 5, '/camera/image/compressed', CompressedImage(header=header(0), format='jpeg', data=jpeg)
    annotate(tmp_path, recording(second))
    out = capsys.readouterr().out
    assert f'images          {FRAMES} on /camera/image\n' in out
    assert 'not read        /camera/image/compressed: /camera/image is read instead' in out

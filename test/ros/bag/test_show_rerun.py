"""`instructsam bag show OUT FILE.rrd`."""

import resource
import signal
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from bags import FRAMES, HEIGHT, START_NS, WIDTH, Engine, depth, info, recording, rgb_image, run, show, write
from rerun_rows import components, open_recording, rows

from instructsam_ros.bag import annotate


@pytest.fixture(scope='module')
def answered(tmp_path_factory):
    """Return a bag with results, in 3D except 0 and 5, whose depth is missing; nothing is blue."""
    folder = tmp_path_factory.mktemp('answered')
    instructions = folder / 'timeline.yaml'
    instructions.write_text('- {at: 0, instruction: red green}\n- {at: 0.6, instruction: blue}\n')
    source = write(folder / 'in', 'mcap', recording(info(), *(depth(index) for index in (1, 2, 3, 4, 6, 7))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotate, 'load_engine', lambda args, console: Engine())
        assert run(source, folder / 'out', '--instructions', instructions) == 0
    return folder / 'out'


def read(path):
    """Return {entity: {image index: {component: values}}} as Rerun's own reader has it; static values have no index."""
    reader = open_recording(path)
    assert [recording.application_id for recording in reader.recordings()] == ['instructsam']
    assert reader.blueprints()
    entities = {}
    for row in rows(path):
        image = None
        if not row.is_static:
            image, rest = divmod(row.cells['stamp'].value - 100_000_000_007, 1_000_000_000)
            assert (rest, row.cells['bag_time'].value) == (0, START_NS + image * 100_000_000)
        entities.setdefault(row.entity, {}).setdefault(image, {}).update(components(row))  # the last one is shown
    return entities


def test_a_recording(answered, tmp_path, capsys):
    pytest.importorskip('rerun', reason='needs the extra rerun')
    assert show(answered, tmp_path / 'out.rrd') == 0
    output = capsys.readouterr()
    assert f'8 of 8 results on /perception/instances with their images: {tmp_path / "out.rrd"}' in output.out
    assert output.err == ''
    assert [file.name for file in tmp_path.iterdir()] == ['out.rrd']

    entities = read(tmp_path / 'out.rrd')
    every = set(range(FRAMES))
    for entity in ('', '/image/color', '/image/boxes', '/image/masks', '/objects/boxes', '/objects/points'):
        assert set(entities[f'/camera{entity}']) - {None} == every, entity
    assert set(entities['/camera/image/depth']) == every - {0}
    assert entities['/camera/image/depth'][5] == {'is_recursive': [False]}  # not that of image 4
    # The first answer has a camera, but no depth.
    assert entities['/camera/image'][0]['resolution'] == [[WIDTH, HEIGHT]]

    jpeg = np.array(entities['/camera/image/color'][3]['blob'][0], np.uint8)
    np.testing.assert_allclose(
        cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[12:16, 14:18, ::-1], rgb_image(3)[12:16, 14:18], atol=40
    )
    labels = ['#0 red thing 0.90', '#1 green thing 0.80']
    boxes = entities['/camera/image/boxes'][3]
    assert (boxes['labels'], boxes['class_ids']) == (labels, [1, 2])
    assert (boxes['centers'], boxes['half_sizes']) == ([[17, 14], [47, 34]], [[7, 6]] * 2)
    masks = np.array(entities['/camera/image/masks'][3]['buffer'][0], np.uint8).reshape(HEIGHT, WIDTH)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[8:20, 10:24], expected[28:40, 40:54] = 1, 2
    np.testing.assert_array_equal(masks, expected)
    infos = entities['/camera'][3]['context'][0]
    assert [each['class_description']['info']['label'] for each in infos] == ['background', *labels]


def test_places_scores_and_texts_of_a_recording(answered, tmp_path):
    pytest.importorskip('rerun', reason='needs the extra rerun')
    assert show(answered, tmp_path / 'out.rrd') == 0
    entities = read(tmp_path / 'out.rrd')
    boxes, points = entities['/camera/objects/boxes'][3], entities['/camera/objects/points'][3]
    (red, green), depth_m = boxes['centers'], 1.0
    np.testing.assert_allclose(red, [(16.5 - (WIDTH - 1) / 2) / 60, (13.5 - (HEIGHT - 1) / 2) / 60, depth_m], atol=0.01)
    assert green[0] > red[0]
    positions, classes = np.array(points['positions']), np.array(points['class_ids'])
    assert set(classes) == {1, 2}
    np.testing.assert_allclose(positions[classes == 1].mean(axis=0), red, atol=0.01)
    assert entities['/camera/objects/boxes'][0]['centers'] == []
    assert entities['/camera/objects/points'][0]['positions'] == []

    scores = entities['/scores/id_0']
    assert scores[None]['names'] == ['#0 red thing']
    assert [scores[index]['scalars'][0] for index in range(6)] == pytest.approx([0.9] * 6)
    assert scores[6]['is_recursive'] == [False]  # cleared: the object is gone
    log = entities['/log']
    assert log[3] == {'level': ['INFO'], 'text': ['red green: #0 red thing 0.90, #1 green thing 0.80']}
    assert 'not measured: no depth image with the stamp of the image' in log[0]['text'][0]
    assert log[7]['text'] == ['blue: no target']
    assert entities['/camera/image/boxes'][7]['labels'] == []
    assert not any(entities['/camera/image/masks'][7]['buffer'][0])


def test_a_full_disk(answered, tmp_path, capsys, monkeypatch):
    """Rerun's own writer would end without telling, and the process would wait for it forever."""
    pytest.importorskip('rerun', reason='needs the extra rerun')
    (tmp_path / 'out.rrd').write_text('earlier')
    limits, previous = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        code = show(answered, tmp_path / 'out.rrd')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert code == 4
    assert f'cannot write {tmp_path / "out.rrd"}: File too large' in capsys.readouterr().err
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {'out.rrd': 'earlier'}


def test_without_rerun_the_extra_is_named(answered, tmp_path, capsys, monkeypatch):
    for name in ('instructsam_ros.viewer.recording', 'instructsam_ros.bag.drawing.rerun_file'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, 'rerun', None)
    assert show(answered, tmp_path / 'out.rrd') == 2
    error = capsys.readouterr().err
    assert (
        error
        == 'instructsam: error: \'bag\' needs rerun, which is not installed: pip install "instructsam-ros[rerun]"\n'
    )
    assert not list(tmp_path.iterdir())

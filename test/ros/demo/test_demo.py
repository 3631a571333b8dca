"""`instructsam demo` as a user runs it: three processes over DDS."""

import os
import re
import signal
import subprocess
import uuid

import numpy as np
import pytest
from command_line import COMMAND
from ros_domain import reserve_domain

from instructsam.core import cli
from instructsam.core.files.image_file import read_image

psutil = pytest.importorskip('psutil')
names = pytest.importorskip('instructsam_ros.demo.names', reason='needs ROS 2 or its wheels', exc_type=ImportError)
pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

DEMO = [*COMMAND, 'demo']
MARK = 'INSTRUCTSAM_TEST_MARK'  # environment variable of the command and of all processes that it starts
TIMEOUT_S = 240


@pytest.fixture
def mark():
    """Return an environment for the command; check that no process that it started is left."""
    env = os.environ | {MARK: uuid.uuid4().hex}
    yield env
    left = [process for process in psutil.process_iter() if _marked_as(process) == env[MARK]]
    for process in left:
        process.kill()
    assert not left


def _marked_as(process):
    try:
        return process.environ().get(MARK)
    except psutil.Error:  # the process has ended, or belongs to another user
        return None


def run(*arguments, **kwargs):
    return subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, **kwargs)


def test_from_camera_topic_to_overlay(tmp_path, mark):
    arguments = ('--recording', str(names.FRAME), '--instruction', 'all objects – 全部')  # noqa: RUF001
    done = run(*arguments, env=mark, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'result received on /instructsam_perception/instances' in done.stdout
    assert 'all objects – 全部' in done.stdout  # noqa: RUF001
    assert 'WARNING: built-in model' in done.stdout
    assert done.stdout.splitlines()[-1].endswith(str(tmp_path / 'instructsam_demo.png'))
    frame, overlay = read_image(names.FRAME / 'rgb.png'), read_image(tmp_path / 'instructsam_demo.png')
    assert overlay.shape == frame.shape
    unchanged = (overlay == frame).all(axis=2).mean()
    assert 0.01 < unchanged < 0.9  # the same image with an overlay
    np.testing.assert_array_equal(overlay[2, 2], (255, 193, 7))  # the warning's banner


def test_instructions_and_diagnostics_of_a_recording_are_not_those_of_the_demo(tmp_path, mark):
    import bags
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from std_msgs.msg import String

    empty = DiagnosticStatus(level=DiagnosticStatus.ERROR, name='battery', message='it is empty')
    others = [(0, '/diagnostics', DiagnosticArray(status=[empty])), (100, '/instruction', String(data='their words'))]
    bag = bags.write(tmp_path / 'bag', 'mcap', bags.recording(*others))
    done = run('--recording', str(bag), '--instruction', 'the red objects', env=mark, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'their words' not in done.stdout


def test_the_shipped_recordings_are_shown_in_one_picture(tmp_path, mark):
    done = run('--out', 'all.png', env=mark, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    asked = [instruction for _, instructions in names.SHOWCASES for instruction in instructions]
    assert done.stdout.count('result received on /instructsam_perception/instances') == len(asked) == 6
    parts = done.stdout.split('instruction sent: ')
    for recording, _ in names.SHOWCASES:
        assert f'replay of {recording.name} on' in done.stdout
    for instruction, part in zip(asked, parts[1:], strict=True):
        assert part.startswith(f'{instruction}\n')
        assert part.count(instruction) > 1  # also beside its result
    picture, frame = read_image(tmp_path / 'all.png'), read_image(names.FRAME / 'rgb.png')
    assert picture.shape == (640 + 480, 3 * 640, 3)
    lower = [picture[640:, left : left + 640] for left in (0, 640, 1280)]
    assert all(0.01 < (overlay == frame).all(axis=2).mean() < 0.97 for overlay in lower)
    assert not np.array_equal(lower[0], lower[1])
    assert picture[:640].std() > 10  # not blank
    # The model was trained on rendered tables, such as the first image.
    assert '│ red apples' in done.stdout.partition(names.FRAME.name)[0]


def test_the_domain_is_one_that_nobody_uses_or_has_reserved(monkeypatch, domain_id):
    import rclpy

    processes = pytest.importorskip('instructsam_ros.demo.processes')
    (one, used), (other, free) = reserve_domain(), reserve_domain()
    one.close()
    other.close()
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=used)
    node = rclpy.create_node('other', context=context)
    try:
        monkeypatch.setattr(processes, '_reservations', reservations := [])
        monkeypatch.setattr(processes.random, 'sample', lambda *_: [used, domain_id, free])
        assert processes.isolated_environment()['ROS_DOMAIN_ID'] == str(free)
        reservations.pop().close()
    finally:
        node.destroy_node()
        context.shutdown()


def test_live_from_an_instruction_to_a_grasp(tmp_path, mark):
    scene = pytest.importorskip('instructsam.train.tabletop.scenes.scene')
    pytest.importorskip('mujoco', reason='the tabletop world is drawn with MuJoCo: pip install mujoco')
    try:
        scene._renderer(32, 32)
    except RuntimeError as error:
        pytest.skip(f'no off-screen OpenGL here: {error}')
    done = run('--live', '--seed', '8', '--out', 'live.png', env=mark | {'COLUMNS': '120'}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'answer of /instructsam_perception/segment' in done.stdout
    asked = re.search('instruction sent: the (.*)', done.stdout)[1]
    assert f'the {asked} (mm in camera_color_optical_frame)' in done.stdout
    rows = [re.split(' {2,}', line.strip()) for line in done.stdout.splitlines()]
    _, _, center, _, off_mm, grasp, width_mm = next(row for row in rows if len(row) == 7 and row[3] == asked)
    center, grasp = (np.array(each.split(), float) for each in (center, grasp))
    assert float(off_mm) < 20
    assert float(width_mm) < 85
    assert np.linalg.norm(center - grasp) < 150
    image = read_image(tmp_path / 'live.png')
    assert image.shape == (480, 640, 3)
    assert image.std() > 10
    assert done.stdout.splitlines()[-1].endswith(str(tmp_path / 'live.png'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--recording', 'absent', '--instruction', 'a'], 'absent does not exist'),
        (['--recording', '.'], 'give an --instruction for your recording'),
        (['--recording', '.', '--instruction', 'a'], 'holds no image files'),
        (['--recording', '.', '--live'], 'not both'),
        (['--seed', '1'], '--seed chooses the table of --live'),
    ],
)
def test_recordings_that_cannot_be_shown(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(['demo', *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith('instructsam: error: ')
    assert err.count('\n') == 1


def test_a_model_that_cannot_be_loaded(tmp_path, mark):
    done = run('--model', 'absent', '--out', str(tmp_path / 'a.png'), env=mark)
    assert done.returncode == 1
    assert 'instructsam: error: the node reports: the model could not be loaded' in done.stderr.splitlines()[-1]
    assert 'perception node printed' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'a.png').exists()


def test_timeout(tmp_path, mark):
    done = run('--timeout', '0.1', env=mark, cwd=tmp_path)
    assert done.returncode == 1
    assert 'no result within 0.1 s' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=['SIGINT', 'SIGTERM'])
def test_interrupted(tmp_path, mark, number, code):
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    process = subprocess.Popen(DEMO, env=mark, cwd=tmp_path, **pipes)
    while 'instruction sent' not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err == f'instructsam: stopped by {number.name}\n'


def test_bad_arguments(tmp_path):
    done = run('--out', 'absent/a.png', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == 'instructsam: error: cannot write absent/a.png: there is no folder absent\n'

"""`instructsam bag` that was killed, interrupted or started twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from bags import FRAMES, Engine, depth, frame, header, info, picture, read, recording, results, run, write
from std_msgs.msg import String

from instructsam.core.errors import ModelError
from instructsam_ros.bag import command as bag
from instructsam_ros.conversions.instances import image_msg

pytest_plugins = ['bags']  # engines
pytestmark = pytest.mark.usefixtures('engines')

DEATHS = """
import sys
import bags
from instructsam_ros.bag import command as bag
from instructsam_ros.bag import bag_file

died, at, *arguments = sys.argv[1:]
bag._load = lambda args, console: bags.Engine(dies_at=int(at) if died == 'engine' else None)
if died == 'copy':
    write, count = bag_file.Copy.write, 0
    def dying(*args):
        global count
        count += 1
        if count == int(at):
            bags.os.kill(bags.os.getpid(), 9)
        write(*args)
    bag_file.Copy.write = dying
if died == 'remove':
    bag.Journal.remove = lambda self: bags.os.kill(bags.os.getpid(), 9)
sys.exit(bags.run(*arguments))
"""


def die(*arguments):
    """Runs the command in a process that kills itself."""
    env = os.environ | {'PYTHONPATH': str(Path(__file__).parents[1] / 'support')}
    done = subprocess.run(
        [sys.executable, '-c', DEATHS, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_run_that_was_killed_goes_on(tmp_path, capfd, engines):
    timeline = tmp_path / 'timeline.yaml'
    timeline.write_text('- {at: 0.1, instruction: red}\n- {at: 0.3, instruction: red green}\n')
    source = write(tmp_path / 'in', 'mcap', recording(info(), *map(depth, range(FRAMES))))
    arguments = (source, tmp_path / 'out', '--instructions', timeline, '--label-images')
    run(source, tmp_path / 'whole', *arguments[2:])
    assert engines.pop().asked == 7

    die('engine', 5, *arguments)  # at the image of 500 ms
    assert not (tmp_path / 'out').exists()
    die('copy', 5, *arguments)  # all are done
    assert not (tmp_path / 'out').exists()
    capfd.readouterr()
    assert run(*arguments) == 0
    assert not engines
    assert 'going on after 8 images' in capfd.readouterr().err
    assert results(tmp_path / 'out') == results(tmp_path / 'whole')
    for mine, other in zip(read(tmp_path / 'out'), read(tmp_path / 'whole'), strict=True):
        assert mine[:2] == other[:2]
        assert mine == other or mine[1].startswith('/perception')
    assert not (tmp_path / 'out.journal').exists()


def test_ids_go_on_where_a_run_was_killed(tmp_path, engines):
    """The green square leaves for a while; who sees only the last images takes it for a new one."""
    gone = [frame(index) for index in range(FRAMES)]
    for index in (3, 4):
        pixels = picture(index)
        pixels[28:40] = pixels[:12]
        gone[index] = (index * 100, '/camera/image', image_msg(pixels, header(index)))
    source = write(tmp_path / 'in', 'sqlite3', gone)
    die('engine', 6, source, tmp_path / 'out', '--instruction', 'red green')
    assert run(source, tmp_path / 'out', '--instruction', 'red green') == 0
    assert engines.pop().asked == 3
    assert run(source, tmp_path / 'whole', '--instruction', 'red green') == 0
    assert results(tmp_path / 'out') == results(tmp_path / 'whole')


def test_death_after_the_output_was_complete(tmp_path, engines, capfd):
    source = write(tmp_path / 'in', 'mcap', recording())
    die('remove', 0, source, tmp_path / 'out', '--instruction', 'red')
    assert (tmp_path / 'out').exists()
    assert (tmp_path / 'out.journal').exists()
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert 'answered        8' in capfd.readouterr().out
    assert not engines
    assert len(results(tmp_path / 'out')) == FRAMES
    assert not (tmp_path / 'out.journal').exists()


def test_a_journal_of_something_else_is_refused(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    out = tmp_path / 'out'
    die('engine', 3, source, out, '--instruction', 'red')
    assert run(source, out, '--instruction', 'green') == 2
    err = capsys.readouterr().err
    assert "out.journal holds results of another run (instructions was [[0, 'red']], now [[0, 'green']])" in err
    assert run(source, out, '--instruction', 'red', '--threshold', '0.2') == 2
    assert 'score_threshold was 0.5, now 0.2' in capsys.readouterr().err
    other = write(tmp_path / 'other', 'mcap', recording((3, '/say', String())))
    assert run(other, out, '--instruction', 'red') == 2
    assert 'input was' in capsys.readouterr().err
    out.mkdir()
    assert run(source, out, '--instruction', 'red') == 2
    assert 'out exists already, and' in capsys.readouterr().err
    out.rmdir()
    (tmp_path / 'out.journal/results.sqlite').write_bytes(b'nonsense' * 1000)
    assert run(source, out, '--instruction', 'red') == 2
    assert 'out.journal is damaged' in capsys.readouterr().err


def test_a_journal_without_results_is_in_nobody_s_way(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / 'in', 'mcap', recording())

    def fail(args, console):
        raise ModelError('there is no such model.')

    with monkeypatch.context() as patch:
        patch.setattr(bag, '_load', fail)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert [file.name for file in tmp_path.iterdir()] == ['in']
    die('engine', 1, source, tmp_path / 'out', '--instruction', 'red')
    assert run(source, tmp_path / 'out', '--instruction', 'green') == 0


def test_two_runs_at_once(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / 'in', 'mcap', recording())
    segment = Engine.segment

    def second_run(self, *args, **kwargs):
        monkeypatch.setattr(Engine, 'segment', segment)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
        assert 'another run works on' in capsys.readouterr().err
        return segment(self, *args, **kwargs)

    monkeypatch.setattr(Engine, 'segment', second_run)
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch, engines):
    source = write(tmp_path / 'in', 'mcap', recording())

    def interrupt(self, frame, *args, **kwargs):
        if self.asked == 2:
            raise KeyboardInterrupt
        return segment(self, frame, *args, **kwargs)

    segment = Engine.segment
    with monkeypatch.context() as patch:
        patch.setattr(Engine, 'segment', interrupt)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 130
    assert 'stopped; the same command goes on after 2 images' in capsys.readouterr().err
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert engines[-1].asked == FRAMES - 2

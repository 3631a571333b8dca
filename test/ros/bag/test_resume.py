"""`instructsam bag annotate` when it is killed, interrupted or started twice."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap
from bags import FRAMES, Engine, depth, frame, header, info, read, recording, results, rgb_image, run, write
from rclpy.serialization import serialize_message
from std_msgs.msg import String

from instructsam.core.errors import ModelError
from instructsam_ros.bag import annotate
from instructsam_ros.conversions.instances import image_msg

pytest_plugins = ['bags']  # the fixture `engines`
pytestmark = pytest.mark.usefixtures('engines')

DEATHS = """
import sys
import bags
from instructsam_ros.bag import annotate, writer

died, at, *arguments = sys.argv[1:]
annotate.load_engine = lambda args, console: bags.Engine(dies_at=int(at) if died == 'engine' else None)
if died == 'copy':
    copy, count = writer.BagWriter.copy, 0
    def dying(*args):
        global count
        count += 1
        if count == int(at):
            bags.os.kill(bags.os.getpid(), 9)
        copy(*args)
    writer.BagWriter.copy = dying
if died == 'remove':
    annotate.Journal.remove = lambda self: bags.os.kill(bags.os.getpid(), 9)
sys.exit(bags.run(*arguments))
"""


def die(*arguments):
    """Run the command in a process that kills itself."""
    python_path = [str(Path(__file__).parents[1] / 'support'), os.environ.get('PYTHONPATH', '')]
    env = os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, python_path))}
    done = subprocess.run(
        [sys.executable, '-c', DEATHS, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_killed_run_is_resumed(tmp_path, capfd, engines):
    timeline = tmp_path / 'timeline.yaml'
    timeline.write_text('- {at: 0.1, instruction: red}\n- {at: 0.3, instruction: red green}\n')
    source = write(tmp_path / 'in', 'mcap', recording(info(), *map(depth, range(FRAMES))))
    arguments = (source, tmp_path / 'out', '--instructions', timeline, '--label-images')
    run(source, tmp_path / 'whole', *arguments[2:])
    assert engines.pop().asked == 7

    die('engine', 5, *arguments)  # on the fifth answer, of the image at 500 ms
    assert not (tmp_path / 'out').exists()
    die('copy', 5, *arguments)  # all images are answered
    assert not (tmp_path / 'out').exists()
    capfd.readouterr()
    assert run(*arguments) == 0
    assert not engines
    assert 'resuming after 8 finished images' in capfd.readouterr().err
    assert results(tmp_path / 'out') == results(tmp_path / 'whole')
    for resumed, expected in zip(read(tmp_path / 'out'), read(tmp_path / 'whole'), strict=True):
        assert resumed[:2] == expected[:2]
        assert resumed == expected or resumed[1].startswith('/perception')
    assert not (tmp_path / 'out.journal').exists()


def test_track_ids_continue_after_a_run_was_killed(tmp_path, engines):
    """The green square is gone for a while; a tracker without the first images would number it as a new object."""
    frames = [frame(index) for index in range(FRAMES)]
    for index in (3, 4):
        pixels = rgb_image(index)
        pixels[28:40] = pixels[:12]
        frames[index] = (index * 100, '/camera/image', image_msg(pixels, header(index)))
    source = write(tmp_path / 'in', 'sqlite3', frames)
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


def test_publish_times_after_the_output_was_complete(tmp_path, capsys, monkeypatch):
    image = mcap.schema(1, 'sensor_msgs/msg/Image', definition='')
    recorded = [mcap.message(1, index, serialize_message(frame(index)[2]), index - 1) for index in range(1, 4)]
    source = mcap.write(tmp_path / 'in.mcap', image, mcap.channel(1, 1, '/camera/image'), *recorded)
    monkeypatch.setattr(annotate.Journal, 'remove', annotate.Journal.close)
    for _ in range(2):
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
        assert 'not copied      3 publish times' in capsys.readouterr().out


def test_the_first_error_is_reported(tmp_path, capsys, monkeypatch):
    """Whatever fails while the journal is closed because of it."""
    source = write(tmp_path / 'in', 'mcap', recording())

    def close(self):
        raise sqlite3.OperationalError('disk I/O error')

    def fail(args, console):
        raise ModelError('there is no such model')

    monkeypatch.setattr(annotate.Journal, 'close', close)
    monkeypatch.setattr(annotate, 'load_engine', fail)
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert 'there is no such model' in capsys.readouterr().err


def test_a_journal_that_cannot_be_read_is_unlocked_all_the_same(tmp_path, monkeypatch):
    journal = annotate.Journal(tmp_path / 'out', {})
    journal.add(0, 1.0, b'')
    with monkeypatch.context() as patch:
        patch.setattr(annotate.Journal, 'done', property(lambda self: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            journal.close()
    annotate.Journal(tmp_path / 'out', {}).close()


def test_death_while_the_journal_was_deleted(tmp_path, capsys):
    """Its remains neither count as results nor stay."""
    source = write(tmp_path / 'in', 'mcap', recording())
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out.journal').mkdir()
    (tmp_path / 'out.journal' / 'results.sqlite').touch()
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert 'out exists already: delete it or give another name' in capsys.readouterr().err
    assert not (tmp_path / 'out.journal').exists()


def test_a_database_that_cannot_grow(tmp_path, capsys, monkeypatch, engines):
    """As on a full disk: a storage fault, after which the same command resumes."""
    source = write(tmp_path / 'in', 'mcap', recording())
    add = annotate.Journal.add

    def full(self, frame, ms, message):
        if frame == 3:
            raise sqlite3.OperationalError('database or disk is full')
        add(self, frame, ms, message)

    with monkeypatch.context() as patch:
        patch.setattr(annotate.Journal, 'add', full)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 4
    err = capsys.readouterr().err
    assert 'out: No space left on device; free some space, and run the same command again' in err
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert engines[-1].asked == FRAMES - 3


def test_a_journal_of_other_inputs_is_refused(tmp_path, capsys):
    source = write(tmp_path / 'in', 'mcap', recording())
    out = tmp_path / 'out'
    die('engine', 3, source, out, '--instruction', 'red')
    assert run(source, out, '--instruction', 'green') == 2
    err = capsys.readouterr().err
    assert "out.journal was started with other settings (instructions was [[0, 'red']], now [[0, 'green']])" in err
    assert run(source, out, '--instruction', 'red', '--threshold', '0.2') == 2
    assert 'score_threshold was 0.5, now 0.2' in capsys.readouterr().err
    assert run(source, out, '--instruction', 'red', '--dtype', 'bfloat16') == 2
    assert "dtype was 'float32', now 'bfloat16'" in capsys.readouterr().err  # not auto, which differs between machines
    other = write(tmp_path / 'other', 'mcap', recording((3, '/say', String())))
    assert run(other, out, '--instruction', 'red') == 2
    assert 'input was' in capsys.readouterr().err
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'model.safetensors').write_bytes(b'1')
    chosen = ('--instruction', 'red', '--model', tmp_path / 'model', '--dtype', 'float32')
    die('engine', 3, source, tmp_path / 'by_model', *chosen)
    (tmp_path / 'model' / 'model.safetensors').write_bytes(b'2')
    assert run(source, tmp_path / 'by_model', *chosen) == 2
    assert 'by_model.journal was started with other settings (model_content was ' in capsys.readouterr().err
    out.mkdir()
    assert run(source, out, '--instruction', 'red') == 2
    assert 'out exists already, and' in capsys.readouterr().err
    out.rmdir()
    (tmp_path / 'out.journal/results.sqlite').write_bytes(b'nonsense' * 1000)
    assert run(source, out, '--instruction', 'red') == 2
    assert 'out.journal is damaged' in capsys.readouterr().err


def test_a_journal_without_results_is_ignored(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / 'in', 'mcap', recording())

    def fail(args, console):
        raise ModelError('there is no such model')

    with monkeypatch.context() as patch:
        patch.setattr(annotate, 'load_engine', fail)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 2
    assert [file.name for file in tmp_path.iterdir()] == ['in']
    die('engine', 1, source, tmp_path / 'out', '--instruction', 'red')
    assert run(source, tmp_path / 'out', '--instruction', 'green') == 0


def test_two_runs_at_once(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / 'in', 'mcap', recording())
    segment = Engine.segment

    def second_run(self, *args, **kwargs):
        monkeypatch.setattr(Engine, 'segment', segment)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 5
        assert f'out.journal is being written by process {os.getpid()} on ' in capsys.readouterr().err
        return segment(self, *args, **kwargs)

    monkeypatch.setattr(Engine, 'segment', second_run)
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0


def interrupted(monkeypatch, *arguments):
    """Run the command with a Ctrl-C after two answers."""

    def interrupt(self, frame, *args, **kwargs):
        if self.asked == 2:
            raise KeyboardInterrupt
        return segment(self, frame, *args, **kwargs)

    segment = Engine.segment
    with monkeypatch.context() as patch:
        patch.setattr(Engine, 'segment', interrupt)
        assert run(*arguments) == 130


def test_a_branch_of_a_hub_model_that_has_moved_is_refused(tmp_path, capsys, monkeypatch, engines):
    source = write(tmp_path / 'in', 'mcap', recording())
    commits = ['1' * 40, '2' * 40]
    for commit in commits:
        folder = tmp_path / 'models--owner--name' / 'snapshots' / commit
        folder.mkdir(parents=True)
        (folder / 'model.safetensors').write_text(commit)
    hub = {'main': commits[0], **dict(zip(commits, commits, strict=True))}
    monkeypatch.setattr(
        'instructsam.core.model.checkpoint.snapshot_download',
        lambda name, revision, allow_patterns: str(folder.parent / hub[revision or 'main']),
    )
    command = (source, tmp_path / 'out', '--instruction', 'red', '--model', 'owner/name', '--dtype', 'float32')
    interrupted(monkeypatch, *command)
    hub['main'] = commits[1]
    assert run(*command) == 2
    err = capsys.readouterr().err
    assert 'model_content was' in err
    assert f"revision was '{commits[0]}', now '{commits[1]}'" in err
    assert run(*command, '--revision', commits[0]) == 0
    assert engines[-1].asked == FRAMES - 2
    assert run(source, tmp_path / 'other', '--instruction', 'red', '--model', folder, '--dtype', 'float32') == 0


def test_ctrl_c_reports_how_to_resume(tmp_path, capsys, monkeypatch, engines):
    source = write(tmp_path / 'in', 'mcap', recording())
    interrupted(monkeypatch, source, tmp_path / 'out', '--instruction', 'red')
    assert 'stopped by SIGINT; the same command resumes after 2 images' in capsys.readouterr().err
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0
    assert engines[-1].asked == FRAMES - 2


def test_a_journal_that_is_removed_while_it_is_written(tmp_path, capsys, monkeypatch):
    source = write(tmp_path / 'in', 'sqlite3', recording())
    publish = annotate.check_readable

    def remove(folder, counts):
        shutil.rmtree(folder.parent)
        publish(folder, counts)

    with monkeypatch.context() as patch:
        patch.setattr(annotate, 'check_readable', remove)
        assert run(source, tmp_path / 'out', '--instruction', 'red') == 4
    err = capsys.readouterr().err
    assert 'out.journal was removed while it was in use; the same command starts from scratch' in err
    assert err.count('\n') == 1
    assert run(source, tmp_path / 'out', '--instruction', 'red') == 0

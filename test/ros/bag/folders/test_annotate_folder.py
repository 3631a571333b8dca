"""`instructsam bag annotate` of a folder with bags: one after the other, without Ray."""

import os
import shutil
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from bags import frame, info, read, recording, results, run, write

from instructsam.core import exit_codes
from instructsam.core.errors import ModelError
from instructsam_ros.bag import annotate
from instructsam_ros.bag.folders.contents import list_bags

pytest_plugins = ['bags']  # the fixture `engines`
pytestmark = pytest.mark.usefixtures('engines')

RED = ('--instruction', 'red')


@pytest.fixture
def bags(tmp_path):
    """A folder with two bags, and something that is none."""
    folder = tmp_path / 'bags'
    (folder / 'notes').mkdir(parents=True)
    write(folder / 'kitchen', 'mcap', recording(info()))
    write(folder / 'Wohnküche 2', 'sqlite3', [frame(index) for index in (3, 4)])
    return folder


def test_each_bag_becomes_that_of_the_command_for_one(bags, tmp_path, engines, capsys):
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.DONE
    assert len(engines) == 1  # one model for all
    captured = capsys.readouterr()
    assert 'left out, as they are not bags: notes' in captured.err
    assert '2 bags: 2 annotated, 0 finished before, 0 failed' in captured.out
    names = {'kitchen', 'Wohnküche 2'}
    assert {each.name for each in (tmp_path / 'out').iterdir()} == names | {f'{name}.json' for name in names}
    for name in names:
        run(bags / name, tmp_path / 'single', *RED)
        assert results(tmp_path / 'out' / name) == results(tmp_path / 'single')
        assert [each[:2] for each in read(tmp_path / 'out' / name)] == [each[:2] for each in read(tmp_path / 'single')]
        shutil.rmtree(tmp_path / 'single')


def test_a_bag_that_fails_is_named_and_tried_again(bags, tmp_path, engines, capsys):
    whole = (bags / 'kitchen/kitchen.mcap').read_bytes()
    (bags / 'kitchen/kitchen.mcap').write_bytes(b'nothing')
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.SOME_FAILED
    captured = capsys.readouterr()
    assert 'instructsam: kitchen failed: ' in captured.err
    assert 'failed: kitchen; the same command tries them again' in captured.out
    (bags / 'kitchen/kitchen.mcap').write_bytes(whole)
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.DONE
    assert '2 bags: 1 annotated, 1 finished before, 0 failed' in capsys.readouterr().out
    engines.clear()
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.DONE
    assert not engines
    assert '0 annotated, 2 finished before' in capsys.readouterr().out


def test_an_unexpected_error_ends_its_bag_only(bags, tmp_path, monkeypatch, capsys):
    check = annotate.check_readable

    def fails(folder, counts):
        if folder.name == 'kitchen':
            raise ZeroDivisionError('of this bag')
        check(folder, counts)

    monkeypatch.setattr(annotate, 'check_readable', fails)
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.SOME_FAILED
    assert 'kitchen failed: unexpected ZeroDivisionError: of this bag' in capsys.readouterr().err
    monkeypatch.undo()
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.DONE  # from the journal, without a model


def test_the_exit_code_counts_failed_images_also_of_bags_that_were_finished(bags, tmp_path):
    for _ in range(2):
        assert run(bags, tmp_path / 'out', '--instruction', 'refuse red') == exit_codes.FAILED


def test_other_settings_are_refused(bags, tmp_path, capsys):
    run(bags, tmp_path / 'out', *RED)
    assert run(bags, tmp_path / 'out', '--instruction', 'green') == exit_codes.USAGE
    assert "'red'" in capsys.readouterr().err
    os.utime(bags / 'kitchen/kitchen.mcap', ns=(0, 0))
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.USAGE


def test_what_is_no_output_of_the_command_is_kept(bags, tmp_path, capsys):
    out = tmp_path / 'out'
    (out / 'kitchen').mkdir(parents=True)
    (out / 'Wohnküche 2.json').write_text('{"my": "file"}')
    assert run(bags, out, *RED) == exit_codes.FAILED
    assert 'kitchen exists already' in capsys.readouterr().err
    assert (out / 'Wohnküche 2.json').read_text() == '{"my": "file"}'
    assert not list((out / 'kitchen').iterdir())


def test_a_model_that_cannot_be_loaded_ends_the_command(bags, tmp_path, monkeypatch, capsys):
    def load(args, console):
        raise ModelError('broken weights')

    monkeypatch.setattr(annotate, 'load_engine', load)
    assert run(bags, tmp_path / 'out', *RED) == exit_codes.USAGE
    assert capsys.readouterr().err.count('broken weights') == 1


@pytest.mark.parametrize('out', ['bags', 'bags/out', '.'])
def test_outputs_among_the_inputs_are_refused(bags, tmp_path, out, capsys):
    assert run(bags, tmp_path / out, *RED) == exit_codes.USAGE
    assert 'give another folder for the new bags' in capsys.readouterr().err


def test_options_of_ray_need_ray_and_a_folder(bags, tmp_path, capsys):
    assert run(bags, tmp_path / 'out', *RED, '--ray-actors', 2) == exit_codes.USAGE
    assert 'belong to --ray' in capsys.readouterr().err
    assert run(bags / 'kitchen', tmp_path / 'out', *RED, '--ray') == exit_codes.USAGE
    assert '--ray is for the bags in a folder' in capsys.readouterr().err
    assert run(tmp_path / 'nowhere', tmp_path / 'out', *RED, '--ray') == exit_codes.USAGE


def test_without_ray_the_extra_is_named(bags, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'ray', None)
    for name in ('instructsam.core.ray_session', 'instructsam_ros.bag.folders.ray_actors'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert run(bags, tmp_path / 'out', *RED, '--ray') == exit_codes.USAGE
    assert 'pip install "instructsam-ros[engine-ray]"' in capsys.readouterr().err


def test_bags_in_a_folder(tmp_path):
    write(tmp_path / 'day/a', 'mcap', recording())
    assert list_bags(tmp_path / 'day/a') is None
    assert list_bags(tmp_path / 'day') == {'a': tmp_path / 'day/a'}
    (tmp_path / 'parts').mkdir()
    for name in ('r_0.mcap', 'r_1.mcap'):
        shutil.copy(tmp_path / 'day/a/a.mcap', tmp_path / 'parts' / name)
    assert list_bags(tmp_path / 'parts') is None  # the parts of one recording
    shutil.copy(tmp_path / 'day/a/a.mcap', tmp_path / 'parts/other.mcap')
    assert list(list_bags(tmp_path / 'parts')) == ['other', 'r_0', 'r_1']


@pytest.mark.parametrize('name', ['a.mcap', 'a.json', 'a.journal'])
def test_names_that_would_meet_in_the_output_are_refused(tmp_path, name, capsys):
    write(tmp_path / 'day/a', 'mcap', recording())
    if name == 'a.mcap':
        shutil.copy(tmp_path / 'day/a/a.mcap', tmp_path / 'day/a.mcap')
    else:
        shutil.copytree(tmp_path / 'day/a', tmp_path / 'day' / name)
    assert run(tmp_path / 'day', tmp_path / 'out', *RED) == exit_codes.USAGE
    assert 'rename one of them' in capsys.readouterr().err

"""`instructsam bag annotate --ray`: the bags of the command without it. Skipped without the package."""

import argparse

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
pytest.importorskip('ray', reason='needs the extra engine-ray')

from bags import frame, info, recording, results, run, write

from instructsam.core import exit_codes
from instructsam_ros.bag.folders import ray_actors


@pytest.fixture(scope='module', autouse=True)
def ray_stopped():
    import ray

    yield
    ray.shutdown()


def test_outputs_are_those_of_one_process(tmp_path, checkpoint, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths reach the actors as whole ones
    write(tmp_path / 'bags/a', 'mcap', recording(info()))
    write(tmp_path / 'bags/b', 'mcap', [frame(index) for index in (3, 4)])
    (tmp_path / 'bags/broken.mcap').write_bytes(b'nothing')
    options = ('--instruction', 'red', '--model', checkpoint, '--device', 'cpu', '--max-new-tokens', 8)
    assert run('bags', 'rayed', *options, '--ray', '--ray-actors', 2) == exit_codes.SOME_FAILED
    captured = capsys.readouterr()
    assert '3 bags: 2 annotated, 0 finished before, 1 failed' in captured.out
    assert captured.out.count('images          ') == 2  # what the actors printed
    assert 'broken failed: ' in captured.err
    assert run('bags', 'local', *options) == exit_codes.SOME_FAILED
    for name in ('a', 'b'):
        assert results(tmp_path / 'rayed' / name) == results(tmp_path / 'local' / name)
        assert (tmp_path / f'rayed/{name}.json').read_text() == (tmp_path / f'local/{name}.json').read_text()
    capsys.readouterr()
    assert run('bags', 'rayed', *options) == exit_codes.SOME_FAILED  # either one goes on with the other one's run
    assert '0 annotated, 2 finished before, 1 failed' in capsys.readouterr().out
    assert run('bags', 'rayed', *options[:1], 'green', *options[2:], '--ray') == exit_codes.USAGE
    assert run('bags', 'more', *options, '--ray', '--ray-gpus', 64) == exit_codes.USAGE
    assert '--ray-gpus is 64' in capsys.readouterr().err


def test_a_bag_whose_process_dies_has_failed(monkeypatch):
    class Dies:  # local classes reach the actors by value
        def __init__(self, args, threads):
            pass

        def annotate(self, task):
            import os

            from instructsam_ros.bag.folders.one_bag import Annotated

            if task.output == 'b':
                os._exit(1)
            return Annotated(task.output, 0)

    monkeypatch.setattr(ray_actors, 'BagActor', Dies)
    args = argparse.Namespace(ray_actors=1, ray_gpus=0.0)
    outcomes = list(ray_actors.annotate_on_ray(args, [argparse.Namespace(output=name) for name in 'abc']))
    assert [(each.name, each.exit_code) for each in outcomes] == [('a', 0), ('b', exit_codes.FAILED), ('c', 0)]
    assert 'its process died' in outcomes[1].error

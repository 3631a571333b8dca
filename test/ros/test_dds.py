"""Environment variables that keep ROS from starting: one line, not the middleware's several or its end."""

import pytest

pytest.importorskip('instructsam_ros.msg', reason='needs ROS 2 or its wheels')

from instructsam_ros.client import Perception
from instructsam_ros.dds import RosEnvironmentError
from instructsam_ros.node import perception_node
from instructsam_ros.simulation import replay_node, simulated_camera


def run_replay():
    with pytest.raises(SystemExit) as ended:
        replay_node.main()
    return ended.value.code


MAINS = {
    'instructsam-perception': lambda: perception_node.main(['x']),
    'instructsam-simulated-camera': lambda: simulated_camera.main(['x']),
    'instructsam-replay': run_replay,
}
FAULTS = [
    ({'ROS_DOMAIN_ID': '300'}, 'ROS_DOMAIN_ID is 300, expected 0 to 232'),
    ({'ROS_DOMAIN_ID': '-1'}, 'ROS_DOMAIN_ID is -1, expected 0 to 232'),
    ({'HOME': None, 'ROS_HOME': None, 'ROS_LOG_DIR': None}, 'ROS has no folder for its logs'),
]


def set_environment(monkeypatch, variables):
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(('variables', 'expected'), FAULTS)
@pytest.mark.parametrize('name', MAINS)
def test_nodes_say_so_and_end(monkeypatch, capfd, tmp_path, name, variables, expected):
    set_environment(monkeypatch, variables)
    monkeypatch.setattr('sys.argv', ['x', str(tmp_path)])
    monkeypatch.setattr('instructsam_ros.node.signals.catch', lambda: None)
    monkeypatch.setattr('instructsam_ros.node.signals.event', lambda: None)
    monkeypatch.setattr('instructsam_ros.node.signals.ignore', lambda: None)
    assert MAINS[name]() == 2
    err = capfd.readouterr().err
    assert err.startswith(f'{name}: {expected}')
    assert err.count('\n') == 1


@pytest.mark.parametrize(('variables', 'expected'), FAULTS)
def test_the_client_raises(monkeypatch, variables, expected):
    set_environment(monkeypatch, variables)
    with pytest.raises(RosEnvironmentError, match=expected):
        Perception()

"""Checks of the environment of ROS, in environments that are made up."""

import importlib
from collections import namedtuple
from types import SimpleNamespace

import pytest

from instructsam_ros import dds
from instructsam_ros.doctor import environment

Stat = namedtuple('Stat', 'f_bavail f_frsize')


def importing(**modules):
    """Return an import function that knows only `modules`, which may be exceptions; __ stands for a dot."""
    known = {name.replace('__', '.'): module for name, module in modules.items()}

    def import_module(name):
        if name not in known:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
        if isinstance(known[name], Exception):
            raise known[name]
        return known[name]

    return import_module


@pytest.fixture
def ros(tmp_path):
    """A sourced ROS for Python 3.12."""
    (tmp_path / 'share/rclpy').mkdir(parents=True)
    (tmp_path / 'lib/python3.12/site-packages/rclpy').mkdir(parents=True)
    return tmp_path


def rclpy_in(folder):
    return importing(rclpy=SimpleNamespace(__file__=f'{folder}/rclpy/__init__.py'), rclpy___rclpy_pybind11=object())


def outcome(checks):
    return [(check.level, check.text, check.advice) for check in checks]


def test_a_sourced_ros(ros):
    environ = {'AMENT_PREFIX_PATH': str(ros), 'ROS_DISTRO': 'jazzy'}
    found = environment.check_source(environ, rclpy_in(ros / 'lib/python3.12/site-packages'), (3, 12, 3))
    assert outcome(found) == [('ok', f'jazzy, sourced from {ros}', '')]


def test_two_ros_in_one_process(ros):
    environ = {'AMENT_PREFIX_PATH': str(ros)}
    ((level, text, advice),) = outcome(environment.check_source(environ, rclpy_in('/venv/site-packages'), (3, 12, 3)))
    assert level == 'fault'
    assert f'{ros} is sourced, but rclpy comes from /venv/site-packages/rclpy' in text
    assert 'virtual environment' in advice


def test_a_sourced_ros_for_another_python(ros):
    ((level, _, advice),) = outcome(environment.check_source({'AMENT_PREFIX_PATH': str(ros)}, importing(), (3, 11, 7)))
    assert (level, 'for python3.12' in advice) == ('fault', True)


def test_no_ros():
    ((level, text, advice),) = outcome(environment.check_source({}, importing(), (3, 11, 7)))
    assert level == 'fault'
    assert "No module named 'rclpy'" in text
    assert advice.startswith('source a ROS 2 workspace')


def test_a_middleware_that_is_not_installed():
    def missing():
        raise RuntimeError('librmw_zenoh_cpp.so not found')

    utilities = SimpleNamespace(get_rmw_implementation_identifier=missing)
    environ = {'RMW_IMPLEMENTATION': 'rmw_zenoh_cpp', 'ROS_DISTRO': 'jazzy'}
    ((level, text, advice),) = outcome(environment.check_middleware(environ, importing(rclpy__utilities=utilities)))
    assert level == 'fault'
    assert 'librmw_zenoh_cpp.so' in text
    assert advice.startswith('apt install ros-jazzy-rmw-zenoh-cpp')


def test_settings_of_the_middleware_that_do_not_exist(tmp_path):
    utilities = SimpleNamespace(get_rmw_implementation_identifier=lambda: 'rmw_fastrtps_cpp')
    environ = {'FASTRTPS_DEFAULT_PROFILES_FILE': str(tmp_path / 'absent.xml'), 'CYCLONEDDS_URI': '<CycloneDDS/>'}
    checks = outcome(environment.check_middleware(environ, importing(rclpy__utilities=utilities)))
    assert [level for level, *_ in checks] == ['ok', 'fault']
    assert 'absent.xml, which is not a file' in checks[1][1]


@pytest.mark.parametrize(
    ('uri', 'levels'),
    [
        ('{exists},<Tracing><Verbosity>config</Verbosity></Tracing>', ['ok']),
        ('file://{exists},file://{exists}', ['ok']),
        (',<Internal/>', ['ok']),
        ('/absent.xml,<Internal/>', ['ok', 'fault']),
    ],
)
def test_settings_of_cyclone_dds_are_a_list(tmp_path, uri, levels):
    (tmp_path / 'cyclone.xml').write_text('<CycloneDDS/>')
    utilities = SimpleNamespace(get_rmw_implementation_identifier=lambda: 'rmw_cyclonedds_cpp')
    environ = {'CYCLONEDDS_URI': uri.format(exists=tmp_path / 'cyclone.xml')}
    checks = outcome(environment.check_middleware(environ, importing(rclpy__utilities=utilities)))
    assert [level for level, *_ in checks] == levels


@pytest.mark.parametrize(('blocks', 'level'), [(1, 'fault'), (1000, 'ok')])
def test_shared_memory(monkeypatch, blocks, level):
    monkeypatch.delenv('RMW_IMPLEMENTATION', raising=False)
    monkeypatch.setattr(dds.os, 'statvfs', lambda path: Stat(blocks, 1_000_000))
    (check,) = environment.check_shared_memory()
    assert check.level == level
    assert level == 'ok' or 'delete the files fastrtps_*' in check.advice


@pytest.mark.parametrize(
    ('variables', 'level', 'text'),
    [
        ({}, 'ok', 'domain 0, the whole subnet'),
        ({'ROS_DOMAIN_ID': '300'}, 'fault', 'ROS_DOMAIN_ID is 300'),
        ({'ROS_DOMAIN_ID': '7', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}, 'note', 'ROS_DOMAIN_ID=7'),
        ({'ROS_SECURITY_ENABLE': 'true'}, 'fault', 'ROS_SECURITY_KEYSTORE'),
    ],
)
def test_network(monkeypatch, variables, level, text):
    for name in (*environment.NETWORK, 'ROS_SECURITY_ENABLE', 'RMW_IMPLEMENTATION'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (check,) = environment.check_network()
    assert (check.level, text in check.text) == (level, True), check


def test_messages_that_are_missing_or_not_built():
    checks = outcome(environment.check_messages({'ROS_DISTRO': 'humble'}, importing()))
    assert {level for level, *_ in checks} == {'fault'}
    assert 'apt install ros-humble-diagnostic-msgs' in [advice for *_, advice in checks]
    assert 'colcon build' in checks[-1][2]


@pytest.mark.parametrize(
    ('code', 'out', 'level', 'text'),
    [
        (0, '\n', 'ok', 'which has torch'),
        (0, 'torch transformers\n', 'fault', 'which lacks torch, transformers'),
        (1, '', 'fault', 'which lacks SyntaxError'),
    ],
)
def test_the_python_of_ros2_launch(code, out, level, text):
    def run(command, **options):
        return SimpleNamespace(returncode=code, stdout=out, stderr='SyntaxError')

    (check,) = environment.check_launch({'AMENT_PREFIX_PATH': '/opt/ros/jazzy', 'PATH': '/usr/bin:/bin'}, run)
    assert (check.level, text in check.text) == (level, True), check
    assert level == 'ok' or 'scripts/setup --ros-workspace' in check.advice


def test_without_a_sourced_ros_there_is_no_launch():
    assert list(environment.check_launch({})) == []


def test_the_environment_of_the_tests():
    pytest.importorskip('instructsam_ros.msg', reason='needs ROS 2 or its wheels')
    for check in (environment.check_source, environment.check_middleware, environment.check_messages):
        assert [each.level for each in check()] == ['ok']
    assert importlib.import_module('instructsam_ros.doctor.topics').STREAMS

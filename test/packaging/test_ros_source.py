"""The choice of the ROS installation, on simulated machines."""

import pytest
import ros_source
from ros_source import NONE, SOURCED, WHEELS


@pytest.fixture
def sourced_ros(tmp_path):
    """A prefix that resembles apt's ROS for Python 3.12."""
    for folder in ('share/rclpy', 'lib/python3.12/site-packages/rclpy'):
        (tmp_path / 'ros' / folder).mkdir(parents=True)
    return tmp_path / 'ros'


def decide(environ, platform='linux-x86_64', cache_tag='cpython-312', prefix='/usr'):
    return ros_source.ros_source(environ, prefix, platform, cache_tag)[0]


@pytest.mark.parametrize('cache_tag', ['cpython-310', 'cpython-311', 'cpython-312', 'cpython-313'])
def test_wheels_where_there_are_any(cache_tag):
    assert decide({}, cache_tag=cache_tag) == WHEELS


@pytest.mark.parametrize('platform', ['linux-aarch64', 'macosx-14.0-arm64', 'win-amd64'])
def test_no_ros_on_other_platforms(platform):
    assert decide({}, platform=platform) == NONE


@pytest.mark.parametrize('cache_tag', ['cpython-39', 'cpython-314', 'pypy311'])
def test_no_ros_for_other_pythons(cache_tag):
    assert decide({}, cache_tag=cache_tag) == NONE


@pytest.mark.parametrize('platform', ['linux-x86_64', 'linux-aarch64'])
def test_a_sourced_ros_comes_first(sourced_ros, platform):
    assert decide({'AMENT_PREFIX_PATH': f'/some/overlay:{sourced_ros}'}, platform) == SOURCED


def test_a_sourced_ros_for_another_python_is_an_error(sourced_ros):
    with pytest.raises(RuntimeError, match=r'not for this Python.*cpython-311.*INSTRUCTSAM_NO_ROS'):
        decide({'AMENT_PREFIX_PATH': str(sourced_ros)}, cache_tag='cpython-311')


def test_the_wheels_own_prefix_is_not_a_sourced_ros(sourced_ros):
    assert decide({'AMENT_PREFIX_PATH': str(sourced_ros)}, prefix=str(sourced_ros)) == WHEELS


def test_a_workspace_without_ros_is_not_a_sourced_ros(tmp_path):
    assert decide({'AMENT_PREFIX_PATH': str(tmp_path)}) == WHEELS


def test_the_user_can_go_without(sourced_ros):
    environ = {'AMENT_PREFIX_PATH': str(sourced_ros), 'INSTRUCTSAM_NO_ROS': '1'}
    assert decide(environ) == NONE
    assert decide({**environ, 'INSTRUCTSAM_NO_ROS': '0'}) == SOURCED


def test_only_a_build_with_the_wheels_fetches_ros():
    def ros_packages(source):
        return [name for name in ros_source.build_requirements(source) if name.startswith('ros-')]

    assert ros_source.build_requirements(NONE) == []
    assert ros_packages(SOURCED) == []
    assert len(ros_packages(WHEELS)) > 10


def test_the_build_environment_holds_the_sourced_ros(sourced_ros, monkeypatch):
    modules = sourced_ros / f'lib/python{ros_source.sys.version_info[0]}.{ros_source.sys.version_info[1]}/site-packages'
    modules.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(sourced_ros))
    monkeypatch.setenv('PYTHONPATH', '/of/pip')
    monkeypatch.setenv('LD_LIBRARY_PATH', '/of/the/user')
    env = ros_source.build_environment(SOURCED)
    assert env['CMAKE_PREFIX_PATH'] == str(sourced_ros)
    assert env['PYTHONPATH'] == f'/of/pip:{modules}'
    assert env['LD_LIBRARY_PATH'] == f'{sourced_ros}/lib:/of/the/user'

"""Fixtures: a robot that talks to a perception node in another process."""

import importlib
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / 'support'))


@contextmanager
def alone(domain_id):
    """Yield a Robot alone on its domain.

    Every node that it started must end with exit code 0 and without a traceback.
    """
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    from robot import Robot

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        robot = Robot(domain_id)
        try:
            yield robot
            for node in robot.nodes:
                if node.process.poll() is None:
                    node.interrupt()
                assert node.exit_code() == 0
                assert not node.logged('Traceback') or 'Traceback' in node.expected, '\n'.join(node.log)
        finally:
            for node in robot.nodes:
                node.process.kill()
                node.process.wait()
            robot.close()


@pytest.fixture
def lone_robot(domain_id):
    with alone(domain_id) as robot:
        yield robot


@pytest.fixture
def robot(lone_robot):
    return lone_robot


@pytest.fixture(scope='module')
def lasting_robot(module_domain_id):
    """A robot shared by the tests of a module, which leave its node as they found it; saves starting one for each."""
    with alone(module_domain_id) as robot:
        yield robot


@contextmanager
def message_package(name, packages):
    """Yield the module `name`.msg, which processes that are started meanwhile can import as well.

    Where it is not installed it is one of `packages`, which are generated, see message_packages.built.
    """
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    import message_packages

    with pytest.MonkeyPatch.context() as patch:
        if not message_packages.is_installed(name):
            if reason := message_packages.missing_tools():
                pytest.skip(f'{name} is not installed, and generating it {reason}')
            folder = str(message_packages.built(packages))
            patch.syspath_prepend(folder)
            path = os.pathsep.join(filter(None, [folder, os.environ.get('PYTHONPATH')]))
            patch.setenv('PYTHONPATH', path)
        yield importlib.import_module(f'{name}.msg')


@pytest.fixture(scope='module')
def vision_msgs():
    import message_packages

    with message_package('vision_msgs', message_packages.VISION_MSGS) as module:
        yield module


@pytest.fixture
def moveit_msgs():
    import message_packages

    with message_package('moveit_msgs', message_packages.MOVEIT_MSGS) as module:
        yield module

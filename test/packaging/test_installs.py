"""Installs with pip (with PyPI's ROS wheels, with a sourced ROS, and without ROS) and builds with colcon.

All in one file, so that one process has them: they share a folder of wheels.
"""

import os
import re
import shutil

import pytest
import ros_source

pytestmark = pytest.mark.slow_build


@pytest.fixture
def fresh(environment):
    """An environment that holds nothing but itself."""
    return environment()


@pytest.fixture
def fresh_with_wheels(environment):
    """An environment that holds the ROS wheels that are needed to run."""
    return environment(*ros_source.RUN_WHEELS)


def of_ros(requirements):
    """Those that name a ROS package of PyPI."""
    return [name for name in requirements if name.startswith('ros-')]


def test_install(fresh_with_wheels, tree, check):
    env = fresh_with_wheels
    env.pip('install', '--no-deps', tree)
    assert of_ros(env.distributions()['instructsam-ros'].requires)
    env.borrow_torch()
    check(env.run, 'python')
    for command in ('instructsam', 'instructsam-perception', 'instructsam-replay', 'instructsam-simulated-camera'):
        assert 'usage: ' in env.run(command, '--help')
    for node in ('perception_node', 'replay', 'simulated_camera'):  # where ros2 run and launch look
        assert 'usage: ' in env.run('python', env.prefix / 'lib/instructsam_ros' / node, '--help')


def test_editable_install(fresh_with_wheels, tree, check):
    env = fresh_with_wheels
    env.pip('install', '--no-deps', '--editable', tree)
    env.borrow_torch()
    (tree / 'core/added_later.py').touch()
    env.run('python', '-c', 'import instructsam.core.added_later')
    check(env.run, 'python')


def test_install_with_a_sourced_ros(fresh, underlay, tree, check):
    """Neither the build nor the package asks for the wheels, and what was built runs with the sourced ROS."""
    output = fresh.pip('install', '--no-deps', tree, variables=underlay.as_underlay)
    assert f'with a sourced ROS in {underlay.prefix}' in output
    fetched = re.findall(r'Processing \S*/(\w+)-', output)
    assert 'catkin_pkg' in fetched
    assert not [name for name in fetched if name.startswith('ros_')]
    assert list(fresh.distributions()) == ['instructsam-ros']
    assert not of_ros(fresh.distributions()['instructsam-ros'].requires)
    fresh.borrow_torch()
    check(fresh.run, 'python', variables=underlay.as_underlay)


def test_editable_install_with_a_sourced_ros(fresh, underlay, tree, check):
    fresh.pip('install', '--no-deps', '--editable', tree, variables=underlay.as_underlay)
    fresh.borrow_torch()
    check(fresh.run, 'python', variables=underlay.as_underlay)


def test_install_without_ros(fresh, tree):
    """The core, training and the command line; the build says that the rest is missing, and why."""
    output = fresh.pip('install', '--no-deps', tree, variables={'INSTRUCTSAM_NO_ROS': '1'})
    assert 'WITHOUT ROS messages and nodes: INSTRUCTSAM_NO_ROS is set' in output
    assert 'Installing backend dependencies' not in output
    package = fresh.distributions()['instructsam-ros']
    assert not of_ros(package.requires)
    assert {entry.name for entry in package.entry_points} == {'instructsam'}
    assert not [path for path in package.files if 'instructsam_ros' in path.parts]
    fresh.borrow_torch()
    fresh.run('python', '-c', 'import instructsam.core, instructsam.train')
    assert 'usage: ' in fresh.run('instructsam', 'segment', '--help')


def test_colcon(colcon, underlay, tree, check, run):
    """Against a sourced ROS, once with copies and once with links; each time the overlay in a fresh process."""
    workspace = tree.parents[1]
    installed = workspace / 'install/instructsam_ros'
    modules = installed / underlay.site.relative_to(underlay.prefix)
    # the ROS's own Python comes first, as /usr/bin does with apt's ROS
    sourced = {**underlay.as_underlay, 'PATH': f'{underlay.prefix}/bin{os.pathsep}{os.environ["PATH"]}'}
    building = {name: value for name, value in sourced.items() if name != 'PYTHONPATH'}  # colcon's setuptools is older

    def in_overlay(*command, variables=None, cwd=None):
        script = f'source {workspace}/install/setup.bash && exec "$@"'
        return run('bash', '-c', script, 'bash', *command, variables={**sourced, **(variables or {})}, cwd=cwd)

    for layout in ([], ['--symlink-install']):
        for made in ('install', 'build/instructsam_ros/ament_cmake_python'):  # what was compiled serves both layouts
            shutil.rmtree(workspace / made, ignore_errors=True)
        colcon.run('colcon', 'build', *layout, '--event-handlers', 'console_direct+', cwd=workspace, variables=building)
        assert (modules / 'instructsam/core/rle.py').is_symlink() == bool(layout)
        check(in_overlay, 'python3')
        for node in ('perception_node', 'replay', 'simulated_camera'):
            assert 'usage: ' in in_overlay(installed / 'lib/instructsam_ros' / node, '--help')

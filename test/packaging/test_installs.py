"""Installation with pip (with PyPI's ROS wheels, with a sourced ROS, and without ROS), and build and test with colcon.

An editable installation with the wheels is missing here: scripts/setup makes one, and all tests run in it. The rest is
in one file, so that pytest-xdist runs it in one process: the tests share a folder of wheels.
"""

import os
import re
import shutil
from xml.etree import ElementTree

import pytest
import ros_source

pytestmark = pytest.mark.slow_build


@pytest.fixture
def fresh(environment):
    """An empty environment."""
    return environment()


def ros_packages(requirements):
    """Return the requirements that name a ROS package of PyPI."""
    return [name for name in requirements if name.startswith('ros-')]


def test_install(environment, tree, check):
    env = environment(*ros_source.RUN_WHEELS)
    env.pip('install', '--no-deps', tree)
    assert ros_packages(env.distributions()['instructsam-ros'].requires)
    env.borrow_torch()
    check(env.run, 'python')
    for command in ('instructsam', 'instructsam-perception', 'instructsam-replay', 'instructsam-simulated-camera'):
        assert 'usage: ' in env.run(command, '--help')
    for node in ('perception_node', 'replay', 'simulated_camera'):  # where `ros2 run` and launch files find them
        assert 'usage: ' in env.run('python', env.prefix / 'lib/instructsam_ros' / node, '--help')


def test_install_with_a_sourced_ros(fresh, underlay, tree, check):
    """Neither the build nor the package requires the wheels, and the result runs with the sourced ROS."""
    output = fresh.pip('install', '--no-deps', tree, variables=underlay.as_underlay)
    assert f'with a sourced ROS in {underlay.prefix}' in output
    fetched = re.findall(r'Processing \S*/(\w+)-', output)
    assert 'catkin_pkg' in fetched
    assert not [name for name in fetched if name.startswith('ros_')]
    assert list(fresh.distributions()) == ['instructsam-ros']
    assert not ros_packages(fresh.distributions()['instructsam-ros'].requires)
    fresh.borrow_torch()
    check(fresh.run, 'python', variables=underlay.as_underlay)


def test_editable_install_with_a_sourced_ros(fresh, underlay, tree, check):
    fresh.pip('install', '--no-deps', '--editable', tree, variables=underlay.as_underlay)
    fresh.borrow_torch()
    (tree / 'core/added_later.py').touch()
    fresh.run('python', '-c', 'import instructsam.core.added_later')
    check(fresh.run, 'python', variables=underlay.as_underlay)


def test_install_without_ros(fresh, tree):
    """The core, training and the command line are installed; the build reports that the rest is missing, and why."""
    output = fresh.pip('install', '--no-deps', tree, variables={'INSTRUCTSAM_NO_ROS': '1'})
    assert 'WITHOUT ROS messages and nodes: INSTRUCTSAM_NO_ROS is set' in output
    assert 'Installing backend dependencies' not in output
    package = fresh.distributions()['instructsam-ros']
    assert not ros_packages(package.requires)
    assert {entry.name for entry in package.entry_points} == {'instructsam'}
    assert not [path for path in package.files if 'instructsam_ros' in path.parts]
    fresh.borrow_torch()
    fresh.run('python', '-c', 'import instructsam.core, instructsam.train')
    assert 'usage: ' in fresh.run('instructsam', 'segment', '--help')


def passed_tests(results):
    """Return the number of tests that passed, from the xunit files below `results`; assert that none failed."""
    suites = [
        suite for path in results.rglob('*.xunit.xml') for suite in ElementTree.parse(path).getroot().iter('testsuite')
    ]
    failed = sum(int(suite.get(kind)) for suite in suites for kind in ('errors', 'failures'))
    assert not failed, [path.read_text()[-6000:] for path in results.rglob('*.xunit.xml')]
    return sum(int(suite.get('tests')) - int(suite.get('skipped')) for suite in suites)


def test_colcon(colcon, underlay, tree, check, run):
    """Builds against a sourced ROS, once with copies and once with links; each overlay is used in a fresh process."""
    workspace = tree.parents[1]
    installed = workspace / 'install/instructsam_ros'
    modules = installed / underlay.site.relative_to(underlay.prefix)
    packages = tree / '.venv-ros' / underlay.site.relative_to(underlay.prefix)
    # The underlay's own Python comes first, as /usr/bin does with apt's ROS.
    sourced = {**underlay.as_underlay, 'PATH': f'{underlay.prefix}/bin{os.pathsep}{os.environ["PATH"]}'}
    # Without PYTHONPATH, because colcon needs its own, older setuptools.
    building = {name: value for name, value in sourced.items() if name != 'PYTHONPATH'}

    def in_overlay(*command, variables=None, cwd=None):
        script = f'source {workspace}/install/setup.bash && exec "$@"'
        return run('bash', '-c', script, 'bash', *command, variables={**sourced, **(variables or {})}, cwd=cwd)

    for layout in ([], ['--symlink-install']):
        for made in ('install', 'build/instructsam_ros/ament_cmake_python'):  # both layouts use the same compiled files
            shutil.rmtree(workspace / made, ignore_errors=True)
        colcon.run('colcon', 'build', *layout, '--event-handlers', 'console_direct+', cwd=workspace, variables=building)
        assert (modules / 'instructsam/core/rle.py').is_symlink() == bool(layout)
        check(in_overlay, 'python3')
        packages.mkdir(parents=True, exist_ok=True)  # as `scripts/setup --ros-workspace` does, also after the build
        (packages / 'only_in_the_workspace.py').write_text('')
        in_overlay('python3', '-c', 'import only_in_the_workspace')
        for node in ('perception_node', 'replay', 'simulated_camera'):
            assert 'usage: ' in in_overlay(installed / 'lib/instructsam_ros' / node, '--help')
        if not layout:
            source = (tree / 'core/rle.py').read_text()
            (tree / 'core/rle.py').write_text('raise ImportError("the tests must import the installed packages")')
            test = ['test', '--return-code-on-test-failure', '--ctest-args', '--tests-regex', '^ros_conversions$']
            colcon.run('colcon', *test, cwd=workspace, variables=building)
            assert passed_tests(workspace / 'build/instructsam_ros/test_results') > 50
            (tree / 'core/rle.py').write_text(source)

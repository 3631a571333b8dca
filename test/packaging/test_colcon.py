"""colcon build against a sourced ROS, then the overlay in a fresh process."""
import os

import pytest

pytestmark = pytest.mark.slow_build


@pytest.mark.parametrize('layout', [(), ('--symlink-install',)], ids=['build', 'symlink-install'])
def test_colcon(colcon, underlay, tree, check, run, layout):
    workspace = tree.parents[1]
    # the ROS's own Python comes first, as /usr/bin does with apt's ROS
    sourced = {**underlay.as_underlay, 'PATH': f'{underlay.prefix}/bin{os.pathsep}{os.environ["PATH"]}'}
    building = {name: value for name, value in sourced.items() if name != 'PYTHONPATH'}  # colcon's setuptools is older
    colcon.run('colcon', 'build', *layout, '--event-handlers', 'console_direct+', cwd=workspace, variables=building)
    installed = workspace / 'install/instructsam_ros'
    modules = installed / underlay.site.relative_to(underlay.prefix)
    assert (modules / 'instructsam/core/rle.py').is_symlink() == (layout != ())

    def in_overlay(*command, variables=None, cwd=None):
        script = f'source {workspace}/install/setup.bash && exec "$@"'
        return run('bash', '-c', script, 'bash', *command, variables={**sourced, **(variables or {})}, cwd=cwd)

    check(in_overlay, 'python3')
    for node in ('perception_node', 'replay'):
        assert 'usage: ' in in_overlay(installed / 'lib/instructsam_ros' / node, '--help')

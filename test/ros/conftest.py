"""The robot that tests use to talk to a node."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # robot.py


@pytest.fixture
def robot(monkeypatch, domain_id):
    """A Robot alone on its domain. Every node that it started must end with exit code 0 and without a traceback."""
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    from robot import Robot

    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
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

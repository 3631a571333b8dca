"""Checks an installation: the packages are complete, and a message crosses DDS.

Run by the Python that the package was installed into, with the source tree as the argument.
"""

import sys
import time
from pathlib import Path

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile

import instructsam.core
import instructsam.train
import instructsam_ros.node.perception_node
import instructsam_ros.simulation.replay_node
from instructsam_ros.msg import Instance, InstanceArray


def source_files(folder):
    """Return the relative paths of all files below `folder`, except those that Python and rosidl generate."""
    generated = ('action', 'msg', 'srv')
    paths = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    suffixes = ('.pyc', '.so', '.c')
    return {str(path) for path in paths if path.parts[0] not in generated and path.suffix not in suffixes}


def check_packages(source):
    """Assert that every file of the packages in the source tree is installed, and no other."""
    modules = {'core': instructsam.core, 'train': instructsam.train, 'instructsam_ros': instructsam_ros}
    for name, module in modules.items():
        installed, expected = source_files(Path(module.__file__).parent), source_files(source / name)
        assert installed == expected, (name, installed ^ expected)
        print(f'{name} is in {Path(module.__file__).parent}')


def check_messages(timeout_s=20):
    """Assert that a published InstanceArray is received unchanged."""
    qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    sent = InstanceArray(instruction='the red mug', instances=[Instance(phrase='red mug', score=0.5)])
    received = []
    rclpy.init()
    node = rclpy.create_node('check_install')
    node.create_subscription(InstanceArray, 'instances', received.append, qos)
    node.create_publisher(InstanceArray, 'instances', qos).publish(sent)
    deadline = time.monotonic() + timeout_s
    while not received and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    rclpy.shutdown()
    assert received == [sent]
    print('the message was received')


check_packages(Path(sys.argv[1]))
check_messages()

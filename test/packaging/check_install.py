"""Run in a process of its own, in an environment that the package was installed into; argument: the source tree.

Asserts that the packages are complete and that a message crosses DDS.
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


def files(folder):
    """The files below `folder`, without what Python and rosidl add."""
    added = ('action', 'msg', 'srv')
    paths = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    left_out = ('.pyc', '.so', '.c')
    return {str(path) for path in paths if path.parts[0] not in added and path.suffix not in left_out}


def check_packages(source):
    modules = {'core': instructsam.core, 'train': instructsam.train, 'instructsam_ros': instructsam_ros}
    for name, module in modules.items():
        installed = Path(module.__file__).parent
        assert files(installed) == files(source / name), (name, files(installed) ^ files(source / name))
        print(f'{name} is in {installed}')


def check_messages(timeout_s=20):
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
    print('the message came back')


check_packages(Path(sys.argv[1]))
check_messages()

"""The shipped RViz and Foxglove views show topics that the node has, with the right types."""

import json
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import yaml

ROOT = Path(__file__).parents[3]
DISPLAYS = {  # RViz display -> message type
    'Image': 'sensor_msgs/msg/Image',
    'PointCloud2': 'sensor_msgs/msg/PointCloud2',
    'MarkerArray': 'visualization_msgs/msg/MarkerArray',
    'PoseArray': 'geometry_msgs/msg/PoseArray',
}


@pytest.fixture(scope='module')
def topics(lasting_robot):
    """{topic: type} of everything that the node publishes or subscribes to."""
    lasting_robot.start_active()
    node, found = lasting_robot.node, {}
    for ask in (node.get_publisher_names_and_types_by_node, node.get_subscriber_names_and_types_by_node):
        found |= {topic: types[0] for topic, types in ask('perception', '/')}
    return found


def test_rviz(topics):
    view = yaml.safe_load((ROOT / 'config' / 'perception.rviz').read_text())['Visualization Manager']
    shown = {
        display['Topic']['Value']: DISPLAYS[display['Class'].removeprefix('rviz_default_plugins/')]
        for display in view['Displays']
        if 'Topic' in display
    }
    assert len(shown) == 4
    assert shown.items() <= topics.items()


def test_foxglove(topics):
    layout = json.loads((ROOT / 'config' / 'perception_foxglove.json').read_text())
    panels = layout['configById']

    def leaves(tree):
        return [tree] if isinstance(tree, str) else leaves(tree['first']) + leaves(tree['second'])

    assert sorted(leaves(layout['layout'])) == sorted(panels)
    assert topics[panels['Image!overlay']['imageMode']['imageTopic']] == 'sensor_msgs/msg/Image'
    assert topics[panels['RawMessages!instances']['topicPath']] == 'instructsam_ros/msg/InstanceArray'
    instruction = panels['Publish!instruction']
    assert topics[instruction['topicName']] == instruction['datatype']
    assert {topics[topic] for topic in panels['3D!scene']['topics']} == set(DISPLAYS.values()) - {DISPLAYS['Image']}

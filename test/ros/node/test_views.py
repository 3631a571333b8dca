"""The shipped RViz and Foxglove views show topics that the node has, with the right types."""

import importlib
import json
import re
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import numpy as np
import yaml
from std_msgs.msg import Header

from instructsam.core.result import Result
from instructsam_ros.conversions.point_clouds import cloud

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


# Foxglove

FOXGLOVE = json.loads((ROOT / 'config' / 'perception_foxglove.json').read_text())
PANELS = FOXGLOVE['configById']
TOPICS_OF = {  # type of a panel -> topics of a panel's settings, and their message paths where it takes paths
    '3D': lambda panel: list(panel['topics']),
    'DiagnosticSummary': lambda panel: [panel['topicToRender']],
    'Image': lambda panel: [panel['imageMode']['imageTopic']],
    'Plot': lambda panel: [path['value'] for path in panel['paths']],
    'Publish': lambda panel: [panel['topicName']],
    'RawMessages': lambda panel: [panel['topicPath']],
}
SHOWN_BY = {  # type of a panel -> message types that it shows; others show any
    '3D': set(DISPLAYS.values()) - {DISPLAYS['Image']},
    'DiagnosticSummary': {'diagnostic_msgs/msg/DiagnosticArray'},
    'Image': {DISPLAYS['Image']},
}
NUMBERS = {'float', 'double', *(f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64))}


def message_class(name):
    package, _, kind = name.replace('/msg/', '/').partition('/')
    return getattr(importlib.import_module(f'{package}.msg'), kind)


def type_at(topics, path):
    """Return the type of a message path, TOPIC(.FIELD or [SLICE])*, by the definitions of the messages."""
    topic, *steps = re.findall(r'^[^.[]+|\.\w+|\[[^]]*\]', path)
    assert ''.join((topic, *steps)) == path
    name = topics[topic]
    for step in steps:
        if step.startswith('.'):
            name = message_class(name).get_fields_and_field_types()[step[1:]]
        else:
            of_sequence, of_array = re.fullmatch(r'sequence<([\w/]+)(?:, \d+)?>|([\w/]+)\[\d+\]', name).groups()
            name = of_sequence or of_array
    return name


def test_every_panel_of_foxglove_is_shown():
    def leaves(tree):
        return [tree] if isinstance(tree, str) else leaves(tree['first']) + leaves(tree['second'])

    assert sorted(leaves(FOXGLOVE['layout'])) == sorted(PANELS)


@pytest.mark.parametrize('name', PANELS)
def test_topics_and_message_paths_of_foxglove(topics, name):
    kind, panel = name.partition('!')[0], PANELS[name]
    types = [type_at(topics, path) for path in TOPICS_OF[kind](panel)]
    assert types
    if kind == 'Plot':
        assert set(types) <= NUMBERS
    else:
        assert set(types) <= SHOWN_BY.get(kind, set(topics.values()))
    if kind == 'Publish':
        assert types == [panel['datatype']]
        message_class(types[0])(**json.loads(panel['value']))  # raises if a field does not exist
    if kind == '3D':
        assert set(types) == SHOWN_BY['3D']


def test_the_points_have_the_field_that_colours_them():
    ((_, points),) = (each for each in PANELS['3D!scene']['topics'].items() if each[0].endswith('points'))
    message = cloud(Result('', '', 4, 4, ()), np.zeros((4, 4, 3), np.uint8), Header())
    assert points['colorField'] in {field.name for field in message.fields}


def test_a_message_path_that_does_not_exist_is_found(topics):
    with pytest.raises(KeyError):
        type_at(topics, '/perception/instances.instances[:].confidence')
    with pytest.raises(AttributeError):
        type_at(topics, '/perception/instances.height[:]')
    assert type_at(topics, '/perception/instances.instances[0].mask.counts[:]') == 'uint32'

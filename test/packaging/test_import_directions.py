"""The directions in which the packages and rooms may import each other, read from the source."""

import ast
import functools
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = {'core': 'instructsam.core', 'train': 'instructsam.train', 'instructsam_ros': 'instructsam_ros'}
GENERATED = {'msg', 'srv', 'action'}  # by rosidl
ROS = {
    'rclpy',
    'rosidl_runtime_py',
    'tf2_ros',
    'tf2_msgs',
    'sensor_msgs',
    'std_msgs',
    'geometry_msgs',
    'instructsam_ros',
}

ROOMS = {
    'conversions': set(),
    'pipeline': {'conversions'},
    'dds': set(),
    'node': {'pipeline', 'conversions', 'dds'},
    'viewer': {'conversions', 'dds', 'node.qos', 'own_node', 'pipeline.newest'},
    'bag': {'pipeline', 'conversions', 'viewer'},
    'own_node': set(),
    'detections': {'conversions'},
    'goal_sender': {'node.qos', 'own_node'},
    'client': {'conversions', 'dds', 'detections', 'goal_sender', 'node.qos', 'own_node'},
    'entry_points': set(),  # imports the nodes by name
    'simulation': {
        'node.guarded_executor',
        'node.parameters',
        'node.qos',
        'node.signals',
        'bag.recordings',
        'bag.storage',
        'conversions',
        'dds',
        'pipeline.scheduling.error_log',
        'pipeline.scheduling.statistics',
    },
    'doctor': {'dds', 'node.qos', 'own_node'},
    'web': {'client', 'conversions', 'dds', 'node.qos', 'own_node'},
    'demo': {'client', 'conversions', 'dds', 'pipeline.newest', 'bag.recordings', 'node.qos', 'own_node'},
}
"""Rooms, or single modules of a room, that each room of the node may import."""


@functools.cache
def imports(folder):
    """{file: full names of all that it imports}, for every module below `folder`."""
    found = {}
    for path in sorted((ROOT / folder).rglob('*.py')):
        if not GENERATED & set(path.relative_to(ROOT / folder).parts):
            found[path.relative_to(ROOT)] = names = set()
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names.update(alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    assert not node.level, f'{path} has a relative import'
                    names.update(f'{node.module}.{alias.name}' for alias in node.names)
    assert found
    return found


def offending(folder, is_forbidden):
    return {str(path): bad for path, names in imports(folder).items() if (bad := sorted(filter(is_forbidden, names)))}


def is_in(name, modules):
    return any(name == module or name.startswith(f'{module}.') for module in modules)


def test_core_knows_nothing_of_ros_and_of_training():
    assert offending('core', lambda name: is_in(name, ROS | {'instructsam.train'})) == {}


def test_train_knows_nothing_of_ros():
    assert offending('train', lambda name: is_in(name, ROS)) == {}


def test_the_node_reaches_transformers_through_the_engine_alone():
    assert offending('instructsam_ros', lambda name: is_in(name, {'transformers'})) == {}


def test_only_simulation_uses_the_training_package():
    users = offending('instructsam_ros', lambda name: is_in(name, {'instructsam.train'}))
    assert {Path(user).parts[1] for user in users} <= {'simulation'}


def test_the_pipeline_has_no_ros_node():
    forbidden = {'rclpy.node', 'rclpy.lifecycle', 'rclpy.executors', 'rclpy.create_node', 'rclpy.init'}
    assert offending('instructsam_ros/pipeline', lambda name: is_in(name, forbidden)) == {}


def test_every_room_of_the_node_has_its_rule():
    rooms = {path.name for path in (ROOT / 'instructsam_ros').iterdir() if (path / '__init__.py').exists()}
    modules = {path.stem for path in (ROOT / 'instructsam_ros').glob('*.py')} - {'__init__'}
    assert (rooms | modules) - GENERATED == set(ROOMS)


@pytest.mark.parametrize('room', ROOMS)
def test_rooms_of_the_node_import_one_way(room):
    allowed = {f'instructsam_ros.{name}' for name in {room, *ROOMS[room], *GENERATED}}
    bad = offending('instructsam_ros', lambda name: is_in(name, {'instructsam_ros'}) and not is_in(name, allowed))
    of_room = {path: names for path, names in bad.items() if Path(path).parts[1].removesuffix('.py') == room}
    assert of_room == {}


def test_no_room_imports_in_a_circle():
    graph = {room: {name.split('.')[0] for name in allowed} for room, allowed in ROOMS.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize(
    'room',
    [
        'conversions',
        'pipeline',
        'pipeline/scheduling',
        'node',
        'bag',
        'bag/folders',
        'bag/storage',
        'simulation',
        'demo',
    ],
)
def test_modules_of_a_room_do_not_import_in_a_circle(room):
    """Imports for type checking alone are exempt."""
    package = f'instructsam_ros.{room.replace("/", ".")}'
    graph = {}
    for path in sorted((ROOT / 'instructsam_ros' / room).glob('*.py')):
        tree = ast.parse(path.read_text())
        typing_only = {
            id(child)
            for node in tree.body
            if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING'
            for child in ast.walk(node)
        }
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
                if node.module == package:
                    names.update(alias.name for alias in node.names)
                elif is_in(node.module, {package}):
                    names.add(node.module.removeprefix(f'{package}.').split('.')[0])
        graph[path.stem] = names
    TopologicalSorter(graph).prepare()

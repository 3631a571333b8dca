"""The launch file: its source where launch is missing (it is not on PyPI), its effect where launch_ros is installed."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
FILE = ROOT / 'launch' / 'perception.launch.py'
ARGUMENTS = {
    'model', 'device', 'image', 'image_transport', 'depth', 'depth_transport', 'camera_info', 'instruction',
    'vision_msgs', 'params_file', 'replay', 'respawn',
}  # fmt: skip
EVALUATED = {'AnonName', 'Command', 'PythonExpression', 'eval', 'exec', '__import__'}

# `ros2 launch` with a path, for installations without ros2cli
LAUNCH = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

arguments = [argument.split(':=', 1) for argument in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService(noninteractive=True)  # forwards SIGINT; on a terminal the children receive it directly
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


def calls(name):
    """Return {first argument or `executable`: keywords as source text} of every call of `name` in the launch file."""
    found = {}
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == name:
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found[node.args[0].value if node.args else ast.literal_eval(keywords['executable'])] = keywords
    return found


def test_each_argument_is_described():
    declared = calls('DeclareLaunchArgument')
    assert set(declared) == ARGUMENTS
    for keywords in declared.values():
        assert len(ast.literal_eval(keywords['description'])) > 20
        assert 'default_value' in keywords  # no argument is mandatory


def test_it_has_no_logic():
    logic = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.Lambda)
    nodes = list(ast.walk(ast.parse(FILE.read_text())))
    assert not [node for node in nodes if isinstance(node, logic)]
    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
    assert functions == ['has_recording', 'generate_launch_description']


def test_it_evaluates_no_text():
    """Text of an argument that became part of an expression would be run as code."""
    names = {
        name
        for node in ast.walk(ast.parse(FILE.read_text()))
        for name in (getattr(node, 'id', ''), getattr(node, 'attr', ''), getattr(node, 'name', ''))
    }
    assert not names & EVALUATED


def test_it_starts_what_is_installed():
    nodes = calls('Node')
    assert set(nodes) == {'perception_node', 'replay'}
    for executable in nodes:
        assert (ROOT / 'scripts/ros' / executable).is_file()
    assert (ROOT / 'config' / 'perception.yaml').is_file()  # the default of params_file


def test_its_defaults_are_the_node_s():
    pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')
    from instructsam_ros.node.parameters import BY_NAME

    declared = calls('DeclareLaunchArgument')
    for name in ('model', 'device', 'image_transport', 'depth_transport', 'instruction'):
        assert ast.literal_eval(declared[name]['default_value']) == BY_NAME[name].default
    assert declared['vision_msgs']['default_value'] == repr(str(BY_NAME['vision_msgs'].default).lower())


def test_a_replayed_image_is_answered(robot, tmp_path):
    pytest.importorskip('launch_ros', reason='launch is not on PyPI; it comes with an installed ROS 2')
    packages = pytest.importorskip('ament_index_python.packages')
    try:
        packages.get_package_prefix('instructsam_ros')
    except packages.PackageNotFoundError:
        pytest.skip('this package is not in the ament index: build it and source its setup file')
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / 'a picture.png')
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    answer: instruction\n    trigger: on_instruction\n')
    instruction = 'the robot\'s "mug": no. 1 #red'
    launch = robot.start(
        command=[
            sys.executable,
            '-c',
            LAUNCH,
            str(FILE),
            f'params_file:={parameters}',
            f'instruction:={instruction}',
            f'replay:={tmp_path / "a picture.png"}',
            'image:=/camera/image',
            'device:=cpu',
        ]
    )
    result = robot.next_result()
    assert (result.instruction, result.height, result.width) == (instruction, 48, 64)
    launch.interrupt()
    assert launch.exit_code() == 0
    assert len(launch.logged('process has finished cleanly')) == 2

"""The package under the real ROS tools: `ros2 launch`, topic, action, param, lifecycle and run, and tf2.

Needs an installed ROS 2 that is sourced, or its sources: build_ros_tools.sh in this folder builds what PyPI lacks.
"""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import instructsam_ros

ROOT = Path(__file__).parents[3]
BAG = Path(instructsam_ros.__file__).parent / 'data/tabletop_bag'
STANDIN = ROOT / 'test/ros/support/standin.py'
TIMEOUT_S = 60.0
CAMERA = '/camera/color/image_raw'
LAUNCH = ('ros2', 'launch', 'instructsam_ros', 'perception.launch.py')


def missing():
    """Return what these tests lack here, or ''."""
    if not shutil.which('ros2'):
        return 'ros2 is not on the path: source a ROS 2, or build its tools with test/ros/tools/build_ros_tools.sh'
    if importlib.util.find_spec('launch_ros') is None:
        return 'launch_ros is not installed'
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix('instructsam_ros')
    except PackageNotFoundError:
        return 'instructsam_ros is not in the ament index: build it with colcon and source its setup file'
    return ''


REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def ros2(lone_robot):
    """Run a `ros2` command on the robot's domain; return its output."""
    env = os.environ | {'ROS_DOMAIN_ID': str(lone_robot.domain_id)}

    def run(*arguments, until=''):
        """Repeated until `until` is in the output: the daemon of `ros2` may not have discovered the node yet."""
        deadline = time.monotonic() + TIMEOUT_S
        output = None
        while output is None or (until not in output and time.monotonic() < deadline):
            command = ['ros2', *map(str, arguments)]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, cwd='/')
            output = done.stdout + done.stderr
        assert until in output, output
        return output

    yield run
    run('daemon', 'stop')


def result_with_geometry(robot):
    while True:
        result = robot.next_result()
        if result.geometry_frame_id:
            return result


def test_the_bag_that_ships_by_arguments_alone(lone_robot, ros2):
    node = lone_robot.start(
        command=[
            *LAUNCH, 'device:=cpu', f'replay:={BAG}',
            f'image:={CAMERA}', 'image_transport:=compressed', 'depth:=/camera/aligned_depth_to_color/image_raw',
            'camera_info:=/camera/color/camera_info', 'instruction:=the red apples',
        ]
    )  # fmt: skip
    result = result_with_geometry(lone_robot)
    truth = json.loads((BAG / 'truth.jsonl').read_text().splitlines()[0])
    apples = sum(each['category'] == 'apple' and each['color'] == 'red' for each in truth['objects'])
    assert 1 <= len(result.instances) <= apples
    assert node.logged(f'publishing {CAMERA}/compressed (sensor_msgs/msg/CompressedImage)')

    # A volatile publisher, and a wrong time limit, which must not end the node.
    assert 'publishing #1' in ros2(
        'topic', 'pub', '--once', '/instruction', 'std_msgs/msg/String', "{data: 'the spoon'}"
    )
    lone_robot.wait(lambda: any(each.instruction == 'the spoon' for each in lone_robot.results))
    goal = "{instruction: 'the spoon', timeout_s: 1.0e10}"
    assert 'status:' in ros2('action', 'send_goal', '/perception/segment', 'instructsam_ros/action/Segment', goal)
    ros2('lifecycle', 'get', '/perception', until='active')
    ros2('param', 'get', '/perception', 'image_transport', until='compressed')
    node.interrupt()
    assert node.exit_code() == 0
    assert len(node.logged('process has finished cleanly')) == 2


@pytest.mark.parametrize('name', ["it's", "a'''b", 'ends with \\', "' + str(open('ran', 'w')) + r'", '$(touch ran)'])
def test_a_path_is_never_run(lone_robot, tmp_path, name):
    """Each name of a folder has broken an expression that it was part of."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(BAG / 'truth.jsonl', folder / 'no image')
    node = lone_robot.start(
        command=[
            *LAUNCH, f'replay:={folder}', 'model:=/no/such',
        ]
    )  # fmt: skip
    lone_robot.wait(lambda: node.logged('holds no image files'))
    assert any(str(folder) in line for line in node.logged('holds no image files'))
    node.interrupt()
    node.exit_code()
    node.log.clear()
    assert not list(tmp_path.rglob('ran'))
    assert not Path('ran').exists()


def test_the_replay_ends_with_the_node(lone_robot, tmp_path):
    parameters = tmp_path / 'parameters.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    answer: nonsense\n')
    node = lone_robot.start(
        command=[
            *LAUNCH, f'params_file:={parameters}',
            f'replay:={BAG}',
        ]
    )  # fmt: skip
    assert node.exit_code() == 0
    assert node.logged('exit code 2')
    assert node.logged('sent 0 messages')


def test_geometry_in_another_frame(lone_robot):
    """The pose of the camera is in the bag's /tf."""
    pytest.importorskip('tf2_ros', reason='tf2_ros is not on PyPI')
    remapped = {
        'image': CAMERA,
        'depth': '/camera/aligned_depth_to_color/image_raw',
        'camera_info': '/camera/color/camera_info',
    }
    remappings = [part for name, topic in remapped.items() for part in ('-r', f'{name}:={topic}')]
    lone_robot.start(
        'target_frame:=world',
        'image_transport:=compressed',
        'instruction:=the objects',
        command=[sys.executable, str(STANDIN), '--ros-args', *remappings],
    )
    replay = [sys.executable, '-m', 'instructsam_ros.simulation.replay_node', str(BAG), '--loop']
    lone_robot.start(command=replay)
    assert result_with_geometry(lone_robot).geometry_frame_id == 'world'


def transform_at(sec, x):
    """Return the pose of `camera` in `world`: x in m."""
    from geometry_msgs.msg import TransformStamped

    transform = TransformStamped(child_frame_id='camera')
    transform.header.frame_id, transform.header.stamp.sec = 'world', sec
    transform.transform.translation.x, transform.transform.rotation.w = float(x), 1.0
    return transform


def test_tf2_is_asked_for_the_time_of_the_image():
    """tf2 takes a stamp of zero for the latest transform, whatever its time."""
    tf2_ros = pytest.importorskip('tf2_ros', reason='tf2_ros is not on PyPI')
    from builtin_interfaces.msg import Time

    from instructsam_ros.pipeline.localization import TransformError
    from instructsam_ros.pipeline.settings import Settings
    from instructsam_ros.pipeline.transforms import TransformLookup

    transforms = TransformLookup(lambda receiver: tf2_ros.Buffer())
    transforms.subscribe()
    settings = Settings(depth_timeout_s=0.0, tf_max_gap_s=2.0)
    for sec in (4, 6):
        transforms.set_transform(transform_at(sec, sec), 'test')
    assert transforms.lookup('world', 'camera', Time(sec=5), settings).translation[0] == pytest.approx(5)
    for stamp, reason in ((Time(), 'the stamp of the image is 0'), (Time(sec=7), "'camera' has transforms until 6")):
        with pytest.raises(TransformError, match=reason):
            transforms.lookup('world', 'camera', stamp, settings)
    with pytest.raises(TransformError, match='does not exist'):
        transforms.lookup('map', 'camera', Time(sec=5), settings)


def test_transforms_of_a_round_before_are_forgotten(lone_robot):
    """Of a loop of more than 10 s, tf2 would ignore the second round; of a shorter one it would mix both."""
    pytest.importorskip('tf2_ros', reason='tf2_ros is not on PyPI')
    from builtin_interfaces.msg import Time

    from instructsam_ros.node.tf_buffer import create_tf_buffer
    from instructsam_ros.pipeline.localization import TransformError
    from instructsam_ros.pipeline.settings import Settings
    from instructsam_ros.pipeline.transforms import TransformLookup

    transforms = TransformLookup(functools.partial(create_tf_buffer, lone_robot.node))
    transforms.subscribe()
    settings = Settings(depth_timeout_s=0.0)

    def x_of(frame, sec):
        return transforms.lookup('world', frame, Time(sec=sec), settings).translation[0]

    static = transform_at(0, 7)
    static.child_frame_id = 'mount'
    transforms.set_transform_static(static, 'test')
    transforms.put_image('', 129 * 10**9)
    for sec in range(100, 130):
        transforms.set_transform(transform_at(sec, 1), 'test')
    assert x_of('camera', 125) == 1
    transforms.put_image('', 100 * 10**9)
    with pytest.raises(TransformError, match="'camera' has no transform since"):
        x_of('camera', 125)
    for sec in (100, 101, 102):
        transforms.set_transform(transform_at(sec, 2), 'test')
    assert x_of('camera', 101) == 2
    with pytest.raises(TransformError, match="'camera' has transforms until 102"):
        x_of('camera', 110)
    assert x_of('mount', 101) == 7

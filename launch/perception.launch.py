"""Starts the perception node and, with replay:=PATH, a recording instead of a camera."""

from launch import Condition, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ShutdownProcess
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def has_recording(context: LaunchContext) -> bool:
    """Return whether there is something to replay.

    Why not IfCondition: it needs NotEqualsSubstitution, which Humble does not have, or a PythonExpression, which would
    run the path as code.
    """
    return context.launch_configurations['replay'] != ''


def generate_launch_description() -> LaunchDescription:
    """Return the launch description with its arguments and nodes."""
    topics = [(name, LaunchConfiguration(name)) for name in ('image', 'depth', 'camera_info')]
    perception = Node(
        package='instructsam_ros',
        executable='perception_node',
        output='screen',
        remappings=topics,
        parameters=[
            LaunchConfiguration('params_file'),
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=str)
                for name in ('model', 'device', 'image_transport', 'depth_transport', 'instruction')
            },
            {'vision_msgs': ParameterValue(LaunchConfiguration('vision_msgs'), value_type=bool)},
        ],
        respawn=LaunchConfiguration('respawn'),
        respawn_delay=2.0,
    )
    replay = Node(
        package='instructsam_ros',
        executable='replay',
        output='screen',
        remappings=topics,
        arguments=['--loop', '--wait-for-subscribers', '--', LaunchConfiguration('replay')],
        condition=Condition(predicate=has_recording),
    )
    end_replay = EmitEvent(event=ShutdownProcess(process_matcher=matches_action(replay)))
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'model',
                default_value='tabletop',
                description="model folder or hub id; 'tabletop' is small, built in and trained on rendered tables only",
            ),
            DeclareLaunchArgument(
                'device',
                default_value='auto',
                description='device of the model: auto (a GPU if available), cuda, cuda:N or cpu',
            ),
            DeclareLaunchArgument(
                'image',
                default_value='image',
                description='topic of the camera images; for compressed images, without /compressed at the end',
            ),
            DeclareLaunchArgument(
                'image_transport',
                default_value='raw',
                description='transport of the camera images: raw (sensor_msgs/Image) or compressed (CompressedImage)',
            ),
            DeclareLaunchArgument(
                'depth',
                default_value='depth',
                description='topic of depth images that are aligned to the color images; locates objects in 3D; for '
                'compressed ones, without /compressedDepth or /compressed at the end',
            ),
            DeclareLaunchArgument(
                'depth_transport',
                default_value='raw',
                description='transport of the depth images: raw, compressedDepth, or compressed (PNG, TIFF; no JPEG)',
            ),
            DeclareLaunchArgument(
                'camera_info', default_value='camera_info', description='topic of the calibration of the camera'
            ),
            DeclareLaunchArgument(
                'instruction',
                default_value='',
                description='first instruction, e.g. "the mugs left of the kettle"; '
                'empty: wait for the topic `instruction`',
            ),
            DeclareLaunchArgument(
                'vision_msgs',
                default_value='false',
                description='publish ~/detections_2d and ~/detections_3d as well; needs the package vision_msgs',
            ),
            DeclareLaunchArgument(
                'params_file',
                default_value=PathJoinSubstitution([FindPackageShare('instructsam_ros'), 'config', 'perception.yaml']),
                description='file with all other parameters; model, device, image_transport, depth_transport, '
                'instruction and vision_msgs are set by these arguments, even if the file contains them',
            ),
            DeclareLaunchArgument(
                'replay',
                default_value='',
                description='bag, image or folder of images that is played in a loop once the node has subscribed; '
                'images are published on the topic `image`, messages of a bag on their own topics',
            ),
            DeclareLaunchArgument(
                'respawn',
                default_value='false',
                description='start the node again 2 s after it has ended; false: the replay ends with the node',
            ),
            perception,
            replay,
            RegisterEventHandler(
                OnProcessExit(target_action=perception, on_exit=[end_replay]),
                condition=UnlessCondition(LaunchConfiguration('respawn')),
            ),
        ]
    )

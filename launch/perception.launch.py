"""Starts the perception node and, with replay:=PATH, a recording instead of a camera."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    """Return the launch description with its arguments and nodes."""
    image = LaunchConfiguration('image')
    topics = [('image', image), ('image/compressed', [image, '/compressed'])]
    topics += [(name, LaunchConfiguration(name)) for name in ('depth', 'camera_info')]
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
                'depth',
                default_value='depth',
                description='topic of depth images that are aligned to the color images; locates objects in 3D',
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
                'params_file',
                default_value=PathJoinSubstitution([FindPackageShare('instructsam_ros'), 'config', 'perception.yaml']),
                description='file with all other parameters; model, device and instruction are set by these arguments',
            ),
            DeclareLaunchArgument(
                'replay',
                default_value='',
                description='bag, image or folder of images that is played in a loop once the node has subscribed; '
                'images are published on the topic `image`, messages of a bag on their own topics',
            ),
            Node(
                package='instructsam_ros',
                executable='perception_node',
                output='screen',
                remappings=topics,
                parameters=[
                    LaunchConfiguration('params_file'),
                    {
                        name: ParameterValue(LaunchConfiguration(name), value_type=str)
                        for name in ('model', 'device', 'instruction')
                    },
                ],
            ),
            Node(
                package='instructsam_ros',
                executable='replay',
                output='screen',
                remappings=topics,
                arguments=[LaunchConfiguration('replay'), '--loop', '--wait-for-subscribers'],
                condition=IfCondition(PythonExpression(["r'''", LaunchConfiguration('replay'), "''' != ''"])),
            ),
        ]
    )

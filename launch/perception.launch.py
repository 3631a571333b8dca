"""Starts the perception node and, with replay:=PATH, a recording in place of a camera."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    image = LaunchConfiguration('image')
    topics = [('image', image), ('image/compressed', [image, '/compressed'])]
    topics += [(name, LaunchConfiguration(name)) for name in ('depth', 'camera_info')]
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                'model',
                default_value='tabletop',
                description="model folder or hub id; 'tabletop' is small, built in, and knows rendered tables only",
            ),
            DeclareLaunchArgument(
                'device',
                default_value='auto',
                description='where the model runs: auto (a GPU if there is one), cuda, cuda:N or cpu',
            ),
            DeclareLaunchArgument(
                'image',
                default_value='image',
                description='topic of the camera images; for compressed ones without the /compressed at its end',
            ),
            DeclareLaunchArgument(
                'depth',
                default_value='depth',
                description='topic of depth images aligned to the color images, where objects are to be located',
            ),
            DeclareLaunchArgument(
                'camera_info', default_value='camera_info', description='topic of what belongs to them'
            ),
            DeclareLaunchArgument(
                'instruction',
                default_value='',
                description='what to look for from the start, e.g. "the mugs left of the kettle"; '
                'empty waits for the topic `instruction`',
            ),
            DeclareLaunchArgument(
                'params_file',
                default_value=PathJoinSubstitution([FindPackageShare('instructsam_ros'), 'config', 'perception.yaml']),
                description='file of all other parameters; model, device and instruction come from the arguments here',
            ),
            DeclareLaunchArgument(
                'replay',
                default_value='',
                description='bag, picture or folder of pictures, played over and over as soon as the node listens; '
                'pictures come on the topic `image`, what a bag holds on its own topics',
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

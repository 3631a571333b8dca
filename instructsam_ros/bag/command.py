"""`instructsam bag`: answer instructions on the images of a ROS 2 bag, draw the results and check the copy."""

from instructsam.core.commands.parser import CommandParser, add_commands

COMMANDS = {
    'annotate': (
        'instructsam_ros.bag.commands.annotate',
        'answer instructions on every image of a bag, and write a copy of it with the results',
    ),
    'show': (
        'instructsam_ros.bag.commands.show',
        'draw the results in a bag on their images: a video, an animation or a strip',
    ),
    'verify': (
        'instructsam_ros.bag.commands.verify',
        'compare a bag with results with its original, message by message',
    ),
}


def add_arguments(parser: CommandParser) -> None:
    """Add the subcommands."""
    parser.hint = 'a bag is answered with `instructsam bag annotate IN OUT`'
    add_commands(parser, COMMANDS, dest='bag_command')

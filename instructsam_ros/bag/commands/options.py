"""Options that the subcommands of `instructsam bag` share."""

import argparse

from instructsam.core.commands.arguments import count
from instructsam.core.commands.options import option
from instructsam_ros.bag.storage.limits import Limits


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add --max-message-mb and --max-file-gb."""
    option(
        parser,
        '--max-message-mb',
        'largest message, or chunk of messages, of a compressed bag once decompressed, MB',
        Limits.message_mb,
        type=count,
        metavar='N',
    )
    option(
        parser,
        '--max-file-gb',
        'largest file of a bag that is compressed as a whole once decompressed, GB',
        Limits.file_gb,
        type=count,
        metavar='N',
    )


def limits_from(args: argparse.Namespace) -> Limits:
    """Return the limits that the arguments set."""
    return Limits(args.max_message_mb, args.max_file_gb)

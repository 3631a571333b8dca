"""Limits of what reading a bag may take, importable without the libraries that read it."""

import argparse
from dataclasses import dataclass

from instructsam.core.commands.arguments import count
from instructsam.core.commands.options import option


@dataclass(frozen=True)
class Limits:
    """Largest sizes of decompressed data; a bag with more is refused."""

    message_mb: int = 1024
    """A message, or a chunk of messages of an MCAP file, in MB (2**20 bytes)."""
    file_gb: int = 256
    """A file of a bag that is compressed as a whole (.mcap.zstd, .db3.zstd), in GB (2**30 bytes)."""

    @property
    def message_bytes(self) -> int:
        """`message_mb` in bytes."""
        return self.message_mb << 20

    @property
    def file_bytes(self) -> int:
        """`file_gb` in bytes."""
        return self.file_gb << 30


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add --max-message-mb and --max-file-gb."""
    option(
        parser,
        '--max-message-mb',
        'largest message, or chunk of messages, of a bag once decompressed, MB',
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

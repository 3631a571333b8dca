"""Zstandard and LZ4 with a limit on the result, because a few bytes can claim to be terabytes.

Why not the readers of rosbags or the mcap package: they decompress to any size that the data lead to.
"""

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Protocol

from lz4.frame import LZ4FrameDecompressor  # pyright: ignore[reportMissingTypeStubs]

from instructsam_ros.bag.storage.errors import RecordingError, explained_temporary_space
from instructsam_ros.bag.storage.limits import Limits

if sys.version_info >= (3, 14):
    from compression import zstd  # pyright: ignore[reportMissingImports]
else:
    from backports import zstd

ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
PART_BYTES = 1 << 20
MOST_FRAMES = 64
"""Frames of a message or a chunk; recorders write one. After each of them, the rest of the data is copied."""
SPARED_BYTES = 256 << 20
"""Space on the disk of temporary files that is left to others."""


class _Decompressor(Protocol):
    eof: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompress_zstd(data: bytes, limit: int) -> bytes:
    """Return the content of one or more Zstandard frames of at most `limit` bytes; see _decompress."""
    return _decompress(data, limit, zstd.ZstdDecompressor)


def decompress_lz4(data: bytes, limit: int) -> bytes:
    """Return the content of one or more LZ4 frames of at most `limit` bytes; see _decompress."""
    return _decompress(data, limit, LZ4FrameDecompressor)


def _decompress(data: bytes, limit: int, new_decompressor: Any) -> bytes:
    """Return the content of the frames.

    Raises:
        RecordingError: It is longer than `limit` bytes, it has more than MOST_FRAMES, or the data are damaged.
    """
    parts, total, frames = [], 0, 0
    try:
        while data:
            frames += 1
            if frames > MOST_FRAMES:
                raise RecordingError(f'its compressed data have more than {MOST_FRAMES} frames')
            decompressor: _Decompressor = new_decompressor()
            # One byte more than allowed tells data of exactly that size from longer data.
            part = decompressor.decompress(data, max_length=limit - total + 1)
            while part and not decompressor.eof and total + len(part) <= limit:
                parts.append(part)
                total += len(part)
                part = decompressor.decompress(b'', max_length=limit - total + 1)
            parts.append(part)
            total += len(part)
            if total > limit:
                raise RecordingError(f'its decompressed size exceeds {limit:,} bytes')
            if not decompressor.eof:
                raise RecordingError('its compressed data end too early')
            data = decompressor.unused_data or b''
    except (zstd.ZstdError, RuntimeError, EOFError) as error:
        raise RecordingError(f'its compressed data are damaged: {error}') from error
    return b''.join(parts)


def decompress_file(path: Path, target: Path, limits: Limits) -> None:
    """Decompress the Zstandard file `path` to `target`.

    Raises:
        RecordingError: The result is larger than `limits.file_gb`, or the file is damaged.
        StorageError: The disk of `target` has too little space.
    """
    free = shutil.disk_usage(target.parent).free - SPARED_BYTES
    total = 0
    try:
        with explained_temporary_space(target.parent), zstd.open(path, 'rb') as source, target.open('wb') as out:
            while part := source.read(PART_BYTES):
                total += len(part)
                if total > limits.file_bytes:
                    raise RecordingError(
                        f'{path} decompresses to more than {limits.file_gb} GB; raise --max-file-gb if it is meant to'
                    )
                if total > free:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                out.write(part)
    except (zstd.ZstdError, EOFError) as error:
        raise RecordingError(
            f'{path} cannot be read as a bag ({error}): its Zstandard data are truncated or damaged; copy it again '
            'from where it was recorded'
        ) from error

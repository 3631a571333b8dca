"""Limits of what reading a bag may take, importable without the libraries that read it."""

from dataclasses import dataclass


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

"""Destinations of a Rerun recording: a file, a running viewer, or a new one."""

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from instructsam.core.errors import InstructSAMError, StorageError
from instructsam.core.text import shorten

RECORDING_SUFFIX = '.rrd'
NEW_VIEWER = 'viewer'
BLOCK_BYTES = 1 << 20
CONNECTION_S = 5.0  # longest wait for a running viewer
DISPLAYS = ('DISPLAY', 'WAYLAND_DISPLAY', 'WAYLAND_SOCKET')  # variables that name a display, on Linux


class ViewerError(InstructSAMError, RuntimeError):
    """The viewer cannot be started or reached."""


class Sink(Protocol):
    """A destination of a RecordingStream of Rerun."""

    def open(self, stream: Any) -> None:
        """Connect the stream. Raises OSError, or RuntimeError or ValueError of Rerun."""
        ...

    def check(self) -> None:
        """Raise OSError if the recording cannot be continued."""
        ...

    def close(self) -> None:
        """Finish what the stream, which has been disconnected, has left; raises as `check` does."""
        ...

    def error(self, reason: str) -> InstructSAMError:
        """Return the error for one of Rerun's own."""
        ...


def sink_of(where: str) -> Sink:
    """Return the sink that an argument names: NEW_VIEWER, the URL of a running viewer, or a file.

    Raises:
        InstructSAMError: It is none of these.
    """
    if where == NEW_VIEWER:
        return NewViewerSink()
    if where.startswith('rerun') and '://' in where:
        return ViewerSink(where)
    if where.lower().endswith(RECORDING_SUFFIX):
        return FileSink(Path(where))
    raise InstructSAMError(
        f'a recording goes to {NEW_VIEWER!r}, to the URL of a viewer (rerun+http://127.0.0.1:9876/proxy) or to a file '
        f'that ends in {RECORDING_SUFFIX}, got {where!r}'
    )


class FileSink:
    """A file that grows with the recording.

    Rerun writes to a pipe, and a thread of Python writes the file. Rerun's own writer ends at the first error of the
    disk without telling, and the end of the process then waits for it forever (0.41).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fault: OSError | None = None
        self._thread: Thread | None = None

    def open(self, stream: Any) -> None:
        """Create the file and connect the stream."""
        target = self.path.open('wb')
        receiver, sender = os.pipe()
        self._thread = Thread(target=self._copy, args=(os.fdopen(receiver, 'rb'), target), daemon=True)
        self._thread.start()
        try:
            stream.save(f'/proc/self/fd/{sender}')
        finally:
            os.close(sender)  # the stream has opened it again

    def _copy(self, source: IO[bytes], target: IO[bytes]) -> None:
        with source, target:
            while block := os.read(source.fileno(), BLOCK_BYTES):
                if self._fault is None:  # otherwise it is read all the same: Rerun must be able to write
                    try:
                        target.write(block)
                        target.flush()
                    except OSError as error:
                        self._fault = error

    def check(self) -> None:
        """Raise the OSError of the file, if there was one."""
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Wait until everything is written."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def error(self, reason: str) -> InstructSAMError:
        """Return a StorageError."""
        return StorageError(f'cannot write {self.path}: {reason}')


class ViewerSink:
    """A running viewer."""

    def __init__(self, url: str) -> None:
        self._url = url

    def open(self, stream: Any) -> None:
        """Connect the stream."""
        address = urlsplit(self._url)
        if address.hostname and address.port:
            # Rerun waits longer and logs several lines, or says nothing (0.23).
            try:
                socket.create_connection((address.hostname, address.port), CONNECTION_S).close()
            except OSError as error:
                raise RuntimeError(error.strerror or error) from error
        stream.connect_grpc(self._url)

    def check(self) -> None:
        """Do nothing: Rerun connects again when it must."""

    def close(self) -> None:
        """Do nothing."""

    def error(self, reason: str) -> InstructSAMError:
        """Return a ViewerError."""
        return ViewerError(f'no Rerun viewer at {self._url} ({shorten(reason)}); start one there with `rerun`')


class NewViewerSink:
    """A viewer that is started, and stays open."""

    def open(self, stream: Any) -> None:
        """Start the viewer of this installation, which Rerun looks for on the PATH, where it need not be."""
        if not any(os.environ.get(name) for name in DISPLAYS):
            raise RuntimeError(f'none of {", ".join(DISPLAYS)} is set')
        spec = find_spec('rerun_cli')
        folders = list(spec.submodule_search_locations or ()) if spec else []
        path = os.environ.get('PATH', '')
        os.environ['PATH'] = os.pathsep.join([*folders, path])
        try:
            stream.spawn()
        finally:
            os.environ['PATH'] = path

    def check(self) -> None:
        """Do nothing: its user may close the viewer."""

    def close(self) -> None:
        """Do nothing."""

    def error(self, reason: str) -> InstructSAMError:
        """Return a ViewerError."""
        return ViewerError(
            f'the Rerun viewer does not run ({shorten(reason)}); without a display, give a file (.rrd) or the URL of a '
            'viewer elsewhere'
        )

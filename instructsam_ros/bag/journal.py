"""Finished results of an incomplete run, in a folder beside its output, so that they survive the process."""

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.core.folder_lock import FolderLock
from instructsam.core.run_settings import check_settings
from instructsam.core.storage import explained_storage_faults


class Journal:
    """The folder OUT.journal, locked by one run.

    A result is safe once add() has returned, however the process ends; after a power failure the latest ones may be
    missing and are computed again.

    Args:
        out: The bag that the run writes.
        inputs: Plain values that decide the results. A journal with results of other inputs is refused.

    Raises:
        InstructSAMError: The journal belongs to other inputs or is damaged.
        FolderInUseError: Another run has locked it.
        StorageError: It cannot be written.
    """

    def __init__(self, out: Path, inputs: Mapping[str, Any]) -> None:
        self._out = out
        self.folder = folder_for(out)
        with ExitStack() as stack:
            stack.enter_context(FolderLock(self.folder))
            try:
                with explained_storage_faults(self.folder):
                    database = sqlite3.connect(self.folder / 'results.sqlite', timeout=0, isolation_level=None)
                    self._database = stack.enter_context(closing(database))
                    previous = self._open(json.dumps(inputs))
            except sqlite3.DatabaseError as error:
                raise InstructSAMError(
                    f'{self.folder} is damaged ({error}): delete it to start from scratch'
                ) from error
            if previous is not None:
                check_settings(
                    json.loads(previous), inputs, output=self.folder, advice='delete it to start from scratch'
                )
            self._resources = stack.pop_all()

    def _open(self, inputs: str) -> str | None:
        """Open the database and create its tables; return the inputs of an earlier run that left results."""
        self._execute('PRAGMA locking_mode=EXCLUSIVE')
        self._execute('PRAGMA journal_mode=WAL')
        self._execute('BEGIN EXCLUSIVE')
        self._execute('CREATE TABLE IF NOT EXISTS run (asked TEXT NOT NULL, merged INTEGER NOT NULL)')
        self._execute('CREATE TABLE IF NOT EXISTS results (frame INTEGER PRIMARY KEY, ms REAL, message BLOB)')
        row = self._execute('SELECT asked FROM run').fetchone()
        if not row or not self.done:  # no result would be lost
            self._execute('DELETE FROM run')
            self._execute('INSERT INTO run VALUES (?, 0)', inputs)
            row = None
        self._execute('COMMIT')
        return row[0] if row else None

    @property
    def done(self) -> int:
        """Number of images, counted from the first, that need no more work."""
        return self._execute('SELECT coalesce(max(frame) + 1, 0) FROM results').fetchone()[0]

    def add(self, frame: int, ms: float, message: bytes) -> None:
        """Store the result on an image.

        Args:
            frame: index of the image.
            ms: the time that the result took.
            message: a serialized InstanceArray.
        """
        self._execute('INSERT INTO results VALUES (?, ?, ?)', frame, ms, message)

    def get(self, frame: int) -> bytes | None:
        """Return the message on an image; None if the image has no result."""
        row = self._execute('SELECT message FROM results WHERE frame = ?', frame).fetchone()
        return row and row[0]

    def __iter__(self) -> Iterator[tuple[int, float, bytes]]:
        """Yield (index of the image, ms, message) in the order of the images."""
        yield from self._execute('SELECT frame, ms, message FROM results ORDER BY frame')

    @property
    def is_merged(self) -> bool:
        """True if the output is complete, so that only the journal remains to be removed."""
        return self._out.exists() and bool(self._execute('SELECT merged FROM run').fetchone()[0])

    def new_output_folder(self) -> Path:
        """Return a folder in the journal in which to write the output; it does not exist yet."""
        folder = self.folder / self._out.name
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that died while it wrote
        return folder

    def publish(self, folder: Path) -> None:
        """Move the finished output to its final path in one step."""
        self._execute('UPDATE run SET merged = 1')
        try:
            folder.rename(self._out)
        except OSError as error:
            raise InstructSAMError(f'cannot write {self._out}: {error.strerror}; run the same command again') from error

    def remove(self) -> None:
        """Delete the journal and release the lock."""
        with self._resources:
            self._database.close()
            shutil.rmtree(self.folder)

    def close(self) -> None:
        """Release the lock; delete the journal if it holds no result."""
        with self._resources:
            if not self.done:
                self.remove()

    def _execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        return self._database.execute(query, values)


def folder_for(out: Path) -> Path:
    """Return the folder of the journal of the output `out`."""
    return out.with_name(f'{out.name}.journal')

"""Finished results of a run that is not through yet, in a folder beside its output: they outlast its death."""

import json
import shutil
import sqlite3
from pathlib import Path

from instructsam.core.errors import InstructSAMError


class Journal:
    """The folder OUT.journal while one run works on it.

    A result is safe once add() has returned, however the process ends; after a power failure the latest may be
    missing, and are worked out again.
    """

    def __init__(self, out, asked):
        """Opens the journal of the bag `out`, or makes one.

        asked: dict of plain values, all that decides the results. Raises InstructSAMError: the journal is of something
        else, somebody else works on it, it is damaged.
        """
        out = Path(out)
        self._out = out
        self.folder = out.with_name(f'{out.name}.journal')
        try:
            self.folder.mkdir(exist_ok=True)
            self._database = sqlite3.connect(self.folder / 'results.sqlite', timeout=0, isolation_level=None)
            # the lock is kept until the end; it ends with the process, whatever happens to that
            self._execute('PRAGMA locking_mode=EXCLUSIVE')
            self._execute('PRAGMA journal_mode=WAL')
            self._execute('BEGIN EXCLUSIVE')
            self._execute('CREATE TABLE IF NOT EXISTS run (asked TEXT NOT NULL, merged INTEGER NOT NULL)')
            self._execute('CREATE TABLE IF NOT EXISTS results (frame INTEGER PRIMARY KEY, ms REAL, message BLOB)')
            row = self._execute('SELECT asked FROM run').fetchone()
            if not row or not self.done:  # nothing would be lost
                self._execute('DELETE FROM run')
                self._execute('INSERT INTO run VALUES (?, 0)', json.dumps(asked))
                row = None
            self._execute('COMMIT')
        except OSError as error:
            raise InstructSAMError(f'cannot write {self.folder}: {error.strerror}') from error
        except sqlite3.OperationalError as error:
            if 'locked' in str(error):
                raise InstructSAMError(f'another run works on {out} (it has {self.folder} open)') from error
            raise InstructSAMError(f'cannot write {self.folder}: {error}') from error
        except sqlite3.DatabaseError as error:
            raise InstructSAMError(f'{self.folder} is damaged ({error}): delete it to begin anew') from error
        if row:
            self._check(json.loads(row[0]), json.loads(json.dumps(asked)))

    def _check(self, before, now):
        others = [f'{key} was {before.get(key)!r}, now {now.get(key)!r}' for key in now if before.get(key) != now[key]]
        if others:
            self.close()
            raise InstructSAMError(
                f'{self.folder} holds results of another run ({"; ".join(others)}): give what was given then to go '
                'on with it, or delete it to begin anew'
            )

    @property
    def done(self):
        """How many frames need no more work, counted from the first."""
        return self._execute('SELECT coalesce(max(frame) + 1, 0) FROM results').fetchone()[0]

    def add(self, frame, ms, message):
        """The result on the `frame`-th image: a serialized InstanceArray, and what it took."""
        self._execute('INSERT INTO results VALUES (?, ?, ?)', frame, ms, message)

    def get(self, frame):
        """The message, or None where the frame has no result."""
        row = self._execute('SELECT message FROM results WHERE frame = ?', frame).fetchone()
        return row and row[0]

    def __iter__(self):
        """Yields (ms, message) in order."""
        yield from self._execute('SELECT ms, message FROM results ORDER BY frame')

    @property
    def is_merged(self):
        """Whether the output was complete, and only the journal had still to go."""
        return self._out.exists() and bool(self._execute('SELECT merged FROM run').fetchone()[0])

    def fresh_copy(self):
        """Where the output is put together: a folder that does not exist yet, of the output's name."""
        folder = self.folder / self._out.name
        shutil.rmtree(folder, ignore_errors=True)  # of a run that died in the midst of it
        return folder

    def publish(self, folder):
        """The finished output takes its place, at once and whole. Raises InstructSAMError."""
        self._execute('UPDATE run SET merged = 1')
        try:
            folder.rename(self._out)
        except OSError as error:
            raise InstructSAMError(f'cannot write {self._out}: {error.strerror}; run the same again') from error

    def remove(self):
        self._database.close()
        shutil.rmtree(self.folder)

    def close(self):
        """Lets others have it; one that holds no result is removed."""
        if self.done:
            self._database.close()
        else:
            self.remove()

    def _execute(self, query, *values):
        return self._database.execute(query, values)

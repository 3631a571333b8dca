"""Cache of replies in one SQLite file: a run that is repeated costs nothing and gives the same replies."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructsam.core.errors import InstructSAMError
from instructsam.core.storage import explained_storage_faults

BUSY_S = 60.0  # longest wait for another process that writes
_TABLE = 'CREATE TABLE IF NOT EXISTS replies (request TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID'


def request_hash(request: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a request (model, messages, sampling, schema) in hexadecimal digits.

    The address of the server and the key are not part of a request.
    """
    text = json.dumps(request, sort_keys=True, separators=(',', ':'), ensure_ascii=True)
    return hashlib.sha256(text.encode('ascii')).hexdigest()


class ReplyCache:
    """Replies by the hash of their request; safe for several threads and processes.

    Args:
        file: The file; it and its folder are created if they do not exist.

    Raises:
        InstructSAMError: The file is not a cache, or is damaged.
        StorageError: It cannot be written.
    """

    def __init__(self, file: Path | str) -> None:
        self.file = Path(file)
        self._lock = threading.Lock()
        if self.file.exists() and not self.file.is_file():
            raise InstructSAMError(f'{self.file} is not a regular file: give another one for the cache of replies')
        with explained_storage_faults(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Statements are committed one by one (isolation_level None), under a lock of our own.
            self._database = sqlite3.connect(self.file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._run(_TABLE)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the reply to the request with this hash, or None."""
        rows = self._run('SELECT reply FROM replies WHERE request = ?', key)
        try:
            return json.loads(rows[0][0]) if rows else None
        except ValueError as error:
            raise self._damaged(error) from error

    def put(self, key: str, reply: Mapping[str, Any]) -> None:
        """Keep a reply; the first one stays if two processes asked the same."""
        self._run('INSERT OR IGNORE INTO replies VALUES (?, ?)', key, json.dumps(reply))

    def __len__(self) -> int:
        """Return the number of replies."""
        return self._run('SELECT COUNT(*) FROM replies')[0][0]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock, explained_storage_faults(self.file):
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InstructSAMError:
        return InstructSAMError(f'{self.file} is not a cache of replies ({error}): delete it or give another file')

"""An SQLite file (.db3) as recorded messages, of every schema that rosbag2 has had.

Why not rosbags: it opens the file as immutable, so that messages in a write-ahead log (-wal) beside it are missing.
"""

import contextlib
import shlex
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from instructsam.core import stop_signals
from instructsam.core.text import one_line, shorten
from instructsam_ros.bag.storage.channel import LATEST_NS, NO_DEFINITION, Channel, known_definition, known_digest
from instructsam_ros.bag.storage.errors import RecordingError, explained_temporary_space
from instructsam_ros.bag.storage.limits import Limits
from instructsam_ros.bag.storage.merging import Record
from instructsam_ros.bag.storage.metadata import parse_profiles

MAGIC = b'SQLite format 3\0'
LOGS = ('-wal', '-journal')
"""Endings of the files beside a database whose writer was cut off; they hold its latest messages or their undoing."""

TABLES = ('topics', 'messages', 'message_definitions', 'metadata')
ROW_BYTES = 1 << 20
"""Size of a row beside the data of its message."""
STEPS = 100_000
"""Instructions of SQLite, a few milliseconds, between two chances for handlers of signals to run."""


class SqliteFile:
    """The messages of an SQLite file.

    A file with a write-ahead log or a rollback journal is read from a copy in the folder for temporary files, in which
    SQLite replays the log; the recording itself is never written to. The copy is deleted as soon as it is open, so that
    none is left when the process is killed.

    Args:
        path: The file.
        limits: Largest sizes of messages.
        shown: Its name in messages, which differs if the file was decompressed.
        keep_open: Whether to keep the file open, so that it may be deleted.

    Attributes: see McapFile; `files` are those that hold the messages, logs included.

    Raises:
        RecordingError: The file is damaged, exceeds the limits, or is being recorded at the moment.
        StorageError: The copy, or a temporary file of SQLite, cannot be written.
    """

    def __init__(self, path: Path, limits: Limits, shown: Path, *, keep_open: bool = False) -> None:
        self._shown, self._is_decompressed = shown, shown != path
        self.files = [path, *_logs(path)]
        self._limit = limits.message_bytes
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.start_ns, self.end_ns = LATEST_NS, -LATEST_NS
        self.compresses_chunks = False
        self.recorder_metadata = ''
        self.extras: Counter[str] = Counter()
        self.publish_times = 0
        with self._explained(), contextlib.ExitStack() as stack:
            if len(self.files) > 1:
                folder = stack.enter_context(TemporaryDirectory(prefix='instructsam-bag-'))
                path, keep_open = self._recovered(Path(folder) / 'copy.db3'), True
            self._path = path.absolute()
            self._kept = self._connect() if keep_open else None
            with self._opened() as database:
                self._read_topics(database)
                self._count(database)

    def messages(self, wanted: Collection[int]) -> Iterator[Record]:
        """Yield the messages of the channels `wanted` in order of time; at equal times in order of the file.

        Raises:
            RecordingError: The file is damaged.
        """
        numbers = ','.join(str(int(channel)) for channel in wanted)
        query = (
            f'SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({numbers}) ORDER BY timestamp, rowid'
        )
        with self._explained(), self._opened() as database:
            for channel, time_ns, data in database.execute(query):
                if not isinstance(time_ns, int) or not isinstance(data, bytes):
                    raise self._damaged(f'a message of {one_line(self.channels[channel].topic)} has no time or no data')
                yield Record(time_ns, channel, data)

    def _recovered(self, copy: Path) -> Path:
        """Copy the database and its logs, let SQLite replay them, and return the copy."""
        before = [(file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        with explained_temporary_space(copy.parent):
            for file in self.files:
                shutil.copyfile(file, f'{copy}{file.name.removeprefix(self.files[0].name)}')
        if before != [(file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]:
            raise RecordingError(f'{self._shown} is being recorded at the moment; stop the recorder first')
        with explained_temporary_space(copy.parent), contextlib.closing(sqlite3.connect(copy)) as database:
            database.execute('SELECT count(*) FROM sqlite_master').fetchone()  # This rolls a hot journal back.
            database.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()
        return copy

    @contextlib.contextmanager
    def _opened(self) -> Generator[sqlite3.Connection, None, None]:
        if self._kept is not None:
            yield self._kept
            return
        with contextlib.closing(self._connect()) as database:
            yield database

    def _connect(self) -> sqlite3.Connection:
        self._path.open('rb').close()  # SQLite does not say why it cannot open a file.
        uri = f'{self._path.as_uri()}?immutable=1&mode=ro'
        database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        database.execute('PRAGMA trusted_schema=OFF')  # A recording is data: none of its functions or views may run.
        if sys.version_info >= (3, 11):
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._limit + ROW_BYTES)
        database.set_progress_handler(lambda: None, STEPS)  # Handlers of signals run when Python code does.
        return database

    def _read_topics(self, database: sqlite3.Connection) -> None:
        tables = {
            name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage")
        }
        if not {'topics', 'messages'} <= tables:
            raise self._damaged(f'it has no tables `topics` and `messages`, but {shorten(sorted(tables))}')
        for table in tables.intersection(TABLES):
            computed = [row[1] for row in database.execute(f'PRAGMA table_xinfo({table})') if row[6]]
            if computed:  # An expression may give gigabytes for each row, or take for ever.
                raise self._damaged(f'columns of `{table}` are computed instead of recorded: {shorten(computed)}')
        columns = {row[1] for row in database.execute('PRAGMA table_info(topics)')}
        definitions = {}
        if 'message_definitions' in tables:
            for name, encoding, text in database.execute(
                'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions ORDER BY id DESC'
            ):
                if isinstance(text, str) and (found := known_definition(encoding, text)) != NO_DEFINITION:
                    definitions[name] = found
        if 'metadata' in tables:
            row = database.execute('SELECT metadata FROM metadata ORDER BY id DESC').fetchone()
            self.recorder_metadata = row[0] if row and isinstance(row[0], str) else ''
        optional = [name if name in columns else "''" for name in ('offered_qos_profiles', 'type_description_hash')]
        query = f'SELECT id, name, type, serialization_format, {", ".join(optional)} FROM topics ORDER BY id'
        for number, *texts in database.execute(query):
            if not isinstance(number, int) or not all(isinstance(text, str) for text in texts):
                raise self._damaged(f'its table `topics` has a malformed row: {shorten((number, *texts))}')
            topic, type_name, encoding, recorded_profiles, digest = texts
            profiles = parse_profiles(recorded_profiles)
            note = f'the QoS of {one_line(topic)} is malformed and not copied' if profiles is None else ''
            definition = definitions.get(type_name, NO_DEFINITION)
            self.channels[number] = Channel(
                topic, type_name, encoding, definition, known_digest(digest), profiles or (), note
            )

    def _count(self, database: sqlite3.Connection) -> None:
        query = 'SELECT topic_id, count(*), min(timestamp), max(timestamp), max(length(data)) FROM messages GROUP BY 1'
        for channel, count, start_ns, end_ns, length in database.execute(query):
            if channel not in self.channels:
                raise self._damaged(f'{count} of its messages belong to topic {channel}, which it does not have')
            if not isinstance(start_ns, int) or not isinstance(end_ns, int):
                raise self._damaged(f'a message of {one_line(self.channels[channel].topic)} has no time')
            if length is not None and length > self._limit:
                raise RecordingError(
                    f'{self._shown} cannot be read as a bag (a message of {one_line(self.channels[channel].topic)} has '
                    f'{length:,} bytes, and {self._limit:,} are allowed); raise --max-message-mb if it is meant to'
                )
            self.counts[channel] = count
            self.start_ns, self.end_ns = min(self.start_ns, start_ns), max(self.end_ns, end_ns)

    @contextlib.contextmanager
    def _explained(self) -> Generator[None, None, None]:
        """Raise RecordingError for errors of the database, but StorageError if sorting finds no temporary space."""
        try:
            with explained_temporary_space(Path(tempfile.gettempdir())):
                yield
        except sqlite3.OperationalError as error:
            if str(error) == 'interrupted':
                raise stop_signals.dropped() from error
            raise self._damaged(one_line(error)) from error
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:  # Texts of errors may quote damage.
            raise self._damaged(one_line(error)) from error

    def _damaged(self, reason: str) -> RecordingError:
        decompress, name = '', shlex.quote(str(self._shown))
        if self._is_decompressed:
            decompress, name = f'`zstd -dc {name} > OLD.db3` and ', 'OLD.db3'
        return RecordingError(
            f'{self._shown} cannot be read as a bag (truncated or damaged: {reason}); {decompress}'
            f'`sqlite3 {name} .recover | sqlite3 NEW.db3` saves what is intact'
        )


def _logs(path: Path) -> list[Path]:
    """Return the logs of a cut off writer beside the database `path`."""
    logs = [Path(f'{path}{ending}') for ending in LOGS]
    return [log for log in logs if log.is_file() and log.stat().st_size]

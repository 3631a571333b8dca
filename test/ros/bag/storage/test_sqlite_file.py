"""SQLite files of every schema and state: read whole, or refused with the cause and advice that helps."""

import shlex
import shutil
import signal
import sqlite3
import tempfile
import threading
from contextlib import closing, suppress

import pytest
from backports import zstd

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam.core import stop_signals
from instructsam.core.errors import StorageError
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.bag.storage import sqlite_file
from instructsam_ros.bag.storage.limits import Limits

SCHEMAS = {  # as of Dashing, Foxy and Iron
    1: 'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT);',
    2: 'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, '
    "offered_qos_profiles TEXT DEFAULT '');",
    4: 'CREATE TABLE schema(schema_version INTEGER, ros_distro TEXT); INSERT INTO schema VALUES (4, "iron");'
    'CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER, metadata TEXT);'
    'CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT, encoding TEXT, '
    'encoded_message_definition TEXT, type_description_hash TEXT);'
    'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT, '
    "offered_qos_profiles TEXT DEFAULT '', type_description_hash TEXT DEFAULT '');",
}
MESSAGES = 'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);'
LIGHT = "INSERT INTO topics(id, name, type, serialization_format) VALUES (1, '/light', 'robot_msgs/msg/Light', 'cdr');"


def create(path, script='', schema=2, times=(3, 1, 2)):
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMAS[schema] + MESSAGES + LIGHT)
        insert(database, times)
        database.executescript(script)
    return path


def insert(database, times):
    rows = [(1, time_ns, b'\0\1\0\0\7') for time_ns in times]
    database.executemany('INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)', rows)
    database.commit()


def times_of(path):
    return [time_ns for _, time_ns, _ in BagFile(path).messages()]


def crashed(folder, mode):
    """A database whose writer died: its last two messages are in a log beside it (WAL), or not yet valid (DELETE)."""
    live = create(folder / 'live.db3', times=(1, 2))
    out = folder / 'cut' / 'cut.db3'
    out.parent.mkdir()
    with closing(sqlite3.connect(live)) as database:
        database.execute(f'PRAGMA journal_mode={mode}')
        database.execute('PRAGMA cache_size=1')  # the journal is written before the end of the transaction
        if mode == 'WAL':
            insert(database, (3, 4))
        else:
            database.execute('BEGIN')
            blob = bytes(100_000)
            database.executemany('INSERT INTO messages VALUES (?, 1, ?, ?)', [(90, 3, blob), (91, 4, blob)])
        for file in folder.glob('live.db3*'):
            shutil.copy(file, out.parent / file.name.replace('live', 'cut'))
    return out


@pytest.mark.parametrize(('mode', 'expected'), [('WAL', [1, 2, 3, 4]), ('DELETE', [1, 2])])
@pytest.mark.parametrize('shared_memory', [True, False])
def test_a_recorder_that_died(tmp_path, mode, expected, shared_memory, monkeypatch):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    path = crashed(tmp_path, mode)
    if not shared_memory:  # as from a disk that was unmounted, or on a read-only one
        path.with_name('cut.db3-shm').unlink(missing_ok=True)
    files = {file: file.read_bytes() for file in path.parent.iterdir()}
    assert len(files) > 1
    assert times_of(path) == expected
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == files  # the recording is not touched
    bag = BagFile(path)
    assert not list(temporary.iterdir())  # nothing is left if the process is killed
    assert [[time_ns for _, time_ns, _ in bag.messages()] for _ in range(2)] == [expected] * 2
    assert {file.name for file in bag.files} >= {
        'cut.db3',
        'cut.db3-wal' if mode == 'WAL' else 'cut.db3-journal',
    }


def test_a_recorder_at_work_is_refused(tmp_path, monkeypatch):
    path = crashed(tmp_path, 'WAL')
    copy = shutil.copyfile

    def growing(source, target):
        copy(source, target)
        with open(source, 'ab') as file:
            file.write(b'x')

    monkeypatch.setattr(sqlite_file.shutil, 'copyfile', growing)
    with pytest.raises(RecordingError, match='is being recorded at the moment; stop the recorder'):
        BagFile(path)


def test_a_full_disk_for_the_copy_is_no_damage(tmp_path, monkeypatch):
    path = crashed(tmp_path, 'WAL')
    connect = sqlite3.connect

    def full(database, **arguments):
        if 'copy.db3' in str(database):
            raise sqlite3.OperationalError('database or disk is full')
        return connect(database, **arguments)

    monkeypatch.setattr(sqlite_file.sqlite3, 'connect', full)
    with pytest.raises(StorageError, match=r'No space left on device; free some space or set TMPDIR'):
        BagFile(path)


def test_a_full_disk_for_sorting_is_no_damage(tmp_path, monkeypatch):
    class Full(sqlite3.Connection):
        def execute(self, query, *values):
            if 'ORDER BY timestamp' in query:
                raise sqlite3.OperationalError('database or disk is full')
            return super().execute(query, *values)

    bag = BagFile(create(tmp_path / 'a.db3'))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite_file.sqlite3, 'connect', lambda *args, **kwargs: connect(*args, factory=Full, **kwargs))
    with pytest.raises(StorageError, match=f'{tempfile.gettempdir()}: No space left on device; .* TMPDIR'):
        list(bag.messages())


def test_the_advice_for_a_damaged_compressed_file_decompresses_it_first(tmp_path):
    path = tmp_path / 'a b.db3.zstd'
    path.write_bytes(zstd.compress(create(tmp_path / 'a.db3').read_bytes()[:5000]))
    with pytest.raises(RecordingError) as raised:
        times_of(path)
    assert f'`zstd -dc {shlex.quote(str(path))} > OLD.db3` and `sqlite3 OLD.db3 .recover |' in str(raised.value)


@pytest.mark.parametrize('schema', SCHEMAS)
def test_schemas(tmp_path, schema):
    bag = BagFile(create(tmp_path / 'a.db3', schema=schema))
    assert [time_ns for _, time_ns, _ in bag.messages()] == [1, 2, 3]
    assert (bag.start_ns, bag.types, bag.counts) == (1, {'/light': 'robot_msgs/msg/Light'}, {'/light': 3})


def test_names_that_are_special_in_uris(tmp_path):
    assert times_of(create(tmp_path / 'a?mode=rw#b %41.db3')) == [1, 2, 3]


def test_equal_times_keep_their_order_and_other_encodings_are_left_out(tmp_path):
    script = "INSERT INTO topics VALUES (2, '/json', 'x', 'json', ''); INSERT INTO messages VALUES (50, 2, 2, x'7b7d');"
    script += "INSERT INTO messages VALUES (40, 1, 2, x'00'), (41, 1, 2, x'01');"
    bag = BagFile(create(tmp_path / 'a.db3', script))
    assert [data[-1] for _, time_ns, data in bag.messages() if time_ns == 2] == [7, 0, 1]
    assert bag.left_out == {'/json (json)': 1}


def test_an_empty_bag(tmp_path):
    bag = BagFile(create(tmp_path / 'a.db3', times=()))
    assert (list(bag.messages()), bag.duration_s, bag.counts) == ([], 0, {'/light': 0})


@pytest.mark.parametrize(
    ('script', 'expected'),
    [
        ('DROP TABLE topics', 'has no tables `topics` and `messages`'),
        (
            'DROP TABLE messages; CREATE VIEW messages AS SELECT 1 AS id, 1 AS topic_id, 2 AS timestamp, 3 AS data',
            'no tab',
        ),
        (
            'DROP TABLE messages; CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, '
            'data BLOB AS (zeroblob(9000000))); INSERT INTO messages(topic_id, timestamp) VALUES (1, 1)',
            'columns of `messages` are computed instead of recorded: ..data',
        ),
        (
            "DROP TABLE topics; CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT AS ('/a') STORED, type TEXT)",
            'columns of `topics` are computed',
        ),
        ('DROP TABLE topics; CREATE VIRTUAL TABLE topics USING fts4(id, name, type)', 'has no tables'),
        ("INSERT INTO messages VALUES (9, 7, 1, x'00')", '1 of its messages belong to topic 7, which it does not have'),
        ("INSERT INTO messages VALUES (9, 1, 'now', x'00')", 'a message of /light has no time'),
        ('INSERT INTO messages VALUES (9, 1, 5, NULL)', 'a message of /light has no time or no data'),
        ("INSERT INTO messages VALUES (9, 1, 5, 'text')", 'a message of /light has no time or no data'),
        ("INSERT INTO topics VALUES (2, NULL, 'x', 'cdr', '')", 'its table `topics` has a malformed row'),
        ("INSERT INTO topics VALUES (2, CAST(x'ff' AS TEXT), 'x', 'cdr', '')", 'Could not decode'),
    ],
)
def test_damage_is_explained(tmp_path, script, expected):
    path = create(tmp_path / 'a.db3', script)
    with pytest.raises(RecordingError, match=f'cannot be read as a bag .*{expected}.*sqlite3 {path} .recover'):
        times_of(path)


def test_random_damage_never_raises_another_error(tmp_path):
    whole = create(tmp_path / 'a.db3').read_bytes()
    path = tmp_path / 'b.db3'
    for position in [*range(120), *range(3500, len(whole), 23)]:
        path.write_bytes(whole[:position] + b'\xa5\xff' + whole[position + 2 :])
        with suppress(RecordingError):
            times_of(path)


def test_a_file_that_is_gone_is_not_called_damaged(tmp_path):
    bag = BagFile(create(tmp_path / 'a.db3'))
    (tmp_path / 'a.db3').unlink()
    with pytest.raises(RecordingError, match=r'cannot read .*a.db3: No such file'):
        list(bag.messages())


def test_a_long_message_is_not_read(tmp_path):
    path = create(tmp_path / 'a.db3', 'INSERT INTO messages VALUES (9, 1, 5, zeroblob(1048577))')
    with pytest.raises(RecordingError, match=r'/light has 1,048,577 bytes.* --max-message-mb'):
        BagFile(path, Limits(message_mb=1))
    with closing(sqlite3.connect(path)) as database:
        database.execute('UPDATE messages SET data = zeroblob(1048576) WHERE id = 9')
        database.commit()
    assert len(list(BagFile(path, Limits(message_mb=1)).messages())) == 4


def test_a_signal_ends_a_query(tmp_path, monkeypatch):
    """The query lasts for minutes; SQLite drops the exception of the handler."""
    path = create(tmp_path / 'a.db3')
    endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n'
    monkeypatch.setattr(sqlite_file.SqliteFile, '_count', lambda _, database: database.execute(endless).fetchone())
    terminate = threading.Timer(0.5, signal.raise_signal, [signal.SIGTERM])
    terminate.start()
    with stop_signals.raise_stopped(), pytest.raises(stop_signals.Stopped) as raised:
        BagFile(path)
    terminate.join()
    assert raised.value.number == signal.SIGTERM


def test_what_is_no_hash_of_a_type_is_not_copied(tmp_path):
    path = create(tmp_path / 'a.db3', schema=4, script="UPDATE topics SET type_description_hash = '[2]'")
    assert [connection.digest for connection in BagFile(path).connections] == ['']

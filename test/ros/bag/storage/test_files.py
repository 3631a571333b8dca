"""Files of bags by what they contain: compressed as a whole, by message, or no bag at all."""

import os
import tempfile

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap
from backports import zstd
from bags import frame, write
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import CompressionMode

from instructsam.core.errors import StorageError
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.recordings import RecordingError, open_recording
from instructsam_ros.bag.storage import compression
from instructsam_ros.bag.storage.limits import Limits

# Serialized once: the padding of a serialized message is not determined.
RECORDED = [
    (ms, topic, (serialize_message(message), 'sensor_msgs/msg/Image')) for ms, topic, message in (frame(0), frame(1))
]
RECORDS = [mcap.schema(1, 'a/msg/A'), mcap.channel(1, 1, '/a'), mcap.message(1, 1)]


def content(path):
    return [(each.topic, time_ns, data) for each, time_ns, data in BagFile(path).messages()]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_with_metadata_without_and_as_a_file(tmp_path, storage, mode, monkeypatch):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    plain = content(write(tmp_path / 'plain', storage, RECORDED))
    folder = write(tmp_path / 'in', storage, RECORDED, mode)
    file = next(file for file in folder.iterdir() if file.suffix != '.yaml')
    assert content(folder) == content(file) == plain
    bag = BagFile(file)
    assert bag.compression == mode
    (folder / 'metadata.yaml').unlink()
    assert content(folder) == plain
    assert not list(temporary.iterdir())  # nothing is left if the process is killed
    recording = open_recording(file)  # for the replay
    assert [data for _, _, data in recording.messages(recording.types)] == [data for *_, data in plain]


def test_a_file_that_was_decompressed_or_compressed_since(tmp_path):
    folder = write(tmp_path / 'in', 'mcap', RECORDED, CompressionMode.FILE)
    plain = content(folder)
    compressed = folder / 'in.mcap.zstd'
    (folder / 'in.mcap').write_bytes(zstd.decompress(compressed.read_bytes()))
    compressed.unlink()
    assert content(folder) == plain
    assert 'metadata.yaml lists in.mcap.zstd, and in.mcap was read' in BagFile(folder).notes


@pytest.mark.parametrize('kept', [0.1, 0.5, 0.99])
def test_a_truncated_compressed_file(tmp_path, kept):
    whole = zstd.compress(os.urandom(1000) + bytes(5000))
    path = tmp_path / 'a.mcap.zstd'
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(RecordingError, match='Zstandard data are truncated'):
        BagFile(path)


def test_bombs_are_not_decompressed(tmp_path, monkeypatch):
    path = tmp_path / 'a.mcap.zstd'
    path.write_bytes(
        zstd.compress(mcap.write(tmp_path / 'a.mcap', *RECORDS).read_bytes()) + zstd.compress(bytes(8 << 20))
    )
    monkeypatch.setattr(Limits, 'file_bytes', 4 << 20)
    with pytest.raises(RecordingError, match='decompresses to more than 256 GB; raise --max-file-gb'):
        BagFile(path)
    data = zstd.compress(bytes(8 << 20)) + zstd.compress(bytes(8 << 20))
    bag = BagFile(mcap.write(tmp_path / 'b.mcap', *RECORDS[:2], mcap.message(1, 1, data)), Limits(message_mb=12))
    with pytest.raises(RecordingError, match=r'a message on /a that cannot be read: .* --max-message-mb'):
        list(bag.messages())


def test_a_full_disk_for_decompressed_files(tmp_path, monkeypatch):
    path = tmp_path / 'a.mcap.zstd'
    path.write_bytes(zstd.compress(bytes(8 << 20)))
    monkeypatch.setattr(compression, 'SPARED_BYTES', 1 << 60)
    with pytest.raises(StorageError, match=r'No space left on device; free some space or set TMPDIR'):
        BagFile(path)


def test_files_that_are_no_bags(tmp_path):
    os.mkfifo(tmp_path / 'fifo.mcap')
    for name, data in {
        'a.mcap': b'GIF89a' * 9,
        'b.db3': b'',
        'c.bag': b'#ROSBAG V2.0',
        'd.mcap.lz4': b'\x04"M\x18',
    }.items():
        (tmp_path / name).write_bytes(data)
    for name, expected in {
        'fifo.mcap': 'is not a bag: .* regular file',
        'a.mcap': 'begins like neither an MCAP nor',
        'b.db3': 'truncated to 0',
        'c.bag': r'ROS 1 bag; `rosbags-convert --src .*/c.bag --dst c --dst-typestore ros2_jazzy`',
        'd.mcap.lz4': 'is not a bag',
        'none.mcap': 'does not exist',
    }.items():
        with pytest.raises(RecordingError, match=expected):
            BagFile(tmp_path / name)


def test_a_topic_of_two_types(tmp_path):
    records = [mcap.schema(1, 'a/msg/A'), mcap.channel(1, 1, '/a'), mcap.schema(2, 'a/msg/B'), mcap.channel(2, 2, '/a')]
    path = mcap.write(tmp_path / 'a.mcap', *records, mcap.message(1, 1), mcap.message(2, 1), mcap.message(1, 1))
    bag = BagFile(path)
    assert bag.types == {'/a': 'a/msg/A and a/msg/B'}
    assert [each.msgtype for each, *_ in bag.messages()] == ['a/msg/A', 'a/msg/B', 'a/msg/A']

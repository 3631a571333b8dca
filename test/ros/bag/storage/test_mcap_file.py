"""MCAP files of any writer: read whole, or refused with the cause and advice that helps."""

from contextlib import suppress

import lz4.frame
import pytest
from backports import zstd

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap

from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.bag.storage.compression import decompress_lz4, decompress_zstd
from instructsam_ros.bag.storage.limits import Limits

LIGHT = [mcap.schema(1, 'robot_msgs/msg/Light'), mcap.channel(1, 1, '/light')]
SOUND = [mcap.schema(2, 'robot_msgs/msg/Sound'), mcap.channel(2, 2, '/sound')]


def cdr(number):
    return b'\0\1\0\0' + bytes([number])


def messages(path, limits=None, topics=None):
    """[(topic, time, last byte)]."""
    return [(each.topic, time_ns, data[-1]) for each, time_ns, data in BagFile(path, limits).messages(topics)]


def light(times, number=0):
    return [mcap.message(1, time_ns, cdr(number)) for time_ns in times]


CHUNK = mcap.chunk([*LIGHT, *light([1, 2])], (1, 2))
LAYOUTS = {
    'no chunks': [*LIGHT, *light([1, 2])],
    'no order': [*LIGHT, *light([2, 1])],
    'a chunk without index': [CHUNK],
    'an index': [CHUNK, mcap.index(1, 2)],
    'lz4': [mcap.chunk([*LIGHT, *light([2, 1])], (1, 2), 'lz4')],
    'not compressed': [mcap.chunk([*LIGHT, *light([2, 1])], (1, 2), '')],
    'no checksum': [mcap.chunk([*LIGHT, *light([1, 2])], (1, 2), crc=0)],
    'a message in a chunk, another outside': [mcap.chunk([*LIGHT, *light([2])], (2, 2)), *light([1])],
    'overlapping chunks': [mcap.chunk([*LIGHT, *light([2])], (2, 2)), mcap.chunk(light([1]), (1, 1))],
    'an empty chunk': [mcap.chunk([], (0, 0)), *LIGHT, *light([1, 2])],
    'unknown records': [mcap.record(0x80, b'future'), *LIGHT, *light([1, 2])],
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('profile', ['ros2', '', 'ros1', 'x-robot'])
@pytest.mark.parametrize(
    'summary',
    [
        (),
        (mcap.statistics({1: 2}),),
        (*LIGHT, mcap.statistics({1: 2})),
        (LIGHT[1],),
        (LIGHT[1], mcap.statistics({1: 2})),
    ],
)
def test_layouts(tmp_path, layout, profile, summary):
    path = mcap.write(tmp_path / 'a.mcap', *LAYOUTS[layout], profile=profile, summary=summary)
    assert messages(path) == [('/light', 1, 0), ('/light', 2, 0)]
    bag = BagFile(path)
    assert (bag.start_ns, bag.duration_s, bag.counts) == (1, pytest.approx(1e-9), {'/light': 2})


def test_messages_of_one_time_stay_in_the_order_of_the_file(tmp_path):
    recorded = [mcap.message(number % 2 + 1, 5, cdr(number)) for number in range(6)]
    for name, records in {
        'loose': [*LIGHT, *SOUND, *recorded],
        'chunks': [mcap.chunk([*LIGHT, *SOUND, *recorded[:4]], (5, 5)), mcap.chunk(recorded[4:], (5, 5))],
    }.items():
        path = mcap.write(tmp_path / f'{name}.mcap', *records)
        assert [number for *_, number in messages(path)] == list(range(6))


def test_topics_are_selected(tmp_path):
    records = [mcap.chunk([*LIGHT, *SOUND, mcap.message(1, 1), mcap.message(2, 2)], (1, 2))]
    records += [mcap.chunk(light([3]), (3, 3)), mcap.index(1, 1)]
    path = mcap.write(tmp_path / 'a.mcap', *records)
    assert [topic for topic, *_ in messages(path, topics={'/sound'})] == ['/sound']
    assert [topic for topic, *_ in messages(path, topics=set())] == []


@pytest.mark.parametrize('encoding', ['json', 'protobuf', 'cbor', 'ros1', ''])
@pytest.mark.parametrize(
    'schema', [(), [mcap.schema(9, 'x', 'protobuf', b'\xff\xfe')], [mcap.schema(9, 'x', 'ros1msg', '')]]
)
def test_channels_of_other_encodings_are_left_out(tmp_path, encoding, schema):
    other = [*schema, mcap.channel(9, 9 if schema else 0, '/other', encoding), mcap.message(9, 3, b'{}')]
    bag = BagFile(mcap.write(tmp_path / 'a.mcap', *LIGHT, *light([1]), *other))
    assert bag.left_out == {f'/other ({encoding})': 1}
    assert [each.topic for each, *_ in bag.messages()] == ['/light']
    with pytest.raises(RecordingError, match=r'has no ROS 2 messages: /other .*rosbags-convert'):
        BagFile(mcap.write(tmp_path / 'b.mcap', *other, profile='ros1'))


def test_cdr_without_a_type_is_left_out(tmp_path):
    bag = BagFile(mcap.write(tmp_path / 'a.mcap', *LIGHT, mcap.channel(9, 0, '/other'), mcap.message(9, 3)))
    assert bag.left_out == {'/other (cdr without a type)': 1}


def test_records_beside_messages_are_counted(tmp_path):
    records = [mcap.attachment('map.png'), mcap.attachment('map.yaml'), mcap.metadata('site', place='x')]
    records += [mcap.metadata('rosbag2', serialized_metadata='custom_data: {robot: r2}')]
    path = mcap.write(tmp_path / 'a.mcap', *LIGHT, *records, mcap.message(1, 5, publish_ns=4), *light([6]))
    bag = BagFile(path)
    assert bag.extras == {'attachments': 2, 'metadata records': 1}
    assert bag.custom == {'robot': 'r2'}
    assert len(list(bag.messages())) == 2
    assert bag.publish_times == 1


def test_odd_definitions_and_profiles_are_noted(tmp_path):
    records = [
        mcap.schema(1, 'a/msg/A', 'ros3msg'),
        mcap.channel(1, 1, '/a', offered_qos_profiles='- {history: 1'),
        mcap.schema(2, 'b/msg/B'),
        mcap.channel(2, 2, '/b', offered_qos_profiles='- 7'),
        mcap.schema(3, 'b/msg/B', definition='int8 other'),
        mcap.channel(3, 3, '/c', topic_type_hash='RIHS01_7'),
    ]
    bag = BagFile(mcap.write(tmp_path / 'a.mcap', *records, *(mcap.message(number, 1) for number in (1, 2, 3))))
    notes = ' | '.join(bag.notes)
    assert 'definition of a/msg/A is in ros3msg' in notes
    assert 'the QoS of /b is malformed' in notes
    assert 'b/msg/B is defined in 2 ways' in notes
    assert bag.connections[2].digest == 'RIHS01_7'
    assert len(list(bag.messages())) == 3


DAMAGE = {
    'checksum': ([mcap.chunk([*LIGHT, *light([1])], (1, 1), crc=7)], 'the checksum of the chunk at byte .* is wrong'),
    'longer': ([mcap.chunk([*LIGHT, *light([1])], (1, 1), size=99_999)], 'bytes, not 99,999 as it says'),
    'shorter': ([mcap.chunk([*LIGHT, *light([1])], (1, 1), size=9)], 'decompressed size exceeds 9 bytes'),
    'compression': ([mcap.chunk([], (1, 1), 'xz')], 'compressed by xz'),
    'no channel': ([*light([1])], 'has messages of channel 1, which it does not describe'),
    'two channels': ([*LIGHT, mcap.channel(1, 1, '/sound')], 'channel 1 is both'),
    'late': ([*LIGHT, *light([2**64 - 1])], 'the year 2262 is the last'),
    'times': ([mcap.chunk([*LIGHT, *light([1])], (5, 9))], 'is listed from 5 ns on and holds a message of 1 ns'),
    'short message': ([*LIGHT, mcap.record(5, b'1'), *light([1])], 'a message has 1 bytes'),
    'short message in a chunk': ([mcap.chunk([*LIGHT, mcap.record(5, b'1')], (1, 1))], 'a message has 1 bytes'),
    'long name': ([mcap.chunk([], (1, 1), 'x' * 99)], 'names its compression in 99 bytes'),
    'longer index': ([mcap.chunk([*LIGHT], (1, 1)), mcap.record(7, b'\1\0\x10\0\0\0')], 'truncated'),
    'garbage': ([mcap.record(3, b'\xff' * 20)], 'damaged'),
    'no text': ([mcap.schema(1, b'\xff')], 'damaged'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damage_is_explained(tmp_path, damage):
    records, expected = DAMAGE[damage]
    path = mcap.write(tmp_path / 'a.mcap', *records)
    with pytest.raises(RecordingError, match=expected):
        messages(path)


def test_lost_messages_are_noticed(tmp_path):
    path = mcap.write(tmp_path / 'a.mcap', *LIGHT, *light([1]), summary=(*LIGHT, mcap.statistics({1: 2})))
    with pytest.raises(RecordingError, match=r'lists 2 messages of /light and holds 1.*mcap recover'):
        BagFile(path)
    path = mcap.write(tmp_path / 'b.mcap', mcap.chunk([*LIGHT, *light([1])], (1, 1)), mcap.index(1, 2))
    with pytest.raises(RecordingError, match='lists 2 messages of /light and holds 1'):
        messages(path)


def test_every_truncation_is_refused(tmp_path):
    whole = mcap.write(tmp_path / 'whole.mcap', CHUNK, mcap.index(1, 2), *light([3]), summary=LIGHT).read_bytes()
    path = tmp_path / 'a.mcap'
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordingError, match=r'truncated|begins like neither'):
            messages(path)
    for length in (2**63, 2**64 - 1):  # a record that claims to be longer than any memory
        path.write_bytes(whole.replace(CHUNK[1:9], length.to_bytes(8, 'little')))
        with pytest.raises(RecordingError, match='truncated'):
            messages(path)


@pytest.mark.parametrize('summary', [(), (mcap.statistics({1: 1, 2: 1}),), (*LIGHT, *SOUND)])
def test_an_index_that_lacks_a_channel_hides_nothing(tmp_path, summary):
    recorded = mcap.chunk([*LIGHT, *SOUND, mcap.message(1, 1), mcap.message(2, 2)], (1, 2))
    path = mcap.write(tmp_path / 'a.mcap', recorded, mcap.index(1, 1), summary=summary)
    assert BagFile(path).counts == {'/light': 1, '/sound': 1}
    assert messages(path, topics={'/sound'}) == [('/sound', 2, 7)]


def test_a_message_outside_of_chunks_is_limited_too(tmp_path):
    path = mcap.write(tmp_path / 'a.mcap', *LIGHT, mcap.message(1, 1, bytes(2 << 20)))
    with pytest.raises(RecordingError, match=r'the message at byte \d+ has 2,.* --max-message-mb'):
        messages(path, Limits(message_mb=1))
    assert len(messages(path)) == 1


@pytest.mark.parametrize('compression', ['zstd', 'lz4'])
@pytest.mark.parametrize('says', [None, 100, 2**62])
def test_a_bomb_is_not_decompressed(tmp_path, compression, says):
    """64 MB of zeros in a chunk, where 1 MB is allowed, whatever size it says."""
    path = mcap.write(tmp_path / 'a.mcap', *LIGHT, mcap.chunk([bytes(64 << 20)], (1, 1), compression, says, crc=0))
    with pytest.raises(RecordingError, match=r'--max-message-mb|decompressed size exceeds 100 bytes'):
        messages(path, Limits(message_mb=1))


@pytest.mark.parametrize(
    ('decompress', 'empty'), [(decompress_zstd, zstd.compress(b'')), (decompress_lz4, lz4.frame.compress(b''))]
)
def test_frames_are_limited(decompress, empty):
    """Each copies the rest of the data, so that a megabyte of empty ones takes minutes."""
    assert decompress(empty * 64, 1) == b''
    with pytest.raises(RecordingError, match='more than 64 frames'):
        decompress(empty * 65, 1)


def test_chunks_that_overlap_without_end_are_refused(tmp_path):
    parts = [
        mcap.chunk([*light([1, 100 + index]), mcap.record(0x90, bytes(900_000))], (1, 100 + index))
        for index in range(4)
    ]
    path = mcap.write(tmp_path / 'a.mcap', *LIGHT, *parts)
    assert len(messages(path)) == 8
    with pytest.raises(RecordingError, match='mcap sort'):
        messages(path, Limits(message_mb=1))


def test_random_damage_never_raises_another_error(tmp_path):
    whole = mcap.write(tmp_path / 'a.mcap', CHUNK, mcap.index(1, 2), *light([3]), summary=LIGHT).read_bytes()
    path = tmp_path / 'b.mcap'
    for position in range(len(whole)):
        for value in (0xFF, whole[position] ^ 1):
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            with suppress(RecordingError):
                messages(path)

"""metadata.yaml of any version and by hand: the files are the truth, and what contradicts them is named."""

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

import raw_mcap as mcap

from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.bag.storage.metadata import parse_profiles, read_recorder_metadata

PROFILE = {
    **{'history': 3, 'depth': 0, 'reliability': 1, 'durability': 2, 'liveliness': 1},
    'avoid_ros_namespace_conventions': False,
    **{key: {'sec': 9223372036, 'nsec': 854775807} for key in ('deadline', 'lifespan', 'liveliness_lease_duration')},
}


def records(*times, profiles=''):
    return [
        mcap.schema(1, 'a/msg/A'),
        mcap.channel(1, 1, '/a', offered_qos_profiles=profiles),
        *(mcap.message(1, time_ns) for time_ns in times),
    ]


def information(**changes):
    topic = {'name': '/a', 'type': 'a/msg/A', 'serialization_format': 'cdr', 'offered_qos_profiles': ''}
    return {
        'version': 9, 'storage_identifier': 'mcap', 'relative_file_paths': ['b_0.mcap'],
        'duration': {'nanoseconds': 1}, 'starting_time': {'nanoseconds_since_epoch': 1}, 'message_count': 2,
        'topics_with_message_count': [{'topic_metadata': topic, 'message_count': 2}],
        'compression_format': '', 'compression_mode': '', **changes,
    }  # fmt: skip


def topics(count=2, **changes):
    entry = information()['topics_with_message_count'][0]
    return {
        'topics_with_message_count': [{'topic_metadata': entry['topic_metadata'] | changes, 'message_count': count}]
    }


@pytest.fixture
def folder(tmp_path):
    mcap.write(tmp_path / 'b_0.mcap', *records(1, 2))
    return tmp_path


def describe(folder, **changes):
    text = yaml.safe_dump({'rosbag2_bagfile_information': information(**changes)})
    (folder / 'metadata.yaml').write_text(text)
    return folder


def times_of(path):
    return [time_ns for _, time_ns, _ in BagFile(path).messages()]


@pytest.mark.parametrize('version', range(1, 10))
@pytest.mark.parametrize('prefix', [True, False])
def test_versions(folder, version, prefix):
    name = f'{folder.name}/b_0.mcap' if prefix and version <= 3 else 'b_0.mcap'
    bag = BagFile(describe(folder, version=version, relative_file_paths=[name]))
    assert ([time_ns for _, time_ns, _ in bag.messages()], bag.notes) == ([1, 2], [])


READ = {  # changes: part of the note about them, '' if there is none
    'version 12': ({'version': 12}, 'is of version 12, not 1 to 9'),
    'version x': ({'version': 'x'}, 'is of version x'),
    'no version': ({'version': None}, 'is of version None'),
    'absolute path': ({'relative_file_paths': ['/data/bag/b_0.mcap']}, ''),
    'Windows': ({'version': 3, 'relative_file_paths': ['bag\\b_0.mcap']}, ''),
    'prefix': ({'version': 4, 'relative_file_paths': ['bag/b_0.mcap']}, 'lists bag/b_0.mcap, and b_0.mcap was read'),
    'storage': ({'storage_identifier': 'sqlite3'}, ''),
    'no times': ({'duration': None, 'starting_time': 'never'}, ''),
    'counts': (topics('many'), 'has no number of messages for /a: many'),
    'a count': (topics(1), 'lists too few messages of /a'),
    'no count': (topics(None), 'has no number of messages for /a'),
    'no topics': ({'topics_with_message_count': None}, ''),
    'topics': ({'topics_with_message_count': 7}, ''),
    'a topic': ({'topics_with_message_count': ['a']}, 'has a topic without name and type: a'),
    'a number': (topics(name=7), 'has a topic without name and type'),
    'type': (topics(0, type='b/msg/B'), 'says that /a is of type b/msg/B; it is a/msg/A'),
    'compression': ({'compression_mode': 'FILE', 'compression_format': 'zstd'}, ''),
    'message compression': ({'compression_mode': 'MESSAGE', 'compression_format': 'zstd'}, ''),
    'custom': ({'custom_data': {'a': 'b', 'c': 1}}, '1 entries of custom_data are not texts'),
    'custom data': ({'custom_data': 'x'}, ''),
    'QoS': (topics(offered_qos_profiles=[{'history': 1}]), 'malformed offered_qos_profiles for /a'),
    'QoS text': (topics(offered_qos_profiles='- {'), 'malformed offered_qos_profiles for /a'),
    'QoS number': (topics(offered_qos_profiles=7), 'malformed offered_qos_profiles for /a'),
    'QoS list': (topics(offered_qos_profiles=[PROFILE | {'history': [[3]]}]), 'malformed offered_qos_profiles for /a'),
    'QoS depth': (topics(offered_qos_profiles=[PROFILE | {'depth': 'x'}]), 'malformed offered_qos_profiles for /a'),
    'unknown QoS': (topics(offered_qos_profiles=[PROFILE | {'history': 'unknown'}]), ''),
    'good QoS': (topics(offered_qos_profiles=[PROFILE]), ''),
    'QoS as text': (topics(offered_qos_profiles=yaml.safe_dump([PROFILE])), ''),
}


@pytest.mark.parametrize('name', READ)
def test_what_does_not_matter_is_read_and_noted(folder, name):
    changes, note = READ[name]
    bag = BagFile(describe(folder, **changes))
    assert [time_ns for _, time_ns, _ in bag.messages()] == [1, 2]
    assert note in ' '.join(bag.notes)
    assert bool(note) == bool(bag.notes)
    assert bag.counts == {'/a': 2}


def test_profiles_of_the_file_are_right(tmp_path):
    own = yaml.safe_dump([PROFILE | {'depth': 5}])
    mcap.write(tmp_path / 'b_0.mcap', *records(1, 2, profiles=own))
    for listed, note in (('', False), ([PROFILE | {'depth': 5}], False), ([PROFILE], True)):
        bag = BagFile(describe(tmp_path, **topics(offered_qos_profiles=listed)))
        assert [qos.depth for qos in bag.connections[0].ext.offered_qos_profiles] == [5]
        assert bool(bag.notes) == note
        assert times_of(tmp_path) == [1, 2]


def test_profiles_and_hash_of_metadata_are_used_if_the_file_has_none(folder):
    bag = BagFile(describe(folder, **topics(offered_qos_profiles=[PROFILE], type_description_hash='RIHS01_1')))
    assert (len(bag.connections[0].ext.offered_qos_profiles), bag.connections[0].digest) == (1, 'RIHS01_1')


REFUSED = {
    'lost': (topics(3), r'lists 3 messages of /a and holds 2.*ros2 bag reindex'),
    'lost topic': (topics(3, name='/b'), r'lists 3 messages of /b and holds 0'),
    'outside': ({'relative_file_paths': ['../b_0.mcap']}, r'lists \.\./b_0\.mcap, which is outside of its folder'),
    'absolute': ({'relative_file_paths': ['/etc/passwd']}, 'lists passwd, which is missing'),
    'backslashes': ({'relative_file_paths': ['..\\b_0.mcap']}, 'outside of its folder'),
    'root': ({'relative_file_paths': ['/']}, 'outside of its folder'),
    'deep': ({'version': 3, 'relative_file_paths': ['../../b_0.mcap']}, 'outside of its folder'),
    'missing': ({'relative_file_paths': ['b_0.mcap', 'b_1.mcap']}, r'lists b_1.mcap, which is missing.*reindex'),
    'twice': ({'relative_file_paths': ['b_0.mcap', 'b_0.mcap']}, 'lists a file twice'),
    'none': ({'relative_file_paths': []}, 'relative_file_paths is a list of file names'),
    'text': ({'relative_file_paths': 'b_0.mcap'}, 'relative_file_paths is a list of file names'),
    'numbers': ({'relative_file_paths': [0]}, 'relative_file_paths is a list of file names'),
    'lz4': ({'compression_mode': 'MESSAGE', 'compression_format': 'lz4'}, "compressed by 'lz4', and only zstd"),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_matters_is_refused(folder, name):
    changes, expected = REFUSED[name]
    with pytest.raises(RecordingError, match=expected):
        BagFile(describe(folder, **changes))


BAD_VALUES = ('!!int ""', '!!timestamp x', '!!float ' + '1:' * 200 + '1.5', '0x' + 'f' * 10_000)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '7',
        '[1]',
        '{',
        'rosbag2_bagfile_information: 7',
        '\x07',
        'a: !!python/name:os.x ""',
        *(f'rosbag2_bagfile_information: {{version: {value}}}' for value in BAD_VALUES),
    ],
    ids=range(11),
)
def test_what_is_no_metadata_is_refused(folder, text):
    (folder / 'metadata.yaml').write_text(text)
    with pytest.raises(RecordingError, match=r'metadata.yaml .*`ros2 bag reindex '):
        BagFile(folder)


@pytest.mark.parametrize('value', BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_yaml_inside_of_a_file_is_read_alike(value):
    assert read_recorder_metadata(f'{{compression_mode: {value}}}') == ('', '', {})
    assert parse_profiles(f'[{{depth: {value}}}]') is None


def split(folder, names, *times):
    for name, each in zip(names, times, strict=True):
        mcap.write(folder / name, *records(*each))
    return folder


def test_parts_are_read_in_order_of_time(tmp_path):
    split(tmp_path, ['b_0.mcap', 'b_1.mcap', 'b_2.mcap'], (1, 2), (3, 6), (5, 7))
    names = {'relative_file_paths': ['b_2.mcap', 'b_0.mcap', 'b_1.mcap']}
    assert times_of(describe(tmp_path, **names, **topics(6))) == [1, 2, 3, 5, 6, 7]


def test_a_file_that_is_not_listed_is_noted(tmp_path):
    split(tmp_path, ['b_0.mcap', 'b_1.mcap'], (1, 2), (3,))
    assert BagFile(describe(tmp_path)).notes == ['metadata.yaml does not list b_1.mcap, which was not read']


@pytest.mark.parametrize('name', ['b', 'run.2026-11-30'])
def test_folders_without_metadata(tmp_path, name):
    split(tmp_path, [f'{name}_{number}.mcap' for number in range(11)], *((number,) for number in range(11)))
    bag = BagFile(tmp_path)
    assert [time_ns for _, time_ns, _ in bag.messages()] == list(range(11))
    assert bag.notes == ['metadata.yaml is missing']
    (tmp_path / f'{name}_3.mcap').unlink()
    with pytest.raises(RecordingError, match=r'has no metadata.yaml, and its files are not the parts 0, 1, .*give one'):
        BagFile(tmp_path)


@pytest.mark.parametrize('digest', ['[2, "a\nb"]', 'RIHS01_' + 'a ' * 400, 7, None, ''])
def test_what_is_no_hash_is_not_copied(folder, digest):
    """With another hash in metadata.yaml than in the file, rosbags finds no message of the topic."""
    bag = BagFile(describe(folder, **topics(type_description_hash=digest)))
    assert bag.connections[0].digest == ''

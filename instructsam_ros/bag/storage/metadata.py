"""The metadata.yaml of a bag: the list of its files, and what the files themselves may not say.

The files are the truth about their messages. What metadata.yaml says beside the list of files is taken where the files
say nothing, and it may be hand-made: an entry that cannot be used is noted instead of refused.
"""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos

from instructsam.core.files.yaml_file import YamlError, parse_yaml, read_yaml
from instructsam.core.text import one_line, shorten
from instructsam_ros.bag.storage.channel import known_digest
from instructsam_ros.bag.storage.errors import RecordingError

NAME = 'metadata.yaml'
KNOWN_VERSION = 9
FOLDER_PREFIX_VERSION = 3
"""Up to this version, the paths of the files begin with the name of the bag's folder."""
LARGEST_BYTES = 64 << 20
MAX_VALUES = 1_000_000
"""Enough for the parts of a recording that is split every minute for a month."""


@dataclass(frozen=True)
class TopicMetadata:
    """Entry of metadata.yaml about a topic of one type; fields without a value are '' or None."""

    profiles: tuple[Qos, ...] = ()
    digest: str = ''
    count: int | None = None


@dataclass
class BagMetadata:
    """The part of metadata.yaml that is used.

    Attributes:
        files: Names of the files in order, relative to the folder.
        topics: {(topic, type): its metadata}.
        compression_mode, compression_format: rosbag2's compression, in lower case; '' if there is none.
        custom: The recorder's custom data.
        notes: Entries that were not used.
    """

    files: list[str] = field(default_factory=list)
    topics: dict[tuple[str, str], TopicMetadata] = field(default_factory=dict)
    compression_mode: str = ''
    compression_format: str = ''
    custom: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_metadata(folder: Path) -> BagMetadata:
    """Read the metadata.yaml in `folder`.

    Raises:
        RecordingError: It cannot be parsed, or it lists no file, or a file outside of the folder.
    """
    path = folder / NAME
    mend = f'`ros2 bag reindex {folder}` writes a new one'
    try:
        information = read_yaml(path, LARGEST_BYTES, MAX_VALUES)['rosbag2_bagfile_information']
        files = information['relative_file_paths']
    except YamlError as error:
        raise RecordingError(f'{error}; {mend}') from error
    except (KeyError, TypeError) as error:
        raise RecordingError(f'{path} does not say which files the bag consists of ({error}); {mend}') from error
    if not isinstance(files, list) or not files or not all(isinstance(file, str) and file for file in files):
        raise RecordingError(f'{path}: relative_file_paths is a list of file names, got {shorten(files)}; {mend}')
    if len(set(files)) != len(files):
        raise RecordingError(f'{path} lists a file twice ({shorten(", ".join(files))}); {mend}')
    metadata = BagMetadata()
    version = _number(information.get('version'))
    if version is None or not 1 <= version <= KNOWN_VERSION:
        metadata.notes.append(
            f'metadata.yaml is of version {shorten(information.get("version"))}, not 1 to {KNOWN_VERSION}, and was '
            f'read as version {KNOWN_VERSION}'
        )
        version = KNOWN_VERSION
    metadata.files = [_inside(path, file, mend, has_prefix=version <= FOLDER_PREFIX_VERSION) for file in files]
    metadata.compression_mode = _mode(information.get('compression_mode'))
    metadata.compression_format = _mode(information.get('compression_format'))
    custom = _dict(information.get('custom_data'))
    metadata.custom = _texts(custom)
    if len(metadata.custom) < len(custom):
        metadata.notes.append(f'{len(custom) - len(metadata.custom)} entries of custom_data are not texts')
    topics = information.get('topics_with_message_count') or []
    for entry in topics if isinstance(topics, list) else ():
        _read_topic(entry, metadata)
    return metadata


def read_recorder_metadata(text: str) -> tuple[str, str, dict[str, str]]:
    """Return (compression mode, compression format, custom data) of the metadata inside a file; empty if unreadable."""
    try:
        information = _dict(parse_yaml(text, 'metadata', MAX_VALUES))
    except YamlError:
        information = {}
    information = _dict(information.get('rosbag2_bagfile_information', information))
    modes = _mode(information.get('compression_mode')), _mode(information.get('compression_format'))
    return *modes, _texts(information.get('custom_data'))


def parse_profiles(recorded: Any) -> tuple[Qos, ...] | None:
    """Return offered_qos_profiles of any version of rosbag2; None if they are malformed."""
    try:
        if isinstance(recorded, str):
            recorded = parse_yaml(recorded, 'offered_qos_profiles')
        profiles = tuple(parse_qos(recorded or []))
        hash(profiles)  # Fails for a list instead of a word.
    except Exception:  # Hand-made profiles fail in many ways.
        return None
    numbers = [value for qos in profiles for time in (qos.deadline, qos.lifespan) for value in time]
    numbers += [value for qos in profiles for value in (qos.depth, *qos.liveliness_lease_duration)]
    return profiles if all(_number(number) is not None for number in numbers) else None


def _inside(path: Path, file: str, mend: str, *, has_prefix: bool) -> str:
    """Return the path of a listed file, relative to the folder of the bag.

    An absolute path is that of the folder in which the bag was recorded.
    """
    listed = PurePosixPath(file.replace('\\', '/'))  # rosbag2 on Windows writes backslashes.
    if (has_prefix and len(listed.parts) == 2) or listed.is_absolute():
        listed = PurePosixPath(listed.name)
    if not listed.name or '..' in listed.parts or '\0' in file:
        raise RecordingError(f'{path} lists {file}, which is outside of its folder; move the file there, then {mend}')
    return str(listed)


def _read_topic(entry: Any, metadata: BagMetadata) -> None:
    topic = _dict(_dict(entry).get('topic_metadata'))
    name, type_name = topic.get('name'), topic.get('type')
    if not isinstance(name, str) or not isinstance(type_name, str):
        metadata.notes.append(f'metadata.yaml has a topic without name and type: {shorten(entry)}')
        return
    profiles = parse_profiles(topic.get('offered_qos_profiles'))
    if profiles is None:
        metadata.notes.append(f'metadata.yaml has malformed offered_qos_profiles for {one_line(name)}')
    count = _number(entry.get('message_count'))
    if count is None:
        metadata.notes.append(
            f'metadata.yaml has no number of messages for {one_line(name)}: {shorten(entry.get("message_count"))}'
        )
    metadata.topics[name, type_name] = TopicMetadata(
        profiles or (),
        known_digest(topic.get('type_description_hash')),
        count,
    )


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _texts(custom: Any) -> dict[str, str]:
    return {key: value for key, value in _dict(custom).items() if isinstance(key, str) and isinstance(value, str)}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mode(value: Any) -> str:
    text = value.strip().lower() if isinstance(value, str) else ''
    return '' if text == 'none' else text

"""`instructsam bag verify`: compares a bag that `annotate` wrote with its original, message by message."""

import argparse
import heapq
import json
from collections import Counter
from collections.abc import Collection, Iterator
from hashlib import blake2b
from itertools import groupby
from pathlib import Path

from rosbags.interfaces import Connection

from instructsam.core import exit_codes
from instructsam.core.text import one_line
from instructsam_ros.bag.reader import BagFile, print_notes
from instructsam_ros.bag.storage.channel import NO_DEFINITION
from instructsam_ros.bag.storage.errors import RecordingError
from instructsam_ros.bag.storage.limits import limits_from
from instructsam_ros.bag.topics import INSTANCES
from instructsam_ros.bag.writer import COPY

SHOWN_FINDINGS = 50
DIGEST_BYTES = 16
Key = tuple[str, str]  # topic and type
Message = tuple[Key, bytes]  # its topic and type, digest


def verify(args: argparse.Namespace) -> int:
    """Print what differs between the bags; return the exit code, see commands/verify.py.

    Raises:
        RecordingError: A bag cannot be read, or it is not known what OUT is a copy of.
    """
    copy = BagFile(args.output, limits_from(args), allow_lost=True)
    source, added = _origin(copy, args.input)
    original = BagFile(source, limits_from(args))
    print_notes(copy)
    print_notes(original)
    findings = compare(original, copy, added)
    for finding in findings[:SHOWN_FINDINGS]:
        print(one_line(finding))
    if len(findings) > SHOWN_FINDINGS:
        print(f'... and {len(findings) - SHOWN_FINDINGS} more')
    results = ', '.join(f'{copy.counts[topic]} on {topic}' for topic in added)
    print(
        one_line(
            f'{len(findings)} differences' if findings else f'all {original.counts.total()} messages are in the copy'
        )
    )
    print(one_line(f'results: {results or "none"}'))
    return exit_codes.SOME_FAILED if findings else exit_codes.DONE


def _origin(copy: BagFile, given: str | None) -> tuple[str, list[str]]:
    """Return (path of the original, topics that were added), by the arguments or by what the copy says."""
    try:
        said = json.loads(copy.custom[COPY])
        source, added = str(said['source']), [str(topic) for topic in said['added']]
    except (KeyError, TypeError, ValueError):
        source = ''
        results = [topic for topic, type_name in copy.types.items() if type_name == INSTANCES]
        labels = {f'{topic.rsplit("/", 1)[0]}/label_image' for topic in results}
        added = results + sorted(labels & copy.types.keys())
    if not given and not source:
        raise RecordingError(f'{copy.path} does not say what it is a copy of; give IN as well')
    if not given and not Path(source).exists():
        raise RecordingError(f'{source}, of which {copy.path} is a copy, does not exist; give its present path as IN')
    return given or source, added


def compare(original: BagFile, copy: BagFile, added: Collection[str]) -> list[str]:
    """Return what differs, one line each, apart from the topics `added`.

    Raises:
        RecordingError: A bag is damaged.
    """
    findings = [f'left out: {count} messages on {topic}' for topic, count in original.left_out.items()]
    findings += _compare_topics(original, copy, added)
    lost: dict[tuple[Key, bytes], list[int]] = {}  # (topic and type, digest) -> bag times
    additional: dict[tuple[Key, bytes], list[int]] = {}
    for time_ns, before, after in _by_time(_messages(original), _messages(copy, added)):
        if before == after:
            continue
        missing, surplus = Counter(before) - Counter(after), Counter(after) - Counter(before)
        if not missing and not surplus:
            topics = ', '.join(dict.fromkeys(key[0] for key, _ in before))
            findings.append(f'reordered: messages of the time {time_ns} ns on {topics}')
        for message in missing.elements():
            lost.setdefault(message, []).append(time_ns)
        for message in surplus.elements():
            additional.setdefault(message, []).append(time_ns)
    for message in lost.keys() & additional.keys():  # the same bytes at another time
        for before_ns, after_ns in zip(lost[message], additional[message], strict=False):
            findings.append(f'reordered: a message on {message[0][0]} of {before_ns} ns is at {after_ns} ns')
        moved = min(len(lost[message]), len(additional[message]))
        del lost[message][:moved], additional[message][:moved]
    gone = Counter((time_ns, key) for (key, _), times in lost.items() for time_ns in times)
    new = Counter((time_ns, key) for (key, _), times in additional.items() for time_ns in times)
    for name, differing in (('changed', gone & new), ('lost', gone - new), ('additional', new - gone)):
        findings += [
            f'{name}: a message on {topic} of {time_ns} ns' for time_ns, (topic, _) in sorted(differing.elements())
        ]
    return findings


def _compare_topics(original: BagFile, copy: BagFile, added: Collection[str]) -> Iterator[str]:
    """Yield what differs in the topics apart from their messages."""
    ours, theirs = _connections(copy), _connections(original)
    for (topic, type_name), connection in theirs.items():
        counterpart = ours.get((topic, type_name))
        if counterpart is None:
            yield f'lost: the topic {topic} of type {type_name} with {connection.msgcount} messages'
            continue
        if connection.digest and connection.digest != counterpart.digest:
            yield f'changed: the type hash of {topic} was {connection.digest}, now {counterpart.digest}'
        if connection.msgdef != NO_DEFINITION and not counterpart.msgdef.data.endswith(connection.msgdef.data):
            yield f'changed: the definition of {type_name} on {topic}'
        if connection.ext != counterpart.ext:
            yield f'changed: the offered QoS of {topic}'
    for topic, type_name in ours.keys() - theirs.keys():
        if topic not in added:
            yield f'additional: the topic {topic} of type {type_name}'


def _connections(bag: BagFile) -> dict[Key, Connection]:
    return {(connection.topic, connection.msgtype): connection for connection in bag.connections}


def _messages(bag: BagFile, without: Collection[str] = ()) -> Iterator[tuple[int, list[Message]]]:
    """Yield (bag time in ns, messages of that time in order) for each time, apart from the topics `without`."""
    topics = bag.types.keys() - set(without)
    for time_ns, messages in groupby(bag.messages(topics), key=lambda message: message[1]):
        yield (
            time_ns,
            [
                ((connection.topic, connection.msgtype), blake2b(data, digest_size=DIGEST_BYTES).digest())
                for connection, _, data in messages
            ],
        )


def _by_time(
    before: Iterator[tuple[int, list[Message]]], after: Iterator[tuple[int, list[Message]]]
) -> Iterator[tuple[int, list[Message], list[Message]]]:
    """Yield (time, messages of one bag, of the other) for every time that either has, in order."""
    tagged = heapq.merge(
        ((time_ns, 0, messages) for time_ns, messages in before),
        ((time_ns, 1, messages) for time_ns, messages in after),
        key=lambda each: each[:2],
    )
    for time_ns, group in groupby(tagged, key=lambda each: each[0]):
        sides: dict[int, list[Message]] = {side: messages for _, side, messages in group}
        yield time_ns, sides.get(0, []), sides.get(1, [])

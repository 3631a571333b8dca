"""`instructsam bag show OUT FILE.rrd`: the results in a bag as a recording for Rerun."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from instructsam.core.atomic_write import check_path, replaced
from instructsam.core.modes import MAX_MEGAPIXELS_RANGE
from instructsam.core.text import one_line
from instructsam_ros.bag import topics as bag_topics
from instructsam_ros.bag.drawing.show import progress
from instructsam_ros.bag.reader import BagFile, print_notes
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.bag.storage.limits import limits_from
from instructsam_ros.conversions.stamps import serialized_stamp_ns
from instructsam_ros.msg import InstanceArray
from instructsam_ros.viewer.answers import AnswerLog, Role, Topic
from instructsam_ros.viewer.recording import Recording
from instructsam_ros.viewer.sinks import FileSink

POINTS = 'sensor_msgs/msg/PointCloud2'


def write_recording(args: argparse.Namespace) -> int:
    """Write the recording and return exit code 0.

    Raises:
        InstructSAMError: The bag has no results that can be shown, or the file cannot be written.
    """
    path = Path(args.file)
    check_path(path)
    bag = BagFile(args.bag, limits_from(args))
    print_notes(bag)
    topics = {topic.name: topic for topic in _topics(bag, args)}
    answers = next(name for name, topic in topics.items() if topic.role is Role.ANSWER)
    answered = {serialized_stamp_ns(data) for *_, data in bag.messages({answers})}
    with replaced(path) as part:
        with Recording(FileSink(part)) as recording:
            # The images have been answered, so they were within the limit of that run.
            log = AnswerLog(recording, topics.values(), MAX_MEGAPIXELS_RANGE[1])
            total = sum(bag.counts[name] for name in topics)
            for connection, time_ns, data in progress(bag.messages(topics), total):
                # The log keeps few messages, and a node answers few of the images, and seconds later.
                is_large = topics[connection.topic].role in (Role.IMAGE, Role.DEPTH)
                if not is_large or serialized_stamp_ns(data) in answered:
                    log.put(connection.topic, data, time_ns)
        if not log.drawn:
            why = f'; {next(iter(log.notes))}' if log.notes else ''
            raise RecordingError(f'no result on {answers} belongs to an image that is in the bag and can be read{why}')
    for note in log.notes:
        print(one_line(note), file=sys.stderr)
    print(one_line(f'{log.drawn} of {log.answers} results on {answers} with their images: {path.resolve()}'))
    return 0


def _topics(bag: BagFile, args: argparse.Namespace) -> Iterator[Topic]:
    """Yield the topics to show: results, images, and those of depth and points that the bag has."""
    answers = bag_topics.instances_topic(bag, args.name)
    found = bag_topics.select_topics(bag, args.topic, args.depth or '', args.camera_info or '')
    bag_topics.check_definitions(bag, {found.image, found.depth, found.camera_info})
    yield Topic(answers, Role.ANSWER, InstanceArray)
    for name, role in ((found.image, Role.IMAGE), (found.depth, Role.DEPTH)):
        if name:
            yield Topic(name, role, CompressedImage if bag.types[name] == bag_topics.COMPRESSED else Image)
    if found.camera_info:
        yield Topic(found.camera_info, Role.CAMERA_INFO, CameraInfo)
    points = f'{answers.rsplit("/", 1)[0]}/points'
    if bag.types.get(points) == POINTS and bag.counts[points]:
        yield Topic(points, Role.POINTS, PointCloud2)

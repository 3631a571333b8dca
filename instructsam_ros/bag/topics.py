"""Finds the topics of a bag that hold the images, their depth, the camera's intrinsics and the instructions."""

from collections.abc import Iterable
from dataclasses import dataclass
from shlex import quote

from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.bag.storage.definitions import has_other_layout
from instructsam_ros.conversions.transports import TRANSPORTS, UNREAD_TRANSPORTS, split_topic, transport_topic

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
STRING = 'std_msgs/msg/String'
INSTANCES = 'instructsam_ros/msg/InstanceArray'
TRACKED = 'instructsam_ros/msg/TrackedInstanceArray'

ALIGNED = ('aligned_depth_to_color', 'depth_registered', 'depth_to_color', 'depth_to_rgb')  # names used by drivers
OFF = 'off'
VIDEO_TYPES = ('Packet', 'FFMPEGPacket', 'CompressedVideo')  # of theora, ffmpeg and Foxglove


@dataclass(frozen=True)
class Topics:
    """Names of the topics to read; '' if there is none."""

    image: str
    depth: str = ''
    camera_info: str = ''


def select_topics(bag: BagFile, image: str = '', depth: str = '', camera_info: str = '') -> Topics:
    """Return the topics of a bag; those that are not named are found by their type and name.

    Depth is found only if its name says that it is aligned to colour: depth/image_raw and the like have another view.

    Args:
        bag: the bag.
        image: topic of the images.
        depth: topic of depth aligned to the images; 'off' to measure nothing.
        camera_info: topic of the intrinsics of both.

    Raises:
        RecordingError: a topic is missing, ambiguous or of another type.
    """
    image = image_topic(bag, image)
    if depth == OFF:
        return Topics(image)
    depth = _depth_topic(bag, image, depth)
    if not depth:
        if camera_info:
            raise RecordingError('--camera-info is for depth, and no topic is named like aligned depth; give --depth')
        return Topics(image)
    return Topics(image, depth, _camera_info_topic(bag, image, depth, camera_info))


def image_topic(bag: BagFile, name: str = '') -> str:
    """Return the topic of colour images: `name`, or the only one there is.

    Raises:
        RecordingError: there is none or more than one, or it has no messages.
    """
    if name:
        _check(bag, name, IMAGE, COMPRESSED)
        found = [name]
    else:
        # Images beside results, such as label_image, were made from these results.
        results = _result_namespaces(bag)
        images = _topics_of(bag, IMAGE, COMPRESSED)
        raw_topics = {split_topic(topic)[0] for topic in images if 'depth' not in topic}
        raw_topics = {topic for topic in raw_topics if _namespace(topic) not in results}
        found = _best_transports(bag, raw_topics, 'image_transport')
        if not found:
            hint = '; if one of them is in colour, name it with --topic' if images else ''
            raise RecordingError(
                f'{bag.path} has no topic of colour images ({IMAGE} or {COMPRESSED}); it has '
                f'{_listed(images or bag.types)}{hint}'
            )
        if len(found) > 1:
            raise RecordingError(f'{bag.path} has several topics of images ({", ".join(found)}); name one with --topic')
    if not bag.counts[found[0]]:
        raise RecordingError(f'{bag.path} has the topic {found[0]} but no image on it; name another with --topic')
    return found[0]


def instruction_topic(bag: BagFile, name: str = '') -> str:
    """Return the topic of instructions: `name`, or the only one whose name ends like the node's topic.

    Raises:
        RecordingError: there is none or more than one, or it is of another type.
    """
    if name:
        _check(bag, name, STRING)
        return name
    texts = _topics_of(bag, STRING)
    found = [topic for topic in texts if topic.rsplit('/', 1)[-1] == 'instruction']
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordingError(
            f'{bag.path} has several topics of instructions ({", ".join(found)}); name one with --instruction-topic'
        )
    raise RecordingError(
        f'{bag.path} has no topic `instruction` ({STRING}); give --instruction or --instructions'
        + (f', or name one of {", ".join(texts)} with --instruction-topic' if texts else '')
    )


def instances_topic(bag: BagFile, name: str = '') -> str:
    """Return the topic of results: the only one, or of several the one that `name` is the node's name of.

    Raises:
        RecordingError: there is none or more than one, or it has no messages.
    """
    found = _topics_of(bag, INSTANCES)
    if not found:
        raise RecordingError(f'{bag.path} has no results; make some with `instructsam bag annotate {bag.path} OUT`')
    if len(found) > 1:
        found = [topic for topic in found if topic == f'/{name.strip("/")}/instances']
    if len(found) != 1:
        raise RecordingError(f'{bag.path} has several topics of results; name one with --name')
    if not bag.counts[found[0]]:
        raise RecordingError(f'{bag.path} has the topic {found[0]} but no result on it')
    return found[0]


def unread_topics(bag: BagFile, topics: Topics) -> dict[str, str]:
    """Return {topic: reason} of the images, depth and videos in the bag that are not read."""
    reading = {split_topic(topic)[0]: topic for topic in (topics.image, topics.depth) if topic}
    results = _result_namespaces(bag)
    reasons = {}
    for topic, type_name in sorted(bag.types.items()):
        raw_topic, transport = split_topic(topic)
        is_readable = type_name in (IMAGE, COMPRESSED) and transport not in UNREAD_TRANSPORTS
        is_image = is_readable or transport in UNREAD_TRANSPORTS or type_name.rsplit('/')[-1] in VIDEO_TYPES
        if topic in reading.values() or not is_image or _namespace(topic) in results:
            continue
        if not is_readable:
            reasons[topic] = f'{type_name} of the transport {transport} cannot be read'
        elif raw_topic in reading:
            reasons[topic] = f'{reading[raw_topic]} is read instead'
        elif 'depth' not in topic:
            reasons[topic] = f'{topics.image} is read; --topic names another'
        elif topics.depth:
            reasons[topic] = f'{topics.depth} is read; --depth names another'
        else:
            reasons[topic] = 'no depth is read; if it is aligned to the images, name it with --depth'
    return reasons


def _depth_topic(bag: BagFile, image: str, name: str) -> str:
    """Return `name`, or the topic of the only aligned depth, in the best transport; '' if there is none."""
    if name:
        topics = [name] if name in bag.types else _best_transports(bag, {name}, 'depth_transport') or [name]
        _check(bag, topics[0], IMAGE, COMPRESSED)
        return topics[0]
    raw_topics = {split_topic(topic)[0] for topic in _topics_of(bag, IMAGE, COMPRESSED)}
    raw_topics = {topic for topic in raw_topics if _is_aligned(topic, image)}
    found = _best_transports(bag, raw_topics, 'depth_transport')
    if len(found) > 1:
        raise RecordingError(
            f'{bag.path} has several topics of aligned depth ({", ".join(found)}); name one with --depth, or --depth '
            f'{OFF}'
        )
    return found[0] if found else ''


def _best_transports(bag: BagFile, raw_topics: Iterable[str], parameter: str) -> list[str]:
    """Return one recorded topic for each of the raw topics that has any: the best one that has messages.

    `parameter` is the one that selects the transport in the node.
    """
    found = []
    for raw_topic in sorted(raw_topics):
        topics = [transport_topic(raw_topic, transport) for transport in TRANSPORTS[parameter]]
        recorded = [topic for topic in topics if bag.types.get(topic) in (IMAGE, COMPRESSED)]
        recorded.sort(key=lambda topic: not bag.counts[topic])  # stable
        found += recorded[:1]
    return found


def _camera_info_topic(bag: BagFile, image: str, depth: str, name: str) -> str:
    """Return `name`, or the topic beside the images or the depth, or the only camera info of the bag."""
    if name:
        _check(bag, name, CAMERA_INFO)
        return name
    infos = _topics_of(bag, CAMERA_INFO)
    # image_transport puts camera_info beside the image; the depth's one serves as well, since the two are aligned.
    for topic in (image, depth):
        beside = f'{_namespace(topic)}/camera_info'
        if beside in infos:
            return beside
    if len(infos) == 1:
        return infos[0]
    raise RecordingError(
        f'{bag.path} has depth on {depth} but no camera info beside it; name one with --camera-info (there is '
        f'{", ".join(infos) or "none"}), or --depth {OFF}'
    )


def _check(bag: BagFile, topic: str, *type_names: str) -> None:
    """Raise RecordingError unless the bag has `topic` and it is of one of these types."""
    if topic not in bag.types:
        raise RecordingError(f'{bag.path} has no topic {topic}; it has {_listed(bag.types)}')
    if bag.types[topic] not in type_names:
        raise RecordingError(
            f'{topic} in {bag.path} is of type {bag.types[topic]}, expected {" or ".join(type_names)}; topics of that '
            f'type: {_listed(_topics_of(bag, *type_names))}'
        )


def check_definitions(bag: BagFile, topics: Iterable[str]) -> None:
    """Raise RecordingError if the bag defines the type of one of `topics` otherwise than ROS 2."""
    for connection in bag.connections:
        if connection.topic in topics and has_other_layout(connection):
            raise RecordingError(
                f'{bag.path} defines {connection.msgtype} on {connection.topic} otherwise than ROS 2, so that it would '
                f'be misread; `rosbags-convert --src {quote(str(bag.path))} --dst NEW --dst-typestore ros2_jazzy` '
                'converts it'
            )


def _topics_of(bag: BagFile, *type_names: str) -> list[str]:
    return sorted(topic for topic, type_name in bag.types.items() if type_name in type_names)


def _is_aligned(topic: str, image: str) -> bool:
    return any(word in topic for word in ALIGNED) or topic == f'{_namespace(image)}/depth'


def _result_namespaces(bag: BagFile) -> set[str]:
    """Return the namespaces of the nodes whose results are in the bag."""
    return {_namespace(topic) for topic in _topics_of(bag, INSTANCES, TRACKED)}


def _namespace(topic: str) -> str:
    """Return the prefix that the topics of one camera share."""
    return split_topic(topic)[0].rsplit('/', 1)[0]


def _listed(topics: Iterable[str], limit: int = 8) -> str:
    topics = sorted(topics)
    more = f' and {len(topics) - limit} more' if len(topics) > limit else ''
    return (', '.join(topics[:limit]) + more) or 'none'

"""Which topics of a bag are the pictures, their depth, the camera's intrinsics and the instructions."""

from dataclasses import dataclass

from instructsam_ros.bag.recordings import RecordingError

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO, TEXT = 'sensor_msgs/msg/CameraInfo', 'std_msgs/msg/String'
INSTANCES = 'instructsam_ros/msg/InstanceArray'
ALIGNED = ('aligned_depth_to_color', 'depth_registered', 'depth_to_color', 'depth_to_rgb')  # what drivers call it
OFF = 'off'


@dataclass(frozen=True)
class Topics:
    """Names; '' for what there is not."""

    image: str
    depth: str = ''
    camera_info: str = ''


def choose(bag, image='', depth='', camera_info=''):
    """The Topics of a BagFile; what is not named is found by its type and name. Raises RecordingError.

    depth: 'off' to measure nothing. Depth that is not named is taken only where its name says that it is aligned to
    colour: depth/image_raw and the like are of another view.
    """
    image = image_topic(bag, image)
    depths = [each for each in _of_types(bag, IMAGE) if _is_aligned(each, image)]
    if depth == OFF:
        return Topics(image)
    if depth:
        _check(bag, depth, IMAGE)
    elif len(depths) == 1:
        (depth,) = depths
    elif depths:
        raise RecordingError(
            f'{bag.path} has several topics of aligned depth ({", ".join(depths)}); name one with --depth, or --depth '
            f'{OFF}'
        )
    else:
        if camera_info:
            raise RecordingError('--camera-info is for depth, and no topic is named like aligned depth; give --depth')
        return Topics(image)
    if camera_info:
        _check(bag, camera_info, INFO)
    else:
        infos = _of_types(bag, INFO)
        # as image_transport lays them out; the depth's serves as well, since the two are aligned
        beside = [f'{_base(topic)}/camera_info' for topic in (image, depth)]
        camera_info = next((each for each in beside if each in infos), infos[0] if len(infos) == 1 else '')
    if not camera_info:
        raise RecordingError(
            f'{bag.path} has depth on {depth} but no camera info beside it; name one with --camera-info (there is '
            f'{", ".join(infos) or "none"}), or --depth {OFF}'
        )
    return Topics(image, depth, camera_info)


def image_topic(bag, wanted=''):
    """The topic of pictures. Raises RecordingError: none, several, one without messages."""
    if wanted:
        _check(bag, wanted, IMAGE, COMPRESSED)
        found = [wanted]
    else:
        made = {_base(topic) for topic in _of_types(bag, INSTANCES)}  # beside results lie pictures made of them
        every = _of_types(bag, IMAGE, COMPRESSED)
        found = [topic for topic in every if 'depth' not in topic and _base(topic) not in made]
        if not found:
            hint = '; if one of them is in colour, name it with --topic' if every else ''
            raise RecordingError(
                f'{bag.path} has no topic of colour images ({IMAGE} or {COMPRESSED}); it has '
                f'{_listed(every or bag.types)}{hint}'
            )
        if len(found) > 1:
            raise RecordingError(f'{bag.path} has several topics of images ({", ".join(found)}); name one with --topic')
    if not bag.counts[found[0]]:
        raise RecordingError(f'{bag.path} has the topic {found[0]} but no image on it; name another with --topic')
    return found[0]


def instruction_topic(bag):
    """The topic of instructions, as the node listens to it. Raises RecordingError: none, or several."""
    texts = _of_types(bag, TEXT)
    found = [topic for topic in texts if topic.rsplit('/', 1)[-1] == 'instruction']
    if len(found) == 1:
        return found[0]
    if found:
        raise RecordingError(
            f'{bag.path} has several topics of instructions ({", ".join(found)}); name one with --instruction-topic'
        )
    raise RecordingError(
        f'{bag.path} has no topic `instruction` ({TEXT}); give --instruction or --instructions'
        + (f', or name one of {", ".join(texts)} with --instruction-topic' if texts else '')
    )


def check_instruction_topic(bag, topic):
    """Raises RecordingError where that is no topic of texts."""
    _check(bag, topic, TEXT)


def _check(bag, topic, *kinds):
    if topic not in bag.types:
        raise RecordingError(f'{bag.path} has no topic {topic}; it has {_listed(bag.types)}')
    if bag.types[topic] not in kinds:
        there = _of_types(bag, *kinds)
        raise RecordingError(
            f'{topic} in {bag.path} is of type {bag.types[topic]}, expected {" or ".join(kinds)}; of these there is '
            f'{_listed(there)}'
        )


def _of_types(bag, *kinds):
    return sorted(topic for topic, kind in bag.types.items() if kind in kinds)


def _is_aligned(topic, image):
    return any(word in topic for word in ALIGNED) or topic == f'{_base(image)}/depth'


def _base(topic):
    """Where a camera's topics begin."""
    return topic.removesuffix('/compressed').rsplit('/', 1)[0]


def _listed(topics, most=8):
    topics = sorted(topics)
    more = f' and {len(topics) - most} more' if len(topics) > most else ''
    return (', '.join(topics[:most]) + more) or 'none'

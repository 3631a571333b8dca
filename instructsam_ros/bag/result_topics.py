"""The topics that an annotated bag has more than the original, and the messages on them."""

import re
from collections.abc import Iterator

from rclpy.serialization import deserialize_message, serialize_message

from instructsam.core.errors import InstructSAMError
from instructsam_ros.bag import topics as bag_topics
from instructsam_ros.bag.names import DEFAULT_NAME
from instructsam_ros.bag.reader import BagFile
from instructsam_ros.bag.recordings import RecordingError
from instructsam_ros.conversions.instances import label_image, result_from_msg
from instructsam_ros.msg import InstanceArray

ROS_NAME = re.compile(r'/?[a-z_]\w*(/[a-z_]\w*)*', re.ASCII | re.IGNORECASE)


class ResultTopics:
    """The topics that are added to the bag, and the messages on them.

    Args:
        name: Prefix of the topics, like the name of the node.
        label_images: Whether label images are written too.

    Raises:
        InstructSAMError: `name` is not a ROS name.
    """

    def __init__(self, name: str, *, label_images: bool) -> None:
        if not ROS_NAME.fullmatch(name):
            raise InstructSAMError(f'--name is a ROS name such as {DEFAULT_NAME}, got {name!r}')
        prefix = f'/{name.strip("/")}'
        self._instances, self._label_image = f'{prefix}/instances', f'{prefix}/label_image'
        self.types = {self._instances: bag_topics.INSTANCES}
        if label_images:
            self.types[self._label_image] = bag_topics.IMAGE

    def check(self, bag: BagFile) -> None:
        """Raise RecordingError if the bag has one of the topics already."""
        taken = sorted(self.types.keys() & bag.types.keys())
        if taken:
            raise RecordingError(f'{bag.path} has {", ".join(taken)} already; give another --name than that')

    def messages(self, result: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield (topic, serialized message) for a serialized InstanceArray."""
        yield self._instances, result
        message = read_result(result)
        if self._label_image in self.types and message.status != InstanceArray.STATUS_ERROR:
            instances = result_from_msg(message).instances
            labels = label_image(instances, message.height, message.width, message.header)
            yield self._label_image, serialize_message(labels)


def read_result(data: bytes) -> InstanceArray:
    """Return the message of a serialized InstanceArray."""
    return deserialize_message(data, InstanceArray)

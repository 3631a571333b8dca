"""What goes out for one image: the result, and the pictures that somebody has subscribed to."""
from sensor_msgs.msg import Image

from instructsam.core.overlay import draw
from instructsam_ros import messages
from instructsam_ros.msg import InstanceArray


class Outputs:
    """The node's result topics. Messages are made first and sent later, so that sending is short."""

    def __init__(self, node):
        self._instances = node.create_lifecycle_publisher(InstanceArray, '~/instances', 10)
        self._label_image = node.create_lifecycle_publisher(Image, '~/label_image', 1)
        self._overlay = node.create_lifecycle_publisher(Image, '~/overlay', 1)

    def answer(self, shot, instruction, result):
        """[(publisher, message)] for an engine's Result."""
        header = shot.header
        made = [(self._instances, messages.to_msg(result, header, instruction.text, instruction.id))]
        if self._label_image.get_subscription_count():
            labels = messages.label_image(result.instances, result.height, result.width, header)
            made.append((self._label_image, labels))
        if self._overlay.get_subscription_count():
            made.append((self._overlay, messages.image_msg(draw(shot.image, result), header)))
        return made

    def failure(self, shot, instruction, message):
        """[(publisher, message)] that say why there is no answer."""
        made = messages.error_msg(message, shot.header, instruction.text, instruction.id)
        made.height, made.width = shot.size
        return [(self._instances, made)]


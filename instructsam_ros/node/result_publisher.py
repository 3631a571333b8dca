"""What goes out for one image of a camera: the result, and what else somebody has subscribed to."""

from geometry_msgs.msg import PoseArray
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from instructsam.core.display.overlay import draw_overlay
from instructsam_ros.conversions import instances as messages
from instructsam_ros.conversions.grasps import grasp_poses
from instructsam_ros.conversions.markers import markers
from instructsam_ros.conversions.point_clouds import cloud
from instructsam_ros.msg import InstanceArray


class Outputs:
    """The result topics of one camera. Messages are made first and sent later, so that sending is short."""

    def __init__(self, node, camera=''):
        """`camera`: its name, which the topics begin with; '' for the only one."""
        prefix = f'~/{camera}/' if camera else '~/'

        def publisher(kind, topic, depth=1):
            return node.create_lifecycle_publisher(kind, prefix + topic, depth)

        self._instances = publisher(InstanceArray, 'instances', 10)
        # made of (shot, result, header of what is in 3D) while somebody listens
        self._on_demand = {
            publisher(Image, 'label_image'): _label_image,
            publisher(Image, 'overlay'): _overlay,
            publisher(PointCloud2, 'points'): lambda shot, result, header: cloud(result, shot.image, header),
            publisher(MarkerArray, 'markers'): lambda _, result, header: markers(result, header),
            publisher(PoseArray, 'grasp_candidates'): lambda _, result, header: grasp_poses(result, header),
        }

    def answer(self, shot, instruction, answer):
        """[(publisher, message)] for an Answer."""
        result = answer.result
        made = answer.to_msg(shot.header, instruction.text, instruction.id)
        header = answer.header(shot.header)
        return [(self._instances, made)] + [
            (publisher, make(shot, result, header))
            for publisher, make in self._on_demand.items()
            if publisher.get_subscription_count()
        ]

    def failure(self, shot, instruction, message):
        """[(publisher, message)] that say why there is no answer."""
        made = messages.error_msg(message, shot.header, instruction.text, instruction.id, shot.size)
        return [(self._instances, made)]


def _label_image(shot, result, _):
    return messages.label_image(result.instances, result.height, result.width, shot.header)


def _overlay(shot, result, _):
    return messages.image_msg(draw_overlay(shot.image, result), shot.header)

"""The topics `~/markers`, boxes and names for people, and `~/grasp_candidates`, where a gripper might close."""

from geometry_msgs.msg import PoseArray, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from instructsam.core.display.overlay import color
from instructsam.core.result import UNTRACKED
from instructsam.core.spatial.grasping import grasp_candidates
from instructsam_ros.conversions.instances import geometry_to_msg, pose

OPACITY = 0.35  # of a box
TEXT_M = 0.025  # height of a letter
ABOVE_M = 0.03  # from the box's top to the text


def markers(result, header):
    """The MarkerArray of all located instances: for each a box (namespace `boxes`) and its name (`names`).

    The first marker deletes those of the result before. Colours go with the track id, where there is one.
    """
    made = [Marker(header=header, action=Marker.DELETEALL)]
    for index, instance in enumerate(result.instances):
        if instance.geometry is None:
            continue
        number = index if instance.track_id == UNTRACKED else instance.track_id
        red, green, blue = (value / 255 for value in color(number))
        common = {'header': header, 'id': index, 'action': Marker.ADD}
        measured = geometry_to_msg(instance.geometry)
        made.append(
            Marker(
                **common,
                ns='boxes',
                type=Marker.CUBE,
                pose=measured.pose,
                scale=measured.size,
                color=ColorRGBA(r=red, g=green, b=blue, a=OPACITY),
            )
        )
        geometry = instance.geometry
        top = geometry.center + geometry.rotation[:, 2] * (geometry.size_m[2] / 2 + ABOVE_M)
        name = f'{instance.phrase} {instance.score:.2f}'
        made.append(
            Marker(
                **common,
                ns='names',
                type=Marker.TEXT_VIEW_FACING,
                pose=pose(top, geometry.rotation),
                scale=Vector3(z=TEXT_M),
                color=ColorRGBA(r=red, g=green, b=blue, a=1.0),
                text=name if instance.track_id == UNTRACKED else f'#{instance.track_id} {name}',
            )
        )
    return MarkerArray(markers=made)


def grasp_poses(result, header):
    """The PoseArray of all candidates: those of the first instance, best first, then those of the next.

    See core.grasping for what they are: the position lies between the fingertips, z is the direction of approach and x
    that in which the fingers close.
    """
    return PoseArray(
        header=header,
        poses=[
            pose(grasp.position, grasp.rotation)
            for instance in result.instances
            if instance.geometry is not None
            for grasp in grasp_candidates(instance.geometry)
        ],
    )

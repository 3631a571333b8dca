"""The topic `~/markers`: a box and a label for each located object, for RViz and Foxglove."""

from geometry_msgs.msg import Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from instructsam.core.display.overlay import id_text, instance_color, number_of
from instructsam.core.result import Instance, Result
from instructsam.core.spatial.geometry import Geometry
from instructsam_ros.conversions.poses import geometry_to_msg, pose

BOX_OPACITY = 0.35
LETTER_HEIGHT_M = 0.025
LABEL_GAP_M = 0.03  # distance from the top of the box to its label


def markers(result: Result, header: Header) -> MarkerArray:
    """Return a box (namespace `boxes`) and a label (namespace `names`) for each located instance.

    The first marker deletes those of the previous result. The colour follows the track id, if there is one.

    Args:
        result: instances with their geometry.
        header: has the frame of the geometry.
    """
    array = [Marker(header=header, action=Marker.DELETEALL)]
    for index, instance in enumerate(result.instances):
        if instance.geometry is not None:
            array.append(_box(index, instance, instance.geometry, header))
            array.append(_label(index, instance, instance.geometry, header))
    return MarkerArray(markers=array)


def _box(index: int, instance: Instance, geometry: Geometry, header: Header) -> Marker:
    msg = geometry_to_msg(geometry)
    return Marker(
        header=header,
        id=index,
        action=Marker.ADD,
        ns='boxes',
        type=Marker.CUBE,
        pose=msg.pose,
        scale=msg.size,
        color=_color(index, instance, BOX_OPACITY),
    )


def _label(index: int, instance: Instance, geometry: Geometry, header: Header) -> Marker:
    top = geometry.center + geometry.rotation[:, 2] * (geometry.size_m[2] / 2 + LABEL_GAP_M)
    return Marker(
        header=header,
        id=index,
        action=Marker.ADD,
        ns='names',
        type=Marker.TEXT_VIEW_FACING,
        pose=pose(top, geometry.rotation),
        scale=Vector3(z=LETTER_HEIGHT_M),
        color=_color(index, instance, opacity=1.0),
        text=f'{id_text(instance)}{instance.phrase} {instance.score:.2f}',
    )


def _color(index: int, instance: Instance, opacity: float) -> ColorRGBA:
    red, green, blue = instance_color(number_of(instance, index))
    return ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=opacity)

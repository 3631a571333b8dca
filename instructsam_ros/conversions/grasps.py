"""The topic `~/grasp_candidates`: poses at which a parallel gripper might close."""

from geometry_msgs.msg import PoseArray
from std_msgs.msg import Header

from instructsam.core.result import Result
from instructsam.core.spatial.grasping import grasp_candidates
from instructsam_ros.conversions.poses import pose


def grasp_poses(result: Result, header: Header) -> PoseArray:
    """Return all grasp candidates: those of the first instance, best first, then those of the next.

    The position lies between the fingertips, z is the approach direction and x the closing direction, see
    instructsam.core.spatial.grasping.

    Args:
        result: instances with their geometry.
        header: has the frame of the geometry.
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

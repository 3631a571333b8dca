"""The topics `~/grasp_candidates` and `~/grasp_status`: poses at which a parallel gripper might close, or why none."""

from collections.abc import Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseArray
from std_msgs.msg import Header

from instructsam.core.result import Instance, Result
from instructsam.core.spatial.grasping import GraspResult, find_grasps
from instructsam_ros.conversions.poses import pose


def instance_grasps(result: Result) -> list[GraspResult]:
    """Return the grasps of each instance, or the reason why it has none."""
    return [
        GraspResult([], each.geometry_message or 'it was not measured')
        if each.geometry is None
        else find_grasps(each.geometry)
        for each in result.instances
    ]


def grasp_poses(grasps: Sequence[GraspResult], header: Header) -> PoseArray:
    """Return all grasp candidates: those of the first instance, best first, then those of the next.

    The position lies between the fingertips, z is the approach direction and x the closing direction, see
    instructsam.core.spatial.grasping.

    Args:
        grasps: of each instance.
        header: has the frame of the geometry.
    """
    poses = [pose(grasp.position, grasp.rotation) for each in grasps for grasp in each.candidates]
    return PoseArray(header=header, poses=poses)


def grasp_status(instances: Sequence[Instance], grasps: Sequence[GraspResult], header: Header) -> DiagnosticArray:
    """Return one status per instance: its candidates among the poses of `grasp_poses`, or the reason for none.

    Args:
        instances: of the result.
        grasps: of each instance.
        header: as in `grasp_poses`.
    """
    statuses, first = [], 0
    for index, (instance, each) in enumerate(zip(instances, grasps, strict=True)):
        values = {
            'instance': index,
            'track_id': instance.track_id,
            'first_pose': first,
            'poses': len(each.candidates),
            'opening_m': ' '.join(f'{grasp.opening_m:.4f}' for grasp in each.candidates),
            'width_m': ' '.join(f'{grasp.width_m:.4f}' for grasp in each.candidates),
            'quality': ' '.join(f'{grasp.quality:.3f}' for grasp in each.candidates),
        }
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK if each.candidates else DiagnosticStatus.WARN,
            name=instance.phrase,
            message=each.reason,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        statuses.append(status)
        first += len(each.candidates)
    return DiagnosticArray(header=header, status=statuses)

#!/usr/bin/env python3
"""Turn an instruction into a MoveIt collision object and a pose for the gripper.

    python examples/moveit_scene.py "the red mug"             # prints both, publishes /collision_object and /pick_pose
    python examples/moveit_scene.py --dry-run "the red mug"   # prints only: needs neither MoveIt nor a robot

The hand keeps clear of the objects of the answer; other obstacles are for MoveIt to know, for example as an octomap.
Set the node's parameter target_frame to the planning frame. Axes of the pick pose: z is the approach, x the direction
in which the fingers close. The rotation from there to the link of your end effector is yours to add.
"""

import argparse
import re
import sys
import time
from typing import Any

import rclpy
import yaml
from geometry_msgs.msg import Pose, PoseStamped
from std_msgs.msg import Header

from instructsam.core.spatial.grasping import find_grasps, points_of_others
from instructsam_ros.client import Detections, Instance, Perception, PerceptionError
from instructsam_ros.conversions.poses import pose

try:
    from moveit_msgs.msg import CollisionObject
    from shape_msgs.msg import SolidPrimitive
except ImportError:
    CollisionObject = SolidPrimitive = None

BOX = 1  # shape_msgs/SolidPrimitive.BOX
LISTENER_S = 5.0  # time for move_group to be discovered


def choose(detections: Detections) -> tuple[Instance, Pose]:
    """Return the best object that can be grasped, and where. Raises LookupError with the reason for none."""
    reasons = []
    for instance in detections:
        if instance.center is None:
            reason = instance.geometry_message or detections.message.geometry_message
        else:
            grasps = find_grasps(instance, limit=1, around=points_of_others(detections, instance))
            if grasps.candidates:
                return instance, pose(grasps.candidates[0].position, grasps.candidates[0].rotation)
            reason = grasps.reason
        reasons.append(f'{instance.phrase}: {reason}')
    raise LookupError('; '.join(reasons) or 'nothing matches')


def collision_object(instance: Instance, header: Header) -> dict[str, Any]:
    """Return the fields of the moveit_msgs/CollisionObject of an object: its box, to be added to the planning scene."""
    name = re.sub(r'\W+', '_', instance.phrase)
    return {
        'header': header,
        'pose': pose(instance.center, instance.rotation),
        'id': f'{name}_{instance.track_id}',  # the same name again replaces the object
        'primitives': [{'type': BOX, 'dimensions': instance.size_m.tolist()}],  # along x, y and z of the pose, m
        'primitive_poses': [Pose()],
    }


def plain(value: Any) -> Any:
    """Return a message, or a container of messages, as dictionaries and lists that YAML can write."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if hasattr(value, 'get_fields_and_field_types'):
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    return value


def publish(fields: dict[str, Any], pick: PoseStamped) -> None:
    """Publish the collision object and the pose. Raises LookupError if MoveIt is not running."""
    message = CollisionObject(**{**fields, 'primitives': [SolidPrimitive(**each) for each in fields['primitives']]})
    rclpy.init()
    node = rclpy.create_node('moveit_scene')
    publishers = (
        node.create_publisher(CollisionObject, 'collision_object', 1),
        node.create_publisher(PoseStamped, 'pick_pose', 1),
    )
    end_s = time.monotonic() + LISTENER_S
    while not publishers[0].get_subscription_count():
        if time.monotonic() > end_s:
            raise LookupError('nobody listens to /collision_object: start move_group, or add --dry-run')
        time.sleep(0.05)
    for publisher, each in zip(publishers, (message, pick), strict=True):
        publisher.publish(each)
        publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=LISTENER_S))


def main() -> int | str:
    """Find, choose, print and publish; return 0, or the reason why there is nothing to pick."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('instruction')
    parser.add_argument('--dry-run', action='store_true', help='print without publishing')
    args = parser.parse_args()
    if CollisionObject is None and not args.dry_run:
        parser.error('moveit_msgs is missing: `sudo apt install ros-$ROS_DISTRO-moveit-msgs`, or add --dry-run')
    try:
        with Perception() as perception:
            detections = perception.find(args.instruction, timeout=20.0, freshness='next')
        instance, grasp = choose(detections)
        header = Header(stamp=detections.message.header.stamp, frame_id=detections.frame_id)
        fields, pick = collision_object(instance, header), PoseStamped(header=header, pose=grasp)
        print(yaml.safe_dump(plain({'collision_object': fields, 'pick_pose': pick}), sort_keys=False), end='')
        if not args.dry_run:
            publish(fields, pick)
    except (PerceptionError, LookupError) as error:
        return f'{args.instruction}: {error}'
    return 0


if __name__ == '__main__':
    sys.exit(main())

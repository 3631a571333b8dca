"""Answers of a perception node as its Python client returns them.

Generated message classes are not annotated, so the functions take Any.
"""

# pyright: reportMissingTypeStubs=false
# ROS message packages have no stubs.

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from instructsam_ros.conversions.instances import rle_from_msg
from instructsam_ros.conversions.point_clouds import read_cloud
from instructsam_ros.conversions.poses import position_of, rotation_of
from instructsam_ros.msg import InstanceArray


@dataclass(frozen=True, eq=False)
class Instance:
    """One object.

    Everything in 3D is in the frame `Detections.frame_id`; it is None if the object was not measured.
    """

    mask: np.ndarray  # [H, W] bool, at the size of the image
    score: float  # 0 to 1
    phrase: str  # the noun phrase that the object was found by
    track_id: int  # constant for the same object over time; -1 if it is not tracked
    center: np.ndarray | None = None  # [3] m, center of the box
    rotation: np.ndarray | None = None  # [3, 3], columns are the box's length, width and height away from the support
    size_m: np.ndarray | None = None  # [3], length, width and height of the box
    points: np.ndarray | None = None  # [N, 3] m, on the visible surface; only from find()
    geometry_message: str = ''  # reason why the object was not measured
    confidence: float = 1.0  # 0 to 1, of a carried mask; below 1 only from watch(tracked=True)


@dataclass(frozen=True, eq=False)
class Detections:
    """The answer about one image: a sequence of Instance, best score first, empty if nothing matches."""

    instances: tuple[Instance, ...]
    frame_id: str  # frame of everything in 3D; '' if nothing was measured, see message.geometry_message
    stamp_s: float  # time at which the image was taken, s
    message: InstanceArray  # as received: header, answer, times
    age_s: float = 0.0  # time from the image that the model answered to this one; above 0 only from watch(tracked=True)

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __getitem__(self, index: int) -> Instance:
        return self.instances[index]


def detections_from_msg(message: Any, cloud: Any = None) -> Detections:
    """Return the Detections of an InstanceArray and, from the action, its PointCloud2.

    Raises:
        ValueError: A mask or a pose is malformed, for example a position that is not finite.
    """
    points, owners = read_cloud(cloud) if cloud is not None and len(cloud.data) else (None, None)
    instances = tuple(
        _instance(each, None if points is None else points[owners == index])
        for index, each in enumerate(message.instances)
    )
    stamp = message.header.stamp
    return Detections(instances, message.geometry_frame_id, stamp.sec + stamp.nanosec * 1e-9, message)


def carried_detections_from_msg(message: Any) -> Detections:
    """Return the Detections of a TrackedInstanceArray; raises what detections_from_msg raises."""
    detections = detections_from_msg(message.result)
    pairs = zip(detections.instances, message.confidence, strict=True)
    instances = tuple(replace(instance, confidence=confidence) for instance, confidence in pairs)
    return replace(detections, instances=instances, age_s=message.age_s)


def _instance(message: Any, points: np.ndarray | None) -> Instance:
    """Return the Instance of a message with its points [N, 3] m."""
    mask: np.ndarray = rle_from_msg(message.mask).decode()
    score, phrase, track_id = message.score, message.phrase, message.track_id
    if not message.has_geometry:
        return Instance(mask, score, phrase, track_id, geometry_message=message.geometry_message)
    pose = message.geometry.pose
    return Instance(
        mask,
        score,
        phrase,
        track_id,
        center=position_of(pose.position),
        rotation=rotation_of(pose.orientation),
        size_m=position_of(message.geometry.size),
        points=points,
    )

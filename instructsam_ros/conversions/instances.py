"""Results of the engine as ROS messages, and masks back from them.

Array fields are given to rclpy as array.array: any other sequence is checked element by element and copied.
"""

import array
import sys

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, RegionOfInterest

from instructsam.core import rle
from instructsam_ros.conversions.text import valid_utf8
from instructsam_ros.msg import Geometry, Instance, InstanceArray, Rle

_STATUS = {'ok': InstanceArray.STATUS_OK, 'no_target': InstanceArray.STATUS_NO_TARGET}


def to_msg(result, header, instruction, instruction_id, geometry_frame_id='', geometry_message=''):
    """The InstanceArray of an instructsam.core.result.Result.

    `header` is the source image's, `instruction` the text as it was received, `instruction_id` its number;
    geometry_frame_id: of the instances' geometry, geometry_message: why there is none at all.
    """
    msg = InstanceArray(
        header=header,
        instruction=valid_utf8(instruction),
        instruction_id=instruction_id,
        status=_STATUS[result.status],
        message=valid_utf8(result.warning),
        answer=valid_utf8(result.answer),
        height=result.height,
        width=result.width,
        instances=[_instance_to_msg(instance) for instance in result.instances],
        geometry_frame_id=geometry_frame_id,
        geometry_message=valid_utf8(geometry_message),
    )
    for stage, ms in result.timings_ms.items():
        setattr(msg, f'{stage}_ms', float(ms))
    return msg


def error_msg(message, header, instruction, instruction_id, size=(0, 0)):
    """The InstanceArray that says why there is no answer; `message` is for a person, `size` the image's (height, width)
    px where it is known.
    """
    return InstanceArray(
        header=header,
        instruction=valid_utf8(instruction),
        instruction_id=instruction_id,
        status=InstanceArray.STATUS_ERROR,
        message=valid_utf8(message),
        height=size[0],
        width=size[1],
    )


def rle_to_msg(mask):
    """The Rle message of an instructsam.core.rle.Rle."""
    return Rle(height=mask.height, width=mask.width, counts=byte_array('I', mask.counts))


def rle_from_msg(msg):
    """The instructsam.core.rle.Rle of an Rle message. ValueError where the counts do not fill height x width."""
    return rle.Rle(msg.height, msg.width, np.frombuffer(msg.counts, np.uint32))


def label_image(instances, height, width, header):
    """Image 16UC1: 0 is background, i + 1 the i-th of `instances`; where masks overlap, the earlier one is seen.

    `instances` are the engine's, sorted by score, highest first; `height` and `width` in px of the source image.
    """
    labels = np.zeros((width, height), np.uint16)  # column by column, as the run lengths are
    flat = labels.reshape(-1)
    for index in reversed(range(len(instances))):
        counts = instances[index].mask.counts
        is_foreground = np.arange(len(counts)) % 2 == 1
        flat[np.repeat(is_foreground, counts)] = index + 1
    return _image(labels.T, '16UC1', header)


def image_msg(rgb, header):
    """Image rgb8 of `rgb` [H, W, 3] uint8."""
    return _image(rgb, 'rgb8', header)


def _image(pixels, encoding, header):
    pixels = np.ascontiguousarray(pixels)
    return Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=sys.byteorder == 'big',
        step=pixels.strides[0],
        data=byte_array('B', pixels),
    )


def _instance_to_msg(instance):
    x0, y0, x1, y1 = instance.box
    measured = instance.geometry is not None
    return Instance(
        track_id=instance.track_id,
        phrase=valid_utf8(instance.phrase),
        score=float(instance.score),
        roi=RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0),
        mask=rle_to_msg(instance.mask),
        has_geometry=measured,
        geometry_message=valid_utf8(instance.geometry_message),
        geometry=geometry_to_msg(instance.geometry) if measured else Geometry(),
    )


def geometry_to_msg(geometry):
    """The Geometry message of an instructsam.core.spatial.geometry.Geometry."""
    return Geometry(
        pose=pose(geometry.center, geometry.rotation),
        size=_xyz(Vector3, geometry.size_m),
        visible=_xyz(Vector3, geometry.visible_m),
        centroid=_xyz(Point, geometry.centroid),
        points=geometry.surface.count,
        valid_depth=geometry.valid,
        has_support=geometry.has_support,
    )


def pose(position, rotation):
    """The Pose of `position` [3] m and `rotation` [3, 3], whose columns are the axes."""
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    return Pose(position=_xyz(Point, position), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _xyz(kind, values):
    x, y, z = (float(value) for value in values)
    return kind(x=x, y=y, z=z)


def byte_array(typecode, values):
    """A copy of `values` (C-contiguous numpy of that type) as array.array."""
    copy = array.array(typecode)
    copy.frombytes(memoryview(values).cast('B'))
    return copy

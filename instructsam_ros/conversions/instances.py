"""Results of the engine to and from InstanceArray messages, and masks and images to messages.

Array fields are passed to rclpy as array.array: it checks any other sequence element by element and copies it.
"""

import array
import sys

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instructsam.core import result as core_result
from instructsam.core import rle
from instructsam.core.display.label_map import label_map
from instructsam_ros.conversions.poses import geometry_to_msg
from instructsam_ros.msg import Instance, InstanceArray, Rle

STATUS = {
    'ok': InstanceArray.STATUS_OK,
    'no_target': InstanceArray.STATUS_NO_TARGET,
    'error': InstanceArray.STATUS_ERROR,
}
REMEDIES = {
    'time_budget': 'raise time_budget_s',
    'token_budget': 'raise max_new_tokens, or use other words if the model repeats itself',
}
"""Advice for each limit of an answer, by Result.finish_reason; it names the node's parameter."""


def to_msg(
    result: core_result.Result,
    header: Header,
    instruction: str,
    instruction_id: int,
    geometry_frame_id: str = '',
    geometry_message: str = '',
) -> InstanceArray:
    """Return the InstanceArray of a Result.

    Args:
        result: the engine's answer.
        header: header of the source image.
        instruction: the instruction as it was received.
        instruction_id: its number, see InstanceArray.msg.
        geometry_frame_id: frame of the instances' geometry.
        geometry_message: why no instance has a geometry.
    """
    msg = InstanceArray(
        header=header,
        instruction=valid_utf8(instruction),
        instruction_id=instruction_id,
        status=STATUS[result.status],
        message=valid_utf8('; '.join(filter(None, (cut_off_message(result), result.warning)))),
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


def cut_off_message(result: core_result.Result) -> str:
    """Return which limit ended the answer, and the node's parameter for it; '' if none did."""
    if not result.ended_by:
        return ''
    before = '' if result.phrases else ' before its first phrase was complete'
    return f'the answer was {result.ended_by}{before}: {REMEDIES[result.finish_reason]}'


def error_msg(
    message: str, header: Header, instruction: str, instruction_id: int, size: tuple[int, int] = (0, 0)
) -> InstanceArray:
    """Return an InstanceArray that reports why there is no answer.

    Args:
        message: human-readable reason.
        header: header of the source image.
        instruction: the instruction as it was received.
        instruction_id: its number, see InstanceArray.msg.
        size: (height, width) of the image in px, if it is known.
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


def result_from_msg(msg: InstanceArray) -> core_result.Result:
    """Return the Result that `msg` was made from, for overlays, tables and tracking.

    Geometry is left out, and the instances have no slots, which are not part of the message.
    """
    return core_result.Result(
        instruction=msg.instruction,
        answer=msg.answer,
        height=msg.height,
        width=msg.width,
        instances=tuple(
            core_result.Instance(
                rle_from_msg(instance.mask), instance.score, instance.phrase, slot=None, track_id=instance.track_id
            )
            for instance in msg.instances
        ),
        finish_reason='error' if msg.status == InstanceArray.STATUS_ERROR else 'stop',
        warning=msg.message,
        timings_ms={step: getattr(msg, f'{step}_ms') for step in core_result.STEPS},
    )


def rle_to_msg(mask: rle.Rle) -> Rle:
    """Return the Rle message of a mask."""
    return Rle(height=mask.height, width=mask.width, counts=byte_array('I', mask.counts))


def rle_from_msg(msg: Rle) -> rle.Rle:
    """Return the mask of an Rle message; raise ValueError if its counts do not add up to height x width."""
    return rle.Rle(msg.height, msg.width, np.frombuffer(msg.counts, np.uint32))


def label_image(instances: tuple[core_result.Instance, ...], height: int, width: int, header: Header) -> Image:
    """Return the label map of `instances` (see core.display.label_map) as a 16UC1 Image with the source's header."""
    return _image(label_map(instances, height, width), '16UC1', header)


def image_msg(rgb: np.ndarray, header: Header) -> Image:
    """Return `rgb`, [H, W, 3] uint8, as an rgb8 Image."""
    return _image(rgb, 'rgb8', header)


def depth_msg(depth: np.ndarray, header: Header) -> Image:
    """Return `depth`, [H, W] uint16 mm (0 = invalid) or float32 m, as a 16UC1 or 32FC1 Image (REP 118)."""
    return _image(depth, '16UC1' if depth.dtype == np.uint16 else '32FC1', header)


def byte_array(typecode: str, values: np.ndarray) -> array.array:
    """Copy `values`, C-contiguous and of the type that `typecode` names, into an array.array."""
    copy = array.array(typecode)
    copy.frombytes(values.data.cast('B'))
    return copy


def valid_utf8(text: str) -> str:
    """Return `text` with lone surrogates replaced by question marks, because rclpy cannot send them."""
    return text.encode('utf-8', 'replace').decode('utf-8')


def _image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
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


def _instance_to_msg(instance: core_result.Instance) -> Instance:
    # Fields are assigned, because a constructor makes the default of every field, also of those that it is given.
    message = Instance()
    x0, y0, x1, y1 = instance.box
    message.track_id = instance.track_id
    message.phrase = valid_utf8(instance.phrase)
    message.score = float(instance.score)
    roi = message.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = x0, y0, x1 - x0, y1 - y0
    message.mask = rle_to_msg(instance.mask)
    message.geometry_message = valid_utf8(instance.geometry_message)
    if instance.geometry is not None:
        message.has_geometry = True
        message.geometry = geometry_to_msg(instance.geometry)
    return message

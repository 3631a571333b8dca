"""ROS messages as trees, changed by structure within what their types can hold, and as serialized bytes."""

from __future__ import annotations

import array
import math
import struct
from typing import Any

import cv2
import numpy as np
from harness import pictures
from harness.mutations import BYTE_OPERATIONS, TREE_OPERATIONS, Change, change_bytes, change_tree

_RANGES = {
    **{f'int{bits}': (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f'uint{bits}': (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    'octet': (0, 255),
}
_CODES = {
    'float': 'f',
    'double': 'd',
    'int8': 'b',
    'uint8': 'B',
    'int16': 'h',
    'uint16': 'H',
    'int32': 'i',
    'uint32': 'I',
}
_CODES |= {'int64': 'q', 'uint64': 'Q'}
MOST_ITEMS = 2_000_000


def to_tree(message: Any) -> Any:
    """Return a message as a tree; arrays of bytes stay bytes."""
    tree = {}
    for name in message.get_fields_and_field_types():
        tree[name] = _value_to_tree(getattr(message, name))
    return tree


def _value_to_tree(value: Any) -> Any:
    if hasattr(value, 'get_fields_and_field_types'):
        return to_tree(value)
    if isinstance(value, array.array) and value.typecode == 'B':
        return value.tobytes()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, array.array, tuple)):
        return [_value_to_tree(each) for each in value]
    return value


def from_tree(cls: type, tree: Any) -> Any:
    """Return a message of class `cls` that is as near to the tree as its type allows."""
    message = cls()
    if not isinstance(tree, dict):
        return message
    for name, kind in message.get_fields_and_field_types().items():
        if name in tree:
            _assign(message, name, kind, tree[name])
    return message


def _assign(message: Any, name: str, kind: str, value: Any) -> None:
    current = getattr(message, name)
    if kind.startswith('sequence<') or kind.endswith(']'):
        item = kind.removeprefix('sequence<').rstrip('>').split('[')[0].split(',')[0]
        setattr(message, name, _items(item, value, current, message, name))
    elif hasattr(current, 'get_fields_and_field_types'):
        setattr(message, name, from_tree(type(current), value))
    else:
        setattr(message, name, _scalar(kind, value))


def _items(item: str, value: Any, current: Any, message: Any, name: str) -> Any:
    if isinstance(value, bytes) and item in ('uint8', 'octet', 'int8'):
        values: Any = value
    else:
        values = value if isinstance(value, list) else [value]
    values = values[:MOST_ITEMS]
    if item in _CODES:
        fixed = len(current) if isinstance(current, np.ndarray) else None
        if isinstance(values, bytes):
            return array.array('B', values)
        numbers = [_scalar(item, each) for each in values]
        if fixed is not None:
            numbers = (numbers + [0] * fixed)[:fixed]
            return np.array(numbers, dtype=current.dtype)
        return array.array(_CODES[item], numbers)
    if item in ('string', 'wstring', 'boolean') or item.startswith('string'):
        return [_scalar(item, each) for each in values]
    cls = item_class(message, item)
    return [from_tree(cls, each) for each in values[:10_000]]


def item_class(message: Any, item: str) -> type:
    """Return the class of a nested message from its name, package/Name."""
    import importlib

    package, name = item.split('/')[0], item.split('/')[-1]
    return getattr(importlib.import_module(f'{package}.msg'), name)


def _scalar(kind: str, value: Any) -> Any:
    if isinstance(value, (list, dict)):
        value = next(iter(value), 0) if isinstance(value, list) else 0
    if kind in _RANGES:
        low, high = _RANGES[kind]
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            number = 0 if value is None else low + 1
        return number if low <= number <= high else (low if number < low else high)
    if kind in ('float', 'double'):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return math.nan
        except OverflowError:
            return math.inf
        if kind == 'float' and math.isfinite(number) and abs(number) > 3.4e38:
            return math.inf
        return number
    if kind == 'boolean':
        return bool(value)
    text = value if isinstance(value, str) else str(value)
    return text.encode('utf-8', 'replace').decode().replace('\0', '')


def change_message(message: Any, changes: tuple[Change, ...]) -> Any:
    """Return the message with the changes; those of bytes are applied to its data, or else to its serialized form."""
    tree = to_tree(message)
    for change in changes:
        if change.operation in TREE_OPERATIONS:
            tree = change_tree(tree, change)
        elif change.operation in BYTE_OPERATIONS and isinstance(tree, dict) and isinstance(tree.get('data'), bytes):
            tree['data'] = change_bytes(tree['data'], change)
    return from_tree(type(message), tree)


def image_message(encoding: str, *, is_depth: bool = False) -> Any:
    """Return the picture, or its depth, as a valid message of an encoding."""
    from sensor_msgs.msg import CompressedImage

    if is_depth:
        return _depth_message(encoding)
    rgb = pictures.rgb()
    if encoding in ('jpeg', 'png'):
        files = pictures.color_files()
        data = files['rgb.jpg' if encoding == 'jpeg' else 'rgb.png']
        return _stamped(CompressedImage(format=encoding, data=array.array('B', data)))
    grey = rgb[..., 0]
    pixels = {
        'rgb8': rgb,
        'bgr8': rgb[..., ::-1],
        'mono8': grey,
        'mono16': grey.astype(np.uint16) * 257,
        '16UC1': grey.astype(np.uint16) * 100 + 1,
        'yuv422': np.stack([np.full_like(grey, 128), grey], axis=-1),
        'nv12': np.concatenate([grey, np.full_like(grey[: len(grey) // 2], 128)]),
        'bayer_rggb8': grey,
        'rgba16': np.dstack([rgb, np.full_like(grey, 255)]).astype(np.uint16) * 257,
    }[encoding]
    return raw_image(pixels, encoding, height=pictures.HEIGHT)


def raw_image(pixels: np.ndarray, encoding: str, *, height: int | None = None) -> Any:
    """Return an Image message of the pixels."""
    from sensor_msgs.msg import Image

    pixels = np.ascontiguousarray(pixels)
    return _stamped(
        Image(
            height=pixels.shape[0] if height is None else height,
            width=pixels.shape[1],
            encoding=encoding,
            step=pixels.strides[0],
            data=array.array('B', pixels.tobytes()),
        )
    )


def _depth_message(encoding: str) -> Any:
    from sensor_msgs.msg import CompressedImage

    depth = pictures.depth_mm()
    if encoding == '16UC1':
        return raw_image(depth, encoding)
    if encoding == '32FC1':
        return raw_image(depth.astype(np.float32) / 1000, encoding)
    if encoding.startswith('32FC1'):  # compressed_depth_image_transport: inverse depth, quantized
        a, b = 100.0, 0.5
        coded = np.rint(a / (depth / 1000) + b).astype(np.uint16)
        data = struct.pack('<iff', 0, a, b) + cv2.imencode('.png', coded)[1].tobytes()
        return _stamped(CompressedImage(format='32FC1; compressedDepth png', data=array.array('B', data)))
    png = cv2.imencode('.png', depth)[1].tobytes()
    if encoding.endswith('compressedDepth'):
        data = struct.pack('<iff', 0, 0.0, 0.0) + png
        return _stamped(CompressedImage(format='16UC1; compressedDepth png', data=array.array('B', data)))
    return _stamped(CompressedImage(format='16UC1; png compressed ', data=array.array('B', png)))


def _stamped(message: Any) -> Any:
    message.header.frame_id = 'camera_color_optical_frame'
    message.header.stamp.sec = 100
    return message

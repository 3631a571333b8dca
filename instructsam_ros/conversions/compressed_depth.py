"""Depth in a sensor_msgs/CompressedImage, as image_transport's plugins `compressedDepth` and `compressed` send it.

The format begins with the encoding of the depth that was compressed, which decides the unit (REP 118: 16UC1 is mm,
32FC1 is m). compressedDepth has a header of 12 bytes before the PNG or RVL stream: int32 and the two float32 A and B.
Only 32FC1 uses them: its stream holds inverse depth in 16 bits, and the depth is A / (value - B) m; 0 is "no
measurement". For 16UC1 the stream is the depth itself, and A and B hold anything.

JPEG is refused: it keeps 8 bits and blurs the edges of objects, so that every measured position would be wrong.
"""

import array
import re
import struct
import warnings
from typing import NamedTuple

import numpy as np
from sensor_msgs.msg import CompressedImage

from instructsam.core.files.image_header import open_image
from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam.core.text import one_line
from instructsam_ros.conversions.images import JPEG_START, PNG_START, ImageFormatError

HEADER = struct.Struct('<iff')
RVL_SIZE = struct.Struct('<II')  # columns, rows
FILE_STARTS = (PNG_START, b'II*\0', b'MM\0*')  # PNG, TIFF

MAX_RVL_NIBBLES = 10
"""Length of the longest number: 30 bits, which are more than any image has pixels."""

RVL_BYTES_PER_PIXEL = 4
"""More than any depth takes: at most 6 nibbles for the difference, and 2 for the lengths of runs of one pixel."""

RVL_NUMBERS_PER_PIXEL = 3
"""The most that any depth takes: the difference, and the lengths of two runs."""

RVL_PADDING = 24
"""The most zeros, of a nibble each, that fill up the stream."""

BLOCK_WORDS = 1 << 16
"""Words of an RVL stream that are split into numbers at once; it takes about 200 times as many bytes."""

MILLIMETRES = ('16UC1', 'mono16')
METRES = '32FC1'
ADVICE = 'publish compressedDepth, a 16-bit PNG or a raw Image'


class _Sizes(NamedTuple):
    """The sizes that are decoded: up to `max_megapixels`, and only `size` (height, width) if it is given."""

    max_megapixels: float
    size: tuple[int, int] | None

    def check(self, height: int, width: int, name: str) -> None:
        if height * width > self.max_megapixels * 1e6:
            raise ImageFormatError(
                f'{name}: its size is {width} x {height}, expected at most {self.max_megapixels:g} megapixels'
            )
        if self.size not in (None, (height, width)):
            raise ImageFormatError(
                f'{name}: depth is {height, width}, the image {self.size} (height, width): align depth to colour'
            )


def decode_depth(
    msg: CompressedImage, max_megapixels: float = MAX_MEGAPIXELS, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Return the depth along the optical axis, [H, W], as uint16 mm or float32 m (NaN: no measurement).

    Args:
        msg: The message.
        max_megapixels: Largest depth image that is decoded, by its header.
        size: The only size that is decoded, (height, width); None for any.

    Raises:
        ImageFormatError: It is not depth, is damaged or of another size; the message says what was found and what to
            do.
    """
    sizes = _Sizes(max_megapixels, size)
    name = f'depth in a CompressedImage of format {one_line(msg.format[:60])!r}'
    encoding = msg.format.split(';')[0].strip()
    if ';' in msg.format and encoding not in (*MILLIMETRES, METRES):
        raise ImageFormatError(f'{name}: its encoding is {encoding!r}, expected 16UC1 (mm) or 32FC1 (m)')
    content = bytes(msg.data)
    if 'compressedDepth' in msg.format or content.startswith(PNG_START, HEADER.size):
        return _decode_with_header(content, encoding, msg.format, sizes, name)
    values = _decode_file(content, sizes, name)
    if values.dtype == np.uint16 and encoding == METRES:
        raise ImageFormatError(
            f'{name}: 16-bit values cannot be metres, and the header of compressedDepth, which has their scale, is '
            f'missing; {ADVICE}'
        )
    if values.dtype == np.float32 and encoding in MILLIMETRES:
        raise ImageFormatError(f'{name}: its values are 32-bit floats, expected 16-bit mm; {ADVICE}')
    return values


def _decode_with_header(content: bytes, encoding: str, message_format: str, sizes: _Sizes, name: str) -> np.ndarray:
    """Decode what the plugin compressedDepth sends."""
    if content.startswith(PNG_START) and encoding in MILLIMETRES:
        # Some drivers omit the header, which says nothing here.
        return _decode_file(content, sizes, name)
    if len(content) <= HEADER.size:
        raise ImageFormatError(
            f'{name}: it has {len(content)} bytes, expected a header of {HEADER.size} and more; check its publisher'
        )
    codec = (re.findall(r'compressedDepth\s+(\w+)', message_format) or ['png'])[0]
    if codec not in ('png', 'rvl'):
        raise ImageFormatError(
            f'{name}: its codec is {codec!r}, expected png or rvl; set the parameter of its publisher'
        )
    stream = content[HEADER.size :]
    decode = _decode_rvl_stream if codec == 'rvl' else _decode_file
    values = decode(stream, sizes, name)
    if encoding in MILLIMETRES:
        return values
    if encoding != METRES:
        raise ImageFormatError(
            f'{name}: it does not begin with the encoding of the depth, 16UC1 (mm) or 32FC1 (m), such as '
            "'16UC1; compressedDepth png'; correct its publisher"
        )
    _, a, b = HEADER.unpack_from(content)
    if values.dtype != np.uint16 or not (np.isfinite([a, b]).all() and a > 0):
        raise ImageFormatError(
            f'{name}: inverse depth is 16-bit values with a scale A above 0 and an offset B, got {values.dtype}, '
            f'A {a:g}, B {b:g}; check its publisher'
        )
    return _from_inverse(values, a, b)


def _from_inverse(values: np.ndarray, a: float, b: float) -> np.ndarray:
    """Return A / (value - B) m as float32, NaN for the value 0 and where that is not a distance."""
    divisor = values.astype(np.float32) - np.float32(b)
    is_depth = (values > 0) & (divisor > 0)
    depth = np.full(values.shape, np.nan, np.float32)
    np.divide(np.float32(a), divisor, out=depth, where=is_depth)
    return depth


def _decode_file(content: bytes, sizes: _Sizes, name: str) -> np.ndarray:
    """Decode a PNG or TIFF to [H, W] uint16 or float32."""
    if content.startswith(JPEG_START):
        raise ImageFormatError(
            f'{name}: this is a JPEG, which loses the depth: it has 8 bits and blurs edges; {ADVICE} (image_transport: '
            'set the parameter of the publisher that ends in `.compressed.format` to png)'
        )
    if not content.startswith(FILE_STARTS):
        raise ImageFormatError(f'{name}: {len(content)} bytes that are neither PNG, TIFF nor RVL; {ADVICE}')
    try:
        with warnings.catch_warnings(), open_image(content, sizes.max_megapixels, ('PNG', 'TIFF')) as image:
            warnings.simplefilter('ignore')  # about odd metadata
            sizes.check(image.height, image.width, name)
            values = np.asarray(image)
    except ImageFormatError:
        raise
    except Exception as error:  # on broken files Pillow raises exceptions of many types
        raise ImageFormatError(f'{name}: the image is damaged or too large ({one_line(error)})') from error
    values = values.astype(values.dtype.newbyteorder('='), copy=False)  # TIFF files may be big-endian
    if values.dtype == np.int32 and content.startswith(PNG_START):
        values = values.astype(np.uint16)  # older releases of Pillow widen 16 bits
    if values.ndim != 2 or values.dtype not in (np.uint16, np.float32):
        channels = f' with {values.shape[2]} channels' if values.ndim > 2 else ''
        raise ImageFormatError(
            f'{name}: its pixels are {values.dtype}{channels}, which is a picture of depth; expected one channel of '
            f'16-bit mm or 32-bit m; {ADVICE}'
        )
    return values


def _decode_rvl_stream(stream: bytes, sizes: _Sizes, name: str) -> np.ndarray:
    columns, rows = RVL_SIZE.unpack(stream[: RVL_SIZE.size].ljust(RVL_SIZE.size, b'\0'))
    if not columns or not rows:
        raise ImageFormatError(f'{name}: its size is {columns} x {rows}; it is empty or truncated')
    sizes.check(rows, columns, name)
    words = stream[RVL_SIZE.size :]
    if len(words) > RVL_BYTES_PER_PIXEL * rows * columns + 8:
        raise ImageFormatError(f'{name}: {len(words)} bytes are more than {columns} x {rows} pixels can need')
    try:
        return decode_rvl(words, rows * columns).reshape(rows, columns)
    except ValueError as error:
        raise ImageFormatError(f'{name}: the RVL stream of {columns} x {rows} pixels is damaged: {error}') from error


# RVL


def decode_rvl(stream: bytes, pixels: int) -> np.ndarray:
    """Decode RVL, the lossless depth compression of Wilson (Fast Lossless Depth Image Compression, ISS 2017).

    The stream is a sequence of numbers. Each is written in groups of three bits, the lowest first, one group per
    nibble, whose highest bit says that more nibbles follow. Eight nibbles make a 32-bit word, little-endian, the first
    nibble in its highest bits. The numbers are, again and again: the length of a run of zeros, the length of a run of
    depths, and for each of these depths its difference to the depth before it, with the sign in the lowest bit.

    Why not a library: the published decoder is C++ inside compressed_depth_image_transport, and PyPI has none. Only the
    loop over the runs is in Python, the rest is NumPy: 640 x 480 pixels take about 30 ms.

    Args:
        stream: The words, without any header.
        pixels: Number of depths in the image.

    Returns:
        [pixels] uint16, 0 where there is no measurement.

    Raises:
        ValueError: The stream is truncated or does not describe `pixels` depths.
    """
    numbers = _rvl_numbers(stream, pixels)
    starts, lengths, first_pixels = _rvl_runs(numbers, pixels)
    deltas = numbers[_in_ranges(starts, lengths, numbers.size)]
    del numbers
    deltas = ((deltas >> 1) ^ -(deltas & 1)).astype(np.uint16)
    decoded = np.zeros(pixels, np.uint16)
    decoded[_in_ranges(first_pixels, lengths, pixels)] = np.cumsum(deltas, dtype=np.uint16)
    return decoded


def _rvl_numbers(stream: bytes, pixels: int) -> np.ndarray:
    """Return all numbers of the stream, [N] int32; the zeros that fill up the last word are among them."""
    words = np.frombuffer(stream, '<u4', len(stream) // 4)
    blocks = range(0, words.size, BLOCK_WORDS)
    count = sum(np.count_nonzero(_nibbles(words[at : at + BLOCK_WORDS]) < 8) for at in blocks)
    if count > RVL_NUMBERS_PER_PIXEL * pixels + RVL_PADDING:
        raise ValueError(f'it has {count} numbers, more than {pixels} pixels can need')
    numbers, done, rest = np.empty(count, np.int32), 0, np.empty(0, np.uint8)
    for at in blocks:
        nibbles = np.concatenate([rest, _nibbles(words[at : at + BLOCK_WORDS])])
        ends = np.flatnonzero(nibbles < 8)
        rest = nibbles[ends[-1] + 1 if ends.size else 0 :]
        starts = np.concatenate([[0], ends[:-1] + 1])[: ends.size]
        lengths = ends - starts + 1
        if max(lengths.max(initial=0), rest.size) > MAX_RVL_NIBBLES:
            raise ValueError(f'a number has more than {3 * MAX_RVL_NIBBLES} bits')
        found = np.zeros(ends.size, np.int32)
        for group in range(lengths.max(initial=0)):
            has_group = lengths > group
            bits = nibbles[starts[has_group] + group] & 7
            found[has_group] |= bits.astype(np.int32) << (3 * group)
        numbers[done : done + found.size] = found
        done += found.size
    return numbers


def _nibbles(words: np.ndarray) -> np.ndarray:
    """Return the nibbles of `words` [N] in the order of the stream, [8 N] uint8."""
    big_endian = words.astype('>u4').view(np.uint8)
    return np.stack([big_endian >> 4, big_endian & 15], axis=1).ravel()


def _rvl_runs(numbers: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (index of the first difference, length, first pixel) of every run of depths."""
    runs = array.array('i')  # a list would take ten times the memory for an image of noise
    view = numbers.data  # its elements are read faster than those of an array
    at = pixel = 0
    while pixel < pixels:
        if at + 2 > numbers.size:
            raise ValueError(f'it ends after {pixel} of {pixels} pixels')
        zeros, depths = view[at], view[at + 1]
        pixel += zeros
        at += 2
        runs.extend((at, depths, pixel))
        pixel += depths
        at += depths
        if not zeros + depths:
            raise ValueError(f'there is an empty run at pixel {pixel} of {pixels}')
    if pixel != pixels:
        raise ValueError(f'it describes {pixel} pixels, expected {pixels}')
    if at > numbers.size:
        raise ValueError(f'it ends after {numbers.size} of {at} numbers')
    starts, lengths, first_pixels = np.frombuffer(runs, np.int32).reshape(-1, 3).T
    return starts, lengths, first_pixels


def _in_ranges(starts: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """Return for each of `size` indices whether it is in a range [starts[i], starts[i] + lengths[i]); none overlap."""
    starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    edges = np.zeros(size + 1, np.int8)
    edges[starts] += 1
    edges[starts + lengths] -= 1
    return np.cumsum(edges[:-1], dtype=np.int8).view(bool)

"""Stage images: an image file or a frame of a video becomes a row, upright and with the figures that reject it."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from instructsam.core.errors import ImageError
from instructsam.core.files.image_file import ORIENTATION_TAG, read_image, write_image
from instructsam.core.files.image_header import open_image
from instructsam.core.files.regular_file import check_regular_file, read_regular_file
from instructsam.core.modes import MAX_MEGAPIXELS
from instructsam.core.storage import explained_storage_faults
from instructsam.core.text import shorten
from instructsam.train.data_engine.images.sources import Candidate
from instructsam.train.data_engine.rows import EngineImage, Rejection, Row, StageRecord

STAGE = 'images'
FOLDER = 'images'
"""Folder in that of the run, for pictures that are not files of their source: rotated images and frames of videos."""

SHARPNESS_SIDE = 512  # longer side of the picture whose sharpness is measured, px
HASH_SIDE = 32  # side of the picture whose cosine transform is hashed, px


@dataclass(frozen=True)
class ImageSettings:
    """Settings of stage images."""

    min_sharpness: float = 30.0  # variance of the Laplacian below which a picture counts as blurred; 0: all are kept
    min_side: int = 64  # shorter side, px
    duplicate_bits: int = 3  # bits of 64 in which the hashes of near duplicates differ at most; -1: all are kept
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if not 0 <= self.min_sharpness <= 1e6 or not 1 <= self.min_side <= 65535:
            raise ValueError(f'min_sharpness or min_side is out of range: {self.min_sharpness}, {self.min_side}')
        if not -1 <= self.duplicate_bits <= 16:
            raise ValueError(f'duplicate_bits must be from -1 to 16, got {self.duplicate_bits}')
        if not 0.001 <= self.max_megapixels <= 1000:
            raise ValueError(f'max_megapixels must be from 0.001 to 1000, got {self.max_megapixels}')


class InspectImages:
    """The first part of the stage as a function: candidate in, row out. Near duplicates are the second part.

    Args:
        run: Folder of the run.
        settings: Settings.
    """

    def __init__(self, run: Path, settings: ImageSettings) -> None:
        self._run = run
        self._settings = settings

    def __call__(self, candidate: Candidate) -> Row:
        """Return the row of a candidate; one that cannot be read is rejected.

        Raises:
            StorageError: A picture cannot be written.
        """
        start = time.perf_counter()
        row = self._row(candidate)
        return row.with_record(StageRecord(STAGE, seconds=time.perf_counter() - start))

    def _row(self, candidate: Candidate) -> Row:
        try:
            if candidate.frame is None:
                pixels, digest, is_rotated = _read_file(candidate.file, self._settings.max_megapixels)
            else:
                pixels, is_rotated = read_frame(candidate.file, candidate.frame), True
                digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        except (ImageError, OSError) as error:
            # The person's folder is not part of a row.
            reason = str(error).replace(str(candidate.file), candidate.origin)
            detail = shorten(f'{candidate.source.name}/{candidate.origin}: {reason}')
            return Row(candidate.order, None).with_rejections([Rejection(STAGE, 'images.unreadable', detail=detail)])
        found, limits = sharpness(pixels), self._settings
        rejections = []
        if min(pixels.shape[:2]) < limits.min_side:
            rejections.append(Rejection(STAGE, 'images.too_small', value=min(pixels.shape[:2]), limit=limits.min_side))
        if found < limits.min_sharpness:
            rejections.append(Rejection(STAGE, 'images.blurred', value=found, limit=limits.min_sharpness))
        path = candidate.name
        if is_rotated:
            path = f'{FOLDER}/{digest[:32]}.png'
            if not rejections:
                self._write(path, pixels)
        image = EngineImage(
            id=digest,
            path=path,
            in_run=is_rotated,
            height=pixels.shape[0],
            width=pixels.shape[1],
            source=candidate.source.name,
            licence=candidate.licence,
            origin=candidate.origin,
            sharpness=found,
            perceptual_hash=perceptual_hash(pixels),
        )
        return Row(candidate.order, image).with_rejections(rejections)

    def _write(self, path: str, pixels: np.ndarray) -> None:
        target = self._run / path
        with explained_storage_faults(target):
            target.parent.mkdir(exist_ok=True)  # without the run's folder, which is not made again if it was removed
        if not target.exists():
            write_image(target, pixels)


def _read_file(path: Path, max_megapixels: float) -> tuple[np.ndarray, str, bool]:
    """Return the upright picture, the SHA-256 of the file, and whether it is stored rotated."""
    pixels = read_image(path, max_megapixels)  # checks everything about the file
    content = read_regular_file(path)
    is_rotated = open_image(content, max_megapixels).getexif().get(ORIENTATION_TAG) in range(2, 9)
    return pixels, hashlib.sha256(content).hexdigest(), is_rotated


def read_frame(video: Path, frame: int) -> np.ndarray:
    """Return a frame of a video, [H, W, 3] uint8 RGB.

    Raises:
        ImageError: The video or the frame cannot be decoded.
        OSError: The file is not a regular one.
    """
    check_regular_file(video)
    capture = cv2.VideoCapture(str(video))
    try:
        capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
        has_frame, pixels = capture.read()
    except cv2.error as error:
        raise ImageError(f'{video}: frame {frame} cannot be decoded: {error}') from error
    finally:
        capture.release()
    if not has_frame or pixels is None:
        raise ImageError(f'{video}: frame {frame} cannot be decoded')
    return np.ascontiguousarray(pixels[..., ::-1])


def sharpness(pixels: np.ndarray) -> float:
    """Return the variance of the Laplacian of the grey picture, with its longer side reduced to SHARPNESS_SIDE."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = SHARPNESS_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return round(float(cv2.Laplacian(grey, cv2.CV_32F).var()), 3)


def perceptual_hash(pixels: np.ndarray) -> str:
    """Return 64 bits in hexadecimal: the signs of the lowest frequencies of the picture's cosine transform (pHash).

    The package ImageHash has the same for images of Pillow; it brings SciPy and PyWavelets for these lines.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])  # the first one is the brightness
    return np.packbits(bits).tobytes().hex()


class NearDuplicates:
    """The second part of the stage: rejects pictures that are like an earlier one. Rows come in their order.

    Hashes that differ in at most n bits are equal in one of n + 1 pieces, by which candidates are found.

    Args:
        bits: Largest number of bits; negative: nothing is rejected.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        bounds = np.linspace(0, 64, bits + 2).round().astype(int) if bits >= 0 else np.zeros(1, int)
        self._pieces = [(int(low), (1 << int(high - low)) - 1) for low, high in itertools.pairwise(bounds)]
        self._ids: dict[str, str] = {}  # id -> origin
        self._by_piece: dict[tuple[int, int], list[tuple[int, str]]] = {}  # -> (hash, origin)

    def add(self, row: Row) -> None:
        """Remember a row of an earlier run of the stage."""
        if row.image is not None and not row.is_rejected:
            code = int(row.image.perceptual_hash, 16)
            self._ids.setdefault(row.image.id, row.image.origin)
            for low, mask in self._pieces:
                self._by_piece.setdefault((low, code >> low & mask), []).append((code, row.image.origin))

    def __call__(self, row: Row) -> Row:
        """Return the row, rejected if an earlier one is the same or nearly the same."""
        if row.image is None or row.is_rejected or self._bits < 0:
            return row
        if (twin := self._ids.get(row.image.id)) is not None:
            return row.with_rejections([Rejection(STAGE, 'images.duplicate', detail=f'the same as {twin}')])
        code = int(row.image.perceptual_hash, 16)
        near = [
            ((code ^ other).bit_count(), origin)
            for low, mask in self._pieces
            for other, origin in self._by_piece.get((low, code >> low & mask), ())
        ]
        distance, origin = min(near, default=(65, ''))
        if distance <= self._bits:
            rejection = Rejection(
                STAGE, 'images.near_duplicate', value=distance, limit=self._bits, detail=f'nearly the same as {origin}'
            )
            return row.with_rejections([rejection])
        self.add(row)
        return row

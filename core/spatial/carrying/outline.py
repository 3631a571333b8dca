"""The outline of a mask: drawn once per image, wherever the object has moved to, as run lengths of the full image."""

from __future__ import annotations

import cv2
import numpy as np

from instructsam.core.rle import Rle

SIMPLIFICATION_PX = 0.6  # largest distance of the simplified outline from the original one, px of the full image
MAX_OUTLINES, MAX_VERTICES = 64, 1000  # the largest outlines of a mask, simplified further if they have more vertices
FRACTION_BITS = 3  # fractional bits of the coordinates that OpenCV draws with


class Outline:
    """The outlines of one mask, holes included, in px of the reduced image.

    Attributes:
        vertices: [M, 2] float32, x and y of all outlines.
        points: [N, 2] float32, x and y of points inside the mask, on a lattice; at least one.
        spacing: Distance of the lattice's points.
    """

    def __init__(self, mask: Rle, scale: np.ndarray, max_points: int, margin_px: float) -> None:
        """Trace a mask that is not empty.

        Args:
            mask: The mask at the size of the full image.
            scale: Full px per reduced px, x and y.
            max_points: Largest number of points.
            margin_px: Distance of the points from the outline, where the flow belongs to neither side.
        """
        crop, corner = np.ascontiguousarray(mask.crop()).view(np.uint8), np.array(mask.box[:2])
        outlines, _ = cv2.findContours(crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outlines = sorted(outlines, key=len, reverse=True)[:MAX_OUTLINES]
        tolerance_px = SIMPLIFICATION_PX
        simplified = [cv2.approxPolyDP(outline, tolerance_px, True)[:, 0] for outline in outlines]
        while sum(len(outline) for outline in simplified) > MAX_VERTICES:
            tolerance_px *= 2
            simplified = [cv2.approxPolyDP(outline, tolerance_px, True)[:, 0] for outline in outlines]
        self._ends = np.cumsum([len(outline) for outline in simplified])[:-1]
        self.vertices = ((np.concatenate(simplified) + corner + 0.5) / scale - 0.5).astype(np.float32)
        self.points, self.spacing = _lattice(crop, corner, scale, max_points, margin_px)

    def draw(
        self, vertices: np.ndarray, scale: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Draw the mask with its vertices moved to `vertices` [M, 2].

        Args:
            vertices: Where they are, px of the reduced image.
            scale: Full px per reduced px, x and y.
            size: Height and width of the full image.

        Returns:
            The mask [columns, rows] uint8, and x and y of its first pixel; None if it is outside of the image. x and y
            are exchanged so that its rows are the columns that run lengths count along.
        """
        full = (vertices + 0.5) * scale - 0.5
        low = np.maximum(np.floor(full.min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(full.max(axis=0)).astype(int) + 1, size[::-1])
        if (high <= low).any():
            return None
        crop = np.zeros(high - low, np.uint8)
        fixed = np.rint((full - low)[:, ::-1] * (1 << FRACTION_BITS)).astype(np.int32)
        cv2.fillPoly(crop, np.split(fixed, self._ends), 1, cv2.LINE_8, FRACTION_BITS)
        return crop, low


def cut(
    crop: np.ndarray,
    low: np.ndarray,
    scale: np.ndarray,
    positions: np.ndarray,
    is_hidden: np.ndarray,
    spacing: float,
) -> None:
    """Remove from a drawn mask, in place, what is nearer to hidden points than to visible ones.

    Args:
        crop: The mask as `Outline.draw` returns it.
        low: x and y of its first pixel.
        scale: Full px per reduced px, x and y.
        positions: Where the points are, [N, 2] px of the reduced image.
        is_hidden: [N] bool.
        spacing: Distance of the points, px of the reduced image.
    """
    # Cells of the size of the spacing cover the crop; a blur lets every point vote for the cells around it.
    cell = scale * spacing
    shape = np.ceil(np.array(crop.shape) / cell).astype(int) + 1
    index = np.floor((((positions + 0.5) * scale - 0.5) - low) / cell).astype(int)
    is_inside = ((index >= 0) & (index < shape)).all(axis=1)
    votes = np.zeros((*shape, 2), np.float32)
    np.add.at(votes, tuple(index[is_inside].T), np.stack([is_hidden, ~is_hidden], axis=1)[is_inside].astype(np.float32))
    votes = cv2.GaussianBlur(votes, (7, 7), 1.2)
    margin = (votes[..., 0] - votes[..., 1]) / (votes.sum(axis=2) + 1e-3)
    size = np.rint(shape * cell).astype(int)
    margin = cv2.resize(margin, tuple(size[::-1]), interpolation=cv2.INTER_LINEAR)
    crop[margin[: crop.shape[0], : crop.shape[1]] > 0] = 0


def encode(crop: np.ndarray, low: np.ndarray, size: tuple[int, int]) -> Rle | None:
    """Return the run lengths of a drawn mask in an image of `size` (height, width); None if it is empty."""
    height, width = size
    columns, rows = crop.shape
    padded = np.zeros((columns, rows + 1), np.uint8)  # so that no run continues in the next column
    padded[:, :rows] = crop
    flat = np.concatenate([[0], padded.ravel()]).astype(np.uint8)
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if not len(edges):
        return None
    column, row = np.divmod(edges, rows + 1)
    bounds = (column + low[0]) * height + row + low[1]
    if rows == height:  # A run that reaches the bottom may continue at the top of the next column.
        joint = 2 * np.flatnonzero(bounds[1:-1:2] == bounds[2::2]) + 1
        bounds = np.delete(bounds, np.concatenate([joint, joint + 1]))
    counts = np.diff(bounds, prepend=0, append=height * width)
    return Rle(height, width, counts if counts[-1] else counts[:-1])


def _lattice(
    crop: np.ndarray, corner: np.ndarray, scale: np.ndarray, max_points: int, margin_px: float
) -> tuple[np.ndarray, float]:
    """Return points [N, 2] inside a mask and their spacing, px of the reduced image."""
    size = np.maximum(np.rint(np.array(crop.shape[::-1]) / scale).astype(int), 1)
    reduced = cv2.resize(crop * np.uint8(255), tuple(size), interpolation=cv2.INTER_AREA) > 127
    depth = cv2.distanceTransform(np.pad(reduced, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    inside = depth > min(margin_px, 0.5 * float(depth.max()))  # a narrow object keeps the middle of it
    if not inside.any():  # The mask is thinner than a pixel: take the pixel that it covers most.
        cover = cv2.resize(crop.astype(np.float32), tuple(size), interpolation=cv2.INTER_AREA)
        inside[np.unravel_index(cover.argmax(), inside.shape)] = True
    spacing = max(1, int(np.ceil((inside.sum() / max_points) ** 0.5)))
    rows, columns = np.nonzero(inside)
    middle = len(rows) // 2
    chosen = (rows - rows[middle]) % spacing + (columns - columns[middle]) % spacing == 0
    cells = np.stack([columns[chosen], rows[chosen]], axis=1)
    full = (cells + 0.5) * (np.array(crop.shape[::-1]) / size) - 0.5 + corner
    return ((full + 0.5) / scale - 0.5).astype(np.float32), float(spacing)

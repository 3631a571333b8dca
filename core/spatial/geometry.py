"""From a mask and a depth image to where the object is and how large: points, and a box that stands on its support.

Only an object's near side is seen. Its box is found with the help of what it stands on, a plane that is fitted to the
depth around the mask: the box has the plane's normal as its third axis, reaches from the plane to the highest point,
and its footprint is the smallest rectangle around all points seen from above. All in the camera's optical frame (REP
103: x right, y down, z forward), in metres. Everything is done within the mask's own window, and fits take a part of
the points, so that ten instances cost some milliseconds.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from scipy.spatial import cKDTree

from instructsam.core.errors import GeometryError
from instructsam.core.rle import Rle
from instructsam.core.spatial.camera_model import CameraModel

__all__ = ['CameraModel', 'Geometry', 'GeometryError', 'check_depth', 'locate', 'measure']

AROUND_PX = (3, 20)  # the ring around a mask in which its support is looked for
AROUND_M = 0.3  # the same before and behind it: about as high as things on tables are
JUMP = 0.03  # of the depth: neighbours further apart lie on different things
TRIPLES, RING_POINTS = 64, 250  # of the plane's fit
NEAR_M = 0.006  # of a plane: what belongs to it
SUPPORT_SHARE = 0.35  # of the ring that must be near the plane
FLOOR_M = 0.004  # points lower than this over the support are the support's, where the object is not that thin
TOP, BOTTOM = 98, 2  # percentiles, for a few outliers
PIECE_SHARE, PIECE_GAP_M = 0.2, 0.02  # of the largest piece of an object, and to it, for another one to belong to it
LEAST_POINTS, ENOUGH_POINTS, EDGE_POINTS = 12, 1500, 800  # for a fit, which takes every n-th of more
MOST_PX = 60_000  # of a window: every n-th row and column of a larger one
COARSE_PX = 10_000  # the same for the ring
CHOICES = np.random.default_rng(0).random((TRIPLES, 3))  # always the same, so that results are
SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an object is. The columns of `rotation` are its box's axes: length, width, height, as in `size_m`."""

    surface: 'Surface'  # what is seen of it
    center: np.ndarray  # [3] m, of the box
    rotation: np.ndarray  # [3, 3], right-handed; the third axis points away from the support
    size_m: np.ndarray  # [3], of the box: length >= width, height over the support
    visible_m: np.ndarray  # [3], what is seen of it along these axes
    centroid: np.ndarray  # [3] m, mean of the points: on the near side of the object, not in its middle
    valid: float  # share of the mask's pixels that have a depth, 0 to 1
    has_support: bool  # false: nothing flat was seen around it, and the box is that of the visible points alone

    @property
    def points(self):
        """[N, 3] float32 m of every usable pixel of the mask, of a large one every n-th row and column; edges of depth
        and what is as low as the support are none. Worked out when it is first asked for.
        """
        return self.surface.points

    @property
    def pixels(self):
        """[N], where in the image each of the points is seen: row * width + column."""
        return self.surface.pixels

    def moved(self, rotation, translation):
        """The same in another frame: points become rotation [3, 3] @ point + translation [3] m."""
        return replace(
            self,
            surface=self.surface.moved(rotation, translation),
            center=rotation @ self.center + translation,
            rotation=rotation @ self.rotation,
            centroid=rotation @ self.centroid + translation,
        )

    def to_json(self):
        """A dict of plain types, without the points but for their number."""
        return {
            'center_m': self.center.tolist(),
            'size_m': self.size_m.tolist(),
            'rotation': self.rotation.tolist(),
            'visible_m': self.visible_m.tolist(),
            'centroid_m': self.centroid.tolist(),
            'points': self.surface.count,
            'valid': self.valid,
            'has_support': self.has_support,
        }


def locate(result, depth, camera):
    """`result` with the geometry of each instance, or the reason in its geometry_message.

    depth and camera as in `measure`. Raises GeometryError where they do not fit the image at all.
    """
    check_depth(depth, camera, (result.height, result.width))
    located = []
    for instance in result.instances:
        try:
            located.append(replace(instance, geometry=measure(instance.mask, depth, camera), geometry_message=''))
        except GeometryError as error:
            located.append(replace(instance, geometry=None, geometry_message=str(error)))
    return replace(result, instances=tuple(located))


def measure(mask, depth, camera):
    """The Geometry of one mask.

    mask: an Rle or [H, W] bool; depth: [H, W] along the optical axis, floating m (0 or not finite: none) or uint16 mm
    (0: none); camera: a CameraModel. Raises GeometryError: sizes, an empty mask, or too little depth on it.
    """
    rle = mask if isinstance(mask, Rle) else Rle.encode(mask)
    check_depth(depth, camera, (rle.height, rle.width))
    rows, columns, part = _window(rle)  # with a step where it is large
    depth = depth[rows, columns]
    seen = _metres(depth)
    has_depth = seen > 0
    chosen = has_depth & part
    valid = np.count_nonzero(chosen) / np.count_nonzero(part)
    chosen &= ~_torn(depth if depth.dtype == np.uint16 else seen, chosen)
    rays = [axis[rows, columns] for axis in camera.rays]
    surface = Surface(seen, chosen, rays, rows, columns, rle.width)
    if surface.count < LEAST_POINTS:
        raise GeometryError(f'{100 * valid:.0f} % of the mask have a depth, {surface.count} usable points: too little')
    far, near = _range(seen[surface.spread])
    plane = _support(seen, part, (max(0, near - AROUND_M), far + AROUND_M), rays, rows.step)
    if plane is not None:
        normal, offset = plane
        heights = np.float32(normal[0]) * rays[0]
        heights += np.float32(normal[1]) * rays[1] + np.float32(normal[2])
        heights *= seen
        heights += np.float32(offset)
        high, _ = _range(heights[surface.spread])
        over_it = replace(surface, chosen=chosen & (heights > min(FLOOR_M, 0.25 * high)))
        if over_it.count >= LEAST_POINTS:
            return _standing(_one_thing(over_it), plane, valid)
    return _floating(_one_thing(surface), valid)


@dataclass(frozen=True, eq=False)
class Surface:
    """The pixels of a window of the image that belong to an object: what is needed to make points of them."""

    depth: np.ndarray  # [h, w] float32 m
    chosen: np.ndarray  # [h, w] bool
    rays: list  # of x and y, [h, w] each, see CameraModel
    rows: slice  # of the window in the image, with a step
    columns: slice
    width: int  # px, of the image
    rotation: np.ndarray | None = None  # to another frame
    translation: np.ndarray | None = None

    @cached_property
    def count(self):
        return int(np.count_nonzero(self.chosen))

    @cached_property
    def points(self):
        """[N, 3] float32 m."""
        found = _points(self.depth, np.nonzero(self.chosen), self.rays)
        if self.rotation is None:
            return found
        return found @ self.rotation.astype(np.float32).T + self.translation.astype(np.float32)

    @property
    def pixels(self):
        """[N] row * width + column."""
        y, x = np.nonzero(self.chosen)
        return (self.rows.start + y * self.rows.step) * self.width + self.columns.start + x * self.columns.step

    @cached_property
    def spread(self):
        """Some of the pixels, over all of them: (rows [M], columns [M]) in the window."""
        return _some(self.chosen, self.count)

    def some(self):
        """([M, 3] m, [K, 3] m) before any `moved`: every n-th point, and those among which a hull's corners are."""
        spread = _points(self.depth, self.spread, self.rays)
        outline = self.chosen & ~cv2.erode(self.chosen.view(np.uint8), SQUARE).view(bool)
        edge = np.flatnonzero(outline)
        edge = np.divmod(edge[:: 1 + len(edge) // EDGE_POINTS], outline.shape[1])
        edge = _points(self.depth, edge, self.rays)
        return spread, np.concatenate([edge, spread[::3]])

    def moved(self, rotation, translation):
        if self.rotation is not None:
            rotation, translation = rotation @ self.rotation, rotation @ self.translation + translation
        return replace(self, rotation=rotation, translation=translation)


def _one_thing(surface):
    """The Surface without bits that are neither large nor near its large pieces in space: of a mask that runs over the
    object's edge, or has islands elsewhere, they lie on other things.
    """
    outlines, nesting = cv2.findContours(surface.chosen.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    piece_of = np.array([index if outer < 0 else outer for index, (*_, outer) in enumerate(nesting[0])])  # of a hole
    areas = np.array([cv2.contourArea(outline) for outline in outlines])[piece_of]
    is_bit = areas < PIECE_SHARE * areas.max()
    if not is_bit.any():
        return surface

    def points(chosen):
        x, y = np.concatenate([outlines[index] for index in chosen])[:, 0].T
        return _points(surface.depth, (y, x), surface.rays)

    bits = np.flatnonzero(is_bit & (piece_of == np.arange(len(outlines))))
    gaps_m, _ = cKDTree(points(np.flatnonzero(~is_bit))).query(points(bits), distance_upper_bound=PIECE_GAP_M)
    starts = np.cumsum([0, *(len(outlines[bit]) for bit in bits[:-1])])
    chosen = surface.chosen.copy()
    for bit in bits[np.isinf(np.minimum.reduceat(gaps_m, starts))]:
        cv2.drawContours(chosen.view(np.uint8), outlines, bit, 0, cv2.FILLED)
    return replace(surface, chosen=chosen)


def _metres(depth):
    """A float32 copy, 0 where there is no depth."""
    if depth.dtype == np.uint16:
        return depth * np.float32(0.001)
    depth = depth.astype(np.float32)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth


def _range(values):
    """What TOP % of the values do not exceed, and BOTTOM %."""
    high, low = (len(values) - 1) * TOP // 100, (len(values) - 1) * BOTTOM // 100
    ordered = np.partition(values, (low, high))
    return float(ordered[high]), float(ordered[low])


def _some(chosen, count):
    """(rows, columns) of the chosen pixels of a window, of every n-th row and column where they are many."""
    step = max(1, round(np.sqrt(count / ENOUGH_POINTS)))
    rows, columns = np.nonzero(chosen[::step, ::step])
    return rows * step, columns * step


def check_depth(depth, camera, size):
    """Raises GeometryError where depth [H, W] or camera are not those of an image of `size` (height, width)."""
    if depth.shape != size:
        raise GeometryError(f'depth is {depth.shape}, the image {size} (height, width): align depth to colour')
    if (camera.height, camera.width) != size:
        raise GeometryError(
            f'the camera info is of {(camera.height, camera.width)}, the image {size} (height, width): give the one '
            'that belongs to the image'
        )


def _window(rle):
    """Rows and columns of the mask with the ring around it, as slices, and the mask there; of a large one every n-th
    row and column. GeometryError: empty.
    """
    ends = np.cumsum(rle.counts, dtype=np.int64)
    starts = (ends - rle.counts)[1::2]
    ends = ends[1::2]
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not starts.size:
        raise GeometryError('the mask is empty')
    first, last = starts // rle.height, (ends - 1) // rle.height
    is_tall = last > first  # on to the next column: through the lowest row and the highest
    top = 0 if is_tall.any() else int((starts % rle.height).min())
    bottom = rle.height if is_tall.any() else int(((ends - 1) % rle.height).max()) + 1
    margin = AROUND_PX[1] + 1
    rows = slice(max(0, top - margin), min(rle.height, bottom + margin))
    columns = slice(max(0, int(first[0]) - margin), min(rle.width, int(last[-1]) + 1 + margin))
    height = rows.stop - rows.start
    if is_tall.any():
        rows, height = slice(0, rle.height), rle.height
    first_px = starts - first * rle.height - rows.start + (first - columns.start) * height
    bounds = np.stack([first_px, first_px + ends - starts], axis=1).ravel()
    shape = columns.stop - columns.start, height
    lengths = np.diff(bounds, prepend=0, append=shape[0] * shape[1])
    inside = np.repeat(np.uint8(np.arange(len(lengths)) & 1), lengths).reshape(shape)
    step = int(np.ceil(np.sqrt(inside.size / MOST_PX)))
    part = cv2.transpose(inside[::step, ::step]).view(bool)  # in a fifth of numpy's time
    return slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step), part


def _torn(depth, inside):
    """Pixels at an edge of depth within the mask, or next to one: their depth may be of neither side."""
    above = depth.dtype.type(65535 if depth.dtype == np.uint16 else 1e9)
    highest = cv2.dilate(depth * inside, SQUARE)
    lowest = cv2.erode(np.where(inside, depth, above), SQUARE)
    return highest > lowest * np.float32(1 + JUMP)


def _points(depth, pixels, rays):
    """[N, 3] m of `pixels`, (rows, columns), of a window with these rays."""
    z = depth[pixels]
    points = np.empty((len(z), 3), np.float32)
    np.multiply(rays[0][pixels], z, out=points[:, 0])
    np.multiply(rays[1][pixels], z, out=points[:, 1])
    points[:, 2] = z
    return points


def _support(depth, mask, limits, rays, pixel):
    """(normal [3] towards the camera, offset m) of the plane around the mask; None where most of it is not flat.

    limits: (m, m) between which its depth is: what is far behind or before the object does not carry it. pixel: how
    many of the image's are one here.
    """
    step = int(np.clip(np.sqrt(mask.size / COARSE_PX), 1, 4))
    away = cv2.distanceTransform((~mask[::step, ::step]).view(np.uint8), cv2.DIST_L2, 3)
    seen = depth[::step, ::step]
    least, most = np.divide(AROUND_PX, step * pixel)
    ring = (away > least) & (away <= most) & (seen > limits[0]) & (seen < limits[1])
    y, x = _some(ring, np.count_nonzero(ring))
    around = _points(depth, (y * step, x * step), rays).astype(np.float64)
    if len(around) < LEAST_POINTS:
        return None
    tried = around[(CHOICES * len(around)).astype(int)]
    normals = _cross((tried[:, 1] - tried[:, 0]).T, (tried[:, 2] - tried[:, 0]).T).T
    lengths = np.sqrt((normals**2).sum(axis=1))
    span = lengths > 1e-12  # three points that lie on no line
    if not span.any():
        return None
    normals = normals[span] / lengths[span, None]
    offsets = (normals * tried[span, 0]).sum(axis=1)
    some = around[:: max(1, len(around) // RING_POINTS)]
    best = np.count_nonzero(np.abs(some @ normals.T - offsets) < NEAR_M, axis=0).argmax()
    near = np.abs(around @ normals[best] - offsets[best]) < NEAR_M
    if near.mean() < SUPPORT_SHARE:
        return None
    around = around[near]
    middle = _mean(around)
    around -= middle
    normal = np.linalg.eigh(around.T @ around)[1][:, 0]
    normal = -normal if normal @ middle > 0 else normal
    return normal, -normal @ middle


def _mean(points):
    """Of points [N, 3], as numpy has it in a tenth of the time."""
    return np.full(len(points), 1 / len(points)) @ points


def _cross(a, b):
    """The cross product of vectors [3] or [3, N]; numpy's own takes ten times as long for so few."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _standing(surface, plane, valid):
    """The Geometry of an object on a plane."""
    normal, offset = plane
    across = np.array([normal[1], -normal[0], 0.0])  # level in the image
    if across @ across < 1e-6:  # seen from straight above
        across = np.array([1.0, 0.0, 0.0])
    across -= normal * (normal @ across)
    across /= np.sqrt(across @ across)
    basis = np.stack([across, _cross(normal, across)], axis=1)
    points, corners = surface.some()
    (x, y), (long, short), angle = cv2.minAreaRect(cv2.convexHull(corners @ basis.astype(np.float32)))
    turn = np.deg2rad(angle)
    axes = basis @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if long < short:
        axes, long, short = np.stack([axes[:, 1], -axes[:, 0]], axis=1), short, long
    top, bottom = _range(points @ normal.astype(np.float32) + np.float32(offset))
    return Geometry(
        surface=surface,
        center=basis @ [x, y] + normal * (top / 2 - offset),
        rotation=np.column_stack([axes, normal]),
        size_m=np.array([long, short, top]),
        visible_m=np.array([long, short, top - bottom]),
        centroid=_mean(points),
        valid=valid,
        has_support=True,
    )


def _floating(surface, valid):
    """The Geometry of visible points alone: their principal axes, the third one towards the camera."""
    some = surface.some()[0].astype(np.float64)
    middle = some.mean(axis=0)
    axes = np.linalg.eigh(np.cov((some - middle).T))[1][:, ::-1]
    if axes[:, 2] @ middle > 0:
        axes[:, 2] *= -1
    axes[:, 1] = _cross(axes[:, 2], axes[:, 0])
    high, low = np.array([_range(along) for along in ((some - middle) @ axes).T]).T
    return Geometry(
        surface=surface,
        center=middle + axes @ ((low + high) / 2),
        rotation=axes,
        size_m=high - low,
        visible_m=high - low,
        centroid=middle,
        valid=valid,
        has_support=False,
    )

"""Locates segmented objects in 3D: points, and an oriented box that stands on the supporting plane.

Only the near side of an object is seen. Its box is completed by the plane that is fitted to the depth around the mask.
Everything is in m, in the camera's optical frame (REP 103: x right, y down, z forward).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from instructsam.core.errors import GeometryError
from instructsam.core.result import Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.oriented_box import OrientedBox, box_of_points, box_on_plane, pca_box
from instructsam.core.spatial.support_plane import Plane, PlaneFit, fit_scene_normals, fit_support_plane
from instructsam.core.spatial.surface import (
    Surface,
    SurfaceParams,
    Surroundings,
    crop_around,
    depth_edges,
    drop_detached_fragments,
    surroundings_of,
    to_meters,
)
from instructsam.core.spatial.vectors import robust_extent

__all__ = ['CameraModel', 'Geometry', 'GeometryError', 'check_depth', 'locate', 'measure']

PLANE_FIT, SURFACE_PARAMS = PlaneFit(), SurfaceParams()

FARTHEST_M = 100.0
"""Median of floating-point depth above which it is not in m: beyond the range of depth cameras."""

NOT_EVEN_MM = 60_000
"""Values from here on are implausible in m and in mm: drivers send them where there is no depth."""

UNIT_SAMPLES = 15_000
"""Approximate number of pixels whose median is taken."""

NEAREST_MM = 50
"""Median of 16-bit depth below which it is not in mm: depth cameras begin at about 70 mm."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Position, orientation and size of an object. The columns of `rotation` are the box's axes, as in `size_m`."""

    surface: Surface  # the visible part
    surroundings: Surroundings  # seen around its crop, in the camera's optical frame
    center: np.ndarray  # [3] m, center of the box
    rotation: np.ndarray  # [3, 3], right-handed; the third axis points away from the supporting plane
    size_m: np.ndarray  # [3], size of the box: length >= width, height above the supporting plane
    visible_m: np.ndarray  # [3], extent of the visible part along these axes
    centroid: np.ndarray  # [3] m, mean of the points: on the near side of the object, not in its middle
    valid: float  # share of the mask's pixels that have a depth, 0 to 1
    has_support: bool  # False: no plane was found that it stands on, and the box is that of the visible points alone

    @property
    def points(self) -> np.ndarray:
        """Points [N, 3] float32 m of the mask's usable pixels, computed on first access.

        A large mask is sampled at every n-th row and column. Depth discontinuities and pixels at the height of the
        supporting plane are left out.
        """
        return self.surface.points

    @property
    def pixels(self) -> np.ndarray:
        """The pixel [N] of the image that shows each of the points: row * width + column."""
        return self.surface.pixels

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> Geometry:
        """Return the geometry in another frame, where a point is rotation [3, 3] @ point + translation [3] m."""
        return replace(
            self,
            surface=self.surface.moved(rotation, translation),
            center=rotation @ self.center + translation,
            rotation=rotation @ self.rotation,
            centroid=rotation @ self.centroid + translation,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain types, with the number of points instead of the points."""
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


def locate(result: Result, depth: np.ndarray, camera: CameraModel) -> Result:
    """Return the result with the geometry of each instance, or the reason it has none in its geometry_message.

    Args:
        result: Result for the image that depth and camera belong to.
        depth: As in `measure`.
        camera: As in `measure`.

    Raises:
        GeometryError: depth or camera have another size than the image, or depth is in another unit.
    """
    check_depth(depth, camera, (result.height, result.width))
    check_units(depth)
    if not result.instances:
        return result
    normals = _scene_normals([instance.mask for instance in result.instances], depth, camera, PLANE_FIT)
    located = []
    for instance in result.instances:
        try:
            geometry = measure(instance.mask, depth, camera, scene_normals=normals)
            located.append(replace(instance, geometry=geometry, geometry_message=''))
        except GeometryError as error:
            located.append(replace(instance, geometry=None, geometry_message=str(error)))
    return replace(result, instances=tuple(located))


def measure(
    mask: Rle | np.ndarray,
    depth: np.ndarray,
    camera: CameraModel,
    *,
    scene_normals: Sequence[np.ndarray] | None = None,
    plane_fit: PlaneFit = PLANE_FIT,
    surface_params: SurfaceParams = SURFACE_PARAMS,
) -> Geometry:
    """Return the geometry of one object.

    Args:
        mask: Run lengths, or [H, W] bool.
        depth: Depth [H, W] along the optical axis: float m (under 0.001, not finite or from 1000 on: none), or uint16
            mm (0 or 65535: none).
        camera: Camera model of the image that both belong to.
        scene_normals: Normals of the large planes outside the object, see `fit_scene_normals`; None: they are fitted.
        plane_fit: Parameters of the fit of the supporting plane.
        surface_params: Parameters of the visible surface.

    Raises:
        GeometryError: The sizes differ, the mask is empty, or too few of its pixels have a depth.
    """
    rle = mask if isinstance(mask, Rle) else Rle.encode(mask)
    check_depth(depth, camera, (rle.height, rle.width))
    crop = crop_around(rle, margin_px=plane_fit.ring_px[1] + 1, max_px=surface_params.max_crop_px)
    raw_depth = depth[crop.rows, crop.columns].copy()  # contiguous, because it is read several times
    depth_m = to_meters(raw_depth)
    rays = camera.rays[0][crop.rows, crop.columns], camera.rays[1][crop.rows, crop.columns]
    if not camera.is_complete:
        depth_m[np.isnan(rays[0])] = 0
    has_depth = (depth_m > 0) & crop.mask
    valid = np.count_nonzero(has_depth) / np.count_nonzero(crop.mask)
    edges = depth_edges(raw_depth if depth.dtype == np.uint16 else depth_m, has_depth, surface_params.depth_jump)
    surface = Surface(depth_m, has_depth & ~edges, rays, crop.rows, crop.columns, rle.width, surface_params)
    if surface.count < surface_params.min_points:
        raise GeometryError(
            f'{100 * valid:.0f} % of the mask has a depth, {surface.count} usable points: too few to locate the object'
        )
    farthest, nearest = robust_extent(depth_m[surface.sample])
    surroundings = surroundings_of(
        crop,
        depth,
        camera.rays,
        depth_range_m=(nearest, farthest),
        focal_px=float(max(camera.intrinsics[0, 0], camera.intrinsics[1, 1])),
        params=surface_params,
    )
    if scene_normals is None:
        scene_normals = _scene_normals([rle], depth, camera, plane_fit)
    plane = fit_support_plane(
        depth_m,
        crop.mask,
        rays,
        depth_range_m=(max(0, nearest - plane_fit.depth_margin_m), farthest + plane_fit.depth_margin_m),
        step=crop.rows.step,
        points=surface.sampled_points,
        scene_normals=scene_normals,
        params=plane_fit,
    )
    if plane is not None:
        above = _above_plane(surface, plane)
        if above.count >= surface_params.min_points:
            surface = drop_detached_fragments(above)
            return _geometry(surface, surroundings, box_on_plane(surface, plane), valid, has_support=True)
    surface = drop_detached_fragments(surface)
    box = box_of_points(surface, scene_normals[0]) if scene_normals else pca_box(surface)
    return _geometry(surface, surroundings, box, valid, has_support=False)


def check_depth(depth: np.ndarray, camera: CameraModel, size: tuple[int, int]) -> None:
    """Raise GeometryError if depth [H, W] or camera have another size than the image, (height, width)."""
    check_alignment(depth, size)
    if (camera.height, camera.width) != size:
        raise GeometryError(
            f'the camera info is of {(camera.height, camera.width)}, the image {size} (height, width): give the one '
            'that belongs to the image'
        )


def check_alignment(depth: np.ndarray, size: tuple[int, int]) -> None:
    """Raise GeometryError if depth [H, W] has another size than the image, (height, width)."""
    if depth.shape != size:
        raise GeometryError(f'depth is {depth.shape}, the image {size} (height, width): align depth to colour')


def check_units(depth: np.ndarray) -> None:
    """Raise GeometryError if the median of depth [H, W] shows that it is in another unit than `measure` expects."""
    step = max(1, round(math.sqrt(depth.size / UNIT_SAMPLES)))
    sample = depth[::step, ::step]
    sample = sample[(sample > 0) & (sample < NOT_EVEN_MM)]  # also false for NaN
    if not sample.size:
        return
    median = float(np.median(sample))
    if depth.dtype == np.uint16 and median < NEAREST_MM:
        raise GeometryError(
            f'the median of the 16-bit depth is {median:.0f}, so it is probably not in mm, as REP 118 wants: convert '
            'it. If the scene is as near as that, give depth as 32FC1 in m'
        )
    if depth.dtype != np.uint16 and median > FARTHEST_M:
        raise GeometryError(
            f'the median of the floating-point depth is {median:.0f}, so it is probably in mm and not in m, as REP 118 '
            'wants: convert it'
        )


def _scene_normals(masks: Sequence[Rle], depth: np.ndarray, camera: CameraModel, params: PlaneFit) -> list[np.ndarray]:
    """Return the normals of the scene's planes, see `fit_scene_normals`, found outside the masks in a coarse image."""
    step = max(1, round(np.sqrt(depth.size / params.ring_points)))
    rows, columns = np.mgrid[step // 2 : depth.shape[0] : step, step // 2 : depth.shape[1] : step]
    depth_m, rays = to_meters(depth[rows, columns]), (camera.rays[0][rows, columns], camera.rays[1][rows, columns])
    # The runs go down the columns, and every second one belongs to the mask.
    for mask in masks:
        depth_m[np.searchsorted(np.cumsum(mask.counts), columns * mask.height + rows, side='right') % 2 == 1] = 0
    depth_m[np.isnan(rays[0])] = 0
    return fit_scene_normals(depth_m, rays, params)


def _above_plane(surface: Surface, plane: Plane) -> Surface:
    """Return the surface without the points of the supporting plane that the mask includes.

    Nothing tells the points of an object that is level with the plane from the plane's: they all stay.
    """
    normal, params = plane.normal, surface.params
    heights = np.float32(normal[0]) * surface.rays[0]
    heights += np.float32(normal[1]) * surface.rays[1] + np.float32(normal[2])
    heights *= surface.depth
    heights += np.float32(plane.offset_m)
    top, _ = robust_extent(heights[surface.sample])
    if top <= 0:
        return surface
    return replace(surface, mask=surface.mask & (heights > min(params.floor_m, params.floor_share * top)))


def _geometry(
    surface: Surface, surroundings: Surroundings, box: OrientedBox, valid: float, has_support: bool
) -> Geometry:
    return Geometry(
        surface,
        surroundings,
        box.center,
        box.rotation,
        box.size_m,
        box.visible_m,
        box.centroid,
        valid,
        has_support,
    )

"""Random cameras: 3D points are projected by OpenCV, quantised to pixels and depth, located, and compared."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis')

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from instructsam.core.errors import GeometryError
from instructsam.core.spatial.calibration import Calibration, camera_model
from instructsam.core.spatial.geometry import measure

quickly = settings(max_examples=100, deadline=None, derandomize=True, database=None)
NONE = np.zeros(3)
SAMPLES_PER_PX = 4
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Camera:
    """A camera of the test: what its driver publishes, and the ground truth."""

    calibration: Calibration
    size: tuple[int, int]  # of the image
    is_rectified: bool
    model: str

    def project(self, points):
        """Return the image coordinates [N, 2] of points [N, 3] m, by OpenCV and REP 104."""
        c = self.calibration
        k = np.reshape(c.p, (3, 4))[:, :3] if self.is_rectified else np.reshape(c.k, (3, 3))
        lens = None if self.is_rectified or not any(c.d) else np.array(c.d)
        project = cv2.fisheye.projectPoints if lens is not None and self.model == 'equidistant' else cv2.projectPoints
        pixels = project(points.reshape(-1, 1, 3), NONE, NONE, k, lens)[0].reshape(-1, 2)
        return (pixels - c.roi[:2]) / [max(1, c.binning_x), max(1, c.binning_y)]


@st.composite
def lenses(draw, uniform):
    """Return a lens model and coefficients whose image radius grows up to 45 degrees from the axis."""
    model = draw(st.sampled_from(['', 'plumb_bob', 'rational_polynomial', 'equidistant', 'none']))
    if model == 'none':
        return model, (0.0,) * draw(st.sampled_from([0, 5]))
    if model == 'equidistant':
        return model, (uniform(-0.05, 0.05), uniform(-0.01, 0.02), uniform(-0.005, 0.005), 0.001)
    radial = uniform(-0.28, 0.3), uniform(-0.02, 0.1)
    tangential = uniform(-0.002, 0.002), uniform(-0.002, 0.002)
    if model != 'rational_polynomial':
        third = (uniform(0, 0.02),) if draw(st.booleans()) else ()
        return model, (*radial, *tangential, *third)
    rational = (uniform(0, 0.02), uniform(0, 0.3), uniform(0, 0.05), 0.001)
    prism = tuple(uniform(-0.005, 0.005) for _ in range(4))
    tilt = uniform(-0.1, 0.1), uniform(-0.1, 0.1)
    return model, (*radial, *tangential, *rational, *draw(st.sampled_from([(), prism, prism + tilt])))


@st.composite
def cameras(draw, uniform):
    width, height = draw(st.integers(120, 320)), draw(st.integers(100, 240))
    focal = width * uniform(0.6, 2.0)

    def intrinsics(scale):
        fx, fy = focal * scale, focal * scale * uniform(0.95, 1.05)
        return fx, width * uniform(0.4, 0.6), fy, height * uniform(0.4, 0.6)

    fx, cx, fy, cy = intrinsics(1.0)
    k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    fx, cx, fy, cy = intrinsics(uniform(0.8, 1.2))
    p = (fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0)
    model, d = draw(lenses(uniform))
    is_rectified = draw(st.booleans())
    turned = tuple(Rotation.from_rotvec([0.01, 0.02, -0.01]).as_matrix().ravel())
    r = draw(st.sampled_from([(0.0,) * 9, IDENTITY, *([turned] if is_rectified else [])]))
    binning = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    roi = 0, 0, width, height
    if draw(st.booleans()):
        x, y = draw(st.integers(0, width // 2)), draw(st.integers(0, height // 2))
        roi = x, y, draw(st.integers(width // 3, width - x)), draw(st.integers(height // 3, height - y))
    size = tuple(length // max(1, by) for length, by in zip(roi[:1:-1], binning[::-1], strict=True))
    stated = draw(st.sampled_from([(height, width), roi[:1:-1], size]))
    is_full = roi == (0, 0, width, height)
    calibration = Calibration(
        width=stated[1],
        height=stated[0],
        k=k,
        d=d,
        r=r,
        p=p if is_rectified or draw(st.booleans()) else (0.0,) * 12,
        distortion_model=model,
        binning_x=binning[0],
        binning_y=binning[1],
        roi=(0, 0, 0, 0) if is_full else roi,
    )
    return Camera(calibration, size, is_rectified, model)


@st.composite
def patches(draw, camera, uniform):
    """Return points [N, 3] m of a tilted square that is seen by the camera, several for each of its pixels."""
    c = camera.calibration
    fx, cx, fy, cy = (c.p[0], c.p[2], c.p[5], c.p[6]) if camera.is_rectified else (c.k[0], c.k[2], c.k[4], c.k[5])
    f = min(fx / max(1, c.binning_x), fy / max(1, c.binning_y))
    x0, y0, width, height = c.roi if any(c.roi) else (0, 0, c.width, c.height)
    distance = uniform(0.3, 5.0)
    width_px = draw(st.integers(8, 30))
    side = width_px * distance / f
    steps = (np.arange(width_px * SAMPLES_PER_PX * 2) / (width_px * SAMPLES_PER_PX * 2) - 0.5) * side
    x, y = np.meshgrid(steps, steps)
    z = distance + uniform(-0.5, 0.5) * x + uniform(-0.5, 0.5) * y
    direction = (uniform(x0, x0 + width) - cx) / fx, (uniform(y0, y0 + height) - cy) / fy
    return np.stack([x + direction[0] * distance, y + direction[1] * distance, z], axis=-1).reshape(-1, 3)


@quickly
@given(st.data(), st.integers(0, 2**32 - 1), st.sampled_from([np.uint16, np.float32]))
def test_projected_points_are_located_where_they_are(data, seed, dtype):
    uniform = np.random.default_rng(seed).uniform  # spread evenly, unlike Hypothesis's floats
    camera = data.draw(cameras(uniform))
    points = data.draw(patches(camera, uniform))
    height, width = camera.size
    columns, rows = np.round(camera.project(points)).astype(int).T
    is_seen = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    assume(is_seen.sum() > 200)
    pixels, points = rows[is_seen] * width + columns[is_seen], points[is_seen]
    count = np.bincount(pixels, minlength=height * width)
    depth_m = np.bincount(pixels, points[:, 2], height * width) / np.maximum(count, 1)
    mask = (count > 0).reshape(height, width)
    assume(mask.sum() > 30)
    depth = (depth_m * 1000).round().astype(np.uint16) if dtype == np.uint16 else depth_m.astype(np.float32)
    model = camera_model(camera.calibration, camera.size, is_rectified=camera.is_rectified)
    found = measure(mask, depth.reshape(height, width), model)

    assert found.valid == 1  # All rays are within 45 degrees or so, where every one is defined.
    # A pixel is right if its position is among the points that it shows, up to the quantisation.
    low, high = np.full((2, height * width, 3), np.inf)
    np.minimum.at(low, pixels, points)
    np.minimum.at(high, pixels, -points)
    low, high = low[found.pixels], -high[found.pixels]
    margin = 0.002 + 0.5 * (high - low).max(axis=1, keepdims=True)
    is_inner = count[found.pixels] > 0.8 * np.median(count[count > 0])  # the others are cut off by the patch's border
    assert is_inner.any()
    assert (found.points >= low - margin)[is_inner].all()
    assert (found.points <= high + margin)[is_inner].all()


def numbers(count):
    some = st.sampled_from([0.0, 1.0, -1.0, 0.5, 64.0, 300.0, 1e-300, 1e308, np.nan, np.inf, -np.inf])
    return st.lists(some, min_size=count, max_size=count).map(tuple)


sizes = st.sampled_from([0, 1, 2, 48, 64, 128, 2**32 - 1])


@settings(quickly, max_examples=300)
@given(
    st.builds(
        Calibration,
        width=sizes,
        height=sizes,
        k=st.one_of(numbers(9), st.just((60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0))),
        d=st.integers(0, 14).flatmap(numbers),
        r=st.one_of(st.just(IDENTITY), numbers(9)),
        p=st.one_of(st.just((60.0, 0.0, 31.5, 0.0, 0.0, 60.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0)), numbers(12)),
        distortion_model=st.sampled_from(['', 'plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', 'x\n']),
        binning_x=sizes,
        binning_y=sizes,
        roi=st.tuples(sizes, sizes, sizes, sizes),
    ),
    st.booleans(),
)
def test_any_message_gives_rays_or_a_reason(calibration, is_rectified):
    try:
        x, y = camera_model(calibration, (48, 64), is_rectified=is_rectified).rays
    except GeometryError:
        return
    assert x.shape == y.shape == (48, 64)
    assert np.array_equal(np.isnan(x), np.isnan(y))
    assert not np.isinf(x).any()
    assert np.nanmax(np.abs(x), initial=0) < 60

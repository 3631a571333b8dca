"""Geometry from depth: a box and a ball on a table, whose depth is computed by ray casting."""

import numpy as np
import pytest

from instructsam.core.errors import GeometryError
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.geometry import CameraModel, locate, measure

HEIGHT, WIDTH = 240, 320
K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])
BOX_M = np.array([0.12, 0.08, 0.06])  # length, width, height
RADIUS_M = 0.04


class World:
    """A table at z = 0 with a box, rotated by `yaw` degrees, or a ball at its origin, seen from `distance_m`.

    The camera looks down by `pitch` degrees.
    """

    def __init__(self, shape='box', pitch=50, yaw=25, distance_m=0.8, has_table=True):
        pitch, yaw = np.deg2rad([pitch, yaw])
        forward = np.array([0, np.cos(pitch), -np.sin(pitch)])
        right = np.array([1.0, 0, 0])
        self.rotation = np.stack([right, np.cross(forward, right), forward], axis=1)  # the optical axes in the world
        self.middle = np.array([0, 0, BOX_M[2] / 2 if shape == 'box' else RADIUS_M])
        self.position = self.middle - distance_m * forward
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1) @ self.rotation.T
        with np.errstate(divide='ignore', invalid='ignore'):
            floor = np.where(rays[..., 2] < 0, -self.position[2] / rays[..., 2], np.inf)
            hit = self._ball(rays) if shape == 'ball' else self._box(rays, yaw)
        self.mask = hit < floor
        self.depth = np.where(self.mask, hit, floor if has_table else 0).astype(np.float32)
        self.depth[~np.isfinite(self.depth)] = 0
        self.center = (self.middle - self.position) @ self.rotation
        self.up = self.rotation.T @ [0, 0, 1]

    def _ball(self, rays):
        offset = self.position - self.middle
        a, b, c = (rays**2).sum(-1), 2 * rays @ offset, offset @ offset - RADIUS_M**2
        root = np.sqrt(b**2 - 4 * a * c)
        return np.where(np.isnan(root), np.inf, (-b - root) / (2 * a))

    def _box(self, rays, yaw):
        axes = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        start, step = (self.position - self.middle) @ axes, rays @ axes
        sides = np.sort(np.stack([(sign * BOX_M / 2 - start) / step for sign in (-1, 1)]), axis=0)
        near, far = sides[0].max(-1), sides[1].min(-1)
        return np.where(near < far, near, np.inf)

    def measure(self, depth=None, mask=None):
        camera = CameraModel(HEIGHT, WIDTH, K)
        return measure(self.mask if mask is None else mask, self.depth if depth is None else depth, camera)


def distance(found, world):
    return np.linalg.norm(found.center - world.center)


@pytest.mark.parametrize('pitch', [25, 50, 75, 90])
@pytest.mark.parametrize('yaw', [0, 25, 70])
def test_a_box(pitch, yaw):
    """The box is located within 4 mm (a pixel is 2.7 mm) from every direction, also from straight above."""
    world = World(pitch=pitch, yaw=yaw)
    found = world.measure()
    assert distance(found, world) < 0.004
    np.testing.assert_allclose(found.size_m, BOX_M, atol=0.006)
    assert found.has_support
    assert found.valid == 1
    assert found.rotation[:, 2] @ world.up > 0.9999
    np.testing.assert_allclose(found.rotation.T @ found.rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    corner = np.abs((found.points - found.center) @ found.rotation) - found.size_m / 2
    assert corner.max() < 0.003  # every visible point is inside the box


def test_a_ball():
    """A ball is located although its far side is hidden."""
    world = World('ball')
    found = world.measure()
    assert distance(found, world) < 0.01
    np.testing.assert_allclose(found.size_m, [2 * RADIUS_M] * 3, rtol=0.2)
    assert found.size_m[2] == pytest.approx(2 * RADIUS_M, abs=0.003)


def test_noise_holes_and_flying_pixels():
    world, rng = World(), np.random.default_rng(0)
    depth = world.depth + rng.normal(0, 0.002, world.depth.shape).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0
    rim = world.mask & ~np.roll(world.mask, 2, axis=1)
    depth[rim] += rng.uniform(0, 0.3, rim.sum()).astype(np.float32)
    found = world.measure(depth)
    assert distance(found, world) < 0.01
    assert 0.6 < found.valid < 0.8
    np.testing.assert_allclose(found.size_m, BOX_M, atol=0.02)


def test_a_mask_that_includes_some_of_the_table():
    """Points at the height of the supporting plane do not belong to the object."""
    world = World()
    mask = world.mask.copy()
    rows, columns = np.nonzero(mask)
    mask[rows.max() - 4 : rows.max() + 5, columns.min() : columns.max()] = True
    found = world.measure(mask=mask)
    assert distance(found, world) < 0.006
    assert np.allclose(found.size_m, BOX_M, atol=0.012)


def test_a_mask_with_fragments_on_other_objects():
    world = World()
    mask, depth = world.mask.copy(), world.depth.copy()
    for rows, columns, away_m in ((slice(10, 22), slice(10, 22), 0.5), (slice(200, 204), slice(280, 310), 0.7)):
        mask[rows, columns], depth[rows, columns] = True, away_m
    found = world.measure(mask=mask, depth=depth)
    assert distance(found, world) < 0.004
    assert np.allclose(found.size_m, BOX_M, atol=0.004)


def test_a_mask_that_an_occluder_cuts_in_two():
    """Both parts belong to the object."""
    world = World()
    mask, depth = world.mask.copy(), world.depth.copy()
    columns = np.nonzero(mask)[1]
    cut = slice(int(np.median(columns)) - 4, int(np.median(columns)) + 8)
    mask[:, cut], depth[:, cut] = False, 0.4
    found = world.measure(mask=mask, depth=depth)
    assert distance(found, world) < 0.006
    assert np.allclose(found.size_m, BOX_M, atol=0.008)


def test_a_wall_behind_the_object_is_not_its_support():
    world = World(pitch=35)
    y = np.arange(HEIGHT)[:, None]
    depth = np.where(world.mask | (y > np.nonzero(world.mask)[0].max() - 6), world.depth, 2.5).astype(np.float32)
    found = world.measure(depth=depth)
    assert found.has_support
    assert distance(found, world) < 0.006


def upright_wall(world, y_m, half_width_m, height_m):
    """Return the world's depth with an upright rectangle that faces the camera."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1) @ world.rotation.T
    hit = (y_m - world.position[1]) / rays[..., 1]
    points = world.position + rays * hit[..., None]
    inside = (np.abs(points[..., 0]) < half_width_m) & (points[..., 2] > 0) & (points[..., 2] < height_m) & (hit > 0)
    return np.where(inside & ~world.mask & (hit < world.depth), hit, world.depth).astype(np.float32)


@pytest.mark.parametrize('gap_m', [0.01, 0.02])
def test_the_side_of_a_neighbour_is_not_the_support(gap_m):
    """A carton behind the object fills most of its surroundings in the image, but the table is the support."""
    world = World(pitch=8)
    corners = BOX_M[:2] / 2
    found = world.measure(upright_wall(world, np.linalg.norm(corners) + gap_m, half_width_m=0.13, height_m=0.3))
    assert found.rotation[:, 2] @ world.up > 0.99
    assert found.has_support


def test_without_support_the_box_stands_like_the_scene():
    """An object that hangs in the air, or in a vessel, has no support; its box is parallel to the table's."""
    world = World(pitch=40)
    rows, columns = np.nonzero(world.mask)
    depth = world.depth.copy()
    around = np.s_[rows.min() - 25 : rows.max() + 25, columns.min() - 25 : columns.max() + 25]
    depth[around] = np.where(world.mask[around], depth[around], 0)
    found = world.measure(depth)
    assert not found.has_support
    np.testing.assert_allclose(found.rotation[:, 2], world.up, atol=0.01)
    assert np.allclose(found.size_m, found.visible_m)


def test_no_plane_around_the_object():
    """Without a supporting plane the box contains the visible points alone, and has_support is False."""
    world = World(has_table=False)
    found = world.measure()
    assert not found.has_support
    assert distance(found, world) < 0.04
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert np.allclose(found.size_m, found.visible_m)


def test_results_are_reproducible_and_serialisable():
    world = World()
    first, second = world.measure().to_json(), world.measure().to_json()
    assert first == second
    assert first['points'] > 1000
    assert len(first['rotation']) == 3


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'depth': np.zeros((HEIGHT, WIDTH))}, '0 % of the mask has a depth'),
        ({'depth': np.full((HEIGHT, WIDTH), np.nan)}, '0 % of the mask'),
        ({'depth': np.ones((HEIGHT // 2, WIDTH))}, 'align depth to colour'),
        ({'camera': CameraModel(HEIGHT * 2, WIDTH, K)}, 'camera info is of'),
        ({'mask': np.zeros((HEIGHT, WIDTH), bool)}, 'empty'),
    ],
    ids=['zeros', 'nan', 'another size', 'another camera', 'empty mask'],
)
def test_unusable_inputs_are_rejected(change, message):
    world = World()
    with pytest.raises(GeometryError, match=message):
        measure(**{'mask': world.mask, 'depth': world.depth, 'camera': CameraModel(HEIGHT, WIDTH, K), **change})


@pytest.mark.parametrize(
    'sentinel',
    [np.nan, np.inf, -np.inf, -1.0, 0.0, 2e-41, 4e-8, float(np.finfo(np.float32).max), 65504.0, 1000.0, 65535],
)
def test_numbers_that_are_no_measurement_are_left_out(sentinel):
    world = World()
    camera, whole = CameraModel(HEIGHT, WIDTH, K), world.measure()
    depth = np.where(np.arange(WIDTH) % 5 == 0, sentinel, world.depth)
    if sentinel == 65535:
        depth = np.where(depth == sentinel, sentinel, depth * 1000).round().astype(np.uint16)
    result = Result('a box', 'box', HEIGHT, WIDTH, (Instance(Rle.encode(world.mask), 0.9, 'box', 0),))
    found = locate(result, depth, camera).instances[0].geometry
    assert found.valid == pytest.approx(0.8, abs=0.02)
    np.testing.assert_allclose(found.center, whole.center, atol=0.01)
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize(
    ('scale', 'dtype', 'says'),
    [
        (1000, np.float32, 'the median of the floating-point depth is .*, so it is probably in mm'),
        (1, np.uint16, 'the median of the 16-bit depth is .*, so it is probably not in mm'),
        (40, np.uint16, 'probably not in mm'),
        (1000, np.uint16, ''),
        (1, np.float32, ''),
        (0.02, np.float32, ''),
        (60, np.float32, ''),
        (10_000, np.uint16, ''),
    ],
)
def test_depth_in_an_unlikely_unit_is_refused(scale, dtype, says):
    depth = np.full((HEIGHT, WIDTH), scale).astype(dtype)
    depth[:10] = 0  # without a measurement
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[60:100, 60:100] = True
    result = Result('a box', 'box', HEIGHT, WIDTH, (Instance(Rle.encode(mask), 0.9, 'box', 0),))
    if says:
        with pytest.raises(GeometryError, match=says):
            locate(result, depth, CameraModel(HEIGHT, WIDTH, K))
    else:
        assert locate(result, depth, CameraModel(HEIGHT, WIDTH, K)).instances[0].geometry is not None


def test_the_length_of_two_parallel_bars_is_the_longer_side():
    """Without any plane; across the bars, the points vary more."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[70:170, 125:135] = mask[70:170, 195:205] = True
    found = measure(mask, np.where(mask, np.float32(0.5), 0), CameraModel(HEIGHT, WIDTH, K))
    assert not found.has_support
    assert found.size_m[0] > 1.2 * found.size_m[1]
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_pixels_without_a_ray_have_no_depth():
    fisheye = CameraModel(
        800, 848, [[286, 0, 424], [0, 286, 400], [0, 0, 1]], (-0.0055, 0.044, -0.042, 0.0078), 'equidistant'
    )
    depth, masks = np.full((800, 848), 900, np.uint16), np.zeros((2, 800, 848), bool)
    masks[0, 385:415, 790:840] = True  # from 75 degrees on
    masks[1, 745:775, 785:815] = True  # behind the camera
    found = measure(masks[0], depth, fisheye)
    assert 0.1 < found.valid < 0.9
    angles = np.degrees(np.arctan2(np.hypot(*found.points[:, :2].T), found.points[:, 2]))
    assert (angles < 80.01).all()
    np.testing.assert_allclose(found.points[:, 2], 0.9, atol=1e-3)
    with pytest.raises(GeometryError, match='0 % of the mask has a depth'):
        measure(masks[1], depth, fisheye)


def test_run_lengths_millimetres_and_pixels():
    """Run lengths and masks give the same, and so do mm and m; each point has the pixel that shows it."""
    world = World()
    camera = CameraModel(HEIGHT, WIDTH, K)
    from_mask, from_rle = world.measure(), measure(Rle.encode(world.mask), world.depth, camera)
    np.testing.assert_array_equal(from_mask.points, from_rle.points)
    in_mm = measure(world.mask, np.round(world.depth * 1000).astype(np.uint16), camera)
    assert np.linalg.norm(in_mm.center - from_mask.center) < 0.001
    y, x = np.divmod(from_mask.pixels, WIDTH)
    assert world.mask[y, x].all()
    again = from_mask.points / from_mask.points[:, 2:] @ K.T
    np.testing.assert_allclose(again[:, :2], np.stack([x, y], axis=1), atol=1e-2)


@pytest.mark.parametrize(
    'mask',
    [
        np.pad(np.ones((10, 12), bool), ((0, HEIGHT - 10), (0, WIDTH - 12))),
        np.pad(np.ones((10, 12), bool), ((HEIGHT - 10, 0), (WIDTH - 12, 0))),
        np.ones((HEIGHT, WIDTH), bool),
        np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5,
    ],
    ids=['upper left', 'lower right', 'everything', 'speckles'],
)
def test_masks_at_the_edge(mask):
    found = measure(mask, np.full((HEIGHT, WIDTH), 0.5), CameraModel(HEIGHT, WIDTH, K))
    step = 1 if mask.sum() < 200 else 2  # of a large crop, every other row and column is used
    chosen = np.zeros_like(mask)
    chosen[::step, ::step] = mask[::step, ::step]
    assert np.array_equal(np.sort(found.pixels), np.flatnonzero(chosen))


def test_in_another_frame():
    world = World()
    found, rotation, translation = world.measure(), world.rotation, world.position
    moved = found.moved(rotation, translation)
    np.testing.assert_allclose(moved.center, world.middle, atol=0.004)
    np.testing.assert_allclose(moved.rotation[:, 2], [0, 0, 1], atol=1e-3)
    np.testing.assert_allclose(moved.points[:9], found.points[:9] @ rotation.T + translation, atol=1e-5)
    np.testing.assert_allclose(moved.centroid, rotation @ found.centroid + translation, atol=1e-5)


def test_the_support_in_an_image_of_many_megapixels():
    """The crop around a large object is read at every 11th row and column."""
    world, scale = World(pitch=70, distance_m=0.22), 12
    mask, depth = (each.repeat(scale, axis=0).repeat(scale, axis=1) for each in (world.mask, world.depth))
    k = K * scale
    k[:2, 2] += scale / 2 - 0.5
    k[2] = K[2]
    found = measure(mask, depth, CameraModel(*mask.shape, k))
    assert found.surface.rows.step > 10
    assert found.has_support
    assert distance(found, world) < 0.004
    np.testing.assert_allclose(found.size_m, BOX_M, atol=0.006)


@pytest.mark.parametrize('line', [np.s_[500], np.s_[:, 700]], ids=['row', 'column'])
def test_a_thin_mask_between_the_rows_of_its_crop_is_located(line):
    """A crop is read at every n-th row and column, which a line one pixel wide may miss."""
    mask = np.zeros((1600, 1600), bool)
    mask[line] = True
    depth = np.full(mask.shape, 2.0, np.float32)
    found = measure(mask, depth, CameraModel(*mask.shape, [[1000, 0, 800], [0, 1000, 800], [0, 0, 1]]))
    assert found.surface.rows.step > 1
    assert found.valid == 1
    assert mask.ravel()[found.pixels].all()


def test_a_few_specks_between_the_rows_are_too_few_points():
    mask = np.zeros((480, 640), bool)
    mask[1, 1] = mask[478, 637] = True
    depth = np.ones(mask.shape, np.float32)
    with pytest.raises(GeometryError, match=r'100 % of the mask has a depth, [12] usable points'):
        measure(mask, depth, CameraModel(*mask.shape, [[500, 0, 320], [0, 500, 240], [0, 0, 1]]))


def test_every_instance_of_a_result():
    world = World()
    masks = [world.mask, np.zeros_like(world.mask)]
    masks[1][0, 0] = True  # a mask without a usable point
    instances = tuple(Instance(Rle.encode(mask), 0.9, 'box', slot) for slot, mask in enumerate(masks))
    result = Result('the box', 'box', HEIGHT, WIDTH, instances)
    found = locate(result, world.depth, CameraModel(HEIGHT, WIDTH, K))
    assert distance(found.instances[0].geometry, world) < 0.004
    assert not found.instances[0].geometry_message
    assert found.instances[1].geometry is None
    assert 'usable points' in found.instances[1].geometry_message
    with pytest.raises(GeometryError, match='align'):
        locate(result, world.depth[:-1], CameraModel(HEIGHT, WIDTH, K))

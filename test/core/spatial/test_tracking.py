"""Tracking on images of colored discs: ids stay with the objects through motion and missed detections."""

import cv2
import numpy as np
import pytest

from instructsam.core.result import UNTRACKED, Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.tracking import Tracker, TrackingParams, _Grid, dense_flow

HEIGHT, WIDTH, RADIUS = 240, 320, 16
NOISE = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (HEIGHT * 3, WIDTH * 3)), (0, 0), 5)
NOISE = np.uint8(90 + 20 * np.clip(NOISE / NOISE.std(), -2, 2))[..., None].repeat(3, axis=2)  # textured like a table
RED, GREEN, BLUE = (220, 40, 40), (40, 200, 60), (60, 80, 230)


def frame(discs, shift=(0, 0), order=None):
    """Return (result, image) of discs [(x, y, color)] on a textured background that is moved by `shift` px."""
    x0, y0 = WIDTH + shift[0], HEIGHT + shift[1]
    image = NOISE[y0 : y0 + HEIGHT, x0 : x0 + WIDTH].copy()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = []
    for cx, cy, color in discs:
        mask = (x - cx) ** 2 + (y - cy) ** 2 < RADIUS**2
        image[mask] = color
        masks.append(mask)
    chosen = range(len(masks)) if order is None else order
    instances = tuple(Instance(Rle.encode(masks[i]), 0.9, 'disc', 0) for i in chosen)
    return Result('', '', HEIGHT, WIDTH, instances), image


def ids(tracker, *args, **kwargs):
    return [instance.track_id for instance in tracker.update(*frame(*args, **kwargs)).instances]


def test_ids_count_up_and_stay_in_any_order():
    tracker, discs = Tracker(), [(60, 60, RED), (160, 60, RED), (260, 60, RED)]
    assert frame(discs)[0].instances[0].track_id == UNTRACKED
    assert ids(tracker, discs) == [0, 1, 2]
    assert ids(tracker, discs, order=[2, 0, 1]) == [2, 0, 1]
    assert ids(tracker, discs[1:]) == [1, 2]


def test_moving_camera():
    """Ids stay although the camera moves by almost an object's size between results."""
    tracker = Tracker()
    for step in range(6):
        moved = -25 * step
        discs = [(x + moved, 100, RED) for x in (180, 215, 250)]
        assert ids(tracker, discs, shift=(25 * step, 0)) == [0, 1, 2]


def test_objects_that_move_past_each_other():
    tracker = Tracker()
    for step in range(9):
        discs = [(60 + 20 * step, 90, RED), (220 - 20 * step, 130, BLUE)]
        assert ids(tracker, discs) == [0, 1]


def test_short_occlusion():
    tracker, discs = Tracker(), [(60, 60, RED), (160, 60, GREEN)]
    assert ids(tracker, discs) == [0, 1]
    for _ in range(TrackingParams().patience):
        assert ids(tracker, discs[:1]) == [0]
    assert ids(tracker, discs) == [0, 1]


def test_an_object_after_a_long_absence_is_new():
    tracker, discs = Tracker(), [(60, 60, RED), (160, 60, GREEN)]
    ids(tracker, discs)
    for _ in range(TrackingParams().patience + 1):
        ids(tracker, discs[:1])
    assert ids(tracker, discs) == [0, 2]


def test_another_object_at_the_same_position_is_new():
    tracker = Tracker()
    assert ids(tracker, [(60, 60, RED)]) == [0]
    assert ids(tracker, [(60, 60, GREEN)]) == [1]


def test_no_detections_and_masks_of_one_pixel():
    tracker = Tracker()
    assert ids(tracker, []) == []
    assert ids(tracker, [(60, 60, RED)]) == [0]
    assert ids(tracker, []) == []
    assert ids(tracker, [(60, 60, RED)]) == [0]
    pixel = np.zeros((HEIGHT, WIDTH), bool)
    pixel[101, 203] = True
    result, image = frame([])
    result = Result('', '', HEIGHT, WIDTH, (Instance(Rle.encode(pixel), 0.9, 'dot', 0),))
    assert [tracker.update(result, image).instances[0].track_id for _ in range(2)] == [1, 1]


def test_reset_and_another_size_start_with_new_ids():
    tracker = Tracker()
    ids(tracker, [(60, 60, RED)])
    tracker.reset()
    assert ids(tracker, [(60, 60, RED)]) == [1]
    half = np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    mask = np.zeros(half.shape[:2], bool)
    mask[10:40, 10:40] = True
    result = Result('', '', *mask.shape, (Instance(Rle.encode(mask), 0.9, 'disc', 0),))
    assert tracker.update(result, half).instances[0].track_id == 2


@pytest.mark.parametrize('size', [(720, 1280), (97, 61), (8, 8)])
def test_masks_on_the_grid(size):
    """Sampling the run lengths equals sampling the mask."""
    masks = np.random.default_rng(1).random((5, *size)) < 0.5
    masks[1], masks[2], masks[3, 0, 0] = False, True, True  # first and last runs of no length, and single runs
    grid = _Grid(*size, longer_side_px=160)
    sampled = grid.sample([Rle.encode(mask) for mask in masks])
    step = max(1, round(max(size) / 160))
    np.testing.assert_array_equal(sampled, masks[:, step // 2 :: step, step // 2 :: step])
    assert grid.shrink(np.zeros((*size, 3), np.uint8)).shape[:2] == sampled.shape[1:]


def test_masks_between_the_pixels_of_the_grid():
    """Each sets one pixel near it."""
    masks = np.zeros((3, 720, 1280), bool)
    masks[0, 0, 0] = masks[1, 300, 641] = masks[2, -1, -1] = True
    grid = _Grid(720, 1280, longer_side_px=160)
    sampled = grid.sample([Rle.encode(mask) for mask in masks])
    assert np.argwhere(sampled).tolist() == [[0, 0, 0], [1, 37, 80], [2, 89, 159]]


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (5, 10000), (10000, 5), (30, 6828), (100, 20000), (11, 12), (12, 12)])
def test_images_of_any_shape(size):
    """An object in a very narrow or tiny image keeps its id, although the optical flow needs more pixels."""
    tracker, mask = Tracker(), np.ones(size, bool)
    result = Result('', '', *size, (Instance(Rle.encode(mask), 0.9, 'all', 0),))
    image = np.full((*size, 3), 90, np.uint8)
    for _ in range(3):
        assert [each.track_id for each in tracker.update(result, image).instances] == [0]


@pytest.mark.parametrize('size', [(12, 160), (13, 160), (24, 320), (30, 160), (160, 12), (31, 31), (48, 320)])
def test_flow_of_narrow_images(size):
    """OpenCV's DIS flow alone ends the process for some of these sizes."""
    optical_flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    images = np.random.default_rng(0).integers(0, 256, (2, *size), np.uint8)
    for start in (None, np.zeros((*size, 2), np.float32)):
        flow = dense_flow(optical_flow, *images, start)
        assert flow.shape == (*size, 2)
        assert np.isfinite(flow).all()

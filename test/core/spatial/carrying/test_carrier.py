"""Masks that are carried to later images: synthetic sequences whose motion is known exactly."""

import cv2
import numpy as np
import pytest

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.carrying.carrier import MaskCarrier
from instructsam.core.spatial.carrying.outline import encode

HEIGHT, WIDTH = 180, 240
FRAME_NS = 33_000_000


def texture(seed, height, width):
    """Return a smooth random texture [height, width, 3] uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


BACKGROUND = texture(0, HEIGHT + 100, WIDTH + 100)
OBJECT = texture(1, 60, 60)
COVER = texture(2, HEIGHT, 90)


def scene(number, cover_x=None):
    """Return the image at `number` and the object's visible mask.

    The camera moves, and the object, a disk, moves against the background unless something passes in front of it.
    """
    image = np.ascontiguousarray(BACKGROUND[number : number + HEIGHT, number : number + WIDTH])
    x, y = (40 + 2 * number, 60 + number) if cover_x is None else (90 - number, 70 - number)
    disk = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(disk, (x + 30, y + 30), 28, 1, -1)
    pasted = np.zeros_like(image)
    pasted[y : y + 60, x : x + 60] = OBJECT
    image[disk > 0] = pasted[disk > 0]
    if cover_x is not None:
        low, high = max(cover_x, 0), max(cover_x + 90, 0)
        image[:, low:high] = COVER[:, low - cover_x :][:, : image[:, low:high].shape[1]]
        disk[:, low:high] = 0
    return image, disk > 0


def result(*masks):
    height, width = masks[0].shape
    found = tuple(Instance(Rle.encode(mask), 0.9, 'disk', 3, track_id=7 + i) for i, mask in enumerate(masks))
    return Result('the disk', 'disk', height, width, found)


def iou(carried, mask):
    return float(carried.instance.mask.iou([Rle.encode(mask)])[0])


@pytest.fixture
def carrier():
    return MaskCarrier()


def test_a_moving_object_keeps_its_mask_id_and_confidence(carrier):
    image, mask = scene(0)
    assert carrier.add_image(image, 0) == []
    assert carrier.add_answer(result(mask), image, 0)
    for number in range(1, 16):
        image, mask = scene(number)
        (carried,) = carrier.add_image(image, number * FRAME_NS)
        assert iou(carried, mask) > 0.93
        assert carried.confidence > 0.6
    assert (carried.instance.track_id, carried.instance.score, carried.instance.phrase) == (7, 0.9, 'disk')


def test_an_answer_about_an_older_image_is_brought_forward(carrier):
    for number in range(12):
        carrier.add_image(scene(number)[0], number * FRAME_NS)
    assert carrier.add_answer(result(scene(2)[1]), scene(2)[0], 2 * FRAME_NS)
    image, mask = scene(12)
    (carried,) = carrier.add_image(image, 12 * FRAME_NS)
    assert iou(carried, mask) > 0.93


def test_an_answer_about_another_size_carries_nothing(carrier):
    image, mask = scene(0)
    carrier.add_image(image, 5)
    assert carrier.add_answer(result(mask), image, 5)
    assert not carrier.add_answer(result(mask[:-8]), image[:-8], 5)
    assert carrier.add_image(scene(1)[0], FRAME_NS) == []


@pytest.mark.parametrize('answered', [0, 3, 9, 14], ids=['older than all', 'between', 'between the last', 'newer'])
def test_an_answer_about_an_image_that_was_not_added_is_carried(carrier, answered):
    for number in (2, 4, 6, 8, 10):
        carrier.add_image(scene(number)[0], number * FRAME_NS)
    image, mask = scene(answered)
    assert carrier.add_answer(result(mask), image, answered * FRAME_NS)
    (carried,) = carrier.carried()
    assert iou(carried, scene(max(10, answered))[1]) > 0.93
    image, mask = scene(15)
    (carried,) = carrier.add_image(image, 15 * FRAME_NS)
    assert iou(carried, mask) > 0.93


def test_the_hidden_part_is_left_out_and_a_hidden_object_is_silent_until_it_is_recognised(carrier):
    image, mask = scene(0, cover_x=-90)
    carrier.add_image(image, 0)
    carrier.add_answer(result(mask), image, 0)
    full, states = mask.sum(), []
    for number in range(1, 31):
        image, mask = scene(number, cover_x=-90 + 9 * number)
        found = carrier.add_image(image, number * FRAME_NS)
        share = mask.sum() / full
        states.append((share, found))
        if 0.6 < share < 0.9 and found:
            assert iou(found[0], mask) > 0.75
            assert found[0].confidence < 0.9
        if share < 0.1:
            assert not found
    assert any(share < 0.1 for share, _ in states)
    assert states[-1][0] > 0.9
    (seen,) = states[-1][1]
    assert iou(seen, mask) > 0.8


def test_a_cut_drops_everything_at_once(carrier):
    image, mask = scene(0)
    carrier.add_image(image, 0)
    carrier.add_answer(result(mask), image, 0)
    for number in range(1, 4):
        assert carrier.add_image(texture(9, HEIGHT, WIDTH), number * FRAME_NS) == []


def test_an_object_that_leaves_the_image_is_dropped(carrier):
    image, mask = np.ascontiguousarray(BACKGROUND[:HEIGHT, :WIDTH]), np.zeros((HEIGHT, WIDTH), bool)
    mask[60:100, 4:40] = True
    carrier.add_image(image, 0)
    carrier.add_answer(result(mask), image, 0)
    found = [
        carrier.add_image(np.ascontiguousarray(BACKGROUND[:HEIGHT, 4 * n : 4 * n + WIDTH]), n * FRAME_NS)
        for n in range(1, 15)
    ]
    assert found[0]
    assert found[-1] == []


@pytest.mark.parametrize('change', ['size', 'time goes back', 'same stamp', 'instruction'])
def test_nothing_is_carried_across_a_break(carrier, change):
    image, mask = scene(0)
    carrier.add_image(image, 10)
    carrier.add_answer(result(mask), image, 10)
    if change == 'instruction':
        carrier.drop_answer()
    image = image[:-8] if change == 'size' else image
    stamp_ns = {'time goes back': 5, 'same stamp': 10}.get(change, 20)
    assert carrier.add_image(image, stamp_ns) == []
    assert not carrier.has_answer
    assert carrier.add_answer(result(np.ones(image.shape[:2], bool)), image, stamp_ns)


@pytest.mark.parametrize('resets', [1, 2])
def test_an_answer_of_before_time_went_back_does_not_replace_the_present(carrier, resets):
    image, mask = scene(0)
    for stamp_ns in (1000, 1010, 1020, 25, 35)[: 5 if resets == 2 else 3]:
        carrier.add_image(image, stamp_ns)
    for stamp_ns in (5, 15):
        carrier.add_image(image, stamp_ns)
    assert carrier.add_answer(result(mask), image, 15)
    assert not carrier.add_answer(result(~mask), image, 1010)
    for stamp_ns in (25, 35):
        (carried,) = carrier.add_image(image, stamp_ns)
        assert iou(carried, mask) > 0.9
    assert carrier.add_answer(result(mask), image, 1030)  # later than all images of before


def test_memory_is_bounded_and_a_forgotten_image_may_be_answered(carrier):
    image = np.ascontiguousarray(scene(0)[0][::4, ::4])
    for number in range(200):
        carrier.add_image(image, number)
    assert len(carrier._steps) == 150
    for answered in (0, 199):
        assert carrier.add_answer(result(np.ones(image.shape[:2], bool)), image, answered)
        assert len(carrier.carried()) == 1


def test_an_answer_about_a_forgotten_scene_carries_nothing(carrier):
    image, mask = scene(0)
    for number in range(1, 4):
        carrier.add_image(texture(9, HEIGHT, WIDTH), number * FRAME_NS)
    assert carrier.add_answer(result(mask), image, 0)
    assert carrier.carried() == []


def odd_masks():
    empty = np.zeros((HEIGHT, WIDTH), bool)
    pixel, line, corner, ring = empty.copy(), empty.copy(), empty.copy(), empty.copy()
    pixel[50, 70] = line[20:120, 90] = corner[:3, :2] = True
    ring[40:100, 40:100] = True
    ring[55:85, 55:85] = False
    return {'empty': empty, 'pixel': pixel, 'line': line, 'corner': corner, 'ring': ring, 'full': ~empty}


@pytest.mark.parametrize('name', odd_masks())
def test_masks_of_any_form_stay_where_nothing_moves(carrier, name):
    mask, image = odd_masks()[name], scene(0)[0]
    carrier.add_image(image, 0)
    assert carrier.add_answer(result(mask), image, 0)
    found = carrier.add_image(image, FRAME_NS)
    if name == 'empty':
        assert found == []
    else:
        assert iou(found[0], mask) > 0.9


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (1, 2000), (700, 2), (11, 11), (12, 12)])
def test_images_too_small_for_flow_carry_nothing_wrong(carrier, size):
    image, mask = np.zeros((*size, 3), np.uint8), np.ones(size, bool)
    carrier.add_image(image, 0)
    carrier.add_answer(result(mask), image, 0)
    assert all(iou(each, mask) > 0.9 for each in carrier.add_image(image, 1))


def test_encoding_agrees_with_the_whole_mask():
    rng = np.random.default_rng(0)
    for low, size in (((3, 2), (5, 6)), ((0, 0), (10, 8)), ((2, 0), (4, 8)), ((9, 7), (1, 1))):
        crop = (rng.random(size) < 0.7).astype(np.uint8)
        crop.flat[0] = 1
        mask = np.zeros((8, 10), np.uint8)
        mask[low[1] : low[1] + size[1], low[0] : low[0] + size[0]] = crop.T
        rle = encode(crop, np.array(low), (8, 10))
        assert np.array_equal(rle.counts, Rle.encode(mask).counts)

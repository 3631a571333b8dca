"""Run-length encoded masks, compared with pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco

from instructsam.core.rle import Rle


@pytest.mark.parametrize('size', [(5, 7), (1, 1), (1, 9), (9, 1), (48, 64)])
@pytest.mark.parametrize('density', [0.0, 0.05, 0.5, 1.0])
def test_round_trip(size, density):
    mask = np.random.default_rng(0).random(size) < density
    rle = Rle.encode(mask)
    assert rle.counts.dtype == np.uint32
    assert int(rle.counts.sum()) == mask.size
    assert np.array_equal(rle.decode(), mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle.to_coco() == {'size': list(size), 'counts': theirs['counts'].decode()}
    assert np.array_equal(Rle.from_coco(theirs).counts, rle.counts)
    assert np.array_equal(Rle.from_coco({'size': size, 'counts': rle.counts.tolist()}).decode(), mask)
    assert rle.area == mask.sum()
    x0, y0, x1, y1 = rle.box
    assert np.array_equal(rle.crop(), mask[y0:y1, x0:x1])


def test_the_first_run_is_background():
    assert Rle.encode(np.array([[1, 0], [1, 0]], bool)).counts.tolist() == [0, 2, 2]
    assert Rle.encode(np.array([[0, 0], [1, 1]], bool)).counts.tolist() == [1, 1, 1, 1]  # column by column


def test_box_is_tight_and_exclusive():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    assert Rle.encode(mask).box == (3, 2, 9, 5)
    assert Rle.encode(np.zeros((4, 4), bool)).box == (0, 0, 0, 0)


def test_a_mask_that_wraps_over_columns_has_its_true_box():
    mask = np.zeros((4, 6), bool)
    mask[3, 2] = mask[0, 3] = True  # adjacent in run order, opposite corners of the box
    assert Rle.encode(mask).box == (2, 0, 4, 4)


def test_iou():
    a, b = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    a[:4], b[2:6] = True, True
    assert Rle.encode(a).iou([Rle.encode(b), Rle.encode(a)]).tolist() == pytest.approx([1 / 3, 1])
    assert len(Rle.encode(a).iou([])) == 0


def test_counts_must_fit():
    with pytest.raises(ValueError, match='expected 2 x 2 = 4'):
        Rle(2, 2, [1, 2])


BAD = ([], None, '', 'm', '0o1', 'é', [1, -1, 4], [2, 3], [1.5, 2.5], [4, 'x'], {}, '44', '<4', [2**40])


@pytest.mark.parametrize('counts', BAD, ids=repr)
def test_counts_that_are_not_run_lengths_of_the_size(counts):
    with pytest.raises(ValueError, match=r'counts|run lengths'):
        Rle.from_coco({'size': [2, 2], 'counts': counts})


def test_a_size_is_not_negative():
    with pytest.raises(ValueError, match='-1 x -1'):
        Rle.from_coco({'size': [-1, -1], 'counts': [1]})


def test_compressed_counts_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.3, 0.97, 1.0):
        mask = rng.random((211, 157)) < density
        text = Rle.encode(mask).to_coco()
        encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert text['counts'] == encoded['counts'].decode()
        for counts in (encoded['counts'], text['counts']):
            np.testing.assert_array_equal(Rle.from_coco({**text, 'counts': counts}).decode(), mask)
        for cut in (text['counts'][:-1], text['counts'][:1], text['counts'] + '1'):
            with pytest.raises(ValueError, match=r'counts|run lengths'):
                Rle.from_coco({**text, 'counts': cut})


def test_counts_cannot_be_changed():
    rle = Rle.encode(np.ones((2, 2), bool))
    for each in (rle, Rle.from_checked(rle.to_coco())):
        with pytest.raises(ValueError, match='read-only'):
            each.counts[0] = 7


def test_texts_as_pycocotools_reads_them():
    """Texts with short and long numbers and with positive and negative differences are read as pycocotools does."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        runs = (10.0 ** rng.uniform(0, 6, rng.integers(1, 40))).astype(np.int64)
        rle = Rle(1, int(runs.sum()), runs)
        assert np.array_equal(Rle.from_coco(rle.to_coco()).counts, runs)
        assert coco.area(rle.to_coco()) == rle.area


@pytest.mark.parametrize('size', [(6, 9), (1, 1), (40, 30)])
def test_merged_and_inverse(size):
    masks = np.random.default_rng(2).random((3, *size)) < 0.5
    rles = [Rle.encode(mask) for mask in masks]
    assert np.array_equal(Rle.merge(rles).decode(), masks.any(0))
    assert np.array_equal(Rle.merge(rles, intersect=True).decode(), masks.all(0))
    for mask in (*masks, np.ones(size, bool), np.zeros(size, bool)):
        assert np.array_equal(Rle.encode(mask).inverse().decode(), ~mask)
    assert rles[0].intersection_area(rles[1]) == (masks[0] & masks[1]).sum()
    with pytest.raises(ValueError, match='of one size'):
        rles[0].intersection_area(Rle.encode(np.ones((2, 2), bool)))
    for wrong in ([], [rles[0], Rle.encode(np.ones((2, 2), bool))]):
        with pytest.raises(ValueError, match='of one size'):
            Rle.merge(wrong)

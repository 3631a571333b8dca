"""Numbered marks: distinct repeatable colours, numbers inside the masks, labels apart, views of one mask."""

import itertools

import numpy as np
import pytest

from instructsam.core.rle import Rle
from instructsam.train.vlm import marks
from instructsam.train.vlm.marks import draw_marks, mark_color, mask_views

HEIGHT, WIDTH = 240, 320
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
IMAGE = np.random.default_rng(0).integers(60, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def disc(x, y, radius):
    return Rle.encode((COLUMNS - x) ** 2 + (ROWS - y) ** 2 < radius**2)


def test_colours_are_distinct():
    colors = np.array([mark_color(index) for index in range(100)], dtype=int)
    assert len(np.unique(colors, axis=0)) == 100
    distances = [np.abs(colors[a] - colors[b]).sum() for a, b in itertools.combinations(range(12), 2)]
    assert min(distances) > 60


def test_the_same_masks_give_the_same_picture():
    masks = [disc(60, 60, 30), disc(200, 120, 50)]
    before = IMAGE.copy()
    first, second = draw_marks(IMAGE, masks), draw_marks(IMAGE, masks)
    assert (first == second).all()
    assert (before == IMAGE).all()
    changed = (first != IMAGE).any(axis=2)
    near = disc(60, 60, 36).decode() | disc(200, 120, 56).decode()
    assert changed[near].mean() > 0.5
    assert not changed[~near].any()


def test_the_fill_is_thin():
    drawn = draw_marks(IMAGE, [disc(160, 120, 100)])
    point = (120 + 60, 160)  # inside, far from the outline and from the number
    expected = np.rint(0.85 * IMAGE[point] + 0.15 * np.array(mark_color(0)))
    assert (drawn[point] == expected).all()


def test_the_number_is_at_the_deepest_point():
    crescent = Rle.encode(disc(160, 120, 100).decode() & ~disc(200, 120, 100).decode())
    x, y = marks._deepest_point(crescent)
    assert crescent.decode()[y, x]
    assert abs(x - 80) <= 3
    assert abs(y - 120) <= 20  # almost as deep along the arc
    border = Rle.encode(COLUMNS < 40)  # touches three sides of the image
    assert 17 <= marks._deepest_point(border)[0] <= 22


def test_labels_do_not_collide(monkeypatch):
    boxes = []
    draw = marks._draw_number
    monkeypatch.setattr(marks, '_draw_number', lambda *args: boxes.append(draw(*args)) or boxes[-1])
    draw_marks(IMAGE, [disc(160 + 2 * number, 120, 20) for number in range(30)])
    assert len(boxes) == 30
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= WIDTH and box.y0 >= 0 and box.y1 <= HEIGHT for box in boxes)


@pytest.mark.parametrize('mask', [disc(0, 0, 3), disc(160, 120, 1), Rle.encode(ROWS >= 0), Rle.encode(ROWS == 7)])
def test_any_mask_can_be_drawn(mask):
    assert draw_marks(IMAGE, [mask, mask]).shape == IMAGE.shape
    views = mask_views(IMAGE, mask)
    assert views.dtype == np.uint8
    assert views.shape[0] == marks.VIEW_PX


def test_the_views_show_the_mask_in_its_surroundings():
    mask = disc(100, 80, 20)
    context, zoom = marks._window(mask, marks.CONTEXT_SHARE), marks._window(mask, marks.ZOOM_SHARE)
    for window, share in ((context, 0.05), (zoom, 0.25)):
        area = (window.x1 - window.x0) * (window.y1 - window.y0)
        assert mask.area / area <= share + 0.02
        assert window.x0 <= 80
        assert window.x1 >= 120
    assert zoom.x1 - zoom.x0 < context.x1 - context.x0


def test_masks_that_cannot_be_shown():
    with pytest.raises(ValueError, match='an empty mask'):
        mask_views(IMAGE, Rle.encode(ROWS < 0))
    with pytest.raises(ValueError, match='on an image of 240 x 320'):
        draw_marks(IMAGE, [Rle.encode(np.ones((5, 5), bool))])
    assert (draw_marks(IMAGE, [Rle.encode(ROWS < 0)]) == IMAGE).all()

"""The overlay: positions of masks, labels and bars at any size, and text in any script."""

import threading
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from instructsam.core.display import lettering, overlay
from instructsam.core.display.overlay import PALETTE, draw_overlay, instance_color
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle

WARNING = 'built-in model: it has seen rendered tables only'


def make_result(boxes, height=480, width=640, phrase='red mug', **fields):
    """Return a result with rectangular masks (x0, y0, x1, y1), in fractions of the image."""
    instances = []
    for index, box in enumerate(boxes):
        x0, y0, x1, y1 = (round(v * size) for v, size in zip(box, (width, height) * 2, strict=True))
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = True
        instances.append(Instance(Rle.encode(mask), 0.95 - 0.05 * index, phrase, index))
    return Result('hand me the mugs', 'red mug', height, width, tuple(instances), **fields)


def grey(result, value=128):
    return np.full((result.height, result.width, 3), value, np.uint8)


@pytest.fixture
def texts(monkeypatch):
    """List every text that is drawn as (text, x0, y0, x1, y1), approximately the box of its glyphs."""
    drawn = []

    def record(image, text, x, baseline, size, color):
        drawn.append((text, x, baseline - round(0.7 * size), x + lettering.text_width(text, size), baseline))
        lettering.draw_text(image, text, x, baseline, size, color)

    monkeypatch.setattr(overlay, 'draw_text', record)
    return drawn


TEN = [(0.08 * i, 0.3 + 0.04 * i, 0.08 * i + 0.15, 0.45 + 0.04 * i) for i in range(10)]
SAME = [(0.3, 0.3, 0.6, 0.6)] * 10
CORNERS = [(0, 0, 0.1, 0.1), (0.9, 0, 1, 0.1), (0, 0.9, 0.1, 1), (0.9, 0.9, 1, 1), (0, 0, 1, 1)]


def test_fill_outline_and_background():
    result = make_result([(0.4, 0.4, 0.6, 0.6)])
    image = grey(result)
    before = image.copy()
    drawn = draw_overlay(image, result)
    assert drawn.dtype == np.uint8
    assert drawn.shape == image.shape
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(image, drawn)
    fill = 128 + overlay.FILL * (np.array(instance_color(0)) - 128)
    np.testing.assert_allclose(drawn[240, 320], fill, atol=2)
    np.testing.assert_allclose(drawn[240, 256], instance_color(0), atol=2)  # the outline lies on the mask's border
    np.testing.assert_array_equal(drawn[300:400, :200], image[300:400, :200])


def test_the_best_score_is_on_top():
    result = make_result([(0.3, 0.3, 0.7, 0.7), (0.3, 0.3, 0.7, 0.7)])
    inside = draw_overlay(grey(result), result)[240, 320].astype(int)
    distances = [np.abs(inside - instance_color(i)).sum() for i in range(2)]
    assert distances[0] < distances[1]


def test_a_tracked_object_shows_its_id_and_keeps_its_color(texts):
    """In a video, the order by score changes from image to image."""
    result = make_result([(0.1, 0.4, 0.3, 0.6), (0.6, 0.4, 0.9, 0.6)])
    first, second = (replace(each, track_id=5 - 2 * index) for index, each in enumerate(result.instances))
    for instances in ((first, second), (second, first)):
        texts.clear()
        drawn = draw_overlay(grey(result), replace(result, instances=instances))
        assert {text[0] for text in texts} >= {'#5 red mug 0.95', '#3 red mug 0.90'}
        for column, track_id in ((64, 5), (384, 3)):  # on the borders of the masks
            np.testing.assert_allclose(drawn[240, column], instance_color(track_id), atol=2)


def test_colors_are_distinct_for_the_color_blind():
    assert len({instance_color(i) for i in range(14)}) == 14
    # Vision of protanopes and deuteranopes (Vienot et al. 1999, on linear RGB), who see red and green as one hue.
    for red, green in ((0.112, 0.888), (0.292, 0.708)):
        seen = []
        for rgb in PALETTE:
            r, g, b = (np.array(rgb) / 255) ** 2.2
            yellow = red * r + green * g
            seen.append(np.array([yellow, max(b + 0.004 * (r - g), 0)]) ** (1 / 2.2))
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.1


@pytest.mark.parametrize('boxes', [TEN, SAME, CORNERS], ids=['ten', 'same', 'corners'])
@pytest.mark.parametrize('size', [(480, 640), (2160, 3840), (640, 480)], ids=str)
def test_labels_stay_inside_and_apart(texts, boxes, size):
    result = make_result(boxes, *size, warning=WARNING)
    draw_overlay(grey(result), result)
    labels = [text for text in texts if text[0].startswith('red mug')]
    assert len(labels) == len(boxes)
    for _, x0, y0, x1, y1 in texts:
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
    for (_, *a), (_, *b) in combinations(texts, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_long_phrases_are_shortened_but_keep_their_score(texts):
    result = make_result([(0.4, 0.4, 0.6, 0.6)], phrase='the very long mug ' * 30)
    draw_overlay(grey(result), result)
    (label,) = [text for text in texts if text[0].startswith('the very long')]
    assert label[0].endswith('… 0.95')
    assert label[3] - label[1] <= 320


def test_banner_and_footer(texts):
    result = make_result([], warning=WARNING)
    drawn = draw_overlay(grey(result), result)
    assert [text[0] for text in texts] == [WARNING, 'no target', 'hand me the mugs']
    np.testing.assert_array_equal(drawn[3, 3], overlay.WARNING)
    assert drawn[-3, 320].max() < 60  # the bar is dark on every image
    draw_overlay(grey(result), make_result([], finish_reason='time_budget'))
    assert [text[0] for text in texts[3:]] == ['no answer', 'hand me the mugs']


@pytest.mark.parametrize('size', [(1, 1), (48, 64), (90, 120), (20, 1000), (1000, 20), (1, 500)], ids=str)
@pytest.mark.parametrize('boxes', [[], CORNERS[:1], TEN], ids=['none', 'one', 'ten'])
def test_any_size(size, boxes):
    result = make_result(boxes, *size, phrase='a long phrase for a small image', warning=WARNING)
    assert draw_overlay(grey(result), result).shape == (*size, 3)


def test_empty_mask():
    draw_overlay(grey(make_result([])), make_result([(0.5, 0.5, 0.5, 0.5)]))


@pytest.mark.parametrize('text', ['a\nb\tc', 'cup \udc80', 'علبة حمراء', '🙂 mug', '', ' '], ids=ascii)
def test_odd_text(text):
    result = make_result(CORNERS, phrase=text)
    draw_overlay(grey(result), result)


def test_another_size_is_rejected():
    result = make_result([])
    with pytest.raises(ValueError, match='480 x 640'):
        draw_overlay(np.zeros((640, 480, 3), np.uint8), result)


def rendered(text, size=24):
    image = np.zeros((48, 480, 3), np.uint8)
    lettering.draw_text(image, text, 4, 32, size, (255, 255, 255))
    return image


SCRIPTS = ['crème brûlée', 'Grüße', 'красная кружка', 'κόκκινη κούπα', '红色的杯子', '赤いマグカップ', '빨간 머그잔']


@pytest.mark.skipif(not hasattr(lettering.cv2, 'FontFace'), reason='OpenCV 4: depends on the fonts of the system')
@pytest.mark.parametrize('text', SCRIPTS, ids=ascii)
def test_scripts_are_legible(text):
    for character in set(text) - {' '}:
        assert (rendered(character) != rendered('?')).any(), f'{character} has no glyph'
        assert rendered(character).any()


@pytest.mark.parametrize('text', ['red mug 0.93', 'crème'], ids=ascii)
def test_lettering_without_opencv_5(monkeypatch, text):
    monkeypatch.setattr(lettering, '_font_face', lambda: None)
    image = rendered(text)
    columns = np.flatnonzero(image.any(axis=(0, 2)))
    assert 0 <= columns[0] - 4 <= 4
    assert abs(columns[-1] - 4 - lettering.text_width(text, 24)) <= 4
    assert lettering.text_width(lettering.fit(text * 9, 24, 100), 24) <= 100
    lettering.draw_text(image, text, 470, 2, 24, (255, 255, 255))  # the border cuts it off


def test_lettering_from_several_threads():
    text = 'red mug 红色 0.93'
    expected = rendered(text)
    wrong = []

    def work():
        for i in range(1000):
            rendered('blue cup', 14 + i % 20)
            wrong.append((rendered(text) != expected).any())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 4000
    assert not any(wrong)

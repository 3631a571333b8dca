"""The parts of the page as pure functions: masks, table, outcome, times, history, scene."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from instructsam.core.result import STEPS, Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.camera_model import CameraModel
from instructsam.core.spatial.geometry import locate
from instructsam.core.web.mask_view import mask_view, outline
from instructsam.core.web.scene import MOST_POINTS, Scene, SceneObject, located_objects, scene_of_depth
from instructsam.core.web.scene_view import EDGES, scene_figure
from instructsam.core.web.source import Answer
from instructsam.core.web.summary import entry_of, error_view, history_view, status_view, times_view

HOSTILE = '<img src=x onerror=alert(1)>"\'&${alert(1)}{{value}}'
IMAGE = np.full((60, 80, 3), 128, np.uint8)


def disc(x, y, radius, size=(60, 80)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def answered(masks, phrase='mug', **fields):
    instances = tuple(Instance(Rle.encode(mask), 0.9 - 0.2 * i, phrase, i) for i, mask in enumerate(masks))
    return Result('the mugs', phrase, 60, 80, instances, (phrase,), timings_ms=dict.fromkeys(STEPS, 10.0), **fields)


class Tags(HTMLParser):
    """The tags of an HTML text, with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def test_an_outline_covers_its_mask_and_leaves_out_its_holes():
    mask = disc(30, 30, 22) & ~disc(34, 28, 9) | disc(70, 10, 4)
    lines = [part.rstrip('Z').split('L') for part in outline(Rle.encode(mask)).split('M')[1:]]
    assert len(lines) == 3
    drawn = np.zeros(mask.shape, np.uint8)
    for line in lines:  # even-odd, as the page fills it
        area = np.zeros_like(drawn)
        cv2.fillPoly(
            area, [np.array([[float(n) - 0.5 for n in point.split()] for point in line]).round().astype(int)], 1
        )
        drawn ^= area
    union = (drawn.astype(bool) | mask).sum()
    assert (drawn.astype(bool) & mask).sum() / union > 0.9


def test_masks_and_rows_belong_together():
    view = mask_view(IMAGE, answered([disc(20, 20, 10), disc(60, 40, 8)]))
    tags = Tags(view)
    paths = tags.named('path')
    assert [each['class'] for each in paths] == ['is-mask m1', 'is-mask m0']  # the best one is on top
    assert tags.named('svg')[0]['viewbox'] == '0 0 80 60'
    rows = [each for each in tags.named('tr') if 'is-row' in each.get('class', '')]
    assert [each['class'] for each in rows] == ['is-row r0', 'is-row r1']
    assert len(tags.named('input')) == 2
    for rule in ('.r0 input:not(:checked)) .m0{display:none}', '.r1:hover) .is-mask:not(.m1)', '.m1:hover) .r1'):
        assert f'.is-view:has({rule}' in view
    assert '<title>1 mug 0.90</title>' in view
    assert '>0.70<' in view.replace('</meter> ', '</meter>').replace('</td>', '<') or ' 0.70</td>' in view


def test_nothing_to_show():
    tags = Tags(mask_view(IMAGE, answered([])))
    assert tags.named('path') == tags.named('table') == []
    assert len(tags.named('image')) == 1


def test_a_large_image_is_scaled_down_in_the_page():
    image = np.zeros((100, 4000, 3), np.uint8)
    result = Result('a', 'a', 100, 4000, (Instance(Rle.encode(disc(50, 50, 20, (100, 4000))), 0.9, 'a', 0),))
    tags = Tags(mask_view(image, result))
    assert tags.named('svg')[0]['viewbox'] == '0 0 4000 100'
    encoded = tags.named('image')[0]['href']
    assert len(encoded) < 10_000


def test_text_from_outside_is_escaped():
    result = replace(answered([disc(20, 20, 10)], HOSTILE, warning=HOSTILE), instruction=HOSTILE)
    entry = entry_of(Answer(IMAGE, result, note=HOSTILE))
    for html in (entry.status, entry.masks, entry.times, history_view([entry]), error_view(HOSTILE)):
        tags = Tags(html)
        assert not [attributes for _, attributes in tags.found if 'onerror' in attributes]
        assert {each.get('src', '')[:5] for each in tags.named('img')} <= {'data:'}


@pytest.mark.parametrize(
    ('result', 'kind', 'said'),
    [
        (answered([disc(20, 20, 10)]), 'is-ok', '1 object'),
        (answered([disc(20, 20, 10), disc(60, 40, 8)]), 'is-ok', '2 objects'),
        (answered([]), 'is-none', 'nothing matches'),
        (answered([], finish_reason='time_budget'), 'is-none', 'ended by the time budget'),
        (replace(answered([], finish_reason='token_budget'), phrases=()), 'is-error', 'no answer'),
    ],
)
def test_status(result, kind, said):
    view = status_view(result)
    assert kind in view
    assert said in view
    assert '<q>mug</q>' in view
    assert ('ended by the' in view) == (result.finish_reason != 'stop')
    assert ('another model' in view) == (not result.instances)
    assert '>the mugs</span>' in view  # an answer of the history may be of another question than the last one


def test_times():
    view = times_view(answered([]), 'from before')
    assert 'total <b>50 ms</b>' in view
    assert [re.search(r'flex:([\d.]+)', each['style'])[1] for each in Tags(view).named('i')[:5]] == ['10.000'] * 5
    assert 'image encoders' in view
    assert 'from before' in view
    assert times_view(Result('a', '', 1, 1, ())) == ''


def test_history_shows_the_newest_first():
    entries = [entry_of(Answer(IMAGE, answered([disc(20, 20, 10)] * count))) for count in (1, 0)]
    buttons = Tags(history_view(entries)).named('button')
    assert [each['data-index'] for each in buttons] == ['1', '0']


def table_scene():
    """A box 6 cm high on a table 40 cm below the camera."""
    depth = np.full((60, 80), 400, np.uint16)
    mask = np.zeros((60, 80), bool)
    mask[20:36, 30:44] = True
    depth[mask] = 340
    camera = CameraModel(60, 80, [[90, 0, 39.5], [0, 90, 29.5], [0, 0, 1]])
    return locate(answered([mask]), depth, camera), depth, camera


def test_a_scene_of_depth():
    result, depth, camera = table_scene()
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    scene = scene_of_depth(result, image, depth, camera)
    assert len(scene.points) == len(scene.colors) <= MOST_POINTS
    row, column = 5, 7
    expected = [(column - 39.5) / 90 * 0.4, (row - 29.5) / 90 * 0.4, 0.4]
    np.testing.assert_allclose(scene.points[row * 80 + column], expected, atol=1e-5)
    (each,) = scene.objects
    np.testing.assert_allclose(each.center[2], 0.37, atol=0.004)
    view = mask_view(image, result, scene)
    assert 'cm<br>' in view
    figure = json.loads(json.dumps(scene_figure(scene, result)))
    names = [trace['name'] for trace in figure['data']]
    assert names[:3] == ['surroundings', '1 mug 0.90', '1 mug 0.90']
    assert names[3:] == [f'grasp {n + 1} of 1' for n in range(len(each.grasps))]
    assert figure['layout']['scene']['camera']['up'] == {'x': 0, 'y': -1, 'z': 0}


@pytest.mark.parametrize(('gap_m', 'is_free'), [(0.01, False), (0.1, True)])
def test_grasps_of_a_nodes_objects_keep_clear_of_each_other(gap_m, is_free):
    """A node sends the points and boxes of its objects, without the depth around them."""
    x, y, z = np.meshgrid(np.linspace(-0.02, 0.02, 21), np.linspace(-0.05, 0.05, 51), np.linspace(-0.03, 0.03, 31))
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    size_m, rotation = np.array([0.1, 0.04, 0.06]), np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    at_m = [np.array([number * (0.04 + gap_m), 0, 0]) for number in range(3)]
    objects = [SimpleNamespace(points=points + at, center=at, rotation=rotation, size_m=size_m) for at in at_m]
    _, middle, _ = located_objects(objects)
    assert bool(middle.grasps) == is_free
    assert ('touch its surroundings' in middle.no_grasp) != is_free


def test_depth_without_a_measurement_has_an_empty_scene():
    result, depth, camera = table_scene()
    depth[:] = 0
    result = locate(result, depth, camera)
    scene = scene_of_depth(result, IMAGE, depth, camera)
    assert (len(scene.points), scene.objects) == (0, ())
    assert 'of the mask has a depth' in mask_view(IMAGE, result, scene)
    assert scene_figure(scene, result)['data'] == []


def test_edges_of_a_box():
    box = SceneObject(0, np.zeros((1, 3)), np.ones(3), np.eye(3), np.array([1.0, 2.0, 3.0]))
    assert len(EDGES) == 12
    lengths = sorted(float(np.linalg.norm(box.corners[a] - box.corners[b])) for a, b in EDGES)
    assert lengths == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    np.testing.assert_allclose(box.corners.mean(axis=0), 1)
    scene = Scene((box,), 'base_link', is_optical=False, points=np.zeros((0, 3)), colors=np.zeros((0, 3), np.uint8))
    assert scene_figure(scene, answered([disc(20, 20, 10)]))['layout']['scene']['camera']['up']['z'] == 1

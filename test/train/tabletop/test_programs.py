"""The meaning of instructions: every type of program on hand-made scenes, without rendering."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.scene import SceneObject

SIZES = {'small': 0.05, 'medium': 0.07, 'large': 0.10}


@pytest.fixture
def camera():
    """A camera one metre away that looks along +y, 45 degrees down: x is right, -y is towards the camera."""
    forward = np.array([0, 1, -1]) / 2**0.5
    right = np.array([1.0, 0, 0])
    return Camera(224, 224, 220.0, -forward, np.stack([right, np.cross(forward, right), forward], axis=1))


@pytest.fixture
def lay(camera):
    """Return a function that makes a scene of cubes from (category, color, x, y, more) each.

    more: fields of SceneObject, and `side` and `z` in m.
    """

    def build(*specs):
        return SimpleNamespace(
            camera=camera,
            ids=np.zeros((224, 224)),
            objects=tuple(cube(i, camera, *spec) for i, spec in enumerate(specs)),
        )

    return build


def cube(index, camera, category, color, x, y, more=None):
    more = dict(more or {})
    size = more.pop('size', 'medium')
    side, z = more.pop('side', SIZES[size]), more.pop('z', 0.0)
    corners = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (0, 2)]) * side / 2 + (x, y, z)
    pixels = camera.project(corners)
    box = (*np.floor(pixels.min(axis=0)).astype(int).tolist(), *np.ceil(pixels.max(axis=0)).astype(int).tolist())
    area = (box[2] - box[0]) * (box[3] - box[1])
    center = np.array([x, y, z + side / 2])
    footprint = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * side / 2 + (x, y)
    obj = SceneObject(
        index,
        category,
        color,
        'ceramic',
        size,
        np.full(3, side),
        center,
        camera.to_camera(center[None])[0],
        footprint,
        box,
        area,
        area,
        -1,
        'on',
    )
    return replace(obj, **more)


def answer(program, scene):
    return p.evaluate(program, scene)


MUG, BOWL, BALL, OBJECT = p.Noun('mug'), p.Noun('bowl'), p.Noun('ball'), p.Noun('object')


def test_category_and_group(lay):
    scene = lay(('mug', 'red', -0.2, 0), ('apple', 'red', 0, 0), ('mug', 'blue', 0.2, 0), ('lemon', 'yellow', 0, 0.2))
    assert answer(MUG, scene) == (0, 2)
    assert answer(p.Noun('fruit'), scene) == (1, 3)
    assert answer(OBJECT, scene) == (0, 1, 2, 3)
    assert answer(p.Noun('teapot'), scene) == ()


def test_attributes(lay):
    scene = lay(
        ('mug', 'red', -0.2, 0, {'size': 'small'}),
        ('mug', 'blue', 0, 0, {'size': 'large'}),
        ('mug', 'red', 0.2, 0, {'size': 'large', 'material': 'metal'}),
    )
    assert answer(p.Color(MUG, 'red'), scene) == (0, 2)
    assert answer(p.Material(MUG, 'metal'), scene) == (2,)
    assert answer(p.Size(MUG, 'small'), scene) == (0,)
    assert answer(p.Size(p.Color(MUG, 'red'), 'large'), scene) == (2,)


def test_similar_colors_are_never_distinguished(lay):
    scene = lay(('bowl', 'silver', 0, 0), ('bowl', 'red', 0.2, 0))
    with pytest.raises(p.BorderlineError):
        answer(p.Color(BOWL, 'gray'), scene)
    assert answer(p.Color(BOWL, 'red'), scene) == (1,)


def test_sizes_need_a_small_and_a_large_one(lay):
    scene = lay(('mug', 'red', 0, 0, {'size': 'medium'}), ('mug', 'blue', 0.2, 0, {'size': 'large'}))
    with pytest.raises(p.BorderlineError):
        answer(p.Size(MUG, 'large'), scene)


@pytest.mark.parametrize(
    ('relation', 'expected'), [('left', (0,)), ('right', (1,)), ('front', (2,)), ('behind', (3,)), ('near', ())]
)
def test_directions_are_those_of_the_image(lay, relation, expected):
    around = (('red', -0.3, 0), ('blue', 0.3, 0), ('white', 0, -0.3), ('black', 0, 0.3))
    scene = lay(*(('mug', *one) for one in around), ('bowl', 'red', 0, 0))
    straight = [i for i in range(4) if (i < 2) == (relation in ('left', 'right'))]
    if relation != 'near':  # mugs on the other axis would be borderline
        scene.objects = tuple(replace(scene.objects[i], id=k) for k, i in enumerate([*straight, 4]))
        expected = tuple(straight.index(i) for i in expected)
    assert answer(p.Relate(MUG, relation, BOWL), scene) == expected


def test_a_mug_that_is_hardly_left_is_borderline(lay):
    scene = lay(('mug', 'red', -0.03, 0.15), ('bowl', 'red', 0, 0))
    with pytest.raises(p.BorderlineError):
        answer(p.Relate(MUG, 'left', BOWL), scene)


def test_next_to_depends_on_the_gap(lay):
    scene = lay(('mug', 'red', 0.10, 0), ('mug', 'blue', 0.4, 0), ('bowl', 'red', 0, 0))
    assert answer(p.Relate(MUG, 'near', BOWL), scene) == (0,)
    with pytest.raises(p.BorderlineError):
        answer(p.Relate(MUG, 'near', BOWL), lay(('mug', 'red', 0.15, 0), ('bowl', 'red', 0, 0)))


def test_between(lay):
    scene = lay(('mug', 'red', 0, 0), ('mug', 'blue', 0.45, 0.1), ('bowl', 'red', -0.25, 0), ('ball', 'red', 0.25, 0))
    assert answer(p.Between(MUG, BOWL, BALL), scene) == (0,)
    with pytest.raises(p.BorderlineError):
        answer(
            p.Between(MUG, BOWL, BALL),
            lay(('mug', 'red', 0.18, 0), ('bowl', 'red', -0.25, 0), ('ball', 'red', 0.25, 0)),
        )


def test_closest_and_farthest(lay):
    scene = lay(('mug', 'red', 0.12, 0), ('mug', 'blue', 0.25, 0), ('mug', 'white', -0.4, 0), ('bowl', 'red', 0, 0))
    assert answer(p.Closest(MUG, BOWL), scene) == (0,)
    assert answer(p.Closest(MUG, BOWL, farthest=True), scene) == (2,)
    with pytest.raises(p.BorderlineError):
        answer(p.Closest(MUG, BOWL), lay(('mug', 'red', 0.2, 0), ('mug', 'blue', -0.21, 0), ('bowl', 'red', 0, 0)))


def test_an_anchor_must_be_unique(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('bowl', 'red', 0, 0), ('bowl', 'blue', 0.2, 0))
    with pytest.raises(p.BorderlineError):
        answer(p.Relate(MUG, 'left', BOWL), scene)
    assert answer(p.Relate(MUG, 'left', p.Color(BOWL, 'red')), scene) == (0,)


@pytest.fixture
def kitchen(lay):
    return lay(
        ('bowl', 'red', -0.2, 0, {'side': 0.12}),
        ('apple', 'green', -0.2, 0, {'z': 0.03, 'parent': 0, 'relation': 'in'}),
        ('tray', 'brown', 0.2, 0, {'side': 0.2}),
        ('apple', 'red', 0.2, 0, {'z': 0.02, 'parent': 2}),
        ('bowl', 'white', 0, 0.3, {'side': 0.12}),
    )


def test_containment_and_support(kitchen):
    apple, tray = p.Noun('apple'), p.Noun('tray')
    assert answer(p.Relate(apple, 'in', p.Color(BOWL, 'red')), kitchen) == (1,)
    assert answer(p.Relate(OBJECT, 'on', tray), kitchen) == (3,)
    assert answer(p.Relate(apple, 'in', p.Color(BOWL, 'white')), kitchen) == ()
    assert answer(p.Holding(BOWL, 'in', apple), kitchen) == (0,)
    assert answer(p.Holding(OBJECT, 'on', p.Color(apple, 'red')), kitchen) == (2,)
    assert answer(p.Empty(BOWL), kitchen) == (4,)


def test_contents_are_not_left_of_their_carrier(kitchen):
    relations = Relations(kitchen)
    assert relations.holds('left', 1, 0) is False
    assert relations.holds('near', 1, 0) is False


def test_superlatives(lay):
    scene = lay(
        ('mug', 'red', -0.3, 0.1, {'size': 'small'}),
        ('mug', 'blue', 0, -0.2, {'size': 'medium'}),
        ('mug', 'white', 0.25, 0.3, {'side': 0.15}),
    )
    expected = {'leftmost': 0, 'rightmost': 2, 'nearest': 1, 'farthest': 2, 'largest': 2, 'smallest': 0}
    for order, item in expected.items():
        assert answer(p.Extreme(MUG, order), scene) == (item,), order
    with pytest.raises(p.BorderlineError):
        answer(p.Extreme(MUG, 'leftmost'), lay(('mug', 'red', 0, 0), ('mug', 'blue', 0.03, 0.2)))
    with pytest.raises(p.BorderlineError):
        answer(p.Extreme(BOWL, 'leftmost'), lay(('bowl', 'red', 0, 0)))


def test_a_near_small_object_is_not_called_the_largest(lay):
    scene = lay(('mug', 'red', 0, -0.45, {'side': 0.08}), ('mug', 'blue', 0.2, 0.45, {'side': 0.10}))
    assert scene.objects[0].whole_px > scene.objects[1].whole_px  # the image is misleading, so it is borderline
    with pytest.raises(p.BorderlineError):
        answer(p.Extreme(MUG, 'largest'), scene)


def test_counting(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0, 0), ('mug', 'red', 0.3, 0), ('ball', 'red', 0, 0.3))
    assert answer(p.Exactly(MUG, 3), scene) == (0, 1, 2)
    assert answer(p.Exactly(p.Color(MUG, 'red'), 2), scene) == (0, 2)
    assert answer(p.Extreme(MUG, 'leftmost', 2), scene) == (0, 1)
    with pytest.raises(p.BorderlineError):
        answer(p.Exactly(MUG, 2), scene)


def test_exclusion(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0, 0), ('mug', 'green', 0.3, 0), ('ball', 'red', 0, 0.3))
    assert answer(p.Except(MUG, p.Color(MUG, 'red')), scene) == (1, 2)
    assert answer(p.Except(OBJECT, BALL), scene) == (0, 1, 2)
    assert answer(p.Except(OBJECT, MUG, several=True), scene) == (3,)
    for wrong in (p.Except(OBJECT, MUG), p.Except(BALL, BALL), p.Except(OBJECT, BOWL)):
        with pytest.raises(p.BorderlineError):
            answer(wrong, scene)


def test_intent(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('glass', 'clear', 0, 0), ('knife', 'silver', 0.3, 0))
    assert answer(p.Purpose('drink'), scene) == (0, 1)
    assert answer(p.Purpose('cut'), scene) == (2,)
    assert answer(p.Purpose('read'), scene) == ()
    with pytest.raises(p.BorderlineError):  # a bottle might serve if need be
        answer(p.Purpose('drink'), lay(('mug', 'red', 0, 0), ('bottle', 'green', 0.2, 0)))


def test_barely_visible_objects_must_not_matter(lay):
    hidden = {'seen_px': 100, 'whole_px': 1000}
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0.3, 0, hidden), ('ball', 'red', 0, 0))
    with pytest.raises(p.BorderlineError):
        answer(MUG, scene)
    with pytest.raises(p.BorderlineError):
        answer(p.Except(OBJECT, BALL), scene)
    assert answer(BALL, scene) == (2,)
    assert answer(p.Color(MUG, 'red'), scene) == (0,)  # the hidden one is blue, so it does not matter


def test_completely_hidden_objects_do_not_count(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0.3, 0, {'seen_px': 0, 'whole_px': 1000}))
    assert answer(MUG, scene) == (0,)


def test_programs_read_as_text():
    assert p.to_text(p.Relate(p.Color(MUG, 'red'), 'left', BOWL)) == 'Relate(Color(Kind(mug), red), left, Kind(bowl))'
    assert [type(part).__name__ for part in p.subprograms(p.Closest(MUG, BOWL))] == ['Closest', 'Noun', 'Noun']

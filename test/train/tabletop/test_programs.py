"""What instructions mean: every kind of program on tables laid by hand, without drawing anything."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from instructsam.train.tabletop.language import program as p
from instructsam.train.tabletop.language.relations import Relations
from instructsam.train.tabletop.scenes.render import Camera
from instructsam.train.tabletop.scenes.scene import Object

SIZES = {'small': 0.05, 'medium': 0.07, 'large': 0.10}


@pytest.fixture
def camera():
    """One metre away, 45 degrees down, looking along +y: x is right, -y is towards the camera."""
    forward = np.array([0, 1, -1]) / 2**0.5
    right = np.array([1.0, 0, 0])
    return Camera(224, 224, 220.0, -forward, np.stack([right, np.cross(forward, right), forward], axis=1))


@pytest.fixture
def lay(camera):
    """lay((category, color, x, y, {more}), ...): a scene of cubes; more: any field of Object, size, side (m), z."""

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
    thing = Object(
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
    return replace(thing, **more)


def asked(program, scene):
    return p.truth(program, scene)


MUG, BOWL, BALL, THING = p.Kind('mug'), p.Kind('bowl'), p.Kind('ball'), p.Kind('object')


def test_category_and_group(lay):
    scene = lay(('mug', 'red', -0.2, 0), ('apple', 'red', 0, 0), ('mug', 'blue', 0.2, 0), ('lemon', 'yellow', 0, 0.2))
    assert asked(MUG, scene) == (0, 2)
    assert asked(p.Kind('fruit'), scene) == (1, 3)
    assert asked(THING, scene) == (0, 1, 2, 3)
    assert asked(p.Kind('teapot'), scene) == ()


def test_attributes(lay):
    scene = lay(
        ('mug', 'red', -0.2, 0, {'size': 'small'}),
        ('mug', 'blue', 0, 0, {'size': 'large'}),
        ('mug', 'red', 0.2, 0, {'size': 'large', 'material': 'metal'}),
    )
    assert asked(p.Color(MUG, 'red'), scene) == (0, 2)
    assert asked(p.Material(MUG, 'metal'), scene) == (2,)
    assert asked(p.Size(MUG, 'small'), scene) == (0,)
    assert asked(p.Size(p.Color(MUG, 'red'), 'large'), scene) == (2,)


def test_colors_that_look_alike_are_never_told_apart(lay):
    scene = lay(('bowl', 'silver', 0, 0), ('bowl', 'red', 0.2, 0))
    with pytest.raises(p.BorderlineError):
        asked(p.Color(BOWL, 'gray'), scene)
    assert asked(p.Color(BOWL, 'red'), scene) == (1,)


def test_sizes_need_a_small_and_a_large_one(lay):
    scene = lay(('mug', 'red', 0, 0, {'size': 'medium'}), ('mug', 'blue', 0.2, 0, {'size': 'large'}))
    with pytest.raises(p.BorderlineError):
        asked(p.Size(MUG, 'large'), scene)


@pytest.mark.parametrize(
    ('relation', 'expected'), [('left', (0,)), ('right', (1,)), ('front', (2,)), ('behind', (3,)), ('near', ())]
)
def test_directions_are_those_of_the_picture(lay, relation, expected):
    around = (('red', -0.3, 0), ('blue', 0.3, 0), ('white', 0, -0.3), ('black', 0, 0.3))
    scene = lay(*(('mug', *one) for one in around), ('bowl', 'red', 0, 0))
    straight = [i for i in range(4) if (i < 2) == (relation in ('left', 'right'))]
    if relation != 'near':  # those on the other axis are hard to tell, so they are left out here
        scene.objects = tuple(replace(scene.objects[i], id=k) for k, i in enumerate([*straight, 4]))
        expected = tuple(straight.index(i) for i in expected)
    assert asked(p.Relate(MUG, relation, BOWL), scene) == expected


def test_a_mug_that_is_hardly_left_is_not_asked_for(lay):
    scene = lay(('mug', 'red', -0.03, 0.15), ('bowl', 'red', 0, 0))
    with pytest.raises(p.BorderlineError):
        asked(p.Relate(MUG, 'left', BOWL), scene)


def test_next_to_goes_by_the_gap(lay):
    scene = lay(('mug', 'red', 0.10, 0), ('mug', 'blue', 0.4, 0), ('bowl', 'red', 0, 0))
    assert asked(p.Relate(MUG, 'near', BOWL), scene) == (0,)
    with pytest.raises(p.BorderlineError):
        asked(p.Relate(MUG, 'near', BOWL), lay(('mug', 'red', 0.15, 0), ('bowl', 'red', 0, 0)))


def test_between(lay):
    scene = lay(('mug', 'red', 0, 0), ('mug', 'blue', 0.45, 0.1), ('bowl', 'red', -0.25, 0), ('ball', 'red', 0.25, 0))
    assert asked(p.Between(MUG, BOWL, BALL), scene) == (0,)
    with pytest.raises(p.BorderlineError):
        asked(
            p.Between(MUG, BOWL, BALL),
            lay(('mug', 'red', 0.18, 0), ('bowl', 'red', -0.25, 0), ('ball', 'red', 0.25, 0)),
        )


def test_closest_and_farthest(lay):
    scene = lay(('mug', 'red', 0.12, 0), ('mug', 'blue', 0.25, 0), ('mug', 'white', -0.4, 0), ('bowl', 'red', 0, 0))
    assert asked(p.Closest(MUG, BOWL), scene) == (0,)
    assert asked(p.Closest(MUG, BOWL, farthest=True), scene) == (2,)
    with pytest.raises(p.BorderlineError):
        asked(p.Closest(MUG, BOWL), lay(('mug', 'red', 0.2, 0), ('mug', 'blue', -0.21, 0), ('bowl', 'red', 0, 0)))


def test_an_anchor_must_be_unique(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('bowl', 'red', 0, 0), ('bowl', 'blue', 0.2, 0))
    with pytest.raises(p.BorderlineError):
        asked(p.Relate(MUG, 'left', BOWL), scene)
    assert asked(p.Relate(MUG, 'left', p.Color(BOWL, 'red')), scene) == (0,)


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
    apple, tray = p.Kind('apple'), p.Kind('tray')
    assert asked(p.Relate(apple, 'in', p.Color(BOWL, 'red')), kitchen) == (1,)
    assert asked(p.Relate(THING, 'on', tray), kitchen) == (3,)
    assert asked(p.Relate(apple, 'in', p.Color(BOWL, 'white')), kitchen) == ()
    assert asked(p.Holding(BOWL, 'in', apple), kitchen) == (0,)
    assert asked(p.Holding(THING, 'on', p.Color(apple, 'red')), kitchen) == (2,)
    assert asked(p.Empty(BOWL), kitchen) == (4,)


def test_what_lies_in_something_is_not_left_of_it(kitchen):
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
        assert asked(p.Extreme(MUG, order), scene) == (item,), order
    with pytest.raises(p.BorderlineError):
        asked(p.Extreme(MUG, 'leftmost'), lay(('mug', 'red', 0, 0), ('mug', 'blue', 0.03, 0.2)))
    with pytest.raises(p.BorderlineError):
        asked(p.Extreme(BOWL, 'leftmost'), lay(('bowl', 'red', 0, 0)))


def test_a_near_small_thing_is_not_called_the_largest(lay):
    scene = lay(('mug', 'red', 0, -0.45, {'side': 0.08}), ('mug', 'blue', 0.2, 0.45, {'side': 0.10}))
    assert scene.objects[0].whole_px > scene.objects[1].whole_px  # the picture misleads, so it is not asked
    with pytest.raises(p.BorderlineError):
        asked(p.Extreme(MUG, 'largest'), scene)


def test_counting(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0, 0), ('mug', 'red', 0.3, 0), ('ball', 'red', 0, 0.3))
    assert asked(p.Exactly(MUG, 3), scene) == (0, 1, 2)
    assert asked(p.Exactly(p.Color(MUG, 'red'), 2), scene) == (0, 2)
    assert asked(p.Extreme(MUG, 'leftmost', 2), scene) == (0, 1)
    with pytest.raises(p.BorderlineError):
        asked(p.Exactly(MUG, 2), scene)


def test_exclusion(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0, 0), ('mug', 'green', 0.3, 0), ('ball', 'red', 0, 0.3))
    assert asked(p.Except(MUG, p.Color(MUG, 'red')), scene) == (1, 2)
    assert asked(p.Except(THING, BALL), scene) == (0, 1, 2)
    assert asked(p.Except(THING, MUG, several=True), scene) == (3,)
    for wrong in (p.Except(THING, MUG), p.Except(BALL, BALL), p.Except(THING, BOWL)):
        with pytest.raises(p.BorderlineError):
            asked(wrong, scene)


def test_intent(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('glass', 'clear', 0, 0), ('knife', 'silver', 0.3, 0))
    assert asked(p.Use('drink'), scene) == (0, 1)
    assert asked(p.Use('cut'), scene) == (2,)
    assert asked(p.Use('read'), scene) == ()
    with pytest.raises(p.BorderlineError):  # one may drink from a bottle
        asked(p.Use('drink'), lay(('mug', 'red', 0, 0), ('bottle', 'green', 0.2, 0)))


def test_what_is_barely_seen_must_not_matter(lay):
    hidden = {'seen_px': 100, 'whole_px': 1000}
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0.3, 0, hidden), ('ball', 'red', 0, 0))
    with pytest.raises(p.BorderlineError):
        asked(MUG, scene)
    with pytest.raises(p.BorderlineError):
        asked(p.Except(THING, BALL), scene)
    assert asked(BALL, scene) == (2,)
    assert asked(p.Color(MUG, 'red'), scene) == (0,)  # the hidden one is blue in any case


def test_what_is_wholly_hidden_is_not_there(lay):
    scene = lay(('mug', 'red', -0.3, 0), ('mug', 'blue', 0.3, 0, {'seen_px': 0, 'whole_px': 1000}))
    assert asked(MUG, scene) == (0,)


def test_programs_read_as_text():
    assert p.show(p.Relate(p.Color(MUG, 'red'), 'left', BOWL)) == 'Relate(Color(Kind(mug), red), left, Kind(bowl))'
    assert [type(part).__name__ for part in p.parts(p.Closest(MUG, BOWL))] == ['Closest', 'Kind', 'Kind']

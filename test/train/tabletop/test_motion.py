"""Scenes in motion: the same by seed, smooth, nothing touches, and ids stay with what moves."""

import numpy as np
import pytest

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.tracking import Tracker
from instructsam.train.tabletop.scenes import motion
from instructsam.train.tabletop.scenes.layout import apart
from instructsam.train.tabletop.scenes.motion import Motion
from instructsam.train.tabletop.world.splits import generator

SIZE = (224, 168)
SCENES = range(6)
LEAST_PX = 30  # of an object that counts as seen


@pytest.fixture(scope='module')
def stages():
    """{number of the scene: (things, room, camera)}."""
    scene = pytest.importorskip('instructsam.train.tabletop.scenes.scene')
    return {index: scene.staged('test', index, 11, SIZE) for index in SCENES}


def positions(motion, time_s):
    """[things, 3] m, and that of the camera."""
    things, camera = motion.at(time_s)
    return np.array([thing.position for thing in things]), camera.position


def root(things, index):
    while things[index].parent >= 0:
        index = things[index].parent
    return index


def test_the_same_by_seed_and_in_any_order(stages):
    for index, stage in stages.items():
        first, second = Motion(index, *stage), Motion(index, *stage)
        later = [positions(first, time_s) for time_s in (3.3, 1.0)][::-1]
        for one, other in zip(later, (positions(second, 1.0), positions(second, 3.3)), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    assert any((positions(Motion(1, *s), 1.0)[0] != positions(Motion(2, *s), 1.0)[0]).any() for s in stages.values())


def test_it_begins_as_staged_and_stays_so_where_nothing_may_move(stages):
    for index, (things, room, camera) in stages.items():
        as_staged = np.array([thing.position for thing in things]), camera.position
        still = Motion(index, things, room, camera, objects=False, sway=False)
        for place, then in zip(as_staged, positions(Motion(index, things, room, camera), 0.0), strict=True):
            np.testing.assert_allclose(then, place, atol=1e-12)
        for place, then in zip(as_staged, positions(still, 2.7), strict=True):
            np.testing.assert_array_equal(then, place)


def test_nothing_jumps_and_what_is_carried_goes_along(stages):
    step_s, moved = 0.02, 0
    fastest_m = motion.SLIDE_M[1] * 2 * np.pi / motion.SLIDE_ROUND_S[0] * step_s
    for index, (things, room, camera) in stages.items():
        moving = Motion(index, things, room, camera)
        places, cameras = zip(*(positions(moving, time_s) for time_s in np.arange(0, 10, step_s)), strict=True)
        offsets = np.array(places) - places[0]
        steps_m = np.linalg.norm(np.diff(offsets, axis=0), axis=2)
        assert steps_m.max() <= fastest_m
        assert (offsets[..., 2] == 0).all()
        away_m = np.linalg.norm(camera.position - camera.on_table(((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)))
        swing_m = away_m * motion.SWAY * 2 * np.pi / motion.ROUND_S * step_s
        assert 0 < np.linalg.norm(np.diff(cameras, axis=0), axis=1).max() <= swing_m
        for i in range(len(things)):
            np.testing.assert_allclose(offsets[:, i], offsets[:, root(things, i)], atol=1e-12)
        moved += len({root(things, i) for i in np.flatnonzero(offsets.any(axis=(0, 2)))})
    assert moved >= len(stages)


def test_nothing_touches_on_the_way(stages):
    for index, (things, room, camera) in stages.items():
        moving = Motion(index, things, room, camera)
        for time_s in np.arange(0, 10, 0.25):
            then, _ = moving.at(time_s)
            hulls = [thing.footprint for thing in then]
            for i in range(len(then)):
                if (then[i].position != things[i].position).any():
                    assert room.table.contains(hulls[i])
                    others = [j for j in range(len(then)) if root(things, j) != root(things, i)]
                    assert all(apart(hulls[i], hulls[j], 0.0) for j in others), (index, time_s)


@pytest.mark.usefixtures('opengl')
def test_ids_stay_with_what_moves_before_a_moving_camera(stages):
    """Five results a second; masks are the true ones, in an order of chance."""
    from instructsam.train.tabletop.scenes.scene import photograph_things

    links = 0
    for index, (things, room, camera) in list(stages.items())[:3]:
        moving, tracker, ids = Motion(index, things, room, camera), Tracker(), {}
        rng = np.random.default_rng(index)
        for number in range(12):
            now, eye = moving.at(number / 5)
            made = photograph_things(now, room, eye, generator('test', 11, index, 'sensor'))
            seen = [item for item in made.objects if item.seen_px >= LEAST_PX]
            seen = [seen[i] for i in rng.permutation(len(seen))]
            instances = tuple(Instance(Rle.encode(made.ids == each.id), 0.9, each.category, 0) for each in seen)
            tracked = tracker.update(Result('', '', *made.ids.shape, instances), made.rgb)
            for each, instance in zip(seen, tracked.instances, strict=True):
                links += each.id in ids
                assert ids.setdefault(each.id, instance.track_id) == instance.track_id, (index, number, each.category)
    assert links > 150

"""Scenes in motion: reproducible by seed, smooth, free of collisions, and tracked with stable ids."""

import numpy as np
import pytest

from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle
from instructsam.core.spatial.tracking import Tracker
from instructsam.train.tabletop.scenes import motion
from instructsam.train.tabletop.scenes.layout import are_apart
from instructsam.train.tabletop.scenes.motion import Motion
from instructsam.train.tabletop.world.splits import generator

SIZE = (224, 168)
SCENES = range(6)
LEAST_PX = 30  # visible pixels from which an object counts as visible


@pytest.fixture(scope='module')
def stages():
    """The stages by number of the scene."""
    scene = pytest.importorskip('instructsam.train.tabletop.scenes.scene')
    return {index: scene.stage_scene('test', index, 11, SIZE) for index in SCENES}


def positions(motion, time_s):
    """Return the positions of the objects, [N, 3] m, and of the camera, [3] m."""
    objects, camera = motion.at(time_s)
    return np.array([obj.position for obj in objects]), camera.position


def root(objects, index):
    while objects[index].parent >= 0:
        index = objects[index].parent
    return index


def test_the_same_by_seed_and_in_any_order(stages):
    for index, stage in stages.items():
        first, second = Motion(index, *stage), Motion(index, *stage)
        later = [positions(first, time_s) for time_s in (3.3, 1.0)][::-1]
        for one, other in zip(later, (positions(second, 1.0), positions(second, 3.3)), strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])
    assert any((positions(Motion(1, *s), 1.0)[0] != positions(Motion(2, *s), 1.0)[0]).any() for s in stages.values())


def test_it_starts_as_staged_and_stays_so_if_nothing_may_move(stages):
    for index, (objects, room, camera) in stages.items():
        as_staged = np.array([obj.position for obj in objects]), camera.position
        still = Motion(index, objects, room, camera, slide=False, sway=False)
        for position, then in zip(as_staged, positions(Motion(index, objects, room, camera), 0.0), strict=True):
            np.testing.assert_allclose(then, position, atol=1e-12)
        for position, then in zip(as_staged, positions(still, 2.7), strict=True):
            np.testing.assert_array_equal(then, position)


def test_motion_is_smooth_and_carried_objects_move_along(stages):
    step_s, moved = 0.02, 0
    fastest_m = motion.SLIDE_M[1] * 2 * np.pi / motion.SLIDE_PERIOD_S[0] * step_s
    for index, (objects, room, camera) in stages.items():
        moving = Motion(index, objects, room, camera)
        positions_m, cameras = zip(*(positions(moving, time_s) for time_s in np.arange(0, 10, step_s)), strict=True)
        offsets = np.array(positions_m) - positions_m[0]
        steps_m = np.linalg.norm(np.diff(offsets, axis=0), axis=2)
        assert steps_m.max() <= fastest_m
        assert (offsets[..., 2] == 0).all()
        away_m = np.linalg.norm(camera.position - camera.on_table(((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2)))
        swing_m = away_m * motion.SWAY * 2 * np.pi / motion.SWAY_PERIOD_S * step_s
        assert 0 < np.linalg.norm(np.diff(cameras, axis=0), axis=1).max() <= swing_m
        for i in range(len(objects)):
            np.testing.assert_allclose(offsets[:, i], offsets[:, root(objects, i)], atol=1e-12)
        moved += len({root(objects, i) for i in np.flatnonzero(offsets.any(axis=(0, 2)))})
    assert moved >= len(stages)


def test_nothing_touches_on_the_way(stages):
    for index, (objects, room, camera) in stages.items():
        moving = Motion(index, objects, room, camera)
        for time_s in np.arange(0, 10, 0.25):
            then, _ = moving.at(time_s)
            hulls = [obj.footprint for obj in then]
            for i in range(len(then)):
                if (then[i].position != objects[i].position).any():
                    assert room.table.contains(hulls[i])
                    others = [j for j in range(len(then)) if root(objects, j) != root(objects, i)]
                    assert all(are_apart(hulls[i], hulls[j], 0.0) for j in others), (index, time_s)


@pytest.mark.usefixtures('opengl')
def test_ids_are_stable_while_objects_and_camera_move(stages):
    """Five results per second with the ground-truth masks in random order."""
    from instructsam.train.tabletop.scenes.scene import photograph_objects

    links = 0
    for index, (objects, room, camera) in list(stages.items())[:3]:
        moving, tracker, ids = Motion(index, objects, room, camera), Tracker(), {}
        rng = np.random.default_rng(index)
        for number in range(12):
            objects_now, camera_now = moving.at(number / 5)
            scene = photograph_objects(objects_now, room, camera_now, generator('test', 11, index, 'sensor'))
            seen = [obj for obj in scene.objects if obj.seen_px >= LEAST_PX]
            seen = [seen[i] for i in rng.permutation(len(seen))]
            instances = tuple(Instance(Rle.encode(scene.ids == each.id), 0.9, each.category, 0) for each in seen)
            tracked = tracker.update(Result('', '', *scene.ids.shape, instances), scene.rgb)
            for each, instance in zip(seen, tracked.instances, strict=True):
                links += each.id in ids
                assert ids.setdefault(each.id, instance.track_id) == instance.track_id, (index, number, each.category)
    assert links > 150

"""Layouts: contact, no overlaps, plausible colours, and the pairs reserved for the split `unseen`. Renders nothing."""

import numpy as np
import pytest

from instructsam.train.tabletop.scenes.layout import sample_layout, separation
from instructsam.train.tabletop.scenes.room import sample_camera, sample_room
from instructsam.train.tabletop.world.catalog import CATEGORIES, all_shapes
from instructsam.train.tabletop.world.looks import COLORS
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS, SPLITS, generator

SCENES = 40


def layout(split, index, seed=5):
    camera = sample_camera(generator(split, seed, index, 'camera'), 224, 224)
    room = sample_room(generator(split, seed, index, 'room'))
    return sample_layout(generator(split, seed, index, 'layout'), split, room.table, camera), room, camera


@pytest.fixture(scope='module')
def layouts():
    return [layout('train', index) for index in range(SCENES)]


def test_the_catalog_is_as_rich_as_promised():
    assert len(CATEGORIES) >= 14
    assert len(COLORS) >= 8
    for category in CATEGORIES.values():
        assert all(color in COLORS for appearance in category.appearances for color in appearance.colors), category.name
        assert set(category.holds) <= set(CATEGORIES)
    assert {color for appearance in CATEGORIES['banana'].appearances for color in appearance.colors} == {
        'yellow',
        'green',
    }


def test_shapes_are_closed_and_of_household_size():
    for key, shape in all_shapes().items():
        vertices = np.concatenate([part.mesh.vertices for part in shape.parts])
        assert abs(vertices[:, 2].min()) < 1e-9, key
        assert 0.03 < np.ptp(vertices, axis=0).max() < 0.45, key
        for part in shape.parts:
            assert np.allclose(np.linalg.norm(part.mesh.normals, axis=1), 1, atol=1e-6), key
            corners = part.mesh.vertices[part.mesh.faces]
            facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            outward = part.mesh.normals[part.mesh.faces].mean(axis=1)
            solid = np.linalg.norm(facing, axis=1) > 1e-10
            # Faces that point inwards would be culled.
            assert ((facing * outward).sum(axis=1)[solid] > 0).mean() > 0.97, key


def test_surfaces_lie_in_the_middle_of_their_vessels():
    for key, shape in all_shapes().items():
        if shape.surface:
            body = shape.parts[0].mesh.vertices[:, :2]
            assert np.allclose(body.min(axis=0) + body.max(axis=0), 0, atol=0.002), key
            reach = shape.surface.half or (shape.surface.radius,) * 2
            assert (np.array(reach) <= body.max(axis=0) + 1e-9).all(), key


def test_everything_rests_on_something(layouts):
    for objects, _, _ in layouts:
        for obj in objects:
            low = obj.vertices[:, 2].min()
            if obj.parent < 0:
                assert abs(low) < 1e-6, obj.category
            else:
                surface = all_shapes()[objects[obj.parent].shape].surface
                assert obj.relation == surface.relation
                assert low > objects[obj.parent].position[2], f'{obj.category} is below its carrier'
                if not surface.profile and not surface.rim:
                    assert abs(low - surface.height * objects[obj.parent].scale[2]) < 1e-6


def test_nothing_overlaps_on_the_table_or_on_a_tray(layouts):
    for objects, room, _ in layouts:
        for i, first in enumerate(objects):
            if first.parent < 0:
                assert room.table.contains(first.footprint)
            for second in objects[:i]:
                flat = not all_shapes()[objects[first.parent].shape].surface.profile if first.parent >= 0 else True
                if first.parent == second.parent and flat:
                    assert separation(first.footprint, second.footprint) > 0


def test_items_in_a_bowl_touch_it_and_not_each_other(layouts):
    piles = [
        (objects, carrier)
        for objects, _, _ in layouts
        for carrier, obj in enumerate(objects)
        if (surface := all_shapes()[obj.shape].surface) and surface.profile
    ]
    inside = [
        (objects, i, carrier) for objects, carrier in piles for i, item in enumerate(objects) if item.parent == carrier
    ]
    assert inside
    for objects, i, carrier in inside:
        bowl = objects[carrier]
        profile = np.array(all_shapes()[bowl.shape].surface.profile)[::-1] * (bowl.scale[0], bowl.scale[2])
        points = objects[i].vertices - bowl.position
        gap = points[:, 2] - np.interp(np.linalg.norm(points[:, :2], axis=1), profile[:, 0], profile[:, 1])
        assert abs(gap.min()) < 1e-6
        for other in range(i):
            if objects[other].parent == carrier:
                apart = np.linalg.norm(objects[i].position - objects[other].position)
                assert apart > 0.5 * min(np.ptp(objects[k].vertices, axis=0).min() for k in (i, other))


def test_containment_happens(layouts):
    carried = [obj for objects, _, _ in layouts for obj in objects if obj.parent >= 0]
    assert {obj.relation for obj in carried} == {'in', 'on'}
    assert 0.05 < len(carried) / sum(len(objects) for objects, _, _ in layouts) < 0.4


def test_held_out_pairs_are_seen_in_unseen_alone():
    for split in SPLITS:
        pairs = {(obj.category, obj.color) for index in range(25) for obj in layout(split, index)[0]}
        assert bool(pairs & HELD_OUT_PAIRS) == (split == 'unseen'), split


def test_held_out_categories_and_colors_are_both_trained_on(layouts):
    categories = {obj.category for objects, _, _ in layouts for obj in objects}
    colors = {obj.color for objects, _, _ in layouts for obj in objects}
    for category, color in HELD_OUT_PAIRS:
        assert category in categories
        assert color in colors
        assert color in {c for appearance in CATEGORIES[category].appearances for c in appearance.colors}


def test_splits_and_seeds_draw_different_scenes():
    first = {
        name: [t.category + t.color for t in layout(*name)[0]]
        for name in (('train', 0, 1), ('test', 0, 1), ('train', 0, 2), ('train', 1, 1))
    }
    assert len({tuple(value) for value in first.values()}) == 4
    assert first['train', 0, 1] == [t.category + t.color for t in layout('train', 0, 1)[0]]


def test_a_wrong_split_is_named():
    with pytest.raises(ValueError, match="split 'tain' is not one of train, val, test, unseen"):
        generator('tain', 0, 0, 'layout')

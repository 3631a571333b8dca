"""Instructions that mean one object: always the same ones, and their target is there."""

from itertools import groupby

import pytest

pytest.importorskip('mujoco', reason='the tabletop world is drawn with MuJoCo: pip install mujoco')
from instructsam.train.tabletop.language.instructions import KINDS
from instructsam.train.tabletop.language.picks import picks

pytestmark = pytest.mark.usefixtures('opengl')
SIZE = (224, 168)


@pytest.fixture(scope='module')
def made():
    return list(picks('test', 5, 20, SIZE))


def facts(picked):
    return [(one.index, one.instruction.kind, one.instruction.text, one.target.id) for one in picked]


def test_each_means_one_object_that_is_seen(made):
    assert len(made) == 20
    for one in made:
        assert one.instruction.kind in KINDS
        assert one.instruction.targets == ((one.target.id,),)
        assert len(one.instruction.phrases) == 1
        assert one.scene.objects[one.target.id] is one.target
        assert one.target.seen_px == one.scene.mask([one.target.id]).sum() > 0
        assert one.scene.rgb.shape == (*SIZE[::-1], 3)


def test_scene_by_scene_each_of_another_kind(made):
    indices = [one.index for one in made]
    assert indices == sorted(indices)
    assert len(set(indices)) > 2
    for index, group in groupby(made, key=lambda one: one.index):
        group = list(group)
        assert len({one.instruction.kind for one in group}) == len(group) <= 8
        assert all(one.scene is group[0].scene and one.scene.index == index for one in group)


def test_the_same_again_from_any_scene_on(made):
    assert facts(picks('test', 5, 7, SIZE)) == facts(made[:7])
    first = made[-1].index
    later = [one for one in made if one.index == first]
    assert facts(picks('test', 5, len(later), SIZE, first=first)) == facts(later)
    assert facts(picks('test', 6, 7, SIZE)) != facts(made[:7])


def test_no_such_split():
    with pytest.raises(ValueError, match='train, val, test, unseen'):
        next(picks('tset', 5, 1, SIZE))

"""Instructions that refer to one object: reproducible, and the target is visible."""

from itertools import groupby

import pytest

pytest.importorskip('mujoco', reason='MuJoCo renders the tabletop world: pip install mujoco')
from instructsam.train.tabletop.language.instructions import KINDS
from instructsam.train.tabletop.language.picks import sample_picks

pytestmark = pytest.mark.usefixtures('opengl')
SIZE = (224, 168)


@pytest.fixture(scope='module')
def picks():
    return list(sample_picks('test', 5, 20, SIZE))


def facts(picks):
    return [(one.index, one.instruction.kind, one.instruction.text, one.target.id) for one in picks]


def test_each_means_one_object_that_is_seen(picks):
    assert len(picks) == 20
    for one in picks:
        assert one.instruction.kind in KINDS
        assert one.instruction.targets == ((one.target.id,),)
        assert len(one.instruction.phrases) == 1
        assert one.scene.objects[one.target.id] is one.target
        assert one.target.seen_px == one.scene.mask([one.target.id]).sum() > 0
        assert one.scene.rgb.shape == (*SIZE[::-1], 3)


def test_scene_by_scene_with_distinct_types(picks):
    indices = [one.index for one in picks]
    assert indices == sorted(indices)
    assert len(set(indices)) > 2
    for index, group in groupby(picks, key=lambda one: one.index):
        group = list(group)
        assert len({one.instruction.kind for one in group}) == len(group) <= 8
        assert all(one.scene is group[0].scene and one.scene.index == index for one in group)


def test_the_same_again_from_any_scene_on(picks):
    assert facts(sample_picks('test', 5, 7, SIZE)) == facts(picks[:7])
    first = picks[-1].index
    later = [one for one in picks if one.index == first]
    assert facts(sample_picks('test', 5, len(later), SIZE, first=first)) == facts(later)
    assert facts(sample_picks('test', 6, 7, SIZE)) != facts(picks[:7])


def test_no_such_split():
    with pytest.raises(ValueError, match='train, val, test, unseen'):
        next(sample_picks('tset', 5, 1, SIZE))

"""Cut-outs and photographed surfaces in scenes: exact masks, right occlusion, off by default, reproducible."""

import io
import tarfile
import zipfile

import cv2
import numpy as np
import pytest

pytest.importorskip('mujoco', reason='MuJoCo renders the tabletop world: pip install mujoco')
from instructsam.train.tabletop.language.instructions import sample_instructions
from instructsam.train.tabletop.records import record, scene_facts
from instructsam.train.tabletop.scenes.scene import render_scene
from instructsam.train.tabletop.scenes.variation import CUTOUTS, Pasted, Variation, paste_cutouts
from instructsam.train.tabletop.world.splits import HELD_OUT_PAIRS
from instructsam.train.tabletop.world.surfaces import HELD_OUT, TRAINING, member_name

pytestmark = pytest.mark.usefixtures('opengl')
MAGENTA = (255, 0, 255)
SIZE = (96, 96)


@pytest.fixture(scope='module')
def variation(tmp_path_factory):
    """Made-up packages: every cut-out is a magenta square, every surface is plain green."""
    folder = tmp_path_factory.mktemp('packages')
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[8:-8, 8:-8] = (*MAGENTA, 255)
    webp = cv2.imencode('.webp', picture, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    with tarfile.open(folder / 'emoji.tgz', 'w:gz') as archive:
        for code in CUTOUTS:
            member = tarfile.TarInfo(f'package/assets/{code}.webp')
            member.size = len(webp)
            archive.addfile(member, io.BytesIO(webp))
    png = cv2.imencode('.png', np.full((300, 280, 3), (30, 200, 30), np.uint8))[1].tobytes()
    with zipfile.ZipFile(folder / 'surfaces.whl', 'w') as archive:
        for name in TRAINING:
            archive.writestr(member_name(name), png)
    return Variation(folder / 'emoji.tgz', folder / 'surfaces.whl', cutout_share=1, surface_share=1)


def test_cutouts_have_exact_masks_and_take_the_place_of_objects(variation):
    replaced = 0
    for index in range(5):
        plain, varied = render_scene('train', index, 2, SIZE), render_scene('train', index, 2, SIZE, variation)
        again = render_scene('train', index, 2, SIZE, variation)
        assert varied.jpeg == again.jpeg
        assert np.array_equal(varied.ids, again.ids)
        assert len(plain.objects) == len(varied.objects)
        for before, after in zip(plain.objects, varied.objects, strict=True):
            assert after.category == before.category
            assert (after.category, after.color) not in HELD_OUT_PAIRS
            assert after.seen_px == (varied.ids == after.id).sum() <= after.whole_px
            pixels = varied.rgb[varied.ids == after.id].astype(int)
            is_magenta = (pixels[:, 0] > pixels[:, 1] + 50) & (pixels[:, 2] > pixels[:, 1] + 50)
            if len(pixels) > 60 and is_magenta.mean() > 0.5:
                replaced += 1
                assert is_magenta.mean() > 0.8
                assert 0.4 < after.whole_px / max(before.whole_px, 1) < 4
        assert record(varied, sample_instructions(varied))['annotation']
        assert len(scene_facts(varied)['objects']) == len(varied.objects)
    assert replaced >= 4


def test_nearer_objects_occlude_a_cutout_and_the_table_does_not():
    ids = np.full((20, 20), -1, np.int16)
    ids[:, :5], ids[:, 15:] = 0, 1
    depth = np.full((20, 20), 1.0, np.float32)
    depth[:, :5], depth[:, 15:] = 0.5, 2.0
    alpha = np.zeros((24, 24), np.float32)
    alpha[8:16, :] = 1
    color = alpha[..., None] * np.array(MAGENTA, np.float32)
    image, pasted_ids, pasted_depth = paste_cutouts(
        np.zeros((20, 20, 3), np.uint8), ids, depth, {2: Pasted(alpha, color, 1.5, 2)}
    )
    expected = ids.copy()
    expected[6:14, 5:] = 2
    assert np.array_equal(pasted_ids, expected)
    assert (pasted_depth[expected == 2] == 1.5).all()
    assert (image[expected == 2] == MAGENTA).all()
    assert (image[:, :5] == 0).all()


def test_surfaces_are_those_for_training_and_nothing_is_varied_by_default(variation):
    assert not set(TRAINING) & set(HELD_OUT)
    alone = Variation(surfaces=variation.surfaces, surface_share=1)
    plain, varied = render_scene('train', 0, 3, SIZE), render_scene('train', 0, 3, SIZE, alone)
    assert np.array_equal(plain.ids, varied.ids)
    green = varied.rgb[varied.ids < 0].mean(axis=0)
    assert green[1] > green[0] + 20
    assert render_scene('train', 0, 3, SIZE, Variation()).jpeg == plain.jpeg

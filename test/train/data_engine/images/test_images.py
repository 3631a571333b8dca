"""Stage images: sources, upright pictures, and the rejections of whole images."""

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from instructsam.core.errors import DataError, ImageError, StorageError
from instructsam.train.data_engine.images.files import ImageFiles
from instructsam.train.data_engine.images.inspection import (
    ImageSettings,
    InspectImages,
    NearDuplicates,
    perceptual_hash,
    sharpness,
)
from instructsam.train.data_engine.images.sources import Source, list_candidates
from instructsam.train.data_engine.rows import EngineImage, Row


def picture(seed=0, height=96, width=160):
    """Return a sharp picture of random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


def save(path, pixels, orientation=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)


def inspect(tmp_path, *sources, **settings):
    """Return the rows of all candidates."""
    (tmp_path / 'run').mkdir(exist_ok=True)
    stage, last = InspectImages(tmp_path / 'run', ImageSettings(**settings)), NearDuplicates(3)
    return [last(stage(each)) for each in list_candidates(sources)]


def rules(row):
    return [each.rule for each in row.rejections]


@pytest.fixture
def photos(tmp_path):
    return Source('photos', images=str(tmp_path / 'photos'), licence='CC0')


def test_a_folder_is_listed_in_order_with_its_subfolders(tmp_path, photos):
    for seed, name in enumerate(('b.png', 'a/2.JPG', 'a/1.webp', 'Z.tiff')):
        save(tmp_path / 'photos' / name, picture(seed))
    (tmp_path / 'photos' / 'notes.txt').write_text('x')
    rows = inspect(tmp_path, photos)
    assert [row.image.origin for row in rows] == ['Z.tiff', 'a/1.webp', 'a/2.JPG', 'b.png']
    assert [row.order for row in rows] == [0, 1, 2, 3]
    image = rows[3].image
    assert (image.height, image.width, image.source, image.licence, image.in_run) == (96, 160, 'photos', 'CC0', False)
    assert not any(row.rejections for row in rows)


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_rotated_pictures_are_stored_upright_once(tmp_path, photos, orientation):
    save(tmp_path / 'photos/a.png', picture(), orientation)
    (row,) = inspect(tmp_path, photos)
    read = ImageFiles(tmp_path / 'run', [photos], 64).read(row.image)
    turned = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    assert (read == np.rot90(picture(), turned)).all()
    assert row.image.in_run == (orientation != 1)
    if row.image.in_run:
        with Image.open(tmp_path / 'run' / row.image.path) as stored:
            assert stored.getexif().get(0x0112) is None
            assert stored.size == (row.image.width, row.image.height)


def test_a_removed_run_is_a_storage_error(tmp_path, photos):
    save(tmp_path / 'photos/a.png', picture(), 3)
    (candidate,) = list_candidates([photos])
    with pytest.raises(StorageError, match='if it was removed meanwhile'):
        InspectImages(tmp_path / 'run', ImageSettings())(candidate)
    assert not (tmp_path / 'run').exists()


def test_what_cannot_be_read_is_rejected_without_naming_the_folder(tmp_path, photos):
    save(tmp_path / 'photos/ok.png', picture())
    (tmp_path / 'photos/empty.png').touch()
    (tmp_path / 'photos/text.jpg').write_text('no image')
    (tmp_path / 'photos/cut.png').write_bytes((tmp_path / 'photos/ok.png').read_bytes()[:300])
    os.mkfifo(tmp_path / 'photos/pipe.png')
    (tmp_path / 'photos/link.png').symlink_to('nowhere')
    rows = {row.order: row for row in inspect(tmp_path, photos)}
    assert [row.order for row in rows.values() if not row.rejections] == [3]
    assert {rule for row in rows.values() for rule in rules(row)} == {'images.unreadable'}
    details = [each.detail for row in rows.values() for each in row.rejections]
    assert all(str(tmp_path) not in detail for detail in details)
    assert details[0].startswith('photos/cut.png: ')


def test_blurred_and_small_pictures_are_rejected_with_numbers(tmp_path, photos):
    save(tmp_path / 'photos/blurred.png', cv2.GaussianBlur(picture(), (0, 0), 9))
    save(tmp_path / 'photos/small.png', picture(1, 40, 90))
    blurred, small = inspect(tmp_path, photos)
    (rejection,) = blurred.rejections
    assert (rejection.rule, rejection.limit) == ('images.blurred', 30)
    assert rejection.value == blurred.image.sharpness == sharpness(cv2.GaussianBlur(picture(), (0, 0), 9)) < 30
    (rejection,) = small.rejections
    assert (rejection.rule, rejection.value, rejection.limit) == ('images.too_small', 40, 64)


def test_duplicates_are_rejected_in_favour_of_the_first(tmp_path, photos):
    save(tmp_path / 'photos/a.png', picture())
    save(tmp_path / 'photos/b.png', picture())
    save(tmp_path / 'photos/c.jpg', np.clip(picture().astype(int) + 4, 0, 255).astype(np.uint8), quality=80)
    save(tmp_path / 'photos/d.png', picture(1))
    rows = inspect(tmp_path, photos)
    assert [rules(row) for row in rows] == [[], ['images.duplicate'], ['images.near_duplicate'], []]
    assert rows[1].rejections[0].detail == 'the same as a.png'
    assert rows[2].rejections[0].detail == 'nearly the same as a.png'


def test_near_duplicates_are_found_by_any_three_bits():
    rng = np.random.default_rng(0)

    def of(order, code):
        return Row(order, EngineImage(f'{order:064x}', 'x', False, 9, 9, 'a', '', f'{order}', 99.0, f'{code:016x}'))

    code = int(rng.integers(0, 2**63))
    for trial in range(200):
        last = NearDuplicates(3)
        last.add(of(0, code))
        bits = rng.choice(64, 3 + trial % 2, replace=False)
        changed = code
        for bit in bits:
            changed ^= 1 << int(bit)
        assert last(of(1, changed)).is_rejected == (len(bits) == 3)


def test_resumed_duplicates_are_those_of_an_undisturbed_run(tmp_path, photos):
    for name, seed in (('a', 0), ('b', 1), ('c', 0), ('d', 1)):
        save(tmp_path / f'photos/{name}.png', picture(seed))
    whole = inspect(tmp_path, photos)
    last = NearDuplicates(3)
    for row in whole[:2]:
        last.add(row)
    stage = InspectImages(tmp_path / 'run', ImageSettings())
    assert [last(stage(each)) for each in list_candidates([photos])[2:]] == whole[2:]


def test_the_perceptual_hash_survives_scale_and_compression():
    pixels = cv2.GaussianBlur(picture(3, 300, 500), (0, 0), 2)
    small = cv2.resize(pixels, (250, 150), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, 70])
    distance = int(perceptual_hash(pixels), 16) ^ int(perceptual_hash(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)), 16)
    assert distance.bit_count() <= 3
    assert (int(perceptual_hash(pixels), 16) ^ int(perceptual_hash(picture(4)), 16)).bit_count() > 15


def test_images_of_a_coco_file_have_its_licences(tmp_path):
    for name in ('x/1.png', 'x/2.png', 'x/3.png'):
        save(tmp_path / name, picture(int(name[2])))
    document = {
        'licenses': [{'id': 4, 'name': 'CC-BY'}],
        'images': [{'file_name': '2.png', 'license': 4}, {'file_name': '1.png'}],
    }
    (tmp_path / 'coco.json').write_text(json.dumps(document))
    source = {'name': 'coco', 'images': str(tmp_path / 'x'), 'coco': str(tmp_path / 'coco.json')}
    assert [(row.image.path, row.image.licence) for row in inspect(tmp_path, Source(**source))] == [
        ('1.png', ''),
        ('2.png', 'CC-BY'),
    ]
    assert {row.image.licence for row in inspect(tmp_path, Source(**source, licence='mine'))} == {'mine'}


@pytest.mark.parametrize('name', ['../secret.png', '/etc/passwd', 7, ''])
def test_a_coco_file_names_files_below_its_folder_only(tmp_path, name):
    (tmp_path / 'coco.json').write_text(json.dumps({'images': [{'file_name': name}]}))
    with pytest.raises(DataError, match='file_name is not a path below its folder'):
        list_candidates([Source('coco', images=str(tmp_path), coco=str(tmp_path / 'coco.json'))])


def test_frames_of_a_video_are_stored_and_still_ones_are_dropped(tmp_path):
    (tmp_path / 'videos').mkdir()
    writer = cv2.VideoWriter(str(tmp_path / 'videos/clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (160, 96))
    for number in range(30):
        writer.write(picture(number // 20)[..., ::-1])
    writer.release()
    (tmp_path / 'videos/broken.mp4').write_bytes(b'no video')
    source = Source('clips', videos=str(tmp_path / 'videos'), every_s=1)
    broken, *rows = inspect(tmp_path, source)
    assert rules(broken) == ['images.unreadable']
    assert [row.image.origin for row in rows] == ['clip.avi#0', 'clip.avi#10', 'clip.avi#20']
    assert [bool(row.rejections) for row in rows] == [False, True, False]
    read = ImageFiles(tmp_path / 'run', [source], 64).read(rows[2].image)
    assert np.abs(read.astype(int) - picture(1)).mean() < 12


def test_a_source_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match='there is no folder'):
        list_candidates([Source('a', images=str(tmp_path / 'no'))])
    with pytest.raises(DataError, match=r"source 'a' has no video in"):
        list_candidates([Source('a', videos=str(tmp_path))])


def test_a_name_that_is_not_utf_8_is_named(tmp_path, photos):
    save(tmp_path / 'photos' / os.fsdecode(b'k\xfcche.png'), picture())
    with pytest.raises(DataError, match=r"not valid UTF-8: rename 'k\\udcfcche.png'"):
        list_candidates([photos])


def test_a_replaced_picture_is_named(tmp_path, photos):
    save(tmp_path / 'photos/a.png', picture())
    (row,) = inspect(tmp_path, photos)
    files = ImageFiles(tmp_path / 'run', [photos], 64)
    save(tmp_path / 'photos/a.png', picture(0, 50, 60))
    with pytest.raises(DataError, match=r"a.png of source 'photos' is 60 x 50 px, and was 160 x 96 px"):
        files.read(row.image)
    (tmp_path / 'photos/a.png').unlink()
    with pytest.raises(ImageError):
        files.read(row.image)
    with pytest.raises(DataError, match="no source 'photos'"):
        ImageFiles(tmp_path / 'run', [], 64).read(row.image)

"""Every benchmark in every layout becomes Scenes; a broken record fails alone, a broken set says what to do."""

import gc
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from instructsam.core.errors import DataError
from instructsam.core.rle import Rle
from instructsam.train.evaluation.readers import READERS, read

FRAME = Path(__file__).parents[3] / 'instructsam_ros' / 'data' / 'roborefit_frame' / 'rgb.png'
HEIGHT, WIDTH = SIZE = 20, 30


def block(rows, columns):
    """[H, W] bool, true in the rows and columns from..to."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


CUP, LID, BOX = block((2, 8), (3, 9)), block((2, 4), (20, 28)), block((10, 18), (5, 25))


def rle(mask, compressed=True):
    encoded = Rle.encode(mask)
    return encoded.to_coco() if compressed else {'size': list(mask.shape), 'counts': encoded.counts.tolist()}


def polygon(rows, columns):
    """COCO's, of the pixels of `block`."""
    (y0, y1), (x0, x1) = rows, columns
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def picture(path, size=SIZE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size[::-1], 'grey').save(path, **options)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.p':
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif path.suffix == '.jsonl':
        path.write_text(''.join(json.dumps(row) + '\n' for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def queries(scenes):
    """By id."""
    return {query.id: query for scene in scenes for query in scene.queries}


def masks(query):
    assert not query.error
    return [mask.decode() for mask in query.truth]


def assert_masks(query, *expected):
    found = masks(query)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# RoboRefIt


@pytest.fixture
def roborefit(tmp_path):
    """roborefit(**changes): a folder RoboRefIt of two images and three commands, records as `changes` of the first."""
    split = tmp_path / 'RoboRefIt' / 'data' / 'final_dataset' / 'testA'

    def make(**changes):
        records = []
        for number, (image, mask) in enumerate([('1', CUP), ('1', BOX), ('0', LID)]):
            picture(split / 'image' / f'{image}.png')
            file = split / 'mask' / image / f'{number}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(file)
            records.append(
                {
                    'num': number,
                    'text': f'give me thing {number}',
                    'bbox': [0, 0, 1, 1],
                    'scene': 'table',
                    'rgb_path': f'final_dataset/testA/image/{image}.png',
                    'depth_path': 'none',
                    'mask_path': f'final_dataset/testA/mask/{image}/{number}.png',
                }
            )
        write(split / 'roborefit_testA.json', [{**records[0], **changes}, *records[1:]])
        return tmp_path / 'RoboRefIt'

    return make


@pytest.mark.parametrize('folder', ['.', 'data', 'data/final_dataset', 'data/final_dataset/testA'])
def test_roborefit(roborefit, folder):
    scenes = read('roborefit', roborefit() / folder, 'testA')
    assert [Path(scene.image).name for scene in scenes] == ['1.png', '0.png']
    assert all(Path(scene.image).is_file() for scene in scenes)
    assert [[query.id for query in scene.queries] for scene in scenes] == [['0', '1'], ['2']]
    for number, mask in enumerate([CUP, BOX, LID]):
        query = queries(scenes)[str(number)]
        assert (query.text, query.groups, query.form) == (f'give me thing {number}', {'scene': 'table'}, '')
        assert_masks(query, mask)


@pytest.mark.parametrize('above', ['', '../RoboRefIt/data/', 'D:/sets/', '/nowhere/'])
@pytest.mark.parametrize('separator', ['/', '\\'])
def test_roborefit_paths_of_other_machines(roborefit, above, separator):
    folder = roborefit()
    file = folder / 'data' / 'final_dataset' / 'testA' / 'roborefit_testA.json'
    records = json.loads(file.read_text())
    for record in records:
        for key in ('rgb_path', 'mask_path'):
            record[key] = (above + record[key]).replace('/', separator)
    write(file, records)
    scenes = read('roborefit', folder, 'testA')
    assert all(Path(scene.image).is_file() for scene in scenes)
    assert_masks(queries(scenes)['2'], LID)


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'I;16'])
def test_roborefit_masks_in_any_mode(roborefit, mode):
    folder = roborefit()
    grey = Image.fromarray(CUP.astype(np.uint8) * 7)
    if mode == 'I;16':
        image = Image.fromarray(CUP.astype(np.uint16) * 7)
    elif mode == '1':
        image = Image.fromarray(CUP)
    elif mode == 'P':
        image = Image.fromarray(np.where(CUP, 0, 3).astype(np.uint8), mode='P')  # black has the number 3
        image.putpalette([9, 9, 9, 1, 1, 1, 2, 2, 2, 0, 0, 0])
    else:
        image = grey.convert(mode)
    image.save(folder / 'data' / 'final_dataset' / 'testA' / 'mask' / '1' / '0.png')
    assert_masks(queries(read('roborefit', folder, 'testA'))['0'], CUP)


def test_roborefit_of_a_real_frame(tmp_path):
    """In the original layout, which no test may download."""
    size = (480, 640)
    top = tmp_path / 'final_dataset' / 'testA'
    (top / 'image').mkdir(parents=True)
    shutil.copy(FRAME, top / 'image' / '0000000.png')
    mask = np.zeros(size, dtype=bool)
    mask[100:180, 200:320] = True
    (top / 'mask' / '0000000').mkdir(parents=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(top / 'mask' / '0000000' / '0.png')
    write(
        top / 'roborefit_testA.json',
        [
            {
                'num': 0,
                'text': 'the black toy',
                'bbox': [200, 100, 320, 180],
                'scene': 'table',
                'depth_path': '',
                'rgb_path': 'final_dataset\\testA\\image\\0000000.png',
                'mask_path': 'final_dataset\\testA\\mask\\0000000\\0.png',
            }
        ],
    )
    [scene] = read('roborefit', tmp_path, 'testA')
    with Image.open(scene.image) as image:
        assert image.size == size[::-1]
    assert_masks(scene.queries[0], mask)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'text': ' '}, "a text under 'text'"),
        ({'text': 5}, "a text under 'text'"),
        ({'rgb_path': None}, 'its image is not named'),
        ({'mask_path': None}, 'mask_path'),
        ({'mask_path': 'x' * 5000}, 'cannot be read'),
        ({'mask_path': 'final_dataset/testA/mask/1/9.png'}, '9.png'),
        ({'mask_path': 'final_dataset/testA/roborefit_testA.json'}, 'cannot be read'),
    ],
)
def test_roborefit_broken_records_fail_alone(roborefit, changes, message):
    found = queries(read('roborefit', roborefit(**changes), 'testA'))
    assert 'roborefit_testA.json, record 0: ' in found['0'].error
    assert message in found['0'].error
    assert not found['0'].truth
    assert found['0'].text == ('' if 'text' in changes else 'give me thing 0')
    assert found['0'].groups == {'scene': 'table'}
    assert_masks(found['1'], BOX)


def test_roborefit_mask_files_have_the_size_of_the_image_and_a_pixel(roborefit):
    folder = roborefit()
    file = folder / 'data' / 'final_dataset' / 'testA' / 'mask' / '1' / '0.png'
    Image.fromarray(CUP[:10].astype(np.uint8)).save(file)
    assert '[10, 30] on an image of [20, 30]' in queries(read('roborefit', folder, 'testA'))['0'].error
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(file)
    assert 'no pixel' in queries(read('roborefit', folder, 'testA'))['0'].error


def test_roborefit_converted(tmp_path):
    records = [
        {'image': 'a.png', 'question': 'the cup', 'masks': rle(CUP)},
        {'image': 'b.png', 'expression': 'cup and lid', 'masks': [rle(CUP), rle(LID, compressed=False)]},
        {'image': 'a.png', 'question': 'wrong size', 'masks': rle(CUP[:10])},
        {'image': 'a.png', 'question': 'an outline', 'masks': polygon((2, 8), (3, 9))},
        {'image': 'b.png', 'question': 'an outline', 'masks': polygon((2, 8), (3, 9))},
    ]
    picture(tmp_path / 'images' / 'a.png')  # b.png is not there
    for name in ('testA.json', 'roborefit_testA.json', 'roborefit_extra_testA.json', 'anything.json'):
        file = write(tmp_path / name, records)
        scenes = read('roborefit', tmp_path, 'testA')
        assert [scene.image for scene in scenes] == [str(tmp_path / 'images' / name) for name in ('a.png', 'b.png')]
        found = queries(scenes)
        assert_masks(found['0'], CUP)
        assert_masks(found['1'], CUP | LID)  # one, as there is one object
        assert 'of size [10, 30] on an image of [20, 30]' in found['2'].error
        assert_masks(found['3'], CUP)
        assert 'the image is not there' in found['4'].error
        file.unlink()


# Inst2Seg


def test_inst2seg(tmp_path):
    header = {'image': 'folder/a.jpg', 'height': HEIGHT, 'width': WIDTH}
    write(
        tmp_path / 'test.json',
        [
            {
                **header,
                'annotation': [
                    {'text': 'the cup', 'mask': rle(CUP)},
                    {'text': 'the lid', 'mask': polygon((2, 4), (20, 28))},
                    {'text': 'both', 'mask': [rle(CUP, compressed=False), polygon((2, 4), (20, 28))]},
                    {'text': 'no dog'},
                    {'text': 'no cat', 'mask': None},
                    {'text': 'no cow', 'mask': []},
                ],
            },
            {**header, 'image': 'folder/b.jpg', 'annotation': json.dumps([{'text': 'the box', 'mask': rle(BOX)}])},
        ],
    )
    picture(tmp_path / 'pictures' / 'b.jpg')  # the first that is there says where all lie
    scenes = read('inst2seg', tmp_path, 'test', images=tmp_path / 'pictures')
    assert [scene.image for scene in scenes] == [str(tmp_path / 'pictures' / name) for name in ('a.jpg', 'b.jpg')]
    found = queries(scenes)
    assert list(found) == ['0-0', '0-1', '0-2', '0-3', '0-4', '0-5', '1-0']
    assert found['0-3'].text == 'no dog'
    for query, expected in zip(found.values(), [[CUP], [LID], [CUP, LID], [], [], [], [BOX]], strict=True):
        assert_masks(query, *expected)


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (rle(CUP[:10]), 'of size [10, 30] on an image of [20, 30]'),
        ({'size': list(SIZE), 'counts': rle(CUP)['counts'][:-1] + 'o'}, 'truncated'),
        ({'size': list(SIZE), 'counts': [5, 5]}, 'add up to 10'),
        ({'size': list(SIZE)}, 'counts'),
        ('{"size":', 'no JSON'),
        (rle(np.zeros(SIZE)), 'no pixel'),
        ([3, 3, 3, 3, 3, 3], 'no pixel'),
        ([3, 3, 9, 9], 'three points or more'),
        ([[3, 3, 9, 9, 1e9, 3]], 'near the image'),
        ([rle(CUP), None], 'RLE or polygons'),
        (7, 'RLE, polygons or a list'),
    ],
)
def test_broken_masks(tmp_path, mask, message):
    annotations = [{'text': 'broken', 'mask': mask}, {'text': 'whole', 'mask': rle(CUP)}]
    write(tmp_path / 'test.json', [{'image': 'a.jpg', 'height': HEIGHT, 'width': WIDTH, 'annotation': annotations}])
    found = queries(read('inst2seg', tmp_path, 'test'))
    assert found['0-0'].error.startswith(f'{tmp_path / "test.json"}, record 0, annotation 0: ')
    assert message in found['0-0'].error
    assert found['0-0'].text == 'broken'
    assert_masks(found['0-1'], CUP)


@pytest.mark.parametrize(
    'record',
    [
        5,
        {},
        {'image': 'a.jpg', 'annotation': []},
        {'image': 'a.jpg', 'annotation': 'no JSON'},
        {'image': 'a.jpg', 'height': HEIGHT, 'annotation': [{'text': 'no width'}]},
        {'image': 'a.jpg', 'height': HEIGHT, 'width': '30', 'annotation': [{'text': 'a width that is a text'}]},
        {'image': None, 'height': HEIGHT, 'width': WIDTH, 'annotation': [{'text': 'no image'}]},
        {'image': 'a.jpg', 'height': HEIGHT, 'width': WIDTH, 'annotation': [7]},
    ],
)
def test_inst2seg_broken_records_fail_alone(tmp_path, record):
    whole = {'image': 'a.jpg', 'height': HEIGHT, 'width': WIDTH, 'annotation': [{'text': 'the cup', 'mask': rle(CUP)}]}
    write(tmp_path / 'test.json', [record, whole])
    found = list(queries(read('inst2seg', tmp_path, 'test')).values())
    assert [bool(query.error) for query in sorted(found, key=lambda query: query.id)] == [True, False]
    assert 'record 0' in next(query.error for query in found if query.error)


# gRefCOCO and RefCOCO


def instances():
    images = [{'id': id, 'file_name': f'COCO_train2014_{id}.jpg', 'height': HEIGHT, 'width': WIDTH} for id in (7, 8)]
    segmentations = {
        1: (7, polygon((2, 8), (3, 9))),
        2: (7, rle(LID, compressed=False)),
        3: (7, rle(BOX)),
        4: (8, polygon((2, 8), (3, 9)) + polygon((2, 4), (20, 28))),
        5: (8, [[1, 1, 1, 1, 1, 1]]),
        6: (8, rle(CUP[:9])),
    }
    annotations = [
        {'id': id, 'image_id': image, 'segmentation': segmentation, 'iscrowd': 0}
        for id, (image, segmentation) in segmentations.items()
    ]
    return {'images': images, 'annotations': annotations, 'categories': []}


def ref(annotation, *sentences, image=7, split='val', first=0):
    return {
        'ref_id': first,
        'ann_id': annotation,
        'category_id': 1,
        'image_id': image,
        'split': split,
        'file_name': 'x',
        'sent_ids': [],
        'sentences': [
            {'sent_id': first + i, 'sent': sentence, 'raw': 'raw', 'tokens': []} for i, sentence in enumerate(sentences)
        ],
    }


@pytest.mark.parametrize('folder', ['.', 'grefcoco'])
def test_grefcoco(tmp_path, folder):
    write(
        tmp_path / folder / 'grefs(unc).json',
        [
            ref([1, 2], 'cup and lid', 'what is on the box', first=10),
            ref([4], 'cup', image=8, first=12),
            ref([-1], 'a dog', first=13),
            ref(3, 'box', first=14),
            ref(-1, 'a cat', first=15),
            ref([1], 'of another split', split='train', first=16),
        ],
    )
    write(tmp_path / folder / 'instances.json', instances())
    picture(tmp_path / 'images' / 'train2014' / 'COCO_train2014_7.jpg')
    scenes = read('grefcoco', tmp_path, 'val')
    assert [Path(scene.image).relative_to(tmp_path) for scene in scenes] == [
        Path('images/train2014/COCO_train2014_7.jpg'),
        Path('images/train2014/COCO_train2014_8.jpg'),
    ]
    found = queries(scenes)
    assert list(found) == ['7-10', '7-11', '7-13', '7-14', '7-15', '8-12']
    assert [query.text for query in found.values()][:2] == ['cup and lid', 'what is on the box']
    for query, expected in zip(found.values(), [[CUP, LID], [CUP, LID], [], [BOX], [], [CUP | LID]], strict=True):
        assert_masks(query, *expected)


@pytest.mark.parametrize('folder', ['.', 'refcoco', 'refcoco+', 'refcocog'])
@pytest.mark.parametrize('place', ['train2014', 'images/train2014', 'images', '.', '../images/mscoco/images/train2014'])
def test_refcoco(tmp_path, folder, place):
    data = tmp_path / 'data'
    write(data / folder / 'refs(unc).p', [ref(1, 'cup', 'mug', first=5), ref(2, 'lid', split='testA', first=7)])
    write(data / folder / 'instances.json', instances())
    picture(data / place / 'COCO_train2014_7.jpg')
    [scene] = read('refcoco', data, 'val')
    assert Path(scene.image).is_file()
    assert [(query.id, query.text) for query in scene.queries] == [('5', 'cup'), ('6', 'mug')]
    assert_masks(scene.queries[1], CUP)
    [scene] = read('refcoco', data / folder / 'refs(unc).p', 'testA', images=(data / place).resolve())
    assert Path(scene.image).is_file()
    assert_masks(scene.queries[0], LID)


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        (ref(99, 'x'), 'no annotation 99 of the image 7'),
        (ref(4, 'x'), 'no annotation 4 of the image 7'),
        (ref(5, 'x', image=8), 'no pixel'),
        (ref(6, 'x', image=8), 'of size [9, 30] on an image of [20, 30]'),
        (ref([[1]], 'x'), 'ann_id is'),
        (ref(None, 'x'), 'ann_id is'),
        (ref(1, 'x', image=9), 'its image is not named, or unknown'),
        (ref(1, 'x', image=[7]), 'its image is not named, or unknown'),
        (ref(1, ''), "a text under 'sent'"),
        (ref(1), 'list of sentences'),
        (ref(1, 'x', split=None), 'a ref has a split'),
        ({**ref(1), 'sentences': [3]}, "a text under 'raw'"),
    ],
)
def test_refcoco_broken_refs_fail_alone(tmp_path, broken, message):
    write(tmp_path / 'refs(unc).p', [broken, ref(1, 'cup', first=5)])
    write(tmp_path / 'instances.json', instances())
    found = queries(read('refcoco', tmp_path, 'val'))
    assert_masks(found.pop('5'), CUP)
    [query] = found.values()
    assert 'refs(unc).p, record 0' in query.error
    assert message in query.error


def test_refcoco_text_falls_back_to_raw(tmp_path):
    write(tmp_path / 'refs(umd).p', [{**ref(1), 'sentences': [{'sent_id': 3, 'raw': 'The Cup'}]}])
    write(tmp_path / 'instances.json', instances())
    assert queries(read('refcoco', tmp_path, 'val'))['3'].text == 'The Cup'


def test_refcoco_of_several_splits(tmp_path):
    write(tmp_path / 'refs(unc).p', [ref(1, 'cup')])
    write(tmp_path / 'refs(google).p', [ref(2, 'lid')])
    write(tmp_path / 'instances.json', instances())
    with pytest.raises(DataError, match=r'refs\(google\).p, refs\(unc\).p, expected one of them.*--split-by'):
        read('refcoco', tmp_path, 'val')
    with pytest.raises(DataError, match='expected umd.*--split-by'):
        read('refcoco', tmp_path, 'val', split_by='umd')
    assert_masks(queries(read('refcoco', tmp_path, 'val', split_by='google'))['0'], LID)


def test_refcoco_of_several_sets(tmp_path):
    for name in ('refcoco', 'refcoco+'):
        write(tmp_path / name / 'refs(unc).p', [ref(1, 'cup')])
        write(tmp_path / name / 'instances.json', instances())
    with pytest.raises(DataError, match=r'has refcoco, refcoco\+. Point --data at one'):
        read('refcoco', tmp_path, 'val')
    assert read('refcoco', tmp_path / 'refcoco+', 'val')


@pytest.mark.parametrize('benchmark', ['grefcoco', 'refcoco'])
def test_refs_need_their_instances(tmp_path, benchmark):
    write(tmp_path / {'grefcoco': 'grefs(unc).json', 'refcoco': 'refs(unc).p'}[benchmark], [ref(1, 'cup')])
    with pytest.raises(DataError, match='there is no .*instances.json'):
        read(benchmark, tmp_path, 'val')
    write(tmp_path / 'instances.json', {'images': [{}]})
    with pytest.raises(DataError, match='no images and annotations with ids'):
        read(benchmark, tmp_path, 'val')


@pytest.mark.parametrize('protocol', range(6))
def test_pickles_of_any_protocol(tmp_path, protocol):
    (tmp_path / 'refs(unc).p').write_bytes(pickle.dumps([ref(1, 'cup 1')], protocol=protocol))
    write(tmp_path / 'instances.json', instances())
    assert queries(read('refcoco', tmp_path, 'val'))['0'].text == 'cup 1'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (b"S'caf\\xc3\\xa9'\n", 'café'),  # str of Python 2: UTF-8, else Latin-1
        (b"S'caf\\xe9'\n", 'café'),
        (b'Vcaf\\u00e9\n', 'café'),  # unicode
        (b'U\x05caf\xc3\xa9', 'café'),
    ],
)
def test_pickles_of_python_2(tmp_path, text, expected):
    pickled = (
        b"(lp0\n(dp1\nS'split'\nS'val'\nsS'image_id'\nI7\nsS'ann_id'\nL1L\nsS'sentences'\n"
        b"(lp2\n(dp3\nS'sent_id'\nL12L\nsS'sent'\n" + text + b'sasa.'
    )
    (tmp_path / 'refs(unc).p').write_bytes(pickled)
    write(tmp_path / 'instances.json', instances())
    query = queries(read('refcoco', tmp_path, 'val'))['12']
    assert query.text == expected
    assert_masks(query, CUP)


class Hostile:
    """Runs a command when it is unpickled the usual way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('protocol', range(6))
def test_pickles_run_nothing(tmp_path, protocol):
    trace = tmp_path / 'trace'
    command = f'touch {trace}'
    content = pickle.dumps([ref(1, 'cup'), Hostile(command)], protocol=protocol)
    pickle.loads(content)
    assert trace.exists()  # it would work
    trace.unlink()
    for hostile in (content, f"(S'{command}'\nios\nsystem\n.".encode(), b'Pouter object\n.'):
        (tmp_path / 'refs(unc).p').write_bytes(hostile)
        with pytest.raises(DataError, match=r'refs\(unc\).p: it asks for .*(system|outside object)'):
            read('refcoco', tmp_path, 'val')
        assert not trace.exists()


@pytest.mark.parametrize('content', [b'', b'no pickle', pickle.dumps([ref(1, 'cup')])[:-20], b'\x80\x09.', b'.'])
def test_broken_pickles_are_named(tmp_path, content):
    (tmp_path / 'refs(unc).p').write_bytes(content)
    with pytest.raises(DataError, match=r'cannot read .*refs\(unc\).p: .+ Expected is a whole pickle'):
        read('refcoco', tmp_path, 'val')


def test_pickles_hold_a_list_of_refs(tmp_path):
    write(tmp_path / 'refs(unc).p', {'refs': []})
    with pytest.raises(DataError, match='holds a dict, expected a list of refs'):
        read('refcoco', tmp_path, 'val')


@pytest.mark.parametrize('benchmark', ['grefcoco', 'refcoco'])
def test_refs_converted(tmp_path, benchmark):
    header = {'image': 'train2014/a.jpg', 'height': HEIGHT, 'width': WIDTH}
    write(
        tmp_path / f'{benchmark}_val.json',
        [
            {
                **header,
                'cat': ['cup and lid', 'box', 'nothing', 'not there'],
                'masks': [[rle(CUP), polygon((2, 4), (20, 28))], rle(BOX), None, []],
            },
            {**header, 'image': 'train2014/b.jpg', 'cat': ['cup', 5], 'masks': [rle(CUP), rle(LID)]},
            {**header, 'cat': ['one', 'two'], 'masks': [rle(CUP)]},
            {**header, 'cat': 'cup', 'masks': [rle(CUP)]},
        ],
    )
    picture(tmp_path / 'train2014' / 'a.jpg')
    scenes = read(benchmark, tmp_path, 'val')
    assert [Path(scene.image).name for scene in scenes] == ['a.jpg', 'b.jpg']
    found = queries(scenes)
    assert list(found) == ['0-0', '0-1', '0-2', '0-3', '2-0', '2-1', '3', '1-0', '1-1']
    for id, expected in {'0-0': [CUP, LID], '0-1': [BOX], '0-2': [], '0-3': [], '1-0': [CUP]}.items():
        assert_masks(found[id], *expected)
    assert "a text under 'cat'" in found['1-1'].error
    assert 'masks for each of its 2 texts' in found['2-0'].error
    assert (found['2-1'].text, bool(found['2-1'].error)) == ('two', True)
    assert 'list of texts under cat' in found['3'].error


# ReasonSeg


def outline(label, rows, columns):
    """LabelMe's, whose border belongs to it: of the pixels of `block`."""
    (y0, y1), (x0, x1) = rows, columns
    return {'label': label, 'points': [[x0, y0], [x1 - 0.1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]}


LARGE, SMALL, TINY = ((2, 16), (2, 20)), ((4, 12), (5, 15)), ((6, 9), (7, 11))


@pytest.fixture
def reasonseg(tmp_path):
    """reasonseg(name=(record, size of its image), ...): the folder."""

    def make(**records):
        for name, (record, size) in records.items():
            write(tmp_path / 'ReasonSeg' / 'val' / f'{name}.json', record)
            if size:
                picture(tmp_path / 'ReasonSeg' / 'val' / f'{name}.jpg', size)
        return tmp_path / 'ReasonSeg'

    return make


@pytest.mark.parametrize('folder', ['.', '..', 'val'])
def test_reasonseg(reasonseg, folder):
    data = reasonseg(
        b=(
            {
                'text': 'the cup',
                'is_sentence': False,
                'shapes': [
                    outline('target', (1, 4), (1, 5)),
                    outline('Target', (10, 14), (20, 28)),
                    outline('flag', (0, 20), (0, 30)),
                ],
            },
            SIZE,
        ),
        a=(
            {'text': ['What holds tea?', 'What breaks?'], 'is_sentence': True, 'shapes': [outline('target', *LARGE)]},
            SIZE,
        ),
    )
    scenes = read('reasonseg', (data / folder).resolve(), 'val')
    assert [Path(scene.image).name for scene in scenes] == ['a.jpg', 'b.jpg']
    assert [(q.id, q.text, q.form, q.groups) for scene in scenes for q in scene.queries] == [
        ('a', 'What holds tea?', 'long', {'form': 'long'}),
        ('b', 'the cup', 'short', {'form': 'short'}),
    ]
    found = queries(scenes)
    assert_masks(found['a'], block(*LARGE))
    assert_masks(found['b'], block((1, 4), (1, 5)) | block((10, 14), (20, 28)))  # one mask
    assert found['b'].ignore is None


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize(('outer', 'inner'), [('target', 'ignore'), ('ignore', 'target')])
def test_reasonseg_smaller_outlines_win(reasonseg, order, outer, inner):
    shapes = [outline(outer, *LARGE), outline(inner, *SMALL), outline(outer, *TINY)]
    record = {'text': ['x'], 'is_sentence': True, 'shapes': [shapes[i] for i in order]}
    [scene] = read('reasonseg', reasonseg(a=(record, SIZE)), 'val')
    found = {outer: (block(*LARGE) & ~block(*SMALL)) | block(*TINY), inner: block(*SMALL) & ~block(*TINY)}
    assert_masks(scene.queries[0], found['target'])
    np.testing.assert_array_equal(scene.queries[0].ignore.decode(), found['ignore'])


def test_reasonseg_images_upright(reasonseg):
    """A photograph that was taken sideways is evaluated as people see it."""
    data = reasonseg(a=({'text': 'x', 'is_sentence': True, 'shapes': [outline('target', (22, 28), (3, 9))]}, None))
    exif = Image.Exif()
    exif[0x112] = 6
    picture(data / 'val' / 'a.jpg', SIZE, exif=exif)
    [mask] = masks(queries(read('reasonseg', data, 'val'))['a'])
    assert mask.shape == (WIDTH, HEIGHT)
    assert mask[22:28, 3:9].all()
    assert mask.sum() == 36


def test_reasonseg_files_of_windows(reasonseg):
    record = {'text': 'the café’s sign', 'is_sentence': True, 'shapes': [outline('target', *LARGE)]}
    data = reasonseg(a=(record, SIZE))
    for encoding in ('utf-8', 'utf-8-sig', 'cp1252'):
        (data / 'val' / 'a.json').write_text(json.dumps(record, ensure_ascii=False), encoding=encoding)
        assert queries(read('reasonseg', data, 'val'))['a'].text == 'the café’s sign'


@pytest.mark.parametrize(
    ('changes', 'size', 'message'),
    [
        ({}, None, 'a.jpg'),
        ({'shapes': []}, SIZE, 'list of shapes'),
        ({'shapes': [7]}, SIZE, 'a label and points'),
        ({'shapes': [{'label': 'target'}]}, SIZE, 'points [x, y]'),
        ({'shapes': [{'label': 'target', 'points': [[1, 2], [3]]}]}, SIZE, 'points [x, y]'),
        ({'shapes': [{'label': 'target', 'points': [[1, 2], [3, 1e12]]}]}, SIZE, 'near the image'),
        ({'shapes': [{'label': 'target', 'points': [[1, 2], [3, float('nan')]]}]}, SIZE, 'near the image'),
        ({'shapes': [outline('ignore', *LARGE)]}, SIZE, 'no pixel'),
        ({'is_sentence': 'maybe'}, SIZE, 'is_sentence'),
        ({'text': [5]}, SIZE, 'text'),
        ({'text': []}, SIZE, 'text, is_sentence and shapes'),
    ],
)
def test_reasonseg_broken_files_fail_alone(reasonseg, changes, size, message):
    whole = {'text': 'x', 'is_sentence': True, 'shapes': [outline('target', *LARGE)]}
    found = queries(read('reasonseg', reasonseg(a=({**whole, **changes}, size), b=(whole, SIZE)), 'val'))
    assert list(found) == ['a', 'b']
    assert 'a.json' in found['a'].error
    assert message in found['a'].error
    assert_masks(found['b'], block(*LARGE))


def test_reasonseg_files_that_cannot_be_read_fail_alone(reasonseg):
    whole = {'text': 'x', 'is_sentence': True, 'shapes': [outline('target', *LARGE)]}
    data = reasonseg(a=(whole, SIZE), b=(whole, SIZE), c=(whole, SIZE))
    (data / 'val' / 'a.json').write_text('{"text":')
    (data / 'val' / 'b.json').unlink()
    found = queries(read('reasonseg', data, 'val'))
    assert 'a.json: it is no JSON' in found['a'].error
    assert 'b.json' in found['b'].error
    assert_masks(found['c'], block(*LARGE))


def test_reasonseg_converted(tmp_path):
    write(
        tmp_path / 'test.json',
        [
            {'image': 'a.jpg', 'question': 'why?', 'is_sentence': True, 'mask': rle(CUP), 'ignore_mask': rle(LID)},
            {'image': 'a.jpg', 'question': 'cup', 'is_sentence': False, 'mask': rle(CUP), 'ignore_mask': None},
            {'image': 'b.jpg', 'question': 'none', 'is_sentence': 0, 'mask': None, 'ignore_mask': rle(np.zeros(SIZE))},
            {'image': 'b.jpg', 'question': 'broken', 'is_sentence': None, 'mask': rle(CUP), 'ignore_mask': None},
        ],
    )
    picture(tmp_path / 'a.jpg')
    found = queries(read('reasonseg', tmp_path, 'test'))
    assert [query.form for query in found.values()] == ['long', 'short', 'short', 'short']
    assert found['0'].groups == {'form': 'long'}
    assert_masks(found['0'], CUP)
    np.testing.assert_array_equal(found['0'].ignore.decode(), LID)
    assert_masks(found['1'], CUP)
    assert_masks(found['2'])
    assert found['1'].ignore is found['2'].ignore is None
    assert 'is_sentence' in found['3'].error


# GSEval


@pytest.mark.parametrize('name', ['GroundingSuite-Eval.jsonl', 'a.jsonl', 'eval.json', 'gseval_eval.json', 'a.json'])
@pytest.mark.parametrize('place', ['unlabeled2017', 'images/unlabeled2017', 'images', '.'])
def test_gseval(tmp_path, name, place):
    rows = [
        {
            'idx': 40 + i,
            'image_path': f'unlabeled2017/{i % 2}.jpg',
            'class_id': class_id,
            'label': 'x',
            'box': [],
            'caption': f'text {i}',
            'segmentation': rle(CUP),
        }
        for i, class_id in enumerate([1, 2, 3, 4, 9])
    ]
    rows[1]['segmentation'] = polygon((2, 8), (3, 9)) + polygon((2, 4), (20, 28))
    rows[2]['segmentation'] = None
    write(tmp_path / name, rows)
    for image in ('0.jpg', '1.jpg'):
        picture(tmp_path / place / image)
    scenes = read('gseval', tmp_path, 'eval')
    assert all(Path(scene.image).is_file() for scene in scenes)
    found = queries(scenes)
    assert sorted(found) == ['40', '41', '42', '43', '44']
    assert [found[id].groups.get('class') for id in sorted(found)] == ['stuff', 'part', 'multi', 'single', None]
    assert found['43'].text == 'text 3'
    assert_masks(found['40'], CUP)
    assert_masks(found['41'], CUP | LID)
    assert 'under segmentation' in found['42'].error
    assert 'class_id is 1, 2, 3 or 4, got 9' in found['44'].error


def test_gseval_run_lengths_need_no_image(tmp_path):
    row = {'idx': 0, 'image_path': 'unlabeled2017/0.jpg', 'class_id': 1, 'caption': 'x', 'segmentation': rle(CUP)}
    write(tmp_path / 'set.jsonl', [row, {**row, 'idx': 1, 'segmentation': polygon((2, 8), (3, 9))}])
    [scene] = read('gseval', tmp_path, 'eval')
    assert scene.image == str(tmp_path / 'unlabeled2017' / '0.jpg')
    assert_masks(scene.queries[0], CUP)
    assert 'the image is not there' in scene.queries[1].error
    image = tmp_path / 'unlabeled2017' / '0.jpg'
    picture(image, (40, 40))
    assert 'of size [20, 30] on an image of [40, 40]' in read('gseval', tmp_path, 'eval')[0].queries[0].error
    image.write_bytes(b'no picture')
    assert 'the image cannot be read' in read('gseval', tmp_path, 'eval')[0].queries[0].error


# whole sets


def inst2seg(*texts, image='a.jpg'):
    return [{'image': image, 'height': HEIGHT, 'width': WIDTH, 'annotation': [{'text': text}]} for text in texts]


def test_absolute_paths(tmp_path):
    picture(tmp_path / 'far' / 'a.jpg')
    write(tmp_path / 'data' / 'test.json', inst2seg('x', image=str(tmp_path / 'far' / 'a.jpg')))
    assert read('inst2seg', tmp_path / 'data', 'test')[0].image == str(tmp_path / 'far' / 'a.jpg')
    write(tmp_path / 'data' / 'test.json', inst2seg('x', image='/other/machine/a.jpg'))
    assert read('inst2seg', tmp_path / 'data', 'test', tmp_path / 'far')[0].image == str(tmp_path / 'far' / 'a.jpg')


def test_images_that_are_nowhere_are_found_out_later(tmp_path):
    write(tmp_path / 'test.json', inst2seg('x', image='../sub/a.jpg'))
    (tmp_path / 'images').mkdir()
    for images in (None, tmp_path / 'images'):
        assert read('inst2seg', tmp_path, 'test', images)[0].image == str((images or tmp_path) / 'sub' / 'a.jpg')


def test_few_images_are_looked_for(tmp_path, monkeypatch):
    looked, is_file = [], os.path.isfile
    monkeypatch.setattr('os.path.isfile', lambda path: looked.append(path) or is_file(path))
    picture(tmp_path / '5000.jpg')
    write(tmp_path / 'test.json', [record for i in range(10000) for record in inst2seg('x', image=f'{i}.jpg')])
    assert len(read('inst2seg', tmp_path, 'test')) == 10000
    assert 0 < len(looked) < 500


@pytest.mark.parametrize('benchmark', READERS)
def test_folders_that_are_not_there(tmp_path, benchmark):
    split = {'inst2seg': 'test', 'gseval': 'eval', 'roborefit': 'testA'}.get(benchmark, 'val')
    with pytest.raises(DataError, match=f'there is no .*nowhere. --data is the folder of {benchmark}'):
        read(benchmark, tmp_path / 'nowhere', split)
    with pytest.raises(DataError, match='there is no folder .*nowhere. --images is'):
        read(benchmark, tmp_path, split, images=tmp_path / 'nowhere')
    with pytest.raises(DataError, match=f"{benchmark} has no split 'tset'; its splits are .*{split}"):
        read(benchmark, tmp_path, 'tset')


@pytest.mark.parametrize('benchmark', READERS)
def test_folders_that_fit_no_layout(tmp_path, benchmark):
    split = {'inst2seg': 'test', 'gseval': 'eval', 'roborefit': 'testA'}.get(benchmark, 'val')
    with pytest.raises(DataError, match=f'nothing in it, which is no layout of {benchmark}') as caught:
        read(benchmark, tmp_path, split)
    assert f'\n    DATA/\n      {split}.json' in str(caught.value)
    assert 'SPLIT' not in str(caught.value)
    assert ('original' in str(caught.value)) == (benchmark != 'inst2seg')
    for name in ('readme.txt', 'x.json', 'y.json'):
        write(tmp_path / name, [])
    with pytest.raises(DataError, match='has readme.txt, x.json, y.json, which is no layout'):
        read(benchmark, tmp_path, split)
    (tmp_path / 'y.json').unlink()
    write(tmp_path / 'x.json', [{'foo': 1, 'bar': 2}])
    for data in (tmp_path, tmp_path / 'x.json'):
        with pytest.raises(DataError, match='x.json has records with the keys foo, bar, which is no layout'):
            read(benchmark, data, split)
    with pytest.raises(DataError, match='readme.txt'):
        read(benchmark, tmp_path / 'readme.txt', split)


def test_splits_that_are_not_there(tmp_path, roborefit, reasonseg):
    with pytest.raises(DataError, match="no split 'testB' of roborefit; it has testA"):
        read('roborefit', roborefit(), 'testB')
    with pytest.raises(DataError, match="no split 'test' of reasonseg; it has val"):
        read('reasonseg', reasonseg(a=({'text': 'x', 'is_sentence': True, 'shapes': []}, SIZE)), 'test')
    write(tmp_path / 'refs' / 'refs(unc).p', [ref(1, 'cup'), ref(1, 'cup', split='testA')])
    with pytest.raises(DataError, match="no split 'train' of refcoco; it has testA, val"):
        read('refcoco', tmp_path / 'refs', 'train')
    for name in ('refcoco_val.json', 'refcoco_testB.json'):
        write(tmp_path / 'converted' / name, [{'image': 'a', 'height': 5, 'width': 5, 'cat': ['x'], 'masks': [None]}])
    with pytest.raises(DataError, match="no split 'testA' of refcoco; it has val, testB"):
        read('refcoco', tmp_path / 'converted', 'testA')
    with pytest.raises(DataError, match='refcoco_testB.json is named after the split testB, not testA'):
        read('refcoco', tmp_path / 'converted' / 'refcoco_testB.json', 'testA')
    assert read('refcoco', tmp_path / 'converted' / 'refcoco_testB.json', 'testB')


def test_files_to_choose_from(tmp_path):
    for name in ('refcoco_val.json', 'refcoco+_val.json'):
        write(tmp_path / name, [{'image': 'a', 'height': 5, 'width': 5, 'cat': ['x'], 'masks': [None]}])
    with pytest.raises(DataError, match=r'has refcoco\+_val.json, refcoco_val.json, expected one of them'):
        read('refcoco', tmp_path, 'val')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'test.json is empty'),
        ('{}', 'test.json holds a dict, expected a list'),
        ('[{"image": "a.jpg"', 'test.json is no JSON: .*line 1.*cut short'),
        ('[' * 100000, 'test.json is no JSON'),
        (b'\xff\xfe\xfd', 'test.json is no JSON'),
    ],
)
def test_files_that_are_no_list(tmp_path, content, message):
    (tmp_path / 'test.json').write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read('inst2seg', tmp_path, 'test')


def test_lines_that_are_cut_short(tmp_path):
    row = {'idx': 0, 'image_path': '0.jpg', 'class_id': 1, 'caption': 'a\u2028b', 'segmentation': rle(CUP)}
    file = write(tmp_path / 'set.jsonl', [row])
    file.write_text(json.dumps(row, ensure_ascii=False) + '\n\n' + json.dumps(row)[:-9])
    with pytest.raises(DataError, match='set.jsonl, line 3, is no JSON'):
        read('gseval', tmp_path, 'eval')
    file.write_text('\n')
    with pytest.raises(DataError, match='set.jsonl is empty'):
        read('gseval', tmp_path, 'eval')


def test_ids_are_unique(tmp_path):
    row = {'image_path': '0.jpg', 'class_id': 1, 'caption': 'x', 'segmentation': rle(CUP)}
    write(tmp_path / 'set.jsonl', [{'idx': id, **row} for id in (1, 2, 2, 3, 1)])
    with pytest.raises(DataError, match='set.jsonl has ids more than once, .*: 1, 2. Number'):
        read('gseval', tmp_path, 'eval')
    write(tmp_path / 'refs(unc).p', [ref(1, 'cup', first=5), ref(2, 'lid', first=5)])
    write(tmp_path / 'instances.json', instances())
    with pytest.raises(DataError, match='ids more than once, .*: 5'):
        read('refcoco', tmp_path, 'val')


def test_garbage_is_collected_again(tmp_path):
    write(tmp_path / 'test.json', inst2seg('x'))
    read('inst2seg', tmp_path, 'test')
    assert gc.isenabled()
    write(tmp_path / 'test.json', [])
    with pytest.raises(DataError):
        read('inst2seg', tmp_path, 'test')
    assert gc.isenabled()

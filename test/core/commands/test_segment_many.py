"""`instructsam segment` on several images, folders, patterns, videos and webcams."""

import json
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import instructsam.core
from instructsam.core import cli
from instructsam.core.batch import sources
from instructsam.core.batch.outputs import file_name
from instructsam.core.errors import InstructionError, ModelError
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle


class CountingEngine:
    """An engine without a model: of two overlapping masks the left one has the higher score."""

    def __init__(self):
        self.asked = 0
        self.error = None
        self.cut_at = 0  # number of the answer that a limit ends before its first phrase
        self.then = lambda: None  # called with every answer

    def from_pretrained(self, name, **options):
        return self

    def encode(self, image):
        return SimpleNamespace(height=image.shape[0], width=image.shape[1])

    def segment(self, encoded, instruction, **options):
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.then()
        if self.asked == self.cut_at:
            return Result(instruction, 'mu', encoded.height, encoded.width, (), finish_reason='time_budget')
        left, right = np.zeros((2, encoded.height, encoded.width), bool)
        left[:, :10] = right[:, 5:20] = True
        found = (Instance(Rle.encode(left), 0.9, 'mug', 0), Instance(Rle.encode(right), 0.6, 'cup', 1))
        return Result(instruction, 'mug', encoded.height, encoded.width, found)


@pytest.fixture
def engine(monkeypatch):
    engine = CountingEngine()
    monkeypatch.setattr(instructsam.core, 'InstructSAM', engine, raising=False)
    return engine


@pytest.fixture
def photos(tmp_path):
    """A folder with two images, one in a subfolder, and files that are no images."""
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    (folder / '.thumbnails').mkdir()
    for name in ('a.png', 'more/b.jpg', '.thumbnails/a.png'):
        Image.new('RGB', (40, 30), 'grey').save(folder / name)
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for value in range(5):
        writer.write(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.release()
    if not path.exists() or not path.stat().st_size:
        pytest.skip('OpenCV writes no videos here')
    return path


def segment(*arguments):
    return cli.main(['segment', *map(str, arguments)])


def test_a_folder_with_all_outputs(engine, photos, tmp_path, capsys):
    out, masks, coco = tmp_path / 'out', tmp_path / 'masks', tmp_path / 'coco.json'
    written = ('--out', out, '--masks', masks, '--coco', coco, '--json', tmp_path / 'results.json')
    assert segment(photos, 'the mugs', *written) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f'{photos}/a.png: mug 0.90, cup 0.60',
        f'{photos}/more/b.jpg: mug 0.90, cup 0.60',
    ]
    assert shown.err == '2 images: 2 answered\n'
    inside = str(photos).lstrip('/')
    labels = np.asarray(Image.open(masks / inside / 'more/b.jpg.png'))
    assert (labels.dtype, labels[0, 7], labels[0, 15], labels[0, 30]) == (np.uint16, 1, 2, 0)
    assert (out / 'overlays' / inside / 'a.png.jpg').exists()
    read = COCO(str(coco))
    assert [image['file_name'] for image in read.loadImgs(read.getImgIds())] == [
        f'{photos}/a.png',
        f'{photos}/more/b.jpg',
    ]
    assert [category['name'] for category in read.loadCats(read.getCatIds())] == ['mug', 'cup']
    annotation = read.loadAnns(read.getAnnIds())[0]
    assert read.annToMask(annotation).sum() == annotation['area'] == 300
    assert annotation['bbox'] == [0, 0, 10, 30]
    assert len(json.loads((tmp_path / 'results.json').read_text())) == 2


def test_lines_go_to_a_file_though_the_bar_is_on_a_terminal(engine, photos, capsys, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')  # rich takes stderr for a terminal
    assert segment(photos, 'the mugs') == 0
    shown = capsys.readouterr()
    assert 'images' in shown.err
    assert shown.out.splitlines() == [
        f'{photos}/a.png: mug 0.90, cup 0.60',
        f'{photos}/more/b.jpg: mug 0.90, cup 0.60',
    ]


def test_the_same_command_resumes(engine, photos, tmp_path, capsys):
    command = (photos, 'the mugs', '--out', tmp_path / 'out', '--coco', tmp_path / 'coco.json')
    assert segment(*command) == 0
    results = tmp_path / 'out/results.jsonl'
    lines = results.read_text().splitlines(keepends=True)
    results.write_text(lines[0] + lines[1][:30])  # killed while it wrote
    assert segment(*command) == 0
    assert engine.asked == 3
    assert results.read_text() == ''.join(lines)
    assert '1 of them earlier' in capsys.readouterr().err
    assert len(json.loads((tmp_path / 'coco.json').read_text())['images']) == 2
    Image.new('RGB', (50, 30)).save(photos / 'a.png')  # another image
    assert segment(*command) == 0
    assert engine.asked == 4


@pytest.mark.parametrize('inputs', ['photos', 'photos/**/*g'])
def test_outputs_in_the_folder_of_the_inputs_are_no_inputs(engine, photos, monkeypatch, capsys, inputs):
    monkeypatch.chdir(photos.parent)
    command = (inputs, 'the mugs', '--out', 'photos', '--masks', 'photos/masks')
    for _ in range(2):
        assert segment(*command) == 0
        assert '2 images: 2 answered' in capsys.readouterr().err
    assert engine.asked == 2


def test_a_folder_with_outputs_alone_is_refused(engine, photos, capsys):
    assert segment(photos, 'the mugs', '--masks', photos) == 2
    assert 'apart from the outputs of this command: give the outputs another folder' in capsys.readouterr().err


def test_images_whose_outputs_would_share_a_name_have_different_ones(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    absolute = str(tmp_path / 'x.png')
    names = ['a#b.png', 'a.b.png', absolute, absolute.lstrip('/'), 'y.png']
    for number, name in enumerate(names):
        os.makedirs(os.path.dirname(name) or '.', exist_ok=True)
        Image.new('RGB', (40 + number, 30)).save(name)
    command = (*names, 'the mugs', '--out', 'out', '--masks', 'masks')
    results = tmp_path / 'out/results.jsonl'
    for _ in range(2):
        assert segment(*command) == 0
        for folder in ('out/overlays', 'masks'):
            written = [path for path in (tmp_path / folder).rglob('*') if path.is_file()]
            assert sorted(Image.open(path).width for path in written) == [40, 41, 42, 43, 44]
            (first,) = (tmp_path / folder).glob('a.b.png.???')
            assert Image.open(first).width == 40
            assert len(list((tmp_path / folder).glob('y.png.???'))) == 1
        # Killed after the second image, and resumed with the inputs in another order.
        results.write_text(''.join(results.read_text().splitlines(keepends=True)[:2]))
        command = (*reversed(names[:2]), *command[2:])
    assert '2 of them earlier' in capsys.readouterr().err


def test_an_image_whose_outputs_have_too_long_names_fails_alone(engine, photos, tmp_path, capsys):
    Image.new('RGB', (40, 30)).save(photos / f'{"a" * 246}.png')
    assert segment(photos, 'the mugs', '--out', tmp_path / 'out') == 3
    assert 'failed: cannot write its outputs: File name too long' in capsys.readouterr().err
    assert len((tmp_path / 'out/results.jsonl').read_text().splitlines()) == 2
    assert segment(photos, 'the mugs', '--masks', tmp_path / 'masks') == 3


def test_an_image_without_an_answer_is_not_one_without_objects(engine, photos, tmp_path, capsys):
    engine.cut_at = 1
    coco = tmp_path / 'coco.json'
    assert segment(photos, 'the mugs', '--out', tmp_path / 'out', '--coco', coco) == 3
    assert 'a.png failed: no answer: ended by the time budget' in capsys.readouterr().err
    assert [image['file_name'] for image in json.loads(coco.read_text())['images']] == [f'{photos}/more/b.jpg']
    assert segment(photos, 'the mugs', '--out', tmp_path / 'out', '--coco', coco) == 0  # asked again
    assert len(json.loads(coco.read_text())['images']) == 2


@pytest.mark.parametrize('option', ['--coco', '--json'])
def test_a_document_on_stdout_is_alone_there(engine, photos, capsys, option):
    assert segment(photos / 'a.png', photos / 'more', 'the mugs', option, '-') == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == (3 if option == '--coco' else 2)
    assert 'a.png: mug 0.90' in err


@pytest.mark.parametrize('option', ['--out', '--masks'])
def test_a_removed_output_folder_ends_the_run(engine, photos, tmp_path, capsys, option):
    out = tmp_path / 'out'
    engine.then = lambda: shutil.rmtree(out) if engine.asked == 2 else None
    assert segment(photos, 'the mugs', option, out) == 4
    assert f'{out}' in capsys.readouterr().err
    assert not out.exists()
    assert segment(photos, 'the mugs', option, out) == 0
    assert len(list(out.rglob('*.png' if option == '--masks' else '*.jpg'))) == 2


def test_other_settings_are_refused(engine, photos, tmp_path, capsys):
    assert segment(photos, 'the mugs', '--out', tmp_path / 'out') == 0
    assert segment(photos, 'the cups', '--out', tmp_path / 'out') == 2
    assert "instruction was 'the mugs', now 'the cups'" in capsys.readouterr().err


def test_some_fail(engine, photos, capsys):
    (photos / 'broken.png').write_bytes(b'no image')
    assert segment(photos, 'the mugs') == 3
    err = capsys.readouterr().err
    assert 'broken.png failed: cannot read' in err
    assert '3 images: 2 answered, 1 failed' in err


def test_all_fail(engine, photos, capsys):
    engine.error = ModelError('not finite')
    assert segment(photos, 'the mugs') == 1
    assert '2 failed' in capsys.readouterr().err


def test_an_error_that_concerns_all_images_ends_the_run(engine, photos, capsys):
    engine.error = InstructionError('too long')
    assert segment(photos, 'the mugs') == 2
    assert engine.asked == 1


def test_files_and_patterns(engine, photos, capsys):
    assert segment(photos / 'a.png', photos / '*/*.jpg', photos / 'a.png', 'the mugs') == 0
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines()] == [
        f'{photos}/a.png',
        f'{photos}/more/b.jpg',
    ]


def test_a_video(engine, video, tmp_path, capsys):
    assert segment(video, 'the mugs', '--every', 2, '--masks', tmp_path / 'masks') == 0
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines()] == [f'{video}#{i}' for i in (0, 2, 4)]
    assert (tmp_path / 'masks' / str(video.parent).lstrip('/') / 'clip.avi.4.png').exists()


def test_a_fifo_with_the_ending_of_a_video_is_not_opened(engine, photos, monkeypatch, capsys):
    os.mkfifo(photos / 'clip.mp4')
    monkeypatch.delattr(sources.cv2, 'VideoCapture')  # it would wait for ever
    assert segment(photos / 'clip.mp4', photos / 'a.png', 'the mugs') == 3
    assert 'clip.mp4: expected a regular file, this is a FIFO' in capsys.readouterr().err


def test_a_webcam(engine, monkeypatch, capsys, tmp_path):
    frames = iter(range(9))

    class Webcam:
        def __init__(self, index):
            assert index == 0

        def isOpened(self):  # noqa: N802  OpenCV's name
            return True

        def get(self, key):
            return {cv2.CAP_PROP_FRAME_WIDTH: 40, cv2.CAP_PROP_FRAME_HEIGHT: 30}[key]

        def grab(self):
            return next(frames, None) is not None

        def retrieve(self):
            return True, np.zeros((30, 40, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(sources.cv2, 'VideoCapture', Webcam)
    monkeypatch.chdir(tmp_path)
    assert segment('0', 'the mugs', '--max-images', 3) == 0
    assert '3 images: 3 answered' in capsys.readouterr().err


@pytest.mark.parametrize(('live', 'is_written'), [(True, True), (False, False)])
def test_ctrl_c_completes_the_documents_of_a_webcam_only(engine, photos, monkeypatch, tmp_path, live, is_written):
    found = [sources.Source(str(photos / 'a.png'), is_live=live)]
    monkeypatch.setattr('instructsam.core.commands.segment_many.find_sources', lambda *arguments: found)
    image = sources.SourceImage('a', '', lambda: np.zeros((30, 40, 3), np.uint8))

    def images(self, *arguments):
        yield image
        raise KeyboardInterrupt

    monkeypatch.setattr(sources.Source, 'images', images)
    monkeypatch.setattr(sources.Source, 'count', lambda self, every: None)
    assert segment(photos, 'the mugs', '--coco', tmp_path / 'coco.json') == 130
    assert (tmp_path / 'coco.json').exists() == is_written


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['absent.jpg', 'other.jpg', 'x'], 'cannot read absent.jpg: no such file'),
        (['*.jpg', 'x'], 'no file matches *.jpg'),
        (['99999999999', 'x'], 'there is no webcam 99999999999: expected an index of at most 9 digits'),
        (['empty', 'x'], 'empty holds no images or videos'),
        (['a.png', 'x', '--coco', '-', '--json', '-'], '--coco and --json cannot both be -'),
        (['a.png', 'x', '--coco', 'a.png'], 'cannot write a.png: this file is also read'),
        (['a.png', 'x', '--coco', 'o.json', '--camera', '1', '1', '1', '1'], 'give one image file'),
    ],
)
def test_inputs_that_cannot_be_used(engine, photos, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(photos)
    (photos / 'empty').mkdir()
    assert segment(*arguments) == 2
    assert expected in capsys.readouterr().err
    assert engine.asked == 0


@pytest.mark.parametrize('name', ['../../etc/a.png', '/etc/a.png', './a.png', 'clip.mp4#12'])
def test_outputs_stay_in_their_folder(name):
    path = file_name(name, '.png')
    assert not path.is_absolute()
    assert '..' not in path.parts
    assert not os.path.isabs(path)

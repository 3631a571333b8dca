"""`instructsam segment` on one image: its output, options, files and errors."""

import errno
import json
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import is_one_error_line, run
from PIL import Image
from pycocotools import mask as coco

import instructsam.core
from instructsam.core import cli, exit_codes
from instructsam.core.errors import InstructionError, ModelError
from instructsam.core.files.image_file import read_image
from instructsam.core.result import Instance, Result
from instructsam.core.rle import Rle

MUG = np.zeros((60, 80), bool)
MUG[10:40, 20:50] = True


class StandInEngine:
    """An engine without a model: it finds one mug, unless `outcome` says otherwise, and records its arguments."""

    warning = ''
    outcome = 'ok'  # or 'no_target', or an exception
    finish_reason = 'stop'

    def __init__(self):
        self.loaded_with = self.asked = None

    def from_pretrained(self, name, **options):
        if name == 'absent':
            raise ModelError('there is no model absent')
        self.loaded_with = {'name': name, **options}
        return self

    def encode(self, image):
        return SimpleNamespace(height=image.shape[0], width=image.shape[1])

    def answer_for(self, phrases):
        return f'answer for {phrases}'

    def segment(self, encoded, instruction, **options):
        self.asked = {'instruction': instruction, **options}
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        instances = (Instance(Rle.encode(MUG), 0.875, 'red [b]mug[/b]', 3),) if self.outcome == 'ok' else ()
        return Result(
            instruction,
            'red mug',
            encoded.height,
            encoded.width,
            instances,
            finish_reason=self.finish_reason,
            warning=self.warning,
            timings_ms={'image_encoders': 12.0, 'generation': 30.0},
        )


@pytest.fixture
def engine(monkeypatch):
    engine = StandInEngine()
    monkeypatch.setattr(instructsam.core, 'InstructSAM', engine, raising=False)
    return engine


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / 'image.png'
    Image.new('RGB', (80, 60), 'grey').save(path)
    return path


@pytest.fixture
def segment(engine, image_file, capsys):
    """Function that runs the command in this process and returns (exit code, stdout, stderr)."""

    def run(*arguments):
        try:
            code = cli.main(['segment', str(image_file), *map(str, arguments)])
        except SystemExit as end:  # argparse
            code = end.code
        return code, *capsys.readouterr()

    return run


def test_table(segment):
    code, out, err = segment('the red mug')
    assert (code, err) == (0, '')
    for shown in ('the red mug', '0.875', 'red [b]mug[/b]', '20 10 50 40', '900', ' 3 ', 'encoders 12', 'total 42'):
        assert shown in out


def test_no_target_is_not_an_error(segment, engine):
    engine.outcome = 'no_target'
    code, out, _ = segment('the elephant')
    assert code == 0
    assert 'no target' in out


def test_a_limit_that_ends_the_answer_is_named(segment, engine, tmp_path):
    engine.finish_reason = 'time_budget'
    code, out, _ = segment('the red mug')
    assert code == 0
    assert 'ended by the time budget' in out
    engine.outcome = 'no_target'
    code, out, _ = segment('the red mug', '--json', tmp_path / 'result.json')
    assert code == 1
    assert "no answer about 'the red mug'" in out
    assert 'no target' not in out
    assert 'ended by the time budget' in out
    assert json.loads((tmp_path / 'result.json').read_text())['status'] == 'error'


def test_options_reach_the_engine(segment, engine):
    code, *_ = segment(
        'the mug',
        '--model',
        'm',
        '--mode',
        'reference',
        '--threshold',
        0.25,
        '--device',
        'cpu',
        '--dtype',
        'bfloat16',
        '--compile',
        'off',
        '--revision',
        'v1',
        '--max-new-tokens',
        7,
        '--time-budget',
        1.5,
        '--keep-duplicates',
        '--answer',
        'text',
    )
    assert code == 0
    assert engine.loaded_with == {
        'name': 'm',
        'mode': 'reference',
        'device': 'cpu',
        'dtype': 'bfloat16',
        'revision': 'v1',
        'compile': 'off',
    }
    assert engine.asked == {
        'instruction': 'the mug',
        'score_threshold': 0.25,
        'max_new_tokens': 7,
        'time_budget_s': 1.5,
        'suppress_duplicates': False,
        'answer': 'text',
    }


def test_phrases_skip_decoding(segment, engine):
    segment('the mugs', '--phrase', 'red mug', '--phrase', 'cup')
    assert engine.asked['answer'] == "answer for ['red mug', 'cup']"


def test_the_model_writes_the_answer_by_default(segment, engine):
    segment('the mugs')
    assert engine.asked['answer'] is None


def test_the_warning_of_a_model_is_shown(segment, engine):
    engine.warning = 'it has seen tables only'
    _, out, _ = segment('the mugs')
    assert engine.warning in out


def test_json(segment, tmp_path):
    code, out, err = segment('the mug', '--json', '-')
    document = json.loads(out)
    assert code == 0
    assert 'red [b]mug' in err
    assert document['status'] == 'ok'
    assert document['timings_ms']['generation'] == 30
    np.testing.assert_array_equal(coco.decode(document['instances'][0]['segmentation']), MUG)
    segment('the mug', '--json', tmp_path / 'a.json')
    assert json.loads((tmp_path / 'a.json').read_text()) == document


CAMERA = ('--camera', 100, 100, 39.5, 29.5)


@pytest.fixture
def depth_file(tmp_path):
    """Depth image in mm: a table 1 m from the camera and a mug of 5 cm height on it."""
    path = tmp_path / 'depth.png'
    Image.fromarray(np.where(MUG, 950, 1000).astype(np.uint16)).save(path)
    return path


def test_depth_gives_position_and_size(segment, depth_file, tmp_path):
    code, out, err = segment('mug', '--depth', depth_file, *CAMERA, '--json', tmp_path / 'a.json')
    assert (code, err) == (0, '')
    assert 'center (x y z) m' in out
    assert 'size m' in out
    (instance,) = json.loads((tmp_path / 'a.json').read_text())['instances']
    found = instance['geometry']
    assert found['center_m'] == pytest.approx([-0.0475, -0.0475, 0.975], abs=0.006)
    assert found['has_support']
    assert found['size_m'] == pytest.approx([0.28, 0.28, 0.05], abs=0.02)
    assert found['valid'] == 1
    np.save(tmp_path / 'depth.npy', np.where(MUG, 0.95, 1.0))
    code, again, _ = segment('mug', '--depth', tmp_path / 'depth.npy', *CAMERA)
    assert code == 0
    assert out.splitlines()[3] == again.splitlines()[3]


def test_an_instance_without_depth_is_named(segment, depth_file, tmp_path):
    Image.fromarray(np.where(MUG, 0, 1000).astype(np.uint16)).save(depth_file)
    code, out, err = segment('mug', '--depth', depth_file, *CAMERA, '--json', tmp_path / 'a.json')
    assert code == 0
    assert 'center' not in out
    assert '0 % of the mask has a depth' in err
    assert 'red [b]mug[/b]' in err
    assert 'geometry' not in json.loads((tmp_path / 'a.json').read_text())['instances'][0]


def test_invalid_depth_and_camera(segment, engine, depth_file, image_file, tmp_path):
    small = tmp_path / 'small.png'
    Image.fromarray(np.ones((6, 8), np.uint16)).save(small)
    (tmp_path / 'cut.png').write_bytes(depth_file.read_bytes()[:40])
    Image.fromarray(np.ones_like(MUG, np.uint16)).save(tmp_path / 'meters.png')
    np.save(tmp_path / 'mm.npy', np.full(MUG.shape, 1000.0))
    Image.open(depth_file).save(tmp_path / 'turned.png', exif=turned(3))
    Image.fromarray(np.ones(MUG.shape, np.float32)).save(tmp_path / 'turned.tif', exif=turned(6))
    for arguments, said in (
        (['--depth', depth_file], 'go together'),
        (CAMERA, 'go together'),
        (['--depth', image_file, *CAMERA], 'not a depth image'),
        (['--depth', small, *CAMERA], 'align depth to colour'),
        (['--depth', tmp_path / 'cut.png', *CAMERA], 'cannot read'),
        (['--depth', 'absent.png', *CAMERA], 'absent.png'),
        (['--depth', depth_file, '--camera', 0, 0, 0, 0], 'focal lengths above 0'),
        (['--depth', depth_file, '--camera', 'nan', 100, 39.5, 29.5], 'camera_info.k has numbers that are not finite'),
        (['--depth', depth_file, '--camera', 100, 100, 319.5, 239.5], 'is that of an image of about 640 x 480'),
        (['--depth', tmp_path / 'meters.png', *CAMERA], 'the median of the 16-bit depth is 1'),
        (['--depth', tmp_path / 'mm.npy', *CAMERA], 'the median of the floating-point depth is 1000'),
        (['--depth', tmp_path / 'turned.png', *CAMERA], 'its EXIF orientation is 3'),
        (['--depth', tmp_path / 'turned.tif', *CAMERA], 'its EXIF orientation is 6'),
    ):
        code, out, err = segment('mug', *arguments)
        assert (code, out) == (2, '')
        assert said in err
        assert is_one_error_line(err)
    assert engine.asked is None


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize('orientation', range(1, 9))
def test_depth_belongs_to_the_pixels_as_stored(segment, engine, depth_file, image_file, orientation):
    Image.open(image_file).save(image_file, exif=turned(orientation))
    code, _, err = segment('mug', '--depth', depth_file, *CAMERA)
    if orientation == 1:
        assert (code, err) == (0, '')
    else:
        assert code == 2
        assert f'its EXIF orientation is {orientation}' in err
        assert is_one_error_line(err)
        assert engine.asked is None


def test_overlay(segment, tmp_path):
    segment('the mug', '--out', tmp_path / 'a.png')
    assert (read_image(tmp_path / 'a.png')[25, 35] != 128).any()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['x', '--threshold', '1.5'], '--threshold: expected a number from 0 to 1, got 1.5'),
        (['x', '--threshold', 'nan'], '--threshold'),
        (['x', '--threshold', 'high'], "expected a number, got 'high'"),
        (['x', '--max-new-tokens', '0'], '--max-new-tokens'),
        (['x', '--time-budget', '-1'], '--time-budget'),
        (['x', '--time-budget', 'inf'], '--time-budget'),
        (['x', '--dtype', 'int8'], 'int8'),
        (['x', '--phrase', 'a', '--answer', 'b'], 'not allowed with'),
        (['caf\udce9'], r"not valid UTF-8: 'caf\udce9'"),
        (['x', '--phrase', '\udcff'], 'not valid UTF-8'),
        ([], 'INSTRUCTION'),
        (['x', '--model', 'absent'], 'there is no model absent'),
        (['x', '--out', 'absent/a.png'], 'there is no folder absent'),
        (['x', '--out', '.'], 'not the ending of a known image format'),
        (['x', '--json', 'absent/a.json'], 'there is no folder absent'),
        (['x', '--json', '.'], 'it is a folder'),
    ],
    ids=ascii,
)
def test_bad_arguments(segment, engine, arguments, said):
    code, out, err = segment(*arguments)
    assert (code, out) == (2, '')
    assert said in err
    assert is_one_error_line(err)
    assert engine.asked is None


def test_errors_of_the_engine(segment, engine):
    engine.outcome = InstructionError('the instruction is empty')
    assert segment('') == (2, '', 'instructsam: error: the instruction is empty\n')


def test_unwritable_files(segment):
    for option, path in (('--json', '/proc/a.json'), ('--out', '/proc/a.png')):
        code, _, err = segment('x', option, path)
        assert code == exit_codes.STORAGE
        assert f'cannot write {path}' in err


def test_outputs_do_not_replace_inputs_or_each_other(segment, image_file, depth_file, engine, tmp_path):
    """A link to the image is the image; the files stay as they were."""
    (tmp_path / 'link.png').symlink_to(image_file)
    before = image_file.read_bytes()
    depth = ('--depth', depth_file, '--camera', 60, 60, 40, 30)
    new = tmp_path / 'new.png'
    for arguments in (
        ['--out', image_file],
        ['--out', tmp_path / 'link.png'],
        ['--json', image_file],
        [*depth, '--out', depth_file],
        [*depth, '--json', depth_file],
        ['--out', new, '--json', tmp_path / '..' / tmp_path.name / 'new.png'],
    ):
        code, _, err = segment('x', *arguments)
        assert code == 2
        assert 'is also read or written otherwise' in err
    assert image_file.read_bytes() == before
    assert not new.exists()
    assert engine.asked is None


def test_unexpected_errors(segment, engine, monkeypatch):
    engine.outcome = RuntimeError('two\nlines')
    code, _, err = segment('x')
    assert code == 1
    assert err == 'instructsam: unexpected RuntimeError: two lines (INSTRUCTSAM_DEBUG=1 shows where)\n'
    monkeypatch.setenv('INSTRUCTSAM_DEBUG', '1')
    code, _, err = segment('x')
    assert code == 1
    assert 'Traceback' in err
    assert 'two\nlines' in err


def test_names_that_no_file_can_have(segment):
    code, _, err = segment('x', '--json', 'x' * 300)
    assert code == 2
    assert is_one_error_line(err)


def test_a_name_that_fails_late_is_an_error_of_the_arguments(segment, engine):
    engine.outcome = OSError(errno.ENAMETOOLONG, 'File name too long', 'x' * 300)
    code, _, err = segment('x')
    assert code == 2
    assert is_one_error_line(err)
    assert 'File name too long' in err


def test_the_built_in_model(tmp_path, image):
    Image.fromarray(image).save(tmp_path / 'a.png')
    options = ('--phrase', 'red box', '--threshold', '0', '--json', '-', '--out', 'b.png')
    done = run('segment', 'a.png', 'the red box', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['status'] == 'ok'
    assert result['phrases'] == ['red box']
    assert 'rendered tables only' in result['warning']
    assert result['warning'] in done.stderr
    for instance in result['instances']:
        x0, y0, x1, y1 = instance['box']
        mask = coco.decode(instance['segmentation'])
        assert mask.shape == image.shape[:2]
        assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
    assert read_image(tmp_path / 'b.png').shape == image.shape

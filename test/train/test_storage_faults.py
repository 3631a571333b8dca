"""Commands on a full disk or in a removed folder: one line, exit code 4, and the same command resumes to equal results.

Only root could mount a small file system; instead the size of files is limited (RLIMIT_FSIZE), so that writes fail with
EFBIG as they fail with ENOSPC on a full disk, in Python as well as in the libraries that write tensors and databases.
"""

import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from chat_server import chat_server
from engine_server import annotates, make_photos, write_recipe
from PIL import Image
from safetensors.torch import load_file

REFERENCE = Path(os.environ.get('INSTRUCTSAM_REFERENCE', Path(__file__).parents[1] / 'data' / 'reference'))
ADVICE = 'File too large; raise the limit of file sizes (ulimit -f), and run the same command again'


@pytest.fixture
def command(processes, tmp_path):
    """Return a function (*argv, most_bytes=0, removed='') that returns (exit code, the lines printed)."""

    def start(*argv, most_bytes=0, removed=''):
        log, script = tmp_path / 'log', str(Path(__file__).with_name('rank.py'))
        os.mkfifo(log)  # a file would be limited, too
        settings = {'ARGV': [str(each) for each in argv], 'ENV': {}, 'LOG': str(log), 'KILL': None}
        settings |= {'MOST_BYTES': most_bytes, 'REMOVED': str(removed)}
        process = processes.Process(target=runpy.run_path, args=(script, settings))
        process.start()
        text = log.read_text()
        process.join()
        log.unlink()
        return process.exitcode, text.splitlines()

    return start


def test_training(command, recipe, tmp_path):
    """The limits hit the record, a checkpoint's weights or its optimizer."""
    path = recipe('run', steps=2)
    for most_bytes in (1000, 100_000, 800_000):
        code, lines = command('train', 'run', path, most_bytes=most_bytes)
        assert code == 4, lines
        assert lines[-1].startswith('instructsam: error: ')
        assert lines[-1].endswith('and run the same command again')
        assert not [line for line in lines if 'Traceback' in line]
        assert not (tmp_path / 'run' / 'final').exists()
    assert command('train', 'run', path)[0] == 0
    assert command('train', 'run', recipe('whole', steps=2))[0] == 0
    whole, resumed = (load_file(tmp_path / name / 'final' / 'model.safetensors') for name in ('whole', 'run'))
    for name, tensor in whole.items():
        assert tensor.equal(resumed[name]), name


def test_the_data_engine(command, tmp_path, monkeypatch):
    """The limits hit the cache of replies, rows or the export."""
    make_photos(tmp_path / 'photos')
    monkeypatch.chdir(tmp_path)
    with chat_server(annotates) as server:
        recipe = write_recipe(tmp_path, 'run', server.url, REFERENCE / 'checkpoint')
        for most_bytes in (1000, 12_000):
            code, lines = command('engine', 'run', recipe, most_bytes=most_bytes)
            assert code == 4, lines
            assert lines[-1].startswith('instructsam: error: ')
            assert lines[-1].endswith('and run the same command again')
            assert not [line for line in lines if 'Traceback' in line]
        assert command('engine', 'run', recipe)[0] == 0
        whole = write_recipe(tmp_path, 'whole', server.url, REFERENCE / 'checkpoint')
        assert command('engine', 'run', whole)[0] == 0
    for name in ('train.json', 'validation.json', 'test.json', 'coco.json', 'summary.json'):
        assert (tmp_path / 'run/export' / name).read_bytes() == (tmp_path / 'whole/export' / name).read_bytes()


def test_a_removed_output(command, recipe, tmp_path):
    path = recipe('run', steps=2)
    code, lines = command('train', 'run', path, removed=tmp_path / 'run')
    assert code == 4, lines
    assert lines[-1].startswith('instructsam: error: ')
    assert lines[-1].endswith('and run the same command again')
    assert not [line for line in lines if 'Traceback' in line]
    assert command('train', 'run', path)[0] == 0


def test_evaluation(command, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    asked = [
        {'text': f'thing {number}', 'mask': [{'size': [60, 80], 'counts': [600, 30, 4170]}]} for number in range(6)
    ]
    record = {'image': str(tmp_path / 'a.png'), 'height': 60, 'width': 80, 'annotation': asked}
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'test.json').write_text(json.dumps([record]))
    model = ['--model', REFERENCE / 'checkpoint', '--max-new-tokens', '2']
    argv = ['eval', 'inst2seg', '--data', tmp_path / 'data', *model, '--results', tmp_path / 'run']
    code, lines = command(*argv, most_bytes=2000)
    assert code == 4, lines
    assert lines[-1] == f'instructsam: error: {tmp_path}/run/results-00000.jsonl: {ADVICE}'
    code, lines = command(*argv)
    assert code == 0, lines
    assert any('the last line was truncated' in line for line in lines)
    assert len((tmp_path / 'run' / 'results-00000.jsonl').read_text().splitlines()) == 1 + len(asked)


def test_scenes(command, tmp_path, opengl):
    """The limits hit an image and the list of records."""
    argv = ['tabletop', 'generate', tmp_path / 'out', '--scenes', '3', '--size', '64', '48', '--workers', '1']
    for most_bytes in (1500, 20_000):
        code, lines = command(*argv, most_bytes=most_bytes)
        assert code == 4, lines
        assert lines[-1].endswith(ADVICE)
        assert not [line for line in lines if 'Traceback' in line]
    assert command(*argv)[0] == 0
    whole = [*argv[:2], tmp_path / 'whole', *argv[3:]]
    assert command(*whole)[0] == 0
    names = [path.relative_to(tmp_path / 'whole') for path in (tmp_path / 'whole').rglob('*.*')]
    assert names
    for name in names:
        assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes(), name


def test_a_read_only_folder(tmp_path):
    """As another user, because root may write everywhere."""
    if os.getuid():
        pytest.skip('needs root, to become another user')
    folder = tmp_path / 'out'
    folder.mkdir()
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and 'pytest' in str(parent):
            parent.chmod(0o755)
    child = os.fork()
    if not child:
        from instructsam.core.errors import StorageError
        from instructsam.core.folder_lock import FolderLock

        os.setuid(65534)
        try:
            FolderLock(folder).__enter__()
        except StorageError as error:
            os._exit(0 if 'Permission denied; make it writable or give another folder' in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

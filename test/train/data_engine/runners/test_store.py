"""Files of stages: every cut is survived, and what does not belong together is named."""

import errno
import os

import pytest

from instructsam.core.errors import DataError, InstructSAMError, StorageError
from instructsam.core.run_settings import OtherSettingsError
from instructsam.train.data_engine.rows import EngineImage, Ground, Question, Row
from instructsam.train.data_engine.runners.store import StageFile, line_of, row_of
from instructsam.train.evaluation.running.run_folder import read_run

HEADER = {'questions': {'per_image': 5, 'vlm': {'model': 'a'}}}


def row(order):
    image = EngineImage(f'{order:064x}', f'{order}.png', False, 4, 6, 'photos', 'own', f'{order}.png', 9.0, '0' * 16)
    return Row(order, image, (Question('q0', f'Find the "cup" {order}.', 'cup', Ground('one', 1)),))


def write(path, orders):
    with StageFile(path, HEADER) as file:
        for order in orders:
            file.add(row(order))


def test_rows_come_back_in_their_order(tmp_path):
    path = tmp_path / 'questions.jsonl'
    write(path, (3, 0, 2))
    write(path, (1,))
    with StageFile(path) as file:
        assert list(file) == [row(order) for order in range(4)]
        assert file.orders() == [0, 1, 2, 3]
        assert len(file) == 4
        assert 3 in file
        assert 4 not in file
        assert file.header == HEADER


def test_a_run_that_was_cut_anywhere_ends_with_the_same_file(tmp_path, capsys):
    path = tmp_path / 'questions.jsonl'
    write(path, range(3))
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 13), len(whole) - 1):
        path.write_bytes(whole[:length])
        with StageFile(path, HEADER) as file:
            for order in range(3):
                if order not in file:
                    file.add(row(order))
        assert path.read_bytes() == whole, length
    assert 'the last line was truncated' in capsys.readouterr().err


@pytest.mark.parametrize('position', [30, 200, -10])
def test_a_damaged_line_is_named(tmp_path, position):
    path = tmp_path / 'questions.jsonl'
    write(path, range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[2])
    damaged[position] ^= 1
    path.write_bytes(b''.join([*lines[:2], bytes(damaged), lines[3]]))
    with pytest.raises(DataError, match=r'questions.jsonl, line 3 is damaged .*delete the line and run'):
        StageFile(path, HEADER)
    path.write_bytes(b''.join([*lines[:2], lines[3]]))
    write(path, (1,))
    with StageFile(path) as file:
        assert list(file) == [row(order) for order in range(3)]


def test_a_file_with_other_settings_is_refused_with_both_values(tmp_path):
    path = tmp_path / 'questions.jsonl'
    write(path, (0,))
    other = {'questions': {'per_image': 4, 'vlm': {'model': 'a'}}}
    with pytest.raises(OtherSettingsError, match=r'questions.per_image was 5, now 4.* engine questions RECIPE --redo'):
        StageFile(path, other)


def test_a_file_of_another_schema_is_refused(tmp_path):
    path = tmp_path / 'questions.jsonl'
    path.write_text('{"header": {"schema": 9}}\n')
    with pytest.raises(DataError, match=r'line 1 is damaged .its rows have the schema 9, expected 1'):
        StageFile(path, HEADER)
    with pytest.raises(DataError, match=r'recompute the rows with `instructsam engine questions RECIPE --redo`'):
        StageFile(path, HEADER)


def test_what_is_no_regular_file_is_named(tmp_path):
    (tmp_path / 'images.jsonl').mkdir()
    os.mkfifo(tmp_path / 'questions.jsonl')
    os.mkfifo(tmp_path / 'results-00000.jsonl')
    for name in ('images', 'questions'):
        with pytest.raises(InstructSAMError, match=f'{name}.jsonl is not a regular file'):
            StageFile(tmp_path / f'{name}.jsonl', HEADER)
    with pytest.raises(InstructSAMError, match=r'results-00000\.jsonl is not a regular file'):
        read_run(tmp_path)


def test_a_stage_that_was_not_run_is_named(tmp_path):
    with pytest.raises(DataError, match='run `instructsam engine masks RECIPE` first'):
        StageFile(tmp_path / 'masks.jsonl')


def test_a_row_is_written_once(tmp_path):
    with StageFile(tmp_path / 'questions.jsonl', HEADER) as file:
        file.add(row(0))
        with pytest.raises(InstructSAMError, match='has the row 0 already'):
            file.add(row(0))


def test_a_full_disk_is_a_storage_error_and_keeps_the_rows_before(tmp_path):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, line):
            self.file.write(line[:20])
            self.file.flush()
            raise OSError(errno.ENOSPC, 'No space left on device')

        def close(self):
            self.file.close()

    path = tmp_path / 'questions.jsonl'
    write(path, (0,))
    file = StageFile(path, HEADER)
    file._file._file = Full(file._file._file)
    with pytest.raises(StorageError, match=r'questions.jsonl: No space left on device; free some space'):
        file.add(row(1))
    assert 1 not in file
    file.close()
    write(path, (1,))
    with StageFile(path) as file:
        assert list(file) == [row(0), row(1)]


def test_a_line_is_json_with_a_checksum():
    line = line_of(row(0))
    assert row_of(line) == row(0)
    with pytest.raises(DataError, match='checksum'):
        row_of(line.replace(b'cup', b'cap'))

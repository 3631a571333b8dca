"""Annotation files, recipes and masks that are no regular files are refused at once by all that read them."""

import os
import tracemalloc

import pytest

from instructsam.core.errors import DataError, InstructSAMError
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.record_file import RecordFile
from instructsam.train.data.scene_file import MAX_LINE_BYTES, scene_lines
from instructsam.train.evaluation.readers.formats.documents import read_json, read_records
from instructsam.train.evaluation.readers.formats.images import image_size
from instructsam.train.evaluation.readers.formats.pickles import read_pickle
from instructsam.train.loop.recipe import read_yaml


@pytest.mark.parametrize('read', [RecordFile, read_json, read_records, read_pickle, read_yaml, image_size])
def test_special_files(tmp_path, read):
    os.mkfifo(tmp_path / 'fifo')
    (tmp_path / 'zero').symlink_to('/dev/zero')
    for name, reason in [('fifo', 'a FIFO'), ('zero', 'a character device'), ('.', 'a directory')]:
        with pytest.raises((InstructSAMError, RecordError), match=f'expected a regular file, this is {reason}'):
            read(tmp_path / name)


def test_a_scene_file_is_read_line_by_line(tmp_path):
    path = tmp_path / 'scenes.jsonl'
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"b": "\xe2\x80\xa8"}')
    assert [(line.number, line.text.strip()) for line in scene_lines(path)] == [(1, '{"a": 1}'), (4, '{"b": "\u2028"}')]
    with path.open('ab') as file:
        file.truncate(3 << 30)  # sparse: takes no space
    tracemalloc.start()
    with pytest.raises(DataError, match=f'scenes.jsonl, line 4: it has more than {MAX_LINE_BYTES} bytes'):
        list(scene_lines(path))
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE_BYTES
    tracemalloc.stop()

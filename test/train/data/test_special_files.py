"""Annotation files, recipes and masks that are no regular files are refused at once by all that read them."""

import os

import pytest

from instructsam.core.errors import InstructSAMError
from instructsam.train.data.record_fields import RecordError
from instructsam.train.data.record_file import RecordFile
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

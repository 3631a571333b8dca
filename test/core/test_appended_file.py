"""Files of lines: a line that append() has returned from is in a file that still has its name."""

import pytest

from instructsam.core.appended_file import AppendedFile
from instructsam.core.errors import StorageError


def test_lines_are_appended(tmp_path):
    path = tmp_path / 'out' / 'rows.jsonl'
    for line in (b'1', b'2'):
        file = AppendedFile(path)
        file.append(line)
        file.close()
    assert path.read_bytes() == b'1\n2\n'


def test_a_file_that_was_removed_is_a_storage_error(tmp_path):
    path = tmp_path / 'rows.jsonl'
    file = AppendedFile(path)
    file.append(b'1')
    path.unlink()
    with pytest.raises(StorageError, match=r'rows\.jsonl: No such file or directory; if it was removed'):
        file.append(b'2')
    file.close()

"""Regular files: everything that could block or never end is refused before it is read."""

import os
import socket

import pytest

from instructsam.core.files.regular_file import check_regular_file, open_regular_file, read_regular_file


def test_a_regular_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    (tmp_path / 'link').symlink_to('a')
    assert read_regular_file(tmp_path / 'a') == read_regular_file(str(tmp_path / 'link'), max_bytes=3) == b'abc'
    with open_regular_file(tmp_path / 'a') as file:
        assert file.read(2) == b'ab'


@pytest.mark.parametrize('read', [read_regular_file, open_regular_file, check_regular_file])
def test_other_files_are_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / 'fifo')  # without a writer: reading waits for ever
    (tmp_path / 'link').symlink_to('fifo')
    (tmp_path / 'loop').symlink_to('loop')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 'socket'))
        for path, reason in [
            (tmp_path / 'fifo', 'regular file, this is a FIFO'),
            (tmp_path / 'link', 'a FIFO'),
            (tmp_path / 'socket', 'a socket'),
            (tmp_path, 'a directory'),
            ('/dev/zero', 'a character device'),
            ('/dev/null', 'a character device'),
            ('/proc/self/maps', 'empty'),
            (tmp_path / 'loop', 'symbolic links'),
            (tmp_path / 'absent', 'No such file'),
            ('a\0b', 'null'),
        ]:
            with pytest.raises(OSError, match=reason):
                read(path)


def test_an_endless_regular_file(tmp_path):
    with open(tmp_path / 'sparse', 'wb') as file:
        file.truncate(10**12)
    with pytest.raises(OSError, match='it has 1000000000000 bytes, expected at most 1000'):
        read_regular_file(tmp_path / 'sparse', max_bytes=1000)

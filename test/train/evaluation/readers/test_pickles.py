"""Pickles of RefCOCO: every protocol, Python 2, and that nothing in them is executed."""

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_files import CUP, assert_masks, instances, queries_by_id, ref, write_annotations

from instructsam.core.errors import DataError
from instructsam.train.evaluation.readers import read_benchmark
from instructsam.train.evaluation.readers.formats.pickles import read_pickle


@pytest.mark.parametrize('protocol', range(6))
def test_pickles_of_any_protocol(tmp_path, protocol):
    (tmp_path / 'refs(unc).p').write_bytes(pickle.dumps([ref(1, 'cup 1')], protocol=protocol))
    write_annotations(tmp_path / 'instances.json', instances())
    assert queries_by_id(read_benchmark('refcoco', tmp_path, 'val'))['0'].text == 'cup 1'


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (b"S'caf\\xc3\\xa9'\n", 'café'),  # Python 2's str type: UTF-8, else Latin-1
        (b"S'caf\\xe9'\n", 'café'),
        (b'Vcaf\\u00e9\n', 'café'),  # Python 2's unicode type
        (b'U\x05caf\xc3\xa9', 'café'),
    ],
)
def test_pickles_of_python_2(tmp_path, text, expected):
    pickled = (
        b"(lp0\n(dp1\nS'split'\nS'val'\nsS'image_id'\nI7\nsS'ann_id'\nL1L\nsS'sentences'\n"
        b"(lp2\n(dp3\nS'sent_id'\nL12L\nsS'sent'\n" + text + b'sasa.'
    )
    (tmp_path / 'refs(unc).p').write_bytes(pickled)
    write_annotations(tmp_path / 'instances.json', instances())
    query = queries_by_id(read_benchmark('refcoco', tmp_path, 'val'))['12']
    assert query.text == expected
    assert_masks(query, CUP)


class Hostile:
    """An object that runs a command when it is unpickled with pickle.loads."""

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
    assert trace.exists()  # the attack works with pickle.loads
    trace.unlink()
    for hostile in (content, f"(S'{command}'\nios\nsystem\n.".encode(), b'Pouter object\n.'):
        (tmp_path / 'refs(unc).p').write_bytes(hostile)
        with pytest.raises(DataError, match=r'refs\(unc\).p: it asks for .*(system|external object)'):
            read_benchmark('refcoco', tmp_path, 'val')
        assert not trace.exists()


@pytest.mark.parametrize('content', [b'', b'no pickle', pickle.dumps([ref(1, 'cup')])[:-20], b'\x80\x09.', b'.'])
def test_broken_pickles_are_named(tmp_path, content):
    (tmp_path / 'refs(unc).p').write_bytes(content)
    with pytest.raises(DataError, match=r'cannot read .*refs\(unc\).p: .+ Expected a complete pickle'):
        read_benchmark('refcoco', tmp_path, 'val')


def test_pickles_hold_a_list_of_refs(tmp_path):
    write_annotations(tmp_path / 'refs(unc).p', {'refs': []})
    with pytest.raises(DataError, match='holds a dict, expected a list of refs'):
        read_benchmark('refcoco', tmp_path, 'val')


def test_a_number_in_the_file_does_not_take_memory(tmp_path):
    """PUT under the memo's largest number: the unpickler in C would take 64 GB for a list of that length."""
    (tmp_path / 'a.p').write_bytes(b'\x80\x02]r\xff\xff\xff\x7f.')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_pickle(tmp_path / 'a.p') == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


TWICE = b'2\x86'  # The latest value and itself again become a tuple.


NESTED = [
    (b'})' + b'\x85' * 1_000_000 + b'K\x01s', 'a key of a dict is a tuple'),  # overflows the stack
    (b'})' + TWICE * 40 + b'K\x01s', 'a key of a dict is a tuple'),  # never ends
    (b'}()' + TWICE * 40 + b'K\x01u', 'a key of a dict is a tuple'),
    (b'()' + TWICE * 40 + b'K\x01d', 'a key of a dict is a tuple'),
    (b'}\x8b' + (100).to_bytes(4, 'little') + b'\x01' * 100 + b'K\x01s', 'a key of a dict is a int'),
    (b'\x8f()' + TWICE * 40 + b'\x90', 'it holds a set'),
    (b'()' + TWICE * 40 + b'\x91', 'it holds a set'),
    (b'\x96' + (1 << 36).to_bytes(8, 'little'), 'it holds a set, a bytearray'),
    (b')' + TWICE * 40 + b'Q', 'the external object of type tuple'),
    (b')' + TWICE * 40, 'nested more than 32 deep'),
    (b')' + TWICE * 20, 'repeated to more than'),
    (b')' + b'\x85' * 1_000_000, 'nested more than 32 deep'),
    (b']q\x00h\x00a', 'nested more than 32 deep'),  # a list in itself
]


def test_a_nested_value_neither_crashes_nor_hangs(tmp_path):
    script = """import sys
from pathlib import Path
from instructsam.train.evaluation.readers.formats.pickles import DataError, read_pickle
for path in sys.argv[1:]:
    try:
        read_pickle(Path(path))
        print('read')
    except DataError as error:
        print(error)
"""
    files = [tmp_path / str(index) for index in range(len(NESTED))]
    for file, (content, _) in zip(files, NESTED, strict=True):
        file.write_bytes(b'\x80\x04' + content + b'.')
    run = subprocess.run(
        [sys.executable, '-c', script, *files], check=True, timeout=120, capture_output=True, text=True
    )
    for line, (_, expected) in zip(run.stdout.splitlines(), NESTED, strict=True):
        assert expected in line


def test_special_files(tmp_path):
    with pytest.raises(DataError, match='a character device'):
        read_pickle(Path('/dev/zero'))

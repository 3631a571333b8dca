"""Pickles of RefCOCO: every protocol, Python 2, and that nothing in them is executed."""

import os
import pickle
import resource
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


def test_special_files(tmp_path):
    with pytest.raises(DataError, match='a character device'):
        read_pickle(Path('/dev/zero'))

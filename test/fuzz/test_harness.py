"""The harness notices what it is for: crashes, hangs, memory, wrong answers; and its mutations can be repeated."""

import copy
import json

import pytest

pytest.importorskip('hypothesis', reason='needs the extra `test`')

from harness.bag_formats import dump_mcap, parse_mcap
from harness.campaign import Report, Round, keep_failure
from harness.documents import format_of
from harness.example import Example, write_files
from harness.mutations import BYTE_OPERATIONS, TREE_OPERATIONS, Change, change_bytes, change_tree, changes
from harness.pictures import color_files
from harness.worker import Worker
from hypothesis import given, settings


@pytest.fixture(scope='module')
def worker():
    with Worker('_faulty') as worker:
        yield worker


@pytest.mark.parametrize(
    ('seed', 'state', 'kind'),
    [
        ('accept', 'accepted', ''),
        ('refuse', 'refused', 'DataError'),
        ('raise', 'failed', 'KeyError in targets/_faulty.py:run'),
        ('wrong', 'failed', 'WrongAnswerError two and two is N'),
        ('crash', 'failed', 'crash: SIGSEGV'),
        ('exit', 'failed', 'crash: SIGKILL'),
        ('hang', 'failed', 'hang'),
        ('allocate', 'failed', 'MemoryError'),
    ],
)
def test_every_end_of_an_example_is_told_apart(worker, seed, state, kind):
    outcome = worker.run('_faulty', Example(seed))
    assert outcome.state == state
    assert outcome.kind.startswith(kind)
    assert worker.run('_faulty', Example('accept')).state == 'accepted'  # by another child, where there must be one


def test_a_failure_is_kept_with_the_changes_that_it_needs(worker, tmp_path):
    needless = Change('set', 0.0, 0.5, 7)
    report = Report(tmp_path)
    outcome = worker.run('_faulty', Example('raise', (needless,)))
    folder = keep_failure(worker, '_faulty', report, Example('raise', (needless,)), outcome)
    kept = Example.from_json((folder / 'example.json').read_text())
    assert kept == Example('raise')
    assert worker.run('_faulty', kept).kind == outcome.kind
    assert json.loads((folder / 'input' / 'a.json').read_text()) == {'a': 1}
    assert 'KeyError' in (folder / 'failure.txt').read_text()


def test_a_report_goes_on_after_a_line_that_was_cut_off(worker, tmp_path):
    report, done = Report(tmp_path), Round('_faulty', 1, 0.0)
    done.add(Example('accept'), worker.run('_faulty', Example('accept')))
    assert (done.examples, done.unchanged, done.accepted) == (1, 1, 1)
    report.add(done)
    with report.file.open('a') as file:
        file.write('{"target": "_fau')
    assert [each['examples'] for each in Report(tmp_path).rounds('_faulty')] == [1]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(changes())
def test_changes_can_be_stored_and_repeated(drawn):
    tree = {'a': [1, 2.5, {'b': 'text', 'c': None}], 'd': True, 'e': {}}
    for change in drawn:
        again = Change.from_json(json.loads(json.dumps(change.to_json())))
        if change.operation in BYTE_OPERATIONS:
            assert change_bytes(b'0123456789', change) == change_bytes(b'0123456789', again)
        elif change.operation in TREE_OPERATIONS:
            before = copy.deepcopy(tree)
            assert repr(change_tree(tree, change)) == repr(change_tree(tree, again))
            assert tree == before


def test_formats_return_the_files_that_they_read(tmp_path):
    for name, data in color_files().items():
        known = format_of(name)
        if known is not None:
            assert known.dump(known.parse(data)) == data, name
    for name, data in {'a.json': b'{"a": [1, null]}', 'a.yaml': b'a:\n- 1\n- null\n', 'a.jsonl': b'[1]\n[2]\n'}.items():
        assert format_of(name).dump(format_of(name).parse(data)) == data


def test_a_recording_is_opened_up_to_its_messages():
    def record(opcode, content):
        return bytes([opcode]) + len(content).to_bytes(8, 'little') + content

    message = record(5, b'\1\0' + b'\0' * 20 + b'data')
    chunk = b'\0' * 16 + len(message).to_bytes(8, 'little') + b'\0' * 8 + len(message).to_bytes(8, 'little') + message
    data = b'\x89MCAP0\r\n' + record(6, chunk) + record(15, b'\0' * 4) + b'\x89MCAP0\r\n'
    tree = parse_mcap(data)
    assert tree['records'][0]['records'][0]['channel_id'] == 1
    tree['records'][0]['records'][0]['rest'] = b'longer data'
    assert parse_mcap(dump_mcap(tree))['records'][0]['records'][0]['rest'] == b'longer data'


def test_files_become_special(tmp_path):
    files = {'a.json': b'1', 'b.json': b'2'}
    write_files(files, (Change('fifo', 0.0, 0.0), Change('loop', 0.9, 0.0)), tmp_path / 'input')
    assert (tmp_path / 'input' / 'a.json').is_fifo()
    assert (tmp_path / 'input' / 'b.json').is_symlink()


def test_numbers_of_any_size_can_be_changed():
    for operation in TREE_OPERATIONS:
        for number in (10**400, -(10**400), 1e308, float('nan'), float('-inf')):
            for share in (0.0, 0.3, 0.6, 0.9):
                change_tree({'a': number}, Change(operation, 0.0, 0.9, share))

"""The node's log: no flood, no forged entry, and no entry that is left out without being counted."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 or its wheels')

from instructsam.core import InstructionError
from instructsam_ros.pipeline.scheduling.error_log import BURST, REFILL_S, REPEAT_S, ErrorLog, explain
from instructsam_ros.pipeline.scheduling.statistics import Statistics


class Bench:
    def __init__(self):
        self.entries, self.now_s, self.statistics = [], 100.0, Statistics()
        self.log = ErrorLog(self, self.statistics, lambda: self.now_s)

    def info(self, text):
        self.entries.append(text)

    warning = error = info

    def raised(self, error):
        try:
            raise error
        except type(error) as raised:
            return raised


@pytest.fixture
def bench():
    return Bench()


def test_a_flood_of_different_entries_is_cut_and_counted(bench):
    for number in range(1000):
        bench.log.info('instruction', f'instruction {number}')
    assert bench.entries == [f'instruction {number}' for number in range(BURST)]
    bench.log.warning('another kind', 'is not affected')
    assert bench.entries.pop() == 'is not affected'
    bench.now_s += REFILL_S
    bench.log.info('instruction', 'the last one')
    bench.log.info('instruction', 'too many again')
    assert bench.entries[BURST:] == ['the last one (990 more were left out before)']


def test_what_was_left_out_is_counted_also_when_nothing_follows(bench):
    for number in range(BURST + 5):
        bench.log.info('instruction', str(number))
    bench.log.flush()
    assert len(bench.entries) == BURST
    bench.now_s += REPEAT_S + 1
    bench.log.flush()
    bench.log.flush()
    assert bench.entries[BURST:] == ['instruction: 5 more entries were left out']


def test_an_error_that_repeats_is_logged_once_in_a_while(bench):
    for _ in range(100):
        bench.log.report(InstructionError('words'))
        bench.now_s += 1.0
    assert bench.entries == ['words'] + ['words (30 more were left out before)'] * 3


def test_an_error_that_repeats_slowly_is_logged_as_often(bench):
    """The count of omitted entries, which is logged when it is due, does not take the place of the text."""
    for second in range(100):
        if second % 4 == 0:
            bench.log.report(InstructionError('words'))
        bench.now_s += 1.0
        bench.log.flush()
    assert bench.entries.count('words') == 4


@pytest.mark.parametrize('kind', [RuntimeError, InstructionError])
def test_changing_texts_do_not_reset_the_limit(bench, kind):
    for number in range(10_000):
        bench.log.report(kind(f'failure {number}'))
        bench.now_s += 0.01
    assert BURST < len(bench.entries) <= BURST + 100 / REFILL_S


def test_entries_cannot_be_forged_and_are_short(bench):
    evil = 'a\n[ERROR] [node]: forged \x1b[2J\u202e' + 'x' * 1_000_000
    bench.log.report(bench.raised(RuntimeError(evil)))
    bench.log.report_bug('the callback of /image', bench.raised(ValueError(evil)))
    bench.log.warning('aborted goal', evil)
    for entry in bench.entries[:2]:
        _, *rest = entry.split('\n')
        assert rest
        assert all(line.startswith('  | ') for line in rest)
    for entry in bench.entries:
        assert entry.replace('\n', '').isprintable()
    assert max(map(len, bench.entries)) < 5000


def test_a_bug_is_counted_and_says_where(bench):
    text = bench.log.report_bug('the callback of /image', bench.raised(RuntimeError('out of\nmemory')))
    assert text == 'RuntimeError: out of memory'
    assert (bench.statistics.bugs, bench.statistics.last_bug) == (1, f'the callback of /image: {text}')
    assert bench.entries[0].startswith(f'unexpected error in the callback of /image: {text}\n  | Traceback')


def test_explanations_are_one_line_of_bounded_length():
    assert explain(InstructionError('a\nb')) == ('a b', True)
    text, is_user_error = explain(SystemExit('x' * 100_000))
    assert text.startswith('SystemExit: xxx')
    assert len(text) < 1100
    assert not is_user_error

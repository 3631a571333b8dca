"""The local runner: order, failures, budgets, interruptions; the file is the same for any number of workers."""

import asyncio
import itertools
import threading

import numpy as np
import pytest
from scripted_vlm import ScriptedVlm

from instructsam.core.errors import DataError, StorageError
from instructsam.train.data_engine.questions import AskQuestions, QuestionSettings
from instructsam.train.data_engine.rows import EngineImage, Rejection, Row
from instructsam.train.data_engine.runners.local import ErrorWindow, RunSettings, TooManyErrors, run_stage
from instructsam.train.data_engine.runners.progress import progress_line, with_progress
from instructsam.train.data_engine.runners.store import StageFile
from instructsam.train.vlm.budget import BudgetSpent
from instructsam.train.vlm.errors import VlmBusy, VlmRefused

SETTINGS = RunSettings(workers=4)


def rows(count):
    return [
        Row(n, EngineImage(f'{n:064x}', f'{n}.png', False, 4, 6, 'a', 'own', f'{n}.png', 9.0, '0' * 16))
        for n in range(count)
    ]


def run(path, function, inputs, **options):
    """Run a stage on the rows that its file lacks; return the results."""
    with StageFile(path, {}) as file:
        missing = [row for row in inputs if row.order not in file]
        return list(run_stage(function, missing, file, options.pop('settings', SETTINGS), **options))


def written(path):
    with StageFile(path) as file:
        return list(file)


def marked(row):
    return row.with_rejections([Rejection('filter', 'seen')])


async def slowly(row):
    """Finish out of order."""
    for _ in range(row.order * 7 % 5):
        await asyncio.sleep(0)
    return marked(row)


@pytest.mark.parametrize('function', [slowly, marked])
def test_any_number_of_workers_writes_the_same_file(tmp_path, function):
    for workers in (1, 2, 8):
        assert len(run(tmp_path / f'{workers}.jsonl', function, rows(40), workers=workers)) == 40
    files = [(tmp_path / f'{workers}.jsonl').read_bytes() for workers in (1, 2, 8)]
    assert files[0] == files[1] == files[2]
    assert written(tmp_path / '1.jsonl') == list(map(marked, rows(40)))


def test_concurrency_is_bounded(tmp_path):
    active, most = 0, 0

    async def count(row):
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        return row

    run(tmp_path / 'a.jsonl', count, rows(50), workers=3)
    assert most == 3


def test_blocking_stages_run_in_threads(tmp_path):
    barrier = threading.Barrier(3, timeout=30)

    def meet(row):
        barrier.wait()
        return row

    assert len(run(tmp_path / 'a.jsonl', meet, rows(6), workers=3)) == 6


def test_rows_are_read_as_they_are_needed(tmp_path):
    taken = itertools.count()

    def source():
        for row in rows(1000):
            next(taken)
            yield row

    with StageFile(tmp_path / 'a.jsonl', {}) as file:
        results = run_stage(marked, source(), file, SETTINGS, workers=2)
        next(results)
        assert next(taken) <= 9
        results.close()


def test_a_failed_row_is_not_written_and_tried_again(tmp_path):
    def fail(row):
        if row.order == 2:
            raise DataError('gone')
        return row

    path = tmp_path / 'a.jsonl'
    results = run(path, fail, rows(5))
    assert [str(each) for each in results if not isinstance(each, Row)] == ['gone']
    assert [row.order for row in written(path)] == [0, 1, 3, 4]
    assert [row.order for row in run(path, marked, rows(5))] == [2]
    assert [row.order for row in written(path)] == [0, 1, 2, 3, 4]


def test_an_unexpected_error_ends_the_run(tmp_path):
    def fail(row):
        if row.order == 2:
            raise ZeroDivisionError
        return row

    with pytest.raises(ZeroDivisionError):
        run(tmp_path / 'a.jsonl', fail, rows(5))
    assert [row.order for row in written(tmp_path / 'a.jsonl')] == [0, 1]


@pytest.mark.parametrize('error', [VlmRefused('no key', is_final=True), StorageError('full')])
def test_an_error_that_concerns_all_rows_ends_the_run_at_once(tmp_path, error):
    calls = []

    def fail(row):
        calls.append(row)
        raise error

    with pytest.raises(type(error)):
        run(tmp_path / 'a.jsonl', fail, rows(1000))
    assert len(calls) <= 16


def test_a_spent_budget_finishes_what_is_under_way(tmp_path):
    async def pay(row):
        await asyncio.sleep(0)
        if row.order == 3:
            raise BudgetSpent('spent')
        return row

    path = tmp_path / 'a.jsonl'
    with pytest.raises(BudgetSpent):
        run(path, pay, rows(1000), workers=2)
    orders = [row.order for row in written(path)]
    assert orders[:3] == [0, 1, 2]
    assert 3 not in orders
    assert 4 in orders
    assert len(orders) < 20


def test_many_errors_end_the_run(tmp_path):
    def fail(row):
        if row.order >= 30:
            raise VlmBusy('HTTP 503')
        return row

    path = tmp_path / 'a.jsonl'
    with pytest.raises(TooManyErrors, match=r'of the last \d+ rows failed, the last one because HTTP 503'):
        run(path, fail, rows(1000))
    assert [row.order for row in written(path)] == list(range(30))


def test_errors_of_long_ago_do_not_count():
    now = 0.0
    window = ErrorWindow(0.5, 60, clock=lambda: now)
    for _ in range(19):
        window.add(failed=True)
    now = 61.0
    for _ in range(20):
        window.add(failed=False)
    for _ in range(20):
        window.add(failed=True, reason='why')
    with pytest.raises(TooManyErrors, match='21 of the last 41 rows failed'):
        window.add(failed=True, reason='why')


def test_an_interrupted_run_is_resumed(tmp_path):
    def stop(row):
        if row.order == 10:
            raise KeyboardInterrupt
        return marked(row)

    path, whole = tmp_path / 'a.jsonl', tmp_path / 'b.jsonl'
    with StageFile(path, {}) as file, pytest.raises(KeyboardInterrupt):
        list(map(stop, run_stage(slowly, rows(40), file, SETTINGS)))
    run(path, slowly, rows(40))
    run(whole, slowly, rows(40))
    assert path.read_bytes() == whole.read_bytes()


def test_a_signal_while_the_loop_waits_unwinds_it(tmp_path):
    async def interrupt(row):
        if row.order == 5:
            raise KeyboardInterrupt
        await asyncio.sleep(0)
        return row

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'a.jsonl', interrupt, rows(40))
    run(tmp_path / 'a.jsonl', marked, rows(40))
    assert [row.order for row in written(tmp_path / 'a.jsonl')] == list(range(40))


def test_the_last_step_sees_rows_in_order(tmp_path):
    seen = []

    def note(row):
        seen.append(row.order)
        return row

    run(tmp_path / 'a.jsonl', slowly, rows(40), workers=8, in_order=note)
    assert seen == list(range(40))


def test_connections_are_closed_in_the_stages_loop(tmp_path):
    client = ScriptedVlm(lambda messages: {'questions': []})
    closed = []

    async def close():
        closed.append(asyncio.get_running_loop())

    stage = AskQuestions(client, 'vlm', QuestionSettings(), lambda image: np.zeros((8, 8, 3), np.uint8))
    (result,) = run(tmp_path / 'a.jsonl', stage, rows(1), close=close)
    assert result.is_rejected
    assert len(closed) == 1
    assert closed[0].is_closed()


def test_progress_tells_rate_and_time_left():
    assert progress_line('masks', 1200, 100_000, 3, 60) == (
        'masks: 1,200 of 100,000 rows, 20/s, 1:22:20 left, 3 failed'
    )
    assert progress_line('masks', 5, 5, 0, 0.01) == 'masks: 5 of 5 rows, 500/s'


def test_progress_prints_lines_now_and_then(capsys):
    times = itertools.count(step=10)
    results = [*rows(3), DataError('x')]
    assert list(with_progress(results, 4, 'images', is_terminal=False, clock=lambda: next(times))) == results
    assert capsys.readouterr().err.splitlines() == [
        'images: 2 of 4 rows, 0.1/s, 0:00:20 left',
        'images: 4 of 4 rows, 0.1/s, 1 failed',
        'images: 4 of 4 rows, 0.08/s, 1 failed',
    ]

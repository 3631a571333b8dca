"""The comparison with a peer, test/bench/bench_peer.py, as far as it needs none."""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / 'bench'


@pytest.fixture
def bench_peer(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module('bench_peer')


def test_a_folder_that_holds_no_peer_is_refused(bench_peer, monkeypatch, tmp_path):
    monkeypatch.setattr('sys.argv', ['bench_peer.py', str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^{tmp_path} is no checkout of the authors' repository: it has no [^\n]*$"):
        bench_peer.main()


def test_the_error_of_a_worker_ends_the_program_with_one_line(bench_peer, tmp_path):
    script = tmp_path / 'adapter.py'
    script.write_text(
        'from workers import serve\n'
        'def answer(request):\n'
        "    print('what a library prints')\n"
        '    return request / 2\n'
        'serve(answer)\n'
    )
    worker = bench_peer.Worker('the peer', script, [], [BENCH])
    assert worker.ask(3) == 1.5
    with pytest.raises(SystemExit, match=r'^the peer does not work: TypeError: [^\n]* \([^\n]*adapter.py, line 4\)$'):
        worker.ask('three')
    assert worker.ask(4) == 2
    worker.close()
    with pytest.raises(SystemExit, match=r'^the peer ended with exit code -15$'):
        worker.ask(5)


@pytest.mark.parametrize(('changed', 'by'), [('scores', 0.01), ('masks', True)])
def test_answers_that_differ_end_the_program(bench_peer, tmp_path, changed, by):
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 1:3] = True  # and the other one is empty on both sides
    found = {'scores': np.array([0.9, 0.1]), 'masks': masks}
    np.savez(tmp_path / 'own.npz', **found)
    np.savez(tmp_path / 'peer.npz', **found)
    assert bench_peer.check_answers(tmp_path, 'float32') == {'score_difference': 0, 'least_iou': 1}
    found[changed] = found[changed].copy()
    found[changed][0] = found[changed][0] + by
    np.savez(tmp_path / 'peer.npz', **found)
    with pytest.raises(SystemExit, match=r'^the answers differ: '):
        bench_peer.check_answers(tmp_path, 'float32')


def test_losses_that_differ_end_the_program(bench_peer):
    assert bench_peer.check_losses([{'answer': 1.0}], [{'answer': 1.0001}]) == pytest.approx(1e-4, rel=1e-3)
    with pytest.raises(SystemExit, match=r'^the losses differ'):
        bench_peer.check_losses([{'answer': 1.0}, {'answer': 1.0}], [{'answer': 1.0}, {'answer': 1.1}])

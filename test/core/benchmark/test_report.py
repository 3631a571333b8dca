"""The figures and the table of a benchmark, from times that are given."""

import io

import pytest
from rich.console import Console

from instructsam.core.benchmark import report
from instructsam.core.benchmark.measure import Times
from instructsam.core.benchmark.stages import NEW_IMAGE, NEXT_INSTRUCTION, TOKEN, Stage


def stage(name, **options):
    return Stage(name, lambda _: None, **options)


SMALL, LARGE, READING = stage('small'), stage('large'), stage('reading memory', read_bytes=10 * 10**9)
TIMES = {
    'small': [Times(1.0, 1.0)],
    'large': [Times(1.0, 2.0), Times(2.0, 2.0), Times(9.0, 2.0)],
    'reading memory': [Times(2.0, 4.0)],
}


@pytest.fixture
def peak():
    return report.peak_rates({SMALL: 10 * 10**9, LARGE: 80 * 10**9}, READING, TIMES, is_cpu=True)


def test_the_fastest_product_and_reading_are_the_peak(peak):
    assert peak['product'] == 'large'
    assert (peak['gflop_per_s'], peak['gflop_per_s_for_shares']) == (40, 40)
    assert (peak['read_gb_per_s'], peak['read_gb_per_s_for_shares']) == (5, 2.5)


def test_shares_are_by_processor_time_on_a_cpu_and_by_time_elsewhere(peak):
    times = [Times(1.0, 1.0), Times(4.0, 2.0), Times(5.0, 8.0)]
    figures = report.stage_figures(stage('SAM3 encoder'), times, 40 * 10**9, peak, is_cpu=True)
    assert (figures['ms'], figures['ms_min'], figures['ms_max'], figures['cpu_ms']) == (4000, 1000, 5000, 2000)
    assert (figures['gflop_per_s'], figures['share_of_product']) == (10, 0.5)
    elsewhere = report.stage_figures(stage('SAM3 encoder'), times, 40 * 10**9, peak, is_cpu=False)
    assert elsewhere['share_of_product'] == 0.25


def test_a_token_is_bound_by_reading(peak):
    figures = report.stage_figures(stage(TOKEN, read_bytes=10**9), [Times(0.5, 1.0)], 10**9, peak, is_cpu=True)
    assert (figures['read_gb_per_s'], figures['share_of_reading']) == (2, 0.4)


@pytest.fixture
def document(peak):
    names = (*NEW_IMAGE, TOKEN, *NEXT_INSTRUCTION)
    stages = [
        report.stage_figures(
            stage(name, read_bytes=10**9 if name == TOKEN else 0), [Times(1.0, 1.0)], 10**9, peak, is_cpu=True
        )
        for name in names
    ]
    return {
        'settings': {'model': 'm', 'parameters': 3e6, 'dtype': 'float32', 'compile': 'off', 'size': [640, 480]},
        'machine': {'cpu': 'A CPU', 'cores': 2, 'threads': 2, 'torch': '2.13'},
        'other_programs_cores': 1.25,
        'is_busy': False,
        'rounds': 3,
        'peak': peak,
        'stages': stages,
        'sums': report.sum_figures(stages),
        'tokens_per_s': 1.0,
        'memory': {'process_gb': 1.5},
    }


def test_sums_of_stages(document):
    assert [round(total['ms']) for total in document['sums']] == [17000, 8000, 13000, 4000]


def test_the_table_has_every_stage_and_the_machine(document):
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table(document))
    text = console.file.getvalue()
    assert all(name in text for name in (*NEW_IMAGE, TOKEN, *NEXT_INSTRUCTION, 'A CPU, 2 threads', '% memory'))
    notes = report.notes(document)
    assert 'new image, phrase given 8,000;' in notes[0]
    assert notes[1].startswith('1.0 tokens/s. Measured here, 3 rounds: large 40 GFLOP/s, reading memory 5.0 GB/s')
    assert not notes[-1].startswith('WARNING')


def test_a_busy_machine_is_named(document):
    assert 'other programs used 1.2 of its 2 cores' in report.notes({**document, 'is_busy': True})[-1]

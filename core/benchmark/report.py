"""The figures of a benchmark: from times and counts to a document, and from that to a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from instructsam.core.benchmark.measure import Times
from instructsam.core.benchmark.stages import ANSWER_TOKENS, NEW_IMAGE, NEXT_INSTRUCTION, TOKEN, Stage

Measured = Mapping[str, Sequence[Times]]


def peak_rates(products: Mapping[Stage, int], reading: Stage, times: Measured, *, is_cpu: bool) -> dict[str, Any]:
    """Return the rate of the fastest product, and that of reading memory.

    Args:
        products: The products, and the operations of each.
        reading: Reads memory.
        times: The times of these.
        is_cpu: Whether the shares of stages are taken per second of a processor, see `stage_figures`.
    """
    rates = {stage.name: operations / _median(times[stage.name]) / 1e9 for stage, operations in products.items()}
    per_cpu = {
        stage.name: operations / _median(times[stage.name], is_cpu=is_cpu) / 1e9
        for stage, operations in products.items()
    }
    fastest = max(per_cpu, key=lambda name: per_cpu[name])
    return {
        'product': fastest,
        'gflop_per_s': rates[fastest],
        'gflop_per_s_for_shares': per_cpu[fastest],
        'products_gflop_per_s': rates,
        'read_gb_per_s': reading.read_bytes / _median(times[reading.name]) / 1e9,
        'read_gb_per_s_for_shares': reading.read_bytes / _median(times[reading.name], is_cpu=is_cpu) / 1e9,
    }


def stage_figures(
    stage: Stage, times: Sequence[Times], operations: int, peak: Mapping[str, Any], *, is_cpu: bool
) -> dict[str, Any]:
    """Return the figures of one stage, per unit.

    Its share of the peak compares rates per second of the processor on a CPU, where other programs stretch the wall
    time of short stages and of products differently, and rates per second elsewhere.
    """
    wall_s, share_s = _median(times), _median(times, is_cpu=is_cpu)
    walls_ms = [each.wall_s * 1e3 for each in times]
    figures = {
        'name': stage.name,
        'ms': wall_s * 1e3,
        'ms_min': min(walls_ms),
        'ms_max': max(walls_ms),
        'cpu_ms': statistics.median(each.cpu_s for each in times) * 1e3,
        'gflop': operations / 1e9,
        'gflop_per_s': operations / wall_s / 1e9,
    }
    if stage.read_bytes:
        figures['read_gb'] = stage.read_bytes / 1e9
        figures['read_gb_per_s'] = stage.read_bytes / wall_s / 1e9
        figures['share_of_reading'] = stage.read_bytes / share_s / 1e9 / peak['read_gb_per_s_for_shares']
    else:
        figures['share_of_product'] = operations / share_s / 1e9 / peak['gflop_per_s_for_shares']
    return figures


def sum_figures(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the times of whole answers, as sums of their stages' medians."""
    ms = {stage['name']: stage['ms'] for stage in stages}
    instruction = sum(ms[name] for name in NEXT_INSTRUCTION)
    decoded = instruction + ANSWER_TOKENS * ms[TOKEN]
    image = sum(ms[name] for name in NEW_IMAGE)
    return [
        {'name': f'new image, one phrase, {ANSWER_TOKENS} tokens', 'ms': image + decoded},
        {'name': 'new image, phrase given', 'ms': image + instruction},
        {'name': f'another instruction, {ANSWER_TOKENS} tokens', 'ms': decoded},
        {'name': 'another instruction, phrase given', 'ms': instruction},
    ]


def table(document: Mapping[str, Any]) -> Table:
    """Return the stages of a document as a table for the terminal."""
    made = Table(title=title(document), title_justify='left', box=SIMPLE, show_edge=False, pad_edge=False)
    made.add_column('stage')
    for column in ('ms', 'min to max', 'CPU ms', 'GFLOP', 'GFLOP/s', 'share of'):
        made.add_column(column, justify='right')
    for stage in document['stages']:
        made.add_row(
            stage['name'],
            _digits(stage['ms']),
            f'{_digits(stage["ms_min"])} to {_digits(stage["ms_max"])}',
            _digits(stage['cpu_ms']),
            *((_digits(stage['gflop']), _digits(stage['gflop_per_s'])) if stage['gflop'] else ('', '')),
            _share(stage),
        )
    return made


def title(document: Mapping[str, Any]) -> str:
    """Return the model, its precision and the machine in one line."""
    settings, machine = document['settings'], document['machine']
    where = machine.get('gpu') or f'{machine["cpu"]}, {machine["threads"]} threads'
    width, height = settings['size']
    return (
        f'{settings["model"]} ({settings["parameters"] / 1e6:,.1f} M), {settings["dtype"]}, '
        f'compile {settings["compile"]}, {width} x {height} px, {machine.get("board") or where}'
    )


def notes(document: Mapping[str, Any]) -> list[str]:
    """Return the lines below the table."""
    peak, machine, memory = document['peak'], document['machine'], document['memory']
    is_cpu = 'gpu' not in machine
    lines = [
        'In all, ms: ' + '; '.join(f'{total["name"]} {_digits(total["ms"])}' for total in document['sums']),
        f'{document["tokens_per_s"]:.1f} tokens/s. Measured here, {document["rounds"]} rounds: {peak["product"]} '
        f'{peak["gflop_per_s"]:,.0f} GFLOP/s, reading memory {peak["read_gb_per_s"]:.1f} GB/s. Shares are of these'
        f'{", by processor time" if is_cpu else ""}.',
        f'Peak memory: process {memory["process_gb"]:.2f} GB'
        + (f', GPU {memory["gpu_gb"]:.2f} GB.' if 'gpu_gb' in memory else '.'),
        ', '.join(f'{name} {machine[name]}' for name in _shown_facts(machine)),
    ]
    if document['is_busy']:
        lines.append(
            f'WARNING: the machine is busy: other programs used {document["other_programs_cores"]:.1f} of its '
            f'{machine["cores"]} cores, so that times are upper bounds. Stop them and run it again'
        )
    return lines


def _shown_facts(machine: Mapping[str, Any]) -> list[str]:
    return [name for name in machine if name not in ('gpu', 'board')]


def _share(stage: Mapping[str, Any]) -> str:
    if 'share_of_reading' in stage:
        return f'{stage["share_of_reading"]:.0%} memory'
    return f'{stage["share_of_product"]:.0%} GEMM' if stage['gflop'] else ''


def _median(times: Sequence[Times], *, is_cpu: bool = False) -> float:
    seconds = statistics.median(each.cpu_s if is_cpu else each.wall_s for each in times)
    return max(seconds, 1e-9)


def _digits(number: float) -> str:
    """Return a number with three digits or more."""
    return f'{number:,.0f}' if number >= 100 else f'{number:.3g}'

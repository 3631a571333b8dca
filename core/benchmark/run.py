"""A benchmark from beginning to end: an engine and an image to the document of all figures."""

from __future__ import annotations

from typing import Any

import torch

from instructsam.core.benchmark import machine, report
from instructsam.core.benchmark.measure import count_operations, measure
from instructsam.core.benchmark.stages import TOKEN, network_stages
from instructsam.core.engine import InstructSAM
from instructsam.core.model.graphs.stages import Stages
from instructsam.core.model.preprocess import example_image

GPU_WARM_UPS = 3  # rounds besides that in which operations are counted


@torch.inference_mode()
def run_benchmark(engine: InstructSAM, *, size: tuple[int, int], seconds: float, compiled: str) -> dict[str, Any]:
    """Measure every stage of an engine.

    Args:
        engine: The engine.
        size: Width and height of the image, px.
        seconds: Time of the measurement, see `measure`.
        compiled: How the stages are run if not plainly, one of `core.modes.COMPILE`.

    Returns:
        All figures, as JSON has them: times in ms, shares from 0 to 1.
    """
    device = engine.device
    width, height = size
    image = example_image(height, width)
    plain = network_stages(engine, image, Stages(engine.model, engine.mode))
    operations = {stage.name: count_operations(stage) for stage in plain}
    is_plain = type(engine.stages) is Stages
    stages = plain if is_plain else network_stages(engine, image)
    products, reading = machine.products(device, engine.model.dtype), machine.reading(device)
    others = machine.OtherPrograms()
    is_cpu = device.type == 'cpu'
    times = measure([*products, reading, *stages], device, seconds, warm_ups=0 if is_cpu else GPU_WARM_UPS)
    others_cores = others.cores()
    peak = report.peak_rates(products, reading, times, is_cpu=is_cpu)
    figures = [
        report.stage_figures(stage, times[stage.name], operations[stage.name], peak, is_cpu=is_cpu) for stage in stages
    ]
    token_ms = next(stage['ms'] for stage in figures if stage['name'] == TOKEN)
    parameters = sum(parameter.numel() for parameter in engine.model.parameters())
    facts = machine.facts(device)
    return {
        'settings': {
            'model': engine.name,
            'revision': engine.revision,
            'parameters': parameters,
            'device': str(device),
            'dtype': engine.precision,
            'compile': 'off' if is_plain else compiled,
            'mode': engine.mode,
            'size': [width, height],
        },
        'machine': facts,
        'other_programs_cores': others_cores,
        'is_busy': (others_cores or 0) > machine.BUSY * facts['cores'],
        'rounds': len(times[TOKEN]),
        'peak': peak,
        'stages': figures,
        'sums': report.sum_figures(figures),
        'tokens_per_s': 1e3 / token_ms,
        'memory': machine.peak_memory(device),
    }

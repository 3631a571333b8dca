"""Counts of operations, and times of stages that take turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from instructsam.core.benchmark.stages import Stage

MIN_ROUNDS, MAX_ROUNDS = 3, 50


class Times(NamedTuple):
    """Times of one run of a stage, in seconds."""

    wall_s: float
    cpu_s: float  # processor time of all threads of this process


def count_operations(stage: Stage) -> int:
    """Return the floating-point operations of matrix products, convolutions and attention per unit of a stage."""
    state = stage.prepare()
    with FlopCounterMode(display=False, custom_mapping=_attention_kernels()) as counter:
        stage.run(state)
    return counter.get_total_flops() // stage.units


def measure(
    stages: Sequence[Stage],
    device: torch.device,
    seconds: float,
    *,
    warm_ups: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[Times]]:
    """Run all stages in turn, round by round, so that a change of the machine's load affects all alike.

    Args:
        stages: The stages.
        device: The device that computes.
        seconds: Time after which the last round begins; there are MIN_ROUNDS to MAX_ROUNDS rounds.
        warm_ups: Rounds before those, which do not count.
        clock: Returns seconds.

    Returns:
        The times per unit of each stage.
    """
    times: dict[str, list[Times]] = {stage.name: [] for stage in stages}
    start = clock()
    for number in range(-warm_ups, MAX_ROUNDS):
        if number == 0:
            start = clock()
        if number >= MIN_ROUNDS and clock() - start >= seconds:
            break
        for stage in stages:
            taken = _time(stage, device, clock)
            if number >= 0:
                times[stage.name].append(taken)
    return times


def _time(stage: Stage, device: torch.device, clock: Callable[[], float]) -> Times:
    state = stage.prepare()
    _wait_for(device)
    wall, cpu = clock(), time.process_time()
    stage.run(state)
    _wait_for(device)
    return Times((clock() - wall) / stage.units, (time.process_time() - cpu) / stage.units)


def _wait_for(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _attention_kernels() -> dict[Any, Callable[..., int]]:
    """Return the counts of torch's attention kernels: torch's own counter lacks the CPU's, and shared keys."""
    names: Iterable[str] = (
        '_scaled_dot_product_flash_attention_for_cpu',
        '_scaled_dot_product_flash_attention',
        '_scaled_dot_product_efficient_attention',
        '_scaled_dot_product_cudnn_attention',
    )
    return {getattr(torch.ops.aten, name): _attention_operations for name in names if hasattr(torch.ops.aten, name)}


def _attention_operations(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Return the operations of the two products of attention, from the shapes [..., heads, rows, channels].

    Masked pairs count, also where a causal kernel leaves them out.
    """
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])

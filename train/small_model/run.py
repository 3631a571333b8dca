"""Runs whatever the recipe of the small model lacks; starting it again resumes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from instructsam.train.launch import CLI, OutOfTimeError, launch
from instructsam.train.small_model.plan import Step, seconds_left

PRIOR_S = 600.0
"""Time for which steps count as having taken what was expected, before any has: short steps tell little."""


def describe(steps: Sequence[Step], root: Path) -> list[str]:
    """Return one line per step, with its state, its expected time and its command, and one with the time left."""
    lines = []
    for number, step in enumerate(steps, 1):
        done = step.done(root)
        state = 'done' if done >= 1 else f'{done:.0%} done' if done else 'to do'
        lines.append(f'{number:2} {step.name:<14} {state:>9} {duration(step.seconds):>8}  {_command(step)}')
    return [*lines, f'about {duration(seconds_left(steps, root))} left']


def run_steps(
    steps: Sequence[Step],
    root: Path,
    *,
    minutes: float | None = None,
    report: Callable[[str], None] = print,
) -> list[Step]:
    """Run the steps that are not done, in order.

    Args:
        steps: The steps.
        root: Folder that they run in.
        minutes: Time after which the step that runs is interrupted; None: none.
        report: Called with one line for each step that begins.

    Returns:
        The steps that are left.

    Raises:
        InstructSAMError: A step fails.
    """
    start, expected_s, measured_s = time.monotonic(), PRIOR_S, PRIOR_S
    for number, step in enumerate(steps):
        done = step.done(root)
        if done >= 1:
            continue
        left = duration(seconds_left(steps[number:], root, measured_s / expected_s))
        report(f'[{number + 1}/{len(steps)}] {step.name}: {left} left for all steps')
        timeout_s = None if minutes is None else max(0.0, 60 * minutes - (time.monotonic() - start))
        begin = time.monotonic()
        try:
            run_step(step, root, timeout_s)
        except OutOfTimeError:
            return list(steps[number:])
        expected_s, measured_s = expected_s + (1 - done) * step.seconds, measured_s + time.monotonic() - begin
    return []


def run_step(step: Step, root: Path, timeout_s: float | None) -> None:
    """Run one step in processes of its own. Raises InstructSAMError, OutOfTimeError after `timeout_s`."""
    module, argv = _module(step)
    launch(argv, module=module, processes=step.processes, folder=root, timeout_s=timeout_s)


def _module(step: Step) -> tuple[str, tuple[str, ...]]:
    first, *rest = step.argv
    return (first, tuple(rest)) if '.' in first else (CLI, step.argv)


def _command(step: Step) -> str:
    module, argv = _module(step)
    launcher = f'torchrun --nproc-per-node {step.processes} -m ' if step.processes > 1 else 'python -m '
    return ' '.join([launcher + module if module != CLI or step.processes > 1 else 'instructsam', *argv])


def duration(seconds: float) -> str:
    """Return a duration as hours and minutes."""
    minutes = round(seconds / 60)
    return f'{minutes // 60}:{minutes % 60:02d} h'

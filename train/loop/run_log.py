"""The log of a run: one live line for display, a CSV file, and TensorBoard's event files."""

from __future__ import annotations

import csv
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from instructsam.core.atomic_write import replaced

LOG = 'log.csv'
TENSORBOARD = 'tensorboard'

_NOT_TERMS = ('step', 'samples', 'elapsed_s', 'samples_per_s', 'loss', 'learning_rate', 'grad_norm')


class Progress(TrainerCallback):
    """Shows loss terms, learning rate, pace, time left and memory, and adds a row to the run's log.csv."""

    def __init__(self, samples_per_step: int):
        self.samples_per_step = samples_per_step
        self._last_time, self._last_step = time.monotonic(), 0  # time and step of the last log entry
        self._elapsed_s = 0.0  # training time without evaluations

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock, and drop rows after the checkpoint that training resumes from."""
        self._last_time, self._last_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            kept = drop_rows_after(_folder(args) / LOG, state.global_step)
            self._elapsed_s = float(kept[-1]['elapsed_s']) if kept else 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show and store the values of a step, or show those of an evaluation."""
        if not state.is_world_process_zero or logs is None:
            return
        if 'eval_loss' in logs:
            self._last_time += logs['eval_runtime']  # evaluations do not count as training time
            _print(f'step {state.global_step}/{state.max_steps} validation loss {logs["eval_loss"]:.4g}')
        if 'loss' not in logs:
            return
        now = time.monotonic()
        duration_s, steps = now - self._last_time, state.global_step - self._last_step
        self._last_time, self._last_step = now, state.global_step
        self._elapsed_s += duration_s
        steps_per_s = steps / max(duration_s, 1e-9)
        row = {
            'step': state.global_step,
            'samples': state.global_step * self.samples_per_step,
            'elapsed_s': round(self._elapsed_s, 1),
            'samples_per_s': round(steps_per_s * self.samples_per_step, 2),
            **{name: f'{value:.5g}' for name, value in logs.items() if name not in ('epoch', 'step')},
        }
        append_row(_folder(args) / LOG, row)
        _show(_line(row, state, steps_per_s))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the live line, so that later output starts on a line of its own."""
        if state.is_world_process_zero and sys.stderr.isatty():
            print(file=sys.stderr)


class TensorBoard(TensorBoardCallback):
    """TensorBoard's event files in the run's folder: train/<term>, eval/<term> and rate/<part>."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the files, and hide events logged after the checkpoint that training resumes from."""
        if state.is_world_process_zero:
            folder = _folder(args) / TENSORBOARD
            self.tb_writer = self._SummaryWriter(log_dir=str(folder), purge_step=state.global_step + 1)
        super().on_train_begin(args, state, control, **kwargs)

    def close(self) -> None:
        """End the thread that writes the files, also after a training that failed."""
        if self.tb_writer is not None:
            self.tb_writer.close()
            self.tb_writer = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the logged values and the learning rate of each part."""
        if self.tb_writer is None:  # this process does not log, or the run has ended
            return
        if optimizer is not None and 'loss' in (logs or {}):
            for group in optimizer.param_groups:
                self.tb_writer.add_scalar(f'rate/{group.get("name", "all")}', group['lr'], state.global_step)
        super().on_log(args, state, control, logs=logs, **kwargs)


class Memory(NamedTuple):
    """Memory of this process in GiB."""

    now: float  # current memory; the peak if the system does not report it
    peak: float


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file whose columns are those of its first row."""
    is_new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def drop_rows_after(path: Path, step: int) -> list[dict[str, str]]:
    """Remove the rows after `step`, which training resumes from, from a CSV file; return the rows that stay."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        lines = [line for line in file if line.endswith('\n')]  # a full disk may have cut the last one
    rows = csv.DictReader(lines)
    kept = [row for row in rows if int(row['step']) <= step]
    if not kept:
        path.unlink()  # the next row writes the header
        return []
    with replaced(path) as part, part.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    return kept


def memory_gib() -> Memory:
    """Return this process's memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # ru_maxrss is in KiB
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return Memory(peak, peak)
    return Memory(pages * os.sysconf('SC_PAGE_SIZE') / 2**30, peak)


def _folder(args: TrainingArguments) -> Path:
    assert args.output_dir is not None  # the recipe sets it
    return Path(args.output_dir)


def _line(row: Mapping[str, Any], state: TrainerState, steps_per_s: float) -> str:
    left_s = (state.max_steps - state.global_step) / max(steps_per_s, 1e-9)
    terms = ' '.join(f'{name} {float(value):.3g}' for name, value in row.items() if name not in _NOT_TERMS)
    memory = memory_gib()
    return (
        f'step {row["step"]}/{state.max_steps} loss {float(row["loss"]):.4g} '
        f'lr {float(row.get("learning_rate", 0)):.2g} {row["samples_per_s"]:.3g} samples/s '
        f'left {int(left_s // 3600)}:{int(left_s % 3600 // 60):02d} h '
        f'{memory.now:.1f} GiB (peak {memory.peak:.1f}) {terms}'
    )


def _show(line: str) -> None:
    """Replace the live line on a terminal, cut at its edge, because a wrapped line would remain; elsewhere print it."""
    if not sys.stderr.isatty():
        _print(line)
        return
    print(f'\r\033[K{line[: shutil.get_terminal_size().columns - 1]}', end='', file=sys.stderr, flush=True)


def _print(line: str) -> None:
    """Print a permanent line."""
    print(f'\r\033[K{line}' if sys.stderr.isatty() else line, file=sys.stderr, flush=True)

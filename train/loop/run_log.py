"""What a run says: one live line for a person, a CSV file and TensorBoard's files for later."""

import csv
import os
import resource
import shutil
import sys
import time
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

LOG = 'log.csv'
BOARD = 'tensorboard'


class Progress(TrainerCallback):
    """Shows loss terms, rate, samples per second, time left and memory, and adds a row to the run's log.csv."""

    def __init__(self, samples_per_step):
        self.samples_per_step = samples_per_step
        self._since = None  # (time, step) of the last log
        self._elapsed_s = 0.0  # over training alone

    def on_train_begin(self, args, state, control, **kwargs):
        self._since = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            kept = drop_rows_after(Path(args.output_dir) / LOG, state.global_step)
            self._elapsed_s = float(kept[-1]['elapsed_s']) if kept else 0.0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        if 'eval_loss' in logs:
            self._since = self._since[0] + logs['eval_runtime'], self._since[1]  # no time of training
            _print(f'step {state.global_step}/{state.max_steps} validation loss {logs["eval_loss"]:.4g}')
        if 'loss' not in logs:
            return
        now, (then, step) = time.monotonic(), self._since
        self._since = now, state.global_step
        self._elapsed_s += now - then
        pace = (state.global_step - step) / max(now - then, 1e-9)
        row = {
            'step': state.global_step,
            'samples': state.global_step * self.samples_per_step,
            'elapsed_s': round(self._elapsed_s, 1),
            'samples_per_s': round(pace * self.samples_per_step, 2),
            **{name: f'{value:.5g}' for name, value in logs.items() if name not in ('epoch', 'step')},
        }
        append_row(Path(args.output_dir) / LOG, row)
        _show(_line(row, state, pace))

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and sys.stderr.isatty():
            print(file=sys.stderr)  # what follows begins below the live line


class Board(TensorBoardCallback):
    """TensorBoard's event files in the run's folder: train/<term>, eval/<term> and rate/<part>."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:  # what is there past the checkpoint that training goes on from is hidden
            folder = Path(args.output_dir) / BOARD
            self.tb_writer = self._SummaryWriter(log_dir=str(folder), purge_step=state.global_step + 1)
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, optimizer=None, **kwargs):
        if self.tb_writer is None:  # another process's task, or a line after the end
            return
        for group in optimizer.param_groups if optimizer is not None and 'loss' in logs else ():
            self.tb_writer.add_scalar(f'rate/{group.get("name", "all")}', group['lr'], state.global_step)
        super().on_log(args, state, control, logs=logs, **kwargs)


def append_row(path, row):
    """Adds `row`, name -> value, to a CSV file whose columns are those of its first row."""
    is_new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def drop_rows_after(path, step):
    """Takes the rows past `step`, where training goes on from, out of a CSV file. Returns those that stay."""
    if not path.is_file():
        return []
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if int(row['step']) <= step]
    if len(kept) < len(rows):
        with path.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(kept)
    return kept


def memory_gib():
    """(now, peak) of this process's memory; where the system does not say, now is the peak."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return peak, peak
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**30, peak


def _line(row, state, pace):
    left_s = (state.max_steps - state.global_step) / max(pace, 1e-9)
    hidden = ('step', 'samples', 'elapsed_s', 'samples_per_s', 'loss', 'learning_rate', 'grad_norm')
    terms = ' '.join(f'{name} {float(value):.3g}' for name, value in row.items() if name not in hidden)
    now, peak = memory_gib()
    return (
        f'step {row["step"]}/{state.max_steps} loss {float(row["loss"]):.4g} '
        f'rate {float(row.get("learning_rate", 0)):.2g} {row["samples_per_s"]:.3g} samples/s '
        f'left {int(left_s // 3600)}:{int(left_s % 3600 // 60):02d} h {now:.1f} GiB (peak {peak:.1f}) {terms}'
    )


def _show(line):
    """In the place of the last one, on a terminal; one that went over its edge would stay."""
    if not sys.stderr.isatty():
        _print(line)
        return
    print(f'\r\033[K{line[: shutil.get_terminal_size().columns - 1]}', end='', file=sys.stderr, flush=True)


def _print(line):
    """A line that stays."""
    print(f'\r\033[K{line}' if sys.stderr.isatty() else line, file=sys.stderr, flush=True)

"""What a run says: one live line for a person, a CSV file for later."""
import csv
import resource
import sys
import time
from pathlib import Path

from transformers import TrainerCallback

LOG = 'log.csv'


class Progress(TrainerCallback):
    """Shows loss terms, rate, samples per second, time left and memory, and adds a row to the run's log.csv."""

    def __init__(self, samples_per_step):
        self.samples_per_step = samples_per_step
        self._since = None  # (time, step) of the last log
        self._elapsed_s = 0.0  # of this process, over training alone

    def on_train_begin(self, args, state, control, **kwargs):
        self._since = time.monotonic(), state.global_step
        path = Path(args.output_dir) / LOG
        if state.is_world_process_zero and path.is_file():  # rows past the checkpoint that training goes on from
            with path.open(newline='') as file:
                rows = list(csv.DictReader(file))
            kept = [row for row in rows if int(row['step']) <= state.global_step]
            self._elapsed_s = float(kept[-1]['elapsed_s']) if kept else 0.0
            if len(kept) < len(rows):
                _write(path, kept)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or 'loss' not in (logs or {}):
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
        path = Path(args.output_dir) / LOG
        _append(path, row)
        _show(row, state, pace)


def _append(path, row):
    is_new = not path.is_file()
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _write(path, rows):
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ['step'])
        writer.writeheader()
        writer.writerows(rows)


def _show(row, state, pace):
    left_s = (state.max_steps - state.global_step) / max(pace, 1e-9)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB -> GiB
    hidden = ('step', 'samples', 'elapsed_s', 'samples_per_s', 'loss', 'learning_rate', 'grad_norm')
    terms = ' '.join(f'{name} {float(value):.3g}' for name, value in row.items() if name not in hidden)
    line = (
        f'step {row["step"]}/{state.max_steps} loss {float(row["loss"]):.4g} ({terms}) '
        f'rate {float(row.get("learning_rate", 0)):.2g} {row["samples_per_s"]:.3g} samples/s '
        f'left {int(left_s // 3600)}:{int(left_s % 3600 // 60):02d} h {memory:.1f} GiB'
    )
    if sys.stderr.isatty():
        print(f'\r\033[K{line}', end='', file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)

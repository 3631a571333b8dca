"""Kill storm: `tabletop generate`, `train run`, `eval` and `bag annotate` are killed at random until they are done.

    python test/bench/kill_storm.py [--kills 100] [--only generate train eval bag] [--seed 0] [--report FILE] [--quick]

A round starts a command on a small input, kills it (SIGKILL), and repeats that until the command ends by itself. Its
output then has to equal that of an undisturbed run: files byte by byte, but for times. Half of the kills come at a
random time after the start, the others when the process opens, renames or removes a file of its output, at a random one
of these moments: checkpoints and final files are written there.

Most starts are forks of a process that has imported everything, so that hundreds fit into half an hour; every COLD-th
is a fresh interpreter. `bag` answers with a stand-in engine, `train` and `eval` with a tiny model of random weights.

The report is written after every round, and the same command resumes it. Exits with 1 if an output differs, if a start
fails or hangs, or if files of the work in progress remain.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'test' / 'ros' / 'support'), str(Path(__file__).parent)]

REFERENCE = Path(os.environ.get('INSTRUCTSAM_REFERENCE', ROOT / 'test' / 'data' / 'reference'))
COLD = 20
HANG_S = 300
MODULES = [
    'peft',
    'tensorboard',
    'instructsam.train.loop.run',
    'instructsam.train.tabletop.generate',
    'instructsam.train.tabletop.scenes.render',
    'instructsam.train.evaluation.evaluate',
    'instructsam_ros.bag.annotate',
    'bags',
]
LEFTOVER = re.compile(r'\.lock|\.part(ial)?\b|\.journal\b|replaced-')
COMMANDS = ('generate', 'train', 'eval', 'bag')


def arguments(command: str, inputs: Path, out: Path) -> list[str]:
    """Return the command line that writes `out`."""
    if command == 'generate':
        size = ['--size', '64', '48']
        return ['tabletop', 'generate', str(out), '--scenes', '12', '--seed', '3', '--workers', '1', *size]
    if command == 'train':
        return ['train', 'run', str(inputs / 'recipe.yaml'), f'output={out}']
    if command == 'eval':
        data = ['--data', str(inputs / 'data'), '--model', str(REFERENCE / 'checkpoint'), '--max-new-tokens', '4']
        return ['eval', 'inst2seg', *data, '--results', str(out), '--json', str(out) + '.json']
    return ['bag', 'annotate', str(inputs / 'bag'), str(out), '--instruction', 'red green', '--label-images']


def write_inputs(folder: Path) -> None:
    """Write the recipe and data of train, the data of eval and the bag."""
    import bags
    import numpy as np
    import yaml
    from PIL import Image

    if (folder / 'done').exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / 'data').mkdir(parents=True)
    rng = np.random.default_rng(0)
    square = {'size': [60, 80], 'counts': [600, 30, 4170]}
    asked = [{'text': text, 'mask': [square]} for text in ('the stripe', 'the box', 'a lid')]
    entries = []
    for index in range(6):
        image = folder / f'{index}.png'
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(image)
        entries.append({'image': str(image), 'height': 60, 'width': 80, 'annotation': asked})
    (folder / 'data' / 'test.json').write_text(json.dumps(entries))
    records = json.loads((REFERENCE / 'training' / 'records.json').read_text())
    (folder / 'records.json').write_text(json.dumps(list(records.values())))
    recipe = {
        'stage': 'instruct',
        'model': str(REFERENCE / 'checkpoint'),
        'output': 'run',
        'data': [{'annotations': str(folder / 'records.json'), 'images': str(REFERENCE)}],
        'steps': 6,
        'learning_rates': {'language': 1e-3, 'vision': 1e-3, 'projector': 1e-3, 'decoder': 1e-3},
        'lora': {'rank': 2, 'dropout': 0.1},
        'log_every': 1,
        'save_every': 2,
    }
    (folder / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    bags.write(folder / 'bag', 'mcap', bags.recording(bags.info(), *map(bags.depth, range(bags.FRAMES))))
    (folder / 'done').touch()


def fingerprint(command: str, out: Path) -> dict[str, Any]:
    """Return what a run has written, without what differs from run to run."""
    if command == 'generate':
        return files(out)
    if command == 'train':
        with (out / 'log.csv').open() as file:
            rows = [{key: row[key] for key in ('step', 'loss', 'grad_norm')} for row in csv.DictReader(file)]
        last = {f'last/{name}': digest for name, digest in files(out / 'checkpoint-6').items() if 'optimizer' in name}
        return {**files(out / 'final'), **last, 'log': rows}
    if command == 'eval':
        lines = [json.loads(line) for line in (out / 'results-00000.jsonl').read_text().splitlines()]
        outcomes = {json.dumps(line['query']['id'] if 'query' in line else line.get('id')): line for line in lines[1:]}
        return {name: without_times(line) for name, line in outcomes.items()}
    import bags

    messages = {}
    for number, (ms, topic, data) in enumerate(bags.read(out)):
        messages[f'{number} {ms} {topic}'] = '' if topic.startswith('/perception') else data.hex()
    results = [str(message) for message in bags.results(out)]
    return {**messages, 'results': results}


def without_times(value: Any) -> Any:
    """Return nested values without times, and without checksums that cover times."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in ('timings_ms', 'crc32')}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by name."""
    import hashlib

    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


# The process that is killed


def child(argv: list[str], out: str, log: str, die_at: int) -> None:
    """Run a command line; kill the process at the `die_at`-th change of a file of its output (0: never)."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, 'w', buffering=1), os.fdopen(2, 'w', buffering=1)
    changes = 0

    def watch(event: str, values: tuple) -> None:
        nonlocal changes
        if event == 'open':
            path, mode, flags = values
            if not (flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and not set(str(mode)) & set('wax+'):
                return
        elif event not in ('os.rename', 'os.remove', 'os.rmdir', 'os.mkdir', 'os.truncate'):
            return
        else:
            path = values[0]
        if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith((out, os.path.dirname(out) + '/.')):
            changes += 1
            if changes == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    import torch

    from instructsam.core.cli import main

    torch.set_num_threads(1)
    if argv[0] == 'bag':
        import bags

        from instructsam_ros.bag import annotate

        annotate.load_engine = lambda args, console: bags.Engine()
    code = main(argv)
    if die_at < 0:
        Path(log + '.changes').write_text(str(changes))
    sys.exit(code)


class Starter:
    """Starts commands: forks of a process that has imported everything, and every COLD-th a fresh interpreter."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context('forkserver')
        self._context.set_forkserver_preload(MODULES)
        self.count = 0

    def start(self, *args: Any) -> 'Started':
        """Start child(*args)."""
        self.count += 1
        if self.count % COLD == 0:
            code = f'import sys; sys.path[:0] = {sys.path[:2]!r}; import kill_storm; kill_storm.child(*{args!r})'
            return Started(subprocess.Popen([sys.executable, '-c', code]))
        settings = {'ARGS': args}
        process = self._context.Process(target=runpy.run_path, args=(__file__, settings, 'kill_storm_child'))
        process.start()
        return Started(process)


class Started:
    """A started process of either kind."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid = process.pid

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code, or None if the process still runs after `timeout_s`."""
        if isinstance(self._process, subprocess.Popen):
            try:
                return self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return None
        self._process.join(timeout_s)
        return self._process.exitcode

    def kill(self) -> int:
        """Kill the process and return its exit code."""
        self._process.kill()
        code = self.wait(HANG_S)
        assert code is not None
        return code


# Rounds


class Storm:
    """Rounds of one command."""

    def __init__(self, command: str, folder: Path, starter: Starter, seed: int) -> None:
        self.command, self.folder, self.starter, self.seed = command, folder, starter, seed
        self.inputs, self.log = folder / 'inputs', str(folder / f'{command}.log')
        for _ in range(2):  # the first start includes the imports of the process that is forked
            out = self._fresh('whole')
            start = time.monotonic()
            code = self._start(out, -1).wait(HANG_S)
            self.duration_s = time.monotonic() - start
            if code:
                raise SystemExit(f'{command} ended with exit code {code}:\n{Path(self.log).read_text()}')
        self.changes = int(Path(self.log + '.changes').read_text())
        self.expected = fingerprint(command, out)

    def _fresh(self, name: str) -> Path:
        """Return an output that does not exist."""
        base = self.folder / self.command / name
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        return base / 'out'

    def _start(self, out: Path, die_at: int) -> Started:
        return self.starter.start(arguments(self.command, self.inputs, out), str(out), self.log, die_at)

    def round(self, number: int, most: int) -> dict[str, Any]:
        """Kill a run until it is done, at most `most` times, and compare its output; return the round's record."""
        chance = random.Random(f'{self.seed} {self.command} {number}')
        out = self._fresh(f'round{number}')
        kills, failure = [], ''
        while not failure:
            by_change = chance.random() < 0.5
            die_at, delay_s = chance.randint(1, self.changes), chance.uniform(0, 1.1 * self.duration_s)
            if len(kills) >= most:
                process, die_at, by_change = self._start(out, 0), 0, True
            else:
                process = self._start(out, die_at if by_change else 0)
            code = process.wait(HANG_S if by_change else delay_s)
            if code is None:
                code = process.kill()
                if by_change:
                    failure = f'hangs for {HANG_S} s'
            if code == -signal.SIGKILL:
                kills.append(f'change {die_at}' if by_change else f'{delay_s:.3f} s')
            elif code == 0 or (self.command == 'bag' and code == 2 and self._is_done(out)):
                break
            else:
                failure = f'exit code {code}: {Path(self.log).read_text()[-2000:]}'
        if not failure:
            failure = self._compare(out)
        if not failure:
            shutil.rmtree(out.parent)
        return {'round': number, 'kills': kills, 'failure': failure}

    def _is_done(self, out: Path) -> bool:
        """Return whether the bag is complete; then the same command says that it exists already."""
        return out.exists() and 'exists already' in Path(self.log).read_text()

    def _compare(self, out: Path) -> str:
        """Return the first difference from the undisturbed run, or ''."""
        found = fingerprint(self.command, out)
        for key in {**self.expected, **found}:
            if found.get(key) != self.expected.get(key):
                return f'{key} differs: {str(found.get(key))[:300]} instead of {str(self.expected.get(key))[:300]}'
        left = [str(path) for path in out.parent.rglob('*') if LEFTOVER.search(path.name)]
        return f'left over: {left}' if left else ''


def run_storms(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rounds and return the report."""
    report_file = Path(args.report)
    report = json.loads(report_file.read_text()) if report_file.is_file() else {'seed': args.seed, 'rounds': {}}
    if report['seed'] != args.seed:
        raise SystemExit(f'{report_file} is of seed {report["seed"]}: give another --report')
    starter = Starter()
    for command in args.only:
        rounds = report['rounds'].setdefault(command, [])
        count = sum(len(each['kills']) for each in rounds)
        if count >= args.kills:
            continue
        storm = Storm(command, folder, starter, args.seed)
        print(f'{command}: undisturbed {storm.duration_s:.1f} s, {storm.changes} changes of files', flush=True)
        start = time.monotonic()
        while count < args.kills:
            each = storm.round(len(rounds), args.kills - count)
            rounds.append(each)
            count += len(each['kills'])
            report_file.write_text(json.dumps(report, indent=1) + '\n')
            if each['failure']:
                print(f'{command}, round {each["round"]}, kills at {each["kills"]}: {each["failure"]}', flush=True)
        print(f'{command}: {count} kills, {len(rounds)} rounds in {time.monotonic() - start:.0f} s', flush=True)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--kills', type=int, default=100, help='kills per command (default: 100)')
    parser.add_argument('--only', nargs='+', choices=COMMANDS, default=COMMANDS, help='commands (default: all)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the moments (default: 0)')
    parser.add_argument(
        '--report', default='kill_storm.json', help='report to write and to resume (default: %(default)s)'
    )
    parser.add_argument('--folder', help='folder for inputs and outputs (default: a temporary one)')
    parser.add_argument('--quick', action='store_true', help='10 kills per command')
    args = parser.parse_args()
    if args.quick:
        args.kills = 10
    os.environ |= {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    with tempfile.TemporaryDirectory(prefix='kill_storm_') as temporary:
        folder = Path(args.folder or temporary).resolve()
        write_inputs(folder / 'inputs')
        report = run_storms(args, folder)
    failures = [(name, each) for name, rounds in report['rounds'].items() for each in rounds if each['failure']]
    for name, rounds in report['rounds'].items():
        kills = sum(len(each['kills']) for each in rounds)
        failed = sum(bool(each['failure']) for each in rounds)
        print(f'{name:<10} {kills:>4} kills {len(rounds):>4} rounds {failed:>3} failures')
    return 1 if failures else 0


if __name__ == 'kill_storm_child':
    child(*ARGS)  # noqa: F821  # given by Starter.start
if __name__ == '__main__':
    sys.exit(main())

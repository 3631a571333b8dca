"""Recordings given to `instructsam bag annotate`, `bag show` and the replay's reader."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from harness.engine import ROOT
from harness.example import Example, write_files
from harness.target import ACCEPTED, InProcessTarget, Verdict, WrongAnswerError, check_finite, judge, run_command
from hypothesis import strategies as st

IMAGES = 3
MOST_REPLAYED = 5000  # messages


class Bags(InProcessTarget):
    """MCAP and SQLite bags with images, depth, camera info, an instruction and a type that is installed nowhere."""

    name: ClassVar[str] = 'bags'
    time_limit_s: ClassVar[float] = 30.0
    memory_mb: ClassVar[int] = 1500
    seeds: ClassVar[tuple[str, ...]] = (
        'mcap', 'mcap', 'db3', 'db3', 'zstd chunks', 'message zstd', 'file zstd', 'mcap file', 'db3 file', 'answered',
    )  # fmt: skip

    def options(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy: the command, and where instructions come from."""
        return st.fixed_dictionaries(
            {
                'command': st.sampled_from(['annotate', 'annotate', 'annotate', 'show', 'replay']),
                'recorded': st.booleans(),  # the instruction is that of the bag
                'labels': st.booleans(),
            }
        )

    def open(self, folder: Path) -> None:
        """Make the seeds, and let bags be answered by an engine that finds coloured squares."""
        import logging

        from rosbags.rosbag2 import CompressionMode
        from std_msgs.msg import String

        logging.disable(logging.WARNING)
        sys.path.insert(0, str(ROOT / 'test' / 'ros' / 'support'))
        import bags

        from instructsam_ros.bag import annotate

        annotate.load_engine = lambda *_, **__: bags.Engine()  # in this process, which only runs targets
        self._bags = bags
        recorded = [bags.frame(index) for index in range(IMAGES)]
        recorded += [bags.depth(index) for index in range(IMAGES)]
        recorded += [bags.info(), (0, '/instruction', String(data='the red thing'))]
        compressions = {
            'mcap': ('mcap', None),
            'db3': ('sqlite3', None),
            'zstd chunks': ('mcap', CompressionMode.STORAGE),
            'message zstd': ('sqlite3', CompressionMode.MESSAGE),
            'file zstd': ('mcap', CompressionMode.FILE),
        }
        self._seeds: dict[str, dict[str, bytes]] = {}
        for name, (storage, compression) in compressions.items():
            written = bags.write(folder / 'seed', storage, recorded, compression)
            self._seeds[name] = {path.name: path.read_bytes() for path in written.iterdir()}
            shutil.rmtree(written)
        for name in ('mcap', 'db3'):
            self._seeds[f'{name} file'] = {
                file: data for file, data in self._seeds[name].items() if file.endswith(f'.{name}')
            }
        write_files(self._seeds['mcap'], (), folder / 'in')
        code = bags.run(folder / 'in', folder / 'out', '--instruction', 'the red and the green thing')
        assert code == 0
        self._seeds['answered'] = {path.name: path.read_bytes() for path in (folder / 'out').iterdir()}

    def run(self, example: Example, folder: Path) -> Verdict:
        """Annotate, show or replay the bag."""
        write_files(self._seeds[example.seed], example.changes, folder)
        path = folder
        if example.seed.endswith(' file'):
            path = folder / next(iter(self._seeds[example.seed]))
        command = example.options['command']
        out = folder.parent / ('out.png' if command == 'show' else 'out')
        for left in (out, Path(f'{out}.journal')):
            shutil.rmtree(left, ignore_errors=True)
            left.unlink(missing_ok=True)
        if command == 'replay':
            return self._replay(path, example)
        if command == 'show':
            verdict = judge(run_command(['bag', 'show', str(path), str(out)]))
            if verdict.state == 'accepted' and not out.is_file():
                raise WrongAnswerError('exit code 0 without a file')
        else:
            arguments = ['bag', 'annotate', str(path), str(out)]
            arguments += [] if example.options['recorded'] else ['--instruction', 'the red and the green thing']
            arguments += ['--label-images'] if example.options['labels'] else []
            done = run_command(arguments)
            verdict = judge(done)
            if out.exists():
                self._check_output(path, out, done.out)
            elif verdict.state == 'accepted':
                raise WrongAnswerError('exit code 0 without a bag')
        is_wrong_seed = (example.seed == 'answered') == (command == 'annotate')
        if not example.changes and not is_wrong_seed and verdict.state != 'accepted':
            raise WrongAnswerError(f'the valid bag {example.seed} is refused: {verdict.message}')
        return verdict

    def _check_output(self, source: Path, out: Path, said: str) -> None:
        """Check that the bag that was written can be read and holds every message of its source, which can be, too."""
        from harness.messages import to_tree

        copied = self._bags.read(out)
        results = [message for _, message in self._bags.results(out)]
        for result in results:
            tree = to_tree(result)
            check_finite(tree)
            if result.status == result.STATUS_OK and not result.instances:
                raise WrongAnswerError('a result OK without an instance')
        files = [source] if source.is_file() else list(source.iterdir())
        if not all(file.is_file() for file in files):
            return  # rosbags by itself would wait for a FIFO
        try:
            original = self._bags.read(source)
        except Exception:
            original = []  # rosbags by itself reads less than the project does
        lacking = _count(original) - _count(copied)
        if sum(lacking.values()):
            topics = sorted({topic for topic, _ in lacking})[:3]
            if not any(topic in said for topic in topics):
                raise WrongAnswerError(f'{sum(lacking.values())} messages are not in the copy, such as of {topics}')

    def _replay(self, path: Path, example: Example) -> Verdict:
        """Read the bag as the replay does."""
        from instructsam_ros.bag.recordings import open_recording

        recording = open_recording(path)
        if not np.isfinite(recording.period_s):
            raise WrongAnswerError(f'a period of {recording.period_s} s')
        count = 0
        for offset_s, _, _ in recording.messages(recording.types):
            count += 1
            if not np.isfinite(offset_s):
                raise WrongAnswerError(f'a message at {offset_s} s')
            if count > MOST_REPLAYED:
                break
        expected = IMAGES * 2 + 2 + 3 + (IMAGES if example.seed == 'answered' else 0)
        if not example.changes and count != expected:
            raise WrongAnswerError(f'{count} of {expected} messages')
        return ACCEPTED


def _count(messages: list[Any]) -> Any:
    """Return a Counter of (topic, message)."""
    from collections import Counter

    return Counter((topic, bytes(data)) for _, topic, data in messages)


TARGET = Bags()

"""Structure-aware fuzzing of everything that takes input from outside; scripts/fuzz runs it.

    scripts/fuzz --hours 1                      every target for one hour, one after another
    scripts/fuzz --hours 1 --target bags        one of them
    scripts/fuzz --summary                      a table of what has run so far
    scripts/fuzz --reproduce FOLDER             run a kept failure again

The same command goes on where it was stopped. A failure is kept under OUT/failures with its input. Exit code: 0 without
failures, 1 with failures, 2 for wrong arguments.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from harness.campaign import Report, run_campaign
from harness.example import Example
from harness.worker import Worker

TARGETS = tuple(sorted(path.stem for path in (Path(__file__).parent / 'targets').glob('[!_]*.py')))
OUT = Path(__file__).resolve().parents[2] / 'runs' / 'fuzz'


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def summary(report: Report) -> str:
    """Return the table of a report, in Markdown."""
    lines = [
        '| target | hours | examples | valid | accepted | refused | failures | slowest, s | peak, MB | MB per 1000 |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    details = []
    for target in TARGETS:
        rounds = report.rounds(target)
        if not rounds:
            continue
        total = {key: sum(each[key] for each in rounds) for key in ('seconds', 'examples', 'unchanged', 'accepted')}
        refused, failed = Counter(), Counter()
        for each in rounds:
            refused.update(each['refused'])
            failed.update(each['failed'])
        lines.append(
            f'| {target} | {total["seconds"] / 3600:.2f} | {total["examples"]} | {total["unchanged"]} | '
            f'{total["accepted"]} | {refused.total()} | {failed.total()} ({len(failed)} kinds) | '
            f'{max(each["slowest_s"] for each in rounds):.1f} | {max(each["peak_mb"] for each in rounds):.0f} | '
            f'{growth_mb(rounds):+.1f} |'
        )
        details.append(f'{target}: refused as ' + ', '.join(f'{kind} {n}' for kind, n in refused.most_common()))
        for kind, number in failed.most_common():
            details.append(f'{target}: FAILED {number} times: {kind} ({report.failure_folder(target, kind)})')
    return '\n'.join([*lines, '', *details])


def growth_mb(rounds: list[dict]) -> float:
    """Return the growth of resident memory per 1000 examples, over the children that ran the most examples."""
    last: dict[tuple[float, int], dict] = {}
    for each in rounds:
        last[each['child_first_mb'], each['child']] = each
    longest = max(last.values(), key=lambda each: each['child_examples'])
    return (longest['child_mb'] - longest['child_first_mb']) * 1000 / max(1, longest['child_examples'])


def reproduce(folder: Path) -> int:
    """Run a kept example again, and if it does not fail alone, after those before it; return 1 if it fails."""
    name = (folder / 'failure.txt').read_text().split('\n', 1)[0].removeprefix('target ')
    with Worker(name) as worker:
        outcome = worker.run(name, Example.from_json((folder / 'example.json').read_text()))
        history = json.loads((folder / 'history.json').read_text()) if outcome.state != 'failed' else []
        for number, raw in enumerate(history, 1):
            outcome = worker.run(name, Example.from_json(json.dumps(raw)))
            say(f'{number} of {len(history)}: {outcome.state} {outcome.kind}')
            if outcome.state == 'failed':
                break
    say(f'{outcome.state} {outcome.kind}\n{outcome.message}')
    return int(outcome.state == 'failed')


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument('--hours', type=float, metavar='H', help='time of each target, including earlier runs')
    task.add_argument('--summary', action='store_true', help='print a table of the report')
    task.add_argument('--reproduce', type=Path, metavar='FOLDER', help='run a kept failure again')
    parser.add_argument('--target', choices=TARGETS, action='append', help='only this one; repeatable')
    parser.add_argument('--out', type=Path, default=OUT, metavar='DIR', help='report and failures (default: runs/fuzz)')
    parser.add_argument(
        '--slowness', type=float, default=1.0, metavar='X', help='multiplies the time limits, for a busy machine'
    )
    args = parser.parse_args()
    if args.reproduce:
        return reproduce(args.reproduce)
    report = Report(args.out)
    if not args.summary:
        try:
            for name in args.target or TARGETS:
                run_campaign(name, args.hours * 3600, report, args.slowness, say)
        except KeyboardInterrupt:
            say('stopped; the same command goes on')
            return 130
    say(summary(report))
    return int(any(each['failed'] for each in report.rounds()))


if __name__ == '__main__':
    sys.exit(main())

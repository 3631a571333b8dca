"""`instructsam train ablate PLAN`: train and measure the variants of a plan, and report."""

import argparse
from pathlib import Path
from typing import Any

from instructsam.train.ablation.variants import VARIANTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the plan, and the options that restrict it to some of its variants and seeds."""
    parser.epilog = 'The same command resumes a study that was stopped. The report covers everything measured so far.'
    parser.add_argument('plan', metavar='PLAN', help='a YAML file, see train/configs/tabletop/ablation.yaml')
    parser.add_argument(
        '--only',
        nargs='+',
        choices=VARIANTS,
        metavar='VARIANT',
        help=f'the variants to train and measure (default: those of the plan): {", ".join(VARIANTS)}',
    )
    parser.add_argument('--seeds', nargs='+', type=int, metavar='S', help="seeds (default: the plan's)")


def run(args: argparse.Namespace) -> int:
    """Run the study, write its results and return exit code 0. Raises InstructSAMError."""
    from instructsam.core.atomic_write import write_text
    from instructsam.core.files.json_file import write_json
    from instructsam.core.folder_lock import FolderLock
    from instructsam.core.storage import explained_storage_faults
    from instructsam.train.ablation.plan import read_plan
    from instructsam.train.ablation.report import markdown, results, table
    from instructsam.train.ablation.study import run_study

    plan = read_plan(args.plan)
    seeds = args.seeds or plan.seeds

    def write_results() -> dict[str, Any]:
        found = results(plan, sorted({*plan.seeds, *seeds}))
        write_json(Path(plan.output) / 'results.json', found)
        write_text(Path(plan.output) / 'results.md', markdown(found))
        return found

    def print_step(line: str) -> None:
        print(line, flush=True)

    with FolderLock(plan.output), explained_storage_faults(plan.output):
        run_study(plan, args.only or plan.variants, seeds, report_step=print_step, on_measured=write_results)
        found = write_results()
    print(*table(found), f'the figures are in {plan.output}/results.json, the table in results.md', sep='\n')
    return 0

"""`instructsam eval compare A B`: compare two runs of one benchmark, sample by sample."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and the file."""
    parser.add_argument('a', metavar='A', type=Path, help="a run's folder")
    parser.add_argument('b', metavar='B', type=Path, help='the folder of another run of the same benchmark and split')
    parser.add_argument(
        '--json', metavar='FILE', help='write the differences as JSON; - is stdout (the tables then go to stderr)'
    )
    parser.epilog = (
        'Differences are B - A on the samples that both runs answered, each run with its own threshold. The intervals '
        'come from drawing images with replacement, the same images for both runs.'
    )


def run(args: argparse.Namespace) -> int:
    """Print the comparison and return exit code 0.

    Raises InstructSAMError.
    """
    from instructsam.core.atomic_write import check_path
    from instructsam.core.files.json_file import write_json
    from instructsam.train.evaluation.figures.compare import compare_runs
    from instructsam.train.evaluation.reporting.comparison_table import print_comparison
    from instructsam.train.evaluation.running.run_folder import read_run, result_files

    if args.json not in (None, '-'):
        check_path(args.json, result_files(args.a, args.b))
    document = compare_runs(read_run(args.a), read_run(args.b))
    if args.json is not None:
        write_json(args.json, document)
    print_comparison(document, to_stderr=args.json == '-')
    return 0

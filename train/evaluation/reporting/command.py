"""`instructsam eval report RUN...`: write an HTML report on one or more runs."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and the file."""
    parser.add_argument('runs', nargs='+', metavar='RUN', type=Path, help="a run's folder")
    parser.add_argument('--out', default='report.html', metavar='FILE', help='file to write (default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Write the report and return exit code 0.

    Raises InstructSAMError.
    """
    from instructsam.train.evaluation.reporting.html_report import write_report

    write_report(args.runs, args.out)
    return 0

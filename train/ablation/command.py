"""`instructsam train ablate PLAN`: trains and measures the variants of a plan, and reports."""

from pathlib import Path

from instructsam.train.ablation.variants import VARIANTS


def add_arguments(parser):
    parser.epilog = 'Stopped, it goes on when the same command is given again. The report is of all that is there.'
    parser.add_argument('plan', metavar='PLAN', help='a YAML file, see train/configs/tabletop_ablate.yaml')
    parser.add_argument(
        '--only',
        nargs='+',
        choices=VARIANTS,
        metavar='VARIANT',
        help=f'the variants to train and measure (default: those of the plan): {", ".join(VARIANTS)}',
    )
    parser.add_argument('--seeds', nargs='+', type=int, metavar='S', help="seeds (default: the plan's)")


def run(args):
    """Returns exit code 0. Raises InstructSAMError."""
    from instructsam.train.ablation.plan import read_plan

    plan = read_plan(args.plan)
    seeds = args.seeds or plan.seeds
    from instructsam.train.ablation.report import markdown, results, table
    from instructsam.train.ablation.study import study, write_json

    def report():
        found = results(plan, sorted({*plan.seeds, *seeds}))
        write_json(found, Path(plan.output) / 'results.json')
        (Path(plan.output) / 'results.md').write_text(markdown(found), encoding='utf-8')
        return found

    study(plan, args.only or plan.variants, seeds, tell=lambda line: print(line, flush=True), measured=report)
    print(*table(report()), f'the figures are in {plan.output}/results.json, the table in results.md', sep='\n')
    return 0

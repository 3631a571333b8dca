"""`instructsam engine`: images to instructions with masks, by a recipe; all stages or one of them."""

import argparse

from instructsam.core.commands.parser import CommandParser, sentence

SUMMARIES = {
    'run': 'run all stages and the export; stages that are done are not repeated',
    'images': 'list and check the images of the sources',
    'questions': 'let a VLM write questions about each image',
    'objects': 'let a VLM name the targets of the questions, with boxes',
    'masks': 'segment the objects in the boxes',
    'filter': 'reject doubtful questions by named rules',
    'export': 'write training records, the form of the benchmark, COCO JSON and a page of samples',
}


def add_arguments(parser: CommandParser) -> None:
    """Add the subcommands."""
    parser.hint = 'all stages are run with `instructsam engine run RECIPE`'
    subparsers = parser.add_subparsers(dest='stage', metavar='COMMAND', required=True, parser_class=CommandParser)
    for name, summary in SUMMARIES.items():
        subparser = subparsers.add_parser(name, help=summary, description=sentence(summary))
        subparser.add_argument('recipe', metavar='RECIPE', help='YAML file; see docs/data_engine.md')
        if name != 'export':
            subparser.add_argument('--ray', action='store_true', help='run on Ray Data (extra engine-ray)')
            subparser.add_argument(
                '--redo', action='store_true', help='recompute the rows of this stage and of all later ones'
            )
        subparser.set_defaults(run_command=run)


def run(args: argparse.Namespace) -> int:
    """Run the stages and return the exit code.

    Raises InstructSAMError.
    """
    from instructsam.train.data_engine.export.write import export
    from instructsam.train.data_engine.recipe import check_names, read_recipe
    from instructsam.train.data_engine.rows import STAGES
    from instructsam.train.data_engine.run import Outcome, run_stages

    recipe = read_recipe(args.recipe)
    check_names(recipe)
    outcome = Outcome()
    if args.stage != 'export':
        outcome = run_stages(recipe, STAGES if args.stage == 'run' else (args.stage,), redo=args.redo, ray=args.ray)
    if args.stage == 'export' or (args.stage == 'run' and not outcome.left):
        export(recipe)
    return outcome.exit_code

"""`instructsam train run RECIPE [KEY=VALUE ...]`: train one stage as a recipe describes."""

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and the values to change in it."""
    parser.epilog = 'The same command resumes a run that was stopped from its last checkpoint.'
    parser.add_argument('recipe', metavar='RECIPE', help='a YAML file, see train/configs')
    parser.add_argument('changes', metavar='KEY=VALUE', nargs=argparse.REMAINDER, help='values of the recipe to change')


def run(args: argparse.Namespace) -> int:
    """Train and print the final model's folder; return exit code 0.

    Raises InstructSAMError.
    """
    from instructsam.train.loop.recipe import read_recipe

    recipe = read_recipe(args.recipe, args.changes)  # read before torch is imported, which takes seconds
    from instructsam.train.loop.run import run

    final = run(recipe)
    if os.environ.get('RANK', '0') == '0':  # torchrun sets the number of this process
        print(f'the trained model is in {final}')
    return 0

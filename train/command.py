"""`instructsam train RECIPE.yaml [key=value ...]`: one stage of training. Beside it, what belongs to training."""

import argparse
import importlib
import os

ACTIONS = {  # first word -> module with add_arguments(parser) and run(args), and its line in --help
    'ablate': ('instructsam.train.ablation.command', 'train and measure variants that each lack a piece'),
    'deepen': (
        'instructsam.train.weights.deepen',
        "give Qwen's vision tower twice the blocks, which add nothing at first",
    ),
    'export': ('instructsam.train.weights.export', 'write a model in a smaller type, to ship or to start from'),
    'merge': ('instructsam.train.weights.merge', 'add the LoRA matrices of a checkpoint to its weights'),
    'stitch': ('instructsam.train.weights.stitch', 'let image encoders that learned alone be read as before'),
}


def add_arguments(parser):
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = 'A run that was stopped goes on from its last checkpoint when the same command is given again.\n\n'
    parser.epilog += '\n'.join(f'{parser.prog} {name} --help: {summary}' for name, (_, summary) in ACTIONS.items())
    parser.add_argument('recipe', metavar='RECIPE', help='a YAML file, see train/configs')
    parser.add_argument('changes', metavar='KEY=VALUE', nargs=argparse.REMAINDER, help='values of the recipe to change')
    parser.set_defaults(parser=parser)


def run(args):
    if args.recipe in ACTIONS:
        return _act(args.recipe, args.changes, args.parser)
    from instructsam.train.loop.recipe import read_recipe

    recipe = read_recipe(args.recipe, args.changes)
    from instructsam.train.loop.run import run

    final = run(recipe)
    if os.environ.get('RANK', '0') == '0':  # torchrun's number of this process
        print(f'the trained model is in {final}')
    return 0


def _act(name, argv, parser):
    """Runs an action on the words behind its name."""
    module, summary = ACTIONS[name]
    action = importlib.import_module(module)
    own = type(parser)(prog=f'{parser.prog} {name}', description=summary[0].upper() + summary[1:] + '.')
    action.add_arguments(own)
    return action.run(own.parse_args(argv))

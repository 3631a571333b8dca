"""`instructsam train`: train a model by a recipe, and change the weights of a model folder."""

from instructsam.core.commands.parser import CommandParser, add_commands

COMMANDS = {
    'run': ('instructsam.train.loop.command', 'train one stage as a recipe describes'),
    'merge': ('instructsam.train.weights.commands.merge', 'add the LoRA matrices of a checkpoint to its weights'),
    'export': (
        'instructsam.train.weights.commands.export',
        'write a model in a smaller type, without auxiliary heads, to ship',
    ),
    'tabletop': ('instructsam.train.small_model.command', 'train the built-in model, from nothing to its figures'),
    'ablate': ('instructsam.train.ablation.command', 'train and measure variants that each lack one component'),
}


def add_arguments(parser: CommandParser) -> None:
    """Add the subcommands."""
    parser.hint = 'a recipe is trained with `instructsam train run RECIPE [KEY=VALUE ...]`'
    add_commands(parser, COMMANDS, dest='train_command')

"""`instructsam train RECIPE.yaml [key=value ...]`: one stage of training."""


def add_arguments(parser):
    parser.epilog = 'A run that was stopped goes on from its last checkpoint when the same command is given again.'
    parser.add_argument('recipe', metavar='RECIPE', help='a YAML file, see train/configs')
    parser.add_argument('changes', metavar='KEY=VALUE', nargs='*', help='values of the recipe to change')


def run(args):
    from instructsam.train.recipe import read_recipe

    recipe = read_recipe(args.recipe, args.changes)
    from instructsam.train.run import run

    print(f'the trained model is in {run(recipe)}')
    return 0

"""`instructsam models`: list, download and describe models."""

from __future__ import annotations

import argparse
import os

from instructsam.core import exit_codes
from instructsam.core.commands.arguments import text
from instructsam.core.commands.options import add_revision, option
from instructsam.core.text import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(dest='models_command', metavar='COMMAND', required=True)
    listing = actions.add_parser(
        'list', help="the built-in models and those in the hub's cache", description='Downloads nothing.'
    )
    fetching = actions.add_parser(
        'fetch', help='download a model to the cache of the hub', description='Resumes a download that was interrupted.'
    )
    describing = actions.add_parser(
        'describe',
        help='size, precision, configuration, licence and card of a model',
        description='Reads the configuration and the headers of the weights. Downloads nothing.',
    )
    described = 'hub id (owner/name), folder or built-in model'
    for action, names in ((fetching, 'hub id (owner/name)'), (describing, described)):
        action.add_argument('name', metavar='NAME', type=text, help=names)
        add_revision(action)
    for action in (listing, describing):
        option(action, '--json', 'write it as JSON; - is stdout, instead of the lines', metavar='FILE')
    parser.set_defaults(run_command=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    return {'list': _list, 'fetch': _fetch, 'describe': _describe}[args.models_command](args)


def _list(args: argparse.Namespace) -> int:
    from instructsam.core import builtin
    from instructsam.core.files.json_file import check_json_path, write_json
    from instructsam.core.hub.cache import cached_models

    check_json_path(args.json)
    cached = cached_models()
    if args.json is not None:
        document = {
            'built_in': {name: str(folder) for name, folder in builtin.MODELS.items()},
            'cached': [
                {
                    'name': model.name,
                    'commit': model.commit,
                    'refs': list(model.refs),
                    'bytes': model.size_bytes,
                    'complete': model.is_complete,
                    'folder': str(model.folder),
                }
                for model in cached
            ],
        }
        write_json(args.json, document)
    if args.json != '-':
        for name in builtin.MODELS:
            print(f'{name}: {builtin.WARNING}')
        for model in cached:
            refs = f' ({", ".join(model.refs)})' if model.refs else ''
            missing = '' if model.is_complete else ', weights are missing: fetch it again'
            print(one_line(f'{model.name} {model.commit[:12]}{refs}: {_size(model.size_bytes)}{missing}'))
        if not cached:
            print("the hub's cache holds no InstructSAM model; `instructsam models fetch OWNER/NAME` downloads one")
    return exit_codes.DONE


def _fetch(args: argparse.Namespace) -> int:
    from instructsam.core import builtin
    from instructsam.core.errors import ModelError
    from instructsam.core.hub.describe import CARD_FILES, describe
    from instructsam.core.model import checkpoint

    if args.name in builtin.MODELS:
        raise ModelError(f'{args.name} is built in: there is nothing to download')
    if os.path.isdir(os.path.expanduser(args.name)):
        raise ModelError(f'{args.name} is a folder: there is nothing to download')
    folder = checkpoint.resolve(args.name, args.revision or '', also=CARD_FILES)
    describe(folder)  # complete, and of this architecture
    print(folder)
    return exit_codes.DONE


def _describe(args: argparse.Namespace) -> int:
    from instructsam.core import builtin
    from instructsam.core.files.json_file import check_json_path, write_json
    from instructsam.core.hub.describe import describe

    check_json_path(args.json)
    facts = describe(builtin.folder(args.name, args.revision or '', is_cache_only=True))
    if args.json is not None:
        write_json(args.json, facts.to_json())
    if args.json != '-':
        unnamed = 'that of this package' if args.name in builtin.MODELS else 'not named in its card'
        lines = {
            'folder': facts.folder,
            'commit': facts.commit,
            'parameters': f'{facts.parameters / 1e6:,.1f} M in {", ".join(facts.dtypes)}, {_size(facts.weights_bytes)}',
            'language model': f'Qwen3-VL, {facts.language_layers} layers of width {facts.language_width}',
            'segmenter': f'SAM3 at {facts.image_size} x {facts.image_size} px, {facts.queries} queries per phrase',
            'trunk': facts.trunk,
            'licence': facts.licence or unnamed,
            'card': ' | '.join(facts.card) or 'none',
            'warning': builtin.warning(args.name),
        }
        for name, value in lines.items():
            if value:
                print(f'{name}: {one_line(value)}')
    return exit_codes.DONE


def _size(count: int) -> str:
    return f'{count / 1e9:.2f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'

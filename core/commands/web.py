"""`instructsam web`: a page in the browser to try a model, or a running node, on your own images."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import threading
import webbrowser
from contextlib import closing
from typing import TYPE_CHECKING

from instructsam.core.commands.arguments import seconds, text
from instructsam.core.commands.options import add_max_megapixels, add_model_options, load_model, option
from instructsam.core.errors import InstructSAMError

if TYPE_CHECKING:
    from instructsam.core.web.source import Source

NODE_SOURCE = 'instructsam_ros.web.node_source'
"""The running node as a source, imported by name: core does not know ROS."""

PORT = 7860  # Gradio's, which its users know


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `instructsam web`."""
    parser.epilog = (
        'Nothing leaves this machine: images stay in a folder that is removed at the end, and the page loads nothing '
        'from the network. Browsers allow the camera of the computer for pages of this machine and behind HTTPS only.'
    )
    add_model_options(parser)
    option(parser, '--node', 'ask this running node instead of loading a model', metavar='/NODE', type=text)
    option(parser, '--camera', 'with --node: its camera, if it has several', metavar='NAME', type=text)
    option(
        parser,
        '--image-topic',
        'with --node: topic of the camera (default: that which the node reads)',
        metavar='TOPIC',
    )
    option(parser, '--timeout', 'with --node: longest time until an answer, s', 60.0, metavar='S', type=seconds)
    option(parser, '--host', 'address to listen on; 0.0.0.0: every network, without a password', '127.0.0.1')
    option(parser, '--port', 'port to listen on; 0: a free one', PORT, type=_port, metavar='N')
    parser.add_argument('--open', action='store_true', help='open the page in the browser')
    add_max_megapixels(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the page until a signal ends it."""
    if importlib.util.find_spec('gradio') is None:  # before the model is loaded
        raise ModuleNotFoundError('no module gradio', name='gradio')
    from instructsam.core.web.page import Page
    from instructsam.core.web.samples import samples
    from instructsam.core.web.server import is_local, listen, private_folder, serve

    with listen(args.host, args.port) as listener:  # a port that is in use is said before the model is loaded
        source = _source(args)
        with closing(source), private_folder(), serve(Page(source, samples(), args.max_megapixels), listener) as url:
            if not is_local(listener):
                print(f'WARNING: whoever reaches {args.host} can use this page; it has no password', file=sys.stderr)
            print(f'{source.name}: open {url} in a browser (Ctrl-C ends)', flush=True)
            if args.open:
                webbrowser.open(url)
            threading.Event().wait()
    return 0


def _source(args: argparse.Namespace) -> Source:
    if args.node:
        module = importlib.import_module(NODE_SOURCE)
        return module.NodeSource(args.node, args.camera or '', args.image_topic or '', args.timeout)
    for name in ('camera', 'image_topic'):
        if getattr(args, name):
            raise InstructSAMError(f'--{name.replace("_", "-")} belongs to --node: leave it out')
    from instructsam.core.web.model_source import ModelSource

    print(f'loading {args.model}', file=sys.stderr, flush=True)
    return ModelSource(load_model(args))


def _port(value: str) -> int:
    if not value.isdecimal() or int(value) > 65535:
        raise argparse.ArgumentTypeError(f'expected a port from 0 to 65535, got {value}')
    return int(value)

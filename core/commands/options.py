"""Options that several commands share, so that they read and behave alike."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructsam.core import DEFAULT_MODEL
from instructsam.core.commands.arguments import megapixels, text
from instructsam.core.modes import COMPILE, DTYPES, DUPLICATE_IOU, INFERENCE_MODES, MAX_MEGAPIXELS

if TYPE_CHECKING:
    from instructsam.core.engine import InstructSAM


def option(parser: argparse._ActionsContainer, name: str, description: str, default: Any = None, **kwargs: Any) -> None:
    """Add an option whose help text ends with its default, if it has one."""
    shown = '' if default is None else ' (default: %(default)s)'
    parser.add_argument(name, default=default, help=description + shown, **kwargs)


def add_model_options(parser: argparse._ActionsContainer) -> None:
    """Add --model, --revision, --mode, --device, --dtype and --compile."""
    option(parser, '--model', 'built-in model, folder or hub id', DEFAULT_MODEL)
    add_revision(parser)
    option(
        parser,
        '--mode',
        "consistent: as trained; reference: bit-faithful to the authors' inference",
        'consistent',
        choices=INFERENCE_MODES,
    )
    option(parser, '--device', 'auto, cpu, cuda, cuda:1, ...', 'auto')
    option(parser, '--dtype', 'precision of the weights', 'auto', choices=DTYPES)
    add_compile(parser)


def load_model(args: argparse.Namespace, device: str | None = None) -> 'InstructSAM':
    """Load the model that the options of add_model_options name, on `device` if it is given; this imports torch.

    Raises ModelError if it cannot be loaded.
    """
    from instructsam.core import InstructSAM

    return InstructSAM.from_pretrained(
        args.model,
        device=device or args.device,
        dtype=args.dtype,
        mode=args.mode,
        revision=args.revision or '',
        compile=args.compile,
    )


def precision(args: argparse.Namespace, folder: Path) -> str:
    """Return the --dtype in which `load_model` loads the model in `folder`, for records of results; auto imports torch.

    Raises ModelError if the device cannot be used, or the folder has no weights.
    """
    if args.dtype != 'auto':
        return str(args.dtype)
    from instructsam.core.device import resolve_device, resolve_dtype
    from instructsam.core.model.checkpoint import parameter_count, tensor_shapes, weight_files

    parameters = parameter_count(tensor_shapes(weight_files(folder)))
    return str(resolve_dtype('auto', resolve_device(args.device), parameters)).removeprefix('torch.')


def add_compile(parser: argparse._ActionsContainer) -> None:
    """Add --compile."""
    description = "graphs: CUDA graphs; inductor: torch's compiler; auto: graphs on CUDA, otherwise off"
    option(parser, '--compile', description, 'auto', choices=COMPILE)


def add_max_megapixels(parser: argparse._ActionsContainer) -> None:
    """Add --max-megapixels."""
    option(
        parser,
        '--max-megapixels',
        'largest image that is decoded, in millions of pixels',
        MAX_MEGAPIXELS,
        type=megapixels,
        metavar='MP',
    )


def add_revision(parser: argparse._ActionsContainer) -> None:
    """Add --revision."""
    option(
        parser, '--revision', 'commit, tag or branch of a hub id (default: its main branch)', type=text, metavar='REV'
    )


def add_keep_duplicates(parser: argparse._ActionsContainer) -> None:
    """Add --keep-duplicates."""
    parser.add_argument(
        '--keep-duplicates',
        action='store_true',
        help=f'keep masks that overlap a better one by more than {DUPLICATE_IOU} IoU',
    )

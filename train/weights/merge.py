"""`instructsam train merge CHECKPOINT OUT`: adds LoRA matrices to the weights beside them."""

from pathlib import Path

import torch

from instructsam.core.errors import ModelError
from instructsam.core.model import checkpoint


def add_arguments(parser):
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='a checkpoint or final folder of a LoRA stage')
    parser.add_argument('out', metavar='OUT', help='the folder to write, which starts the next stage')


def run(args):
    merge(args.checkpoint, args.out)
    print(f'the merged model is in {args.out}')
    return 0


def merge(source, out):
    """Merges the LoRA matrices in the folder `source` and writes a model folder `out`, which must not hold anything.

    Raises ModelError.
    """
    from peft import PeftModel

    source = Path(source)
    if not (source / checkpoint.ADAPTER).is_file():
        raise ModelError(f'{source} holds no LoRA matrices ({checkpoint.ADAPTER}): there is nothing to merge')
    out = new_folder(out)
    model = checkpoint.load(source, torch.device('cpu'), None, base_only=True)
    merged = PeftModel.from_pretrained(model, source, torch_device='cpu').merge_and_unload(safe_merge=True)
    checkpoint.save(merged, out, source)


def new_folder(path):
    """`path` as a Path. Raises ModelError where something is there already."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ModelError(f'{path} is there already: give a new folder')
    return path

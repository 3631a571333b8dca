"""Initialises the embedding of the mask token `[SEG]`, for training a model without a query bank."""

from pathlib import Path

import torch

from instructsam.core.atomic_write import new_folder
from instructsam.core.model import checkpoint
from instructsam.train.weights.heads import copy_heads


def initialise_mask_token(source: str | Path, out: str | Path) -> None:
    """Write the model in the folder `source` to the folder `out`, with the bank's first query as embedding of `[SEG]`.

    The base stage has moved the query bank, but no token, towards the detector's queries. This gives the variants with
    and without a query bank the same start.
    """
    model = checkpoint.load(source, torch.device('cpu'), None)
    token = model.config.tokens.query
    model.model.language_model.embed_tokens.weight[token] = model.model.mask_queries[0]
    with new_folder(out) as part:
        checkpoint.save(model, part, source)
        copy_heads(source, part)

"""The embedding of the mask token becomes that of the first query."""

import torch

from instructsam.core.model.checkpoint import load
from instructsam.train.weights.mask_token import initialise_mask_token


def test_the_first_query_becomes_the_mask_token(checkpoint, tmp_path):
    initialise_mask_token(checkpoint, tmp_path)
    before, after = (load(folder, torch.device('cpu'), torch.float32) for folder in (checkpoint, tmp_path))
    token = before.config.tokens.query
    changed = [name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])]
    assert changed == ['model.language_model.embed_tokens.weight']
    embedding = after.model.language_model.embed_tokens.weight
    assert torch.equal(embedding[token], before.model.mask_queries[0])
    assert torch.equal(embedding[:token], before.model.language_model.embed_tokens.weight[:token])

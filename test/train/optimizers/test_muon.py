"""Muon and AdamW: orthogonal updates for matrices of layers, and bit-exact resumption from a stored state."""

import copy

import pytest
import torch
from torch import nn

from instructsam.train.optimizers.muon import Muon, is_hidden_matrix, orthogonalise


@pytest.mark.parametrize('shape', [(8, 8), (6, 20), (20, 6)])
def test_singular_values_are_about_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    updates = orthogonalise(matrices)
    assert updates.dtype == matrices.dtype
    values = torch.linalg.svdvals(updates)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The singular vectors are kept: U and V of a matrix diagonalise its update, but for the rounding of bfloat16.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ updates @ v.mT
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 0.05
    # A batch gives what each of its matrices gives alone.
    assert torch.equal(updates, torch.cat([orthogonalise(matrix[None]) for matrix in matrices]))


def test_only_matrices_of_layers():
    weight, bias = torch.zeros(2, 2), torch.zeros(2)
    assert is_hidden_matrix('model.language_model.layers.3.mlp.up_proj.weight', weight)
    assert is_hidden_matrix('model.visual.blocks.0.attn.qkv.weight', weight)
    assert not is_hidden_matrix('model.language_model.layers.3.mlp.up_proj.bias', bias)
    assert not is_hidden_matrix('model.language_model.embed_tokens.weight', weight)
    assert not is_hidden_matrix('model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight', weight)
    assert not is_hidden_matrix('model.visual.patch_embed.proj.weight', weight)


def optimizer(model):
    groups = [
        {'params': [model[0].weight], 'lr': 0.02, 'weight_decay': 0.1, 'orthogonal': True},
        {'params': [model[0].bias, *model[2].parameters()], 'lr': 0.01, 'weight_decay': 0.0, 'orthogonal': False},
    ]
    return Muon(groups, betas=(0.9, 0.98))


def train(model, optimiser, steps):
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 6, generator=generator)
        loss = (model(x) - x.prod(1, keepdim=True)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 1))


def test_a_weight_moves_by_about_the_learning_rate(model):
    before = model[0].weight.detach().clone()
    train(model, optimizer(model), 1)
    moved = (model[0].weight - before).square().mean().sqrt().item()
    assert 0.1 * 0.02 < moved < 0.5 * 0.02  # the RMS of an AdamW update is 0.2 to 0.4 times the learning rate


def test_other_parameters_are_trained_by_adamw(model):
    reference = copy.deepcopy(model)
    groups = [{'params': list(reference[2].parameters()), 'lr': 0.01, 'weight_decay': 0.0}]
    ours = optimizer(model)
    x = torch.randn(4, 6)
    for each, optimiser in ((model, ours), (reference, torch.optim.AdamW(groups, betas=(0.9, 0.98)))):
        each(x).square().mean().backward()
        optimiser.step()
    assert torch.equal(model[2].weight, reference[2].weight)
    assert torch.equal(model[2].bias, reference[2].bias)


def test_resumes_from_its_state_bit_exactly(model):
    whole = copy.deepcopy(model)
    train(whole, whole_optimizer := optimizer(whole), 3)
    parted = copy.deepcopy(whole)
    again = optimizer(parted)
    again.load_state_dict(copy.deepcopy(whole_optimizer.state_dict()))
    assert train(whole, whole_optimizer, 3) == train(parted, again, 3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parted.parameters(), strict=False))


def test_it_learns(model):
    losses = train(model, optimizer(model), 200)
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])

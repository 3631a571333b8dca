"""Linear layers as one matrix product: on the same memory, and only while they are what has been joined."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from instructsam.core.model.layers.joint_linear import JointLinear


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return [nn.Linear(6, size).requires_grad_(False) for size in (4, 8, 2)]


def test_the_weights_share_the_memory_of_the_joint_tensor(layers, tmp_path):
    before = [copy.deepcopy(layer.state_dict()) for layer in layers]
    joint = JointLinear()
    joint.join(layers)
    assert len({layer.weight.untyped_storage().data_ptr() for layer in layers}) == 1
    assert layers[0].weight.untyped_storage().nbytes() == 4 * 6 * (4 + 8 + 2)
    for layer, expected in zip(layers, before, strict=True):
        assert all(torch.equal(layer.state_dict()[name], tensor) for name, tensor in expected.items())
    save_file(nn.ModuleList(layers).state_dict(), tmp_path / 'model.safetensors')
    assert torch.equal(load_file(tmp_path / 'model.safetensors')['1.weight'], before[1]['weight'])


def is_joint(joint, layers):
    """Return whether the layers are computed as one, after comparing with each alone."""
    values = torch.randn(3, 6)
    results = joint(values, *layers)
    for result, layer in zip(results, layers, strict=True):
        torch.testing.assert_close(result, layer(values))
    torch.testing.assert_close(joint.side_by_side(values, *layers), torch.cat(results, dim=-1))
    return results[0].untyped_storage().data_ptr() == results[1].untyped_storage().data_ptr()


def test_changes_of_weights_are_seen(layers):
    joint = JointLinear()
    assert not is_joint(joint, layers)
    joint.join(layers)
    assert is_joint(joint, layers)
    layers[1].weight.mul_(2)  # in place, as an optimizer or load_state_dict does
    assert is_joint(joint, layers)
    layers[1].weight.data = torch.randn(8, 6)
    assert not is_joint(joint, layers)


def test_trained_and_wrapped_layers_are_computed_alone(layers):
    joint = JointLinear()
    layers[0].requires_grad_(True)
    joint.join(layers)
    assert not is_joint(joint, layers)
    layers[0].requires_grad_(False)
    joint.join(layers)
    assert is_joint(joint, layers)
    assert not is_joint(joint, [layers[0].requires_grad_(True), *layers[1:]])
    layers[0].requires_grad_(False)
    assert not is_joint(joint, [nn.Sequential(layers[0]), *layers[1:]])  # as LoRA wraps a layer
    assert not is_joint(copy.deepcopy(joint), [copy.deepcopy(layer) for layer in layers])

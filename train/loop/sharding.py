"""Tensors that FSDP has spread over processes, gathered to be saved and spread again, so that files hold whole ones."""

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def gathered(value, keep):
    """`value`, a tensor or dictionaries and lists of some, with whole tensors on the CPU. All processes call it;
    those that do not `keep` them get None in the place of a tensor that was spread, which bounds their memory.
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, dict):
        return {name: gathered(each, keep) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(gathered(each, keep) for each in value)
    return value


def spread(tensor, like):
    """The whole `tensor` as `like` is spread; it itself where `like` is whole."""
    if not isinstance(like, DTensor):
        return tensor
    device = like.to_local().device
    return distribute_tensor(tensor.to(device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def load_model(module, tensors):
    """Puts the whole `tensors`, one for each entry of its state_dict, into `module`."""
    for name, own in module.state_dict().items():
        own.copy_(spread(tensors[name], own))


def load_optimizer(optimizer, state):
    """Puts a state_dict with whole tensors into `optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    moments = {}
    for number, values in state['state'].items():
        moments[number] = {
            name: spread(value, parameters[number]) if getattr(value, 'ndim', 0) else value
            for name, value in values.items()
        }
    optimizer.load_state_dict({**state, 'state': moments})

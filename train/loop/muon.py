"""AdamW, with Muon for the matrices inside transformer layers (https://kellerjordan.github.io/posts/muon).

Their updates are made orthogonal, which lets a small model that starts from nothing learn as much from fewer pictures.
torch.optim.Muon computes in bfloat16, which is slow on CPUs; here it is the parameters' own type.
"""

import re

import torch
import torch.distributed as dist

_IN_A_LAYER = re.compile(r'\.(layers|blocks)\.\d+\.')
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz's iteration, as in torch.optim.Muon
_STEPS = 5
_MOMENTUM = 0.95


def is_hidden_matrix(name, parameter):
    """Whether Muon is meant for the parameter: a matrix of a numbered layer, but no factor of one, as LoRA's are."""
    return parameter.ndim == 2 and bool(_IN_A_LAYER.search(name)) and '.lora_' not in name


class Muon(torch.optim.AdamW):
    """AdamW for the groups without, Muon for those with `orthogonal: True`. Rates of both are as AdamW's."""

    @torch.no_grad()
    def step(self, closure=None):
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group.get('orthogonal')]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        turned = [
            (parameter, group)
            for group in groups
            if group.get('orthogonal')
            for parameter in group['params']
            if parameter.grad is not None
        ]
        for (parameter, group), update in zip(turned, self._updates([parameter for parameter, _ in turned])):
            # moves a weight by about the rate, as AdamW does
            scale = 0.2 * max(parameter.shape) ** 0.5
            parameter.mul_(1 - group['lr'] * group['weight_decay']).add_(update, alpha=-group['lr'] * scale)
        return loss

    def _updates(self, parameters):
        """The orthogonal update of each parameter; processes share the work."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        updates = []
        for index, parameter in enumerate(parameters):
            state = self.state[parameter]
            if not state:
                state['step'] = torch.zeros(())  # which AdamW looks for in every state it reads back
                state['momentum'] = torch.zeros_like(parameter)
            state['step'] += 1
            momentum = state['momentum'].lerp_(parameter.grad, 1 - _MOMENTUM)
            mine = index % world == rank
            updates.append(
                orthogonalise(parameter.grad.lerp(momentum, _MOMENTUM)) if mine else torch.zeros_like(parameter)
            )
        if world > 1 and updates:
            flat = torch.cat([update.flatten() for update in updates])
            dist.all_reduce(flat)
            parts = flat.split([update.numel() for update in updates])
            updates = [part.view_as(update) for part, update in zip(parts, updates)]
        return updates


def orthogonalise(matrix):
    """The nearest matrix whose singular values are all about 1 (0.7 to 1.2)."""
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x

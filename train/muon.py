"""AdamW, with Muon for the matrices inside transformer layers (https://kellerjordan.github.io/posts/muon).

Their updates are made orthogonal, which lets a small model that starts from nothing learn as much from a quarter of the
pictures. torch.optim.Muon computes in bfloat16, which is slow on CPUs; here it is the parameters' own type.
"""
import re

import torch

_IN_A_LAYER = re.compile(r'\.(layers|blocks)\.\d+\.')
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz's iteration, as in torch.optim.Muon
_STEPS = 5
_MOMENTUM = 0.95


def is_hidden_matrix(name, parameter):
    """Whether Muon is meant for the parameter: a matrix of a numbered layer."""
    return parameter.ndim == 2 and bool(_IN_A_LAYER.search(name))


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
        for group in groups:
            if group.get('orthogonal'):
                for parameter in group['params']:
                    if parameter.grad is not None:
                        self._turn(parameter, group)
        return loss

    def _turn(self, parameter, group):
        state = self.state[parameter]
        if not state:
            state['step'] = torch.zeros(())  # which AdamW looks for in every state it reads back
            state['momentum'] = torch.zeros_like(parameter)
        state['step'] += 1
        momentum = state['momentum'].lerp_(parameter.grad, 1 - _MOMENTUM)
        update = orthogonalise(parameter.grad.lerp(momentum, _MOMENTUM))
        # moves a weight by about the rate, as AdamW does
        scale = 0.2 * max(parameter.shape) ** 0.5
        parameter.mul_(1 - group['lr'] * group['weight_decay']).add_(update, alpha=-group['lr'] * scale)


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

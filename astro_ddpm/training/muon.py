# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
An optimiser that orthogonalises the steps of convolutions.
"""

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]

# odd polynomials whose composition brings all singular values from 0.003 to 1 near to one
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    r"""
    Bring all singular values of a matrix near to one: :math:`U S V^T` becomes about :math:`U V^T`.

    With :math:`X_0 = M / \|M\|_F`, the Newton-Schulz steps

    .. math:: X_{k + 1} = a X_k + b X_k X_k^T X_k + c X_k X_k^T X_k X_k^T X_k

    act on each singular value by the same odd polynomial (Jordan et al. 2024, *Muon: An optimizer for hidden
    layers in neural networks*). Theirs is steep at zero, and leaves values between about 0.7 and 1.2. Zero
    becomes zero.
    """
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.AdamW):
    r"""
    AdamW, but for the weights of convolutions, whose momentum is orthogonalised.

    Of a weight of shape (out, in, k, k), taken for a matrix of shape (out, in k²), with gradient :math:`g`:

    .. math:: b \leftarrow \mu b + (1 - \mu) g, \qquad
              w \leftarrow w - \eta \sqrt{\max(1, \mathrm{rows} / \mathrm{columns})}
              \; \mathrm{orthogonalize}[(1 - \mu) g + \mu b]

    with Nesterov's momentum (Jordan et al. 2024). A step that changes all directions alike learns those
    sooner that have small gradients.

    Parameters
    ----------
    convolutions, others : iterable of Tensor
        The weights to orthogonalise, and what AdamW trains.

    rate, learning_rate : float
        The learning rate :math:`\eta` of the convolutions, and that of the others.

    momentum : float, optional
        The momentum :math:`\mu`.

    **options
        Of `torch.optim.AdamW`.
    """

    def __init__(self, convolutions, others, rate, learning_rate, momentum=0.95, **options):
        groups = [{"params": list(others)}, {"params": list(convolutions), "lr": rate, "momentum": momentum}]
        super().__init__(groups, learning_rate, **options)

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step; ``closure`` computes the gradients anew, and those of the convolutions are used up."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[1]
        for weight in group["params"]:
            if weight.grad is not None:
                state = self.state[weight]
                if not state:  # AdamW looks for a step when it is restored
                    state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(weight))
                state["step"] += 1
                mean = state["momentum"]
                mean.lerp_(weight.grad, 1 - group["momentum"])
                step = orthogonalize(weight.grad.lerp(mean, group["momentum"]).flatten(1))
                scale = max(1, step.shape[0] / step.shape[1]) ** 0.5
                weight.sub_(step.reshape(weight.shape), alpha=group["lr"] * scale)
                weight.grad = None  # nothing of it is left for AdamW
        super().step()
        return loss


def split_parameters(network):
    """
    Divide the parameters of a network into lists of convolutions and of others.

    The former are the weights of inner convolutions with several channels on both sides: the first and the
    last layers see and say physical numbers, whose scales matter.
    """
    convolutions, others = [], []
    for name, weight in network.named_parameters():
        inner = weight.ndim == 4 and min(weight.shape[:2]) > 1 and "stem" not in name and "head" not in name
        if weight.requires_grad:
            (convolutions if inner else others).append(weight)
    return convolutions, others

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The loss of the RAUNet.
"""

import torch
from torch import Tensor

from astro_ddpm.diffusion import multiscale_square

__all__ = ["WIDTH_SHARE", "regression_losses"]

WIDTH_SHARE = 0.1  # of the loss of the width in the whole
LIMIT = 20.0  # of an error in units of its width, for what an example may add to the loss of the mean


def regression_losses(
    error: Tensor,
    variance: Tensor,
    use: Tensor | None = None,
    weighting: float = 0.5,
    scales: tuple[int, ...] = (1, 4, 16),
) -> tuple[Tensor, Tensor]:
    r"""
    Losses of mean and width, which least squares and a Gaussian likelihood make independent of each other.

    .. math:: L_\mathrm{mean} = \Big\langle \frac{(r - m)^2}{v^w} \Big\rangle, \qquad
              L_\mathrm{width} = \Big\langle \ln v + \frac{(r - m)^2}{v} \Big\rangle

    at several scales the first, see `~astro_ddpm.diffusion.multiscale_square`. The weight has no
    gradient, nor has :math:`m` in the second.

    ``error`` is the target less the mean, ``variance`` that of the target, of the scene and of its own noise,
    and ``use`` is 1 where the target can teach, 0 elsewhere, all of shape (batch, 1, ny, nx). The
    ``weighting`` :math:`w` is 0 for plain least squares, 1 for a Gaussian likelihood.
    """
    use = torch.ones_like(error) if use is None else use
    weight = variance.detach().pow(-weighting / 2) * use / use.mean().sqrt()
    width_loss = use * (variance.log() + error.detach().square() / variance)
    return multiscale_square(weight * error, scales, LIMIT), width_loss.mean() / use.mean()

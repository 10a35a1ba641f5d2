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

    Parameters
    ----------
    error : Tensor, shape (batch, 1, ny, nx)
        The target less the mean, :math:`r - m`.

    variance : Tensor, shape (batch, 1, ny, nx)
        The variance :math:`v` of the target, of the scene and of its own noise.

    use : Tensor, shape (batch, 1, ny, nx), optional
        1 where the target can teach, 0 elsewhere; by default everywhere.

    weighting : float, optional
        The weighting :math:`w`, 0 for plain least squares, 1 for a Gaussian likelihood.

    scales : sequence of int, optional
        As for `~astro_ddpm.diffusion.multiscale_square`.

    Returns
    -------
    mean_loss, width_loss : Tensor, shape ()
        The losses.
    """
    use = torch.ones_like(error) if use is None else use
    weight = variance.detach().pow(-weighting / 2) * use / use.mean().sqrt()
    width_loss = use * (variance.log() + error.detach().square() / variance)
    return multiscale_square(weight * error, scales, LIMIT), width_loss.mean() / use.mean()

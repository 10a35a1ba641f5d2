# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A generator that draws in one evaluation, the baseline that a diffusion model has to beat.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["OneStepGenerator", "fair_crps"]


def fair_crps(samples: Tensor, target: Tensor) -> Tensor:
    r"""
    Fair continuous ranked probability score of an ensemble, in every pixel.

    .. math:: \frac1m \sum_i |x_i - y| - \frac{1}{2 m (m - 1)} \sum_{i \ne j} |x_i - x_j|

    Its expectation does not depend on the number of members m, and is least when they are drawn from the
    distribution of y (Ferro 2014, *Fair scores for ensemble forecasts*, section 3).

    Parameters
    ----------
    samples : Tensor, shape (m, ...)
        The members, at least 2.

    target : Tensor, shape (...)
        What happened.

    Returns
    -------
    crps : Tensor, shape (...)
        The score; it can be negative.
    """
    m = len(samples)
    skill = (samples - target).abs().mean(dim=0)
    # sum over pairs: the k-th smallest exceeds k others and is exceeded by m - 1 - k
    rank = torch.arange(m, dtype=samples.dtype, device=samples.device)
    weight = (2 * rank + 1 - m) / (m * (m - 1))
    return skill - torch.tensordot(weight, samples.sort(dim=0).values, dims=1)


class OneStepGenerator(nn.Module):
    r"""
    A network that turns white noise into a draw in one evaluation.

    .. math:: x = \mu + s \, [\epsilon + F(\epsilon)]

    With a network that returns zero the draws are those of independent Gaussian pixels of mean
    :math:`\mu` and width :math:`s`.

    Parameters
    ----------
    network : `torch.nn.Module`
        Called as ``network(noise, noise_level, *condition)`` with the level 0, returns the shape of the
        noise.
    """

    def __init__(self, network: Callable[..., Tensor]):
        super().__init__()
        self.network = network

    def forward(self, noise: Tensor, mean: Tensor, std: Tensor, *condition: Tensor) -> Tensor:
        """
        Return draws, as many as planes of white noise of unit variance, shape (batch, channels, ny, nx).

        ``mean`` and ``std`` are those of the data, broadcastable to ``noise``; the network gets
        ``condition``.
        """
        level = noise.new_zeros(len(noise))
        return mean + std * (noise + self.network(noise, level, *condition))

    def loss(
        self,
        x: Tensor,
        noise: Tensor,
        mean: Tensor,
        std: Tensor,
        *condition: Tensor,
        scales: tuple[int, ...] = (1, 4, 16),
    ) -> Tensor:
        """
        Fair CRPS of the pixels and of block means, by which draws learn how pixels go together.

        Parameters
        ----------
        x : Tensor, shape (batch, channels, ny, nx)
            The data.

        noise : Tensor, shape (m, batch, channels, ny, nx)
            White noise for m draws of each image.

        mean, std, *condition : Tensor
            As for `forward`.

        scales : sequence of int, optional
            The sizes of the blocks in pixels; each is weighted by its size, so that white noise
            contributes equally, and those larger than the image are left out.
        """
        draws = torch.stack([self(plane, mean, std, *condition) for plane in noise])
        losses = []
        for scale in (s for s in scales if s <= min(x.shape[-2:])):
            blocks = F.avg_pool2d(draws.flatten(0, 1), scale).unflatten(0, draws.shape[:2])
            losses.append(scale * fair_crps(blocks, F.avg_pool2d(x, scale)).mean())
        return torch.stack(losses).mean()

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Embedding of scalars, such as a noise level, as vectors that a network can use.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["SinusoidalEmbedding"]


class SinusoidalEmbedding(nn.Module):
    r"""
    Sines and cosines of a scalar at geometrically spaced frequencies.

    .. math:: e(u) = \sqrt{2} \, [\cos(2 \pi f_k u), \sin(2 \pi f_k u)]

    .. math:: f_k = f_\mathrm{min} (f_\mathrm{max} / f_\mathrm{min})^{k / (K - 1)}

    (Vaswani et al. 2017, *Attention Is All You Need*, section 3.5; the frequencies are chosen for
    scalars of order one, such as a quarter of the logarithm of a noise level.)

    Parameters
    ----------
    channels : int
        The length of the vector, an even number of at least 4.

    min_frequency, max_frequency : float, optional
        The range of frequencies, in cycles per unit.

    Raises
    ------
    ValueError
        If ``channels`` is odd or less than 4.
    """

    frequencies: Tensor

    def __init__(self, channels: int, min_frequency: float = 0.125, max_frequency: float = 8.0):
        super().__init__()
        if channels < 4 or channels % 2:
            msg = f"channels must be an even number of at least 4, not {channels}"
            raise ValueError(msg)
        exponents = torch.linspace(math.log(min_frequency), math.log(max_frequency), channels // 2)
        self.register_buffer("frequencies", exponents.exp(), persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        """Return the embedding of ``u``, shape (batch,), as a tensor of shape (batch, channels)."""
        phase = 2 * math.pi * u[:, None] * self.frequencies
        return math.sqrt(2) * torch.cat([phase.cos(), phase.sin()], dim=1)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Checks of a trained network, before it is built upon.
"""

import math
from copy import deepcopy

import numpy as np
import torch
from torch.utils.data import DataLoader

from .data import PairDataset

__all__ = ["residual_gap"]

# brightness in units of the noise of the input
BINS = {"sky": (-math.inf, 1), "lsb": (1, 5), "mid": (5, 30), "hi": (30, math.inf)}


def residual_gap(raunet, train, validation, *, batch_size=16):
    r"""
    How much larger the errors of a RAUNet are on validation pairs than on training pairs.

    .. math:: g = \frac{\langle (r - m)^2 \rangle_\mathrm{validation}}
                       {\langle (r - m)^2 \rangle_\mathrm{training}}

    with the whitened residual :math:`r` and its estimate :math:`m`, in bins of the brightness that the
    network estimates. A diffusion model learns the spread that is left round its guide. If that knows the
    training pairs by heart, their spread is less than that of other images, and the samples become too
    narrow, by a factor of up to :math:`\sqrt g`. Where a ratio exceeds about 1.05 train the network less,
    with more dropout, or on more pairs.

    Parameters
    ----------
    raunet : `~astro_ddpm.nn.RAUNet`
        The trained network. It is left as it is.

    train, validation : mapping of str to ndarray
        What `prepare_pairs` wrote. Both errors contain the noise of the targets, which should be equally
        deep in both.

    batch_size : int, optional
        The number of images at a time.

    Returns
    -------
    gap : dict of str to float
        The ratio :math:`g` for the bins ``sky`` (below 1 in units of the noise), ``lsb`` (1 to 5), ``mid``
        (5 to 30) and ``hi`` (above 30); NaN where one of the two has no pixel.
    """
    network = deepcopy(raunet).eval()
    square, train_square = (_mean_squares(network, arrays, batch_size) for arrays in (validation, train))
    with np.errstate(divide="ignore", invalid="ignore"):
        return dict(zip(BINS, (square / train_square).tolist(), strict=True))


@torch.no_grad()
def _mean_squares(network, arrays, batch_size):
    """Return the mean square error of the residual in each bin, shape (n_bins,)."""
    device, edges = next(network.parameters()).device, [low for low, _ in BINS.values()][1:]
    sums = np.zeros((2, len(BINS)))
    data = PairDataset(arrays, augment=False)
    for batch in DataLoader(data, batch_size, generator=torch.Generator()):
        mean = network.estimate(batch["z"].to(device), batch["valid"].to(device))[0].cpu()
        index = np.digitize((batch["z"] + mean).flatten(), edges)
        square = (batch["residual"] - mean).double().square().flatten()
        sums += [np.bincount(index, weights, len(BINS)) for weights in (square, np.ones(len(index)))]
    with np.errstate(invalid="ignore"):
        return sums[0] / sums[1]

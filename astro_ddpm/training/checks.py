# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Checks of a trained network, before it is built upon.
"""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader

from astro_ddpm.evaluation.calibration import BINS
from astro_ddpm.utils import warn_user

from .data import PairDataset
from .ema import average_snapshots
from .modules import restore_module

__all__ = ["choose_average", "residual_gap"]


def residual_gap(raunet, train, validation, *, batch_size=16):
    r"""
    How much larger the errors of a RAUNet are on validation pairs than on training pairs.

    .. math:: g = \frac{\langle (r - m)^2 \rangle_\mathrm{validation}}
                       {\langle (r - m)^2 \rangle_\mathrm{training}}

    with the whitened residual :math:`r` and its estimate :math:`m`, in bins of the brightness that the
    network estimates. The samples of a diffusion model whose guide knows the training pairs by heart are too
    narrow, by a factor of up to :math:`\sqrt g`. Where a ratio exceeds about 1.05 train the network less,
    with more dropout, or on more pairs.

    Parameters
    ----------
    raunet : `~astro_ddpm.nn.RAUNet`
        The trained network. It is left as it is.

    train, validation : mapping of str to ndarray
        What `prepare_pairs` wrote, with targets that are equally deep in both.

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


def choose_average(model, folder, validation, widths=(0.05, 0.075, 0.1, 0.15, 0.2), *, batch_size=16):
    """
    Choose the width of the average of the weights after training: that with the least loss.

    Parameters
    ----------
    model : `~astro_ddpm.zoo.Model`
        What the training saved. It is left as it is.

    folder : path-like
        The folder ``ema`` of the run, with the snapshots of `EMASnapshots`.

    validation : mapping of str to ndarray
        What `prepare_pairs` wrote. The loss is that of training, without augmentation and dropout.

    widths : sequence of float, optional
        The widths to try, for `average_snapshots`. Those that cannot be made of the snapshots are left out
        with a warning; ValueError if none can.

    batch_size : int, optional
        The number of images at a time.

    Returns
    -------
    best : `~astro_ddpm.zoo.Model`
        The model with the weights of the chosen average, whose width is in ``training["ema_width"]``.

    losses : dict of float to float
        The loss of each width.
    """
    module, losses = restore_module(model).eval(), {}
    for width in widths:
        try:
            weights = average_snapshots(folder, width)
        except ValueError as error:
            reason = error
            warn_user(f"width {width:g} is left out: {error}")
            continue
        module.network.load_state_dict(weights)
        losses[width] = _validation_loss(module, validation, batch_size)
    if not losses:
        raise reason
    best = min(losses, key=losses.get)
    module.network.load_state_dict(average_snapshots(folder, best))
    training = model.training | {"ema_width": best}
    return replace(model, **module.parts(), training=training, sha256=""), losses


@torch.no_grad()
def _validation_loss(module, arrays, batch_size):
    """Return the mean loss of pairs as they are, with noise that is the same at every call."""
    total, data = 0.0, PairDataset(arrays, augment=False)
    for index, batch in enumerate(DataLoader(data, batch_size, generator=torch.Generator())):
        total += len(batch["z"]) * float(module.loss(batch, torch.Generator().manual_seed(index)))
    return total / len(data)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Are samples of several features honest together: scores of an ensemble of vectors against the truth.

The last axis holds the features, such as flux, radius and ellipticity of a source. Vectors with a feature
that is masked or not finite, in the truth or in any sample, are left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .calibration import LEVELS, _common_unit, _floats, _levels, _ranks, _unpack, rank_test

if TYPE_CHECKING:
    from astropy.units import Quantity

__all__ = ["energy_score", "tarp"]


def energy_score(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
) -> np.ndarray | Quantity:
    r"""
    Fair energy score of every vector.

    It is the `crps` of vectors, the less the better. It notices wrong correlations between the features,
    which no score of one feature does, and is dominated by the features with the largest spread: bring
    them to one scale first.

    Parameters
    ----------
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, ..., n_features)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (..., n_features)
        What they are compared with.

    mask : array_like of bool, optional
        Features to leave out, broadcastable to ``truth``; `True` means left out, with the whole vector.

    Returns
    -------
    score : `~numpy.ndarray` or `~astropy.units.Quantity`, shape (...)
        The score in the unit of ``truth``; NaN for vectors that are left out. A single one may be
        negative, the mean of many is not, but for noise.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth`` has a unit.

    ValueError
        If shapes do not match, there are fewer than two samples, or ``truth`` has no axis of features.

    Notes
    -----
    With samples :math:`x_i` and the truth :math:`y`

    .. math::

        \mathrm{ES} = \frac{1}{m} \sum_{i=1}^m \lVert x_i - y \rVert
            - \frac{1}{2 m (m - 1)} \sum_{i,j=1}^m \lVert x_i - x_j \rVert

    (Gneiting & Raftery 2007, *Strictly Proper Scoring Rules, Prediction, and Estimation*, equation 22, with
    the divisor that makes it fair to ensembles of any size.)

    Examples
    --------
    >>> from astro_ddpm.evaluation import energy_score
    >>> print(energy_score([[[3.0, 4.0]], [[0.0, 0.0]]], [[0.0, 0.0]]))
    [0.]
    """
    samples, truth, unit = _unpack_vectors(samples, truth, mask)
    m = len(samples)
    to_truth = np.linalg.norm(samples - truth, axis=-1).mean(axis=0)
    score = to_truth - distance_sums(samples).sum(axis=0) / (2 * m * (m - 1))
    return score if unit is None else score << unit


def tarp(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    levels: float | tuple[float, ...] = LEVELS,
    *,
    references: np.ndarray | Quantity | None = None,
    mask: np.ndarray | None = None,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, float]:
    r"""
    Expected coverage by tests of accuracy with random points (TARP).

    A ball round a random point that holds, say, 68 % of the samples should hold the truth in 68 % of the
    cases.

    It is meant for a few features that science is done with, such as the logarithms of fluxes, radii and
    shapes. **Pixels of whole images will not do**: distances between points of thousands of dimensions
    measure the power of the noise and little else, and a galaxy with wrong flux passes.

    Parameters
    ----------
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, n, n_features)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (n, n_features)
        What they are compared with.

    levels : float or sequence of float, optional
        The fractions of the samples within the balls, between 0 and 1.

    references : array_like or `~astropy.units.Quantity`, shape (n, n_features), optional
        The points, which must not have been chosen by the truth. By default they are drawn from a Gaussian
        with mean and standard deviation of each feature in all samples and truths.

    mask : array_like of bool, optional
        Features to leave out, broadcastable to ``truth``; `True` means left out, with the whole vector.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    fraction : `~numpy.ndarray`, shape of ``levels``
        The fraction of truths within the balls. Honest samples have that of ``levels``, within the band of
        `binomial_band`. NaN if no vector is left.

    p_value : float
        The probability of deviations as large if the samples are honest **and the vectors independent**.
        NaN if no vector is left.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth``, or of ``references`` and ``truth``, has a unit.

    ValueError
        If shapes do not match, there are fewer than two samples, or a level is not between 0 and 1.

    Notes
    -----
    Lemos et al. 2023, *Sampling-Based Accuracy Testing of Posterior Estimators for General Inference*,
    algorithm 2, with distances in units of the standard deviation of each feature in all samples and
    truths. The rank :math:`R` of the distance of the truth among those of the :math:`m` samples takes the
    values 0 to :math:`m` with equal probability if the samples are honest. A truth lies within the ball of
    the level :math:`c` if :math:`R + U < (m + 1) c` with :math:`U` uniform in [0, 1), which has the
    probability :math:`c` for any number of samples.

    Seen from a point far from the samples a ball is a half-space, and samples that are too narrow make the
    curve of ``fraction`` against ``levels`` an S that crosses the diagonal. A Kolmogorov-Smirnov test, by the
    largest distance from the diagonal, hardly sees it. ``p_value`` is therefore that of the first four
    components of the chi-square of the ranks: slope, U-shape and the next two (Jolliffe & Primo 2008,
    *Evaluating Rank Histograms Using Decompositions of the Chi-Square Test Statistic*).

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import tarp
    >>> rng = np.random.default_rng(1)
    >>> samples, truth = rng.standard_normal((16, 1000, 3)), rng.standard_normal((1000, 3))
    >>> fraction, p_value = tarp(samples, truth)
    >>> print(fraction.round(2), p_value > 0.01)
    [0.7  0.95] True
    >>> fraction, p_value = tarp(0.8 * samples, truth)
    >>> print(p_value < 0.01)
    True
    """
    fractions = _levels(levels)
    rng = np.random.default_rng(seed)
    if references is not None:
        references = _floats("references", references, _common_unit(references=references, truth=truth))
    samples, truth, _ = _unpack_vectors(samples, truth, mask)
    ranks = tarp_ranks(samples, truth, references, seed=rng)
    if not ranks.size:
        return np.full(fractions.shape, np.nan), math.nan
    below = (ranks + rng.random(ranks.shape)) / (len(samples) + 1) < fractions[..., None]
    return below.mean(axis=-1), float(rank_test(ranks, len(samples))[1])


def tarp_ranks(samples, truth, references=None, *, seed=0):
    """
    Rank the distance of the truth from a point among the distances of the samples.

    Parameters
    ----------
    samples : `~numpy.ndarray`, shape (n_samples, n, n_features)
        The samples, NaN where invalid.

    truth : `~numpy.ndarray`, shape (n, n_features)
        What they are compared with, NaN where invalid.

    references : `~numpy.ndarray`, shape (n, n_features), optional
        The points, as for `tarp`.

    seed : int or `~numpy.random.Generator`, optional
        Selects the points and the random ranks of ties.

    Returns
    -------
    ranks : `~numpy.ndarray` of int, shape (n_valid,)
        How many samples are nearer to the point than the truth.

    Raises
    ------
    ValueError
        If ``truth`` or ``references`` has another shape.
    """
    if truth.ndim != 2:
        msg = f"truth must have the shape (n, n_features), not {truth.shape}"
        raise ValueError(msg)
    if references is not None and references.shape != truth.shape:
        msg = f"references must have the shape {truth.shape} of truth, not {references.shape}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    valid = np.isfinite(truth).all(axis=-1)
    pool = np.concatenate([truth[None, valid], samples[:, valid]])
    if not pool.size:
        return np.zeros(0, int)
    center, scale = pool.mean(axis=(0, 1)), pool.std(axis=(0, 1))
    scale[scale == 0] = 1
    drawn = center + scale * rng.standard_normal(pool.shape[1:])
    points = drawn if references is None else references[valid]
    distance = np.linalg.norm((pool - points) / scale, axis=-1)
    return _ranks(distance[1:], distance[0], None, rng)[0]


def distance_sums(vectors):
    """
    Add up the distances from each vector to all others.

    Parameters
    ----------
    vectors : `~numpy.ndarray`, shape (m, ..., n_features)
        The vectors.

    Returns
    -------
    sums : `~numpy.ndarray`, shape (m, ...)
        The sums over the first axis.
    """
    return np.stack([np.linalg.norm(vectors - one, axis=-1).sum(axis=0) for one in vectors])


def _unpack_vectors(samples, truth, mask):
    """Return samples and truth as floats, NaN in vectors with an invalid feature, and their unit."""
    samples, truth, unit = _unpack(samples, truth, mask)
    if not truth.ndim or not truth.shape[-1]:
        msg = f"truth must have features along its last axis, not the shape {truth.shape}"
        raise ValueError(msg)
    valid = np.isfinite(truth).all(axis=-1, keepdims=True)
    return np.where(valid, samples, np.nan), np.where(valid, truth, np.nan), unit

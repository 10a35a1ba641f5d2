# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Scores of samples against the truth.

Samples of shape ``(n_samples, ...)`` and a truth of shape ``(...)`` are arrays or Quantities. For a
calibrated posterior the truth looks like one more sample. Elements that are masked or not finite, in the
truth or in any sample, are left out.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from astro_ddpm.utils import require

if TYPE_CHECKING:
    from astropy.table import QTable
    from astropy.units import Quantity

__all__ = ["calibration_table", "coverage", "crps", "energy_score", "rank_histogram", "spread_skill"]

LEVELS = (0.68, 0.95)
# of brightness, in units of the noise of the sky
BINS = {"sky": (-math.inf, 1.0), "lsb": (1.0, 5.0), "mid": (5.0, 30.0), "hi": (30.0, math.inf)}


def crps(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
) -> np.ndarray | Quantity:
    r"""
    Fair continuous ranked probability score of every element.

    The score is the error of a probabilistic estimate; less is better. Its expectation does not depend on the
    number of samples, and is least for samples of the true distribution.

    Parameters
    ----------
    samples, truth : array_like or `~astropy.units.Quantity`, shapes (n_samples, ...) and (...)
        At least two samples, and what they are compared with.

    mask : array_like of bool, optional
        Elements to leave out, broadcastable to ``truth``.

    Returns
    -------
    score : `~numpy.ndarray` or `~astropy.units.Quantity`, shape (...)
        The score in the unit of ``truth``; NaN for elements that are left out. A single score may be
        negative; the mean of many is positive, apart from noise.

    Raises
    ------
    TypeError, ValueError
        If only one of ``samples`` and ``truth`` has a unit, or if shapes do not match or there are fewer than
        two samples.

    ImportError
        If scoringrules is not installed.

    Notes
    -----
    With samples :math:`x_i` and the truth :math:`y`

    .. math::

        \mathrm{CRPS} = \frac{1}{m} \sum_{i=1}^m |x_i - y| - \frac{1}{2 m (m - 1)} \sum_{i,j=1}^m |x_i - x_j|

    (Ferro 2014, *Fair scores for ensemble forecasts*), computed by scoringrules. The usual estimator divides
    by :math:`2 m^2` and favours samples that are too narrow.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import crps
    >>> print(crps([[0.0], [1.0], [5.0]], [2.0]))
    [0.33333333]
    """
    samples, truth, unit = _unpack(samples, truth, mask)
    options = {"m_axis": 0, "estimator": "pwm", "backend": "numpy"}  # that of the fair score, by sorting
    score = _scoringrules().crps_ensemble(np.zeros_like(truth), samples - truth, **options)
    return score if unit is None else score << unit


def energy_score(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
) -> np.ndarray | Quantity:
    r"""
    Fair energy score of every vector.

    The energy score is the `crps` of vectors; less is better. It notices wrong correlations between features.
    Those with the largest spread dominate it, so bring features to one scale first.

    Parameters
    ----------
    samples, truth : array_like or `~astropy.units.Quantity`
        At least two samples, shape ``(n_samples, ..., n_features)``, and what they are compared with.

    mask : array_like of bool, optional
        As for `crps`, with the same errors; it leaves out the whole vector.

    Returns
    -------
    score : `~numpy.ndarray` or `~astropy.units.Quantity`, shape (...)
        The score in the unit of ``truth``; NaN for vectors that are left out.

    Notes
    -----
    With samples :math:`x_i` and the truth :math:`y`

    .. math::

        \mathrm{ES} = \frac{1}{m} \sum_{i=1}^m \lVert x_i - y \rVert
            - \frac{1}{2 m (m - 1)} \sum_{i,j=1}^m \lVert x_i - x_j \rVert

    (Gneiting & Raftery 2007, *Strictly Proper Scoring Rules, Prediction, and Estimation*, equation 22, with
    the divisor that makes it fair to ensembles of any size).

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


def coverage(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    levels: float | tuple[float, ...] = LEVELS,
    *,
    mask: np.ndarray | None = None,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Fraction of the truth within the central intervals of the samples.

    Parameters
    ----------
    samples, truth, mask : array_like or `~astropy.units.Quantity`
        As for `crps`, with the same errors.

    levels : float or sequence of float, optional
        The probabilities of the intervals, between 0 and 1.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    fraction, error : `~numpy.ndarray`, shape of ``levels``
        The fraction for each level, and its binomial standard error, which takes elements as independent
        (neighbouring pixels are not). Both are NaN if no element is left.

    Notes
    -----
    If the truth is distributed as the samples, its rank :math:`R` among :math:`m` of them takes the values 0
    to :math:`m` with equal probability. Then :math:`R + U`, with :math:`U` uniform in [0, 1), is uniform in
    :math:`[0, m + 1)`. An element is covered at the level :math:`c` if

    .. math:: (m + 1) \frac{1 - c}{2} \le R + U < (m + 1) \frac{1 + c}{2} ,

    which has the probability :math:`c` for any number of samples. Intervals between quantiles of few samples
    are too narrow. Ties have random ranks.
    """
    levels = _levels(levels)
    rng = np.random.default_rng(seed)
    ranks, m = _ranks(samples, truth, mask, rng)
    return _covered((ranks + rng.random(ranks.shape)) / (m + 1), levels)


def rank_histogram(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, float]:
    """
    Histogram of the ranks of the truth among the samples.

    The histogram of calibrated samples is flat. It is U-shaped if they are too narrow, has a hump if they are
    too wide, and a slope if they are biased (Hamill 2001, *Interpretation of Rank Histograms for Verifying
    Ensemble Forecasts*).

    Parameters
    ----------
    samples, truth, mask : array_like or `~astropy.units.Quantity`
        As for `crps`, with the same errors.

    seed : int or `~numpy.random.Generator`, optional
        Selects the ranks of ties.

    Returns
    -------
    counts : `~numpy.ndarray` of int, shape (n_samples + 1,)
        The number of elements with 0, 1, ..., n_samples samples below the truth.

    p_value : float
        The probability of a chi-square as large as that of ``counts`` if every rank is equally probable **and
        the elements are independent**, which neighbouring pixels are not. NaN if no element is left.
    """
    from scipy.stats import chisquare

    ranks, m = _ranks(samples, truth, mask, np.random.default_rng(seed))
    counts = np.bincount(ranks, minlength=m + 1)
    return counts, float(chisquare(counts).pvalue) if ranks.size else math.nan


def spread_skill(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
) -> float:
    r"""
    Ratio of the spread of the samples to the error of their mean.

    Parameters
    ----------
    samples, truth, mask : array_like or `~astropy.units.Quantity`
        As for `crps`, with the same errors.

    Returns
    -------
    ratio : float
        1 for calibrated samples, less if they are too narrow. NaN if no element is left.

    Notes
    -----
    With the variance :math:`s^2` (divisor :math:`m - 1`) and the mean :math:`\bar x` of :math:`m` samples

    .. math:: \sqrt{\frac{m + 1}{m} \, \frac{\langle s^2 \rangle}{\langle (\bar x - y)^2 \rangle}} .

    The first factor corrects for the error of a mean of few samples (Fortin et al. 2014, *Why Should Ensemble
    Spread Match the RMSE of the Ensemble Mean?*, equation 15).
    """
    samples, truth, _ = _unpack(samples, truth, mask)
    valid = np.isfinite(truth)
    samples, truth = samples[:, valid], truth[valid]
    inflation = 1 + 1 / len(samples)
    return _ratio(inflation * samples.var(axis=0, ddof=1), samples.mean(axis=0) - truth)


def calibration_table(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    level: np.ndarray | Quantity,
    edges: tuple[float, ...] | Quantity,
    *,
    std: np.ndarray | Quantity | None = None,
    levels: tuple[float, ...] = LEVELS,
    mask: np.ndarray | None = None,
    n_ranks: int = 9,
    seed: int | np.random.Generator = 0,
) -> QTable:
    r"""
    All scores of samples, or of Gaussian errors, in bins of brightness.

    Parameters
    ----------
    samples, truth, mask : array_like or `~astropy.units.Quantity`
        As for `crps`. With ``std`` the samples are the mean of Gaussian distributions instead, of the shape
        of ``truth``.

    level : array_like or `~astropy.units.Quantity`, broadcastable to ``truth``
        What the elements are binned by, such as the brightness by the mean of the samples: in bins of the
        *truth* the errors even of calibrated samples are one-sided.

    edges : sequence of float or `~astropy.units.Quantity`, shape (n_bins + 1,)
        The rising edges of the bins, which may be infinite. A bin contains its lower edge.

    std : array_like or `~astropy.units.Quantity`, shape (...), optional
        The standard deviation of the Gaussian distributions.

    levels, seed : sequence of float, int or `~numpy.random.Generator`, optional
        As for `coverage`.

    n_ranks : int, optional
        The number of equal bins of probability that take the place of ranks if ``std`` is given.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per bin, with its edges ``low`` and ``high``, the number ``n`` of elements, the mean ``crps``,
        the `coverage` of each level as ``coverage_68``, ``coverage_68_err`` and so on, ``spread_skill``, and
        the counts of `rank_histogram` as ``ranks``. The scores of empty bins are NaN. The metadata hold
        ``n_samples`` (0 with ``std``) and ``levels``.

    Raises
    ------
    TypeError, ValueError
        As for `coverage`, or if only one of ``level`` and ``edges`` has a unit, or ``edges`` do not rise.

    Notes
    -----
    The scores of Gaussian distributions have closed forms. The rank is :math:`\Phi((y - \mu) / s)`, and the
    CRPS is that of Gneiting & Raftery (2007, equation 21), by scoringrules.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import calibration_table
    >>> rng = np.random.default_rng(1)
    >>> center = rng.uniform(0, 30, 20000)
    >>> samples, truth = center + rng.standard_normal((8, 20000)), center + rng.standard_normal(20000)
    >>> table = calibration_table(samples, truth, level=center, edges=[0, 5, np.inf])
    >>> print(table["n"].tolist(), table["coverage_68"].round(2).tolist())
    [3395, 16605] [0.67, 0.68]
    """
    from astropy.table import QTable

    levels = tuple(np.atleast_1d(_levels(levels)).tolist())
    if std is not None:
        unit = _common_unit(samples=samples, truth=truth)
        planes = np.broadcast_arrays(_floats("samples", samples, unit), _floats("std", std, unit))
        samples = np.stack(planes) if unit is None else np.stack(planes) << unit
    samples, truth, unit = _unpack(samples, truth, mask)
    level_unit = _common_unit(level=level, edges=edges)
    level, edges = _floats("level", level, level_unit), _floats("edges", edges, level_unit)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(edges[1:] > edges[:-1]):
        msg = f"edges must be two or more rising numbers, not {edges.tolist()}"
        raise ValueError(msg)
    level = _broadcast("level", level, truth.shape)
    options = {"is_gaussian": std is not None, "levels": levels, "n_ranks": n_ranks, "seed": seed}
    table = QTable({"low": edges[:-1], "high": edges[1:]})
    table.meta |= {"n_samples": 0 if std is not None else len(samples), "levels": levels}
    rows = binned_scores(samples, truth, level, edges, **options)
    for key in rows[0]:
        column = np.array([row[key] for row in rows])
        if key.startswith("coverage"):
            names = [key.replace("coverage", f"coverage_{100 * probability:g}") for probability in levels]
            table.add_columns(column.T.copy(), names=names)
        else:
            table[key] = column
    for key, its_unit in {"low": level_unit, "high": level_unit, "crps": unit}.items():
        if its_unit is not None:
            table[key] = table[key] << its_unit
    return table


def binned_scores(samples, truth, level, edges, *, is_gaussian=False, levels=LEVELS, n_ranks=9, seed=0):
    """
    Compute all scores in bins of ``level``; return a dict for each bin.

    The keys are the columns of `calibration_table`, with arrays for all levels as ``coverage`` and
    ``coverage_err``. ``truth`` is NaN for elements to leave out. If ``is_gaussian``, ``samples``, shape (2,
    ...), are mean and standard deviation of Gaussian distributions.
    """
    rng, rows = np.random.default_rng(seed), []
    for low, high in pairwise(edges):
        pick = (level >= low) & (level < high) & np.isfinite(truth)
        if is_gaussian:
            rows.append(_gaussian_scores(*samples[:, pick], truth[pick], levels, n_ranks))
        else:
            rows.append(_ensemble_scores(samples[:, pick], truth[pick], levels, rng))
    return rows


def _ensemble_scores(samples, truth, levels, rng):
    """Return all scores of samples, shape (n_samples, n)."""
    covered, (counts, _) = (
        coverage(samples, truth, levels, seed=rng),
        rank_histogram(samples, truth, seed=rng),
    )
    scores = {"n": int(counts.sum()), "crps": _mean(crps(samples, truth))}
    scores |= zip(("coverage", "coverage_err"), covered, strict=True)
    return scores | {"spread_skill": spread_skill(samples, truth), "ranks": counts}


def _gaussian_scores(mean, std, truth, levels, n_ranks):
    """Return the same scores of Gaussian distributions, shape (n,)."""
    from scipy.special import ndtr

    probability = ndtr((truth - mean) / std)
    probability = probability[np.isfinite(probability)]
    ranks = np.minimum(probability * n_ranks, n_ranks - 1).astype(int)
    covered = _covered(probability, np.asarray(levels))
    scores = {"n": probability.size, "crps": _mean(_scoringrules().crps_normal(truth, mean, std))}
    scores |= zip(("coverage", "coverage_err"), covered, strict=True)
    ratio = _ratio(std**2, mean - truth)
    return scores | {"spread_skill": ratio, "ranks": np.bincount(ranks, minlength=n_ranks)}


def distance_sums(vectors):
    """Return the summed distances from each vector to all others: (m, ..., n_features) becomes (m, ...)."""
    return np.stack([np.linalg.norm(vectors - one, axis=-1).sum(axis=0) for one in vectors])


def _scoringrules():
    try:
        import scoringrules
    except ModuleNotFoundError as error:
        msg = "the CRPS needs scoringrules: pip install 'astro_ddpm[evaluate]' installs it"
        raise ModuleNotFoundError(msg, name=error.name) from error
    return scoringrules


def _levels(levels):
    """Return probabilities as an array."""
    levels = np.asarray(levels, float)
    require(np.all((levels > 0) & (levels < 1)), f"levels must lie between 0 and 1, not {levels.tolist()}")
    return levels


def _unpack(samples, truth, mask=None):
    """Return samples and truth as floats, NaN where either is invalid, and their unit."""
    unit = _common_unit(samples=samples, truth=truth)
    samples, truth = _floats("samples", samples, unit), _floats("truth", truth, unit)
    if samples.ndim == 0 or samples.shape[1:] != truth.shape:
        msg = f"samples must have the shape (n_samples, *{truth.shape}) of truth, not {samples.shape}"
        raise ValueError(msg)
    require(len(samples) >= 2, f"samples must hold at least 2 samples, not {len(samples)}")
    invalid = ~(np.isfinite(truth) & np.isfinite(samples).all(axis=0))
    if mask is not None:
        invalid = invalid | _broadcast("mask", np.asarray(mask, bool), truth.shape)
    return np.where(invalid, np.nan, samples), np.where(invalid, np.nan, truth), unit


def _unpack_vectors(samples, truth, mask):
    """Return samples and truth as floats, NaN in vectors with an invalid feature, and their unit."""
    samples, truth, unit = _unpack(samples, truth, mask)
    if not truth.ndim or not truth.shape[-1]:
        msg = f"truth must have features along its last axis, not the shape {truth.shape}"
        raise ValueError(msg)
    valid = np.isfinite(truth).all(axis=-1, keepdims=True)
    return np.where(valid, samples, np.nan), np.where(valid, truth, np.nan), unit


def _common_unit(**values):
    """Return the unit of the second of two values, None if neither has one."""
    (first, second), units = values, [getattr(value, "unit", None) for value in values.values()]
    if (units[0] is None) != (units[1] is None):
        msg = f"{first} and {second} must both have a unit, or neither, not {units[0]} and {units[1]}"
        raise TypeError(msg)
    return units[1]


def _floats(name, values, unit):
    """Return values in a unit as an array of float, NaN where they are masked."""
    if unit is not None and not hasattr(values, "to_value"):
        msg = f"{name} must be an array or a Quantity, not {type(values).__name__}"
        raise TypeError(msg)
    mask = getattr(values, "mask", False)
    values = getattr(values, "unmasked", values)
    values = np.asarray(np.ma.getdata(values if unit is None else values.to_value(unit)), float)
    return np.where(mask, np.nan, values)


def _broadcast(name, values, shape):
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        msg = f"{name} must be broadcastable to the shape {shape} of truth, not {values.shape}"
        raise ValueError(msg) from None


def _ranks(samples, truth, mask, rng):
    """Return the ranks of the valid elements of the truth, ties at random, and the number of samples."""
    samples, truth, _ = _unpack(samples, truth, mask)
    valid = np.isfinite(truth)
    samples, truth = samples[:, valid], truth[valid]
    below, ties = (samples < truth).sum(axis=0), (samples == truth).sum(axis=0)
    return below + rng.integers(ties + 1), len(samples)


def _covered(probability, levels):
    """Return the fraction of cumulative probabilities within central intervals, and its error."""
    if not probability.size:
        return np.full(levels.shape, np.nan), np.full(levels.shape, np.nan)
    low, high = (1 - levels[..., None]) / 2, (1 + levels[..., None]) / 2
    fraction = ((probability >= low) & (probability < high)).mean(axis=-1)
    return fraction, np.sqrt(fraction * (1 - fraction) / probability.size)


def _mean(values):
    return float(np.mean(values)) if values.size else math.nan


def _ratio(variance, error):
    """Return root mean variance over root mean square error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.float64(_mean(variance)) / _mean(error**2)))

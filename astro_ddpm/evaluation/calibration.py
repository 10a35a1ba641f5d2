# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Are samples and error bars honest: scores of an ensemble against the truth.

Samples of shape ``(n_samples, ...)`` and a truth of shape ``(...)`` are arrays or Quantities; element by
element, the truth should look like one more sample. Elements that are masked or not finite, in the truth or
in any sample, are left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.table import QTable
    from astropy.units import Quantity

__all__ = ["binomial_band", "calibration_table", "coverage", "crps", "rank_histogram", "spread_skill"]

LEVELS = (0.68, 0.95)


def crps(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
) -> np.ndarray | Quantity:
    r"""
    Fair continuous ranked probability score of every element.

    It is the error of a probabilistic estimate in the unit of the data, the less the better; of a single
    sure value it would be the absolute error. Its expectation does not depend on the number of samples,
    and is least for samples of the true distribution.

    Parameters
    ----------
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, ...)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (...)
        What they are compared with.

    mask : array_like of bool, optional
        Elements to leave out, broadcastable to ``truth``; `True` means left out.

    Returns
    -------
    score : `~numpy.ndarray` or `~astropy.units.Quantity`, shape (...)
        The score in the unit of ``truth``; NaN for elements that are left out. A single one may be
        negative, the mean of many is not, but for noise.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth`` has a unit.

    ValueError
        If shapes do not match or there are fewer than two samples.

    Notes
    -----
    With samples :math:`x_i` and the truth :math:`y`

    .. math::

        \mathrm{CRPS} = \frac{1}{m} \sum_{i=1}^m |x_i - y| - \frac{1}{2 m (m - 1)} \sum_{i,j=1}^m |x_i - x_j|

    (Ferro 2014, *Fair scores for ensemble forecasts*; the usual estimator divides by :math:`2 m^2` and
    prefers ensembles that are too narrow.) For sorted samples the difference of neighbours
    :math:`x_{(k + 1)} - x_{(k)}` is part of :math:`k (m - k)` of the distances, from which

    .. math:: \sum_{i<j} |x_i - x_j| = \sum_{k=1}^m (2 k - m - 1) \, x_{(k)}

    follows, at the cost of sorting.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import crps
    >>> print(crps([[0.0], [1.0], [5.0]], [2.0]))
    [0.33333333]
    """
    samples, truth, unit = _unpack(samples, truth, mask)
    m = len(samples)
    distance = np.sort(samples - truth, axis=0)
    weight = (2 * np.arange(1, m + 1) - m - 1) / (m * (m - 1))
    score = np.abs(distance).mean(axis=0) - np.tensordot(weight, distance, axes=1)
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
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, ...)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (...)
        What they are compared with.

    levels : float or sequence of float, optional
        The probabilities of the intervals, between 0 and 1.

    mask : array_like of bool, optional
        Elements to leave out, broadcastable to ``truth``; `True` means left out.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    fraction, error : `~numpy.ndarray`, shape of ``levels``
        The fraction for each level, to be compared with the level, and its binomial standard error. The
        error counts every element as independent. Neighbouring pixels are not, and the true error is then
        larger. Both are NaN if no element is left.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth`` has a unit.

    ValueError
        If shapes do not match, there are fewer than two samples, or a level is not between 0 and 1.

    Notes
    -----
    If the truth is distributed as the samples, its rank :math:`R` among :math:`m` of them takes the values
    0 to :math:`m` with equal probability, so that :math:`R + U` with :math:`U` uniform in [0, 1) is uniform
    in :math:`[0, m + 1)`. An element is covered at the level :math:`c` if

    .. math:: (m + 1) \frac{1 - c}{2} \le R + U < (m + 1) \frac{1 + c}{2}

    which has the probability :math:`c` for any number of samples, where intervals between quantiles of few
    samples are too narrow. Ties have random ranks.
    """
    levels = _levels(levels)
    rng = np.random.default_rng(seed)
    ranks, m = _ranks(samples, truth, mask, rng)
    return _covered((ranks + rng.random(ranks.shape)) / (m + 1), levels)


def binomial_band(
    level: float | np.ndarray, n: int | np.ndarray, *, probability: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """
    The band in which the fraction covered lies if the samples are honest.

    Parameters
    ----------
    level : float or array_like
        The probability of the interval, between 0 and 1.

    n : int or array_like of int
        How many **independent** elements the fraction is of. Neighbouring pixels are not independent, and
        their band is wider.

    probability : float, optional
        How often the fraction of honest samples lies within the band, at least.

    Returns
    -------
    low, high : `~numpy.ndarray`
        The lowest and the highest fraction within the band, NaN for ``n`` of zero. It leaves out at most
        ``(1 - probability) / 2`` on each side.

    Raises
    ------
    ValueError
        If ``level`` or ``probability`` is not between 0 and 1, or ``n`` is negative.

    Examples
    --------
    A curve of coverage, with its band:

    >>> import numpy as np
    >>> from astro_ddpm.evaluation import binomial_band, coverage
    >>> rng = np.random.default_rng(1)
    >>> samples, truth = rng.standard_normal((16, 1000)), rng.standard_normal(1000)
    >>> levels = np.linspace(0.1, 0.9, 9)
    >>> fraction, _ = coverage(samples, truth, levels)
    >>> low, high = binomial_band(levels, truth.size)
    >>> print(low.round(2), bool(np.all((low <= fraction) & (fraction <= high))))
    [0.08 0.18 0.27 0.37 0.47 0.57 0.67 0.78 0.88] True
    """
    from scipy.stats import binom

    for name, values in {"level": np.asarray(level), "probability": np.asarray(probability)}.items():
        if not np.all((values > 0) & (values < 1)):
            msg = f"{name} must lie between 0 and 1, not {values.tolist()}"
            raise ValueError(msg)
    n = np.asarray(n)
    if np.any(n < 0):
        msg = f"n must not be negative, not {n.tolist()}"
        raise ValueError(msg)
    low, high = binom.interval(probability, n, level)
    with np.errstate(invalid="ignore"):
        return low / n, high / n


def rank_histogram(
    samples: np.ndarray | Quantity,
    truth: np.ndarray | Quantity,
    *,
    mask: np.ndarray | None = None,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, float]:
    """
    How often the truth takes each rank among the samples.

    The histogram of honest samples is flat. Of samples that are too narrow it is U-shaped, of those that
    are too wide it has a hump, and of biased ones a slope (Hamill 2001, *Interpretation of Rank Histograms
    for Verifying Ensemble Forecasts*).

    Parameters
    ----------
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, ...)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (...)
        What they are compared with.

    mask : array_like of bool, optional
        Elements to leave out, broadcastable to ``truth``; `True` means left out.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random ranks of ties.

    Returns
    -------
    counts : `~numpy.ndarray` of int, shape (n_samples + 1,)
        How often 0, 1, ..., n_samples samples are less than the truth.

    p_value : float
        The probability of a chi-square as large as that of ``counts`` if every rank is equally probable
        **and the elements are independent**. Neighbouring pixels are not: give well-separated ones, or
        compare histograms and do not test them. NaN if no element is left.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth`` has a unit.

    ValueError
        If shapes do not match or there are fewer than two samples.
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
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, ...)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (...)
        What they are compared with.

    mask : array_like of bool, optional
        Elements to leave out, broadcastable to ``truth``; `True` means left out.

    Returns
    -------
    ratio : float
        1 for honest samples, less if they are too narrow. NaN if no element is left.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth`` has a unit.

    ValueError
        If shapes do not match or there are fewer than two samples.

    Notes
    -----
    With the variance :math:`s^2` (divisor :math:`m - 1`) and the mean :math:`\bar x` of :math:`m` samples

    .. math:: \sqrt{\frac{m + 1}{m} \, \frac{\langle s^2 \rangle}{\langle (\bar x - y)^2 \rangle}}

    where the first factor makes up for the error of a mean of few samples (Fortin et al. 2014, *Why Should
    Ensemble Spread Match the RMSE of the Ensemble Mean?*, equation 15).
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
    levels: tuple[float, ...] = LEVELS,
    mask: np.ndarray | None = None,
    seed: int | np.random.Generator = 0,
) -> QTable:
    """
    Every score of the samples, in bins of brightness.

    Parameters
    ----------
    samples : array_like or `~astropy.units.Quantity`, shape (n_samples, ...)
        The samples, at least two.

    truth : array_like or `~astropy.units.Quantity`, shape (...)
        What they are compared with.

    level : array_like or `~astropy.units.Quantity`, broadcastable to ``truth``
        What the elements are binned by, such as the brightness in units of the noise. It should be known
        without the truth: where the *truth* is bright, the errors of honest samples are one-sided, and
        their intervals do not cover what they promise. Take the estimate of a model, or the mean of the
        samples.

    edges : sequence of float or `~astropy.units.Quantity`, shape (n_bins + 1,)
        The rising edges of the bins, which may be infinite. A bin contains its lower edge.

    levels : sequence of float, optional
        The probabilities of the intervals for `coverage`.

    mask : array_like of bool, optional
        Elements to leave out, broadcastable to ``truth``; `True` means left out.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per bin, with the columns

        * ``low``, ``high``: the edges.
        * ``n``: the number of elements.
        * ``crps``: the mean of `crps`.
        * ``coverage_68``, ``coverage_68_err`` and so on, for each level: the results of `coverage`.
        * ``spread_skill``: the result of `spread_skill`.
        * ``ranks``: the counts of `rank_histogram`.

        The scores of empty bins are NaN. The metadata hold ``n_samples`` and ``levels``.

    Raises
    ------
    TypeError
        If only one of ``samples`` and ``truth``, or of ``level`` and ``edges``, has a unit.

    ValueError
        If shapes do not match, there are fewer than two samples, ``edges`` do not rise, or a probability in
        ``levels`` is not between 0 and 1.

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

    samples, truth, unit = _unpack(samples, truth, mask)
    level, edges, level_unit = _unpack_bins(level, edges, truth.shape)
    rng = np.random.default_rng(seed)
    table = QTable({"low": edges[:-1], "high": edges[1:]}, meta={"n_samples": len(samples), "levels": levels})
    rows = [
        ensemble_scores(samples[:, pick], truth[pick], levels=levels, seed=rng)
        for pick in ((level >= low) & (level < high) & np.isfinite(truth) for low, high in table.iterrows())
    ]
    names = [f"coverage_{100 * probability:g}" for probability in np.atleast_1d(levels)]
    for key in rows[0]:
        column = np.array([row[key] for row in rows])
        if key.startswith("coverage"):
            table.add_columns(column.T.copy(), names=[key.replace("coverage", name) for name in names])
        else:
            table[key] = column
    for key, its_unit in {"low": level_unit, "high": level_unit, "crps": unit}.items():
        if its_unit is not None:
            table[key] = table[key] << its_unit
    return table


def ensemble_scores(samples, truth, *, levels=LEVELS, seed=0):
    """
    Gather all scores of samples.

    Parameters
    ----------
    samples : array_like, shape (n_samples, n)
        The samples.

    truth : array_like, shape (n,)
        What they are compared with.

    levels : sequence of float, optional
        The probabilities of the intervals.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    scores : dict
        ``n``, ``crps`` (the mean), ``coverage`` and ``coverage_err`` (arrays), ``spread_skill`` and
        ``ranks`` (an array).
    """
    rng = np.random.default_rng(seed)
    fraction, error = coverage(samples, truth, np.atleast_1d(levels), seed=rng)
    counts, _ = rank_histogram(samples, truth, seed=rng)
    return {
        "n": int(counts.sum()),
        "crps": _mean(crps(samples, truth)),
        "coverage": fraction,
        "coverage_err": error,
        "spread_skill": spread_skill(samples, truth),
        "ranks": counts,
    }


def gaussian_scores(mean, std, truth, *, levels=LEVELS, n_ranks=9):
    r"""
    Gather the same scores for Gaussian distributions, in closed form.

    .. math:: \mathrm{CRPS} = s \left[ w (2 \Phi(w) - 1) + 2 \varphi(w) - \pi^{-1/2} \right], \qquad
              w = (y - \mu) / s

    (Gneiting & Raftery 2007, *Strictly Proper Scoring Rules, Prediction, and Estimation*, equation 21.)
    What a rank is for samples, :math:`\Phi(w)` is here.

    Parameters
    ----------
    mean, std, truth : array_like, shape (n,)
        Mean and standard deviation of the Gaussians, and what they are compared with.

    levels : sequence of float, optional
        The probabilities of the intervals.

    n_ranks : int, optional
        The number of equal bins of :math:`\Phi(w)`, one more than samples would be.

    Returns
    -------
    scores : dict
        As for `ensemble_scores`. Elements that are not finite make ``crps`` and ``spread_skill`` NaN, here
        as there.
    """
    from scipy.special import ndtr

    mean, std, truth = (np.asarray(values, float) for values in (mean, std, truth))
    w = (truth - mean) / std
    probability = ndtr(w)
    density = np.exp(-(w**2) / 2) / math.sqrt(2 * math.pi)
    score = std * (w * (2 * probability - 1) + 2 * density - 1 / math.sqrt(math.pi))
    probability = probability[np.isfinite(probability)]
    fraction, error = _covered(probability, np.atleast_1d(levels))
    ranks = np.minimum(probability * n_ranks, n_ranks - 1).astype(int)
    return {
        "n": probability.size,
        "crps": _mean(score),
        "coverage": fraction,
        "coverage_err": error,
        "spread_skill": _ratio(std**2, mean - truth),
        "ranks": np.bincount(ranks, minlength=n_ranks),
    }


def rank_test(ranks, n_samples):
    r"""
    Test whether every rank is equally probable, with an eye on slopes and U-shapes.

    Parameters
    ----------
    ranks : `~numpy.ndarray` of int, shape (n,)
        The ranks of truths among samples.

    n_samples : int
        The number of samples.

    Returns
    -------
    components : `~numpy.ndarray`, shape (min(4, n_samples),)
        Slope, U-shape and the next shapes of the histogram, each with zero mean and unit variance if the
        samples are honest.

    p_value : float
        The probability of a sum of their squares as large.

    Notes
    -----
    With polynomials :math:`h_k` orthonormal on the :math:`m + 1` ranks, the squares of

    .. math:: z_k = n^{-1/2} \sum_i h_k(R_i), \qquad k = 1 \dots m

    add up to the chi-square of the histogram (Jolliffe & Primo 2008, *Evaluating Rank Histograms Using
    Decompositions of the Chi-Square Test Statistic*). The wrong widths and biases that occur are in the
    first of them; the others only add noise.
    """
    from scipy.stats import chi2

    powers = np.vander(np.linspace(-1, 1, n_samples + 1), min(5, n_samples + 1), increasing=True)
    shapes = math.sqrt(n_samples + 1) * np.linalg.qr(powers)[0]
    shapes *= np.sign(shapes[-1])
    components = shapes[ranks, 1:].sum(axis=0) / math.sqrt(ranks.size)
    return components, chi2.sf(np.sum(components**2), components.size)


def _levels(levels):
    """Return probabilities as an array."""
    levels = np.asarray(levels, float)
    if not np.all((levels > 0) & (levels < 1)):
        msg = f"levels must lie between 0 and 1, not {levels.tolist()}"
        raise ValueError(msg)
    return levels


def _unpack(samples, truth, mask=None):
    """Return samples and truth as floats, NaN where either is invalid, and their unit."""
    unit = _common_unit(samples=samples, truth=truth)
    samples, truth = _floats("samples", samples, unit), _floats("truth", truth, unit)
    if samples.ndim == 0 or samples.shape[1:] != truth.shape:
        msg = f"samples must have the shape (n_samples, *{truth.shape}) of truth, not {samples.shape}"
        raise ValueError(msg)
    if len(samples) < 2:
        msg = f"samples must hold at least 2 samples, not {len(samples)}"
        raise ValueError(msg)
    invalid = ~(np.isfinite(truth) & np.isfinite(samples).all(axis=0))
    if mask is not None:
        invalid = invalid | _broadcast("mask", np.asarray(mask, bool), truth.shape)
    return np.where(invalid, np.nan, samples), np.where(invalid, np.nan, truth), unit


def _unpack_bins(level, edges, shape):
    """Return level, of a given shape, and edges as floats, and their unit."""
    unit = _common_unit(level=level, edges=edges)
    level, edges = _floats("level", level, unit), _floats("edges", edges, unit)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(edges[1:] > edges[:-1]):
        msg = f"edges must be two or more rising numbers, not {edges.tolist()}"
        raise ValueError(msg)
    return _broadcast("level", level, shape), edges, unit


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

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of a posterior: every score, beside what it is for a calibrated posterior.

If a posterior is calibrated, the truth and the samples of a case are exchangeable. Exchanging them at random,
for every case, gives the distribution of any score of a calibrated posterior, whatever its shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

import astro_ddpm
from astro_ddpm.utils import require

from .calibration import (
    LEVELS,
    _common_unit,
    _floats,
    _levels,
    _ranks,
    _unpack,
    _unpack_vectors,
    distance_sums,
)

if TYPE_CHECKING:
    from astropy.table import QTable
    from astropy.units import Quantity

__all__ = ["calibration_tests", "tarp"]

TOO_FEW = "too few"
MIN_CASES = 30  # below which no score finds a width that is wrong by half
_DESCRIPTIONS = {
    "feature": "Feature that is tested, or all together",
    "metric": "Score",
    "n": "Number of cases",
    "value": "The score",
    "expected": "Mean of the score for a calibrated posterior",
    "error": "Standard deviation of the score for a calibrated posterior",
    "p_value": "Probability of a score as far from the expected one",
    "verdict": "What the score says of the posterior",
}


def calibration_tests(
    samples: np.ndarray | Quantity | Mapping,
    truth: np.ndarray | Quantity | Mapping,
    *,
    levels: float | tuple[float, ...] = LEVELS,
    mask: np.ndarray | None = None,
    significance: float = 0.01,
    n_exchanges: int = 999,
    seed: int | np.random.Generator = 0,
) -> QTable:
    r"""
    Test a posterior with every score.

    The table gives each score, its expectation for a calibrated posterior, and a verdict.

    Parameters
    ----------
    samples : array_like, `~astropy.units.Quantity`, or mapping of these
        At least two samples of ``n`` cases: shape (n_samples, n) for one feature, (n_samples, n, n_features)
        for several, or by name, such as ``{"flux": ..., "radius": ...}``, each of shape (n_samples, n).

    truth : array_like, `~astropy.units.Quantity`, mapping or `~astropy.table.QTable`
        What they are compared with, without the first axis, under the same names.

    levels : float or sequence of float, optional
        The probabilities of the intervals for `coverage`.

    mask : array_like of bool, optional
        What to leave out, broadcastable to ``truth``, or to each of its named features.

    significance : float, optional
        False-alarm rate of each test; that of the seven tests of one feature together is about four times as
        large.

    n_exchanges : int, optional
        The number of random exchanges of truth and samples. No p-value is below ``2 / (n_exchanges + 1)``.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per feature and score, and two for all features together, with the columns

        * ``feature``: the name of the feature, or its number, or "all".
        * ``metric``: "coverage_68" and so on for each level, "rank_histogram", "spread_skill", "crps",
          and for all features together "energy_score" and "tarp".
        * ``n``, ``value``: the number of cases, and the score, without unit.
        * ``expected``, ``error``: mean and standard deviation of the score of a calibrated posterior.
        * ``p_value``: the probability that the score of a calibrated posterior is as far from the mean.
        * ``verdict``: "honest" if ``p_value`` is at least ``significance`` ("too few" with fewer than 30
          cases), else "too narrow", "too wide", "biased" or "wrong shape". Only the rank histogram tells a
          bias from a width; others call a biased posterior "too narrow".

        The metadata hold ``n_samples``, ``significance``, ``n_exchanges`` and ``version``.

    Raises
    ------
    TypeError, ValueError
        If only one of ``samples`` and ``truth`` has a unit, or names, or if shapes or names do not match,
        there are fewer than two samples, a probability is not between 0 and 1, or ``n_exchanges`` is less
        than 1.

    Notes
    -----
    Let :math:`z_0` be the truth and :math:`z_1 \dots z_m` the samples of a case. If the posterior is
    calibrated, any of them may have been the truth. The score is computed for each choice, and one choice is
    drawn for each case, ``n_exchanges`` times. The rank of the actual score among the drawn ones gives the
    two-sided p-value. This Monte Carlo permutation test is exact **if the cases are independent**, which
    pixels of one image or sources that overlap are not. The rank histogram and `tarp` are tested by the
    chi-square of the first four components of the histogram of ranks (slope, U-shape and the next two;
    Jolliffe & Primo 2008, *Evaluating Rank Histograms Using Decompositions of the Chi-Square Test
    Statistic*).

    Before ``spread_skill``, ``crps`` and ``energy_score`` are computed, the features of each case are divided
    by the standard deviation of truth and samples together. Otherwise the brightest case would outweigh all
    others. The coverage is the mean of `coverage` over its random numbers.

    **Sensitivity.** In trials with 1000 cases of two Gaussian features and ``significance`` of 0.01, every
    score found a posterior 20 % too narrow nearly always, even with 8 samples, and one 20 % too wide in 95 of
    100 trials or more with 16 samples or more.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import calibration_tests
    >>> rng = np.random.default_rng(1)
    >>> samples, truth = rng.standard_normal((32, 1000)), rng.standard_normal(1000)
    >>> honest = calibration_tests({"flux": samples}, {"flux": truth})
    >>> print(bool(np.all(honest["verdict"] == "honest")))
    True
    >>> narrow = calibration_tests({"flux": 0.8 * samples}, {"flux": truth})
    >>> print(narrow["metric", "value", "expected", "verdict"])
        metric     value expected  verdict
    -------------- ----- -------- ----------
       coverage_68 0.582     0.68 too narrow
       coverage_95 0.891     0.95 too narrow
    rank_histogram   108        4 too narrow
      spread_skill 0.807        1 too narrow
              crps 0.716    0.568 too narrow
      energy_score 0.716    0.568 too narrow
              tarp  73.7        4 too narrow
    """
    fractions = np.atleast_1d(_levels(levels))
    require(0 < significance < 1, f"significance must lie between 0 and 1, not {significance}")
    require(n_exchanges >= 1, f"n_exchanges must be at least 1, not {n_exchanges}")
    rng = np.random.default_rng(seed)
    features = _features(samples, truth, mask)
    draws, truths = _together(features)
    rows = [
        {"feature": name, **row}
        for name, (drawn, true) in features.items()
        for row in _feature_rows(drawn, true, fractions, n_exchanges, rng)
    ]
    rows += [{"feature": "all", **row} for row in _joint_rows(draws, truths, n_exchanges, rng)]
    meta = {"n_samples": len(draws), "significance": significance, "n_exchanges": n_exchanges}
    return _table(rows, significance, meta | {"version": astro_ddpm.__version__})


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

    A ball around a random point that holds, say, 68 % of the samples should hold the truth in 68 % of the
    cases.

    Use it for a few features, such as the logarithms of fluxes, radii and shapes. **Do not use it for pixels
    of whole images**: distances in thousands of dimensions measure the power of the noise and little else.

    Parameters
    ----------
    samples, truth, mask : array_like or `~astropy.units.Quantity`
        As for `energy_score`, of the shape ``(n_samples, n, n_features)``.

    levels : float or sequence of float, optional
        The fractions of the samples within the balls, between 0 and 1.

    references : array_like or `~astropy.units.Quantity`, shape (n, n_features), optional
        The points, whose choice must not depend on the truth; by default drawn from a Gaussian with the mean
        and standard deviation of each feature in all samples and truths.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    fraction : `~numpy.ndarray`, shape of ``levels``
        The fraction of truths within the balls, for calibrated samples that of ``levels``.

    p_value : float
        The probability of deviations as large if the samples are calibrated **and the vectors independent**.
        Like ``fraction`` NaN if no vector is left.

    Raises
    ------
    TypeError, ValueError
        As for `coverage`, or if only one of ``references`` and ``truth`` has a unit.

    Notes
    -----
    Lemos et al. 2023, *Sampling-Based Accuracy Testing of Posterior Estimators for General Inference*,
    algorithm 2, with distances in units of the standard deviation of each feature in all samples and truths.
    The rank :math:`R` of the distance of the truth among those of the :math:`m` samples takes the values 0 to
    :math:`m` with equal probability if the samples are calibrated. A truth lies within the ball of the level
    :math:`c` if :math:`R + U < (m + 1) c` with :math:`U` uniform in [0, 1), which has the probability
    :math:`c` for any number of samples.

    Samples that are too narrow make the curve of ``fraction`` against ``levels`` an S that crosses the
    diagonal, which a Kolmogorov-Smirnov test hardly sees. ``p_value`` is that of the first four components of
    the chi-square of the ranks (Jolliffe & Primo 2008).

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
    ranks = _tarp_ranks(samples, truth, references, seed=rng)
    if not ranks.size:
        return np.full(fractions.shape, np.nan), math.nan
    below = (ranks + rng.random(ranks.shape)) / (len(samples) + 1) < fractions[..., None]
    return below.mean(axis=-1), float(_rank_test(ranks, len(samples))[1])


def _tarp_ranks(samples, truth, references=None, *, seed=0):
    """Return how many samples are nearer to a point than the truth, for each valid case."""
    require(truth.ndim == 2, f"truth must have the shape (n, n_features), not {truth.shape}")
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


def _features(samples, truth, mask):
    """Return samples and truth of each feature as floats, NaN where either is invalid."""
    if isinstance(samples, Mapping):
        if not hasattr(truth, "keys"):
            msg = f"truth must have names as samples have, but is of type {type(truth).__name__}"
            raise TypeError(msg)
        if missing := set(samples) - set(truth.keys()):
            msg = f"truth must have the names of samples, but lacks {sorted(missing)}"
            raise ValueError(msg)
        return {name: _unpack(values, truth[name], mask)[:2] for name, values in samples.items()}
    samples, truth, _ = _unpack(samples, truth, mask)
    if truth.ndim == 1:
        samples, truth = samples[..., None], truth[..., None]
    require(truth.ndim == 2, f"truth must have the shape (n,) or (n, n_features), not {truth.shape}")
    return {str(i): (samples[..., i], truth[..., i]) for i in range(truth.shape[-1])}


def _together(features):
    """Return samples and truth of all features along a last axis."""
    shapes = {name: samples.shape for name, (samples, _) in features.items()}
    if not shapes or len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 2:
        msg = f"samples of every feature must have the same shape (n_samples, n), not {shapes}"
        raise ValueError(msg)
    samples, truth = zip(*features.values(), strict=True)
    return np.stack(samples, axis=-1), np.stack(truth, axis=-1)


def _feature_rows(samples, truth, levels, n_exchanges, rng):
    """Test one feature by itself."""
    ranks, m = _ranks(samples, truth, None, rng)
    pool = np.sort(_pool(samples[..., None], truth[..., None]), axis=0)

    def test(scores, statistic=float, *, narrow):
        return _exchange(scores, ranks, statistic, narrow, n_exchanges, rng)

    for level in levels:
        covered = np.broadcast_to(_coverage_of_ranks(level, m)[:, None], pool.shape[:2])
        yield {"metric": f"coverage_{100 * level:g}", **test(covered[None], narrow="less")}
    yield {"metric": "rank_histogram", **_rank_row(ranks, m, can_be_biased=True)}
    yield {"metric": "spread_skill", **test(_variances(pool[..., 0]), _root_ratio, narrow="less")}
    yield {"metric": "crps", **test(_energy_scores(pool)[None], narrow="more")}


def _joint_rows(samples, truth, n_exchanges, rng):
    """Test all features together."""
    scores = _energy_scores(_pool(samples, truth))[None]
    yield {"metric": "energy_score", **_exchange(scores, 0, float, "more", n_exchanges, rng)}
    ranks = _tarp_ranks(samples, truth, seed=rng)
    yield {"metric": "tarp", **_rank_row(ranks, len(samples), can_be_biased=False)}


def _pool(samples, truth):
    """Return truth and samples of the valid cases, shape (m + 1, n, n_features), each case standardised."""
    valid = np.isfinite(truth).all(axis=-1)
    pool = np.concatenate([truth[None, valid], samples[:, valid]])
    pool -= pool.mean(axis=0)
    scale = pool.std(axis=0, ddof=1)
    return pool / np.where(scale > 0, scale, 1)


def _rank_test(ranks, n_samples):
    r"""
    Test whether every rank is equally probable.

    With polynomials :math:`h_k` orthonormal on the :math:`m + 1` ranks, the squares of

    .. math:: z_k = n^{-1/2} \sum_i h_k(R_i), \qquad k = 1 \dots m

    add up to the chi-square of the histogram (Jolliffe & Primo 2008). Biases and wrong widths are in the
    first of them: slope, U-shape and the next two. The components have zero mean and unit variance for a
    calibrated posterior, and the p-value is that of the sum of their squares.
    """
    from scipy.stats import chi2

    powers = np.vander(np.linspace(-1, 1, n_samples + 1), min(5, n_samples + 1), increasing=True)
    shapes = math.sqrt(n_samples + 1) * np.linalg.qr(powers)[0]
    shapes *= np.sign(shapes[-1])
    components = shapes[ranks, 1:].sum(axis=0) / math.sqrt(ranks.size)
    return components, chi2.sf(np.sum(components**2), components.size)


def _coverage_of_ranks(level, m):
    """Return the probability that a truth of each rank among m samples is within the central interval."""
    low, high = (m + 1) * (1 - level) / 2, (m + 1) * (1 + level) / 2
    rank = np.arange(m + 1)
    return np.clip(np.minimum(rank + 1, high) - np.maximum(rank, low), 0, 1)


def _variances(pool):
    """Return variance of the others, inflated as by `spread_skill`, and squared error of their mean."""
    m = len(pool) - 1
    mean = (pool.sum(axis=0) - pool) / m
    variance = ((pool**2).sum(axis=0) - pool**2 - m * mean**2) / (m - 1)
    return np.stack([(1 + 1 / m) * variance, (mean - pool) ** 2])


def _energy_scores(pool):
    """Return the fair energy score of each member of a pool by the others."""
    m = len(pool) - 1
    sums = distance_sums(pool)
    return sums / (m - 1) - sums.sum(axis=0) / (2 * m * (m - 1))


def _root_ratio(variance, error):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(variance / error)


def _exchange(scores, own, statistic, narrow, n_exchanges, rng):
    """
    Compare a statistic of mean scores with that of truths chosen at random.

    The scores have the shape (k, m + 1, n): k scores of each case for each choice of its truth. ``own`` is
    the actual choice. Too narrow samples make the statistic "less" or "more".
    """
    _, choices, n = scores.shape
    if not n:
        return _row(0, np.nan, np.nan, np.nan, np.nan, TOO_FEW)
    case = np.arange(n)
    value = statistic(*scores[:, own, case].mean(axis=-1))
    expected = statistic(*scores.mean(axis=(-2, -1)))
    drawn = np.array(
        [statistic(*scores[:, rng.integers(choices, size=n), case].mean(axis=-1)) for _ in range(n_exchanges)]
    )
    if np.isnan(value):
        return _row(n, value, expected, drawn.std(), np.nan, "")
    tied = np.isclose(drawn, value, rtol=1e-12, atol=0)
    beyond = min(np.sum(tied | (drawn < value)), np.sum(tied | (drawn > value)))
    p_value = min(1, 2 * (1 + beyond) / (1 + n_exchanges))
    too_narrow = value < expected if narrow == "less" else value > expected
    return _row(n, value, expected, drawn.std(), p_value, "too narrow" if too_narrow else "too wide")


def _rank_row(ranks, m, *, can_be_biased):
    """Test ranks of the truth among m samples."""
    if not ranks.size:
        return _row(0, np.nan, np.nan, np.nan, np.nan, TOO_FEW)
    components, p_value = _rank_test(ranks, m)
    strongest = max(components[:2], key=abs)
    if abs(strongest) < 2:
        finding = "wrong shape"
    elif can_be_biased and strongest == components[0]:
        finding = "biased"
    else:
        finding = "too narrow" if strongest > 0 else "too wide"
    degrees = components.size
    return _row(ranks.size, np.sum(components**2), degrees, np.sqrt(2 * degrees), p_value, finding)


def _row(n, *scores):
    """Return value, expectation, error, p-value and verdict of a test by their names."""
    return dict(zip(list(_DESCRIPTIONS)[2:], (n, *map(float, scores[:-1]), scores[-1]), strict=True))


def _table(rows, significance, meta):
    """Return rows as a table with verdicts."""
    from astropy.table import QTable

    table = QTable(rows=rows, names=list(_DESCRIPTIONS), meta=meta)
    passed = table["p_value"] >= significance
    honest = np.where(table["n"] < MIN_CASES, TOO_FEW, "honest")
    table["verdict"] = np.where(passed, honest, table["verdict"])
    for name, description in _DESCRIPTIONS.items():
        table[name].info.description = description
        if table[name].dtype.kind == "f":
            table[name].info.format = ".3g"
    return table

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the calibration module.
"""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.utils.masked import Masked
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import chisquare, kstest, norm

from astro_ddpm.evaluation import (
    calibration_table,
    coverage,
    crps,
    rank_histogram,
    spread_skill,
)
from astro_ddpm.evaluation.honesty import _rank_test

LEVELS = (0.68, 0.95)
FUNCTIONS = [crps, coverage, rank_histogram, spread_skill]


def gaussian(m, n, width=1.0, bias=0.0, seed=0):
    """Make samples N(c + bias, width^2) around centers c of a truth N(c, 1)."""
    rng = np.random.default_rng(seed)
    center = 3 * rng.standard_normal(n)
    return center + bias + width * rng.standard_normal((m, n)), center + rng.standard_normal(n)


def brute_force_crps(samples, truth):
    """Average |x - y| and, over all pairs of different samples, |x - x'|."""
    m = len(samples)
    pairs = [np.abs(samples[i] - samples[j]) for i in range(m) for j in range(m) if i != j]
    return np.mean(np.abs(samples - truth), axis=0) - np.mean(pairs, axis=0) / 2


def gaussian_crps(mean, std, truth):
    """Integrate the squared difference of the distributions numerically."""

    def square(x, step):
        return (norm.cdf(x, mean, std) - step) ** 2

    below = quad(square, min(mean - 12 * std, truth), truth, args=(0,), points=[mean], limit=200)[0]
    above = quad(square, truth, max(mean + 12 * std, truth), args=(1,), points=[mean], limit=200)[0]
    return below + above


def flat(result):
    return np.concatenate([np.ravel(part) for part in (result if isinstance(result, tuple) else (result,))])


class TestCRPS:
    @pytest.mark.parametrize("m", [2, 3, 8, 17])
    def test_brute_force(self, m):
        samples, truth = np.random.default_rng(0).standard_normal((2, m, 4, 5))
        truth = truth[0]
        assert_allclose(crps(samples, truth), brute_force_crps(samples, truth), rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("m", [2, 5, 30])
    @pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
    def test_expectation_for_gaussians(self, m, width):
        # E|X - y| - E|X - X'| / 2, for any number of samples
        samples, truth = gaussian(m, 60000, width)
        expected = np.sqrt((1 + width**2) * 2 / np.pi) - width / np.sqrt(np.pi)
        score = crps(samples, truth)
        assert abs(score.mean() - expected) < 4 * score.std() / np.sqrt(score.size)

    @pytest.mark.parametrize("y", [-2.0, 0.0, 0.7])
    def test_expectation_for_one_truth(self, y):
        samples = np.random.default_rng(1).normal(0, 1.5, (4, 40000))
        score = crps(samples, np.full(40000, y))
        assert abs(score.mean() - gaussian_crps(0, 1.5, y)) < 4 * score.std() / 200

    def test_best_for_the_true_width(self):
        scores = [crps(*gaussian(8, 40000, width)).mean() for width in (0.7, 1.0, 1.4)]
        assert scores[1] == min(scores)

    def test_affine(self):
        samples, truth = gaussian(6, 50)
        assert_allclose(crps(7 - 3 * samples, 7 - 3 * truth), 3 * crps(samples, truth), rtol=1e-10)

    def test_order_of_samples(self):
        samples, truth = gaussian(6, 50)
        assert_array_equal(crps(samples[::-1], truth), crps(samples, truth))

    def test_samples_all_alike(self):
        truth = np.linspace(-1, 1, 5)
        assert_allclose(crps(np.full((3, 5), 0.2), truth), np.abs(truth - 0.2), rtol=1e-14)

    def test_scalar_truth(self):
        assert crps([1.0, 3.0], 2.0) == 0

    def test_float32_of_bright_pixels(self):
        samples, truth = gaussian(8, 100)
        offset = [np.float32(2**20) + (64 * a).round().astype("f4") for a in (samples, truth)]
        exact = crps((64 * samples).round(), (64 * truth).round())
        assert_allclose(crps(*offset), exact, rtol=1e-12, atol=1e-9)

    def test_input_stays(self):
        samples, truth = gaussian(4, 20)
        truth[3] = np.nan
        copies = samples.copy(), truth.copy()
        for function in FUNCTIONS:
            function(samples, truth)
        assert_array_equal(samples, copies[0])
        assert_array_equal(truth, copies[1])


class TestCoverage:
    @pytest.mark.parametrize("m", [2, 4, 8, 31])
    def test_honest_samples(self, m):
        fraction, error = coverage(*gaussian(m, 40000), LEVELS)
        assert_allclose(error, np.sqrt(np.multiply(LEVELS, np.subtract(1, LEVELS)) / 40000), rtol=0.05)
        assert np.all(np.abs(fraction - LEVELS) < 4 * error)

    @pytest.mark.parametrize("width", [0.5, 2.0])
    def test_many_samples_of_a_wrong_width(self, width):
        # the truth has sigma 1, the interval ends at the quantiles of sigma `width`
        fraction, error = coverage(*gaussian(400, 5000, width), LEVELS)
        expected = 2 * norm.cdf(width * norm.ppf((1 + np.array(LEVELS)) / 2)) - 1
        assert np.all(np.abs(fraction - expected) < 4 * error + 0.003)

    def test_by_hand(self):
        # 9 samples: the 80 % interval has the ranks 1 to 8, whatever the random numbers
        samples = np.repeat(np.arange(1, 10.0)[:, None], 4, axis=1)
        truth = np.array([0.5, 1.5, 8.5, 9.5])
        fraction, error = coverage(samples, truth, 0.8)
        assert fraction == 0.5
        assert error == np.sqrt(0.25 / 4)
        assert fraction.shape == error.shape == ()

    def test_ties_are_random(self):
        # all alike: nothing is known, so every rank is equally probable
        fraction, error = coverage(np.zeros((5, 20000)), np.zeros(20000), LEVELS)
        assert np.all(np.abs(fraction - LEVELS) < 4 * error)

    @pytest.mark.parametrize("levels", [0, 1, 1.5, -0.1, np.nan, (0.68, 1)])
    def test_levels(self, levels):
        with pytest.raises(ValueError, match="levels must lie between 0 and 1"):
            coverage(*gaussian(4, 10), levels)

    def test_affine(self):
        samples, truth = gaussian(6, 500)
        assert_array_equal(coverage(2 * samples + 1, 2 * truth + 1), coverage(samples, truth))


class TestRankTest:
    def test_all_components_make_chi_square(self):
        ranks = np.random.default_rng(0).binomial(4, 0.4, 300)
        components, p_value = _rank_test(ranks, 4)
        expected = chisquare(np.bincount(ranks, minlength=5))
        assert_allclose(np.sum(components**2), expected.statistic, rtol=1e-10)
        assert_allclose(p_value, expected.pvalue, rtol=1e-10)

    @pytest.mark.parametrize("m", [1, 2, 3, 20])
    def test_components_are_standard_normal(self, m):
        rng = np.random.default_rng(1)
        components = np.array([_rank_test(rng.integers(m + 1, size=500), m)[0] for _ in range(400)])
        assert components.shape == (400, min(4, m))
        assert_allclose(components.mean(axis=0), 0, atol=4 / 20)
        assert_allclose(np.cov(components.T), np.eye(min(4, m)), atol=4 * np.sqrt(2) / 20)

    def test_p_value_is_uniform(self):
        rng = np.random.default_rng(2)
        p_values = [_rank_test(rng.integers(10, size=200), 9)[1] for _ in range(500)]
        assert kstest(p_values, "uniform").pvalue > 1e-3

    @pytest.mark.parametrize(
        ("ranks", "component", "sign"),
        [([7, 8, 8], 0, 1), ([0, 0, 1], 0, -1), ([0, 0, 8, 8], 1, 1), ([4, 4, 4], 1, -1)],
    )
    def test_slope_and_u_shape(self, ranks, component, sign):
        components, _ = _rank_test(np.array(ranks), 8)
        assert np.argmax(np.abs(components[:2])) == component
        assert np.sign(components[component]) == sign


class TestRankHistogram:
    @pytest.mark.parametrize("m", [2, 9])
    def test_flat_for_exchangeable(self, m):
        counts, p_value = rank_histogram(*gaussian(m, 20000))
        assert counts.shape == (m + 1,)
        assert counts.sum() == 20000
        assert p_value > 1e-3

    def test_p_value_is_uniform(self):
        p_values = [rank_histogram(*gaussian(4, 500, seed=seed))[1] for seed in range(200)]
        inside, error = np.mean(np.array(p_values) < 0.3), np.sqrt(0.3 * 0.7 / 200)
        assert abs(inside - 0.3) < 4 * error

    def test_shapes(self):
        narrow, p_value = rank_histogram(*gaussian(8, 20000, width=0.5))
        assert p_value < 1e-10
        assert min(narrow[0], narrow[-1]) > 2 * narrow[4]
        wide, _ = rank_histogram(*gaussian(8, 20000, width=2.0))
        assert max(wide[0], wide[-1]) < 0.5 * wide[4]
        high, _ = rank_histogram(*gaussian(8, 20000, bias=1.0))
        assert np.all(np.diff(high) < 0)

    def test_gaussian_ranks_exactly(self):
        # of two samples N(0, s^2), the truth N(0, 1): P(truth < both) = 1/4 + arcsin(rho) / (2 pi),
        # with the correlation rho = 1 / (1 + s^2) of the two differences
        width, n = 0.5, 100000
        counts, _ = rank_histogram(*gaussian(2, n, width))
        expected = n * (0.25 + np.arcsin(1 / (1 + width**2)) / (2 * np.pi))
        assert_allclose(counts[[0, 2]], expected, rtol=4 * np.sqrt(1 / expected))

    def test_by_hand(self):
        counts, _ = rank_histogram([[1, 1, 1, 1], [3, 3, 3, 3]], [0, 2, 2, 9])
        assert_array_equal(counts, [1, 2, 1])

    def test_ties_are_random(self):
        counts, p_value = rank_histogram(np.zeros((3, 4000)), np.zeros(4000))
        assert np.all(counts > 800)
        assert p_value > 1e-3

    def test_seed(self):
        samples, truth = np.zeros((3, 100)), np.zeros(100)
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        one, same, other = (rank_histogram(samples, truth, seed=seed)[0] for seed in (1, 1, 2))
        assert_array_equal(one, same)
        assert np.any(one != other)
        assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


class TestSpreadSkill:
    @pytest.mark.parametrize("m", [2, 4, 16])
    @pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
    def test_gaussians(self, m, width):
        # the error of the mean has the variance 1 + width^2 / m
        expected = width * np.sqrt((1 + 1 / m) / (1 + width**2 / m))
        assert_allclose(spread_skill(*gaussian(m, 60000, width)), expected, rtol=0.02)

    def test_bias(self):
        assert_allclose(spread_skill(*gaussian(8, 60000, bias=2.0)), np.sqrt(9 / 8 / (9 / 8 + 4)), rtol=0.02)

    def test_affine(self):
        samples, truth = gaussian(6, 500)
        assert_allclose(spread_skill(5 - 2 * samples, 5 - 2 * truth), spread_skill(samples, truth))

    def test_no_error_at_all(self):
        assert spread_skill([[0.0], [2.0]], [1.0]) == np.inf


class TestInvalid:
    @pytest.fixture
    def data(self):
        return gaussian(5, 300, seed=3)

    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_left_out(self, data, function, value):
        samples, truth = (a.copy() for a in data)
        truth[7], samples[2, 11] = value, value
        keep = np.ones(300, bool)
        keep[[7, 11]] = False
        result, expected = function(samples, truth), function(data[0][:, keep], data[1][keep])
        if function is crps:
            assert_array_equal(np.isnan(result), ~keep)
            result = result[keep]
        assert_allclose(flat(result), flat(expected), rtol=1e-13)

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_mask(self, data, function):
        samples, truth = data
        mask = np.arange(300) % 3 == 0
        by_nan = function(samples, np.where(mask, np.nan, truth))
        masked_samples = np.ma.array(samples, mask=np.tile(mask, (5, 1)))
        for result in (
            function(samples, truth, mask=mask),
            function(samples, np.ma.array(truth, mask=mask)),
            function(masked_samples, truth),
        ):
            assert_array_equal(flat(result), flat(by_nan))

    def test_masked_quantity(self, data):
        samples, truth = data
        mask = np.arange(300) < 10
        result = crps(samples * u.Jy, Masked(truth * u.Jy, mask=mask))
        assert_array_equal(np.isnan(result.value), mask)

    def test_nothing_left(self):
        samples, truth = gaussian(4, 6)
        mask = np.ones(6, bool)
        assert np.isnan(crps(samples, truth, mask=mask)).all()
        assert np.isnan(coverage(samples, truth, mask=mask)).all()
        counts, p_value = rank_histogram(samples, truth, mask=mask)
        assert_array_equal(counts, np.zeros(5))
        assert np.isnan(p_value)
        assert np.isnan(spread_skill(samples, truth, mask=mask))

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_errors(self, data, function):
        samples, truth = data
        with pytest.raises(ValueError, match="samples must hold at least 2 samples, not 1"):
            function(samples[:1], truth)
        with pytest.raises(
            ValueError, match=r"samples must have the shape \(n_samples, \*\(299,\)\) of truth"
        ):
            function(samples, truth[1:])
        with pytest.raises(ValueError, match="samples must have the shape"):
            function(1.0, 1.0)
        with pytest.raises(ValueError, match="mask must be broadcastable"):
            function(samples, truth, mask=np.zeros(5, bool))
        with pytest.raises(TypeError, match="samples and truth must both have a unit, or neither"):
            function(samples, truth * u.Jy)
        with pytest.raises(TypeError, match="samples and truth must both have a unit, or neither"):
            function(samples * u.Jy, truth)
        with pytest.raises(u.UnitConversionError):
            function(samples * u.Jy, truth * u.m)
        with pytest.raises(TypeError, match="truth must be an array or a Quantity, not CCDData"):
            function(samples * u.Jy, CCDData(truth, unit="Jy"))


class TestQuantity:
    def test_crps(self):
        samples, truth = gaussian(5, 30)
        score = crps(samples * u.Jy, (1e3 * truth) * u.mJy)
        assert score.unit == u.mJy
        assert_allclose(score.to_value(u.Jy), crps(samples, truth), rtol=1e-10)

    @pytest.mark.parametrize("function", [coverage, rank_histogram, spread_skill])
    def test_others_are_plain(self, function):
        samples, truth = gaussian(5, 300)
        result = function(samples * u.Jy, (1e3 * truth) * u.mJy)
        assert not isinstance(result, u.Quantity)
        assert_allclose(flat(result), flat(function(samples, truth)), rtol=1e-10)


class TestTable:
    @pytest.fixture
    def data(self):
        """Honest samples below level 5, narrow ones above."""
        rng = np.random.default_rng(2)
        level = rng.uniform(-1, 10, (100, 120))
        width = np.where(level < 5, 1, 0.5)
        samples = level + width * rng.standard_normal((8, *level.shape))
        return samples, level + rng.standard_normal(level.shape), level

    def test_bins(self, data):
        samples, truth, level = data
        table = calibration_table(samples, truth, level, [-np.inf, 5, np.inf])
        assert isinstance(table, QTable)
        assert table.colnames == [
            *("low", "high", "n", "crps", "coverage_68", "coverage_95"),
            *("coverage_68_err", "coverage_95_err", "spread_skill", "ranks"),
        ]
        assert table["n"].sum() == truth.size
        assert table["ranks"].shape == (2, 9)
        assert_array_equal(table["ranks"].sum(axis=1), table["n"])
        for row, pick in zip(table, (level < 5, level >= 5), strict=True):
            assert row["n"] == pick.sum()
            assert_allclose(row["crps"], crps(samples, truth)[pick].mean(), rtol=1e-12)
            assert_allclose(row["spread_skill"], spread_skill(samples, truth, mask=~pick), rtol=1e-12)
        assert abs(table["coverage_68"][0] - 0.68) < 4 * table["coverage_68_err"][0]
        # a fraction 9 * 0.025 of the truths beyond all samples, on either side, is not covered
        beyond = quad(lambda t: norm.pdf(t) * norm.sf(2 * t) ** 8, -9, 9)[0]
        expected = 1 - 2 * beyond * 0.225
        assert abs(table["coverage_95"][1] - expected) < 4 * table["coverage_95_err"][1]
        assert table.meta["n_samples"] == 8

    def test_edges_belong_to_the_upper_bin(self):
        samples, truth = gaussian(4, 5)
        table = calibration_table(samples, truth, [0, 1, 2, 3, np.nan], [0, 1, 3])
        assert_array_equal(table["n"], [1, 2])

    def test_units(self, data):
        samples, truth, level = data
        table = calibration_table(
            samples * u.mJy, truth * u.mJy, level * u.mag, [-1, 5, 10] * u.mag, levels=(0.5, 0.955)
        )
        assert table["crps"].unit == u.mJy
        assert table["low"].unit == u.mag
        assert "coverage_95.5_err" in table.colnames
        plain = calibration_table(samples, truth, level, [-1, 5, 10])
        assert_allclose(table["crps"].value, plain["crps"], rtol=1e-12)

    def test_empty_bin_and_mask(self, data):
        samples, truth, level = data
        table = calibration_table(samples, truth, level, [0, 5, 20, 30], mask=level < 5)
        assert table["n"][0] == table["n"][2] == 0
        for name in ("crps", "coverage_68", "coverage_68_err", "spread_skill"):
            assert_array_equal(np.isnan(table[name]), [True, False, True])

    def test_level_is_broadcast(self, data):
        samples, truth, _ = data
        table = calibration_table(samples, truth, np.arange(120), [0, 60, 120])
        assert_array_equal(table["n"], [6000, 6000])

    def test_truth_as_level_would_accuse_honest_samples(self):
        # why the docstring warns of it
        rng = np.random.default_rng(5)
        center = rng.standard_normal(40000)
        truth = center + rng.standard_normal(40000)
        samples = center + rng.standard_normal((8, 40000))
        by_center = calibration_table(samples, truth, center, [2, np.inf])
        by_truth = calibration_table(samples, truth, truth, [2, np.inf])
        assert abs(by_center["coverage_68"][0] - 0.68) < 4 * by_center["coverage_68_err"][0]
        assert by_truth["coverage_68"][0] < 0.6

    @pytest.mark.parametrize("edges", [[1], [2, 1], [1, 1], [0, np.nan], [[0, 1]]])
    def test_edges(self, data, edges):
        with pytest.raises(ValueError, match="edges must be two or more rising numbers"):
            calibration_table(*data, edges)

    def test_errors(self, data):
        samples, truth, level = data
        with pytest.raises(ValueError, match=r"level must be broadcastable to the shape \(100, 120\)"):
            calibration_table(samples, truth, level[1:], [0, 1])
        with pytest.raises(TypeError, match="level and edges must both have a unit, or neither"):
            calibration_table(samples, truth, level, [0, 1] * u.mag)


class TestGaussianErrors:
    """A mean and a standard deviation in place of samples."""

    def test_crps_is_the_integral(self):
        mean, std, truth = [0.0, 2.0, -1.0], [1.0, 0.5, 3.0], [0.3, -1.0, 4.0]
        table = calibration_table(mean, truth, [0, 1, 2], [0, 1, 2, 3], std=std)
        expected = [gaussian_crps(*case) for case in zip(mean, std, truth, strict=True)]
        assert_allclose(table["crps"], expected, rtol=1e-7)
        assert table.meta["n_samples"] == 0

    @pytest.mark.parametrize("width", [0.6, 1.0])
    def test_many_samples_agree(self, width):
        rng = np.random.default_rng(4)
        mean = rng.standard_normal(4000)
        truth = mean + rng.standard_normal(4000)
        samples = mean + width * rng.standard_normal((199, 4000))
        options = {"level": 0, "edges": [-1, 1]}
        exact = calibration_table(mean, truth, std=np.full(4000, width), n_ranks=4, **options)
        sampled = calibration_table(samples, truth, **options)
        assert exact.colnames == sampled.colnames
        assert_allclose(exact["crps"], sampled["crps"], rtol=0.01)
        for name in ("coverage_68", "coverage_95"):
            assert_allclose(exact[name], sampled[name], atol=0.015)
        assert_allclose(exact["spread_skill"], sampled["spread_skill"], rtol=0.01)
        assert_allclose(exact["ranks"][0], sampled["ranks"].reshape(4, 50).sum(axis=1), atol=60)

    def test_invalid_elements_are_left_out(self):
        table = calibration_table([np.nan, 0.0], [0.0, 0.1], 0, [-1, 1], std=[1.0, 1.0])
        assert table["n"][0] == table["ranks"].sum() == 1
        assert_allclose(table["crps"], gaussian_crps(0, 1, 0.1))

    def test_units(self):
        table = calibration_table([1.0] * u.Jy, [1500.0] * u.mJy, 0, [-1, 1], std=[500.0] * u.mJy)
        assert_allclose(table["crps"].to_value(u.Jy), gaussian_crps(1, 0.5, 1.5))


def test_statistics_are_light():
    code = (
        "import sys, numpy;"
        "from astro_ddpm.evaluation import coverage, crps, energy_score, rank_histogram, spread_skill, tarp;"
        "x = numpy.random.default_rng(0).standard_normal((4, 50, 2));"
        "[f(x[1:], x[0]) for f in (coverage, crps, energy_score, rank_histogram, spread_skill, tarp)];"
        "print(*{'photutils', 'torch', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""

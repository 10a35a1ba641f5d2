# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the tests of a posterior.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import beta, norm

from astro_ddpm.evaluation import calibration_tests, coverage, crps, energy_score, spread_skill

METRICS = ["coverage_68", "coverage_95", "rank_histogram", "spread_skill", "crps"]
JOINT = ["energy_score", "tarp"]


def gaussian(m=32, n=1000, width=1.0, bias=0.0, seed=0):
    """Make two features, correlated by 0.5: samples N(c + bias, width^2), a truth N(c, 1)."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky([[1, 0.5], [0.5, 1]])
    center = 10 * rng.standard_normal((n, 2))
    samples = center + bias + width * rng.standard_normal((m, n, 2)) @ root.T
    return samples, center + rng.standard_normal((n, 2)) @ root.T


def skewed(m=16, n=200, seed=0):
    """Make an honest posterior that is log-normal, with widths from 1e-3 to 1e3, of two features."""
    rng = np.random.default_rng(seed)
    draws = np.exp(1.5 * rng.standard_normal((m + 1, n, 2)))
    draws[..., 1] += draws[..., 0]
    draws *= 10 ** rng.uniform(-3, 3, (n, 2))
    return draws[1:], draws[0]


def standardized(samples, truth):
    """Scale each case and feature by mean and standard deviation of samples and truth together."""
    pool = np.concatenate([truth[None], samples])
    pool = (pool - pool.mean(axis=0)) / pool.std(axis=0, ddof=1)
    return pool[1:], pool[0]


def choices(samples, truth):
    """Yield samples and truth for each choice of the truth among all of them."""
    pool = np.concatenate([truth[None], samples])
    for i in range(len(pool)):
        yield np.delete(pool, i, axis=0), pool[i]


def pick(table, feature, metric):
    (row,) = table[(table["feature"] == feature) & (table["metric"] == metric)]
    return row


class TestVerdicts:
    """Every metric flags a width that is 20 % wrong, and passes a right one, in 1000 cases."""

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(("width", "verdict"), [(0.8, "too narrow"), (1.0, "honest"), (1.2, "too wide")])
    def test_width(self, width, verdict, seed):
        table = calibration_tests(*gaussian(width=width, seed=seed), seed=seed)
        assert_array_equal(table["metric"], [*METRICS, *METRICS, *JOINT])
        assert_array_equal(table["n"], 1000)
        assert_array_equal(table["verdict"], verdict)

    def test_bias(self):
        table = calibration_tests(*gaussian(bias=1.0))
        is_histogram = table["metric"] == "rank_histogram"
        assert_array_equal(table["verdict"][is_histogram], "biased")
        assert_array_equal(table["verdict"][~is_histogram], "too narrow")

    def test_wrong_shape(self):
        # of 9 ranks only three occur, so that the mean and the variance of the ranks are right
        rank = np.repeat([1, 4, 7], [370, 260, 370])
        samples = np.tile(np.arange(8.0)[:, None], 1000)
        table = calibration_tests(samples, rank - 0.5)
        assert table["verdict"][table["metric"] == "rank_histogram"] == "wrong shape"

    def test_no_spread(self):
        # one estimate, repeated, is no posterior
        rng = np.random.default_rng(1)
        table = calibration_tests(np.zeros((8, 300)), rng.standard_normal(300))
        assert_array_equal(table["verdict"], "too narrow")

    def test_samples_and_truth_all_alike(self):
        table = calibration_tests(np.ones((8, 300)), np.ones(300))
        said = dict(zip(table["metric"], table["verdict"], strict=True))
        assert said.pop("spread_skill") == ""
        assert set(said.values()) == {"honest"}

    def test_too_few_cases_do_not_make_it_honest(self):
        table = calibration_tests(*gaussian(n=12, width=0.8))
        assert_array_equal(table["verdict"][table["p_value"] >= 0.01], "too few")
        assert_array_equal(calibration_tests(*gaussian(n=30))["verdict"], "honest")

    def test_few_cases_can_be_enough_to_find_fault(self):
        table = calibration_tests(*gaussian(n=12, width=0.1))
        assert_array_equal(table["verdict"][table["p_value"] < 0.01], "too narrow")
        assert np.any(table["p_value"] < 0.01)


def test_false_alarms():
    """p-values are uniform for an honest posterior of any shape, with few cases and samples."""
    tables = [
        calibration_tests(*skewed(m=5, n=40, seed=seed), seed=seed, n_exchanges=49) for seed in range(150)
    ]
    p_values = np.array([table["p_value"] for table in tables])
    assert p_values.shape == (150, 12)
    for limit in (0.12, 0.52):
        fraction = np.mean(p_values <= limit, axis=0)
        assert np.all(np.abs(fraction - limit) < 4 * np.sqrt(limit * (1 - limit) / 150))


class TestValues:
    @pytest.fixture
    def table(self):
        return calibration_tests(*skewed(m=6, n=50))

    def mean_scores(self, score):
        """Average a score over the cases, for the actual and for every choice of the truth."""
        data = standardized(*skewed(m=6, n=50))
        return score(*data).mean(axis=0), np.mean([score(*c).mean(axis=0) for c in choices(*data)], axis=0)

    def test_crps(self, table):
        actual, expected = self.mean_scores(crps)
        for i in range(2):
            row = pick(table, str(i), "crps")
            assert_allclose([row["value"], row["expected"]], [actual[i], expected[i]], rtol=1e-12)

    def test_energy_score(self, table):
        row = pick(table, "all", "energy_score")
        assert_allclose([row["value"], row["expected"]], self.mean_scores(energy_score), rtol=1e-12)

    def test_error(self, table):
        data = standardized(*skewed(m=6, n=50))
        variance = np.var([energy_score(*choice) for choice in choices(*data)], axis=0)
        assert_allclose(pick(table, "all", "energy_score")["error"], np.sqrt(variance.mean() / 50), rtol=0.1)

    def test_spread_skill(self, table):
        samples, truth = standardized(*skewed(m=6, n=50))
        for i in range(2):
            row = pick(table, str(i), "spread_skill")
            assert_allclose(row["value"], spread_skill(samples[..., i], truth[..., i]), rtol=1e-12)
            assert_allclose(row["expected"], 1, rtol=1e-12)

    def test_coverage_is_the_mean_over_random_numbers(self, table):
        samples, truth = (values[..., 0] for values in skewed(m=6, n=50))
        for level in (0.68, 0.95):
            row = pick(table, "0", f"coverage_{100 * level:g}")
            fractions = [coverage(samples, truth, level, seed=seed)[0] for seed in range(400)]
            assert abs(row["value"] - np.mean(fractions)) < 4 * np.std(fractions) / 20 + 1e-12
            assert_allclose(row["expected"], level, rtol=1e-12)

    def test_crps_of_gaussians(self):
        # |x - y| of two of N(0, 1) is 2 / sqrt(pi) on average, and the fair CRPS half of that
        table = calibration_tests(*gaussian(m=50, n=400), n_exchanges=9)
        assert_allclose(table["expected"][table["metric"] == "crps"], 1 / np.sqrt(np.pi), rtol=0.02)

    def test_rank_histogram_of_uniform_ranks(self):
        samples = np.tile(np.arange(4.0)[:, None], 100)
        table = calibration_tests(samples, np.arange(100) % 5 - 0.5)
        row = table[table["metric"] == "rank_histogram"][0]
        assert_allclose(row["value"], 0, atol=1e-20)
        assert_allclose(row["p_value"], 1)

    def test_sum_of_all_components_is_chi_square(self):
        # of 4 samples there are 4 components, which make the whole
        rank = np.repeat(np.arange(5), [10, 30, 20, 25, 15])
        table = calibration_tests(np.tile(np.arange(4.0)[:, None], 100), rank - 0.5)
        row = table[table["metric"] == "rank_histogram"][0]
        assert_allclose(row["value"], (10**2 + 10**2 + 0 + 5**2 + 5**2) / 20, rtol=1e-12)


class TestFeatures:
    def test_names_and_units(self):
        samples, truth = gaussian(m=8, n=200)
        expected = calibration_tests(samples, truth)
        by_name = {"flux": samples[..., 0] * u.Jy, "radius": samples[..., 1] * u.pix}
        catalogue = QTable({"flux": 1e3 * truth[:, 0] * u.mJy, "radius": truth[:, 1] * u.pix})
        table = calibration_tests(by_name, catalogue)
        assert_array_equal(table["feature"], ["flux"] * 5 + ["radius"] * 5 + ["all"] * 2)
        for name in ("value", "expected", "error", "p_value"):
            assert_allclose(table[name], expected[name], rtol=1e-9)

    def test_one_feature(self):
        samples, truth = (values[..., 0] for values in gaussian(m=8, n=200))
        table = calibration_tests(samples, truth)
        assert_array_equal(table["metric"], METRICS + JOINT)
        scores = table["value"][(table["metric"] == "crps") | (table["metric"] == "energy_score")]
        assert_allclose(scores[0], scores[1], rtol=1e-12)

    def test_scale_of_a_case_does_not_matter(self):
        samples, truth = gaussian(m=8, n=200)
        scale = 10 ** np.random.default_rng(1).uniform(-3, 3, (200, 2))
        expected, table = calibration_tests(samples, truth), calibration_tests(scale * samples, scale * truth)
        for name in ("value", "p_value"):
            assert_allclose(table[name][:-1], expected[name][:-1], rtol=1e-9)  # all but TARP

    def test_invalid(self):
        samples, truth = gaussian(m=8, n=200)
        mask = np.zeros((200, 2), bool)
        mask[:50, 0] = True
        table = calibration_tests(samples, truth, mask=mask)
        assert_array_equal(table["n"], [150] * 5 + [200] * 5 + [150] * 2)
        samples[3, :50, 0] = np.nan
        assert_array_equal(calibration_tests(samples, truth)["value"], table["value"])
        by_name = ({str(i): values[..., i] for i in range(2)} for values in (samples, truth))
        assert_array_equal(calibration_tests(*by_name)["value"], table["value"])

    def test_nothing_left(self):
        table = calibration_tests(*gaussian(m=8, n=20), mask=True)
        assert_array_equal(table["n"], 0)
        assert_array_equal(table["verdict"], "too few")
        for name in ("value", "expected", "error", "p_value"):
            assert np.isnan(table[name]).all()

    def test_errors(self):
        samples, truth = gaussian(m=8, n=20)
        with pytest.raises(ValueError, match="levels must lie between 0 and 1"):
            calibration_tests(samples, truth, levels=1.0)
        with pytest.raises(ValueError, match="significance must lie between 0 and 1, not 5"):
            calibration_tests(samples, truth, significance=5)
        with pytest.raises(ValueError, match="n_exchanges must be at least 1, not 0"):
            calibration_tests(samples, truth, n_exchanges=0)
        with pytest.raises(ValueError, match=r"truth must have the shape \(n,\) or \(n, n_features\)"):
            calibration_tests(samples[..., None], truth[..., None])
        with pytest.raises(TypeError, match="truth must have names as samples have, but is of type ndarray"):
            calibration_tests({"flux": samples[..., 0]}, truth[..., 0])
        with pytest.raises(ValueError, match=r"truth must have the names of samples, but lacks \['flux'\]"):
            calibration_tests({"flux": samples[..., 0]}, {"radius": truth[..., 0]})
        with pytest.raises(ValueError, match="samples of every feature must have the same shape"):
            calibration_tests(
                {"a": samples[..., 0], "b": samples[:, 1:, 1]}, {"a": truth[:, 0], "b": truth[1:, 1]}
            )


class TestTable:
    def test_levels(self):
        samples, truth = (values[..., 0] for values in gaussian(m=8, n=100))
        table = calibration_tests(samples, truth, levels=(0.5, 0.9, 0.955))
        assert_array_equal(table["metric"][:3], ["coverage_50", "coverage_90", "coverage_95.5"])
        assert_allclose(table["expected"][:3], [0.5, 0.9, 0.955])

    def test_significance(self):
        samples, truth = (values[..., 0] for values in gaussian(m=8, n=100, width=0.9))
        strict, lenient = (calibration_tests(samples, truth, significance=p) for p in (0.99, 1e-9))
        assert_array_equal(strict["p_value"], lenient["p_value"])
        assert_array_equal(strict["verdict"] == "honest", strict["p_value"] >= 0.99)
        assert_array_equal(lenient["verdict"], "honest")

    def test_p_value_counts_exchanges(self):
        samples, truth = (values[..., 0] for values in gaussian(m=8, n=1000, width=0.5))
        table = calibration_tests(samples, truth, n_exchanges=49)
        assert_allclose(table["p_value"][table["metric"] == "crps"], 2 / 50)

    def test_seed(self):
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        data = gaussian(m=8, n=100)
        one, same, other = (calibration_tests(*data, seed=seed)["p_value"] for seed in (1, 1, 2))
        assert_array_equal(one, same)
        assert np.any(one != other)
        assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def test_round_trip(self, tmp_path):
        table = calibration_tests(*gaussian(m=8, n=100))
        table.write(tmp_path / "tests.ecsv")
        read = QTable.read(tmp_path / "tests.ecsv")
        assert read.meta == table.meta
        assert read.meta["n_samples"] == 8
        for name in table.colnames:
            assert_array_equal(read[name], table[name])
            assert read[name].info.description == table[name].info.description != ""

    def test_input_stays(self):
        samples, truth = gaussian(m=8, n=100)
        copies = samples.copy(), truth.copy()
        calibration_tests(samples, truth)
        assert_array_equal(samples, copies[0])
        assert_array_equal(truth, copies[1])


def test_coverage_of_narrow_gaussians():
    """The value is what it must be for 39 samples of half the width, but for the noise of 1500 cases."""
    samples, truth = (values[..., 0] for values in gaussian(m=39, n=1500, width=0.5))
    value = calibration_tests(samples, truth, levels=0.8, n_exchanges=9)["value"][0]
    # with 39 samples the interval ends with the 4th sample and its mirror image
    end = quad(lambda q: beta.pdf(q, 4, 36) * norm.cdf(0.5 * norm.ppf(q)), 0, 1)[0]
    assert abs(value - (1 - 2 * end)) < 4 * np.sqrt(0.25 / 1500)

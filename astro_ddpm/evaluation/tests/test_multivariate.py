# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the scores of vectors.
"""

import math

import astropy.units as u
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import gamma
from scipy.stats import binom

from astro_ddpm.evaluation import crps, energy_score, tarp


def gaussian(m, n, d, width=1.0, bias=0.0, seed=0, prior=3.0):
    """Make samples N(c + bias, width^2 S) round centers c of a truth N(c, S), correlated by 0.5."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(0.5 * np.eye(d) + 0.5)
    center = prior * rng.standard_normal((n, d))
    samples = center + bias + width * rng.standard_normal((m, n, d)) @ root.T
    return samples, center + rng.standard_normal((n, d)) @ root.T


class TestEnergyScore:
    @pytest.mark.parametrize("m", [2, 3, 9])
    def test_brute_force(self, m):
        samples, truth = gaussian(m, 12, 3)
        pairs = [
            np.sqrt(((samples[i] - samples[j]) ** 2).sum(axis=1))
            for i in range(m)
            for j in range(m)
            if i != j
        ]
        to_truth = np.sqrt(((samples - truth) ** 2).sum(axis=2)).mean(axis=0)
        assert_allclose(energy_score(samples, truth), to_truth - np.mean(pairs, axis=0) / 2, atol=1e-13)

    def test_one_feature_is_crps(self):
        samples, truth = gaussian(7, 30, 1)
        assert_allclose(energy_score(samples, truth), crps(samples[..., 0], truth[..., 0]), atol=1e-13)

    def test_scoringrules(self):
        scoringrules = pytest.importorskip("scoringrules")
        samples, truth = gaussian(6, 25, 4)
        theirs = scoringrules.es_ensemble(truth, np.moveaxis(samples, 0, 1), estimator="fair")
        assert_allclose(energy_score(samples, truth), theirs, rtol=1e-10)

    @pytest.mark.parametrize("m", [2, 10])
    @pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
    def test_expectation_for_gaussians(self, m, width):
        # the mean length of a vector of N(0, 1) in d dimensions is sqrt(2) g, for any number of samples
        d, n = 3, 30000
        g = gamma((d + 1) / 2) / gamma(d / 2)
        rng = np.random.default_rng(2)
        score = energy_score(width * rng.standard_normal((m, n, d)), rng.standard_normal((n, d)))
        expected = g * (np.sqrt(2 * (1 + width**2)) - width)
        assert abs(score.mean() - expected) < 4 * score.std() / np.sqrt(n)

    def test_notices_correlations(self):
        # what the scores of single features do not
        rng = np.random.default_rng(3)
        truth = rng.standard_normal((20000, 1)) * [1, 1]
        same = rng.standard_normal((4, 20000, 1)) * [1, 1]
        apart = rng.standard_normal((4, 20000, 2))
        error = 4 * energy_score(same, truth).std() / np.sqrt(20000)
        assert energy_score(apart, truth).mean() > energy_score(same, truth).mean() + error
        assert abs(crps(apart, truth).mean() - crps(same, truth).mean()) < error

    def test_rotation_and_scale(self):
        samples, truth = gaussian(5, 20, 3)
        turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
        expected = 2 * energy_score(samples, truth)
        assert_allclose(energy_score(7 + 2 * samples @ turn, 7 + 2 * truth @ turn), expected, atol=1e-12)

    def test_other_shapes(self):
        samples, truth = gaussian(5, 20, 3)
        folded = energy_score(samples.reshape(5, 4, 5, 3), truth.reshape(4, 5, 3))
        assert_array_equal(folded.ravel(), energy_score(samples, truth))
        assert energy_score(samples[:, 0], truth[0]) == energy_score(samples, truth)[0]

    def test_unit(self):
        samples, truth = gaussian(5, 20, 3)
        score = energy_score(samples * u.Jy, 1e3 * truth * u.mJy)
        assert score.unit == u.mJy
        assert_allclose(score.to_value(u.Jy), energy_score(samples, truth), rtol=1e-10)

    def test_invalid(self):
        samples, truth = gaussian(5, 20, 3)
        expected = energy_score(samples, truth)
        mask = np.zeros((20, 3), bool)
        mask[4, 1] = True
        masked = energy_score(samples, truth, mask=mask)
        assert_array_equal(np.isnan(masked), mask.any(axis=1))
        samples[2, 4, 0] = np.inf
        assert_array_equal(energy_score(samples, truth), masked)
        assert_array_equal(masked[~mask.any(axis=1)], expected[~mask.any(axis=1)])

    def test_errors(self):
        samples, truth = gaussian(5, 20, 3)
        with pytest.raises(ValueError, match="truth must have features along its last axis"):
            energy_score([1.0, 2.0], 3.0)
        with pytest.raises(ValueError, match=r"samples must have the shape \(n_samples, \*\(20, 2\)\)"):
            energy_score(samples, truth[:, :2])
        with pytest.raises(TypeError, match="samples and truth must both have a unit, or neither"):
            energy_score(samples * u.Jy, truth)


class TestTARP:
    LEVELS = np.linspace(0.05, 0.95, 19)

    @pytest.mark.parametrize("m", [2, 9, 40])
    @pytest.mark.parametrize("d", [1, 4])
    def test_honest(self, m, d):
        fraction, _ = tarp(*gaussian(m, 5000, d), self.LEVELS)
        low, high = np.array(binom.interval(1 - 6e-5, 5000, self.LEVELS)) / 5000
        assert np.all((low <= fraction) & (fraction <= high))

    def test_p_value_is_uniform(self):
        p_values = np.array([tarp(*gaussian(8, 300, 3, seed=seed), seed=seed)[1] for seed in range(300)])
        for limit in (0.05, 0.3, 0.7):
            assert abs(np.mean(p_values < limit) - limit) < 4 * np.sqrt(limit * (1 - limit) / 300)

    @pytest.mark.parametrize("prior", [0.1, 1.0, 10.0])
    @pytest.mark.parametrize(("width", "bias"), [(0.8, 0), (1.25, 0), (1.0, 1.0)])
    def test_dishonest(self, width, bias, prior):
        samples, truth = gaussian(32, 1000, 3, width, bias, prior=prior)
        assert tarp(samples, truth)[1] < 1e-3

    def test_brute_force(self):
        samples, truth = gaussian(9, 200, 2)
        references = np.random.default_rng(1).standard_normal((200, 2))
        scale = np.concatenate([samples, truth[None]]).std(axis=(0, 1))
        nearer = [
            sum(math.dist(x[i] / scale, r / scale) < math.dist(y / scale, r / scale) for x in samples)
            for i, (y, r) in enumerate(zip(truth, references, strict=True))
        ]
        # (R + U) / 10 is below 0.5 if fewer than 5 of 9 samples are nearer, whatever U
        fraction, _ = tarp(samples, truth, 0.5, references=references)
        assert fraction == np.mean(np.array(nearer) < 5)

    @pytest.mark.parametrize("width", [0.5, 1.0])
    def test_tarp(self, width):
        # theirs is the fraction of truths for which less than a part alpha of the samples is nearer
        package = pytest.importorskip("tarp")
        state = np.random.get_state()  # noqa: NPY002
        samples, truth = gaussian(99, 1000, 3, width)
        scale = np.concatenate([samples, truth[None]]).std(axis=(0, 1))
        samples, truth = samples / scale, truth / scale
        references = np.random.default_rng(1).standard_normal((1000, 3))
        theirs, alpha = package.get_tarp_coverage(samples, truth, references=references, seed=1)
        np.random.set_state(state)  # noqa: NPY002
        fraction, _ = tarp(samples, truth, alpha[1:-1], references=references)
        assert_allclose(fraction, theirs[1:-1], atol=0.02)

    def test_pixels_hide_a_wrong_flux(self):
        # why the docstring warns of it: all fluxes are too large by one standard deviation
        rng = np.random.default_rng(4)
        truth, samples = rng.standard_normal((400, 256)), rng.standard_normal((16, 400, 256))
        samples += 1 / np.sqrt(256)
        assert tarp(samples, truth)[1] > 0.01
        assert tarp(samples.sum(axis=2, keepdims=True), truth.sum(axis=1, keepdims=True))[1] < 1e-6

    def test_features_count_alike(self):
        samples, truth = gaussian(8, 300, 3)
        factor, offset = np.array([1e-3, 1, 1e4]), np.array([5, -2e3, 7])
        expected = tarp(samples, truth, self.LEVELS)
        result = tarp(factor * samples + offset, factor * truth + offset, self.LEVELS)
        assert_array_equal(result[0], expected[0])
        assert_allclose(result[1], expected[1], rtol=1e-10)

    def test_unit(self):
        samples, truth = gaussian(8, 300, 3)
        references = np.zeros((300, 3))
        result = tarp(samples * u.Jy, 1e3 * truth * u.mJy, references=references * u.uJy)
        expected = tarp(samples, truth, references=references)
        assert_array_equal(result[0], expected[0])
        assert result[1] == expected[1]
        with pytest.raises(TypeError, match="references and truth must both have a unit, or neither"):
            tarp(samples * u.Jy, truth * u.Jy, references=references)

    def test_invalid(self):
        samples, truth = gaussian(8, 300, 3)
        references = np.random.default_rng(1).standard_normal((300, 3))
        mask = np.arange(300) % 3 == 0
        expected = tarp(samples[:, ~mask], truth[~mask], references=references[~mask])
        result = tarp(samples, truth, references=references, mask=mask[:, None] & [True, False, False])
        assert_array_equal(result[0], expected[0])
        truth[mask, 2] = np.nan
        assert_array_equal(tarp(samples, truth, references=references)[0], expected[0])
        assert np.isnan(tarp(samples, truth, mask=True)[0]).all()
        assert math.isnan(tarp(samples, truth, mask=True)[1])

    def test_ties_are_random(self):
        fraction, p_value = tarp(np.zeros((5, 2000, 2)), np.zeros((2000, 2)))
        low, high = np.array(binom.interval(0.999, 2000, (0.68, 0.95))) / 2000
        assert np.all((low <= fraction) & (fraction <= high))
        assert p_value > 1e-3

    def test_seed(self):
        samples, truth = gaussian(8, 300, 3)
        one, same, other = (tarp(samples, truth, seed=seed)[1] for seed in (1, 1, 2))
        assert one == same != other

    def test_errors(self):
        samples, truth = gaussian(5, 20, 3)
        with pytest.raises(ValueError, match="levels must lie between 0 and 1"):
            tarp(samples, truth, 1.0)
        with pytest.raises(ValueError, match=r"truth must have the shape \(n, n_features\), not \(20,\)"):
            tarp(samples[..., 0], truth[..., 0])
        with pytest.raises(ValueError, match=r"references must have the shape \(20, 3\) of truth"):
            tarp(samples, truth, references=np.zeros((20, 2)))

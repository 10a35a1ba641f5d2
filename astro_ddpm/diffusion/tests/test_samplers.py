# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the samplers module: exact answers for Gaussian targets, where samplers are linear.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from astro_ddpm.diffusion import (
    cosine_levels,
    log_uniform_levels,
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
)

SAMPLERS = [sample_ddpm, sample_ddim, sample_dpmpp_2m]


def karras_levels(n, sigma_min=0.002, sigma_max=80.0, rho=7):
    """Karras et al. 2022, equation 5."""
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    return torch.cat([ramp**rho, ramp.new_zeros(1)])


def gaussian_denoiser(mean, std):
    """Return the expectation of a Gaussian given itself with noise: Bayes in closed form."""

    def denoise(x, sigma):
        return mean + std**2 / (std**2 + sigma**2) * (x - mean)

    return denoise


def spread(sampler, levels, std):
    """
    Ratio of the sampled standard deviation to the true one, exactly.

    Element j of the state is the coefficient of the j-th independent unit noise: the start is number 0,
    the noise of step i number i + 1. The denoiser of a Gaussian of zero mean is a multiplication, so
    it acts on the coefficients as on the image.
    """
    basis = torch.eye(len(levels) + 1, dtype=torch.float64)
    options = {"noise": lambda i: basis[i + 1]} if sampler is sample_ddpm else {}
    x = sampler(gaussian_denoiser(0, std), levels[0] * basis[0], levels, **options)
    return float(x.norm()) / std


def largest_error(sampler, levels):
    ratios = np.array([spread(sampler, levels, std) for std in np.geomspace(0.3, 4, 60)])
    return ratios[np.abs(ratios - 1).argmax()] - 1


class TestGaussian:
    @pytest.mark.parametrize("std", [0.05, 0.5, 3.0])
    @pytest.mark.parametrize("n", [1, 2, 10, 36])
    def test_spread_follows_recursion(self, n, std):
        # the same from the other side: propagate gain and variance instead of draws
        levels = karras_levels(n)
        gain, variance = 1.0, float(levels[0]) ** 2
        for high, low in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
            shrink = std**2 / (std**2 + high**2)
            gain *= shrink + low / high * (1 - shrink)
            kept = low**2 / high**2
            variance = (shrink + kept * (1 - shrink)) ** 2 * variance + low**2 * (1 - kept)
        assert_allclose(spread(sample_ddim, levels, std), gain * levels[0] / std, rtol=1e-12)
        assert_allclose(spread(sample_ddpm, levels, std), np.sqrt(variance) / std, rtol=1e-12)

    @pytest.mark.parametrize(
        ("sampler", "table"),
        [
            (
                sample_ddpm,
                {
                    10: (0.50, 0.60, 0.66),
                    20: (0.69, 0.76, 0.80),
                    36: (0.80, 0.85, 0.88),
                    100: (0.92, 0.94, 0.95),
                },
            ),
            (
                sample_ddim,
                {
                    10: (0.64, 0.73, 0.78),
                    20: (0.81, 0.86, 0.89),
                    36: (0.89, 0.92, 0.94),
                    100: (0.96, 0.97, 0.98),
                },
            ),
            (
                sample_dpmpp_2m,
                {
                    10: (1.00, 1.16, 1.14),
                    20: (1.07, 1.05, 1.03),
                    36: (1.02, 1.01, 1.01),
                    100: (1.00, 1.00, 1.00),
                },
            ),
        ],
    )
    def test_published_table(self, sampler, table):
        # the documentation rests its advice on these numbers; Karras levels 0.002 to 80, rho = 7
        ratios = [[spread(sampler, karras_levels(n), s) for s in (0.05, 0.5, 3)] for n in table]
        assert_allclose(ratios, list(table.values()), atol=0.005)

    @pytest.mark.parametrize(("n", "table"), [(10, (1.02, 1.04, 1.04)), (20, (1.02, 1.02, 1.02))])
    def test_log_uniform_table(self, n, table):
        levels = log_uniform_levels(n, 0.002, 80)
        ratios = [spread(sample_dpmpp_2m, levels, std) for std in (0.05, 0.5, 3)]
        assert_allclose(ratios, table, atol=0.005)

    @pytest.mark.parametrize(("n", "error"), [(6, 0.019), (8, 0.031), (10, 0.025), (16, 0.011), (20, 0.013)])
    def test_default_levels_have_the_promised_spread(self, n, error):
        assert_allclose(abs(largest_error(sample_dpmpp_2m, log_uniform_levels(n))), error, atol=0.0006)

    @pytest.mark.parametrize(("n", "error"), [(6, 0.30), (8, 0.23), (10, 0.18), (16, 0.12), (20, 0.10)])
    def test_ddim_is_too_narrow(self, n, error):
        assert_allclose(-largest_error(sample_ddim, log_uniform_levels(n)), error, atol=0.006)

    @pytest.mark.parametrize(("std", "ratio"), [(0.2, 1.01), (0.1, 0.98), (0.05, 0.90)])
    def test_posteriors_narrower_than_the_levels(self, std, ratio):
        assert_allclose(spread(sample_dpmpp_2m, log_uniform_levels(10), std), ratio, atol=0.005)

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_mean_is_kept(self, sampler):
        mean = torch.linspace(-1e4, 1e4, 11, dtype=torch.float64)
        options = {"noise": lambda i: torch.zeros_like(mean)} if sampler is sample_ddpm else {}
        x = sampler(gaussian_denoiser(mean, 0.7), mean, log_uniform_levels(10), **options)
        assert_allclose(x, mean, rtol=1e-13, atol=1e-9)

    def test_deterministic_samplers_scale_with_the_start(self):
        # multiplying the start by tau multiplies the spread of draws by tau
        start = torch.tensor([1.0, 1.7], dtype=torch.float64) * 20
        for sampler in (sample_ddim, sample_dpmpp_2m):
            one, tau = sampler(gaussian_denoiser(0, 0.7), start, log_uniform_levels(10))
            assert_allclose(tau / one, 1.7, rtol=1e-12)


class TestConvergence:
    """Halving the steps divides the error by 2 at first order, by 4 at second."""

    @staticmethod
    def limit(sampler, low, high, std):
        """
        Spread in the limit of many steps between the highest and the lowest level.

        The start lacks the variance of the data, the last step is the denoiser; both are part of it.
        The probability-flow equation of a Gaussian keeps x / sqrt(std^2 + sigma^2); the stochastic one
        draws from the Gaussian of x at the lowest level given x at the highest.
        """
        gain = (std**2 + low**2) / (std**2 + high**2)
        if sampler is sample_ddpm:
            variance = gain**2 * high**2 + (std**2 + low**2) - gain**2 * (std**2 + high**2)
        else:
            variance = gain * high**2
        return std / (std**2 + low**2) * np.sqrt(variance)

    @pytest.mark.parametrize("std", [0.1, 0.5, 3.0])
    @pytest.mark.parametrize(("sampler", "order"), [(sample_ddpm, 1), (sample_ddim, 1), (sample_dpmpp_2m, 2)])
    def test_order(self, sampler, order, std):
        exact = self.limit(sampler, 0.02, 20, std)
        errors = [spread(sampler, log_uniform_levels(n + 1), std) - exact for n in (200, 400, 800)]
        assert abs(errors[-1]) < 0.01
        assert_allclose(np.divide(errors[:-1], errors[1:]), 2**order, rtol=0.06)

    @pytest.mark.parametrize("std", [0.1, 0.5, 3.0])
    def test_wide_range_of_levels_gives_the_true_spread(self, std):
        ratio = spread(sample_dpmpp_2m, log_uniform_levels(1000, 1e-4, 1e4), std)
        assert_allclose(ratio, 1, atol=2e-4)


class TestMixture:
    """Two Gaussians of unequal weight, place and width: multimodal, and still exactly known."""

    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([-1.75, 0.75], dtype=torch.float64)
    stds = torch.tensor([0.25, 0.5], dtype=torch.float64)

    def denoise(self, x, sigma):
        """Return the expectation: the means of both posteriors, weighted by their evidence."""
        x = x[:, None]
        variance = self.stds**2 + sigma**2
        evidence = self.weights.log() - 0.5 * (variance.log() + (x - self.means) ** 2 / variance)
        posterior = self.means + self.stds**2 / variance * (x - self.means)
        return (evidence.softmax(1) * posterior).sum(1)

    def cdf(self, x):
        parts = norm.cdf(x[:, None], self.means.numpy(), self.stds.numpy())
        return parts @ self.weights.numpy()

    def check(self, x, tolerance):
        """Compare quantiles (by the KS distance), weights and moments of draws with the truth."""
        x = np.sort(x.numpy())
        expected = (np.arange(len(x)) + 0.5) / len(x)
        assert np.abs(self.cdf(x) - expected).max() < tolerance
        assert abs(np.mean(x < -1) - self.cdf(np.array([-1.0]))[0]) < tolerance
        variance = float(self.weights @ (self.stds**2 + self.means**2))  # the mean is zero
        assert abs(x.mean()) < 3 * tolerance
        assert_allclose(x.std(), variance**0.5, rtol=3 * tolerance)

    def start(self, levels, n=4001):
        """Return all quantiles of the start: draws without sampling noise."""
        return levels[0] * torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)

    def test_mean_is_zero(self):
        assert abs(float(self.weights @ self.means)) < 1e-12

    @pytest.mark.parametrize(("n", "tolerance"), [(10, 0.04), (20, 0.008), (40, 0.002), (100, 0.0006)])
    def test_dpmpp_2m(self, n, tolerance):
        levels = log_uniform_levels(n, 0.02, 40)
        self.check(sample_dpmpp_2m(self.denoise, self.start(levels), levels), tolerance)

    def test_dpmpp_2m_beats_ddim(self):
        levels = log_uniform_levels(20, 0.02, 40)
        x = sample_ddim(self.denoise, self.start(levels), levels)
        with pytest.raises(AssertionError):
            self.check(x, 0.03)
        self.check(sample_dpmpp_2m(self.denoise, self.start(levels), levels), 0.01)

    def test_ddpm(self):
        levels = cosine_levels(200)
        generator = torch.Generator().manual_seed(0)
        n = 4001

        def noise(i):
            return torch.randn(n, generator=generator, dtype=torch.float64)

        x = sample_ddpm(self.denoise, levels[0] * noise(-1), levels, noise=noise)
        # 1.95 / sqrt(n) is the KS distance of independent draws that one in a thousand exceeds
        self.check(x, 1.95 / np.sqrt(n))


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySampler:
    @staticmethod
    def run(sampler, levels, denoiser=None, callback=None):
        x = levels[0] * torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(1, 1, 3, 4)
        options = {"noise": lambda i: torch.cos(x + i)} if sampler is sample_ddpm else {}
        return sampler(denoiser or gaussian_denoiser(0.3, 0.5), x, levels, callback=callback, **options)

    def test_ends_with_the_denoiser(self, sampler):
        outputs = []

        def denoise(x, sigma):
            outputs.append(torch.tanh(x) / (1 + sigma))
            return outputs[-1]

        x = self.run(sampler, log_uniform_levels(6), denoise)
        assert_array_equal(x, outputs[-1])
        assert len(outputs) == 6

    def test_denoiser_sees_every_level_but_zero(self, sampler):
        seen = []

        def denoise(x, sigma):
            seen.append(float(sigma))
            return 0 * x

        levels = log_uniform_levels(6)
        self.run(sampler, levels, denoise)
        assert seen == levels[:-1].tolist()

    def test_callback(self, sampler):
        calls = []
        x = self.run(sampler, log_uniform_levels(5), callback=lambda i, x: calls.append((i, x.clone())))
        assert [i for i, _ in calls] == list(range(5))
        assert_array_equal(calls[-1][1], x)
        assert all((a != b).any() for (_, a), (_, b) in pairwise(calls))

    def test_start_is_not_changed(self, sampler):
        start = torch.ones(4, dtype=torch.float64)
        options = {"noise": lambda i: start} if sampler is sample_ddpm else {}
        sampler(gaussian_denoiser(0, 1), start, log_uniform_levels(3), **options)
        assert_array_equal(start, 1)

    def test_keeps_float32(self, sampler):
        levels = log_uniform_levels(8, dtype=torch.float32)
        start = levels[0] * torch.linspace(-1, 1, 5)
        options = {"noise": lambda i: torch.ones(5)} if sampler is sample_ddpm else {}
        x = sampler(gaussian_denoiser(0.3, 0.5), start, levels, **options)
        assert x.dtype == torch.float32
        if options:
            options = {"noise": lambda i: torch.ones(5, dtype=torch.float64)}
        exact = sampler(gaussian_denoiser(0.3, 0.5), start.double(), levels.double(), **options)
        assert_allclose(x, exact, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        "levels",
        [
            torch.tensor([2.0, 1.0]),
            torch.tensor([1.0, 2.0, 0.0]),
            torch.tensor([1.0, 1.0, 0.0]),
            torch.tensor([1.0, 0.0, -1.0]),
            torch.tensor([float("nan"), 1.0, 0.0]),
            torch.tensor([[2.0, 0.0]]),
            torch.tensor([0.0]),
            torch.tensor(0.0),
        ],
    )
    def test_bad_levels(self, sampler, levels):
        options = {"noise": lambda i: 0} if sampler is sample_ddpm else {}
        with pytest.raises(ValueError, match="falls strictly and ends at zero"):
            sampler(gaussian_denoiser(0, 1), torch.zeros(3), levels, **options)

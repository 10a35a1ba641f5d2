# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the fitted module: exact answers for Gaussian targets.
"""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.diffusion import FittedSolver, fit_solver, sample_fitted

LEVELS = (4.0, 1.2, 0.5, 0.22)
SIZE = 32


def white(n, seed=0):
    return torch.randn(n, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_solver(n=3, widths=(0.1, 1.0)):
    rng = np.random.default_rng(0)
    weights = [[rng.standard_normal(3).tolist() for _ in range(k + 1)] for k in range(n)]
    return FittedSolver.from_dict({"levels": LEVELS[:n], "weights": weights, "widths": widths})


def gaussian(mean, variance):
    """Return the denoiser of a stationary Gaussian field whose modes have given variances."""

    def denoise(x, sigma):
        gain = variance / (variance + sigma**2)
        return mean + torch.fft.ifft2(gain * torch.fft.fft2(x - mean)).real

    return denoise


def mode_variance(width, slope):
    """Return variances of modes of mean square ``width**2`` that fall with frequency."""
    f = torch.fft.fftfreq(SIZE, dtype=torch.float64)
    power = 1 / (1 + (slope * torch.hypot(f[:, None], f[None])) ** 2)
    return power * width**2 / power.mean()


class TestGaussian:
    def test_independent_pixels_are_exact(self):
        # whatever the weights, for there is nothing to correct
        noise = white(2)
        mean, std = white(1, seed=1), 0.1 + white(1, seed=2).abs()

        def denoise(x, sigma):
            return mean + std**2 / (std**2 + sigma**2) * (x - mean)

        assert_allclose(
            sample_fitted(denoise, noise, mean, std, some_solver()), mean + std * noise, rtol=1e-9
        )

    @pytest.mark.parametrize("offset", [0.0, 0.1])
    def test_correlated_pixels_within_two_percent(self, offset):
        # the denoiser knows correlations and an offset of the mean, the mean and width that it is told do not
        zero = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
        cases = [(width, slope) for width in (0.25, 0.4, 0.7) for slope in (0.0, 4.0, 8.0)]
        problems = []
        for i, (width, slope) in enumerate(cases):
            denoiser = gaussian(offset * width, mode_variance(width, slope))
            problems.append((denoiser, zero, zero + width, white(4, seed=i)))
        solver = fit_solver(problems, LEVELS)
        for (width, slope), (denoiser, mean, std, _) in zip(cases, problems, strict=True):
            variance, noise = mode_variance(width, slope), white(8, seed=99)
            draws = sample_fitted(denoiser, noise, mean, std, solver)
            truth = torch.fft.ifft2(variance.sqrt() * torch.fft.fft2(noise)).real + offset * width
            assert abs(draws.std() / truth.std() - 1) < 0.02
            assert abs(draws.mean() - truth.mean()) < 0.02 * width
            assert (draws - truth).std() < 0.02 * width

    def test_more_evaluations_are_closer(self):
        zero = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
        variance, noise = mode_variance(0.4, 8.0), white(4)
        truth = torch.fft.ifft2(variance.sqrt() * torch.fft.fft2(noise)).real
        problem = (gaussian(0, variance), zero, zero + 0.4, noise)
        errors = []
        for levels in ([0.6], [2.0, 0.4], LEVELS):
            solver = fit_solver([problem], levels, n_reference=60)
            assert solver.steps == len(levels)
            errors.append((sample_fitted(*problem[:1], noise, *problem[1:3], solver) - truth).std())
        assert errors[0] > 2 * errors[1] > 4 * errors[2]


class TestSampling:
    def test_callback_and_inputs(self):
        noise, calls = white(2), []
        mean, std = white(1, seed=1), 0.1 + white(1, seed=2).abs()
        copies = noise.clone(), mean.clone(), std.clone()
        draws = sample_fitted(
            lambda x, _: 0.5 * x, noise, mean, std, some_solver(), callback=lambda i, x: calls.append((i, x))
        )
        assert [i for i, _ in calls] == [0, 1, 2]
        assert_allclose(calls[-1][1], draws)
        for tensor, copy in zip((noise, mean, std), copies, strict=True):
            assert_array_equal(tensor, copy)

    def test_evaluations(self):
        levels = []
        noise = white(1)

        def denoise(x, sigma):
            levels.append(float(sigma))
            return 0 * x

        sample_fitted(denoise, noise, 0 * noise, 0 * noise + 1, some_solver())
        assert_allclose(levels, LEVELS[:3])

    def test_widths_beyond_the_fit_count_as_its_edges(self):
        noise = white(1)

        def draw(width, widths):
            std = 0 * noise + width
            # this denoiser gives the same output whatever the width
            return sample_fitted(
                lambda x, s: width * s / (s**2 + width**2) ** 0.5 + width**2 / (width**2 + s**2) * x,
                noise, 0 * noise, std, some_solver(widths=widths),
            ) / width  # fmt: skip

        assert_allclose(draw(50.0, (0.1, 1.0)), draw(1.0, (0.1, 1.0)), rtol=1e-9)
        assert_allclose(draw(0.001, (0.1, 1.0)), draw(0.1, (0.1, 1.0)), rtol=1e-9)
        assert abs(draw(50.0, (0.1, 100.0)) - draw(1.0, (0.1, 100.0))).max() > 0.1


class TestSolver:
    def test_round_trip(self):
        solver = some_solver()
        assert FittedSolver.from_dict(json.loads(json.dumps(solver.to_dict()))) == solver

    @pytest.mark.parametrize(
        "change",
        [
            {"levels": (1.0, 4.0, 0.5)},
            {"levels": (4.0, 4.0, 0.5)},
            {"levels": (4.0, 1.0)},
            {"levels": (4.0, 1.0, 0.0)},
            {"levels": (np.inf, 1.0, 0.5)},
            {"levels": ()},
            {"weights": [[[0, 0, 0]]]},
            {"weights": [[[0, 0]], [[0, 0]] * 2, [[0, 0]] * 3]},
            {"weights": [[[np.nan] * 3], [[0, 0, 0]] * 2, [[0, 0, 0]] * 3]},
            {"widths": (1.0, 0.1)},
            {"widths": (0.0, 0.1)},
        ],
    )
    def test_impossible(self, change):
        with pytest.raises(ValueError, match="falling positive levels"):
            FittedSolver.from_dict(some_solver().to_dict() | change)

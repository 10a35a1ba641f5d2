# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the schedules module.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from astro_ddpm.diffusion import cosine_levels, linear_levels, log_uniform_levels

SCHEDULES = [log_uniform_levels, linear_levels, cosine_levels]


@pytest.mark.parametrize("schedule", SCHEDULES)
class TestEverySchedule:
    @pytest.mark.parametrize("n", [1, 2, 10, 1000])
    def test_falls_strictly_to_zero(self, schedule, n):
        levels = schedule(n)
        assert levels.shape == (n + 1,)
        assert levels.dtype == torch.float64
        assert levels[-1] == 0
        assert (levels.diff() < 0).all()

    def test_dtype(self, schedule):
        levels = schedule(20, dtype=torch.float32)
        assert levels.dtype == torch.float32
        assert_allclose(levels, schedule(20), rtol=1e-7)

    @pytest.mark.parametrize("n", [0, -3])
    def test_too_few_steps(self, schedule, n):
        with pytest.raises(ValueError, match=f"n must be at least 1, not {n}"):
            schedule(n)


class TestLogUniformLevels:
    def test_is_a_geometric_series(self):
        levels = log_uniform_levels(7, 0.01, 10.0).numpy()
        assert_allclose(levels[:-1], np.geomspace(10, 0.01, 7), rtol=1e-14)

    def test_one_level_is_the_highest(self):
        assert_allclose(log_uniform_levels(1, 0.5, 3.0), [3, 0])

    @pytest.mark.parametrize("limits", [(0, 1), (-1, 1), (2, 1), (np.nan, 1)])
    def test_bad_limits(self, limits):
        with pytest.raises(ValueError, match="0 < sigma_min <= sigma_max"):
            log_uniform_levels(5, *limits)


class TestLinearLevels:
    @pytest.mark.parametrize("n", [1, 2, 50, 1000])
    def test_formula(self, n):
        beta = np.linspace(1e-3, 0.05, n)
        alpha_bar = np.exp(np.cumsum(np.log1p(-beta)))
        expected = np.sqrt(1 / alpha_bar - 1)[::-1]
        assert_allclose(linear_levels(n, 1e-3, 0.05)[:-1], expected, rtol=1e-10)

    def test_equal_betas_have_a_closed_form(self):
        levels = linear_levels(30, 0.1, 0.1).numpy()
        assert_allclose(levels, np.sqrt(0.9 ** -np.arange(30.0, -1, -1) - 1), rtol=1e-12)

    @pytest.mark.parametrize("limits", [(0, 0.1), (-0.1, 0.1), (0.2, 0.1), (0.1, 1)])
    def test_bad_limits(self, limits):
        with pytest.raises(ValueError, match="0 < beta_min <= beta_max < 1"):
            linear_levels(5, *limits)


class TestCosineLevels:
    @pytest.mark.parametrize(("n", "offset"), [(10, 0.008), (100, 0.008), (100, 0.1)])
    def test_closed_form(self, n, offset):
        # the betas telescope: alpha_bar(t) = f(t) / f(0) up to the last, whose beta is limited
        angle = (np.arange(n + 1) / n + offset) / (1 + offset) * np.pi / 2
        alpha_bar = np.cos(angle) ** 2 / np.cos(angle[0]) ** 2
        alpha_bar[-1] = alpha_bar[-2] * (1 - 0.999)
        assert_allclose(cosine_levels(n, offset).flip(0), np.sqrt(1 / alpha_bar - 1), rtol=1e-9, atol=1e-12)

    def test_beta_max_limits_every_step(self):
        levels = cosine_levels(40, beta_max=0.1).numpy()
        alpha_bar = 1 / (1 + levels**2)
        beta = 1 - alpha_bar[:-1] / alpha_bar[1:]
        free = 1 - 1 / (1 + cosine_levels(40).numpy() ** 2)
        assert free.max() > 0.1
        assert_allclose(beta.max(), 0.1, rtol=1e-9)

    @pytest.mark.parametrize("beta_max", [0, 1, -0.5])
    def test_bad_beta_max(self, beta_max):
        with pytest.raises(ValueError, match="beta_max must be between 0 and 1"):
            cosine_levels(5, beta_max=beta_max)


class TestDiffusers:
    """The signal fractions are those of diffusers, which computes them in float32."""

    @pytest.mark.parametrize(
        ("name", "schedule"), [("linear", linear_levels), ("squaredcos_cap_v2", cosine_levels)]
    )
    @pytest.mark.parametrize("n", [20, 100, 1000])
    def test_alpha_bar(self, name, schedule, n):
        diffusers = pytest.importorskip("diffusers")
        scheduler = diffusers.DDPMScheduler(num_train_timesteps=n, beta_schedule=name)
        alpha_bar = 1 / (1 + schedule(n)[:-1].flip(0) ** 2)
        # the last beta of the cosine is 0.999, and 1 - 0.999 has an error of 6e-8 / 0.001 in float32
        assert_allclose(alpha_bar, scheduler.alphas_cumprod, rtol=n * 1.2e-7 + 6e-5)

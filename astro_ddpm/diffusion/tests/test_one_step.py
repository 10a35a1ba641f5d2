# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the generator of one step and its score.
"""

import math

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from astro_ddpm.diffusion import OneStepGenerator, fair_crps
from astro_ddpm.evaluation.calibration import crps


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


class TestFairCRPS:
    @pytest.mark.parametrize("m", [2, 3, 8])
    def test_is_that_of_the_evaluation(self, generator, m):
        samples = torch.randn((m, 5, 7), generator=generator, dtype=torch.float64)
        target = torch.randn((5, 7), generator=generator, dtype=torch.float64)
        assert_allclose(fair_crps(samples, target), crps(samples.numpy(), target.numpy()), atol=1e-12)

    @pytest.mark.parametrize("m", [2, 6])
    @pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
    def test_expectation_for_gaussians(self, generator, m, width):
        # E|x - y| - E|x - x'| / 2 for x of standard deviation w and y of 1: differences are Gaussian, too
        n = 200_000
        samples = width * torch.randn((m, n), generator=generator, dtype=torch.float64)
        target = torch.randn(n, generator=generator, dtype=torch.float64)
        expected = math.sqrt(2 / math.pi) * (math.sqrt(1 + width**2) - width / math.sqrt(2))
        score = fair_crps(samples, target)
        assert_allclose(score.mean(), expected, atol=4 * float(score.std()) / math.sqrt(n))


class Scaled(nn.Module):
    """A network that multiplies the noise by one trained number."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, noise, level):
        return self.factor * noise


class TestOneStepGenerator:
    def test_zero_network_draws_independent_gaussians(self, generator):
        noise = torch.randn((3, 1, 4, 5), generator=generator)
        draws = OneStepGenerator(lambda noise, level: torch.zeros_like(noise))(noise, 2.0, 0.5)
        assert_allclose(draws, 2 + 0.5 * noise, rtol=1e-6)

    def test_network_gets_level_zero_and_conditions(self, generator):
        noise = torch.randn((3, 1, 4, 5), generator=generator)

        def network(noise, level, one, two):
            assert_allclose(level, [0, 0, 0])
            return one * noise + two

        draws = OneStepGenerator(network)(noise, 1.0, 3.0, 0.5, 7.0)
        assert_allclose(draws, 1 + 3 * (1.5 * noise + 7), rtol=1e-6)

    def test_loss_is_least_for_the_true_width(self, generator):
        # the data are twice as wide as the generator starts: it learns the factor 2
        module = OneStepGenerator(Scaled())
        optimizer = torch.optim.Adam(module.parameters(), 0.05)
        for _ in range(150):
            x = 2 * torch.randn((64, 1, 8, 8), generator=generator, dtype=torch.float64)
            noise = torch.randn((2, 64, 1, 8, 8), generator=generator, dtype=torch.float64)
            optimizer.zero_grad()
            module.loss(x, noise, 0.0, 1.0).backward()
            optimizer.step()
        assert_allclose(1 + float(module.network.factor.detach()), 2, rtol=0.05)

    def test_white_noise_counts_alike_at_every_scale(self, generator):
        module = OneStepGenerator(lambda noise, level: torch.zeros_like(noise))
        x = torch.randn((400, 1, 16, 16), generator=generator, dtype=torch.float64)
        noise = torch.randn((2, 400, 1, 16, 16), generator=generator, dtype=torch.float64)
        for scale in (1, 4, 16):
            loss = float(module.loss(x, noise, 0.0, 1.0, scales=(scale,)))
            assert_allclose(loss, 1 / math.sqrt(math.pi), rtol=4 * scale / math.sqrt(x.numel()))

    def test_scales_larger_than_the_image_are_left_out(self, generator):
        module = OneStepGenerator(Scaled())
        x = torch.randn((2, 1, 6, 9), generator=generator, dtype=torch.float64)
        noise = torch.randn((2, 2, 1, 6, 9), generator=generator, dtype=torch.float64)
        loss = module.loss(x, noise, 0.0, 1.0)
        assert_allclose(loss.detach(), module.loss(x, noise, 0.0, 1.0, scales=(1, 4)).detach())

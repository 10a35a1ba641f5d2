# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the denoiser module.
"""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from astro_ddpm.diffusion import (
    Denoiser,
    add_noise,
    log_uniform_levels,
    multiscale_square,
    sample_dpmpp_2m,
    stratified_levels,
)


class Zero(nn.Module):
    """A network that has learnt nothing, and notes what it is given."""

    def forward(self, x, level, *condition):
        self.x, self.level, self.condition = x, level, condition
        return torch.zeros_like(x)


class Wave(nn.Module):
    """Some function of everything that a network may use."""

    def forward(self, x, level, *condition):
        return torch.sin(3 * x + level[:, None, None, None]) + sum(condition)


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def planes(n=64, size=32):
    """Return draws of Gaussian pixels, levels, noise, and the mean and width of each pixel."""
    sigma = torch.exp(randn(n, seed=4))
    mean = 3 * randn(1, 1, size, size, seed=1)
    std = torch.exp(randn(1, 1, size, size, seed=2) / 2)
    x = mean + std * randn(n, 1, size, size)
    return x, sigma, randn(n, 1, size, size, seed=3), mean, std


class TestAddNoise:
    def test_formula(self):
        x, noise = randn(3, 1, 4, 5), randn(3, 1, 4, 5, seed=1)
        sigma = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        noised = add_noise(x, sigma, noise)
        for i in range(3):
            assert_allclose(noised[i], x[i] + i * noise[i])

    def test_one_level_for_all(self):
        x, noise = randn(3, 1, 4, 5), randn(3, 1, 4, 5, seed=1)
        assert_array_equal(add_noise(x, torch.tensor(0.5), noise), x + 0.5 * noise)


class TestStratifiedLevels:
    @staticmethod
    def uniforms(sigma, log_mean=-0.7, log_std=1.4):
        return torch.special.ndtr((torch.log(sigma.double()) - log_mean) / log_std)

    @pytest.mark.parametrize("n", [1, 2, 16, 100])
    def test_one_in_each_stratum(self, n):
        u = self.uniforms(stratified_levels(n, generator=torch.Generator().manual_seed(n)))
        offset = u.sort().values * n - torch.arange(n)
        assert (offset > -1e-3).all()
        assert (offset < 1 + 1e-3).all()

    def test_distribution(self):
        generator = torch.Generator().manual_seed(0)
        sigma = torch.cat([stratified_levels(8, 0.5, 2.0, generator) for _ in range(2000)])
        u = np.sort(self.uniforms(sigma, 0.5, 2.0).numpy())
        distance = np.abs(u - (np.arange(u.size) + 0.5) / u.size).max()
        assert distance < 1.95 / np.sqrt(u.size)  # Kolmogorov-Smirnov, one in a thousand

    def test_order_is_random(self):
        # image i of a batch must not always get the i-th stratum
        generator = torch.Generator().manual_seed(0)
        u = torch.stack([self.uniforms(stratified_levels(4, generator=generator)) for _ in range(400)])
        assert_allclose(u.mean(0), 0.5, atol=4 * (1 / 12 / 400) ** 0.5)

    def test_generator_decides(self):
        state = torch.get_rng_state()
        draws = [stratified_levels(9, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
        assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).all()
        assert_array_equal(torch.get_rng_state(), state)

    def test_finite(self):
        assert torch.isfinite(stratified_levels(100_000)).all()


class TestMultiscaleSquare:
    @pytest.mark.parametrize("scales", [(1,), (4,), (1, 4, 16)])
    def test_white_noise(self, scales):
        # block sums of white noise divided by the side have unit variance at every scale
        loss = multiscale_square(randn(256, 1, 32, 32), scales)
        n_blocks = 256 * (32 / max(scales)) ** 2
        assert abs(loss - 1) < 4 * (2 / n_blocks) ** 0.5

    @pytest.mark.parametrize("scales", [(1,), (2, 8), (1, 4, 16)])
    def test_constant(self, scales):
        loss = multiscale_square(torch.full((2, 1, 32, 48), 0.3), scales)
        assert_allclose(loss, np.mean(np.square(scales)) * 0.3**2, rtol=1e-5)

    def test_coarse_scales_see_block_sums(self):
        error = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
        error[..., 0, 0], error[..., 1, 1] = 1, -1  # invisible from afar
        assert_allclose(multiscale_square(error, (2, 4, 16)), 0, atol=1e-15)
        assert_allclose(multiscale_square(error, (1,)), 2 / 256)

    def test_least_for_the_mean(self):
        x = randn(10, 1, 32, 32).exp()  # skewed
        estimate = x.mean(0, keepdim=True).requires_grad_()
        loss = multiscale_square(x - estimate)
        (gradient,) = torch.autograd.grad(loss, estimate)
        assert_allclose(gradient, 0, atol=1e-15)
        for seed in range(3):
            other = estimate.detach() + 0.1 * randn(1, 1, 32, 32, seed=seed)
            assert multiscale_square(x - other) > loss


class TestDenoiser:
    def test_untrained_is_exact_for_gaussian_pixels(self):
        x, sigma, noise, mean, std = planes()
        noised = add_noise(x, sigma, noise)
        # Bayes: the average of measurement and prior mean, weighted by inverse variances
        precision, prior = 1 / sigma.reshape(-1, 1, 1, 1) ** 2, 1 / std**2
        expected = (precision * noised + prior * mean) / (precision + prior)
        assert_allclose(Denoiser(Zero())(noised, sigma, mean, std), expected, rtol=1e-12, atol=1e-12)

    def test_preconditioning(self):
        # the table of Karras et al. 2022, with their sigma_data
        x, sigma, _, _, _ = planes(n=4)
        data = torch.tensor(0.5, dtype=torch.float64)
        s = sigma.reshape(-1, 1, 1, 1)
        c_skip = data**2 / (s**2 + data**2)
        c_out = s * data / (s**2 + data**2).sqrt()
        c_in = 1 / (s**2 + data**2).sqrt()
        raw = Wave()(c_in * x, sigma.log() / 4, 0.2)
        result = Denoiser(Wave())(x, sigma, torch.zeros_like(data), data, 0.2)
        assert_allclose(result, c_skip * x + c_out * raw, rtol=1e-12, atol=1e-12)

    def test_network_sees_unit_variance(self):
        x, sigma, noise, mean, std = planes()
        network = Zero()
        Denoiser(network)(add_noise(x, sigma, noise), sigma, mean, std)
        error = (2 / x.numel()) ** 0.5
        assert abs(network.x.var() - 1) < 4 * error
        assert abs(network.x.mean()) < 4 / x.numel() ** 0.5
        per_level = network.x.var(dim=(1, 2, 3))
        assert (abs(per_level - 1) < 5 * (2 / x[0].numel()) ** 0.5).all()

    def test_network_gets_level_and_condition(self):
        x, sigma, _, mean, std = planes(n=3)
        network = Zero()
        extra = randn(3, 2, 32, 32)
        Denoiser(network)(x, sigma, mean, std, extra)
        assert_allclose(network.level, sigma.log() / 4)
        assert network.condition[0] is extra
        Denoiser(network)(x, torch.tensor(2.0, dtype=torch.float64), mean, std)
        assert_allclose(network.level, np.full(3, np.log(2) / 4))

    def test_one_level_is_that_level_for_each(self):
        x, _, _, mean, std = planes(n=3)
        denoiser = Denoiser(Wave())
        one = denoiser(x, torch.tensor(0.7, dtype=torch.float64), mean, std)
        assert_array_equal(one, denoiser(x, torch.full((3,), 0.7, dtype=torch.float64), mean, std))

    def test_in_the_sampler(self):
        # an untrained denoiser draws Gaussian pixels of the given mean and width, each its own
        _, _, _, mean, std = planes()
        denoiser = Denoiser(Zero())
        levels = log_uniform_levels(60, 1e-3, 1e3)

        def draw(noise):
            return sample_dpmpp_2m(
                lambda x, sigma: denoiser(x, sigma, mean, std), mean + levels[0] * noise, levels
            )

        assert_allclose(draw(torch.zeros_like(mean)), mean, rtol=1e-12, atol=1e-12)
        noise = randn(2, 1, 32, 32)
        assert_allclose(draw(noise), mean + std * noise, rtol=0.01, atol=0.01 * float(std.max()))


class TestLoss:
    def test_untrained_has_one(self):
        x, sigma, noise, mean, std = planes(n=256)
        loss = Denoiser(Zero()).loss(x, sigma, noise, mean, std)
        blocks = 256 * 4 * 3  # the coarsest of three scales dominates the scatter
        assert abs(loss - 1) < 4 * (2 / blocks) ** 0.5

    def test_is_the_weighted_error_of_the_denoiser(self):
        x, sigma, noise, mean, std = planes(n=8)
        denoiser = Denoiser(Wave())
        error = denoiser(add_noise(x, sigma, noise), sigma, mean, std, 0.2) - x
        s = sigma.reshape(-1, 1, 1, 1)
        weight = (s**2 + std**2).sqrt() / (s * std)
        loss = denoiser.loss(x, sigma, noise, mean, std, 0.2)
        assert_allclose(loss, multiscale_square(weight * error), rtol=1e-10)

    def test_weight_multiplies_the_error(self):
        x, sigma, noise, mean, std = planes(n=8)
        denoiser = Denoiser(Wave())
        plain = denoiser.loss(x, sigma, noise, mean, std, 0.2)
        assert_allclose(denoiser.loss(x, sigma, noise, mean, std, 0.2, weight=std * 0 + 3), 9 * plain)
        # where the weight is zero nothing is learnt
        weight = torch.zeros_like(std)
        weight[..., :16, :] = 1
        other = x.clone()
        other[..., 16:, :] += 5
        one, two = (denoiser.loss(a, sigma, noise, mean, std, weight=weight) for a in (x, other))
        assert one == two
        assert one > 0

    def test_target_has_unit_variance_and_is_new(self):
        # what the network must return is independent of what it sees, if the data are Gaussian
        x, sigma, noise, mean, std = planes()
        seen = Zero()
        denoiser = Denoiser(seen)
        noised = add_noise(x, sigma, noise)
        s = sigma.reshape(-1, 1, 1, 1)
        target = (x - denoiser(noised, sigma, mean, std)) * (s**2 + std**2).sqrt() / (s * std)
        n = x.numel()
        assert abs(target.var() - 1) < 4 * (2 / n) ** 0.5
        assert abs((target * seen.x).mean()) < 4 / n**0.5

        class Oracle(nn.Module):
            def forward(self, x, level):
                return target

        assert_allclose(Denoiser(Oracle())(noised, sigma, mean, std), x, rtol=1e-10, atol=1e-10)
        assert_allclose(Denoiser(Oracle()).loss(x, sigma, noise, mean, std), 0, atol=1e-20)

    def test_too_small_width_is_noticed(self):
        x, sigma, noise, mean, std = planes(n=256)
        assert Denoiser(Zero()).loss(x, sigma, noise, mean, std / 2) > 1.2

    def test_gradient_reaches_the_network(self):
        x, sigma, noise, mean, std = planes(n=2)
        network = nn.Sequential(nn.Conv2d(1, 1, 1)).double()

        class Wrapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = network

            def forward(self, x, level):
                return self.inner(x)

        Denoiser(Wrapped()).loss(x, sigma, noise, mean, std).backward()
        assert all(p.grad.abs().sum() > 0 for p in network.parameters())

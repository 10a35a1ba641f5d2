# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the blocks and embedding modules.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from astro_ddpm.nn import (
    AttentionGate,
    ChannelNorm,
    Downsample,
    ResidualBlock,
    SinusoidalEmbedding,
    Starlet,
    Upsample,
)


@pytest.fixture(autouse=True)
def seeded():
    """Start every test with the same weights, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def perturbed(module):
    """Return the module in float64 with every parameter away from its initial value."""
    module = module.double()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter += 0.3 * randn(*parameter.shape, seed=seed)
    return module


def changed_pixels(function, x):
    """Mark the pixels of the result that a change of pixel (2, 3) of ``x`` reaches."""
    other = x.clone()
    other[..., 2, 3] += 5
    return (function(other) != function(x)).any(dim=1)[0].nonzero().tolist()


class TestChannelNorm:
    def test_formula(self):
        norm = perturbed(ChannelNorm(5, eps=0.1))
        x = randn(2, 5, 3, 4)
        gain = norm.gain.detach().reshape(1, 5, 1, 1)
        expected = gain * x / torch.sqrt((x**2).sum(1, keepdim=True) / 5 + 0.1)
        assert_allclose(norm(x).detach(), expected, rtol=1e-12)

    def test_unit_mean_square_at_start(self):
        y = ChannelNorm(8)(100 * randn(1, 8, 4, 4).float()).detach()
        assert_allclose((y**2).mean(1), 1, rtol=1e-5)

    def test_scale_of_the_input_does_not_matter(self):
        norm = ChannelNorm(8).double()
        x = randn(1, 8, 4, 4)
        assert_allclose(norm(1e4 * x).detach(), norm(x).detach(), rtol=1e-5)

    def test_zero_stays_zero(self):
        assert_array_equal(ChannelNorm(4)(torch.zeros(1, 4, 2, 2)).detach(), 0)

    def test_no_pixel_talks_to_another(self):
        assert changed_pixels(perturbed(ChannelNorm(4)), randn(1, 4, 6, 7)) == [[2, 3]]


class TestResidualBlock:
    @pytest.mark.parametrize("embedding_channels", [0, 6])
    def test_starts_as_identity(self, embedding_channels):
        block = ResidualBlock(4, 4, embedding_channels)
        x = randn(2, 4, 5, 5).float()
        embedding = randn(2, 6).float() if embedding_channels else None
        assert_array_equal(block(x, embedding).detach(), x)

    def test_starts_as_projection(self):
        block = ResidualBlock(4, 6).double()
        x = randn(2, 4, 5, 5)
        weight = block.skip.weight.detach()[..., 0, 0]
        expected = torch.einsum("oc,bcyx->boyx", weight, x) + block.skip.bias.detach()[:, None, None]
        assert_allclose(block(x).detach(), expected, rtol=1e-10, atol=1e-12)

    def test_formula(self):
        block = perturbed(ResidualBlock(4, 6, 3))
        x, embedding = randn(2, 4, 5, 5), randn(2, 3, seed=1)
        with torch.no_grad():
            scale, shift = block.film(embedding).split(6, dim=1)
            h = block.norm2(block.conv1(F.silu(block.norm1(x))))
            h = h * (1 + scale[..., None, None]) + shift[..., None, None]
            expected = block.skip(x) + block.conv2(F.silu(h))
            assert_allclose(block(x, embedding), expected, rtol=1e-12, atol=1e-12)

    def test_embedding_matters_to_its_own_image_only(self):
        block = perturbed(ResidualBlock(4, 4, 3))
        x, embedding = randn(2, 4, 5, 5), randn(2, 3, seed=1)
        other = embedding.clone()
        other[1] += 1
        one, two = block(x, embedding).detach(), block(x, other).detach()
        assert_array_equal(one[0], two[0])
        assert (one[1] != two[1]).all()

    def test_reach_is_two_pixels(self):
        block = perturbed(ResidualBlock(3, 3))
        pixels = changed_pixels(block, randn(1, 3, 8, 9))
        assert pixels == [[y, x] for y in range(5) for x in range(1, 6)]

    def test_dropout(self):
        block = perturbed(ResidualBlock(4, 4, dropout=0.5))
        x = randn(1, 4, 5, 5)
        assert (block.train()(x) != block.train()(x)).any()
        assert_array_equal(block.eval()(x).detach(), block.eval()(x).detach())


class TestAttentionGate:
    def test_formula(self):
        gate = perturbed(AttentionGate(4))
        skip, features = randn(2, 4, 3, 3), randn(2, 4, 3, 3, seed=1)

        def linear(layer, x):
            y = torch.einsum("oc,bcyx->boyx", layer.weight[..., 0, 0], x)
            return y if layer.bias is None else y + layer.bias[:, None, None]

        with torch.no_grad():
            h = linear(gate.skip, skip) + linear(gate.gate, features)
            alpha = 1 / (1 + torch.exp(-linear(gate.psi, h / (1 + torch.exp(-h)))))
            assert alpha.shape == (2, 1, 3, 3)
            assert_allclose(gate(skip, features), alpha * skip, rtol=1e-10, atol=1e-12)

    def test_lets_through_between_nothing_and_all(self):
        gate = perturbed(AttentionGate(4))
        skip = randn(2, 4, 6, 6)
        ratio = (gate(skip, randn(2, 4, 6, 6, seed=1)) / skip).detach()
        assert 0 < ratio.min() < ratio.max() < 1

    @pytest.mark.parametrize("argument", [0, 1])
    def test_no_pixel_talks_to_another(self, argument):
        gate = perturbed(AttentionGate(4))
        fixed = randn(1, 4, 6, 7, seed=1)

        def function(x):
            return gate(x, fixed) if argument == 0 else gate(fixed, x)

        assert changed_pixels(function, randn(1, 4, 6, 7)) == [[2, 3]]

    def test_single_channel(self):
        assert AttentionGate(1)(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).shape == (1, 1, 2, 2)


class TestResampling:
    def test_downsample_sees_its_own_four_pixels(self):
        down = perturbed(Downsample(3, 5))
        assert down(randn(1, 3, 6, 8)).shape == (1, 5, 3, 4)
        assert changed_pixels(down, randn(1, 3, 6, 8)) == [[1, 1]]

    def test_upsample_repeats_pixels(self):
        up = perturbed(Upsample(3, 5))
        x = randn(1, 3, 4, 5)
        y = up(x).detach()
        assert y.shape == (1, 5, 8, 10)
        expected = up.project(x).detach().numpy().repeat(2, axis=2).repeat(2, axis=3)
        assert_array_equal(y, expected)


class TestSinusoidalEmbedding:
    def test_closed_form(self):
        u = randn(7)
        embedding = SinusoidalEmbedding(6, 0.5, 4.0).double()(u).numpy()
        phase = 2 * np.pi * u.numpy()[:, None] * np.array([0.5, np.sqrt(2.0), 4.0])
        expected = np.sqrt(2) * np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
        assert_allclose(embedding, expected, atol=1e-5)

    def test_unit_mean_square(self):
        embedding = SinusoidalEmbedding(64)(torch.linspace(-2, 2, 50))
        assert_allclose((embedding**2).mean(1), 1, rtol=1e-5)

    def test_tells_scalars_apart(self):
        embedding = SinusoidalEmbedding(16)(torch.linspace(-2, 2, 200))
        distance = torch.cdist(embedding, embedding) + 10 * torch.eye(200)
        assert distance.min() > 0.2

    def test_is_not_part_of_the_weights(self):
        assert not SinusoidalEmbedding(8).state_dict()

    @pytest.mark.parametrize("channels", [0, 2, 7, -4])
    def test_bad_channels(self, channels):
        with pytest.raises(ValueError, match=f"even number of at least 4, not {channels}"):
            SinusoidalEmbedding(channels)


def test_blocks_are_modules():
    # so that state dicts, devices and dtypes reach all of them
    for block in (AttentionGate(2), ChannelNorm(2), Downsample(2, 2), ResidualBlock(2, 2), Upsample(2, 2)):
        assert isinstance(block, nn.Module)
        assert all(p.dtype == torch.float64 for p in block.double().parameters())


class TestStarlet:
    @pytest.mark.parametrize("scales", [0, 1, 3])
    def test_planes_add_up_to_the_image(self, scales):
        starlet, x = Starlet(scales).double(), randn(2, 1, 11, 14)
        planes = starlet(x)
        assert planes.shape == (2, scales + 1, 11, 14)
        assert_allclose((planes * starlet.noise).sum(dim=1, keepdim=True), x, rtol=1e-9)

    def test_white_noise_has_unit_variance_in_every_plane(self):
        planes = Starlet(3).double()(randn(1, 1, 400, 400))[..., 30:-30, 30:-30]
        # the error is four times that of the number of independent pixels, (340 / width)^2
        for std, width in zip(planes.std(dim=(-2, -1))[0], (1, 3, 7, 13), strict=True):
            assert abs(std - 1) < 4 * width / (340 * 2**0.5)

    def test_noise_of_the_planes(self):
        # Starck & Murtagh 2006 found them in simulated noise
        assert_allclose(Starlet(4).noise[:4].flatten(), [0.889, 0.200, 0.086, 0.041], atol=2.5e-3)

    def test_slopes_are_smooth(self):
        y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
        starlet, slope = Starlet(2), 3 * x - 2 * y + 5
        planes = (starlet(slope[None, None]) * starlet.noise)[0, :, 8:-8, 8:-8]
        assert_allclose(planes[:2], 0, atol=1e-4)
        assert_allclose(planes[2], slope[8:-8, 8:-8], rtol=1e-4, atol=1e-4)

    def test_has_nothing_to_train_or_to_save(self):
        assert not [*Starlet(2).parameters()]
        assert not Starlet(2).state_dict()

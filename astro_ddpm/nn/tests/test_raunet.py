# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the raunet module.
"""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.nn import AttentionUNet, GuidedUNet, RAUNet, WhitenedStem
from astro_ddpm.nn.raunet import arcsinh, gram_filters, turn, turn_back, turn_part

CHANNELS = (4, 6, 8)


def reach(patch=1, channels=CHANNELS):
    """
    Return how many pixels away an input can matter to an output.

    In patches: first convolution 1, head 1; two blocks of 2 pixels of each resolution going down and up,
    one in the middle; and a pixel of the coarsest resolution spans its whole width. In pixels: the filters
    of the stem see 2 beyond a patch, in which a pixel may be at one side and the output at the other.
    """
    finer = len(channels) - 1
    patches = 2 + sum(4 * 2**level for level in range(finer)) + 2 * 2**finer + 2**finer - 1
    return 2 + patch * patches + patch - 1


def geometry(network):
    """Return reach and stride as they must be for the patches of a network."""
    patch = getattr(network, "network", network).config["patch"]
    return reach(patch), patch * 2 ** (len(CHANNELS) - 1)


@pytest.fixture(autouse=True)
def seeded():
    """Start every test with the same weights, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def randn(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def perturbed(module, dtype=torch.float64):
    """Return the module, evaluating, with every parameter away from its initial value."""
    module = module.to(dtype).eval()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter += 0.1 * randn(*parameter.shape, seed=seed, dtype=dtype)
    return module


def image(ny, nx, seed=0, batch=1):
    """Return noise and a source of 1000 sigma, and a validity plane with holes."""
    y, x = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
    source = 1000 * torch.exp(-((y - ny / 2) ** 2 + (x - nx / 2) ** 2) / 8)
    z = randn(batch, 1, ny, nx, seed=seed) + source
    return z, (randn(batch, 1, ny, nx, seed=seed + 1) > -2).double()


class Guided(torch.nn.Module):
    """A guided network as a function of image and validity, the rest fixed."""

    def __init__(self, **options):
        super().__init__()
        self.network = GuidedUNet(CHANNELS, embedding_channels=8, **options)

    def forward(self, z, valid):
        mean, std = torch.tanh(z), torch.exp(-(torch.tanh(z) ** 2))
        level, depth = torch.full((2, len(z)), 0.3, dtype=z.dtype)
        guide = self.network.encode(z, valid, mean, std)
        return (self.network(torch.sin(3 * z), level, guide, depth),)


class Plain(RAUNet):
    """A RAUNet, for symmetry."""

    def __init__(self, **options):
        super().__init__(CHANNELS, **options)


NETWORKS = pytest.mark.parametrize(
    "make",
    [Plain, Guided, partial(Plain, patch=2), partial(Guided, patch=2)],
    ids=["plain", "guided", "plain-patch2", "guided-patch2"],
)


class TestGramFilters:
    @pytest.mark.parametrize("size", [3, 5, 6, 7])
    def test_orthonormal_and_without_constant(self, size):
        filters = gram_filters(size).reshape(size**2 - 1, size**2)
        assert_allclose(filters @ filters.T, np.eye(size**2 - 1), atol=1e-6)
        assert_allclose(filters.sum(1), 0, atol=1e-5)

    @pytest.mark.parametrize("size", [3, 5])
    def test_each_sees_polynomials_of_its_order_or_higher(self, size):
        # filter (i, j) is blind to x^k y^l if k < j or l < i, but sees x^j y^i: it measures a derivative
        x = torch.arange(size, dtype=torch.float64) - size // 2
        filters = gram_filters(size).double()
        names = [(i, j) for i in range(size) for j in range(size)][1:]
        for (i, j), plane in zip(names, filters[:, 0], strict=True):
            for k in range(j + 1):
                for m in range(i + 1):
                    response = float((plane * x**k * x[:, None] ** m).sum())
                    seen = (m, k) == (i, j)
                    assert (abs(response) > 0.1) if seen else (abs(response) < 1e-4)


class TestArcsinh:
    def test_without_gradient(self):
        # where another formula is used
        x = torch.cat([torch.linspace(-5, 5, 1001), 10.0 ** torch.arange(-30, 18), torch.tensor([-1e4])])
        with torch.no_grad():
            result = arcsinh(x)
        assert_allclose(result, np.arcsinh(x.numpy().astype(float)), rtol=3e-7)
        assert_allclose(result, arcsinh(x.requires_grad_()).detach(), rtol=3e-7)


class TestWhitenedStem:
    def test_unit_noise_gain(self):
        stem = WhitenedStem(margin=3)
        weight = stem.bank.weight.detach()
        assert weight.shape == (48, 1, 7, 7)
        assert_allclose((weight**2).sum(dim=(1, 2, 3)), 1, rtol=1e-5)
        y = stem.bank(randn(1, 1, 300, 300, dtype=torch.float32)).detach()[..., 3:-3, 3:-3]
        # correlated over 7 x 7 pixels, so fewer are independent
        assert_allclose(y.var(dim=(0, 2, 3)), 1, atol=4 * 7 * np.sqrt(2) / 300)

    def test_no_response_to_a_constant(self):
        stem = WhitenedStem().double()
        z = torch.full((1, 1, 12, 13), 5000.0, dtype=torch.float64)
        features = stem(z, torch.ones_like(z)).detach()
        assert_allclose(features[:, 1:-1, 2:-2, 2:-2], 0, atol=2e-3)

    def test_features(self):
        stem = WhitenedStem(margin=1).double()
        z, valid = image(9, 10)
        features = stem(z, valid).detach()
        assert features.shape[1] == stem.channels == 10
        assert_allclose(features[:, :1], np.arcsinh(z.numpy()))
        assert_allclose(features[:, 1:9], np.arcsinh(stem.bank(z).detach().numpy()))
        assert_array_equal(features[:, 9:], valid)

    def test_patches(self):
        # of 2 x 2 pixels, the last of them filled with zeros that were not measured
        stem = WhitenedStem(patch=2).double()
        z, valid = image(9, 11)
        features = stem(z, valid).detach()
        assert features.shape == (1, stem.channels, 5, 6)
        assert stem.channels == 4 + 35 + 4
        pixels = z[0, 0, 4:6, 6:8].numpy()
        assert_allclose(features[0, :4, 2, 3], np.arcsinh(pixels.ravel()))
        seen = z[0, 0, 2:8, 4:10].numpy()  # two pixels more on each side
        weight = stem.bank.weight.detach().numpy()
        assert_allclose(features[0, 4:39, 2, 3], np.arcsinh((weight[:, 0] * seen).sum((1, 2))))
        assert_array_equal(features[0, 39:, 2, 3], valid[0, 0, 4:6, 6:8].ravel())
        assert_array_equal(features[0, [1, 3, 40, 42]][..., -1], 0)
        assert_array_equal(features[0, [2, 3, 41, 42], -1], 0)

    def test_bfloat16_of_the_rest_is_not_for_the_stem(self):
        # whose rounding of a core of 10000 sigma is 20 sigma
        stem = WhitenedStem()
        z = 1e4 + randn(1, 1, 12, 12, dtype=torch.float32)
        valid = torch.ones_like(z)
        with torch.autocast("cpu", torch.bfloat16):
            features = stem(z, valid)
            assert torch.nn.functional.conv2d(z, stem.bank.weight).dtype == torch.bfloat16
        assert_array_equal(features.detach(), stem(z, valid).detach())


class TestAttentionUNet:
    def test_empty_channels(self):
        with pytest.raises(ValueError, match="channels must hold at least one number"):
            AttentionUNet(1, ())

    @pytest.mark.parametrize("channels", [(4,), (4, 6), (4, 6, 8, 10)])
    def test_stride_and_shape(self, channels):
        unet = AttentionUNet(3, channels)
        assert unet.stride == 2 ** (len(channels) - 1)
        assert unet(torch.zeros(2, 3, 9, 11)).shape == (2, channels[0], 9, 11)

    def test_dropout_at_the_two_coarsest(self):
        unet = AttentionUNet(1, (4, 4, 4, 4), dropout=0.2)
        for blocks in (unet.down_blocks, unet.up_blocks):
            assert [block.dropout.p for block in blocks] == [0, 0, 0.2]
        assert unet.middle.dropout.p == 0.2


class TestInitial:
    def test_raunet(self):
        z, valid = (a.float() for a in image(13, 16))
        mean, std = RAUNet(CHANNELS)(z, valid)
        assert_array_equal(mean.detach(), 0)
        assert_allclose(std.detach(), torch.rsqrt(np.e**2 + valid), rtol=1e-6)

    def test_guided_unet(self):
        network = Guided().double()
        assert_array_equal(network(*image(13, 16))[0].detach(), 0)

    def test_config_makes_the_same_network(self):
        for network in (
            RAUNet([4, 6], dropout=0.1),
            GuidedUNet((4, 6), embedding_channels=12, dropout=0.2),
        ):
            twin = type(network)(**network.config)
            twin.load_state_dict(network.state_dict())
            assert twin.config == network.config


@NETWORKS
class TestAnySize:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 13), (65, 31), (16, 16)])
    def test_shape(self, make, shape):
        for plane in perturbed(make())(*image(*shape, batch=2)):
            assert plane.shape == (2, 1, *shape)
            assert torch.isfinite(plane).all()

    def test_padding_far_away_changes_nothing(self, make):
        # one more row or column may need padding to the next coarse pixel; away from it all is the same
        network = perturbed(make())
        radius, stride = geometry(network)
        length = radius // stride * stride + 3 * stride
        z, valid = image(length, 12)
        whole = network(z, valid)
        for size in (length - 3, length - 2, length - 1):
            cut = network(z[..., :size, :], valid[..., :size, :])
            for a, b in zip(whole, cut, strict=True):
                inner = slice(0, size - radius)
                assert_allclose(a[..., inner, :].detach(), b[..., inner, :].detach(), atol=1e-9)


@NETWORKS
class TestLocality:
    def test_far_pixels_do_not_matter(self, make):
        network = perturbed(make())
        z, valid = image(12, 100)
        with torch.no_grad():
            before = network(z, valid)
            z[..., 6, 10] = 1e5
            valid[..., 5, 10] = 0
            after = network(z, valid)
        for a, b in zip(before, after, strict=True):
            far = slice(11 + geometry(network)[0], None)
            assert_array_equal(a[..., far], b[..., far])
            assert (a[..., 8:13] != b[..., 8:13]).any()

    def test_gradient_has_bounded_support(self, make):
        # the other direction: one output pixel, all the inputs that it depends on
        network = perturbed(make())
        radius, _ = geometry(network)
        y, x = radius + 4, radius + 1
        z, valid = image(2 * radius + 8, 2 * radius + 8)
        z.requires_grad_()
        sum(plane[0, 0, y, x] for plane in network(z, valid)).backward()
        ys, xs = z.grad[0, 0].nonzero().T
        assert ys.min() >= y - radius
        assert ys.max() <= y + radius
        assert xs.min() >= x - radius
        assert xs.max() <= x + radius
        assert ys.max() - ys.min() > radius  # and the bound is not idle

    def test_receptive_radius_is_reached(self, make):
        network = perturbed(make())
        declared = getattr(network, "network", network)
        radius, stride = declared.receptive_radius, declared.stride
        assert (radius, stride) == geometry(network)
        size, farthest = 2 * radius + 2 * stride, 0
        z, valid = image(size, 24)
        for row in range(radius, radius + stride):  # any place within a coarse pixel
            z = z.detach().requires_grad_()
            sum(plane[0, 0, row, 12] for plane in network(z, valid)).backward()
            ys = z.grad[0, 0].nonzero()[:, 0]
            farthest = max(farthest, row - int(ys.min()), int(ys.max()) - row)
        assert farthest == radius

    def test_translation_equivariance(self, make):
        network = perturbed(make())
        radius, stride = geometry(network)
        margin = radius + 2 * stride
        z, valid = image(2 * margin + 4 * stride, 2 * margin + 4 * stride)
        moved = network(*(a.roll((stride, 2 * stride), (-2, -1)) for a in (z, valid)))
        inner = (..., slice(margin, -margin), slice(margin, -margin))
        for a, b in zip(network(z, valid), moved, strict=True):
            rolled = a.roll((stride, 2 * stride), (-2, -1))
            assert rolled[inner].numel() > 50
            assert_allclose(b[inner].detach(), rolled[inner].detach(), rtol=1e-9, atol=1e-9)

    def test_tile_with_halo_equals_whole(self, make):
        network = perturbed(make())
        radius, stride = geometry(network)
        halo = -(-radius // stride) * stride
        z, valid = image(2 * halo + 20, 2 * halo + 32)
        whole = network(z, valid)
        # an inner tile: starts at a multiple of the stride, of a size that is none
        top, left, height, width = halo, halo + stride, 13, 11
        rows = slice(top - halo, top + height + halo)
        columns = slice(left - halo, left + width + halo)
        tile = network(z[..., rows, columns], valid[..., rows, columns])
        for a, b in zip(whole, tile, strict=True):
            expected = a[..., top : top + height, left : left + width].detach()
            result = b[..., halo : halo + height, halo : halo + width].detach()
            assert expected.std() > 1e-3
            assert_allclose(result, expected, rtol=1e-9, atol=1e-9)

    def test_images_of_a_batch_do_not_mix(self, make):
        network = perturbed(make())
        z, valid = image(9, 11, batch=3)
        batch = network(z, valid)
        for i in range(3):
            for a, b in zip(batch, network(z[i : i + 1], valid[i : i + 1]), strict=True):
                assert_allclose(a[i : i + 1].detach(), b.detach(), rtol=1e-10, atol=1e-10)


@NETWORKS
class TestNumerics:
    def test_float32_agrees_with_float64(self, make):
        network = perturbed(make())
        z, valid = image(24, 20)
        exact = [plane.detach() for plane in network(z, valid)]
        single = network.float()(z.float(), valid.float())
        for a, b in zip(exact, single, strict=True):
            assert b.dtype == torch.float32
            assert_allclose(b.detach(), a, rtol=1e-4, atol=1e-4 * float(a.abs().max()))

    def test_channels_last_agrees(self, make):
        network = perturbed(make())
        inputs = image(24, 20, batch=2)
        plain = [plane.detach() for plane in network(*inputs)]
        network = network.to(memory_format=torch.channels_last)
        last = network(*(a.to(memory_format=torch.channels_last) for a in inputs))
        for a, b in zip(plain, last, strict=True):
            assert_allclose(b.detach(), a, rtol=1e-9, atol=1e-9)

    def test_no_global_randomness_in_evaluation(self, make):
        network = perturbed(make(dropout=0.5))
        state = torch.get_rng_state()
        one, two = (network(*image(9, 9)) for _ in range(2))
        assert_array_equal(torch.get_rng_state(), state)
        for a, b in zip(one, two, strict=True):
            assert_array_equal(a.detach(), b.detach())

    def test_gradient_reaches_every_parameter(self, make):
        network = perturbed(make()).train()
        sum((plane**2).sum() for plane in network(*image(16, 16))).backward()
        idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not idle

    @pytest.mark.parametrize("autocast", [False, True])
    def test_same_without_gradient(self, make, autocast):
        # where memory is used again
        network = perturbed(make(), torch.float32)
        z, valid = (plane.float() for plane in image(13, 18))
        copies = z.clone(), valid.clone()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            expected = network(z, valid)
            with torch.no_grad():
                result = network(z, valid)
        for a, b in zip(expected, result, strict=True):
            assert a.dtype == b.dtype
            assert_allclose(a.detach().float(), b.float(), rtol=1e-4, atol=0.01 if autocast else 1e-5)
        assert_array_equal(z, copies[0])
        assert_array_equal(valid, copies[1])

    def test_inputs_are_not_changed(self, make):
        z, valid = image(9, 9)
        copies = z.clone(), valid.clone()
        perturbed(make())(z, valid)
        assert_array_equal(z, copies[0])
        assert_array_equal(valid, copies[1])


class TestEstimate:
    """Turned images give turned estimates, and those that are averaged are the ones of turned images."""

    TURNS = (
        lambda x: x,
        lambda x: x.flip((-2, -1)),
        lambda x: x.mT.flip(-1),
        lambda x: x.mT.flip(-2),
        lambda x: x.flip(-1),
        lambda x: x.flip(-2),
        lambda x: x.mT,
        lambda x: x.mT.flip((-2, -1)),
    )

    @pytest.mark.parametrize("patch", [1, 2])
    @pytest.mark.parametrize("orientations", [1, 2, 4, 8])
    def test_average(self, orientations, patch):
        network = perturbed(RAUNet(CHANNELS, patch=patch))
        z, valid = image(16, 24)
        turns = self.TURNS[:orientations]
        undo = [self.TURNS[{2: 3, 3: 2}.get(i, i)] for i in range(orientations)]  # as quarter turns do
        with torch.no_grad():
            parts = [network(turn(z), turn(valid)) for turn in turns]
            means, stds = (
                torch.stack([back(part[k]) for back, part in zip(undo, parts, strict=True)]) for k in (0, 1)
            )
            mean, std = network.estimate(z, valid, orientations)
            assert_allclose(mean, means.mean(0), atol=1e-10)
            assert_allclose(std, stds.square().mean(0).sqrt(), rtol=1e-10)
            for turn in turns:
                turned = network.estimate(turn(z), turn(valid), orientations)
                assert_allclose(turned[0], turn(mean), atol=1e-10)
                assert_allclose(turned[1], turn(std), rtol=1e-10)

    @pytest.mark.parametrize("orientations", [0, 3, 16])
    def test_other_numbers(self, orientations):
        with pytest.raises(ValueError, match=f"orientations must be one of 1, 2, 4, 8, not {orientations}"):
            RAUNet(CHANNELS).double().estimate(*image(8, 8), orientations)


class TestBlend:
    """A RAUNet whose heads return constants: the rest of it is linear, and known."""

    @staticmethod
    def network(offset, gains, variance):
        network = RAUNet(CHANNELS).double().eval()
        with torch.no_grad():
            network.mean_head[2].bias[0] = offset
            network.mean_head[2].bias[1 : 1 + len(gains)] = torch.as_tensor(gains, dtype=torch.float64)
            network.std_head[2].bias[0] = 1 + np.log(variance) / 2
        return network

    @pytest.mark.parametrize("variance", [1e-6, 0.5, 30.0])
    def test_bayes_rule_for_gaussians(self, variance):
        z, valid = image(9, 12)
        prior, noise = np.array([3.0, variance]), np.array([0.0, 1.0])  # the prediction is 3 above the pixel
        weights = 1 / np.stack([prior, noise])[:, 1]
        expected = weights @ np.stack([prior, noise])[:, 0] / weights.sum()
        with torch.no_grad():
            mean, std = self.network(3.0, [], variance)(z, valid)
        assert_allclose(mean[valid > 0], expected, rtol=1e-9)
        assert_allclose(std[valid > 0], weights.sum() ** -0.5, rtol=1e-9)
        assert_allclose(mean[valid == 0], 3)
        assert_allclose(std[valid == 0], variance**0.5, rtol=1e-9)

    @pytest.mark.parametrize("joint", [False, True])
    def test_width_learns_from_the_mean_if_joint(self, joint):
        network, (z, valid) = self.network(3.0, [], 0.5), image(9, 12)
        network.joint = joint
        mean, std = network(z, valid)
        (mean + 0 * std).sum().backward()
        expected = -2 * (valid * mean * std**2).sum()  # of 3 / (1 + v), with the logarithm of the root of v
        assert_allclose(network.std_head[2].bias.grad, joint * expected.detach(), rtol=1e-9)

    def test_starlet_planes_taken_away_leave_the_smooth_one(self):
        network = self.network(0.0, [], 1e-12)
        with torch.no_grad():
            network.mean_head[2].bias[1 : 1 + network.starlet.scales] = -network.starlet.noise[:-1, 0, 0]
            z = 0.3 * randn(1, 1, 40, 40)
            smooth = network.starlet(z)[:, -1:] * network.starlet.noise[-1]
            mean, _ = network(z, torch.ones_like(z))
        assert_allclose(z + mean, smooth, atol=1e-9)

    def test_a_bright_core_is_not_thrown_far(self):
        network = self.network(1e4, [-1.0, -1.0, -1.0], 0.1)
        z = image(20, 20)[0]
        with torch.no_grad():
            mean, _ = network(z, torch.ones_like(z))
        assert mean.abs().max() <= (8 + 3 * 4) / 1.1
        assert mean.abs().max() > 8 / 1.1


class TestGuidedUNet:
    """The network must be able to use everything it is told."""

    @pytest.mark.parametrize("patch", [1, 2])
    @pytest.mark.parametrize("which", ["x", "level", "depth", "z", "valid", "mean", "std"])
    def test_depends_on(self, which, patch):
        network = perturbed(GuidedUNet(CHANNELS, embedding_channels=8, patch=patch))
        z, valid = image(12, 12)
        values = {
            "x": randn(1, 1, 12, 12, seed=5),
            "level": randn(1, seed=6),
            "depth": randn(1, seed=7).exp(),
            "z": z,
            "valid": valid,
            "mean": randn(1, 1, 12, 12, seed=8),
            "std": randn(1, 1, 12, 12, seed=9).exp(),
        }

        def run(x, level, depth, **guide):
            return network(x, level, network.encode(**guide), depth).detach()

        assert (run(**values) != run(**values | {which: values[which] * 0.5})).any()

    def test_guide_counts_its_planes(self):
        network = GuidedUNet(CHANNELS).double()
        z, valid = image(6, 5)
        guide = network.encode(z, valid, z, torch.full_like(z, 2.0)).detach()
        assert guide.shape == (1, network.stem.channels + 2, 6, 5)
        assert_array_equal(guide[:, -2:-1], z)
        assert_allclose(guide[:, -1], np.log(2))

    @pytest.mark.parametrize("patch", [1, 2])
    def test_gains_filter_what_is_noised(self, patch):
        # equal gains in every pixel: the network is the linear filter of the starlet planes
        network = GuidedUNet(CHANNELS, patch=patch).double()
        assert 2**network.starlet.scales == 2 * network.stride
        gains = randn(network.starlet.scales + 1, seed=3)
        with torch.no_grad():
            outputs = torch.cat([torch.tensor([0.7], dtype=torch.float64), gains])
            network.head[2].bias[:] = outputs.repeat_interleave(patch**2)
        z, valid = image(20, 17)
        x = randn(1, 1, 20, 17, seed=4)
        guide = network.encode(z, valid, z, torch.ones_like(z))
        result = network(x, torch.zeros(1, dtype=x.dtype), guide, torch.ones(1, dtype=x.dtype))
        expected = 0.7 + torch.einsum("j,bjyx->byx", gains, network.starlet(x))
        assert_allclose(result[:, 0].detach(), expected, rtol=1e-12)


CORES = [
    (slice(0, 37), slice(0, 43)),
    (slice(11, 12), slice(20, 43)),
    (slice(0, 16), slice(7, 9)),
    (slice(24, 37), slice(16, 32)),
]


class TestPart:
    """Only a part of the result is computed where no more is wanted."""

    @pytest.mark.parametrize("core", CORES)
    @pytest.mark.parametrize("patch", [1, 2])
    def test_raunet(self, patch, core):
        network, (z, valid) = perturbed(RAUNet(CHANNELS, patch=patch)), image(37, 43)
        whole, part = network.estimate(z, valid, 8), network.estimate(z, valid, 8, core)
        for one, other in zip(whole, part, strict=True):
            assert_allclose(other.detach(), one[..., *core].detach(), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("core", CORES)
    @pytest.mark.parametrize("patch", [1, 2])
    def test_guided(self, patch, core):
        network, (z, valid) = perturbed(GuidedUNet(CHANNELS, 8, patch=patch)), image(37, 43)
        guide, one = network.encode(z, valid, 0 * z, 1 + 0 * z), torch.ones(1, dtype=z.dtype)
        whole, part = network(z, one, guide, one), network(z, one, guide, one, core)
        assert_allclose(part.detach(), whole[..., *core].detach(), rtol=1e-10, atol=1e-12)
        assert whole.std() > 0.01

    @pytest.mark.parametrize("code", range(8))
    def test_turned(self, code):
        plane, part = torch.arange(30).reshape(5, 6), (slice(1, 3), slice(2, 6))
        turned = turn(plane, code)[turn_part(part, (5, 6), code)]
        assert_array_equal(turn_back(turned, code), plane[part])

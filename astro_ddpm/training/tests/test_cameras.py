# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the cameras module.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.noise import sigma_from_gain
from astro_ddpm.training import (
    add_exposure_noise,
    block_sum,
    broaden_psf,
    correlated_noise,
    dihedral,
    expose,
    gaussian_kernel,
    moffat_kernel,
    noise_gain,
    random_crop,
    random_holes,
    random_noise_kernel,
    split_exposure,
)

SHAPE = (400, 500)
N = SHAPE[0] * SHAPE[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class TestCorrelatedNoise:
    @pytest.mark.parametrize("width", [0, 0.3, 0.5, 0.8, 2.0])
    def test_unit_variance(self, rng, width):
        noise = correlated_noise(SHAPE, width, rng)
        assert noise.shape == SHAPE
        assert noise.dtype == np.float32
        # correlation reduces the number of independent pixels by 4 pi w^2 at most
        independent = N / max(1, 4 * np.pi * width**2)
        assert abs(noise.var() - 1) < 4 * np.sqrt(2 / independent)
        assert abs(noise.mean()) < 4 / np.sqrt(independent)

    @pytest.mark.parametrize("width", [0.8, 2.0])
    @pytest.mark.parametrize("lag", [(0, 1), (2, 0), (1, 1), (0, 4)])
    def test_autocorrelation(self, rng, width, lag):
        # a Gaussian kernel convolved with itself is a Gaussian of twice the variance
        noise = correlated_noise(SHAPE, width, rng).astype(float)
        dy, dx = lag
        product = noise[dy:, dx:] * noise[: SHAPE[0] - dy, : SHAPE[1] - dx]
        expected = np.exp(-(dy**2 + dx**2) / (4 * width**2))
        assert_allclose(product.mean(), expected, atol=4 * np.sqrt(2 * 4 * np.pi * width**2 / N))

    def test_any_kernel(self, rng):
        # the autocorrelation of the noise is that of the kernel: here of a shift by half a pixel in x
        noise = correlated_noise(SHAPE, np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]]), rng).astype(float)
        error = 4 / np.sqrt(N / 2)
        assert_allclose(noise.var(), 1, atol=np.sqrt(2) * error)
        assert_allclose(np.mean(noise[:, 1:] * noise[:, :-1]), 0.5, atol=error)
        assert_allclose(np.mean(noise[1:] * noise[:-1]), 0, atol=error)
        assert_allclose(np.mean(noise[:, 2:] * noise[:, :-2]), 0, atol=error)

    def test_edges_are_as_noisy_as_the_centre(self):
        rng = np.random.default_rng(1)
        draws = np.array([correlated_noise((9, 11), 1.5, rng) for _ in range(2000)])
        assert_allclose(draws.var(axis=0), 1, atol=5 * np.sqrt(2 / 2000))

    def test_same_generator_same_noise(self):
        one, two = (correlated_noise((8, 9), 1, np.random.default_rng(5)) for _ in range(2))
        assert_array_equal(one, two)


class TestKernels:
    @pytest.mark.parametrize(("width", "ratio", "angle"), [(2.0, 1.0, 0.0), (3.0, 0.6, 0.7)])
    def test_gaussian_moments(self, width, ratio, angle):
        kernel = gaussian_kernel(width, ratio, angle)
        half = kernel.shape[0] // 2
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        expected = turn @ np.diag([width**2, (ratio * width) ** 2]) @ turn.T
        measured = [[np.sum(kernel * a * b) for a in (x, y)] for b in (x, y)]
        assert_allclose(kernel.sum(), 1)
        assert_allclose(measured, expected, rtol=2e-3, atol=1e-10)  # cut at 4 sigma

    @pytest.mark.parametrize("beta", [2.5, 4.0])
    def test_moffat_is_half_as_high_at_half_the_width(self, beta):
        kernel = moffat_kernel(10.0, beta)
        centre = kernel.shape[0] // 2
        assert_allclose(kernel.sum(), 1)
        assert_allclose(kernel[centre, centre + 5] / kernel[centre, centre], 0.5)

    def test_moffat_is_that_of_astropy(self):
        from astropy.modeling.functional_models import Moffat2D

        model = Moffat2D(gamma=3.0, alpha=3.5)
        kernel = moffat_kernel(model.fwhm, 3.5)
        half = kernel.shape[0] // 2
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        expected = model(x, y)
        assert_allclose(kernel, expected / expected.sum())

    def test_random_noise_kernels_cover_the_correlations(self):
        kernels = [random_noise_kernel(np.random.default_rng(i)) for i in range(200)]
        neighbours = [np.sum(k[:, 1:] * k[:, :-1]) / np.sum(k**2) for k in kernels]
        assert min(neighbours) < 0.05
        assert max(neighbours) > 0.6


class TestNoiseGain:
    def test_of_nothing(self):
        assert_allclose(noise_gain(np.ones((1, 1))), 1)

    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    def test_of_a_box(self, n):
        assert_allclose(noise_gain(np.ones((n, n))), n)  # the root of n^2 ones

    def test_of_two_gaussians(self):
        # variances add, and a Gaussian of unit sum has the gain 1 / (2 sqrt(pi) w)
        gain = noise_gain(gaussian_kernel(1.5), gaussian_kernel(2.0))
        assert_allclose(gain, 1 / (2 * np.sqrt(np.pi) * 2.5), rtol=1e-3)

    def test_is_what_happens_to_noise(self, rng):
        kernel, block = moffat_kernel(3.0), 2
        noise = correlated_noise((1200, 1200), 0.6, rng)
        own = gaussian_kernel(0.6)
        degraded = block_sum(broaden_psf(noise, kernel), block)[20:-20, 20:-20]
        expected = noise_gain(own, kernel, np.ones((block, block))) / noise_gain(own)
        assert_allclose(degraded.std(), expected, rtol=0.03)


class TestBroadenPSF:
    def test_flux_and_width(self):
        image = np.zeros((61, 71), np.float32)
        image[30, 35] = 100
        broad = broaden_psf(image, gaussian_kernel(2.0))
        assert broad.shape == image.shape
        assert broad.dtype == np.float32
        assert_allclose(broad.sum(), 100, rtol=1e-5)
        assert_allclose(broad[26:35, 31:40], 100 * gaussian_kernel(2.0)[4:13, 4:13], rtol=1e-4)

    def test_is_the_convolution_of_scipy(self, rng):
        from scipy.ndimage import convolve

        image, kernel = rng.standard_normal((40, 33)), rng.random((7, 7))
        assert_allclose(broaden_psf(image, kernel), convolve(image, kernel, mode="reflect"))

    def test_constant_stays(self):
        assert_allclose(broaden_psf(np.full((20, 25), 3.0), moffat_kernel(4.0)), 3.0)


class TestBlockSum:
    def test_is_that_of_astropy(self, rng):
        from astropy.nddata import block_reduce

        image = rng.standard_normal((12, 20))
        assert_allclose(block_sum(image, 4), block_reduce(image, 4, np.sum))

    def test_incomplete_blocks_are_left_out(self):
        assert_array_equal(block_sum(np.arange(35.0).reshape(5, 7), 3), [[72, 99]])

    def test_too_large(self):
        with pytest.raises(ValueError, match="factor 6 exceeds the size"):
            block_sum(np.ones((5, 9)), 6)


class TestExpose:
    @pytest.mark.parametrize(("gain", "read_noise", "sky_level"), [(1.9, 5.0, 20.0), (0.5, 0.0, 200.0)])
    def test_statistics(self, rng, gain, read_noise, sky_level):
        scene = np.full(SHAPE, 50.0, np.float32)
        data, sigma = expose(scene, gain, read_noise, sky_level, rng)
        assert data.dtype == sigma.dtype == np.float32
        pull = (data - scene) / sigma
        assert abs(pull.mean()) < 4 / np.sqrt(N)
        assert abs(pull.var() - 1) < 5 * np.sqrt(2 / N)

    def test_noise_is_that_of_the_noise_module(self, rng):
        scene = np.array([[0.0, 10.0, 1000.0]])
        _, sigma = expose(scene, 2.0, 3.0, 40.0, rng)
        assert_allclose(sigma, sigma_from_gain(scene, 2.0, 3.0, sky_level=40.0, smoothing=0))

    def test_photons_are_counted(self, rng):
        data, _ = expose(np.full((50, 50), 3.0), 4.0, 0.0, 1.0, rng)
        electrons = 4.0 * (data + 1.0)
        assert_allclose(electrons, np.round(electrons), atol=1e-9)

    @pytest.mark.parametrize("bad", [(0, 1, 1), (1, -1, 1), (1, 1, -1), (np.nan, 1, 1)])
    def test_bad_values(self, rng, bad):
        with pytest.raises(ValueError, match="gain must be positive"):
            expose(np.ones((2, 2)), *bad, rng)


class TestRandomCrop:
    def test_planes_stay_together(self, rng):
        plane = np.arange(63.0).reshape(7, 9)
        corners = set()
        for _ in range(300):
            one, two = random_crop([plane, 2 * plane], 5, rng)
            assert one.shape == (5, 5)
            assert_array_equal(2 * one, two)
            corners.add(float(one[0, 0]))
        assert len(corners) == 3 * 5

    def test_too_large(self, rng):
        with pytest.raises(ValueError, match="size 8 exceeds"):
            random_crop([np.ones((7, 9))], 8, rng)


class TestAddExposureNoise:
    def test_variance(self, rng):
        sigma = np.full(SHAPE, 0.5, np.float32)
        sigma[:, 250:] = 2
        data = sigma * rng.standard_normal(SHAPE, dtype=np.float32) + 7
        noisier, new_sigma = add_exposure_noise(data, sigma, 3.0, correlated_noise(SHAPE, 0, rng))
        assert noisier.dtype == new_sigma.dtype == np.float32
        assert_allclose(new_sigma, 3 * sigma)
        pull = (noisier - 7) / new_sigma
        for half in (pull[:, :250], pull[:, 250:]):
            assert abs(half.var() - 1) < 4 * np.sqrt(2 / half.size)
            assert abs(half.mean()) < 4 / np.sqrt(half.size)

    def test_factor_one_changes_nothing(self, rng):
        data = rng.standard_normal((4, 5))
        noisier, sigma = add_exposure_noise(data, np.ones((4, 5)), 1, rng.standard_normal((4, 5)))
        assert_array_equal(noisier, data)
        assert_array_equal(sigma, 1)

    @pytest.mark.parametrize("factor", [0.99, 0, -2])
    def test_bad_factor(self, factor):
        with pytest.raises(ValueError, match="factor must be at least 1"):
            add_exposure_noise(np.ones(3), np.ones(3), factor, np.ones(3))


class TestSplitExposure:
    @pytest.mark.parametrize("factor", [0.5, 2.0, 20.0])
    def test_noises_are_independent(self, rng, factor):
        scene, sigma = np.float32(5), np.full(SHAPE, 0.3, np.float32)
        deep = scene + sigma * rng.standard_normal(SHAPE, dtype=np.float32)
        data, data_sigma, target = split_exposure(
            deep, sigma, factor, rng.standard_normal(SHAPE, dtype=np.float32)
        )
        assert data.dtype == data_sigma.dtype == target.dtype == np.float32
        assert_allclose(data_sigma, 0.3 * np.sqrt(1 + factor**2), rtol=1e-6)
        noise = (data - scene) / data_sigma
        target_noise = (target - scene) / (0.3 * np.sqrt(1 + factor**-2))
        for unit in (noise, target_noise):
            assert abs(unit.var() - 1) < 4 * np.sqrt(2 / N)
        assert abs(np.mean(noise * target_noise)) < 4 / np.sqrt(N)
        # the depth is the ratio of the two
        assert_allclose(
            target_noise.std() * np.sqrt(1 + factor**-2) / (noise.std() * np.sqrt(1 + factor**2)),
            1 / factor,
            rtol=4 / np.sqrt(N),
        )

    def test_correlated_alike_stays_independent_at_every_lag(self, rng):
        deep, fresh = (correlated_noise(SHAPE, 0.8, rng) for _ in range(2))
        data, _, target = split_exposure(deep, np.ones(SHAPE, np.float32), 2.0, fresh)
        for lag in (1, 2):
            product = np.mean(data[:, lag:] * target[:, :-lag])
            assert abs(product) < 4 * np.sqrt(5 * 1.25 * 4 * np.pi * 0.64 / N)

    def test_factor_per_pixel(self, rng):
        data, sigma, noise = rng.standard_normal((3, 2, 4)).astype(np.float32)
        factor = np.array([[1.0], [5.0]]) * np.ones((2, 4))
        together = split_exposure(data, sigma, factor, noise)
        for row in (0, 1):
            alone = split_exposure(data[row], sigma[row], factor[row, 0], noise[row])
            for a, b in zip(together, alone, strict=True):
                assert_allclose(a[row], b, rtol=1e-6)

    @pytest.mark.parametrize("factor", [0, -1, np.nan, np.array([1.0, 0.0])])
    def test_bad_factor(self, factor):
        with pytest.raises(ValueError, match="factor must be positive"):
            split_exposure(np.ones(3), np.ones(3), factor, np.ones(3))


class TestRandomHoles:
    @pytest.mark.parametrize("shape", [(64, 64), (30, 50), (5, 5)])
    def test_shape_and_dtype(self, rng, shape):
        for _ in range(50):
            valid = random_holes(shape, rng)
            assert valid.shape == shape
            assert valid.dtype == bool

    def test_holes_are_there_but_small(self):
        fractions = np.array(
            [1 - random_holes((64, 64), np.random.default_rng(i)).mean() for i in range(300)]
        )
        assert np.mean(fractions > 0) > 0.95
        # at most five patches of 9 x 9, or a trail or bad columns of about 4 pixels
        assert fractions.max() <= 5 * 81 / 64**2
        assert 0.01 < fractions.mean() < 0.05

    def test_three_shapes(self):
        # patches and saturated stars are both compact
        columns = trails = patches = 0
        for i in range(500):
            holes = ~random_holes((64, 64), np.random.default_rng(i))
            bad_column = holes.all(axis=0).any() or holes.all(axis=1).any()
            rows_hit = holes.any(axis=1).sum() + holes.any(axis=0).sum()
            columns += bad_column and rows_hit < 70
            trails += not bad_column and rows_hit > 90
            patches += not bad_column and rows_hit < 90
        assert min(columns, trails, patches) > 30

    def test_max_size(self, rng):
        for _ in range(100):
            holes = ~random_holes((40, 60), rng, max_size=1)
            if 0 < holes.sum() <= 5:
                break
        else:
            pytest.fail("no patches of single pixels among 100 draws")


class TestDihedral:
    image = np.arange(18.0).reshape(2, 3, 3)

    def test_eight_different_symmetries(self):
        images = {dihedral(self.image, code).tobytes() for code in range(8)}
        assert len(images) == 8

    def test_zero_is_the_identity(self):
        assert_array_equal(dihedral(self.image, 0), self.image)

    def test_is_a_group(self):
        codes = {dihedral(self.image, code).tobytes(): code for code in range(8)}
        for a in range(8):
            products = [codes[dihedral(dihedral(self.image, a), b).tobytes()] for b in range(8)]
            assert sorted(products) == list(range(8))  # closed; the 0 among them is the inverse

    def test_neighbours_stay_neighbours(self):
        y, x = np.mgrid[:5, :5]
        for code in range(8):
            ty, tx = dihedral(y, code), dihedral(x, code)
            for axis in (0, 1):
                step = abs(np.diff(ty, axis=axis)) + abs(np.diff(tx, axis=axis))
                assert_array_equal(step, 1)

    def test_turns_only_the_last_axes(self):
        for code in range(8):
            assert_array_equal(dihedral(self.image, code)[1], dihedral(self.image[1], code))

    def test_rectangle(self):
        assert dihedral(np.zeros((2, 3)), 1).shape == (3, 2)
        assert dihedral(np.zeros((2, 3)), 6).shape == (2, 3)

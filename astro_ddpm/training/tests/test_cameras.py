# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the cameras module.
"""

import numpy as np
import pytest
from astropy.stats import gaussian_sigma_to_fwhm
from numpy.testing import assert_allclose, assert_array_equal

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
from astro_ddpm.training.cameras import (
    PSF,
    RESAMPLING,
    hot_pixels,
    log_uniform,
    random_psf,
    resampling_kernel,
    row_offsets,
    saturated,
    sky_error,
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

    def test_noise_of_every_pixel(self, rng):
        scene = np.array([[-5.0, 10.0, 1000.0]])
        _, sigma = expose(scene, 2.0, 3.0, 40.0, rng)
        assert_allclose(sigma, np.sqrt(np.array([[40.0, 50.0, 1040.0]]) / 2 + 1.5**2))

    def test_photons_are_counted(self, rng):
        data, _ = expose(np.full((50, 50), 3.0), 4.0, 0.0, 1.0, rng)
        electrons = 4.0 * (data + 1.0)
        assert_allclose(electrons, np.round(electrons), atol=1e-9)

    @pytest.mark.parametrize(
        ("bad", "name"),
        [
            ((0, 1, 1), "gain"),
            ((np.nan, 1, 1), "gain"),
            ((1, -1, 1), "read_noise"),
            ((1, 1, -1), "sky_level"),
        ],
    )
    def test_bad_values(self, rng, bad, name):
        with pytest.raises(ValueError, match=f"{name}.* must"):
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
        # at most a fifth beyond the edge of a detector, which is the kind of one in six
        assert fractions.max() <= 0.2
        assert np.mean(fractions > 5 * 81 / 64**2) < 1 / 6  # the others are patches of 9 x 9 at most
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


def measured_fwhm(psf):
    """Geometric mean of the widths along both axes of an ellipse, from the profile itself."""
    r = np.linspace(0, 2 * psf.fwhm, 2001)
    widths = []
    for angle in (psf.angle, psf.angle + np.pi / 2):
        step = np.sin(angle), np.cos(angle)
        light = [psf.profile(np.array([[t * step[0]]]), np.array([[t * step[1]]])).item() for t in r]
        widths.append(2 * np.interp(-0.5 * light[0], -np.array(light), r))
    return np.sqrt(np.prod(widths))


class TestPSF:
    cores = (
        {"kind": "gaussian"},
        {"kind": "gaussian", "ratio": 0.6, "angle": 0.4},
        {"kind": "moffat", "beta": 2.0},
        {"kind": "moffat", "beta": 5.0, "ratio": 0.8, "angle": 2.0},
        {"kind": "airy"},
        {"kind": "airy", "obstruction": 0.5},
    )

    @pytest.mark.parametrize("core", cores)
    def test_width(self, core):
        assert_allclose(measured_fwhm(PSF(3.0, **core)), 3.0, rtol=0.01)

    @pytest.mark.parametrize("core", cores[2:4])
    def test_moffat_is_that_of_the_kernel(self, core):
        # another implementation, not integrated over pixels; round ones only
        psf = PSF(4.0, "moffat", core["beta"])
        half = int(np.ceil(3 * 4.0))
        axis = np.arange(-half, half + 1.0)
        light = psf.profile(axis[:, None], axis)
        assert_allclose(light / light.sum(), moffat_kernel(4.0, core["beta"]), rtol=1e-4)

    @pytest.mark.parametrize("fwhm", [1.0, 1.3, 2.5, 8.0])
    def test_integration_over_pixels(self, fwhm):
        # a Gaussian integrated over a pixel is a difference of error functions, wherever its centre lies
        from scipy.special import erf

        psf = PSF(fwhm, offset=(0.2, -0.4))
        kernels = psf.kernels()
        m, n = psf.oversampling, kernels.shape[-1]
        edges = np.arange(n + 1) - n // 2 - 0.5
        width = fwhm / gaussian_sigma_to_fwhm * np.sqrt(2)
        for i in range(m):
            for j in range(m):
                centres = i / m + 0.2, j / m - 0.4
                rows = [np.diff(erf((edges - centre) / width)) / 2 for centre in centres]
                assert_allclose(kernels[i, j], np.outer(*rows), atol=3e-5 * kernels.max())

    @pytest.mark.parametrize("core", cores)
    @pytest.mark.parametrize("fwhm", [1.2, 2.2])
    def test_integration_of_any_core(self, core, fwhm):
        # Gauss-Legendre quadrature over the central pixels
        psf = PSF(fwhm, **core, offset=(-0.3, 0.1))
        kernel = psf.kernels()[1, 0]
        nodes, weights = np.polynomial.legendre.leggauss(16)
        pixels = np.arange(-3, 4)
        y, x = ((pixels[:, None] - shift + nodes / 2).ravel() for shift in (1 / psf.oversampling - 0.3, 0.1))
        light = psf.profile(y[:, None], x).astype(float).reshape(7, 16, 7, 16)
        truth = np.einsum("iajb,a,b->ij", light, weights, weights)
        n = len(kernel) // 2
        part = kernel[n - 3 : n + 4, n - 3 : n + 4]
        assert_allclose(part / part.sum(), truth / truth.sum(), atol=2e-3 * part.max() / part.sum())

    def test_flux_is_kept(self):
        for seed in range(40):
            kernels = random_psf(np.random.default_rng(seed)).kernels()
            assert_allclose(kernels.sum(axis=(-2, -1)), 1, atol=1e-5)
            assert kernels.min() > -2e-3 * kernels.max()

    def test_shares_of_spikes_and_ring(self):
        axis = np.arange(-64, 65) / 2
        plain, spikes, ring = (
            PSF(2.0, **flaw).profile(axis[:, None], axis).sum()
            for flaw in ({}, {"spikes": (3, 0.2, 0.1)}, {"ring": (3.0, 0.1)})
        )
        assert_allclose([spikes / plain, ring / plain], [1.2, 1.1], rtol=1e-4)

    def test_coma_is_on_one_side(self):
        axis = np.arange(-40, 41) / 4
        light = PSF(3.0, coma=0.4).profile(axis[:, None], axis)
        assert np.sum(light * axis) / light.sum() > 0.2
        assert_allclose(np.sum(light * axis[:, None]) / light.sum(), 0, atol=1e-5)

    def test_draws(self):
        drawn = [random_psf(np.random.default_rng(seed)) for seed in range(500)]
        place = np.sort(np.log10([psf.fwhm for psf in drawn]))
        assert np.abs(place - (np.arange(500) + 0.5) / 500).max() < 1.63 / np.sqrt(500)  # Kolmogorov, 1 %
        assert {psf.kind for psf in drawn} == {"gaussian", "moffat", "airy"}
        for flaw in ("coma", "spikes", "ring"):
            assert 0.08 < np.mean([np.max(getattr(psf, flaw)) > 0 for psf in drawn]) < 0.33

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="kind must be 'gaussian', 'moffat' or 'airy', not 'box'"):
            PSF(2.0, "box").kernels()


class TestResamplingKernel:
    @pytest.mark.parametrize("kind", RESAMPLING)
    def test_noise(self, kind):
        # unit variance, and the autocorrelation of the kernel, which np.correlate gives exactly
        rng = np.random.default_rng(3)
        for _ in range(3):
            kernel = resampling_kernel(kind, rng)
            noise = correlated_noise(SHAPE, kernel, rng).astype(float)
            row = np.correlate(kernel.sum(axis=0), kernel.sum(axis=0), "full") / kernel.sum() ** 2
            row = row / row.max() if np.linalg.matrix_rank(kernel, 1e-9) == 1 else None
            assert_allclose(noise.var(), 1, atol=0.03)
            if row is not None:
                lags = row[len(row) // 2 + 1 :][:3]
                got = [np.mean(noise[:, lag:] * noise[:, :-lag]) for lag in range(1, len(lags) + 1)]
                assert_allclose(got, lags, atol=0.02)

    def test_bilinear(self):
        # the weights of a shift by f are f and 1 - f
        kernel = resampling_kernel("bilinear", np.random.default_rng(0))
        assert kernel.shape == (2, 2)
        assert_allclose(kernel.sum(), 1)
        assert_allclose(np.linalg.det(kernel), 0, atol=1e-12)

    def test_lanczos_keeps_a_constant(self):
        for seed in range(20):
            assert_allclose(resampling_kernel("lanczos", np.random.default_rng(seed)).sum(), 1, atol=0.03)

    def test_drizzle_keeps_the_flux_of_a_drop(self):
        # overlaps of a drop with the pixels below it add up to its area
        for seed in range(20):
            area = resampling_kernel("drizzle", np.random.default_rng(seed)).sum()
            assert 0.36 <= area <= 4 + 1e-9

    def test_sharpened_is_anticorrelated(self):
        kernel = resampling_kernel("sharpened", np.random.default_rng(1))
        assert np.sum(kernel[:, 1:] * kernel[:, :-1]) < 0

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"kind must be one of bilinear, .*, not 'cubic'"):
            resampling_kernel("cubic", np.random.default_rng(0))


class TestSkyError:
    def test_size(self):
        # constants of up to 2 sigma, and gradients and bowls on top
        image = np.exp(-(np.linspace(-3, 3, 48) ** 2))[:, None] * np.ones(48) * 100
        skies = np.array([sky_error((48, 48), image, 5.0, np.random.default_rng(i)) for i in range(300)])
        assert skies.dtype == np.float32
        assert np.abs(skies).max() <= 5 * (2 + 1.5 + 2)
        assert np.mean(np.abs(skies.mean(axis=(1, 2))) > 0.5) > 0.5
        constant = [sky for sky in skies if np.ptp(sky) == 0]
        assert 0.1 < len(constant) / 300 < 0.3
        assert max(abs(sky[0, 0]) for sky in constant) <= 10

    def test_bowls_lie_under_the_light(self):
        y, x = np.mgrid[:64, :64] - 31.5
        image = 1000 * np.exp(-(x**2 + y**2) / 20)
        lowest = [sky_error((64, 64), image, 1.0, np.random.default_rng(i)) for i in range(100)]
        bowls = [sky for sky in lowest if np.allclose(sky, sky[::-1, ::-1], atol=1e-3) and np.ptp(sky) > 0.1]
        assert len(bowls) > 10
        for sky in bowls:
            assert -2 <= sky.min() < 0
            assert sky[31, 31] == pytest.approx(sky.min(), abs=1e-3)

    def test_nothing_to_be_seen(self):
        for seed in range(20):
            sky = sky_error((16, 20), np.zeros((16, 20)), np.ones((16, 20)), np.random.default_rng(seed))
            assert sky.shape == (16, 20)
            assert np.isfinite(sky).all()


class TestFlaws:
    def test_rows_or_columns(self):
        for seed in range(30):
            offsets = row_offsets((30, 40), np.random.default_rng(seed))
            assert offsets.shape == (30, 40)
            assert np.abs(offsets).max() <= np.float32(0.3)
            assert (offsets == offsets[:, :1]).all() or (offsets == offsets[:1]).all()

    def test_hot_pixels_are_few(self):
        for seed in range(50):
            spikes = hot_pixels((40, 50), np.random.default_rng(seed))
            assert 1 <= np.sum(spikes != 0) <= 16
            assert 4 <= spikes.max() < 200

    def test_saturated_are_the_brightest(self):
        z = np.arange(10000.0).reshape(100, 100) ** 2 / 1e4
        for seed in range(20):
            beyond = saturated(z, np.random.default_rng(seed))
            assert beyond.mean() < 0.2
            if beyond.any():
                assert z[beyond].min() > max(z[~beyond].max(), 20)

    def test_log_uniform(self):
        rng = np.random.default_rng(0)
        draws = np.sort([np.log10(log_uniform(rng, 0.1, 100)) for _ in range(1000)])
        assert np.abs((draws + 1) / 3 - (np.arange(1000) + 0.5) / 1000).max() < 1.63 / np.sqrt(1000)

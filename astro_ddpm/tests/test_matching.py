# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the matching module.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import correlate, gaussian_filter, shift

from astro_ddpm.noise import homogenize_psf, match_pair
from astro_ddpm.noise.matching import _basis

from .helpers import galaxies


def make_kernel(seed=4):
    """Return a kernel of the basis without symmetry, whose sum is not one: PSF and flux scale in one."""
    rng = np.random.default_rng(seed)
    weights = [0.9, *(0.1 * rng.standard_normal(len(_basis()) - 1))]
    return np.tensordot(weights, _basis(), 1)


def sharp_scene(rng, size=64):
    """Return point sources in every pixel, so that the image has power at all frequencies."""
    return 50 * rng.exponential(size=(size, size)) ** 2


class TestHomogenizePSF:
    kernel = make_kernel()

    def test_recovers_kernel_and_offset(self):
        deep = sharp_scene(np.random.default_rng(0))
        shallow = correlate(deep, self.kernel, mode="mirror") + 3.5
        match = homogenize_psf(shallow, deep, np.ones_like(deep))
        assert_allclose(match.kernel, self.kernel, atol=1e-9)
        assert_allclose(match.sky_offset, 3.5, rtol=1e-7)
        assert_allclose(match.image, shallow, rtol=1e-7)

    def test_basis(self):
        # derivatives of polynomials are known: the kernels of even order of x^2 + y^2, x^4 + y^4
        y, x = np.mgrid[-12:13, -12:13].astype(float)
        kernels = _basis() / np.abs(_basis()).max(axis=(1, 2), keepdims=True)
        assert_allclose(np.sum(kernels[1:12], axis=(1, 2)), 0, atol=1e-12)
        assert_allclose(np.sum(kernels[1] * x) / np.sum(kernels[2] * y), 1)
        assert_allclose(np.sum(kernels[3:6] * x * y, axis=(1, 2))[:2], 0, atol=1e-12)
        assert np.sum(kernels[5] * x * y) != 0
        assert_allclose(np.sum(kernels[6:12] * (x**2 + y**2), axis=(1, 2)), 0, atol=1e-10)
        widths = np.sqrt(np.sum(kernels[12:] * x**2, axis=(1, 2)) / np.sum(kernels[12:], axis=(1, 2)))
        assert_allclose(widths, [1.5, 3], rtol=0.01)

    def test_real_differences_of_psf(self):
        # seeing, a shift between the pixels and another flux scale, of sources up to 100 sigma
        deep = 0.15 * galaxies(np.random.default_rng(2), 96)
        shallow = 1.03 * shift(gaussian_filter(deep, 0.7), (0.3, -0.2), order=5, mode="mirror")
        match = homogenize_psf(shallow, deep, np.ones_like(deep))
        inner = (slice(8, -8), slice(8, -8))
        assert np.abs(match.image - shallow)[inner].max() < 0.3
        assert_allclose(match.kernel.sum(), 1.03, atol=0.01)

    def test_noisy_within_errors(self):
        # the covariance of a least-squares fit is the inverse of the normal matrix
        rng = np.random.default_rng(1)
        deep = sharp_scene(rng, 96)
        sigma = 5 * (1 + rng.random(deep.shape))
        shallow = correlate(deep, self.kernel, mode="mirror") + 3.5
        shallow = shallow + sigma * rng.standard_normal(deep.shape)
        match = homogenize_psf(shallow, deep, sigma)
        planes = [correlate(deep, kernel, mode="mirror")[4:-4, 4:-4].ravel() for kernel in _basis()]
        design = np.stack([*planes, np.ones_like(planes[0])], axis=1) / sigma[4:-4, 4:-4].reshape(-1, 1)
        covariance = np.linalg.inv(design.T @ design)
        pull = (match.sky_offset - 3.5) / np.sqrt(covariance[-1, -1])
        assert abs(pull) < 4
        residual = ((shallow - match.image) / sigma)[4:-4, 4:-4]
        freedom = residual.size - len(covariance)
        assert abs((residual**2).sum() / freedom - 1) < 4 * np.sqrt(2 / freedom)

    def test_noise_share(self):
        # what the fit carries of the noise, from many draws of it and from the hat matrix
        rng = np.random.default_rng(5)
        deep = 0.15 * galaxies(rng)
        sigma = np.sqrt(1 + 0.02 * deep)
        draws = rng.standard_normal((300, *deep.shape))
        targets = np.array([homogenize_psf(deep + sigma * n, deep, sigma).image for n in draws])
        carried = (targets.std(axis=0) / sigma)[4:-4, 4:-4]
        share = homogenize_psf(deep, deep, sigma).noise_share[4:-4, 4:-4]
        assert_allclose(np.mean(carried**2), np.mean(share**2), rtol=0.03)
        assert_allclose(np.median(carried / share), 1, rtol=0.02)
        # of n pixels the functions of the fit take n parts; those in the sky are few
        assert_allclose(np.sum(share**2), len(_basis()) + 1, rtol=1e-6)
        sky = deep[4:-4, 4:-4] < 1
        assert np.sqrt(np.mean(share[sky] ** 2)) < 0.07

    def test_noise_gain(self):
        rng = np.random.default_rng(3)
        deep = sharp_scene(rng)
        shallow = correlate(deep, self.kernel, mode="mirror")
        match = homogenize_psf(shallow, deep, np.ones_like(deep))
        assert_allclose(match.noise_gain, np.sqrt((self.kernel**2).sum()), rtol=1e-6)
        blurred = correlate(rng.standard_normal((500, 500)), match.kernel)
        assert_allclose(blurred.std(), match.noise_gain, rtol=4 * 3 / 500)

    def test_infinite_noise_takes_no_part(self):
        deep = sharp_scene(np.random.default_rng(0))
        shallow = correlate(deep, self.kernel, mode="mirror")
        sigma = np.ones_like(deep)
        shallow[20:30, 25], sigma[20:30, 25] = 1e6, np.inf
        shallow[40, 40] = np.nan
        match = homogenize_psf(shallow, deep, sigma)
        assert_allclose(match.kernel, self.kernel, atol=1e-8)

    def test_inputs_are_not_changed(self):
        deep = sharp_scene(np.random.default_rng(0))
        copy = deep.copy()
        homogenize_psf(deep, deep, np.ones_like(deep))
        assert_array_equal(deep, copy)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"deep": np.ones((64, 63))}, "of one shape"),
            ({"sigma": np.ones(64)}, "of one shape"),
            ({"sigma": np.zeros((64, 64))}, "sigma must be positive"),
            ({"sigma": np.full((64, 64), np.nan)}, "sigma must be positive"),
            ({"deep": np.full((64, 64), np.nan)}, "deep must be finite"),
            ({"sigma": np.full((64, 64), np.inf)}, "too few valid pixels"),
            (dict.fromkeys(("shallow", "deep", "sigma"), np.ones((12, 40))), "too few valid pixels"),
        ],
    )
    def test_errors(self, change, message):
        options = {"shallow": np.ones((64, 64)), "deep": np.ones((64, 64))}
        options |= {"sigma": np.ones((64, 64))} | change
        with pytest.raises(ValueError, match=message):
            homogenize_psf(**options)

    @pytest.mark.parametrize("shape", [(64,), (2, 64, 64)])
    def test_not_an_image(self, shape):
        with pytest.raises(ValueError, match="two-dimensional"):
            homogenize_psf(np.ones(shape), np.ones(shape), np.ones(shape))


def make_pair(seed=0, peak=60.0, depth=0.2):
    """Return two exposures of one scene, the shallow one blurred, and the scene as that sees it."""
    rng = np.random.default_rng(seed)
    scene = galaxies(rng, 80)
    scene *= peak / scene.max()
    truth = gaussian_filter(scene, 0.8)
    shallow = truth + rng.standard_normal(scene.shape)
    return shallow, scene + depth * rng.standard_normal(scene.shape), truth


class TestMatchPair:
    def test_target_is_the_truth(self):
        shallow, deep, truth = make_pair()
        pair = match_pair(shallow, deep)
        assert_allclose(pair.sigma, 1, rtol=0.1)
        assert_allclose(pair.deep_sigma, 0.2, rtol=0.1)
        error = (pair.target - truth)[pair.use]
        assert_allclose(np.sqrt(np.mean(error**2)), np.hypot(pair.noise_ratio, 0.06), rtol=0.15)
        assert pair.use.sum() > 0.99 * pair.valid.sum()
        assert pair.valid.sum() == 72**2

    def test_holes_take_no_part(self):
        shallow, deep, _ = make_pair()
        hurt = shallow.copy(), deep.copy()
        hurt[0][30:33, 30:33] = 1e5
        hurt[1][50, 50] = np.nan
        marks = np.ones(shallow.shape, bool)
        marks[30:33, 30:33] = False
        pair = match_pair(*hurt, valid=marks)
        assert not pair.valid[30:33, 30:33].any()
        assert not pair.valid[46:55, 46:55].any()  # what the derivatives of the hole reach
        assert pair.valid[45, 50]
        assert_allclose(pair.target[pair.use], match_pair(shallow, deep).target[pair.use], atol=0.3)
        assert np.isnan(hurt[1][50, 50])

    def test_given_noise_comes_first(self):
        shallow, deep, _ = make_pair()
        sigma = np.full(shallow.shape, 2.0)
        sigma[3, 3] = np.nan
        pair = match_pair(shallow, deep, sigma=sigma, valid=np.isfinite(sigma))
        assert_array_equal(pair.sigma, 2)

    def test_variable_source(self):
        shallow, deep, _ = make_pair()
        shallow[40, 40] += 100
        assert match_pair(shallow, deep) is None
        pair = match_pair(shallow, deep, max_residual=np.inf)
        assert not pair.use[39:42, 39:42].any()
        assert pair.valid[40, 40]

    def test_bright_cores_are_not_used(self):
        pair = match_pair(*make_pair(peak=400)[:2], variance_per_flux=0.01)
        assert not pair.use[pair.target > 110].any()
        assert pair.use[(pair.target < 90) & pair.valid].mean() > 0.97

    def test_shapes(self):
        with pytest.raises(ValueError, match="shallow and deep must be of one shape"):
            match_pair(np.ones((40, 40)), np.ones((40, 41)))

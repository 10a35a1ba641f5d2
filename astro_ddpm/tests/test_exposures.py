# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the exposures module.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import correlate, gaussian_filter

from astro_ddpm.exposures import homogenize_psf, read_listing

from .helpers import galaxies


def make_kernel(size=9):
    """Return a kernel without symmetry, whose sum is not one: PSF and flux scale in one."""
    y, x = np.mgrid[:size, :size] - size // 2
    kernel = np.exp(-((x - 0.4) ** 2 / 2.5 + (y + 0.3) ** 2 / 1.5 + 0.5 * x * y))
    return 0.97 * kernel / kernel.sum()


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

    @pytest.mark.parametrize("size", [1, 3, 5, 11])
    def test_other_sizes(self, size):
        kernel = make_kernel(size)
        deep = sharp_scene(np.random.default_rng(0))
        shallow = correlate(deep, kernel, mode="mirror") - 2
        match = homogenize_psf(shallow, deep, np.ones_like(deep), kernel_size=size)
        assert match.kernel.shape == (size, size)
        assert_allclose(match.kernel, kernel, atol=1e-9)
        assert_allclose(match.sky_offset, -2, rtol=1e-6)

    def test_noisy_within_errors(self):
        # the covariance of a least-squares fit is the inverse of the normal matrix
        rng = np.random.default_rng(1)
        deep = sharp_scene(rng, 96)
        sigma = 5 * (1 + rng.random(deep.shape))
        shallow = correlate(deep, self.kernel, mode="mirror") + 3.5
        shallow = shallow + sigma * rng.standard_normal(deep.shape)
        match = homogenize_psf(shallow, deep, sigma)

        windows = np.lib.stride_tricks.sliding_window_view(deep, (9, 9)).reshape(-1, 81)
        inner = sigma[4:-4, 4:-4].reshape(-1, 1)
        design = np.hstack([windows, np.ones((len(windows), 1))]) / inner
        errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
        pulls = (match.kernel - self.kernel).ravel() / errors[:-1]
        assert abs(match.sky_offset - 3.5) < 4 * errors[-1]
        assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * pulls.size)
        assert abs(pulls).max() < 4.5
        residual = ((shallow - match.image) / sigma)[4:-4, 4:-4]
        freedom = residual.size - 82
        assert abs((residual**2).sum() / freedom - 1) < 4 * np.sqrt(2 / freedom)

    def test_galaxies(self):
        # blank sky leaves some kernels open; the image is what counts
        rng = np.random.default_rng(2)
        deep = galaxies(rng)
        shallow = gaussian_filter(deep, 0.8) + 0.7
        match = homogenize_psf(shallow, deep, np.ones_like(deep))
        assert_allclose(match.image, shallow, atol=0.01)
        assert_allclose(match.kernel.sum(), 1, atol=0.01)

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
            ({"kernel_size": 4}, "kernel_size must be odd and positive, not 4"),
            ({"kernel_size": -1}, "kernel_size must be odd and positive"),
            ({"kernel_size": 41}, "too small for kernel_size 41"),
            ({"sigma": np.zeros((64, 64))}, "sigma must be positive"),
            ({"sigma": np.full((64, 64), np.nan)}, "sigma must be positive"),
            ({"deep": np.full((64, 64), np.nan)}, "deep must be finite"),
            ({"sigma": np.full((64, 64), np.inf)}, "too small"),
        ],
    )
    def test_errors(self, change, message):
        options = {"shallow": np.ones((64, 64)), "deep": np.ones((64, 64))}
        options |= {"sigma": np.ones((64, 64)), "kernel_size": 9} | change
        with pytest.raises(ValueError, match=message):
            homogenize_psf(**options)

    @pytest.mark.parametrize("shape", [(64,), (2, 64, 64)])
    def test_not_an_image(self, shape):
        with pytest.raises(ValueError, match="two-dimensional"):
            homogenize_psf(np.ones(shape), np.ones(shape), np.ones(shape))


class TestReadListing:
    def test_paths_are_relative_to_the_file(self, tmp_path):
        listing = tmp_path / "list.csv"
        listing.write_text("wide,deep,note\nw/1.fits,d/1.fits,a\n\nw/2.fits,d/2.fits,b\n")
        assert read_listing(str(listing)) == [
            (tmp_path / "w/1.fits", tmp_path / "d/1.fits"),
            (tmp_path / "w/2.fits", tmp_path / "d/2.fits"),
        ]

    @pytest.mark.parametrize("text", ["", "wide,deep\n", "wide,deep\n\n\n"])
    def test_empty(self, tmp_path, text):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ValueError, match="holds no pair"):
            read_listing(tmp_path / "list.csv")

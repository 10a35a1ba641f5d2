# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Test the classical denoisers.
"""

import numpy as np
import pytest

from astro_ddpm.report.classics import CLASSICS, starlet


@pytest.fixture(scope="module")
def noisy():
    """A smooth source and its image with the noise 2."""
    scene = 400 * np.exp(-((np.indices((64, 64)) - 32) ** 2).sum(axis=0) / (2 * 8**2))
    return scene, scene + np.random.default_rng(0).normal(0, 2, scene.shape)


@pytest.mark.parametrize("name", CLASSICS)
class TestClassics:
    """Test what all of them must do."""

    def test_reduces_noise(self, name, noisy):
        if name == "bm3d":
            pytest.importorskip("bm3d")
        scene, image = noisy
        before = image.copy()
        clean = CLASSICS[name](image, 2.0)
        np.testing.assert_array_equal(image, before)
        assert np.std(clean - scene) < 0.7 * np.std(image - scene)
        assert clean.mean() == pytest.approx(image.mean(), rel=0.01)

    def test_unit(self, name, noisy):
        if name == "bm3d":
            pytest.importorskip("bm3d")
        _, image = noisy
        clean, scaled = (CLASSICS[name](a * image, a * 2.0) for a in (1.0, 8.0))
        np.testing.assert_allclose(scaled, 8 * clean, rtol=1e-3, atol=0.05)


class TestStarlet:
    """Test starlet."""

    def test_without_threshold_is_identity(self, noisy):
        np.testing.assert_allclose(starlet(noisy[1], 2.0, threshold=0), noisy[1], rtol=0, atol=1e-10)

    def test_pure_noise_passes_at_the_gaussian_rate(self):
        # of the finest coefficients 0.27 % stand out by three standard deviations
        noise = np.random.default_rng(1).standard_normal((256, 256))
        kept = starlet(noise, 1.0, n_scales=1) - starlet(noise, 1.0, threshold=np.inf, n_scales=1)
        assert np.mean(kept != 0) == pytest.approx(0.0027, rel=0.3)

    def test_coarse_image_is_the_spline(self):
        impulse = np.zeros((33, 33))
        impulse[16, 16] = 1
        coarse = starlet(impulse, 1.0, threshold=np.inf, n_scales=1)
        spline = np.array([1, 4, 6, 4, 1]) / 16
        np.testing.assert_allclose(coarse[14:19, 14:19], np.outer(spline, spline), atol=1e-12)
        # two scales have the variance 1 + 4 along each axis
        smooth = starlet(impulse, 1.0, threshold=np.inf, n_scales=2)
        variance = np.sum(smooth * (np.arange(33) - 16) ** 2) / smooth.sum()
        assert variance == pytest.approx(5)

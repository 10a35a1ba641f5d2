# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the guard against simulated images of known PSF, noise and S/N.
"""

import numpy as np
import pytest
from astropy.convolution import Gaussian2DKernel
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter

from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.domain import Measure, compare, describe, measure_image, psf_fwhm

GAUSSIAN_FWHM = 2 * np.sqrt(2 * np.log(2))


def make_field(fwhm, n_stars=20, n_galaxies=2):
    return make_galaxy_field((256, 256), psf_fwhm=fwhm, n_stars=n_stars, n_galaxies=n_galaxies, seed=1)


def measure_field(field, **kwargs):
    image = field.image
    return measure_image(image.data, image.uncertainty.array, image.mask, **kwargs)


class TestPSF:
    @pytest.mark.parametrize("fwhm", [2.0, 3.0, 4.5, 9.0])
    def test_gaussian(self, fwhm):
        kernel = Gaussian2DKernel(fwhm / GAUSSIAN_FWHM, x_size=41, y_size=37, mode="oversample").array
        widened = np.hypot(fwhm, GAUSSIAN_FWHM / np.sqrt(12))  # by the pixel
        assert_allclose(psf_fwhm(7 * kernel), widened, rtol=0.02)

    @pytest.mark.parametrize("angle", [0, 1])
    def test_elliptical_is_the_geometric_mean(self, angle):
        kernel = Gaussian2DKernel(2.0, 3.0, theta=angle, x_size=41, y_size=41).array
        assert_allclose(psf_fwhm(kernel), GAUSSIAN_FWHM * np.sqrt(2 * 3), rtol=0.03)

    def test_peak_at_the_edge_of_its_image(self):
        kernel = Gaussian2DKernel(1.5, x_size=21, y_size=21).array
        assert_allclose(psf_fwhm(kernel[3:, 2:-4]), psf_fwhm(kernel), rtol=0.01)

    @pytest.mark.parametrize(
        ("psf", "match"),
        [
            (np.ones(5), "two-dimensional"),
            (np.zeros((5, 5)), "positive maximum"),
            (np.full((5, 5), np.nan), "finite"),
            (np.zeros((0, 3)), "two-dimensional"),
            (np.ones((5, 5)), "cut off"),
        ],
    )
    def test_errors(self, psf, match):
        with pytest.raises(ValueError, match=match):
            psf_fwhm(psf)


class TestMeasureImage:
    @pytest.mark.parametrize("fwhm", [2.0, 4.0, 7.0])
    def test_psf_from_stars(self, fwhm):
        field = make_field(fwhm)
        measure = measure_field(field)["psf_fwhm"]
        assert_allclose(measure.value, psf_fwhm(field.image.psf), rtol=0.06)
        assert_allclose(measure.value, fwhm, rtol=0.15)

    def test_many_stars_decide(self):
        rng = np.random.default_rng(0)
        scene = np.zeros((300, 300))
        scene[tuple(rng.integers(10, 290, (2, 40)))] = 8e3
        data = gaussian_filter(scene, 2.5) + rng.normal(size=scene.shape)
        measure = measure_image(data, 1.0)["psf_fwhm"]
        assert_allclose(measure.value, 2.5 * GAUSSIAN_FWHM, rtol=0.05)
        assert not measure.is_limit

    def test_hole_in_the_centre(self):
        data = np.random.default_rng(0).normal(size=(60, 1700))
        data[:, 200:] = np.nan
        data[30, 900] = 1e3  # a single pixel that tells nothing
        measures = measure_image(data, 1.0)
        edge = measure_image(data[:, :200], 1.0)
        assert measures["peak_snr"] == edge["peak_snr"]

    def test_galaxy_gives_a_limit(self):
        y, x = np.mgrid[-32:32, -32:32]
        scene = 300 * np.exp(-np.hypot(x, 2 * y) / 5)
        data = scene + np.random.default_rng(0).normal(size=scene.shape)
        measure = measure_image(data, 1.0)["psf_fwhm"]
        assert measure.is_limit
        assert measure.value > 3
        assert not measure.lies_outside((1, 2))

    def test_psf_given(self):
        field = make_field(4.0, n_stars=0)
        measure = measure_field(field, psf=field.image.psf)["psf_fwhm"]
        assert measure == Measure(psf_fwhm(field.image.psf))

    def test_pedestal_does_not_matter(self):
        image = make_field(4.0).image
        sigma = image.uncertainty.array
        plain, lifted = (measure_image(image.data + add, sigma, image.mask) for add in (0, 50 * sigma.min()))
        assert_allclose(lifted["psf_fwhm"].value, plain["psf_fwhm"].value, rtol=0.05)
        assert_allclose(lifted["noise_correlation"].value, plain["noise_correlation"].value, atol=0.02)

    @pytest.mark.parametrize("width", [0, 0.5, 0.8])
    def test_noise_correlation_below_sources(self, width):
        field = make_field(4.0)
        rng = np.random.default_rng(2)
        noise = gaussian_filter(rng.normal(size=field.truth.shape), width, mode="wrap")
        rho = np.mean(noise * np.roll(noise, 1, axis=1)) / noise.var()
        sigma = field.image.uncertainty.array
        data = field.truth + sigma * noise / noise.std()
        assert_allclose(measure_image(data, sigma)["noise_correlation"].value, rho, atol=0.04)

    def test_peak_snr_is_a_quantile(self):
        data = np.random.default_rng(0).normal(size=(100, 100))
        data[::10, ::9] = 1000.0  # 1.2 % of the pixels
        assert measure_image(data, 2.0)["peak_snr"] == Measure(500.0)
        data = np.random.default_rng(0).normal(size=(100, 100))
        data[50, 50] = 1e6  # one hot pixel
        assert measure_image(data, 1.0)["peak_snr"].value < 5

    def test_masked_and_useless_pixels_are_left_out(self):
        field = make_field(4.0)
        image = field.image
        expected = measure_field(field)
        data, sigma = image.data.copy(), image.uncertainty.array.copy()
        mask = np.zeros(data.shape, bool) if image.mask is None else image.mask.copy()
        mask[:, 100:103] = True
        data[:, 100:103] = 1e9
        data[5, 5], sigma[7, 7], sigma[8, 8] = np.nan, np.inf, 0
        measures = measure_image(data, sigma, mask)
        assert_allclose(measures["psf_fwhm"].value, expected["psf_fwhm"].value, rtol=0.03)
        assert_allclose(measures["noise_correlation"].value, expected["noise_correlation"].value, atol=0.02)
        assert_allclose(measures["peak_snr"].value, expected["peak_snr"].value, rtol=0.1)

    def test_scale_does_not_matter(self):
        image = make_field(3.0).image
        sigma = image.uncertainty.array
        one, other = (measure_image(a * image.data, a * sigma, image.mask) for a in (1, 1e-9))
        assert_allclose([m.value for m in other.values()], [m.value for m in one.values()], rtol=1e-5)

    def test_centre_of_a_large_image(self):
        rng = np.random.default_rng(0)
        data = rng.normal(size=(1100, 30))
        data[:30] = data[-30:] = 1e6
        assert measure_image(data, 1.0)["peak_snr"].value < 5

    def test_nothing_to_measure(self):
        data = np.random.default_rng(0).normal(size=(20, 20))
        assert set(measure_image(data, 1.0)) == {"peak_snr"}
        assert set(measure_image(np.zeros((80, 80)), 1.0)) == {"peak_snr"}
        assert measure_image(data, 1.0, names=("noise_ratio",)) == {}
        with pytest.raises(ValueError, match="no valid pixel"):
            measure_image(data, 1.0, np.ones(data.shape, bool))

    def test_input_is_kept(self):
        data = np.random.default_rng(0).normal(size=(64, 64)).astype("f4")
        data[3, 3] = np.nan
        before = data.copy()
        data.flags.writeable = False
        measure_image(data, 1.0)
        assert data.tobytes() == before.tobytes()


class TestCompare:
    def test_limits(self):
        assert not Measure(3.0).lies_outside((3, 4))
        assert Measure(2.9).lies_outside((3, 4))
        assert Measure(4.1).lies_outside((3, 4))
        assert not Measure(4.1, is_limit=True).lies_outside((3, 4))
        assert Measure(2.9, is_limit=True).lies_outside((3, 4))

    def test_only_what_both_know(self):
        measures = {"noise_ratio": Measure(2.0), "peak_snr": Measure(1e5), "psf_fwhm": Measure(4.0)}
        ranges = {
            "noise_ratio": [0, 1],
            "psf_fwhm": [3, 5],
            "noise_correlation": [0, 0.1],
            "default_noise_ratio": 0.2,
        }
        assert compare(measures, ranges) == ["noise_ratio"]
        assert compare(measures, {}) == []

    def test_text(self):
        text = describe(
            ["noise_ratio", "age"],
            {"noise_ratio": Measure(2), "age": Measure(7)},
            {"noise_ratio": [0, 1], "age": [8, 9]},
        )
        assert "noise ratio 2 (0 to 1), age 7 (8 to 9)." in text

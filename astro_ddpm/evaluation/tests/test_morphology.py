# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the morphology module.
"""

import numpy as np
import pytest
from astropy.modeling.models import Gaussian2D, Sersic2D
from numpy.testing import assert_allclose
from photutils.aperture import CircularAperture
from photutils.segmentation import SegmentationImage, SourceCatalog
from scipy.ndimage import gaussian_filter

from astro_ddpm.evaluation import morphology

SHAPE = (91, 101)
CENTER = (50.3, 44.6)
EVERYWHERE = np.ones(SHAPE, bool)
YY, XX = np.mgrid[: SHAPE[0], : SHAPE[1]]


def gaussian(x_stddev=9.0, y_stddev=6.0, theta=0.5, center=CENTER):
    return Gaussian2D(100.0, *center, x_stddev, y_stddev, theta=theta)(XX, YY)


def galaxy(rng, noise=0.02, companion=0.0):
    model = Sersic2D(1.0, r_eff=9, n=1.5, x_0=CENTER[0], y_0=CENTER[1], ellip=0.3, theta=0.7)
    image = gaussian_filter(model(XX, YY), 1.5)
    image += companion * gaussian(2, 2, 0, (60, 52)) / 100
    return image + noise * rng.standard_normal(SHAPE)


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def measure_all(planes, segment):
    radii = np.arange(1.0, 40)
    growth = growth_of(planes, radii)
    total = growth[:, -1]
    return [
        *morphology.ellipse(planes, segment),
        morphology.gini(planes, segment),
        morphology.m20(planes, segment),
        morphology.asymmetry(planes, CENTER, segment),
        morphology.light_radius(radii, growth, total),
        morphology.concentration(radii, growth, total),
    ]


def growth_of(planes, radii, center=CENTER):
    weights = [CircularAperture(center, r).to_mask(method="exact").to_image(SHAPE) for r in radii]
    return np.tensordot(planes, np.stack(weights), 2 * [[1, 2]])


def test_planes_are_independent_and_scale_does_not_matter(rng):
    planes = np.stack([galaxy(rng) for _ in range(3)])
    segment = planes[0] > 0.2
    together = measure_all(planes, segment)
    for i, plane in enumerate(planes):
        assert_allclose(
            [value[i] for value in together], np.ravel(measure_all(7 * plane[np.newaxis], segment))
        )


def test_nothing_there_is_nan():
    for value in measure_all(np.zeros((1, *SHAPE)), EVERYWHERE):
        assert np.isnan(value[0])


class TestEllipse:
    @pytest.mark.parametrize("theta", [-1.2, 0.0, 0.5])
    def test_gaussian(self, theta):
        ellipticity, orientation = morphology.ellipse(gaussian(theta=theta)[np.newaxis], EVERYWHERE)
        assert_allclose(ellipticity, 1 - 6 / 9, atol=1e-4)
        assert_allclose(orientation, np.rad2deg(theta), atol=0.01)

    def test_photutils(self, rng):
        image = galaxy(rng, companion=0.5)
        segment = image > 0.2
        catalog = SourceCatalog(image, SegmentationImage(segment.astype(int)))
        ellipticity, orientation = morphology.ellipse(image[np.newaxis], segment)
        assert_allclose(ellipticity, catalog.ellipticity, rtol=1e-10)
        assert_allclose(orientation, catalog.orientation.to_value("deg"), rtol=1e-10)

    def test_noise_does_not_bias_the_moments(self, rng):
        clean = gaussian(4, 4, 0)
        segment = np.hypot(XX - CENTER[0], YY - CENTER[1]) < 15
        planes = clean + 8 * rng.standard_normal((400, *SHAPE))
        flux, dx, dy = morphology._centered(planes, segment)
        size = ((flux * (dx**2 + dy**2)).sum(axis=1) / flux.sum(axis=1)).mean()
        flux, dx, dy = morphology._centered(clean[np.newaxis], segment)
        expected = (flux * (dx**2 + dy**2)).sum() / flux.sum()
        assert_allclose(size, expected, rtol=0.02)


class TestGini:
    def test_extremes(self):
        single = np.zeros((1, *SHAPE))
        single[0, 3, 4] = 2.0
        assert_allclose(morphology.gini(single, EVERYWHERE), 1)
        assert_allclose(morphology.gini(np.ones((1, *SHAPE)), EVERYWHERE), 0, atol=1e-12)


class TestM20:
    def test_gaussian(self):
        # with t = r^2 / 2 sigma^2: 20 % of the flux within t = -ln 0.8, and 1 - (1 + t) 0.8 of the moment
        expected = np.log10(1 - 0.8 * (1 - np.log(0.8)))
        assert_allclose(morphology.m20(gaussian(8, 8, 0)[np.newaxis], EVERYWHERE), expected, rtol=0.01)


class TestAsymmetry:
    def test_symmetric(self):
        assert_allclose(morphology.asymmetry(gaussian()[np.newaxis], CENTER, EVERYWHERE), 0, atol=1e-4)

    def test_companion(self):
        image = gaussian(3, 3, 0, (50, 45)) + 0.2 * gaussian(3, 3, 0, (70, 45))
        value = morphology.asymmetry(image[np.newaxis], (50, 45), EVERYWHERE)
        assert_allclose(value, 2 * 0.2 / 1.2, rtol=1e-3)

    def test_companion_left_out(self):
        image = gaussian(3, 3, 0, (50, 45)) + 0.2 * gaussian(3, 3, 0, (70, 45))
        use = np.abs(XX - 70) > 12
        value = morphology.asymmetry(image[np.newaxis], (50, 45), use)
        assert_allclose(value, 0, atol=1e-3)

    def test_noise_is_subtracted(self, rng):
        noise = rng.uniform(1, 3, SHAPE)
        noise = noise + noise[::-1, ::-1]
        planes = noise * rng.standard_normal((50, *SHAPE))
        center = (SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2
        raw = morphology.asymmetry(planes, center, EVERYWHERE)
        rest = morphology.asymmetry(planes, center, EVERYWHERE, noise)
        assert raw.mean() > 1.3
        assert abs(rest.mean()) < 5 * rest.std() / np.sqrt(50)

    def test_noise_on_what_is_asymmetric(self, rng):
        image = gaussian(3, 3, 0, (50, 45)) + 0.2 * gaussian(3, 3, 0, (70, 45))
        planes = image + 0.1 * rng.standard_normal((20, *SHAPE))
        use = np.hypot(XX - 50, YY - 45) < 32
        value = morphology.asymmetry(planes, (50, 45), use, 0.1)
        assert_allclose(value.mean(), 2 * 0.2 / 1.2, rtol=0.05)

    def test_center(self, rng):
        image = gaussian() + 0.01 * rng.standard_normal(SHAPE)
        center = morphology.asymmetry_center(image, (51.5, 43.8), EVERYWHERE)
        assert_allclose(center, CENTER, atol=0.05)


class TestRadii:
    def test_gaussian(self):
        image, radii = gaussian(5, 5, 0)[np.newaxis], np.arange(1.0, 40)
        growth = growth_of(image, radii)
        r50 = morphology.light_radius(radii, growth, image.sum(axis=(1, 2)))
        assert_allclose(r50, 5 * np.sqrt(2 * np.log(2)), rtol=0.005)
        value = morphology.concentration(radii, growth, image.sum(axis=(1, 2)))
        assert_allclose(value, 2.5 * np.log10(np.log(0.2) / np.log(0.8)), rtol=0.005)

    def test_uniform_disc(self):
        radii = np.linspace(0, 10, 4)[1:]
        growth = np.pi * radii[np.newaxis] ** 2
        assert_allclose(morphology.light_radius(radii, growth, growth[:, -1]), 10 / np.sqrt(2))
        assert_allclose(morphology.concentration(radii, growth, growth[:, -1]), 5 * np.log10(2))

    def test_never_reached(self):
        assert np.isnan(morphology.light_radius(np.array([1.0, 2.0]), np.ones((1, 2)), np.array([5.0])))


class TestStatmorph:
    """The same definitions in statmorph, where it is allowed to choose the pixels."""

    @pytest.fixture
    def pair(self, rng):
        statmorph = pytest.importorskip("statmorph")
        image = galaxy(rng, noise=0.005, companion=0.4)
        segment = (gaussian_filter(image, 1) > 0.05).astype(int)
        return image, statmorph.SourceMorphology(image, segment, label=1, gain=1e4)

    def cut(self, pair):
        image, other = pair
        box = other._slice_stamp
        return image[box][np.newaxis], other

    def test_gini_and_m20(self, pair):
        image, other = self.cut(pair)
        assert_allclose(morphology.gini(image, other._segmap_gini), other.gini, rtol=1e-6)
        assert_allclose(morphology.m20(image, other._segmap_gini), other.m20, rtol=1e-6)

    def test_asymmetry(self, pair):
        image, other = self.cut(pair)
        inside = CircularAperture(other._asymmetry_center, 1.5 * other._rpetro_circ_centroid)
        use = inside.to_mask(method="center").to_image(image.shape[1:]) > 0
        ours = morphology.asymmetry(image, other._asymmetry_center, use, noise=0.005)
        assert_allclose(ours, other.asymmetry, atol=0.01)
        center = morphology.asymmetry_center(image[0], other._asymmetry_center + 0.7, use)
        assert_allclose(center, other._asymmetry_center, atol=0.3)

    def test_concentration(self, pair):
        image, other = pair
        total_radius = 1.5 * other.rpetro_circ
        radii = np.linspace(0, total_radius, 60)[1:]
        center = other.xc_asymmetry, other.yc_asymmetry
        growth = growth_of(image[np.newaxis], radii, center)
        assert_allclose(
            morphology.concentration(radii, growth, growth[:, -1]), other.concentration, rtol=0.01
        )

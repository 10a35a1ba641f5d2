# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the sky of a frame: simulated frames, of which sky and sources are known.
"""

import numpy as np
import pytest
from astropy.modeling.models import Sersic2D
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter

from astro_ddpm.noise import estimate_sky_level, find_sources, frame_sigma, frame_sky, measure_sky
from astro_ddpm.noise.sky import choose_grain

SHAPE = (256, 320)
Y, X = np.indices(SHAPE)
SLOPE = 0.5 * (X / 319 - Y / 255)


def make_frame(*sources, sky=100.0, seed=0):
    """Return a frame of noise 1."""
    noise = np.random.default_rng(seed).normal(0, 1, SHAPE)
    return sum((source(X, Y) for source in sources), sky + noise).astype(np.float32)


def stars(n=30, seed=1):
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, (n, 3)) * [319, 255, 50]
    return lambda x, y: sum(f * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 6) for a, b, f in places)


SMALL = Sersic2D(5, 12, 1, 200, 150, 0.4, 1)
LARGE = Sersic2D(2, 60, 2, 160, 128, 0.3, 0.5)
ALL = np.ones(SHAPE, bool)


@pytest.mark.parametrize("sky", [100.0, 100 + SLOPE], ids=["constant", "slope"])
@pytest.mark.parametrize("source", [SMALL, LARGE], ids=["small", "large"])
def test_sky_lies_under_the_sources(source, sky):
    error = measure_sky(make_frame(source, stars(), sky=sky), ALL)[0] - sky
    assert error.min() > -0.1
    assert (error - source(X, Y)).max() < 0.15  # nothing is dug where there is light


def test_boxes_that_are_asked_for():
    frame = make_frame(LARGE)
    errors = [measure_sky(frame, ALL, **options)[0] - 100 for options in ({}, {"box_size": 32})]
    assert np.ptp(errors[1]) > 2 * np.ptp(errors[0])  # small ones follow the galaxy


def test_sources_are_found():
    truth = SMALL(X, Y) + LARGE(X, Y) / 4
    found = find_sources(make_frame(lambda *_: truth) - 100, ALL)
    assert found[truth > 1.5].mean() > 0.99
    assert find_sources(make_frame(sky=0.0), ALL).mean() < 0.1  # 3 sigma on three scales, and what is around


def test_holes_are_left_out():
    valid = (X > 40) & (Y > 30)
    frame = np.where(valid, make_frame(SMALL), 1e6).astype(np.float32)
    measured, sources = measure_sky(frame, valid)
    assert_allclose(measured, 100, atol=0.12)
    assert not sources[:25].any()


@pytest.mark.parametrize("shape", [(20, 24), (7, 300), (64, 64)])
def test_small_frames(shape):
    frame = np.random.default_rng(2).normal(50, 1, shape)
    measured, _ = measure_sky(frame, np.ones(shape, bool))
    assert measured.shape == shape
    assert_allclose(measured.mean(), 50, atol=0.25)


@pytest.mark.parametrize("level", [100.0, 103.7, 108.0])
def test_values_in_steps(level):
    frame = 16 * np.round(make_frame(sky=level / 27) * 27 / 16)  # a camera of 12 bits
    measured, _ = measure_sky(frame, ALL)
    assert_allclose(measured / 27, level / 27, atol=0.1)
    assert_allclose(estimate_sky_level(frame) / 27, level / 27, atol=0.05)


@pytest.mark.parametrize("photons", [0.02, 0.06, 0.3, 1, 4, 15])
@pytest.mark.parametrize("source", [None, stars(20, 2)], ids=["empty", "stars"])
def test_few_photons(photons, source):
    rng = np.random.default_rng(8)
    light = photons + (np.sqrt(photons) * source(X, Y) if source else np.zeros(SHAPE))
    frame = 0.007 * rng.poisson(light) / rng.uniform(0.97, 1.03, SHAPE)  # over a flat field
    error = (measure_sky(frame, ALL)[0] / 0.007 - photons) / np.sqrt(photons)
    assert_allclose(error.mean(), 0, atol=0.07)
    assert error.std() < 0.07
    assert_allclose(estimate_sky_level(frame) / 0.007, photons, atol=0.05 * np.sqrt(photons))


def test_stars_are_no_photons():
    crowd = make_frame(stars(3000), sky=0.0).astype(float)
    assert choose_grain(crowd, ALL) == 1


def test_noise_is_no_source():
    skies = [measure_sky(make_frame(seed=seed), ALL)[0].mean() for seed in range(6)]
    assert_allclose(np.mean(skies), 100, atol=0.015)


@pytest.mark.parametrize("mean", [0.05, 0.4, 1.5])
def test_noise_of_few_photons_is_that_before_the_sky_is_subtracted(mean):
    rng = np.random.default_rng(5)
    frame = rng.poisson(mean, SHAPE) / rng.uniform(0.95, 1.05, SHAPE)
    with pytest.warns(AstropyUserWarning) as told:
        sigma = frame_sigma(frame - 0.05 * SLOPE / SLOPE.max(), None, ALL, "adu", frame)
    assert sigma[0, 0] == pytest.approx(np.sqrt(mean), rel=0.1)
    said = any("of the pixels have the lowest value" in str(w.message) for w in told)
    assert said is (mean < 0.69)


def test_noise_in_steps_is_that_before_the_sky_is_subtracted():
    frame = (16 * np.round(make_frame() * 27 / 16)).astype(np.float32)
    with pytest.warns(AstropyUserWarning, match="no uncertainty"):
        sigma = frame_sigma(frame - 2700 - 20 * SLOPE, None, ALL, "adu", frame)
    assert_allclose(sigma[0, 0], 27.4, rtol=0.03)


@pytest.mark.parametrize("width", [0.0, 0.8, 1.2, 1.7, 2.0])
def test_noise_that_is_correlated_far(width):
    noise = gaussian_filter(make_frame(sky=0.0).astype(float), width, mode="wrap")
    with pytest.warns(AstropyUserWarning, match="no uncertainty"):
        sigma = frame_sigma(noise, None, ALL, "adu")
    assert_allclose(sigma[0, 0], noise.std(), rtol=0.12)


def test_changes_with_the_unit():
    frame = make_frame(SMALL, stars())
    first, second = (measure_sky(np.float32(a) * frame, ALL)[0] for a in (1, 1000))
    assert_allclose(second, 1000 * first, rtol=1e-4)


def test_a_sky_that_is_too_high_is_told():
    cloud = -1.5 * np.exp(-((X - 60) ** 2 + (Y - 200) ** 2) / 2 / 20**2)
    frame = make_frame(lambda *_: cloud)
    with pytest.warns(AstropyUserWarning, match=r"too high by up to .* around x = \d+, y = (1|2)\d+: give"):
        frame_sky({"box_size": 256}, frame, ALL, None)
    frame_sky("photutils", make_frame(SMALL, stars()), ALL, None)  # does not warn


@pytest.mark.parametrize("wrong", ["sky", {"box": 64}])
def test_what_cannot_be_used_is_named(wrong):
    with pytest.raises(ValueError, match=r"background must be None.* box_size and filter_size"):
        frame_sky(wrong, make_frame(), ALL, None)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filter_size": 2}, "filter_size .* odd"),
        ({"box_size": (32, 0)}, "box_size"),
        ({"box_size": 3.5}, "box_size"),
    ],
)
def test_options_are_checked(options, match):
    with pytest.raises(ValueError, match=match):
        frame_sky(options, make_frame(), ALL, None)


def test_no_valid_pixel():
    with pytest.raises(ValueError, match="no valid pixel"):
        measure_sky(make_frame(), ~ALL)

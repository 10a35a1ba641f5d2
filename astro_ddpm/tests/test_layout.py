# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of what tells raw frames: simulated mosaics and edges, of which the layout is known.
"""

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose

from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.nddata import Exposure
from astro_ddpm.noise import detect_mosaic, find_edges

SHAPE = (150, 170)
Y, X = np.indices(SHAPE)
RGGB = np.array([[0, 1], [1, 2]])[Y % 2, X % 2]
WHOLE = slice(0, SHAPE[0]), slice(0, SHAPE[1])


def stars(n=60, width=1.3, seed=4):
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, (n, 3)) * [*SHAPE, 300]
    return sum(f * np.exp(-((Y - a) ** 2 + (X - b) ** 2) / 2 / width**2) for a, b, f in places)


@pytest.fixture
def noise():
    return np.random.default_rng(3).normal(0, 1, SHAPE)


class TestMosaic:
    @pytest.mark.parametrize("levels", [(0.0, 0.5, 0.0), (3.0, 9.0, 5.0), (-0.4, 0.0, 0.4)])
    def test_level(self, noise, levels):
        colours = np.array(levels)[RGGB]
        level, gain = detect_mosaic(noise + stars() + colours)
        assert_allclose(level, colours.std(), rtol=0.15)
        assert gain == 0

    def test_gain_where_the_sky_is_subtracted(self, noise):
        response = np.array([0.7, 1.2, 0.9])[RGGB]
        level, gain = detect_mosaic(noise + stars(200, 3) * response)
        assert level < 0.2
        assert_allclose(gain, response.std() / response.mean(), rtol=0.2)

    @pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
    def test_stars_are_none(self, noise, width):
        assert detect_mosaic(noise + stars(300, width)) == (0, 0)

    def test_columns_that_alternate_are_banding(self, noise):
        assert detect_mosaic(noise + 3 * (X % 2)) == (0, 0)

    def test_holes_are_left_out(self, noise):
        assert detect_mosaic(np.where(RGGB == 0, 50.0, noise), RGGB == 0) == (0, 0)
        holes = (Y > 60) & (Y < 90)
        assert detect_mosaic(np.where(holes, 1e6, noise + 2 * (RGGB == 2)), holes)[0] > 0.5


class TestEdges:
    @pytest.mark.parametrize("strips", [(0, 0, 20, 0), (8, 0, 0, 12), (5, 4, 3, 25)])
    @pytest.mark.parametrize("sky", [3.0, 200.0])
    def test_strips(self, noise, strips, sky):
        top, bottom, left, right = strips
        section = slice(top, SHAPE[0] - bottom), slice(left, SHAPE[1] - right)
        frame = noise.copy()
        frame[section] += sky + stars()[section]
        assert find_edges(frame) == section

    def test_a_strip_with_a_slope_and_a_ramp(self, noise):
        frame = 500 + 0.02 * Y + noise + np.where(X < 10, 0, np.where(X < 11, 60, 100))
        assert find_edges(frame) == (WHOLE[0], slice(11, SHAPE[1]))

    def test_sky_and_sources_are_none(self, noise):
        galaxy = 40 * np.exp(-np.hypot(Y - 20, X - 30) / 25)
        for scene in (stars(), galaxy, 0.5 * X, 3.0 * (X > 85)):  # the last, two halves of a chip
            assert find_edges(noise + scene) == WHOLE

    @pytest.mark.parametrize("shape", [(6, 200), (40, 40), (1, 1)])
    def test_small(self, shape):
        assert find_edges(np.zeros(shape)) == (slice(0, shape[0]), slice(0, shape[1]))


def exposure_of(data, **header):
    ccd = CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.ones(SHAPE)), meta=header)
    return Exposure.parse(ccd)


def test_raw_frames_are_told(noise):
    with pytest.warns(AstropyUserWarning, match=r"cells of 2 x 2 differ, by 2\.\d of the noise.*no BAYERPAT"):
        exposure_of(noise + 5 * (RGGB == 1)).warn_of_raw()
    with pytest.warns(AstropyUserWarning, match=r"keep only image\[9:150, 0:170\], in FITS"):
        exposure_of(noise + 50 * (Y > 8)).warn_of_raw()
    with pytest.warns(AstropyUserWarning) as record:  # once
        exposure_of(noise + 5 * (RGGB == 1), BAYERPAT="RGGB").warn_of_raw()
    assert len(record) == 1


def test_reduced_images_are_not_told():
    for seed in range(3):
        field = make_galaxy_field(shape=(160, 160), n_galaxies=20, n_stars=20, seed=seed)
        Exposure.parse(field.image).warn_of_raw()

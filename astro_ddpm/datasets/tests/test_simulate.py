# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the simulate module.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.utils.exceptions import AstropyDeprecationWarning
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import EllipticalAperture
from photutils.centroids import centroid_com

from astro_ddpm.datasets import GalaxyField, make_galaxy_field
from astro_ddpm.datasets.simulate import _Moffat, _render, _Source

SMALL = {"shape": (96, 128), "n_galaxies": 6, "n_stars": 3, "n_companions": 1}


@pytest.fixture(scope="module")
def field():
    return make_galaxy_field(seed=1)


class TestImage:
    def test_classes_and_units(self, field):
        assert isinstance(field, GalaxyField)
        assert isinstance(field.image, CCDData)
        assert field.image.unit == u.adu
        assert field.image.data.dtype == np.float32
        assert field.image.uncertainty.array.shape == field.truth.shape == (256, 256)
        assert_allclose(field.image.psf.sum(), 1)
        assert repr(field) == "<GalaxyField: 256 x 256 pixels, 38 sources>"

    def test_noise_is_that_of_the_uncertainty(self, field):
        good = ~field.image.mask
        pull = ((field.image.data - field.truth) / field.image.uncertainty.array)[good]
        assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_noise_at_every_brightness(self, field, level):
        sky = np.median(field.image.uncertainty.array)
        edges = sky * np.array([0, 1, 10, np.inf])
        good = ~field.image.mask & (field.truth >= edges[level]) & (field.truth < edges[level + 1])
        pull = ((field.image.data - field.truth) / field.image.uncertainty.array)[good]
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)

    def test_uncertainty_is_ccd_equation(self, field):
        header = field.image.header
        electrons = (field.truth + header["SKYLEVEL"]) * header["GAIN"] + header["RDNOISE"] ** 2
        assert_allclose(field.image.uncertainty.array * header["GAIN"], np.sqrt(electrons), rtol=1e-6)

    def test_noise_is_white(self, field):
        pull = np.where(field.image.mask, 0, field.image.data - field.truth)
        pull /= field.image.uncertainty.array
        assert abs(np.mean(pull[:, 1:] * pull[:, :-1])) < 4 / np.sqrt(pull.size)
        assert abs(np.mean(pull[1:] * pull[:-1])) < 4 / np.sqrt(pull.size)

    def test_bad_columns_are_masked_garbage(self):
        image = make_galaxy_field(**SMALL, bad_columns=3).image
        assert_array_equal(image.mask.sum(axis=1), 3)
        assert np.all(image.mask.all(axis=0) == image.mask.any(axis=0))
        assert image.data[image.mask].std() > 100 * np.median(image.uncertainty.array)
        assert not make_galaxy_field(**SMALL, bad_columns=0).image.mask.any()

    def test_header(self, field):
        header = field.image.header
        assert (header["GAIN"], header["RDNOISE"], header["EXPTIME"]) == (2, 5, 300)
        assert header["SIMSEED"] == 1

    def test_round_trip(self, tmp_path):
        image = make_galaxy_field(**SMALL).image
        image.write(tmp_path / "field.fits")
        copy = CCDData.read(tmp_path / "field.fits")
        assert_array_equal(copy.data, image.data)
        assert_array_equal(copy.mask, image.mask)
        assert_array_equal(copy.uncertainty.array, image.uncertainty.array)

    def test_wcs(self, field):
        catalog, wcs = field.catalog, field.image.wcs
        assert list(wcs.wcs.ctype) == ["RA---TAN", "DEC--TAN"]
        assert_allclose(wcs.proj_plane_pixel_scales()[0].to_value(u.arcsec), 0.2)
        x, y = wcs.world_to_pixel(catalog["sky_center"])
        assert_allclose(x, catalog["x"].value, atol=1e-6)
        assert_allclose(y, catalog["y"].value, atol=1e-6)


class TestScene:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_galaxy_flux(self, seed):
        options = {"n_galaxies": 1, "n_stars": 0, "n_companions": 0}
        field = make_galaxy_field((320, 320), seed=seed, **options)
        assert field.catalog["kind"][0] == "two-component"
        assert_allclose(field.truth.sum(), field.catalog["flux"][0].value, rtol=0.005)

    def test_star_flux(self):
        field = make_galaxy_field(n_galaxies=0, n_stars=1)
        assert_allclose(field.truth.sum(), field.catalog["flux"][0].value, rtol=0.005)

    @pytest.mark.parametrize("index", [0.8, 1.0, 2.0])
    def test_sersic_flux_and_center(self, index):
        source = _Source("sersic", 149.3, 151.8, 700.0, 6.0, 0.4, 30.0, index)
        scene = _render([source], (300, 300), _Moffat(4.0, 3.5))
        assert_allclose(scene.sum(), 700, rtol=0.005)
        assert_allclose(centroid_com(scene), (149.3, 151.8), atol=0.02)

    def test_star_center_and_width(self):
        scene = _render([_Source("star", 60.3, 59.6, 1.0)], (120, 120), _Moffat(10.0, 3.5))
        assert_allclose(centroid_com(scene[20:-20, 20:-20]), (40.3, 39.6), atol=0.02)
        above = np.interp(0.5, scene[:61, 60] / scene.max(), np.arange(61))
        below = np.interp(-0.5, -scene[60:, 60] / scene.max(), np.arange(60, 120))
        assert_allclose(below - above, 10.0, rtol=0.02)

    @pytest.mark.parametrize(("index", "bulge", "spiral"), [(1, 0, 0), (2, 0, 0), (1, 0.3, 1.8)])
    def test_half_light_ellipse(self, index, bulge, spiral):
        source = _Source("sersic", 150.0, 150.0, 1.0, 15.0, 0.4, 30.0, index, bulge, spiral)
        scene = _render([source], (300, 300), _Moffat(1.0, 3.5))
        half = source.r_half
        aperture = EllipticalAperture((150, 150), half, 0.6 * half, theta=30 * u.deg)
        flux, _ = aperture.do_photometry(scene)
        assert_allclose(flux, 0.5, rtol=0.02)

    def test_catalog_r_half_is_that_of_the_scene(self):
        options = {"n_galaxies": 1, "n_stars": 0, "n_companions": 0, "psf_fwhm": 4}
        field = make_galaxy_field((256, 256), **options)
        row = field.catalog[0]
        a, axis_ratio = row["r_half"].value, 1 - row["ellipticity"].value
        aperture = EllipticalAperture((row["x"].value, row["y"].value), a, a * axis_ratio, theta=row["theta"])
        inside, _ = aperture.do_photometry(field.truth)
        assert_allclose(inside / row["flux"].value, 0.5, atol=0.04)  # the PSF takes some out

    def test_source_over_the_edge_loses_the_light_outside(self):
        scene = _render([_Source("star", -0.5, 20.0, 1.0)], (41, 41), _Moffat(3.0, 3.5))
        assert_allclose(scene.sum(), 0.5, rtol=0.01)

    def test_two_component_has_structure(self):
        smooth, arms = (
            _Source("sersic", 64.0, 64.0, 1.0, 12.0, 0.0, 0.0, 1.0, spiral=contrast)
            for contrast in (0.0, 1.5)
        )
        smooth, arms = (_render([source], (129, 129), _Moffat(2.0, 3.5)) for source in (smooth, arms))
        ring = np.abs(np.hypot(*(np.mgrid[:129, :129] - 64)) - 12) < 1
        assert np.ptp(arms[ring]) > 5 * np.ptp(smooth[ring])
        assert_allclose(arms[ring].mean(), smooth[ring].mean(), rtol=0.02)

    def test_range_of_signal_to_noise(self, field):
        assert field.catalog["peak_snr"].min() < 1.5
        assert field.truth.max() > 300 * np.median(field.image.uncertainty.array)


class TestCatalog:
    def test_columns(self, field):
        catalog = field.catalog
        assert isinstance(catalog, QTable)
        assert catalog["flux"].unit == u.adu
        assert catalog["x"].unit == catalog["r_half"].unit == u.pix
        assert catalog["theta"].unit == u.deg
        assert all(catalog[name].info.description for name in catalog.colnames)
        assert set(catalog["kind"]) == {"two-component", "sersic", "companion", "star"}
        assert_array_equal(catalog["id"], np.arange(1, 39))

    def test_companions_are_near_their_hosts(self, field):
        companions = field.catalog[field.catalog["kind"] == "companion"]
        hosts = field.catalog[companions["host"] - 1]
        distance = np.hypot(companions["x"] - hosts["x"], companions["y"] - hosts["y"])
        assert np.all(distance < 3 * hosts["r_half"])
        assert np.all(companions["flux"] < 0.1 * hosts["flux"])

    def test_ecsv(self, field, tmp_path):
        field.catalog.write(tmp_path / "catalog.ecsv")
        copy = QTable.read(tmp_path / "catalog.ecsv")
        assert_array_equal(copy["flux"], field.catalog["flux"])

    @pytest.mark.parametrize("shape", [(32, 32), (32, 200)])
    def test_small_and_narrow_fields(self, shape):
        catalog = make_galaxy_field(shape, n_galaxies=5, n_stars=3, n_companions=5).catalog
        assert np.all((catalog["x"].value >= 0) & (catalog["x"].value <= shape[1] - 1))
        assert np.all((catalog["y"].value >= 0) & (catalog["y"].value <= shape[0] - 1))

    def test_empty_field(self):
        field = make_galaxy_field((64, 64), n_galaxies=0, n_stars=0)
        assert len(field.catalog) == 0
        assert not field.truth.any()


class TestRandomness:
    def test_same_seed_same_field(self):
        first, second = make_galaxy_field(**SMALL, seed=5), make_galaxy_field(**SMALL, seed=5)
        assert_array_equal(first.image.data, second.image.data)
        assert_array_equal(first.truth, second.truth)
        assert_array_equal(first.catalog["flux"], second.catalog["flux"])

    def test_other_seed_other_field(self):
        fields = make_galaxy_field(**SMALL, seed=5), make_galaxy_field(**SMALL, seed=6)
        assert not np.array_equal(fields[0].truth, fields[1].truth)

    def test_seed_none(self):
        fields = make_galaxy_field(**SMALL, seed=None), make_galaxy_field(**SMALL, seed=None)
        assert not np.array_equal(fields[0].truth, fields[1].truth)
        assert "SIMSEED" not in fields[0].image.header

    def test_bad_columns_do_not_change_the_rest(self):
        one, none = (make_galaxy_field(**SMALL, bad_columns=number).image for number in (1, 0))
        assert_array_equal(one.data[~one.mask], none.data[~one.mask])

    def test_global_state_is_left_alone(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        make_galaxy_field(**SMALL)
        assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


class TestDeepExposure:
    @pytest.mark.parametrize("ratio", [0.1, 0.3])
    def test_noise(self, field, ratio):
        deep = field.deep_exposure(ratio)
        assert_allclose(deep.uncertainty.array, ratio * field.image.uncertainty.array, rtol=1e-5)
        pull = (deep.data - field.truth) / deep.uncertainty.array
        assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
        assert abs(pull.std() - 1) < 4 / np.sqrt(2 * pull.size)

    def test_header_describes_the_mean_image(self, field):
        header = field.deep_exposure(0.2).header
        electrons = (field.truth + header["SKYLEVEL"]) * header["GAIN"] + header["RDNOISE"] ** 2
        sigma = field.deep_exposure(0.2).uncertainty.array
        assert_allclose(sigma * header["GAIN"], np.sqrt(electrons), rtol=1e-5)
        assert header["NOISERAT"] == 0.2
        assert field.image.header["GAIN"] == 2

    @pytest.mark.parametrize("seed", [1, 2])
    def test_independent_of_the_image(self, field, seed):
        deep = field.deep_exposure(0.2, seed=seed)
        good = ~field.image.mask
        pulls = [((ccd.data - field.truth) / ccd.uncertainty.array)[good] for ccd in (field.image, deep)]
        assert abs(np.corrcoef(pulls)[0, 1]) < 4 / np.sqrt(good.sum())

    def test_seed(self, field):
        assert_array_equal(field.deep_exposure(seed=3).data, field.deep_exposure(seed=3).data)
        assert not np.array_equal(field.deep_exposure(seed=3).data, field.deep_exposure().data)

    @pytest.mark.parametrize("ratio", [0, -1, np.nan])
    def test_bad_ratio(self, field, ratio):
        with pytest.raises(ValueError, match="noise_ratio must be finite and positive"):
            field.deep_exposure(ratio)

    def test_old_name(self, field):
        with pytest.warns(AstropyDeprecationWarning, match="depth.*noise_ratio"):
            deep = field.deep_exposure(depth=0.3)
        assert_array_equal(deep.data, field.deep_exposure(0.3).data)


class TestParameters:
    def test_quantities(self):
        plain = make_galaxy_field(**SMALL, gain=2, read_noise=5, sky_level=100, pixel_scale=0.36)
        units = make_galaxy_field(
            **SMALL,
            gain=2 * u.electron / u.adu,
            read_noise=5 * u.electron,
            sky_level=100 * u.adu,
            pixel_scale=1e-4 * u.deg,
        )
        assert_array_equal(plain.image.data, units.image.data)
        assert_allclose(plain.image.wcs.wcs.cdelt, units.image.wcs.wcs.cdelt)

    def test_no_sky_and_no_read_noise(self):
        make_galaxy_field(**SMALL, sky_level=0)
        make_galaxy_field(**SMALL, read_noise=0)
        with pytest.raises(ValueError, match="read_noise and sky_level must not both be 0"):
            make_galaxy_field(**SMALL, read_noise=0, sky_level=0)

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"shape": 64}, TypeError, "shape must be two integers"),
            ({"shape": (64.0, 64)}, TypeError, "shape must be two integers"),
            ({"shape": (64, 64, 64)}, TypeError, "shape must be two integers"),
            ({"shape": (64, 16)}, ValueError, "shape must be at least"),
            ({"n_galaxies": -1}, ValueError, "n_galaxies must be at least 0"),
            ({"n_stars": 1.5}, TypeError, "n_stars must be an integer"),
            ({"n_companions": -2}, ValueError, "n_companions must be at least 0"),
            ({"bad_columns": 256}, ValueError, "bad_columns must be at least 0 and at most 255"),
            ({"psf_fwhm": 0.5}, ValueError, "psf_fwhm must be at least 1"),
            ({"psf_fwhm": -4}, ValueError, "psf_fwhm must be finite and positive"),
            ({"psf_beta": 1}, ValueError, "psf_beta must be more than 1"),
            ({"gain": 0}, ValueError, "gain must be finite and positive"),
            ({"read_noise": -5}, ValueError, "read_noise must be finite and not negative"),
            ({"sky_level": np.inf}, ValueError, "sky_level must be finite and not negative"),
            ({"pixel_scale": 0}, ValueError, "pixel_scale must be finite and positive"),
        ],
    )
    def test_errors(self, options, error, match):
        with pytest.raises(error, match=match):
            make_galaxy_field(**options)

    def test_wrong_unit(self):
        with pytest.raises(u.UnitConversionError):
            make_galaxy_field(gain=2 * u.electron)

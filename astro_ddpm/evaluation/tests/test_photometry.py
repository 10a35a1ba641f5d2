# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the photometry module.
"""

import astropy.units as u
import numpy as np
import photutils.aperture as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAnnulus, CircularAperture, SkyCircularAperture
from photutils.datasets import make_wcs
from scipy.ndimage import gaussian_filter

from astro_ddpm import EnhancedCCDData
from astro_ddpm.evaluation import aperture_photometry

SHAPE = (60, 80)
POSITIONS = [(40.0, 30.0), (20.3, 22.6), (60.0, 45.5)]
META = {"DDPMMODL": "ddpm", "DDPMSHA": "0123abcd", "DDPMDEP": 0.2}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gaussian(flux=1000.0, sigma=2.5, center=POSITIONS[0]):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r2 = (x - center[0]) ** 2 + (y - center[1]) ** 2
    return flux / (2 * np.pi * sigma**2) * np.exp(-r2 / (2 * sigma**2))


def enhance(data, *, sigma=None, samples=None, unit="adu", **options):
    """Make an enhanced image."""
    uncertainty = None if sigma is None else StdDevUncertainty(np.broadcast_to(sigma, SHAPE).copy())
    return EnhancedCCDData(data, unit=unit, uncertainty=uncertainty, samples=samples, **options)


def predict(image, apertures, **options):
    """Measure with the errors of an exposure, which need samples only."""
    return aperture_photometry(image, apertures, scene=False, **options)


class TestFlux:
    def test_gaussian_source(self):
        radius, sigma = 6.0, 2.5
        table = aperture_photometry(enhance(gaussian()), CircularAperture(POSITIONS[0], radius))
        inside = 1 - np.exp(-(radius**2) / (2 * sigma**2))
        assert_allclose(table["flux"][0].to_value("adu"), 1000 * inside, rtol=0.003)

    def test_pixels_that_are_not_finite_are_left_out(self, rng):
        aperture, data = CircularAperture(POSITIONS[0], 5), rng.normal(size=SHAPE)
        mask = np.zeros(SHAPE, bool)
        mask[30, 39:42] = True
        expected = aperture_photometry(enhance(data, sigma=1.0), aperture, mask=mask)
        bad, sigma = data.copy(), np.ones(SHAPE)
        bad[30, 39], bad[30, 40], sigma[30, 41] = np.nan, np.inf, np.inf
        table = aperture_photometry(enhance(bad, sigma=sigma), aperture)
        assert_allclose(table["flux"], expected["flux"])
        assert_allclose(table["flux_err"], expected["flux_err"])

    def test_masked_pixels_that_were_not_filled_are_left_out(self, rng):
        aperture, data, mask = (
            CircularAperture(POSITIONS[0], 5),
            rng.normal(size=SHAPE),
            np.zeros(SHAPE, bool),
        )
        mask[:, 40] = True
        data[mask] = 3e4
        fluxes = {
            treatment: aperture_photometry(enhance(data, mask=mask, meta={"DDPMMASK": treatment}), aperture)[
                "flux"
            ][0]
            for treatment in ("fill", "propagate")
        }
        assert fluxes["fill"] > 3e4 * u.adu
        assert abs(fluxes["propagate"]) < 100 * u.adu

    def test_slice_of_a_cube(self):
        wcs = WCS(naxis=3)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN", "FREQ"
        wcs.wcs.crval, wcs.wcs.cdelt = (20.0, 10.0, 1.4e9), (-1e-3, 1e-3, 1e6)
        image, aperture = enhance(gaussian(), wcs=wcs), CircularAperture(POSITIONS[0], 5)
        table = aperture_photometry(image, aperture)
        on_sky = SkyCircularAperture(table["sky_center"], 18 * u.arcsec)
        assert_allclose(aperture_photometry(image, on_sky)["flux"], table["flux"], rtol=1e-3)

    @pytest.mark.parametrize("kind", ["circle", "annulus", "ellipse", "rectangle"])
    def test_as_photutils(self, rng, kind):
        aperture = {
            "circle": CircularAperture(POSITIONS, 4.3),
            "annulus": CircularAnnulus(POSITIONS, 4, 8),
            "ellipse": pa.EllipticalAperture(POSITIONS, 6, 3, theta=30 * u.deg),
            "rectangle": pa.RectangularAperture(POSITIONS, 6, 3, theta=30 * u.deg),
        }[kind]
        data, mask = rng.normal(size=SHAPE), rng.random(SHAPE) < 0.1
        table = aperture_photometry(enhance(data), aperture, mask=mask)
        assert_allclose(table["flux"].value, aperture.do_photometry(data, mask=mask)[0])

    def test_columns(self, rng):
        samples = rng.normal(size=(8, *SHAPE))
        image = enhance(samples.mean(axis=0), sigma=1.0, samples=samples, wcs=make_wcs(SHAPE))
        table = aperture_photometry(image, CircularAperture(POSITIONS, 3))
        quantiles = ["flux_q16", "flux_q50", "flux_q84"]
        assert table.colnames == ["id", "x", "y", "sky_center", "flux", "flux_err", *quantiles]
        assert table["x"].unit == u.pix
        assert table["flux"].unit == table["flux_err"].unit == u.adu
        assert all(table[name].info.description for name in table.colnames)
        assert_array_equal(table["id"], [1, 2, 3])
        assert_allclose(np.transpose([table["x"], table["y"]]), POSITIONS)

    def test_list_of_apertures(self, rng):
        samples = rng.normal(size=(8, *SHAPE))
        image = enhance(samples[0], samples=samples)
        apertures = [CircularAperture(POSITIONS, r) for r in (3, 5)]
        table = predict(image, apertures)
        for number, aperture in enumerate(apertures):
            alone = predict(image, aperture)
            for name in ("flux", "flux_err", "flux_q16", "flux_q50", "flux_q84"):
                assert_array_equal(table[f"{name}_{number}"], alone[name])
        assert "flux_0" in predict(image, apertures[:1]).colnames

    def test_part_of_the_aperture_outside(self):
        table = aperture_photometry(enhance(np.ones(SHAPE)), CircularAperture((-0.5, 30), 4))
        assert_allclose(table["flux"][0].value, 8 * np.pi, rtol=1e-6)

    def test_aperture_outside(self, rng):
        samples = rng.normal(size=(4, *SHAPE))
        image = enhance(samples[0], samples=samples)
        table = predict(image, CircularAperture([(-50, 30), (30, 30)], 4))
        for name in ("flux", "flux_err", "flux_q16"):
            assert_array_equal(np.isfinite(table[name]), [False, True])

    def test_nan_outside_the_aperture_does_no_harm(self):
        data = np.ones(SHAPE)
        data[30, 50] = np.nan
        table = aperture_photometry(enhance(data), CircularAperture((40, 30), 9.5))
        assert_allclose(table["flux"][0].value, np.pi * 9.5**2)

    def test_input_unchanged(self, rng):
        samples = rng.normal(size=(4, *SHAPE))
        image = enhance(samples[0].copy(), sigma=1.0, samples=samples.copy())
        before = image.data.copy(), image.uncertainty.array.copy()
        aperture_photometry(image, CircularAperture(POSITIONS, 4))
        assert_array_equal(image.data, before[0])
        assert_array_equal(image.uncertainty.array, before[1])
        assert_array_equal(image.samples, samples)


class TestError:
    def test_white_samples(self, rng):
        samples = 3 * rng.normal(size=(800, *SHAPE)).astype(np.float32)
        aperture = CircularAperture(POSITIONS, 4.5)
        table = predict(enhance(np.zeros(SHAPE), samples=samples), aperture)
        expected = [3 * np.sqrt(np.sum(weight.data**2)) for weight in aperture.to_mask()]
        assert_allclose(table["flux_err"].value, expected, rtol=4 / np.sqrt(2 * 800))

    def test_correlated_samples(self, rng):
        # every pixel is the sum of a 3 x 3 block of white noise
        white = rng.normal(size=(800, SHAPE[0] + 2, SHAPE[1] + 2))
        blocks = np.lib.stride_tricks.sliding_window_view(white, (3, 3), axis=(1, 2))
        samples = 5 + blocks.sum(axis=(3, 4))
        aperture = CircularAperture(POSITIONS, 4.5)
        table = predict(enhance(samples.mean(axis=0), samples=samples), aperture)

        expected = []
        for weight in aperture.to_mask():
            spread = np.lib.stride_tricks.sliding_window_view(np.pad(weight.data, 2), (3, 3))
            expected.append(np.sqrt(np.sum(spread.sum(axis=(2, 3)) ** 2)))
        flux, error = table["flux"].value, table["flux_err"].value
        tolerance = 4 / np.sqrt(2 * 800)
        assert_allclose(error, expected, rtol=tolerance)
        assert_allclose(flux, 5 * aperture.area, atol=4 * max(expected) / np.sqrt(800))
        half_width = (table["flux_q84"] - table["flux_q16"]).value / 2
        assert_allclose(half_width, 0.9945 * np.array(expected), rtol=2 * tolerance)
        naive = aperture_photometry(enhance(samples[0], sigma=3.0), aperture)["flux_err"].value
        assert np.all(error > 2 * naive)

    def test_common_mode_is_a_closed_form(self):
        offsets = np.array([-1.0, 0.0, 1.0, 4.0])
        samples = np.broadcast_to(offsets[:, None, None], (4, *SHAPE))
        aperture = CircularAperture(POSITIONS[0], 5)
        row = predict(enhance(np.ones(SHAPE), samples=samples), aperture)[0]
        assert_allclose(row["flux_err"].value, offsets.std(ddof=1) * aperture.area)
        for name, q in (("flux_q16", 0.16), ("flux_q50", 0.5), ("flux_q84", 0.84)):
            assert_allclose(row[name].value, np.quantile(offsets, q) * aperture.area)

    def test_samples_with_mask(self, rng):
        samples, mask = rng.normal(size=(5, *SHAPE)), rng.random(SHAPE) < 0.2
        aperture = CircularAperture(POSITIONS, 5)
        image = enhance(samples[0], samples=samples)
        table = predict(image, aperture, mask=mask)
        sums = [aperture.do_photometry(sample, mask=mask)[0] for sample in samples]
        assert_allclose(table["flux_err"].value, np.std(sums, axis=0, ddof=1))

    @pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    def test_uncertainty_plane(self, rng, kind):
        sigma = rng.uniform(1, 2, SHAPE)
        uncertainty = StdDevUncertainty(sigma).represent_as(kind)
        image = CCDData(np.zeros(SHAPE), unit="adu", uncertainty=uncertainty)
        aperture = CircularAperture(POSITIONS[0], 4.5)
        table = aperture_photometry(image, aperture)
        weight = aperture.to_mask().to_image(SHAPE)
        assert_allclose(table["flux_err"][0].value, np.sqrt(np.sum((weight * sigma) ** 2)))
        assert table.meta["flux_err"] == "uncertainty"

    @pytest.mark.parametrize(
        ("kind", "value", "unit"),
        [
            (StdDevUncertainty, 2.0, "mJy"),
            (VarianceUncertainty, 4.0, "mJy2"),
            (InverseVariance, 0.25, "mJy-2"),
        ],
    )
    def test_uncertainty_in_another_unit(self, kind, value, unit):
        uncertainty = kind(np.full(SHAPE, value), unit=unit)
        image = CCDData(np.zeros(SHAPE), unit="Jy", uncertainty=uncertainty)
        table = aperture_photometry(image, pa.RectangularAperture((40, 30), 5, 5))
        assert_allclose(table["flux_err"][0].to_value("mJy"), 10)

    def test_uncertainty_in_an_impossible_unit(self):
        # as cosmicray_lacosmic of ccdproc 2.5.1 leaves it
        image = CCDData(np.zeros(SHAPE), unit="adu", uncertainty=StdDevUncertainty(np.ones(SHAPE)))
        image.uncertainty.unit = "adu"
        image._unit = u.electron
        with pytest.raises(u.UnitConversionError, match="uncertainty is in adu"):
            aperture_photometry(image, CircularAperture(POSITIONS, 4))

    def test_one_sample_is_no_spread(self, rng):
        image = enhance(np.zeros(SHAPE), sigma=1.0, samples=rng.normal(size=(1, *SHAPE)))
        table = aperture_photometry(image, pa.RectangularAperture((40, 30), 5, 5))
        assert_allclose(table["flux_err"][0].value, 5)
        assert "flux_q50" not in table.colnames

    def test_neither_samples_nor_uncertainty(self):
        image = CCDData(np.zeros(SHAPE), unit="adu")
        table = aperture_photometry(image, CircularAperture(POSITIONS, 4))
        assert table.colnames == ["id", "x", "y", "flux"]
        assert "flux_err" not in table.meta

    def test_unit_equivariance(self, rng):
        samples = rng.normal(size=(6, *SHAPE))
        aperture = CircularAperture(POSITIONS, 4)
        jansky = predict(enhance(samples[0], samples=samples, unit="Jy"), aperture)
        milli = enhance(1e3 * samples[0], samples=1e3 * samples, unit="mJy")
        milli = predict(milli, aperture)
        for name in ("flux", "flux_err", "flux_q16"):
            assert_allclose(milli[name].to_value("Jy"), jansky[name].value)


class TestMask:
    """The policy of Exposure: what was filled counts, what is masked never does."""

    @pytest.fixture
    def mask(self):
        mask = np.zeros(SHAPE, bool)
        mask[:, 40] = True
        return mask

    def test_filled_pixels_of_an_enhanced_image_count(self, mask):
        image = enhance(np.ones(SHAPE), mask=mask)
        aperture = pa.RectangularAperture((40, 30), 5, 5)
        assert_allclose(aperture_photometry(image, aperture)["flux"][0].value, 25)
        table = aperture_photometry(image, aperture, mask=image.mask)
        assert_allclose(table["flux"][0].value, 20)

    def test_masked_pixels_of_any_other_image_do_not(self, mask):
        image = CCDData(np.where(mask, 3e4, 1.0), unit="adu", mask=mask)
        aperture = pa.RectangularAperture((40, 30), 5, 5)
        assert_allclose(aperture_photometry(image, aperture)["flux"][0].value, 20)
        array = np.ma.array(image.data, mask=mask)
        assert_allclose(aperture_photometry(array, aperture)["flux"][0].value, 20)

    def test_given_mask_leaves_out_more(self, mask):
        image = CCDData(np.ones(SHAPE), unit="adu", mask=mask)
        table = aperture_photometry(
            image, pa.RectangularAperture((40, 30), 5, 5), mask=np.roll(mask, 1, axis=1)
        )
        assert_allclose(table["flux"][0].value, 15)

    def test_everything_masked(self):
        image = enhance(np.ones(SHAPE), sigma=1.0)
        mask = np.ones(SHAPE, bool)
        table = aperture_photometry(image, CircularAperture((40, 30), 3), mask=mask)
        assert np.isnan(table["flux"][0])
        assert np.isnan(table["flux_err"][0])


class TestScene:
    """The noise of the exposure taken out of the errors."""

    def test_covariance(self, rng):
        """A scene of smoothed noise, whose covariance is known, and white noise on top."""
        noise = gaussian_filter(rng.standard_normal((800, *SHAPE)), (0, 2, 2), mode="wrap")
        point = np.zeros(SHAPE)
        point[30, 40] = 1
        scene_std = np.sqrt(np.sum(gaussian_filter(point, 2, mode="wrap") ** 2))
        samples = noise + 0.3 * rng.standard_normal(noise.shape)
        aperture = CircularAperture(POSITIONS[0], 6)
        image = enhance(np.zeros(SHAPE), sigma=scene_std, samples=samples)
        weights = aperture.to_mask(method="exact").to_image(SHAPE)
        variance = np.sum(gaussian_filter(weights, 2, mode="wrap") ** 2)
        of_scene = aperture_photometry(image, aperture, scene=True)
        assert_allclose(of_scene["flux_err"].value, np.sqrt(variance), rtol=0.08)
        exposure = aperture_photometry(image, aperture, scene=False)
        expected = np.sqrt(variance + 0.3**2 * np.sum(weights**2))
        assert_allclose(exposure["flux_err"].value, expected, rtol=0.08)
        assert of_scene["flux_err"] < exposure["flux_err"]
        assert (of_scene.meta["scene"], exposure.meta["scene"]) == (True, False)

    def test_limit(self, rng):
        samples = np.repeat(rng.normal(size=(1, *SHAPE)), 3, axis=0)
        image = enhance(samples[0], sigma=2.0, samples=samples)
        table = aperture_photometry(image, CircularAperture((40, 30), 5), scene=True)
        assert_allclose(table["flux_err"].value, 2 * np.sqrt(np.pi * 25), rtol=0.05)

    def test_without_samples_nothing_changes(self):
        image, aperture = enhance(gaussian(), sigma=1.0), CircularAperture((40, 30), 5)
        tables = [aperture_photometry(image, aperture, scene=scene) for scene in (True, False)]
        assert_array_equal(tables[0]["flux_err"], tables[1]["flux_err"])

    def test_needs_uncertainty(self, rng):
        image = enhance(gaussian(), samples=rng.normal(size=(4, *SHAPE)))
        with pytest.raises(ValueError, match="scene=True needs the uncertainty of enhanced beside"):
            aperture_photometry(image, CircularAperture((40, 30), 5))

    def test_is_the_default(self, rng):
        image = enhance(gaussian(), sigma=1.0, samples=rng.normal(size=(4, *SHAPE)))
        table = aperture_photometry(image, CircularAperture((40, 30), 5))
        assert table.meta["scene"] is True


class TestSky:
    def test_sky_and_pixel_apertures_agree(self, rng):
        wcs, samples = make_wcs(SHAPE), rng.normal(size=(6, *SHAPE))
        image = enhance(gaussian(), samples=samples, wcs=wcs)
        pixel = CircularAperture(POSITIONS, 4.0)
        sky = SkyCircularAperture(wcs.pixel_to_world(*np.transpose(POSITIONS)), 0.4 * u.arcsec)
        on_pixels, on_sky = predict(image, pixel), predict(image, sky)
        for name in ("x", "y", "flux", "flux_err", "flux_q84"):
            assert_allclose(on_sky[name].value, on_pixels[name].value, rtol=1e-5, atol=1e-6)
        assert isinstance(on_sky["sky_center"], SkyCoord)
        assert np.all(on_sky["sky_center"].separation(on_pixels["sky_center"]) < 1e-6 * u.arcsec)

    def test_sky_and_pixel_in_one_list(self):
        wcs = make_wcs(SHAPE)
        center = wcs.pixel_to_world(40, 30)
        apertures = [CircularAperture((40, 30), 4), SkyCircularAperture(center, 0.4 * u.arcsec)]
        table = aperture_photometry(enhance(gaussian(), wcs=wcs), apertures)
        assert_allclose(table["flux_0"], table["flux_1"], rtol=1e-6)

    def test_scalar_position(self):
        wcs = make_wcs(SHAPE)
        aperture = SkyCircularAperture(wcs.pixel_to_world(40, 30), 0.4 * u.arcsec)
        assert len(aperture_photometry(enhance(gaussian(), wcs=wcs), aperture)) == 1

    def test_wcs_that_is_not_celestial(self):
        image = CCDData(gaussian(), unit="adu", wcs=WCS(naxis=2))
        table = aperture_photometry(image, CircularAperture(POSITIONS, 4))
        assert "sky_center" not in table.colnames


class TestMeta:
    def test_meta(self, rng):
        samples = rng.normal(size=(6, *SHAPE))
        image = enhance(samples[0], samples=samples, meta=META)
        meta = predict(image, CircularAperture(POSITIONS, 4)).meta
        assert set(meta["version"]) == {"astro_ddpm", "astropy", "numpy", "photutils", "scipy"}
        assert meta["version"]["numpy"] == np.__version__
        assert (meta["model"], meta["model_sha256"]) == ("ddpm", "0123abcd")
        assert (meta["noise_ratio"], meta["n_samples"], meta["flux_err"]) == (0.2, 6, "samples")
        assert meta["apertures"] == ["CircularAperture(r=4.0)"]
        assert "date" in meta

    def test_ecsv(self, rng, tmp_path):
        samples = rng.normal(size=(6, *SHAPE))
        image = enhance(samples[0], samples=samples, meta=META, wcs=make_wcs(SHAPE))
        apertures = [CircularAperture(POSITIONS, 4), CircularAnnulus(POSITIONS, 5, 7)]
        table = predict(image, apertures)
        table.write(tmp_path / "table.ecsv")
        copy = QTable.read(tmp_path / "table.ecsv")
        assert copy.colnames == table.colnames
        assert copy.meta == table.meta
        for name in set(table.colnames) - {"sky_center"}:
            assert_array_equal(copy[name], table[name])
        assert_allclose(copy["sky_center"].ra, table["sky_center"].ra)


class TestErrors:
    def test_not_an_image(self):
        with pytest.raises(TypeError, match="enhanced must hold real numbers"):
            aperture_photometry(np.ones(SHAPE, complex), CircularAperture(POSITIONS, 4))

    def test_not_two_dimensional(self):
        with pytest.raises(ValueError, match="enhanced must be two-dimensional"):
            aperture_photometry(CCDData(np.ones(5), unit="adu"), CircularAperture(POSITIONS, 4))

    def test_shape_of_samples(self):
        image = CCDData(np.ones(SHAPE), unit="adu")
        image.samples = np.ones((3, 5, 5))
        with pytest.raises(ValueError, match="enhanced has samples of shape"):
            aperture_photometry(image, CircularAperture(POSITIONS, 4))

    def test_no_wcs(self):
        aperture = SkyCircularAperture(SkyCoord(1, 2, unit="deg"), 1 * u.arcsec)
        with pytest.raises(ValueError, match="apertures in sky coordinates need"):
            aperture_photometry(enhance(gaussian()), aperture)

    def test_not_an_aperture(self):
        with pytest.raises(TypeError, match="apertures must be photutils apertures, got float"):
            aperture_photometry(enhance(gaussian()), [4.0])

    def test_no_aperture(self):
        with pytest.raises(ValueError, match="apertures must not be empty"):
            aperture_photometry(enhance(gaussian()), [])

    @pytest.mark.parametrize("positions", [(40, 31), [(40, 30), (20, 20)]])
    def test_different_positions(self, positions):
        apertures = [CircularAperture((40, 30), 3), CircularAperture(positions, 3)]
        with pytest.raises(ValueError, match="apertures in a list must all have the same"):
            aperture_photometry(enhance(gaussian()), apertures)

    def test_shape_of_mask(self):
        with pytest.raises(ValueError, match="mask must have the shape"):
            aperture_photometry(
                enhance(gaussian()), CircularAperture((40, 30), 3), mask=np.zeros((5, 5), bool)
            )

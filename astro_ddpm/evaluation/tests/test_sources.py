# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the sources module.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.modeling.models import Gaussian2D
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SegmentationImage, SourceCatalog, deblend_sources, detect_sources
from scipy.ndimage import gaussian_filter

from astro_ddpm import EnhancedCCDData
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.evaluation import recovered_photometry

SHAPE = (96, 120)
META = {"DDPMMODL": "ddpm", "DDPMSHA": "0123abcd", "DDPMDEP": 0.2}
FLUXES = ("segment_flux", "kron_flux")
SHAPES = (
    "half_light_radius",
    "ellipticity",
    "orientation",
    "concentration",
    "asymmetry",
    "gini",
    "m20",
)
YY, XX = np.mgrid[: SHAPE[0], : SHAPE[1]]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def scene():
    """Three galaxies, the first two of which overlap."""
    models = (
        Gaussian2D(60, 40.3, 45.2, 5, 3, theta=0.4),
        Gaussian2D(30, 58.1, 50.7, 3, 2.5, theta=-1.0),
        Gaussian2D(40, 95.6, 30.4, 4, 2.5, theta=1.55),
    )
    return sum(model(XX, YY) for model in models)


def make_wcs():
    """North up, east left, 0.2 arcsec per pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0), (60.5, 48.5)
    wcs.wcs.cdelt = -0.2 / 3600, 0.2 / 3600
    return wcs


def ccd(data, sigma=None, unit="adu", **options):
    uncertainty = None if sigma is None else StdDevUncertainty(np.broadcast_to(sigma, data.shape).copy())
    return CCDData(data, unit=unit, uncertainty=uncertainty, **options)


def posterior(rng, n, scene_std=1.0, depth=0.5, smoothing=1.5):
    """A mean, truth and samples of an exactly Gaussian posterior with covariances, and its uncertainty."""
    noise = gaussian_filter(rng.standard_normal((n + 1, *SHAPE)), (0, smoothing, smoothing), mode="wrap")
    noise *= scene_std / gaussian_filter_norm(smoothing)
    truth, samples = scene() + noise[0], scene() + noise[1:]
    samples = samples + depth * rng.standard_normal(samples.shape)
    sigma = StdDevUncertainty(np.full(SHAPE, scene_std))
    return EnhancedCCDData(scene(), unit="adu", uncertainty=sigma, samples=samples, meta=dict(META)), truth


def gaussian_filter_norm(smoothing):
    point = np.zeros(SHAPE)
    point[48, 60] = 1
    return np.sqrt(np.sum(gaussian_filter(point, smoothing, mode="wrap") ** 2))


@pytest.fixture(scope="module")
def pair():
    field = make_galaxy_field((128, 128), seed=1, n_galaxies=6, n_stars=2, bad_columns=0)
    deep = field.deep_exposure(0.2)
    data, sigma = deep.data.astype(float), deep.uncertainty.array.astype(float)
    segmentation = detect_sources(data, 3 * sigma, 10)
    segmentation = deblend_sources(data, segmentation, 10, contrast=0.005, progress_bar=False)
    catalog = SourceCatalog(data, segmentation, error=sigma)
    return recovered_photometry(deep, deep, segmentation=segmentation), catalog


class TestAgainstPhotutils:
    """The catalog of photutils, on one image."""

    @pytest.mark.parametrize("name", ["segment_flux", "kron_flux"])
    def test_fluxes(self, pair, name):
        table, catalog = pair
        assert_allclose(table[name].value, getattr(catalog, name), rtol=0.01)
        error = getattr(catalog, f"{name}_err", None)
        error = getattr(catalog, f"{name}err") if error is None else error  # its name before photutils 3
        assert_allclose(table[f"{name}_err"].value, error, rtol=0.05)

    @pytest.mark.parametrize("name", ["ellipticity", "gini", "x_centroid"])
    def test_shapes(self, pair, name):
        table, catalog = pair
        ours = table["x" if name == "x_centroid" else name].value
        assert_allclose(ours, getattr(catalog, name, catalog.centroid[:, 0]), rtol=1e-5)

    def test_radius(self, pair):
        table, catalog = pair
        function = getattr(catalog, "flux_radius", None) or catalog.fluxfrac_radius
        assert_allclose(table["half_light_radius"].value, function(0.5).value, rtol=0.02)

    def test_orientation(self, pair):
        table, catalog = pair
        difference = table["orientation"] - catalog.orientation
        assert_allclose((difference.to_value("deg") + 90) % 180 - 90, 0, atol=1e-4)


class TestNoiseFree:
    def test_same_image(self):
        table = recovered_photometry(ccd(scene()), ccd(scene()), threshold=1.0, zero_point=25)
        assert len(table) == 3
        for name in (*FLUXES, *SHAPES, "magnitude", "profile"):
            assert_array_equal(table[f"{name}_difference"].value, 0)
        assert not any(name.endswith(("_err", "_pull")) for name in table.colnames)

    def test_gaussian(self):
        table = recovered_photometry(ccd(scene()), ccd(scene()), threshold=0.05)
        row = table[np.argmax(table["x"])]
        assert_allclose((row["x"].value, row["y"].value), (95.6, 30.4), atol=0.02)
        assert_allclose(row["kron_flux"].value, 2 * np.pi * 40 * 4 * 2.5, rtol=0.02)
        assert_allclose(row["ellipticity"], 1 - 2.5 / 4, atol=0.01)
        assert_allclose(row["orientation"].to_value("rad"), 1.55, atol=0.01)
        assert_allclose(row["asymmetry"], 0, atol=0.01)

    def test_neighbor_is_replaced(self):
        alone = Gaussian2D(30, 58.1, 50.7, 3, 2.5, theta=-1.0)(XX, YY)
        table = recovered_photometry(ccd(scene()), ccd(scene()), threshold=0.5)
        row = table[np.argmin(np.hypot(table["x"].value - 58.1, table["y"].value - 50.7))]
        assert_allclose(row["kron_flux"].value, alone.sum(), rtol=0.08)

    def test_profile(self):
        data = Gaussian2D(50, 60, 48, 6, 6)(XX, YY)
        table = recovered_photometry(ccd(data), ccd(data), threshold=0.1)
        edges = np.concatenate([[0], 2 * table["profile_radius"][0].value])
        edges = np.cumsum(np.append(0, np.full(8, table["kron_semimajor"][0].value / 8)))
        assert_allclose(table["profile_radius"][0].value, (edges[1:] + edges[:-1]) / 2)
        light = -50 * 2 * np.pi * 36 * np.diff(np.exp(-(edges**2) / 72))
        assert_allclose(table["profile"][0].value, light / (np.pi * np.diff(edges**2)), rtol=0.03)
        assert table["profile"].unit == u.adu / u.pix**2

    def test_magnitude(self):
        table = recovered_photometry(ccd(2 * scene()), ccd(scene(), 0.1), threshold=1.0, zero_point=25)
        assert_allclose(
            table["magnitude_reference"].value, 25 - 2.5 * np.log10(table["kron_flux_reference"].value)
        )
        assert_allclose(table["magnitude_difference"].value, -2.5 * np.log10(2))
        assert_allclose(
            table["magnitude_reference_err"].value,
            2.5 / np.log(10) * (table["kron_flux_reference_err"] / table["kron_flux_reference"]),
        )
        assert table["magnitude"].unit == u.mag

    def test_no_magnitude_of_a_negative_flux(self):
        table = recovered_photometry(ccd(-scene()), ccd(scene()), threshold=1.0, zero_point=25)
        assert np.all(np.isnan(table["magnitude"].value))

    def test_orientations_are_axes(self):
        first = Gaussian2D(50, 60, 48, 7, 3, theta=np.deg2rad(88))(XX, YY)
        second = Gaussian2D(50, 60, 48, 7, 3, theta=np.deg2rad(-88))(XX, YY)
        table = recovered_photometry(ccd(first), ccd(second), threshold=0.1)
        assert_allclose(table["orientation_difference"].value, -4, atol=0.3)


class TestErrors:
    def test_exposure(self, rng):
        """The stated error of an exposure with independent noise is the scatter over many exposures."""
        sigma = np.sqrt(1 + scene() / 10)
        exposures = scene() + sigma * rng.standard_normal((400, *SHAPE))
        options = {"segmentation": detect_sources(scene(), 2.0, 10).data}
        many = EnhancedCCDData(scene(), unit="adu", samples=exposures)
        scatter = recovered_photometry(many, ccd(scene()), scene=False, **options)
        stated = [recovered_photometry(ccd(e, sigma), ccd(scene()), **options) for e in exposures[:8]]
        for name in (*FLUXES, "half_light_radius", "ellipticity", "concentration", "profile"):
            errors = np.mean([table[f"{name}_err"].value for table in stated], axis=0)
            ratio = np.median(errors / scatter[f"{name}_err"].value)
            assert 0.9 < ratio < 1.1

    def test_variance_is_the_same(self, rng):
        data, sigma = scene() + rng.standard_normal(SHAPE), np.ones(SHAPE)
        image = ccd(data, 1.0)
        other = CCDData(data, unit="adu", uncertainty=VarianceUncertainty(sigma**2))
        first, second = (recovered_photometry(each, ccd(scene()), threshold=1.0) for each in (image, other))
        assert_array_equal(first["kron_flux_err"], second["kron_flux_err"])

    @pytest.mark.parametrize("of_scene", [True, False])
    def test_samples(self, rng, of_scene):
        """Errors of sums are those of the covariance that was drawn, with or without the depth's noise."""
        image, _ = posterior(rng, 600)
        segmentation = detect_sources(scene(), 2.0, 10)
        table = recovered_photometry(image, ccd(scene()), segmentation=segmentation, scene=of_scene)
        for row in table:
            weight = (segmentation.data == row["label"]).astype(float)
            spread = gaussian_filter(weight, 1.5, mode="wrap") / gaussian_filter_norm(1.5)
            variance = np.sum(spread**2) + (0 if of_scene else 0.5**2 * weight.sum())
            assert_allclose(row["segment_flux_err"].value, np.sqrt(variance), rtol=0.1)

    def test_limit_of_few_samples(self, rng):
        """Two samples that agree leave the error without covariances."""
        sample = scene() + 0.5 * rng.standard_normal(SHAPE)
        samples = np.stack([sample, sample])
        image = EnhancedCCDData(
            scene(), unit="adu", uncertainty=StdDevUncertainty(np.ones(SHAPE)), samples=samples
        )
        table = recovered_photometry(image, ccd(scene()), threshold=1.0)
        assert_allclose(table["segment_flux_err"].value, np.sqrt(table["area"].value))

    def test_reference_error(self, rng):
        image, truth = posterior(rng, 8)
        table = recovered_photometry(image, ccd(truth, 0.7), threshold=5.0)
        for name in (*FLUXES, *SHAPES, "profile"):
            error = np.hypot(table[f"{name}_err"], table[f"{name}_reference_err"])
            assert_allclose(table[f"{name}_pull"].value, (table[f"{name}_difference"] / error).value)
        table = recovered_photometry(image, ccd(truth, 0.7), threshold=5.0, scene=False)
        pull = table["kron_flux_difference"] / table["kron_flux_err"]
        assert_allclose(table["kron_flux_pull"].value, pull.value)

    def test_exposure_is_the_mean_of_the_samples(self, rng):
        image, truth = posterior(rng, 4)
        options = {"segmentation": detect_sources(scene(), 2.0, 10), "zero_point": 30.0}
        table = recovered_photometry(image, ccd(truth), scene=False, **options)
        each = [recovered_photometry(ccd(s), ccd(truth), **options) for s in image.samples]
        for name in ("kron_flux", "gini", "m20", "half_light_radius", "profile", "asymmetry"):
            values = [single[name].value for single in each]
            assert_allclose(table[name].value, np.mean(values, axis=0))
            assert_allclose(table[f"{name}_err"].value, np.std(values, axis=0, ddof=1))


class TestPixels:
    def test_masks(self):
        """Garbage in pixels that are masked, in either image, or not finite does not matter."""
        garbage, mask = scene(), np.zeros(SHAPE, bool)
        mask[:, 42] = True
        garbage[:, 42] = 1e9
        lost = scene()
        lost[:, 42] = np.nan
        options = {"threshold": 1.0}
        expected = recovered_photometry(ccd(scene()), ccd(scene()), mask=mask, **options)
        for image, reference in (
            (ccd(garbage, mask=mask), ccd(scene())),
            (ccd(scene()), ccd(garbage, mask=mask)),
            (ccd(lost), ccd(scene())),
            (ccd(scene()), ccd(lost)),
        ):
            table = recovered_photometry(image, reference, **options)
            for name in (*FLUXES, *SHAPES, "profile"):
                assert_array_equal(table[name], expected[name])

    def test_mask_of_an_enhanced_image_is_not_used(self):
        mask = scene() > 20
        image = EnhancedCCDData(scene(), unit="adu", mask=mask)
        table = recovered_photometry(image, ccd(scene()), threshold=1.0)
        expected = recovered_photometry(ccd(scene()), ccd(scene()), threshold=1.0)
        assert_array_equal(table["kron_flux"], expected["kron_flux"])

    def test_hole_is_filled_from_the_other_side(self):
        mask = np.zeros(SHAPE, bool)
        mask[31:34, 97:100] = True
        image, options = ccd(scene()), {"segmentation": detect_sources(scene(), 1.0, 10)}
        whole = recovered_photometry(image, image, **options)[0]
        table = recovered_photometry(image, image, mask=mask, **options)[0]
        assert_allclose(table["kron_flux"], whole["kron_flux"], rtol=0.02)
        assert table["segment_flux"] < 0.95 * whole["segment_flux"]

    def test_source_at_the_edge(self):
        data = Gaussian2D(50, 1.5, 94, 5, 4)(XX, YY)
        table = recovered_photometry(ccd(data, 1.0), ccd(data), threshold=1.0)
        assert len(table) == 1
        assert np.isfinite(table["kron_flux_pull"][0])

    def test_segmentation(self):
        detected = detect_sources(scene(), 2.0, 10)
        first = recovered_photometry(ccd(scene()), ccd(scene()), segmentation=detected)
        second = recovered_photometry(ccd(scene()), ccd(scene()), segmentation=10 * detected.data)
        assert_array_equal(second["label"], 10 * first["label"])
        assert_array_equal(second["gini"], first["gini"])
        assert first.meta["segmentation"] == "given"

    @pytest.mark.parametrize("threshold", [3.0, 3000 * u.Unit("mJy"), np.full(SHAPE, 3.0)])
    def test_threshold(self, threshold):
        image = ccd(scene(), unit="Jy")
        table = recovered_photometry(image, image, threshold=threshold)
        smooth = gaussian_filter(scene(), 3 / np.sqrt(8 * np.log(2)))
        assert np.sum(table["area"]) == np.sum(smooth > 3) * u.pix**2

    def test_default_threshold(self, rng):
        reference = ccd(scene() + rng.standard_normal(SHAPE), 1.0)
        table = recovered_photometry(reference, reference)
        measured = recovered_photometry(reference, ccd(reference.data))
        assert len(table) == len(measured) == 3
        assert_allclose(table["kron_flux"], measured["kron_flux"], rtol=0.2)

    def test_source_without_aperture(self):
        labels = np.zeros(SHAPE, int)
        labels[20:30, 20:30] = 1
        labels[40:50, 35:45] = 2
        data = scene()
        data[20:30, 20:30] = -1.0
        with pytest.warns(AstropyUserWarning, match=r"sources \[1\] have no Kron aperture"):
            table = recovered_photometry(ccd(data), ccd(data), segmentation=labels)
        assert_array_equal(table["label"], [2])

    def test_inputs_are_not_changed(self, rng):
        image, truth = posterior(rng, 3)
        truth[40, 42] = np.nan
        reference = ccd(truth, 0.5)
        before = [plane.copy() for plane in (image.data, image.samples, reference.data)]
        recovered_photometry(image, reference, threshold=5.0)
        for plane, copy in zip((image.data, image.samples, reference.data), before, strict=True):
            assert_array_equal(plane, copy)


class TestTable:
    def test_units(self, rng):
        """An image in mJy and a reference in Jy give what both in Jy give."""
        noise = rng.standard_normal(SHAPE)
        reference = ccd(scene() + noise / 2, 0.5, unit="Jy")
        first = recovered_photometry(ccd(1e3 * (scene() + noise), 1e3, unit="mJy"), reference)
        second = recovered_photometry(ccd(scene() + noise, 1.0, unit="Jy"), reference)
        assert first["kron_flux"].unit == u.mJy
        assert first["profile_err"].unit == u.mJy / u.pix**2
        for name in set(second.colnames):
            assert_allclose(u.Quantity(first[name]), u.Quantity(second[name]), rtol=1e-6)

    def test_wcs(self):
        wcs = make_wcs()
        table = recovered_photometry(ccd(scene(), wcs=wcs), ccd(scene()), threshold=1.0)
        expected = wcs.pixel_to_world(table["x"].value, table["y"].value)
        assert isinstance(table["sky_centroid"], SkyCoord)
        assert np.all(table["sky_centroid"].separation(expected) < 1e-6 * u.arcsec)
        angle = (table["orientation"].to_value("deg") - 90) % 180
        assert_allclose(table["position_angle"].to_value("deg"), angle, atol=0.05)

    def test_without_wcs(self):
        table = recovered_photometry(ccd(scene()), ccd(scene()), threshold=1.0)
        assert not {"sky_centroid", "position_angle"} & set(table.colnames)

    def test_meta(self, rng):
        image, truth = posterior(rng, 6)
        meta = recovered_photometry(image, ccd(truth), threshold=5.0).meta
        assert set(meta["version"]) == {"astro_ddpm", "astropy", "numpy", "photutils", "scipy"}
        assert (meta["model"], meta["model_sha256"], meta["noise_ratio"]) == ("ddpm", "0123abcd", 0.2)
        assert (meta["flux_err"], meta["n_samples"], meta["scene"]) == ("samples", 6, True)
        assert (meta["segmentation"], meta["n_pixels"], meta["zero_point"]) == ("detected", 10, None)

    def test_ecsv(self, rng, tmp_path):
        image, truth = posterior(rng, 6)
        image.wcs = make_wcs()
        table = recovered_photometry(image, ccd(truth, 0.5), threshold=5.0, zero_point=25.0)
        table.write(tmp_path / "table.ecsv")
        copy = QTable.read(tmp_path / "table.ecsv")
        assert copy.colnames == table.colnames
        assert copy.meta == table.meta
        assert_allclose(copy["sky_centroid"].ra, table["sky_centroid"].ra)
        for name in set(table.colnames) - {"sky_centroid"}:
            assert copy[name].info.description == table[name].info.description
            assert copy[name].info.unit == table[name].info.unit
            assert_array_equal(copy[name], table[name])

    def test_every_column_is_described(self, rng):
        image, truth = posterior(rng, 6)
        image.wcs = make_wcs()
        table = recovered_photometry(image, ccd(truth, 0.5), threshold=5.0, zero_point=25.0)
        assert all(column.info.description for column in table.itercols())


class TestInput:
    def test_class(self):
        with pytest.raises(TypeError, match="image must hold real numbers"):
            recovered_photometry(scene() * 1j, ccd(scene()))
        with pytest.raises(TypeError, match="reference must hold real numbers"):
            recovered_photometry(ccd(scene()), scene() * 1j)

    def test_truth_as_an_array(self):
        table = recovered_photometry(ccd(scene()), scene(), threshold=1.0)
        expected = recovered_photometry(ccd(scene()), ccd(scene()), threshold=1.0)
        assert_array_equal(table["kron_flux_reference"], expected["kron_flux_reference"])

    def test_shape(self):
        with pytest.raises(ValueError, match="reference has shape"):
            recovered_photometry(ccd(scene()), ccd(scene()[:-1]))

    def test_unit(self):
        with pytest.raises(u.UnitConversionError):
            recovered_photometry(ccd(scene()), ccd(scene(), unit="Jy"))

    def test_no_source(self):
        with pytest.raises(ValueError, match="reference has no source above the threshold"):
            recovered_photometry(ccd(scene()), ccd(scene()), threshold=1000)

    def test_segmentation(self):
        image = ccd(scene())
        with pytest.raises(ValueError, match="segmentation has shape"):
            recovered_photometry(image, image, segmentation=np.ones((3, 3), int))
        with pytest.raises(ValueError, match="segmentation has no source"):
            recovered_photometry(image, image, segmentation=np.zeros(SHAPE, int))
        with pytest.raises(ValueError, match="no source with a Kron aperture"):
            recovered_photometry(image, ccd(-scene()), segmentation=np.ones(SHAPE, int))

    def test_threshold(self):
        with pytest.raises(ValueError, match="threshold has shape"):
            recovered_photometry(ccd(scene()), ccd(scene()), threshold=np.ones(3))

    def test_mask(self):
        with pytest.raises(ValueError, match="mask must have the shape"):
            recovered_photometry(ccd(scene()), ccd(scene()), mask=np.zeros((3, 3), bool))

    def test_scene(self, rng):
        with pytest.raises(ValueError, match="scene=False needs an image with"):
            recovered_photometry(ccd(scene(), 1.0), ccd(scene()), scene=False)
        image, _ = posterior(rng, 3)
        image.uncertainty = None
        with pytest.raises(ValueError, match="scene=True needs the uncertainty"):
            recovered_photometry(image, ccd(scene()))


def test_segmentation_image_is_accepted_as_photutils_makes_it():
    segmentation = SegmentationImage((scene() > 5).astype(int))
    assert len(recovered_photometry(ccd(scene()), ccd(scene()), segmentation=segmentation)) == 1

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Test the tables of the report on images whose errors are known.
"""

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from photutils.aperture import CircularAperture
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr, ndtri

from astro_ddpm import EnhancedCCDData
from astro_ddpm.report import Pair
from astro_ddpm.report import tables as measures

SIGMA, DEPTH, ERROR = 2.0, 0.2, 0.3
SHAPE = (64, 64)


def image_of(data, sigma, **kwargs):
    return CCDData(data, unit="adu", uncertainty=StdDevUncertainty(np.full(SHAPE, sigma)), **kwargs)


def blank(pairs, sigma):
    """Make pairs whose references show nothing."""
    sky = np.zeros(SHAPE)
    return [Pair(p.name, p.image, image_of(sky, sigma, mask=p.reference.mask), 0.1) for p in pairs]


@pytest.fixture(scope="module")
def scene():
    """Three round sources; the rest is sky."""
    y, x = np.indices(SHAPE)
    places = ((20, 20, 60.0), (44, 42, 200.0), (18, 46, 20.0))
    return sum(a * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18) for cx, cy, a in places)


@pytest.fixture(scope="module")
def pairs(scene):
    rng = np.random.default_rng(0)
    made = []
    for number in range(4):
        noise, deep = rng.normal(0, SIGMA, SHAPE), rng.normal(0, DEPTH * SIGMA, SHAPE)
        mask = np.zeros(SHAPE, bool)
        mask[:, 60] = True
        reference = image_of(scene + deep, DEPTH * SIGMA, mask=mask)
        image = image_of(scene + noise, SIGMA, mask=np.zeros(SHAPE, bool))
        made.append(Pair(f"pair {number}", image, reference, DEPTH))
    return made


@pytest.fixture(scope="module")
def results(scene, pairs):
    """The input, a Gaussian posterior with the error 0.3 and samples, and the same without samples."""
    rng = np.random.default_rng(1)
    drawn, plain = [], []
    for _ in pairs:
        mean = scene + rng.normal(0, ERROR * SIGMA, SHAPE)
        spread = SIGMA * np.hypot(ERROR, DEPTH)
        samples = mean + rng.normal(0, spread, (15, *SHAPE))
        sigma = StdDevUncertainty(np.full(SHAPE, ERROR * SIGMA))
        drawn.append(EnhancedCCDData(mean, unit="adu", uncertainty=sigma, samples=samples))
        plain.append(image_of(mean, ERROR * SIGMA))
    return {"input": [pair.image for pair in pairs], "drawn": drawn, "plain": plain}


class TestPixelRows:
    """Test pixel_rows."""

    def test_excess_is_the_error_of_the_image(self, pairs, results):
        table = measures.pixel_rows(pairs, results)
        for method, error in (("input", 1.0), ("drawn", ERROR), ("plain", ERROR)):
            rows = table[table["method"] == method]
            assert list(rows["bin"]) == list(measures.BINS)
            for row in rows:
                assert row["excess"] == pytest.approx(error, abs=4 * error / np.sqrt(row["n"]))
                assert row["rmse"] == pytest.approx(np.hypot(error, DEPTH), rel=4 / np.sqrt(row["n"]))
                assert row["std_over_rmse"] == pytest.approx(1, abs=4 / np.sqrt(row["n"]))
        assert table["n"][table["method"] == "drawn"].sum() == 4 * 64 * 63

    def test_stated_errors_that_are_too_small(self, pairs, results):
        small = [image_of(image.data, 0.1 * ERROR * SIGMA) for image in results["plain"]]
        table = measures.pixel_rows(pairs, {"small": small})
        expected = np.hypot(0.1 * ERROR, DEPTH) / np.hypot(ERROR, DEPTH)
        np.testing.assert_allclose(table["std_over_rmse"], expected, rtol=0.2)

    def test_bias(self, pairs):
        shifted = {"shifted": [CCDData(pair.reference.data + SIGMA, unit="adu") for pair in pairs]}
        table = measures.pixel_rows(pairs, shifted)
        np.testing.assert_allclose(table["bias"], 1, rtol=1e-6)
        assert np.isnan(table["std_over_rmse"]).all()

    def test_empty_bin(self, pairs):
        faint = [
            Pair(p.name, p.image, image_of(0 * p.image.data, 0.1, mask=p.reference.mask), 0.1) for p in pairs
        ]
        table = measures.pixel_rows(faint, {"input": [pair.image for pair in faint]})
        assert table["n"].tolist()[1:] == [0, 0, 0]
        assert np.isnan(table["rmse"][1:]).all()


class TestCalibration:
    """Test calibration_rows and coverage_rows."""

    def test_honest(self, pairs, results):
        table = measures.calibration_rows(pairs, results)
        assert table["ranks"].shape[1] == 16
        for row in table[table["method"] != "input"]:
            # pixels chosen by the estimate itself are the truth plus noise: the faint sources mix
            tolerance = 4 * np.sqrt(0.22 / row["n"]) + 0.01
            assert row["coverage_68"] == pytest.approx(0.68, abs=tolerance)
            assert row["spread_skill"] == pytest.approx(1, abs=4 / np.sqrt(row["n"]))
        np.testing.assert_array_equal(table["ranks"].sum(axis=1), table["n"])

    def test_methods_without_errors_are_left_out(self, pairs, results):
        bare = results | {"bare": [CCDData(image.data, unit="adu") for image in results["plain"]]}
        for make in (measures.calibration_rows, measures.coverage_rows):
            assert set(make(pairs, bare)["method"]) == {"input", "drawn", "plain"}

    def test_coverage_of_too_small_errors(self, pairs, results):
        halved = [
            image_of(i.data, np.sqrt((np.hypot(ERROR, DEPTH) / 2) ** 2 - DEPTH**2 / 4) * SIGMA)
            for i in results["plain"]
        ]
        sigma = np.hypot(np.median(halved[0].uncertainty.array) / SIGMA, DEPTH) / np.hypot(ERROR, DEPTH)
        table = measures.coverage_rows(pairs, {"halved": halved}, levels=(0.5, 0.9))
        expected = [2 * ndtr(sigma * ndtri(0.5 + level / 2)) - 1 for level in (0.5, 0.9)]
        np.testing.assert_allclose(table["covered"], expected, atol=0.02)


@pytest.fixture(scope="module")
def fluxes(pairs, results):
    positions = [np.array([[20.0, 20.0], [44.0, 42.0], [18.0, 46.0], [58.0, 30.0]])] * 4
    return measures.flux_rows(pairs, results, positions, radii=(5.0,), zero_point=25.0)


def squared_weights():
    """Sum the squares of the parts of pixels in an aperture of 5 pixels."""
    return np.sum(CircularAperture((20, 20), 5).to_mask(method="exact").data ** 2)


class TestFluxes:
    """Test flux_rows, flux_summary and flux_features."""

    def test_columns(self, fluxes, scene):
        # the last position touches the masked column, and is left out
        assert len(fluxes) == 3 * 4 * 3
        first = fluxes[(fluxes["method"] == "input") & (fluxes["pair"] == "pair 0")][0]
        y, x = np.indices(SHAPE)
        flux = scene[(x - 20) ** 2 + (y - 20) ** 2 <= 25].sum()
        assert first["magnitude"] == pytest.approx(25 - 2.5 * np.log10(flux), abs=0.05)
        assert first["noise"].value == pytest.approx(SIGMA * np.sqrt(squared_weights()))
        assert first["snr"] == pytest.approx(flux / first["noise"].value, rel=0.05)

    def test_errors_include_the_reference(self, fluxes):
        for method, error in (("input", np.hypot(1, DEPTH)), ("plain", np.hypot(ERROR, DEPTH))):
            rows = fluxes[fluxes["method"] == method]
            expected = error * SIGMA * np.sqrt(squared_weights())
            np.testing.assert_allclose(rows["flux_err"].value, expected)

    def test_summary(self, fluxes):
        table = measures.flux_summary(fluxes)
        assert table["method"].tolist() == ["input", "drawn", "plain"]
        before = table["scatter"][0]
        np.testing.assert_allclose(table["scatter_ratio"], table["scatter"] / before)
        for row in table:
            assert abs(row["bias"]) < 4 * row["bias_err"]
            assert row["pull"] == pytest.approx(1, abs=4 * row["pull_err"])

    def test_features(self, pairs, results, fluxes):
        samples, truth = measures.flux_features(pairs, results["drawn"], fluxes)
        assert list(samples) == list(truth) == ["flux, r = 5"]
        assert samples["flux, r = 5"].shape == (15, 12)
        rows = fluxes[fluxes["method"] == "drawn"]
        mean = samples["flux, r = 5"].mean(axis=0) * rows["noise"].value
        assert np.max(np.abs(mean - rows["flux"].value) / rows["flux_err"].value) < 4 / np.sqrt(15)


class TestInvented:
    """Test invented_rows and noise_rows."""

    def test_added_and_removed_source(self, pairs, scene):
        y, x = np.indices(SHAPE)
        added = 20 * np.exp(-((x - 50) ** 2 + (y - 15) ** 2) / 8)
        removed = np.where((x - 18) ** 2 + (y - 46) ** 2 < 150, 0, scene)
        results = {
            "right": [CCDData(scene, unit="adu")] * 4,
            "invents": [CCDData(scene + added, unit="adu")] * 4,
            "loses": [CCDData(removed, unit="adu")] * 4,
        }
        table = measures.invented_rows(pairs, results)
        assert table["references"].tolist() == [12, 12, 12]
        assert table["invented"].tolist() == [0, 4, 0]
        assert table["missed"].tolist() == [0, 0, 4]
        assert table["sources"].tolist() == [12, 16, 8]

    def test_noise(self):
        data = np.zeros(SHAPE)
        data[10, 10] = data[40, 40] = 1.1
        table = measures.noise_rows({"a": CCDData(data, unit="adu")}, {"a": 0.2}, 1e6)
        assert table["sources"].tolist() == [2]
        # the 95 % limits of two events (Gehrels 1986)
        assert table["rate_low"][0] == pytest.approx(0.23, abs=0.05)
        assert table["rate_high"][0] == pytest.approx(7.3, abs=0.2)


class TestSigns:
    """What is too bright, large or round is so with a positive sign."""

    def test_fluxes(self, pairs, scene):
        bright = {
            "input": [pair.image for pair in pairs],
            "bright": [image_of(scene + SIGMA, ERROR * SIGMA) for _ in pairs],
        }
        positions = [np.array([[20.0, 20.0], [44.0, 42.0]])] * 4
        fluxes = measures.flux_rows(pairs, bright, positions, radii=(5.0,))
        assert np.all(fluxes["pull"][fluxes["method"] == "bright"] > 0)
        assert measures.flux_summary(fluxes)["bias"][1] > 0

    def test_sizes(self, pairs, scene):
        wide = {"wide": [image_of(gaussian_filter(scene, 2), SIGMA) for _ in pairs]}
        summary = measures.structure_summary(measures.source_rows(pairs, wide))
        assert summary["half_light_radius_bias"][0] > 0.3
        assert summary["concentration_bias"][0] < 0

    def test_smooth_images_lack_power(self, pairs, scene):
        smooth = {"smooth": [image_of(gaussian_filter(scene, 2), SIGMA) for _ in pairs]}
        assert measures.spectrum_rows(pairs, smooth)["ratio"][-1] < 0.2

    def test_edges_of_holes_are_no_structure(self, pairs, scene):
        mask = scene > 100
        holes = [Pair(p.name, p.image, image_of(p.reference.data, SIGMA, mask=mask), DEPTH) for p in pairs]
        smooth = {"smooth": [image_of(gaussian_filter(scene, 2), SIGMA) for _ in pairs]}
        assert measures.spectrum_rows(holes, smooth)["ratio"][-1] < 0.01
        assert np.all(measures.image_rows(holes, smooth)["spectral_mse"] > 1)


class TestStructure:
    """Test source_rows, structure_summary, image_rows and spectrum_rows."""

    def test_sources(self, pairs, results):
        sources = measures.source_rows(pairs, results)
        assert len(sources) == 3 * 4 * 3
        summary = measures.structure_summary(sources)
        assert summary["method"].tolist() == ["input", "drawn", "plain"]
        # the noisier, the worse
        assert summary["half_light_radius_scatter"][0] > 2 * summary["half_light_radius_scatter"][2]

    def test_blank_references(self, pairs):
        empty = blank(pairs, 1.0)
        assert len(measures.source_rows(empty, {"input": [pair.image for pair in empty]})) == 0

    def test_perfect_image(self, pairs):
        perfect = {"perfect": [CCDData(pair.reference.data, unit="adu") for pair in pairs]}
        images, spectra = (make(pairs, perfect) for make in (measures.image_rows, measures.spectrum_rows))
        np.testing.assert_allclose(images["rmse"], 0, atol=1e-12)
        np.testing.assert_allclose(images["ssim"], 1)
        np.testing.assert_allclose(spectra["ratio"], 1)
        np.testing.assert_allclose(spectra["correlation"], 1)

    def test_samples_have_their_own_spectrum(self, pairs, results):
        spectra = measures.spectrum_rows(pairs, results)
        assert list(dict.fromkeys(spectra["method"])) == ["input", "drawn", "drawn samples", "plain"]


def test_pixels_of_large_images():
    shape = (200, 200)
    data = np.arange(40_000.0).reshape(shape)
    sigma = StdDevUncertainty(np.ones(shape))
    mask = np.zeros(shape, bool)
    image = CCDData(data, unit="adu", uncertainty=sigma, mask=mask)
    pixels = measures.Pixels([Pair("large", image, image, 1.0)])
    assert len(pixels.truth) == 20_000
    np.testing.assert_array_equal(pixels.gather([data]), pixels.truth)

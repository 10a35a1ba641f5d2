# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the detection module.
"""

from functools import partial

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.stats import mad_std
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import detect_sources
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from scipy.special import ndtr, ndtri
from scipy.stats import beta

from astro_ddpm import EnhancedCCDData, enhance
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.evaluation import detection_curve, detection_threshold, noise_image, reliability_diagram
from astro_ddpm.evaluation.detection import _Frame, _limit_table, _profile, _psf_image, _Search
from astro_ddpm.nddata import Exposure
from astro_ddpm.tests.helpers import toy_model

PSF = 3.0
SEPARATION = 16
SMOOTHING = 1.5
# One pixel to match and each pixel a detection of its own: everything has a closed form
FORCED = {"psf": PSF, "separation": SEPARATION, "match_radius": 0.5, "correlation": 0.0}
OPTIONS = {"psf": PSF, "separation": SEPARATION, "n_injections": 15}
THRESHOLD = -ndtri(0.1 / SEPARATION**2)


def smooth(image, seed):
    """Enhance by a linear filter."""
    return EnhancedCCDData(gaussian_filter(image.data, SMOOTHING, mode="constant"), unit=image.unit)


def spread(image, seed, factor=1.0, n=4):
    """Draw samples about the smoothed image."""
    mean = smooth(image, seed)
    draws = np.random.default_rng(seed).normal(mean.data, factor, (n, *mean.shape))
    return EnhancedCCDData(mean, samples=draws)


def make_search(**options):
    standard = {"enhance": smooth, "correlation": 0.0, "match_radius": 2.0, "separation": SEPARATION}
    return _Search(options.pop("profile", _psf_image(PSF, None)), **(standard | options))


def make_frame(image, **options):
    return _Frame(Exposure.parse(image), make_search(**options))


def rows(table, method):
    return table[table["method"] == method]


@pytest.fixture(scope="module")
def noise():
    return [noise_image((160, 160), seed=[5, i]) for i in range(8)]


@pytest.fixture(scope="module")
def forced(noise):
    return detection_curve(noise, model=smooth, blank=noise, n_injections=60, **FORCED)


@pytest.fixture(scope="module")
def frame():
    return noise_image((128, 128), 2 * u.adu, seed=3)


@pytest.fixture(scope="module")
def result(frame):
    return detection_curve(frame, **(OPTIONS | {"model": partial(spread, factor=2)}))


@pytest.fixture(scope="module")
def cases():
    """Existence above a threshold of fluxes with a Gaussian prior and Gaussian noise."""
    rng = np.random.default_rng(7)
    flux = rng.standard_normal(4000)
    noisy = flux + rng.standard_normal(4000)
    return noisy / 2, np.sqrt(0.5), flux > 0.8


class TestClosedForm:
    def test_threshold(self, forced):
        assert_allclose(forced.limits["threshold"][0], THRESHOLD, atol=0.15)

    def test_completeness_of_matched_filter(self, forced):
        found = rows(forced.curve, "matched filter")
        expected = ndtr(found["snr"] - forced.limits["threshold"][0])
        error = np.sqrt(expected * (1 - expected) / 60)
        assert np.all(np.abs(found["completeness"] - expected) < 4 * error + 1 / 60)

    def test_limiting_magnitude(self, forced):
        noise_of_flux = np.sum(_psf_image(PSF, None) ** 2) ** -0.5
        expected = -2.5 * np.log10((THRESHOLD + ndtri(0.9)) * noise_of_flux)
        limit = forced.limits[0]
        assert 0.01 * u.mag < limit["limiting_magnitude_err"] < 0.1 * u.mag
        assert abs(limit["limiting_magnitude"].value - expected) < 4 * limit["limiting_magnitude_err"].value

    def test_loss_of_linear_filter(self, forced):
        psf = np.pad(_psf_image(PSF, None), 12)
        filtered = gaussian_filter(psf, SMOOTHING)
        ratio = np.sum(psf * filtered) / np.sqrt(np.sum(psf**2) * np.sum(filtered**2))
        limit = forced.limits[1]
        assert limit["method"] == "mean"
        assert 2.5 * np.log10(ratio) < -0.05
        assert abs(limit["gain"].value - 2.5 * np.log10(ratio)) < 4 * limit["gain_err"].value
        assert limit["gain_err"] < np.hypot(*forced.limits["limiting_magnitude_err"])

    def test_joint_of_linear_filter(self, forced):
        psf = np.pad(_psf_image(PSF, None), 12)
        filtered = psf + gaussian_filter(psf, SMOOTHING)
        ratio = np.sum(psf * filtered) / np.sqrt(np.sum(psf**2) * np.sum(filtered**2))
        limit = forced.limits[2]
        assert limit["method"] == "joint"
        assert abs(limit["gain"].value - 2.5 * np.log10(ratio)) < 4 * limit["gain_err"].value

    def test_false_detections(self, forced):
        false = rows(forced.false_detections, "matched filter")
        searched = false["area"][0].to_value(u.pix**2) / (8 * 160**2)
        assert 0.99 < searched < 1  # in the corners there is too little of a source
        for row in false[:4]:
            expected = ndtr(-row["threshold"])
            error = np.sqrt(expected / row["area"].value * 2 * np.pi * PSF**2 / 2.355**2)  # pixels correlate
            assert abs(row["density"].value - expected) < 4 * error + 1e-7

    def test_purity(self, forced):
        found = rows(forced.curve, "matched filter")
        false_per_source = ndtr(-forced.limits["threshold"][0]) * SEPARATION**2
        expected = found["completeness"] / (found["completeness"] + false_per_source)
        assert_allclose(found["purity"], expected, atol=0.05)

    def test_purer_means_brighter(self, noise, forced):
        pure = detection_curve(noise, model=smooth, blank=noise, n_injections=60, purity=0.97, **FORCED)
        assert pure.limits["threshold"][0] > forced.limits["threshold"][0]
        assert pure.limits["limiting_magnitude"][0] < forced.limits["limiting_magnitude"][0]


def test_fainter_is_a_positive_gain():
    limits = {"matched filter": 10.0, "mean": 5.0, "joint": 20.0}
    table = _limit_table(dict.fromkeys(limits, 3.0), limits, [limits], 25.0)
    assert_allclose(table["limiting_magnitude"].value, 25 - 2.5 * np.log10([10, 5, 20]))
    assert_allclose(table["gain"].value, 2.5 * np.log10([1, 2, 0.5]))


class TestInvariance:
    def test_unit_and_zero_point(self, frame, result):
        image = noise_image((128, 128), 2000 * u.mJy, seed=3)
        model = partial(spread, factor=2000)
        other = detection_curve(image, zero_point=7.5, **(OPTIONS | {"model": model}))
        assert_allclose(other.curve["magnitude"].value, result.curve["magnitude"].value)
        assert_array_equal(other.curve["completeness"], result.curve["completeness"])
        assert_allclose(other.limits["limiting_magnitude"].value, result.limits["limiting_magnitude"].value)
        assert_array_equal(other.reliability["n"], result.reliability["n"])

    def test_monotonic_change_of_the_mean(self, frame, result):
        def stretch(image, seed):
            return EnhancedCCDData(0.1 * image.data, unit=image.unit)

        limits = detection_curve(frame, **(OPTIONS | {"model": stretch})).limits
        assert_allclose(limits["gain"].value, 0, atol=1e-12)
        assert_allclose(limits["gain_err"].value, 0, atol=1e-12)
        assert_allclose(limits["threshold"][1], 0.1 * limits["threshold"][0])

    @pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
    def test_images_in_several_units(self, noise, kind):
        images = [
            CCDData(image.data, unit=u.uJy, uncertainty=StdDevUncertainty(image.uncertainty.array))
            for image in noise[:2]
        ]
        second = images[1].convert_unit_to(u.nJy)
        second.uncertainty = second.uncertainty.represent_as(kind)
        mixed = [images[0], second]
        plain, converted = (
            detection_curve(pair, model=smooth, blank=pair, n_injections=15, **FORCED)
            for pair in (images, mixed)
        )
        assert_allclose(converted.curve["snr"], plain.curve["snr"])
        assert_allclose(converted.limits["threshold"], plain.limits["threshold"])

    def test_too_small_a_blank_image(self, noise):
        with pytest.warns(
            AstropyUserWarning, match="false detections are expected in the blank images, too few"
        ):
            detection_curve(noise[0], model=smooth, blank=noise[0][:48, :48], **OPTIONS)

    def test_seed(self, frame, result):
        options = OPTIONS | {"model": partial(spread, factor=2)}
        same, other = (detection_curve(frame, seed=seed, **options) for seed in (0, 1))
        for name in ("curve", "limits", "false_detections", "reliability"):
            one, two = getattr(same, name), getattr(result, name)
            assert all(
                np.array_equal(one[key], two[key], equal_nan=key[:4] in ("prob", "freq"))
                for key in one.colnames
            )
        assert not np.array_equal(other.limits["threshold"], result.limits["threshold"])

    def test_image_is_not_changed(self, frame):
        assert_array_equal(frame.data, noise_image((128, 128), 2 * u.adu, seed=3).data)

    def test_what_masked_pixels_hold(self):
        images = []
        for garbage in (np.nan, 1e9):
            image = noise_image((96, 96), seed=4)
            image.mask = np.zeros(image.shape, bool)
            image.mask[20:40, 30:60] = True
            image.data[image.mask] = garbage
            images.append(image)

        def fill(image, seed):
            return EnhancedCCDData(np.where(image.mask, 0, image.data), unit=image.unit)

        one, two = (detection_curve(image, **(OPTIONS | {"model": fill})) for image in images)
        assert_array_equal(one.curve["completeness"], two.curve["completeness"])
        assert one.false_detections["area"][0] < 96**2 * len(images) * 4 * u.pix**2

    def test_ecsv(self, result, tmp_path):
        for name in ("curve", "limits", "false_detections", "reliability"):
            table = getattr(result, name)
            table.write(tmp_path / f"{name}.ecsv")
            again = QTable.read(tmp_path / f"{name}.ecsv")
            assert again.meta == table.meta
            assert {"astro_ddpm", "astropy", "numpy", "scipy"} <= set(again.meta["version"])
            for key in table.colnames:
                assert again[key].info.description == table[key].info.description is not None
                assert again[key].unit == table[key].unit
                assert_array_equal(again[key], table[key])


class TestModels:
    @pytest.mark.filterwarnings("ignore:the magnitudes from")
    @pytest.mark.filterwarnings("ignore:the network alone is wrong")  # it is not trained
    def test_as_enhance(self):
        noise = noise_image((64, 64), seed=1)
        options = {"psf": PSF, "separation": 8, "n_injections": 10, "blank": noise}
        model = toy_model()
        result = detection_curve(noise, model=model, n_samples=3, **options)
        same = detection_curve(noise, model=partial(enhance, model=model, n_samples=3), **options)
        assert result.limits["method"].tolist() == ["matched filter", "mean", "joint", "existence"]
        assert_array_equal(same.curve["completeness"], result.curve["completeness"])
        assert result.limits.meta["model"] == "toy"
        assert result.limits.meta["model_sha256"] == "0" * 64
        assert result.limits.meta["noise_ratio"] == 0.2
        assert result.limits.meta["n_samples"] == 3

    def test_without_samples(self):
        noise = noise_image((64, 64), seed=1)
        result = detection_curve(noise, model=smooth, psf=PSF, separation=10, n_injections=20, blank=noise)
        assert result.reliability is None
        assert result.limits["method"].tolist() == ["matched filter", "mean", "joint"]
        assert result.limits.meta["model"] == "smooth"

    def test_oracle(self):
        noise = noise_image((128, 128), seed=2)

        def oracle(image, seed):
            draws = np.random.default_rng(seed).normal(image.data - noise.data, 0.01, (4, *noise.shape))
            return EnhancedCCDData(draws.mean(axis=0), unit=image.unit, samples=draws)

        with pytest.warns(AstropyUserWarning, match="do not reach from less to more than 90% completeness"):
            result = detection_curve(
                noise, model=oracle, psf=PSF, separation=16, n_injections=20, blank=noise
            )
        assert np.all(rows(result.curve, "existence")["completeness"] == 1)
        assert np.isnan(result.limits["limiting_magnitude"][-1])
        assert_allclose(result.reliability["frequency"][[0, -1]], [0, 1], atol=0.03)
        assert result.reliability["n"][1:-1].sum() < 0.2 * result.reliability["n"].sum()

    def test_faint_things_are_not_taken_for_sources(self):
        image, psf = noise_image((160, 160), seed=8), _psf_image(PSF, None)
        delta = np.zeros(image.shape)
        delta[4::9, 4::9] = 3.5 / np.sum(psf**2) ** 0.5
        image.data += fftconvolve(delta, psf, mode="same")
        result = detection_curve(image, [-3.5, 5], model=smooth, psf=PSF, separation=16, n_injections=30)
        nothing = result.curve[result.curve["magnitude"] == 5 * u.mag]
        assert np.all(nothing["n"] < 28)
        assert_array_equal(nothing["completeness"], 0)

    def test_filter_of_another_size(self, noise):
        options = {"model": smooth, "psf": PSF, "half_light_radius": 4, "separation": 24, "n_injections": 10}
        magnitudes = [-6.5, -5.5, -4, -3]
        psf = _psf_image(PSF, None)
        source = _profile("radius", psf, 4)
        right = detection_curve(noise[:1], magnitudes, correlation=0.0, **options)
        wrong = detection_curve(noise[:1], magnitudes, filter_radius=0, correlation=0.0, **options)
        half, edge = psf.shape[0] // 2, source.shape[0] // 2
        middle = source[edge - half : edge + half + 1, edge - half : edge + half + 1]
        loss = np.sum(psf * middle) / np.sqrt(np.sum(psf**2) * np.sum(source**2))
        assert loss < 0.8
        assert_allclose(wrong.curve["snr"][:4], loss * right.curve["snr"][:4], rtol=1e-3)

    def test_simulated_field(self):
        field = make_galaxy_field((192, 192), seed=2, n_galaxies=6, n_stars=2)
        magnitudes = np.arange(17.5, 20.1, 0.5)
        result = detection_curve(
            field.image, magnitudes * u.ABmag, model=smooth, zero_point=25 * u.ABmag, n_injections=15
        )
        assert_allclose(rows(result.curve, "mean")["magnitude"].value, magnitudes)
        assert np.all(np.diff(rows(result.curve, "matched filter")["snr"]) < 0)
        assert rows(result.curve, "matched filter")["completeness"][0] > 0.8
        assert rows(result.curve, "matched filter")["completeness"][-1] < 0.4


class TestMatchedFilter:
    def test_weights(self):
        rng = np.random.default_rng(1)
        sigma, mask = rng.uniform(1, 3, (40, 40)), rng.random((40, 40)) < 0.1
        data = rng.normal(0, sigma)
        image = CCDData(data, unit="adu", uncertainty=StdDevUncertainty(sigma), mask=mask)
        frame = make_frame(image)
        psf = frame.search.profile
        half = psf.shape[0] // 2
        cut = (slice(20 - half, 21 + half), slice(18 - half, 19 + half))
        weight = np.where(mask, 0, sigma**-2.0)[cut]
        expected = np.sum(weight * psf * data[cut]) / np.sqrt(np.sum(weight * psf**2))
        assert_allclose(frame.snr(data)[20, 18], expected)
        assert_allclose(frame.snr(np.stack([data, 2 * data]))[1, 20, 18], 2 * expected)
        assert_allclose(frame.flux_error[20, 18], np.sum(weight * psf**2) ** -0.5)

    def test_correlated_noise(self):
        rho, profile = 0.3, np.pad(_psf_image(PSF, None), 4)
        frame = make_frame(noise_image((128, 128), correlation=rho), profile=profile, correlation=rho)
        y, x = (np.ravel(index) for index in np.indices(profile.shape))
        R = rho ** (np.subtract.outer(y, y) ** 2 + np.subtract.outer(x, x) ** 2)
        p = profile.ravel()
        assert_allclose(frame.flux_error[64, 64], (p @ np.linalg.solve(R, p)) ** -0.5, rtol=1e-3)
        snr = frame.snr(np.stack([noise_image((128, 128), correlation=rho, seed=i).data for i in range(20)]))
        assert_allclose(snr[:, 20:-20, 20:-20].std(), 1, atol=0.02)

    def test_sources_and_edges_are_left_out(self):
        image = noise_image((96, 96), seed=3)
        image.data[48, 48] += 500
        frame = make_frame(image)
        assert not frame.free[44:53, 44:53].any()
        assert not frame.free[[0, 1, -1]].any()
        assert not frame.free[:, [0, 1, -1]].any()
        assert frame.free[5:35, 5:35].all()


class TestDetectionThreshold:
    @pytest.fixture
    def pair(self):
        rng = np.random.default_rng(3)
        sigma, width = rng.uniform(1, 3, (200, 200)), rng.uniform(0.1, 0.4, (200, 200))
        image = CCDData(np.zeros(sigma.shape), unit="adu", uncertainty=StdDevUncertainty(sigma))
        width = StdDevUncertainty(width)
        meta = {"DDPMDEP": 0.2}
        return EnhancedCCDData(np.zeros(sigma.shape), unit="adu", uncertainty=width, meta=meta), image

    @pytest.mark.parametrize("noise_ratio", [None, 0.0, 0.5])
    def test_deep_exposure_of_an_empty_sky(self, pair, noise_ratio):
        deep, image = pair
        ratio = 0.2 if noise_ratio is None else noise_ratio
        noise = np.random.default_rng(4).standard_normal((2, *deep.shape))
        exposure = noise[0] * deep.uncertainty.array + ratio * noise[1] * image.uncertainty.array
        above = exposure > detection_threshold(deep, image, 2, noise_ratio=noise_ratio).value
        expected = ndtr(-2)
        assert abs(above.mean() - expected) < 4 * np.sqrt(expected / above.size)

    def test_unit(self, pair):
        deep, image = pair
        kilo = u.def_unit("kadu", 1000 * u.adu)
        other = image.convert_unit_to(kilo)
        threshold = detection_threshold(deep, other)
        assert threshold.unit == u.adu
        assert_allclose(threshold, detection_threshold(deep, image))

    def test_pixels_that_do_not_count(self, pair):
        deep, image = pair
        image.mask = np.zeros(image.shape, bool)
        image.mask[3, 4] = True
        assert np.argwhere(np.isposinf(detection_threshold(deep, image))).tolist() == [[3, 4]]

    def test_fewer_sources_in_noise_than_by_the_scatter_of_the_sky(self):
        image = noise_image((128, 128), seed=3)
        deep = enhance(image, model="raunet")
        assert detect_sources(deep.data, 3 * mad_std(deep.data), 5).n_labels > 3
        with pytest.warns(NoDetectionsWarning):
            assert detect_sources(deep.data, detection_threshold(deep, image).value, 5) is None

    def test_errors(self, pair):
        deep, image = pair
        with pytest.raises(ValueError, match="image must have the shape"):
            detection_threshold(deep, image[:50])
        with pytest.raises(ValueError, match="n_sigma must be positive"):
            detection_threshold(deep, image, 0)
        del deep.meta["DDPMDEP"]
        with pytest.raises(ValueError, match="the noise_ratio is missing"):
            detection_threshold(deep, image)
        image.uncertainty = None
        with pytest.raises(ValueError, match="the uncertainty of image is missing"):
            detection_threshold(deep, image, noise_ratio=0.1)


class TestProfile:
    def test_gaussian_psf(self):
        psf = _psf_image(4 * u.pix, None)
        x = np.arange(psf.shape[1]) - psf.shape[1] // 2
        assert_allclose(psf.sum(), 1)
        assert_allclose(np.sum(psf * x**2), (4 / 2.3548) ** 2, rtol=0.01)

    def test_half_light_radius(self):
        profile = _profile("radius", np.ones((1, 1)), 6.0)
        y, x = np.indices(profile.shape) - profile.shape[0] // 2
        assert_allclose(profile.sum(), 1)
        assert_allclose(profile[np.hypot(x, y) <= 6].sum(), 0.5, atol=0.02)

    def test_convolution(self):
        psf = _psf_image(3, None)
        wide, sharp = _profile("radius", psf, 2.0 * u.pix), _profile("radius", np.ones((1, 1)), 2.0)
        assert_allclose(wide, fftconvolve(sharp, psf), atol=1e-12)
        assert_array_equal(_profile("radius", psf, 0), psf)


class TestNoiseImage:
    def test_unit_and_noise(self):
        sigma = np.linspace(1, 2, 200) * u.mJy
        image = noise_image((300, 200), sigma, seed=1)
        assert image.unit == u.mJy
        assert_allclose(image.data.std(axis=0), sigma.value, rtol=0.2)
        assert_allclose((image.data / sigma.value).std(), 1, rtol=0.02)
        assert_array_equal(image.uncertainty.array[7], sigma.value)

    def test_correlation(self):
        data = noise_image((500, 500), correlation=0.4, seed=2).data
        assert_allclose(data.std(), 1, atol=0.02)
        for shift, expected in {(0, 1): 0.4, (1, 0): 0.4, (1, 1): 0.16, (0, 2): 0.4**4}.items():
            measured = np.mean(data * np.roll(data, shift, axis=(0, 1)))
            assert_allclose(measured, expected, atol=0.02)

    def test_seed(self):
        assert_array_equal(noise_image((8, 8), seed=1).data, noise_image((8, 8), seed=1).data)
        assert not np.array_equal(noise_image((8, 8), seed=1).data, noise_image((8, 8), seed=2).data)

    @pytest.mark.parametrize("noise", [0, -1, np.nan, [[1, 0], [1, 1]]])
    def test_bad_noise(self, noise):
        with pytest.raises(ValueError, match="noise must be positive and finite"):
            noise_image((2, 2), noise)

    @pytest.mark.parametrize("correlation", [-0.1, 1, np.nan])
    def test_bad_correlation(self, correlation):
        with pytest.raises(ValueError, match="correlation must be at least 0 and less than 1"):
            noise_image((8, 8), correlation=correlation)


class TestReliability:
    def pulls(self, table):
        return ((table["frequency"] - table["probability"]) / table["frequency_err"])[table["n"] > 30]

    def test_exact_posterior(self, cases):
        mean, std, exists = cases
        table = reliability_diagram(ndtr((mean - 0.8) / std), exists)
        assert table["n"].sum() == 4000
        assert np.sqrt(np.mean(self.pulls(table) ** 2)) < 1.8

    @pytest.mark.parametrize(("bias", "width"), [(0, 0.6), (0.3, 1), (0, 1.6)])
    def test_broken_posterior(self, cases, bias, width):
        mean, std, exists = cases
        table = reliability_diagram(ndtr((mean + bias - 0.8) / (width * std)), exists)
        assert np.sqrt(np.mean(self.pulls(table) ** 2)) > 3

    def test_bins(self):
        table = reliability_diagram([[0, 0.2], [0.5, 1]], [[False, True], [True, True]], bins=[0, 0.5, 1])
        assert table["n"].tolist() == [2, 2]
        assert_allclose(table["probability"], [0.1, 0.75])
        assert_allclose(table["frequency"], [0.5, 1])
        # the 68 % interval with the prior of Jeffreys, which ends at 1 if all came true
        edges = [beta.ppf(ndtr([-1, 1]), 1.5, 1.5), (beta.ppf(ndtr(-1), 2.5, 0.5), 1)]
        assert_allclose(table["frequency_err"], np.diff(edges)[:, 0] / 2, rtol=1e-3)

    def test_empty_bin(self):
        table = reliability_diagram([0.1], [False], bins=2)
        assert np.isnan([table[name][1] for name in ("probability", "frequency", "frequency_err")]).all()

    def test_errors(self):
        with pytest.raises(ValueError, match="outcome must have the shape of probability"):
            reliability_diagram([0.1, 0.2], [True])
        with pytest.raises(ValueError, match="probability must lie between 0 and 1"):
            reliability_diagram([1.1], [True])


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"psf": None}, "psf must be given"),
            ({"psf": -2}, "psf must be an image or a positive FWHM"),
            ({"psf": np.ones((4, 4))}, "psf must be an image with odd sides"),
            ({"psf": np.zeros((3, 3))}, "psf must be finite and have a positive sum"),
            ({"half_light_radius": -1}, "half_light_radius must not be negative"),
            ({"filter_radius": np.inf}, "filter_radius must not be negative"),
            ({"magnitudes": [20]}, "magnitudes must be at least two"),
            ({"magnitudes": [20, 21] * u.adu}, "magnitudes must be in magnitudes"),
            ({"zero_point": 25 * u.adu}, "zero_point must be in magnitudes"),
            ({"n_injections": 5}, "n_injections must be an integer of at least 10"),
            ({"purity": 1}, "purity must lie between 0 and 1"),
            ({"separation": 4, "match_radius": 2}, "separation must be more than twice match_radius"),
            ({"match_radius": 0}, "match_radius must be positive"),
            ({"correlation": 1}, "correlation must be at least 0"),
            ({"model": lambda image, seed: image[:20]}, "model must return an image of the shape"),
        ],
    )
    def test_bad_option(self, options, message):
        options = {"psf": PSF, "model": smooth} | options
        with pytest.raises(ValueError, match=message):
            detection_curve(noise_image((48, 48), seed=1), **options)

    @pytest.mark.parametrize("name", ["image", "blank"])
    @pytest.mark.parametrize("value", [[], np.zeros((8, 8)), [1, 2]])
    def test_bad_image(self, name, value):
        options = {"image": noise_image((48, 48), seed=1), "psf": PSF, "model": smooth} | {name: value}
        with pytest.raises(TypeError, match=f"{name} must be a CCDData or a sequence"):
            detection_curve(n_injections=10, **options)

    def test_no_uncertainty(self):
        with pytest.raises(ValueError, match="image must have an uncertainty"):
            detection_curve(CCDData(np.zeros((48, 48)), unit="adu"), model=smooth, psf=PSF)

    def test_no_room(self):
        image = noise_image((48, 48), seed=1)
        image.data += 100
        with pytest.raises(ValueError, match="image has no room for sources"):
            detection_curve(image, model=smooth, psf=PSF)

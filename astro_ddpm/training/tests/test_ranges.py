# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the ranges that training covers.
"""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from astro_ddpm import domain
from astro_ddpm.domain import compare, measure_image
from astro_ddpm.training import measure_ranges
from astro_ddpm.training.ranges import _upper_psf, measure_stamps, merge_ranges

N = 40


def make_arrays(seed=0, shape=(56, 56), stars=True):
    """Stars with a PSF of known widths, on noise that is smoothed by a Gaussian of 0.45 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    width = np.linspace(1.5, 2.0, N)[:, None, None]
    noise = gaussian_filter(rng.normal(size=(N, *shape)), (0, 0.45, 0.45))
    scene = np.linspace(50, 400, N)[:, None, None] * np.exp(-0.5 * ((y - 28) ** 2 + (x - 27) ** 2) / width**2)
    shallow = scene * stars + noise / noise.std()
    ones = np.ones_like(shallow)
    depth = rng.uniform(0.15, 0.3, N)
    return {"shallow": 3 * shallow, "sigma": 3 * ones, "target": ones, "depth": depth}


class TestMeasureRanges:
    def test_known_images(self):
        arrays = make_arrays()
        ranges = measure_ranges(arrays)
        assert_allclose(
            ranges["psf_fwhm"], [2.355 * 1.5, 2.355 * 1.75], rtol=0.08
        )  # limits: up to the median
        noise = gaussian_filter(np.random.default_rng(1).normal(size=(500, 500)), 0.45)
        rho = np.mean(noise[1:] * noise[:-1]) / noise.var()
        low, high = ranges["noise_correlation"]
        assert -0.15 < low < -0.02  # white noise was added
        assert rho < high < rho + 0.12
        assert ranges["peak_snr"][0] == 0
        assert 300 < ranges["peak_snr"][1] < 405
        assert_allclose(ranges["default_noise_ratio"], np.median(arrays["depth"]), atol=1e-3)
        assert json.loads(json.dumps(ranges)) == ranges

    def test_training_images_lie_inside(self):
        arrays = make_arrays()
        ranges = measure_ranges(arrays, percentiles=(0, 100))
        for data, sigma in zip(arrays["shallow"], arrays["sigma"], strict=True):
            assert compare(measure_image(data, sigma), ranges) == []
        for seed in range(5):
            white = np.random.default_rng(seed + 100).normal(size=(256, 256))
            assert compare(measure_image(white, 1.0), ranges) == []

    def test_other_images_lie_outside(self):
        ranges = measure_ranges(make_arrays())
        noise = gaussian_filter(np.random.default_rng(0).normal(size=(128, 128)), 1)
        noise /= noise.std()
        noise[64, 64] = 500
        measures = measure_image(noise, 1.0)
        assert compare(measures, ranges) == ["psf_fwhm", "noise_correlation"]

    def test_depth_of_noisier_and_split_images(self):
        arrays = make_arrays()
        low, high = arrays["depth"].min(), arrays["depth"].max()
        options = {"percentiles": (0, 100), "max_extra_noise": 4.0, "split_range": (5.0, 20.0)}
        assert_allclose(measure_ranges(arrays, **options)["noise_ratio"], [low / 4, high], atol=1e-4)
        options |= {"split_range": (2.0, 100.0)}
        assert_allclose(measure_ranges(arrays, **options)["noise_ratio"], [0.01, 0.5])

    def test_what_cannot_be_measured_is_left_out(self):
        arrays = make_arrays(stars=False)
        always = {"peak_snr", "noise_ratio", "default_noise_ratio"}
        assert set(measure_ranges(arrays)) == {"noise_correlation", *always}
        cut = {k: v[:, :20, :20] if v.ndim == 3 else v for k, v in arrays.items()}
        assert set(measure_ranges(cut)) == always

    def test_errors(self):
        arrays = make_arrays()
        with pytest.raises(ValueError, match="no pair"):
            measure_ranges({key: value[:0] for key, value in arrays.items()})
        for percentiles in ((5, 5), (-1, 90), (1, 101)):
            with pytest.raises(ValueError, match="percentiles must ascend"):
                measure_ranges(arrays, percentiles=percentiles)


def test_stars_settle_the_upper_end():
    values, is_limit = np.array([4.0, 6, 9, 12, 8, 8.5]), np.array([1, 1, 1, 1, 0, 0])
    assert _upper_psf(values[:4], is_limit[:4], 100) == 7.5
    assert _upper_psf(values, is_limit, 100) == 8.5


def test_measures_that_are_known_are_not_made_again(monkeypatch):
    arrays = make_arrays()
    ranges = measure_ranges(arrays)
    measures = measure_stamps(arrays["shallow"], arrays["sigma"])
    monkeypatch.setattr(domain, "measure_image", None)
    assert measure_ranges(arrays | measures) == ranges
    frames = {"data": arrays["shallow"]} | measures
    expected = {name: ranges[name] for name in ("psf_fwhm", "noise_correlation", "peak_snr")}
    assert measure_ranges(frames) == expected


def test_holes_are_not_measured():
    arrays = make_arrays()
    hole = np.ones(arrays["shallow"].shape, bool)
    hole[:, 2:6, 2:6] = False
    broken = np.where(hole, arrays["shallow"], 1e5)
    one = measure_stamps(arrays["shallow"], arrays["sigma"], hole)
    two = measure_stamps(broken, arrays["sigma"], hole)
    for name, column in one.items():
        assert_array_equal(column, two[name])


def test_merged():
    one = {"peak_snr": [0, 100], "noise_ratio": [0.1, 0.3], "default_noise_ratio": 0.2}
    two = {"peak_snr": [0, 50], "psf_fwhm": [2, 3], "noise_ratio": [0.05, 0.2], "default_noise_ratio": 0.1}
    expected = {"peak_snr": [0, 100], "psf_fwhm": [2, 3], "noise_ratio": [0.05, 0.3]}
    assert merge_ranges([one, two]) == expected | {"default_noise_ratio": 0.2}
    assert merge_ranges([]) == {}

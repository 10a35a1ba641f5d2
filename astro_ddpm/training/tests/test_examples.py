# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the examples module: what every data set has in common.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.training import DeepDataset, PairDataset, SceneDataset, examples
from astro_ddpm.training.tests.helpers import simulated_arrays


def pairs(**options):
    return PairDataset(simulated_arrays(5, size=32), repeat=60, **options)


def deep(**options):
    arrays = simulated_arrays(5, size=32)
    arrays = {"deep": arrays["deep"], "sky_sigma": np.ones(5, "f4"), "noise_width": np.zeros(5, "f4")}
    return DeepDataset(arrays, repeat=60, **options)


def scenes(**options):
    return SceneDataset(number=300, size=32, **options)


@pytest.mark.parametrize("source", [pairs, deep, scenes])
class TestSkyError:
    def test_share(self, source, monkeypatch):
        # at least a third of the examples of every source
        seen = []
        monkeypatch.setattr(examples, "sky_error", lambda shape, *_: seen.append(shape) or np.zeros(shape))
        data = source()
        for i in range(300):
            data[i]
        assert abs(len(seen) / 300 - 0.4) < 4 * np.sqrt(0.24 / 300)

    def test_residual_does_not_change(self, source, monkeypatch):
        def slope(shape, _, sigma, rng):
            return np.float32(sigma.min() * np.linspace(-2, 2, shape[1])) * np.ones(shape, np.float32)

        monkeypatch.setattr(examples, "sky_error", slope)
        monkeypatch.setattr(examples, "remaining_sky", np.zeros_like)
        right, wrong = source(), source()
        right.sky_share, wrong.sky_share = 0, 1
        right.hole_share = wrong.hole_share = 0
        for i in range(20):
            one, two = right[i], wrong[i]
            assert 1 < np.abs(one["z"] - two["z"]).max() < 2.01
            assert_allclose(one["residual"], two["residual"], atol=1e-4 * np.abs(one["z"]).max())

    def test_a_sky_below_zero_is_not_seen(self, source, monkeypatch):
        low, lower = source(), source()
        for data, sky in ((low, -20), (lower, -30)):
            data.sky_share, data.hole_share = 1, 0
            monkeypatch.setattr(
                examples,
                "sky_error",
                lambda shape, _, sigma, rng, sky=sky: np.full(shape, sky * sigma.max(), "f4"),
            )
            data.example = data[0]
        assert_allclose(low.example["z"].mean(), lower.example["z"].mean(), atol=0.5)
        assert low.example["z"].mean() > -2


def test_saturated_pixels_are_holes(monkeypatch):
    monkeypatch.setattr(examples, "saturated", lambda z, _: z > 20)
    monkeypatch.setattr(examples, "random_holes", lambda shape, _: np.ones(shape, bool))
    data = scenes()
    data.hole_share = 10  # in all examples
    lost = [i for i in range(60) if not data[i]["valid"].all()]
    assert len(lost) > 10
    assert all(data[i]["z"].max() <= 21 for i in lost)


def test_planes_are_turned_alike(monkeypatch):
    monkeypatch.setattr(examples, "remaining_sky", np.zeros_like)
    image = np.arange(48.0).reshape(6, 8)
    data = examples.whitened(image, np.full((6, 8), 2.0), image + 1, 0.3, *examples.marks({}, (6, 8)))
    assert_array_equal(data["z"][0], image / 2)
    assert_array_equal(data["residual"], 0.5)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
from itertools import product

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.selfcheck import judge_noise, noise_autocorrelation

KERNEL = np.outer([0.25, 1, 0.25], [0.25, 1, 0.25])


def make_image(kind, seed=0):
    """A right whitened image."""
    options = {
        "field": {},
        "crowded": {"n_stars": 300, "n_galaxies": 30, "psf_fwhm": 3.0},
        "small": {"shape": (64, 64), "n_galaxies": 2, "n_stars": 1},
        "correlated": {},
    }[kind]
    field = make_galaxy_field(**{"shape": (160, 160), "seed": seed, "bad_columns": 0} | options)
    sigma = field.image.uncertainty.array
    if kind != "correlated":
        return field.image.data / sigma
    white = np.random.default_rng(seed).standard_normal(sigma.shape)
    return field.truth / sigma + convolve(white, KERNEL, mode="wrap") / np.sqrt(np.sum(KERNEL**2))


def judge(z, **kwargs):
    return judge_noise(z, np.ones(z.shape, bool), **kwargs)


@pytest.mark.parametrize("kind", ["field", "crowded", "small", "correlated"])
def test_right_noise_gives_no_alarm(kind):
    assert not [text for seed in range(3) for text in judge(make_image(kind, seed)).warnings()]


@pytest.mark.parametrize("width", [1.2, 1.5, 1.8])
def test_noise_that_is_correlated_far(width):
    noise = gaussian_filter(np.random.default_rng(4).normal(size=(256, 256)), width, mode="wrap")
    judgement = judge(noise / noise.std())
    assert not judgement.warnings()
    expected = np.exp(-(np.arange(4) ** 2) / 4 / width**2)
    assert judgement.correlation[3, 3:] == pytest.approx(
        expected, abs=0.13
    )  # the differences do not see it all


@pytest.mark.parametrize(
    ("kind", "factor"),
    [*product(["field", "correlated"], [0.3, 0.7, 1.5, 3, 10]), *product(["small"], [0.3, 3, 10])],
)
def test_wrong_noise_is_told_with_both_numbers(kind, factor):
    judgement = judge(make_image(kind) / factor)
    (text,) = judgement.warnings()
    assert judgement.ratio == pytest.approx(factor, rel=0.1)
    assert f"{judgement.ratio:.2g} times" in text
    assert f"{1 / judgement.ratio:.2g} measured" in text
    assert "exposure time" in text


def test_sources_are_no_noise():
    field = make_galaxy_field((160, 160), seed=1, n_stars=1500, psf_fwhm=3.0, bad_columns=0)
    assert not judge(field.image.data / field.image.uncertainty.array).warnings()


def test_a_galaxy_that_fills_the_image_is_no_noise():
    rng = np.random.default_rng(0)
    clumps = gaussian_filter(rng.standard_normal((64, 64)), 2.5)
    z = 30 + 4 * clumps / clumps.std() + rng.standard_normal(clumps.shape)
    assert not judge(z).warnings()
    assert judge(z - 30).warnings()  # of that height they are noise of the sky


def test_correlation_is_measured():
    exact = convolve(np.pad(KERNEL, 4), KERNEL, mode="constant")[2:-2, 2:-2] / np.sum(KERNEL**2)
    assert judge(make_image("correlated")).correlation == pytest.approx(exact, abs=0.06)
    noise = np.random.default_rng(1).standard_normal((256, 256))
    judgement = judge(noise)
    assert judgement.correlation is None
    assert judgement.power_spectrum(8) == pytest.approx(np.ones((8, 8)))


@pytest.mark.parametrize("kernel", [np.ones((1, 1)), KERNEL])
def test_an_estimated_scene_that_is_too_faint_is_no_noise(kernel):
    white, clumps = np.random.default_rng(2).standard_normal((2, 200, 200))
    clumps = gaussian_filter(clumps, 1.0)
    clumps *= 0.8 / clumps.std()
    noise = convolve(white, kernel, mode="wrap") / np.sqrt(np.sum(kernel**2))
    found = noise_autocorrelation(clumps + noise, np.ones(white.shape, bool), scene=0.94 * clumps)
    if kernel.size == 1:
        assert found is None
    else:
        assert found[3, 4] == pytest.approx(0.5 / 1.125, abs=0.06)


@pytest.mark.parametrize(("axis", "name"), [(0, "rows"), (1, "columns")])
def test_banding(axis, name):
    rng = np.random.default_rng(2)
    z = rng.standard_normal((192, 192)) + np.expand_dims(rng.standard_normal(192), 1 - axis)
    judgement = judge(z)
    assert getattr(judgement, name) == pytest.approx(1, rel=0.25)
    assert any(name in text for text in judgement.warnings())
    assert not judgement.warnings(stated=False)  # that the noise was measured says the same
    assert getattr(judgement, {"rows": "columns", "columns": "rows"}[name]) == 0


@pytest.mark.parametrize(("step", "told"), [(0.0, False), (0.3, False), (2.0, True)])
def test_steps_of_values(step, told):
    data = 5 * np.random.default_rng(3).standard_normal((96, 96))
    rounded = np.round(data / (5 * step)) * 5 * step if step else data
    judgement = judge(rounded / 5, data=rounded, sigma=np.full(data.shape, 5.0))
    assert judgement.step == pytest.approx(step, abs=1e-6)
    assert any("steps" in text for text in judgement.warnings()) is told


@pytest.mark.parametrize("share", [0.0, 0.003, 0.02])
def test_dark_pixels(share):
    z = make_image("field")
    dead = np.random.default_rng(5).uniform(size=z.shape) < share
    judgement = judge(np.where(dead, z - 9, z))
    assert judgement.dark == pytest.approx(share, rel=0.4)
    assert any("darker than all about them" in text for text in judgement.warnings()) is bool(share)


def test_noise_of_long_tails():
    noise = np.random.default_rng(6).standard_t(3, (256, 256))
    assert any("not Gaussian" in text for text in judge(noise).warnings(stated=False))


def test_holes_do_not_count():
    z = make_image("field")
    valid = np.ones(z.shape, bool)
    valid[40:60] = False
    spoiled = np.where(valid, z, 1e6)
    assert judge_noise(spoiled, valid).ratio == judge_noise(np.where(valid, z, 0), valid).ratio


def test_tiny_image_has_no_ratio():
    judgement = judge(np.random.default_rng(0).standard_normal((8, 8)))
    assert np.isnan(judgement.ratio)
    assert judgement.warnings() == []

# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from astro_ddpm.nn import Starlet
from astro_ddpm.noise import correlated_noise
from astro_ddpm.selfcheck.calibrate import N_SETS, Answer, Probe
from astro_ddpm.selfcheck.expansion import TERMS, Expansion, fit_expansion, starlet_planes
from astro_ddpm.selfcheck.stein import STEP, colour, random_signs

SHAPE = 256, 256
KERNEL = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])


def make_blobs(shape=SHAPE):
    rng = np.random.default_rng(3)
    x = np.zeros(shape)
    x[tuple(rng.integers(0, shape, (20, 2)).T)] = 10 ** rng.uniform(2, 4, 20)
    return gaussian_filter(x, 4).astype(np.float32)


def probe_of(x, noise, regressor, valid=None, correlation=None):
    z = (x + noise).astype(np.float32)
    valid = np.ones(x.shape, bool) if valid is None else valid
    signs = random_signs(5, x.shape) * valid
    moved = (z + np.float32(STEP) * colour(signs, correlation)).astype(np.float32)
    answers = (Answer(image, valid, *regressor(image)) for image in (z, moved))
    return Probe(*answers, signs, STEP, correlation)


def smooth_by(width, share=1.0):
    def regressor(z):
        return share * (gaussian_filter(z, width) - z), np.full_like(z, 0.3)

    return regressor


def rms(answer, x, where=...):
    return np.sqrt(np.mean((answer.scene - x)[where] ** 2))


def autocorrelation(kernel):
    power = np.abs(np.fft.fft2(kernel, (7, 7))) ** 2
    rho = np.fft.fftshift(np.fft.ifft2(power).real)
    return rho / rho.max()


def test_planes_are_those_of_the_networks():
    image = np.random.default_rng(0).standard_normal((80, 90)).astype(np.float32)
    torch = pytest.importorskip("torch")
    starlet = Starlet(3)
    expected = starlet(torch.from_numpy(image)[None, None])[0] * starlet.noise
    inner = slice(16, -16), slice(16, -16)
    assert starlet_planes(image)[:, *inner] == pytest.approx(expected.numpy()[:3, *inner], abs=1e-6)


@pytest.mark.parametrize("correlated", [False, True])
def test_noise(correlated):
    """Not much more is left than if the truth were known; correlated noise looks like kinds of places."""
    rng = np.random.default_rng(1)
    noise, correlation = rng.standard_normal(SHAPE).astype(np.float32), None
    if correlated:
        noise, correlation = correlated_noise(SHAPE, KERNEL, rng), autocorrelation(KERNEL)
    probe = probe_of(np.zeros(SHAPE, np.float32), noise, smooth_by(1.5), correlation=correlation)
    found = fit_expansion([probe], correlation).apply(probe.answer)
    answer = probe.answer
    terms = np.concatenate([starlet_planes(answer.mean), starlet_planes(answer.z)]).reshape(TERMS, -1)
    best = np.linalg.lstsq(terms.T, -answer.scene.ravel())[0]
    assert rms(found, 0) < (1.7 if correlated else 1.3) * np.sqrt(
        np.mean((answer.scene.ravel() + best @ terms) ** 2)
    )
    assert rms(found, 0) < 0.8 * rms(answer, 0)


@pytest.mark.parametrize(("regressor", "gain"), [(smooth_by(0.7), 0.75), (smooth_by(1.2, 0.8), 0.75)])
def test_error_falls(regressor, gain):
    x = make_blobs()
    probe = probe_of(x, np.random.default_rng(2).standard_normal(SHAPE), regressor)
    found = fit_expansion([probe]).apply(probe.answer)
    bright = x > 5
    assert rms(found, x, ~bright) < gain * rms(probe.answer, x, ~bright)
    assert rms(found, x, bright) < 1.01 * rms(probe.answer, x, bright)


def test_a_good_answer_stays():
    x = make_blobs()
    noise = np.random.default_rng(4).standard_normal(SHAPE).astype(np.float32)
    best = 0.02 * gaussian_filter(noise, 4)  # hardly any noise, none of it fine

    def regressor(z):
        return gaussian_filter(z - x, 8) + x - z + best, np.full_like(z, 0.05)

    probe = probe_of(x, noise, regressor)
    found = fit_expansion([probe]).apply(probe.answer)
    assert rms(found, x) < rms(probe.answer, x) + 0.01


@pytest.mark.parametrize("stated", [0.9, 1.1])
def test_wrong_noise_does_little_harm(stated):
    """The sky shows how much noise there is at each scale."""
    x = np.zeros(SHAPE, np.float32)
    noise = np.random.default_rng(6).standard_normal(SHAPE) / stated
    probe = probe_of(x, noise, smooth_by(3.0))
    found = fit_expansion([probe]).apply(probe.answer)
    assert rms(found, x) < 1.1 * rms(probe.answer, x)


@pytest.mark.parametrize("depth", [-4, -8, -50, -300])
def test_dark_columns_are_no_noise(depth):
    """Dead columns and a strip at the edge that sees no sky do not change what the terms do to the sky."""
    dark = np.zeros(SHAPE, bool)
    dark[:, 100:260:50] = dark[:12] = True
    noise = np.random.default_rng(6).standard_normal(SHAPE)
    probe = probe_of(depth * dark, noise, smooth_by(0.7))
    found = fit_expansion([probe]).apply(probe.answer)
    sky = ~maximum_filter(dark, 41)
    assert rms(found, 0, sky) < 0.4 * rms(probe.answer, 0, sky)


def test_too_little_sky():
    x = np.full(SHAPE, 50, np.float32)
    probe = probe_of(x, np.random.default_rng(7).standard_normal(SHAPE), smooth_by(0.7))
    assert fit_expansion([probe]).apply(probe.answer) is probe.answer


def test_what_was_not_measured_stays():
    valid = np.ones(SHAPE, bool)
    valid[100:120, 50:60] = False
    noise = np.random.default_rng(8).standard_normal(SHAPE)
    probe = probe_of(np.zeros(SHAPE), noise, smooth_by(0.7), valid)
    found = fit_expansion([probe]).apply(probe.answer)
    assert np.array_equal(found.mean[~valid], probe.answer.mean[~valid])
    assert np.mean(found.mean[valid] != probe.answer.mean[valid]) > 0.9


def test_parts_of_a_frame():
    """A part with the pixels that matter round it gets what it gets in the whole frame."""
    rng = np.random.default_rng(9)
    expansion = Expansion(rng.uniform(-1, 1, (TERMS, N_SETS)), np.ones(N_SETS))
    probe = probe_of(make_blobs(), rng.standard_normal(SHAPE), smooth_by(0.7))
    reach = expansion.reach + 20
    whole = expansion.apply(probe.answer).mean[100:140, 100:140]
    outer = slice(100 - reach, 140 + reach)
    part = expansion.apply(probe.answer.part((outer, outer))).mean[reach:-reach, reach:-reach]
    assert part == pytest.approx(whole, abs=1e-5)

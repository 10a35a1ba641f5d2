# Licensed under a 3-clause BSD style license - see LICENSE.rst
import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from astro_ddpm.selfcheck import (
    Moments,
    colour,
    divergence,
    measure_noise_power,
    power_spectrum,
    random_signs,
)
from astro_ddpm.selfcheck.stein import STEP

SMOOTHER = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
KERNELS = {"white": np.ones((1, 1)), "correlated": np.outer([0.4, 1, 0.4], [0.2, 1, 0.2])}


def autocorrelation(kernel):
    from scipy.signal import correlate2d

    power = correlate2d(kernel, kernel)
    return power / power.max()


def make_noise(kernel, shape, seed):
    white = np.random.default_rng(seed).standard_normal([n + 8 for n in shape])
    return convolve(white, kernel)[4:-4, 4:-4] / np.sqrt(np.sum(kernel**2))


def smooth(z):
    return convolve(z, SMOOTHER, mode="nearest") - z


def scene(shape):
    """A smooth scene whose opposite edges meet."""
    y, x = np.indices(shape) * 2 * np.pi / 32
    return 3 * np.sin(x) * np.cos(y)


def moments_of(x, kernel, seed):
    """Moments and true mean square error of the smoother on one image, as one set."""
    z = x + make_noise(kernel, x.shape, seed)
    correlation = autocorrelation(kernel)
    signs = random_signs(seed, x.shape)
    change = STEP * colour(signs, correlation)
    residual = smooth(z)
    div = divergence(signs, residual, smooth(z + change))
    noise, _ = measure_noise_power(
        z, z + residual, smooth(change) / STEP + change / STEP, np.ones(x.shape, bool), correlation
    )
    place, weight = np.zeros(x.shape, int), np.ones(x.shape)
    moments = Moments.collect([place], [weight], (noise, div, residual**2, np.full(x.shape, 0.3)), 1)
    return moments, np.mean((z + residual - x) ** 2), div


def test_signs_of_any_part_are_those_of_the_whole():
    whole = random_signs(3, (200, 300))
    assert set(np.unique(whole)) == {-1, 1}
    assert np.array_equal(whole[:130, :140], random_signs(3, (130, 140)))
    assert abs(whole.mean()) < 0.02
    assert np.mean(whole == random_signs(4, (200, 300))) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", KERNELS)
def test_divergence_of_a_linear_smoother(name):
    correlation = autocorrelation(KERNELS[name])
    _, _, div = moments_of(scene((256, 256)), KERNELS[name], 1)
    kernel = SMOOTHER.copy()
    kernel[2, 2] -= 1
    n = len(correlation) // 2
    exact = np.sum(kernel[2 - n : 3 + n, 2 - n : 3 + n] * correlation)
    assert div.mean() == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("name", KERNELS)
def test_error_of_a_linear_smoother(name):
    x = scene((256, 256))
    correlation = np.pad(autocorrelation(KERNELS[name]), 4 - len(autocorrelation(KERNELS[name])) // 2)
    gain = np.sum(autocorrelation(SMOOTHER) * np.sum(SMOOTHER**2) * correlation)
    exact = gain + np.mean(smooth(x) ** 2)
    estimates = [moments_of(x, KERNELS[name], seed)[0].error() for seed in range(4)]
    mse, err = np.mean(estimates, axis=0)[:, 0]
    assert abs(mse - exact) < 4 * err / 2
    assert err < 0.05 * mse + 0.003


@pytest.mark.parametrize("name", KERNELS)
def test_standard_errors(name):
    x = scene((96, 96))
    pulls = []
    for seed in range(60):
        moments, true, _ = moments_of(x, KERNELS[name], seed)
        mse, err = moments.error()
        pulls.append((mse[0] - true) / err[0])
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.3


def test_noise_that_happens_to_be_large():
    x = np.zeros((256, 256))
    z, valid = 1.05 * make_noise(KERNELS["white"], x.shape, 1), np.ones(x.shape, bool)
    power, known = measure_noise_power(z, x, x, valid)
    assert known.all()
    assert power.mean() == pytest.approx(np.mean(z**2), abs=0.004)


def test_noise_power_is_not_measured_on_structure():
    x = 50 * gaussian_filter(np.random.default_rng(1).standard_normal((128, 128)), 1)
    z = x + make_noise(KERNELS["white"], x.shape, 2)
    power, known = measure_noise_power(z, x, np.zeros_like(x), np.ones(x.shape, bool))
    assert np.all(power == 1)
    assert not known.any()


def test_best_factor_of_a_residual():
    x = scene((256, 256))
    z = x + make_noise(KERNELS["white"], x.shape, 5)
    moments, _, _ = moments_of(x, KERNELS["white"], 5)
    excess, err = moments.excess()
    power = moments.means()[2]
    true = -np.mean((z - x) * smooth(z)) / np.mean(smooth(z) ** 2)
    assert 1 - excess[0] / (2 * power[0]) == pytest.approx(true, abs=0.02)
    assert err[0] < 0.05


def test_moments_add_up():
    one, _, _ = moments_of(scene((64, 64)), KERNELS["white"], 1)
    two, _, _ = moments_of(scene((64, 64)), KERNELS["white"], 2)
    both = (one + two).error()
    assert both[0] == pytest.approx((one.error()[0] + two.error()[0]) / 2, rel=0.01)
    assert both[1] == pytest.approx(np.hypot(one.error()[1], two.error()[1]) / 2, rel=0.15)


def test_power_spectrum():
    assert power_spectrum(np.ones((1, 1)), 8) == pytest.approx(np.ones((8, 8)))
    power = power_spectrum(autocorrelation(KERNELS["correlated"]), 32)
    assert power.mean() == pytest.approx(1)
    assert power[0, 0] > 2
    assert power[16, 16] < 0.5

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the noise module against simulated noise and closed forms.
"""

import numpy as np
import pytest
from astropy.nddata import (
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from astro_ddpm.noise import (
    LEVEL_BLOCK,
    LEVEL_RADIUS,
    constant_areas,
    correlated_noise,
    correlation_kernel,
    detect_pedestal,
    detect_self_noise,
    estimate_sky_level,
    estimate_sky_sigma,
    fill_holes,
    measure_banding,
    neighbour_correlation,
    photon_noise,
    remaining_sky,
    sigma_from_gain,
    sigma_from_uncertainty,
    smooth_sigma,
    unwhiten,
    whiten,
)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def add_sources(image, rng, number=30):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    for _ in range(number):
        y0, x0 = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1])
        image = image + rng.uniform(5, 500) * np.exp(-0.5 * ((y - y0) ** 2 + (x - x0) ** 2) / 9)
    return image


class TestWhitening:
    """Test whitening and its inverse."""

    @pytest.mark.parametrize("level", [0.1, 1, 1e2, 1e4])
    def test_round_trip(self, rng, level):
        sigma = rng.uniform(0.5, 2, (64, 64)).astype("f4")
        y = (level * sigma * rng.normal(1, 0.1, (64, 64))).astype("f4")
        x = (y + sigma * rng.normal(size=y.shape)).astype("f4")
        back = unwhiten(whiten(x, sigma, y), sigma, y)
        assert back.dtype == np.float32
        assert_allclose(back, x, rtol=1e-6, atol=1e-6 * np.abs(y).max())
        assert_allclose(unwhiten(whiten(y, sigma), sigma), y, rtol=1e-6)

    def test_meaning(self):
        assert whiten(7.0, 2.0, 3.0) == 2.0
        assert unwhiten(2.0, 2.0, 3.0) == 7.0


class TestSigma:
    """Test the noise from uncertainties and from the detector."""

    @pytest.mark.parametrize(
        ("cls", "power"),
        [(StdDevUncertainty, 1), (VarianceUncertainty, 2), (InverseVariance, -2)],
    )
    def test_uncertainty_classes(self, rng, cls, power):
        sigma = rng.uniform(1, 3, (5, 4))
        assert_allclose(sigma_from_uncertainty(cls(sigma**power)), sigma)

    def test_no_information_is_infinite(self):
        assert_array_equal(sigma_from_uncertainty(InverseVariance([[0.0, 4.0]])), [[np.inf, 0.5]])

    def test_unknown_uncertainty(self):
        with pytest.raises(TypeError, match="UnknownUncertainty has no standard deviation"):
            sigma_from_uncertainty(UnknownUncertainty([1.0]))
        with pytest.raises(TypeError, match="uncertainty must be an NDUncertainty"):
            sigma_from_uncertainty([1.0])

    def test_gain_matches_simulated_ccd(self, rng):
        gain, read_noise, sky, source = 1.9, 5.0, 80.0, 300.0
        electrons = rng.poisson(gain * (sky + source), (300, 300)) + rng.normal(0, read_noise, (300, 300))
        data = electrons / gain - sky
        sigma = sigma_from_gain(data, gain, read_noise, sky)
        assert_allclose(np.median(sigma), data.std(), rtol=0.01)

    def test_gain_is_monotonic_in_flux(self):
        data = np.zeros((30, 30))
        data[10:20, 10:20] = 1000
        sigma = sigma_from_gain(data, 2.0, 4.0, 0)
        assert_allclose(sigma[0, 0], 2.0)
        assert_allclose(sigma[15, 15], np.sqrt(1000 / 2 + 4), rtol=1e-3)

    def test_photon_noise(self, rng):
        flux = np.full((20, 20), 50.0)
        flux[3, 4], flux[0] = np.nan, -1e3
        assert_allclose(photon_noise(flux, 2.0, 0.5)[8:], np.sqrt(4 + 25), rtol=1e-6)
        assert_allclose(photon_noise(flux, 2.0, 0.5)[0], 2, rtol=1e-6)
        assert_allclose(photon_noise(-flux, 2.0, 0.5, smoothing=0)[0], np.sqrt(4 + 500))

    @pytest.mark.parametrize(
        ("gain", "read_noise", "sky", "match"),
        [
            (0, 5, 1, "gain must be positive"),
            (np.nan, 5, 1, "gain must be positive"),
            (1, -5, 1, "read_noise and sky_level"),
            (1, 5, -1, "read_noise and sky_level"),
            (1, 0, 0, "the noise is zero"),
        ],
    )
    def test_gain_errors(self, gain, read_noise, sky, match):
        with pytest.raises(ValueError, match=match):
            sigma_from_gain(np.zeros((8, 8)), gain, read_noise, sky)


class TestSkySigma:
    """Test the noise measured in an image."""

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_white_noise_below_sources(self, rng, scale):
        image = scale * add_sources(rng.normal(0, 1, (256, 256)), rng)
        assert_allclose(estimate_sky_sigma(image), scale, rtol=0.03)

    def test_correlated_noise(self, rng):
        noise = gaussian_filter(rng.normal(size=(400, 400)), 0.6, mode="wrap")
        noise /= noise.std()
        assert_allclose(estimate_sky_sigma(noise), 1, rtol=0.03)
        assert estimate_sky_sigma(noise, lag=1) < 0.85

    def test_level_and_gradient_do_not_matter(self, rng):
        noise = rng.normal(size=(200, 200))
        tilted = noise + 1000 + 0.1 * np.mgrid[:200, :200].sum(0)
        assert_allclose(estimate_sky_sigma(tilted), 1, rtol=0.05)

    def test_mask_and_nan_are_left_out(self, rng):
        image = rng.normal(size=(128, 128))
        bad = rng.random(image.shape) < 0.1
        spoilt = np.where(bad, 1e6 * rng.normal(size=image.shape), image)
        assert_allclose(estimate_sky_sigma(spoilt, mask=bad), 1, rtol=0.06)
        assert_allclose(estimate_sky_sigma(np.where(bad, np.nan, image)), 1, rtol=0.06)

    def test_byte_order(self, rng):
        image = rng.normal(size=(64, 64)).astype(">f4")
        assert estimate_sky_sigma(image) == estimate_sky_sigma(image.astype("f4"))

    @pytest.mark.parametrize(
        ("data", "options", "match"),
        [
            (np.zeros((3, 8, 8)), {}, "two-dimensional"),
            (np.zeros((8, 8)), {"mask": np.zeros((3, 3), bool)}, "mask has shape"),
            (np.zeros((8, 8)), {"lag": 0}, "lag must be"),
            (np.zeros((2, 8)), {}, "lag must be"),
            (np.full((8, 8), np.nan), {}, "no valid pixel"),
            (np.ones((16, 16)), {}, "zero"),
            (np.random.default_rng(0).normal(size=(5, 5)), {}, "too few"),
        ],
    )
    def test_errors(self, data, options, match):
        with pytest.raises(ValueError, match=match):
            estimate_sky_sigma(data, **options)

    @pytest.mark.parametrize("rho", [0.0, 0.2, 0.4])
    def test_neighbour_correlation(self, rng, rho):
        # a first-order kernel along each axis has exactly this separable correlation at lag 1
        a = (1 - np.sqrt(1 - 4 * rho**2)) / (2 * rho) if rho else 0.0
        noise = rng.normal(size=(601, 601))
        noise = noise[1:] + a * noise[:-1]
        noise = noise[:, 1:] + a * noise[:, :-1]
        assert_allclose(neighbour_correlation(noise), rho, atol=0.02)

    @pytest.mark.parametrize("width", [0.4, 0.6, 0.8])
    def test_neighbour_correlation_of_smoothed_noise(self, rng, width):
        noise = gaussian_filter(rng.normal(size=(500, 500)), width, mode="wrap", truncate=8)
        rho = np.mean(noise * np.roll(noise, 1, axis=0)) / noise.var()
        assert_allclose(neighbour_correlation(noise), rho, atol=0.03)
        bad = rng.random(noise.shape) < 0.02
        spoilt = add_sources(np.where(bad, 1e6, noise / noise.std()), rng)
        assert_allclose(neighbour_correlation(spoilt, bad), rho, atol=0.04)
        assert_allclose(neighbour_correlation(np.where(bad, np.nan, spoilt)), rho, atol=0.04)

    @pytest.mark.parametrize(
        ("data", "match"),
        [(np.zeros((9, 9)), "zero"), (np.ones((2, 9)), "lag must be"), (np.eye(4), "too few")],
    )
    def test_neighbour_correlation_errors(self, data, match):
        with pytest.raises(ValueError, match=match):
            neighbour_correlation(data)


class TestStrangeData:
    """Test the noise of discrete, cut, constant and banded data against that of the simulation."""

    SHAPE = (200, 220)

    @pytest.fixture
    def rng(self):
        return np.random.default_rng(5)

    @pytest.mark.parametrize(("step", "sigma"), [(1, 0.4), (1, 0.75), (1, 1.4), (4, 3), (32, 30), (32, 90)])
    def test_steps(self, rng, step, sigma):
        data = step * np.round(rng.normal(7.3, sigma, self.SHAPE) / step)
        assert_allclose(estimate_sky_sigma(data), data.std(), rtol=0.05)

    @pytest.mark.parametrize("mean", [3, 8])
    def test_photons(self, rng, mean):
        assert_allclose(estimate_sky_sigma(rng.poisson(mean, self.SHAPE)), np.sqrt(mean), rtol=0.1)

    @pytest.mark.parametrize(("value", "level"), [(-999, 0), (0, 6), (-32768, 2000)])
    def test_a_value_that_marks_single_pixels(self, rng, value, level):
        data, bad = rng.normal(level, 1, self.SHAPE), rng.random(self.SHAPE) < 0.1
        data[bad] = value
        assert_array_equal(constant_areas(data, np.ones(self.SHAPE, bool)), bad)
        assert_allclose(estimate_sky_sigma(data), 1, rtol=0.05)

    @pytest.mark.parametrize("mean", [0.02, 0.06, 0.3, 0.7])
    def test_few_photons_over_a_flat_field(self, rng, mean):
        data = 0.007 * rng.poisson(mean, self.SHAPE) / rng.uniform(0.95, 1.05, self.SHAPE)
        assert_allclose(estimate_sky_sigma(data), 0.007 * np.sqrt(mean), rtol=0.15)

    @pytest.mark.parametrize("level", [-10, 0, 12])
    @pytest.mark.parametrize("rounded", [False, True])
    def test_values_cut_at_zero(self, rng, level, rounded):
        data = rng.normal(level, 15, self.SHAPE)
        data = np.maximum(np.round(data) if rounded else data, 0)
        assert_allclose(estimate_sky_sigma(data), 15, rtol=0.1)

    @pytest.mark.parametrize("fill", [0, -999, 65535])
    @pytest.mark.parametrize("share", [0.03, 0.35, 0.7])
    @pytest.mark.parametrize("step", [0, 0.5])
    def test_borders(self, rng, fill, share, step):
        data = rng.normal(3, 1, self.SHAPE)
        data = step * np.round(data / step) if step else data
        y, x = np.indices(self.SHAPE)
        border = x + y / 3 < share * self.SHAPE[1]
        data[border] = fill
        valid = np.ones(self.SHAPE, bool)
        if fill or not step:
            assert_array_equal(constant_areas(data, valid), border)
        else:  # some pixels of the sky have the value of the border
            areas = constant_areas(data, valid)
            assert (areas & ~border).sum() < 0.01 * data.size
            assert areas[border].mean() > 0.9
        assert_allclose(estimate_sky_sigma(data), 1, rtol=0.05)

    @pytest.mark.parametrize("sigma", [0.3, 0.5, 2])
    def test_no_area(self, rng, sigma):
        data = np.round(rng.normal(0, sigma, self.SHAPE))
        for image in (data, np.maximum(data, 0), np.zeros(self.SHAPE)):
            assert not constant_areas(image, np.ones(self.SHAPE, bool)).any()

    @pytest.mark.parametrize(("rows", "columns"), [(1.5, 0), (0, 0.7), (1, 1)])
    def test_banding(self, rng, rows, columns):
        data = rng.normal(0, 1, self.SHAPE) + rng.normal(0, rows, (self.SHAPE[0], 1))
        data += rng.normal(0, columns, (1, self.SHAPE[1])) + np.linspace(0, 50, self.SHAPE[1])
        assert_allclose(measure_banding(data), (rows, columns), rtol=0.15)
        assert_allclose(estimate_sky_sigma(data), np.sqrt(1 + rows**2 + columns**2), rtol=0.1)

    def test_no_banding(self, rng):
        correlated = gaussian_filter(rng.normal(0, 1, self.SHAPE), 1.5)
        for data in (rng.normal(0, 1, self.SHAPE), correlated / correlated.std()):
            assert max(measure_banding(data)) < 0.2

    def test_galaxy_that_fills_a_stamp_is_no_band(self, rng):
        y, x = np.mgrid[:64, :64] - 31.5
        disc = 100 * np.exp(-0.5 * (y / 6) ** 2 - 0.5 * (x / 40) ** 2)
        assert_allclose(estimate_sky_sigma(disc + rng.normal(size=disc.shape)), 1, rtol=0.15)

    def test_correlation_is_bounded(self):
        y, x = np.indices((64, 64))
        assert abs(neighbour_correlation(np.sin(x / 9) * np.sin(y / 9))) < 1


class TestCorrelatedNoise:
    """Test the noise that is made against what is wanted of it."""

    @pytest.mark.parametrize("rho", [0.0, 0.2, 0.5, 0.9])
    def test_autocorrelation(self, rng, rho):
        kernel = correlation_kernel(rho)
        noise = correlated_noise((500, 500), kernel, rng).astype(float)
        assert_allclose(noise.std(), 1, atol=0.02)
        for lag in (1, 2):
            assert_allclose(np.mean(noise[lag:] * noise[:-lag]), rho ** (lag**2), atol=0.03)
            assert_allclose(np.mean(noise[:, lag:] * noise[:, :-lag]), rho ** (lag**2), atol=0.03)
        assert_allclose(neighbour_correlation(noise), rho, atol=0.02)


class TestSkyLevel:
    """Test sky level and pedestal."""

    def test_level(self, rng):
        image = add_sources(rng.normal(50, 1, (256, 256)), rng)
        assert_allclose(estimate_sky_level(image), 50, atol=0.3)
        with pytest.raises(ValueError, match="no valid pixel"):
            estimate_sky_level(np.full((4, 4), np.inf))

    @pytest.mark.parametrize("pedestal", [-40.0, 40.0])
    def test_pedestal_found(self, rng, pedestal):
        image = add_sources(rng.normal(pedestal, 1, (128, 128)), rng, 5)
        assert_allclose(detect_pedestal(image, 1.0), pedestal, atol=1)

    def test_no_pedestal(self, rng):
        image = add_sources(rng.normal(0, 1, (128, 128)), rng)
        assert detect_pedestal(image, np.ones(image.shape)) == 0
        with pytest.raises(ValueError, match="no valid pixel"):
            detect_pedestal(image, 1.0, mask=np.ones(image.shape, bool))


class TestSelfNoise:
    """Test noise that was computed from each pixel alone."""

    @pytest.mark.parametrize("sky", [20, 100, 1000])
    def test_slope_of_photon_noise(self, rng, sky):
        counts = add_sources(rng.poisson(sky, (256, 256)).astype(float), rng)
        variance = counts + 5.0**2
        assert_allclose(detect_self_noise(counts, np.sqrt(variance)), 0.5 / (sky + 25) ** 0.5, rtol=0.03)
        smooth = gaussian_filter(variance, 1)
        assert detect_self_noise(counts, np.sqrt(smooth)) == 0
        assert detect_self_noise(counts, np.full(counts.shape, 5.0)) == 0

    def test_sky_subtracted(self, rng):
        # where negative counts are taken for zero, half of the pixels do not count
        image = rng.normal(0, 10, (256, 256))
        assert 0.01 < detect_self_noise(image, np.sqrt(100 + np.maximum(image, 0))) < 0.05

    def test_smooth_sigma(self, rng):
        sigma, mask = rng.uniform(1, 2, (32, 48)), np.zeros((32, 48), bool)
        assert_allclose(smooth_sigma(sigma), np.sqrt(gaussian_filter(sigma**2, 1)))
        sigma[5, 6], sigma[9, 9], mask[9, 9], sigma[2, 2] = np.inf, 1e9, True, 0
        smooth = smooth_sigma(sigma, mask)
        assert (smooth[5, 6], smooth[9, 9], smooth[2, 2]) == (np.inf, 1e9, 0)
        near = np.delete(smooth[2:13, 2:13].ravel(), [0, 3 * 11 + 4, 7 * 11 + 7])
        assert np.all((near > 1) & (near < 2))

    def test_holes_do_not_count(self, rng):
        counts = rng.poisson(100.0, (128, 128)).astype(float)
        sigma, mask = np.sqrt(counts), np.zeros(counts.shape, bool)
        expected = detect_self_noise(counts, sigma)
        sigma[5], counts[:, 7], mask[:, 9] = np.inf, np.nan, True
        assert_allclose(detect_self_noise(counts, sigma, mask), expected, rtol=0.05)

    def test_odd_pixels_do_not_hide_it(self, rng):
        counts = rng.poisson(100.0, (128, 128)).astype(float)
        sigma = np.sqrt(counts)
        expected = detect_self_noise(counts, sigma)
        sigma[rng.random(sigma.shape) < 0.002] = 1e3
        assert_allclose(detect_self_noise(counts, sigma), expected, rtol=0.05)

    @pytest.mark.parametrize("scale", [1e-29, 1e29])
    def test_scale_does_not_matter(self, rng, scale):
        counts = rng.poisson(100.0, (64, 64)).astype("f4")
        sigma, flicker = np.sqrt(counts), rng.normal(10, 3, counts.shape).astype("f4")
        scale = np.float32(scale)
        assert_allclose(detect_self_noise(scale * counts, scale * sigma), detect_self_noise(counts, sigma))
        assert detect_self_noise(scale * counts, scale * flicker) == 0

    @pytest.mark.parametrize("width", [1.0, 2.0])
    def test_crowded_field_is_no_self_noise(self, rng, width):
        truth = 100 + gaussian_filter(3e4 * (rng.random((128, 128)) < 0.03), width)
        assert detect_self_noise(rng.poisson(truth).astype(float), np.sqrt(truth)) == 0

    def test_resampled_noise_needs_more_smoothing(self, rng):
        counts = rng.poisson(100.0, (256, 256)).astype(float)
        counts, variance = (gaussian_filter(plane, 0.8) for plane in (counts, counts))
        slopes = [
            detect_self_noise(counts, smooth_sigma(np.sqrt(variance), smoothing=s)) for s in (0.1, 1, 4)
        ]
        assert slopes[0] > 0.03
        assert slopes[0] > 2 * slopes[1]
        assert slopes[2] == 0

    def test_too_little_to_tell(self):
        assert detect_self_noise(np.ones((3, 90)), np.ones((3, 90))) == 0
        assert detect_self_noise(np.ones((5, 5)), np.ones((5, 5))) == 0
        with pytest.raises(ValueError, match="no valid pixel"):
            detect_self_noise(np.ones((9, 9)), np.full((9, 9), np.inf))


class TestFillHoles:
    """Test that a hole becomes a poor measurement by its surroundings."""

    def test_without_holes(self, rng):
        data, sigma = rng.normal(size=(2, 9, 9))
        out = fill_holes(data, sigma, np.ones((9, 9), bool))
        assert_array_equal(out, [data, sigma])
        assert out[0] is not data

    @pytest.mark.parametrize("width", [1, 3])
    def test_mean_noise_and_scatter_of_neighbours(self, rng, width):
        data, sigma = rng.normal(size=(7, 7)), rng.uniform(1, 2, (7, 7))
        valid = np.ones((7, 7), bool)
        edge = 3 - width // 2
        valid[edge : 7 - edge, edge : 7 - edge] = False
        filled, noise = fill_holes(np.where(valid, data, np.nan), sigma, valid)
        around = valid.copy()
        far = 2 - width // 2
        around[:far] = around[7 - far :] = around[:, :far] = around[:, 7 - far :] = False
        assert_allclose(filled[3, 3], data[around].mean())
        scatter = data[around].var() if width > 1 else 0
        assert_allclose(noise[3, 3], np.sqrt(scatter + (sigma[around] ** 2).mean()))
        assert_array_equal(filled[valid], data[valid])
        assert_array_equal(noise[valid], sigma[valid])

    def test_large_holes_and_edges(self, rng):
        data, sigma = 10 + 0.1 * rng.normal(size=(50, 60)), np.full((50, 60), 0.1)
        valid = np.ones((50, 60), bool)
        valid[:30, :35] = False
        filled, noise = fill_holes(np.where(valid, data, np.inf), sigma, valid)
        assert_allclose(filled, 10, atol=0.5)
        assert np.all((noise > 0.09) & (noise < 0.3))

    def test_stack_is_filled_image_by_image(self, rng):
        data, sigma = rng.normal(size=(3, 12, 12)), rng.uniform(1, 2, (3, 12, 12))
        valid = rng.random((3, 12, 12)) > 0.4
        filled, noise = fill_holes(data, sigma, valid)
        for i in range(3):
            one = fill_holes(data[i], sigma[i], valid[i])
            assert_allclose(one, (filled[i], noise[i]))

    def test_too_few_pixels(self):
        valid = np.zeros((5, 5), bool)
        valid[0, :3] = True
        with pytest.raises(ValueError, match="at least 4 valid pixels"):
            fill_holes(np.ones((5, 5)), np.ones((5, 5)), valid)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_a_constant_has_no_noise(value):
    with pytest.raises(ValueError, match=r"the noise measured in data is zero|too few faint valid pixels"):
        estimate_sky_sigma(np.full((9, 14), value))


class TestRemainingSky:
    @staticmethod
    def noise(*shape, seed=0):
        return np.random.default_rng(seed).standard_normal(shape)

    @pytest.mark.parametrize("shape", [(1, 1), (5, 40), (64, 64), (203, 150)])
    @pytest.mark.parametrize("sky", [-2.0, 0.3, 2.0])
    def test_a_constant(self, shape, sky):
        assert_allclose(remaining_sky(np.full(shape, sky)), sky, rtol=1e-4)
        assert remaining_sky(np.zeros(shape, np.float32)).dtype == np.float32

    @pytest.mark.parametrize("offset", [-5.0, -0.5, 0.0, 0.2, 1.0])
    def test_of_white_noise(self, offset):
        found = remaining_sky(self.noise(256, 256) + offset)
        assert found.mean() == pytest.approx(offset, abs=0.03)
        assert found.std() < 0.03

    @pytest.mark.parametrize("offset", [-1.0, 0.2, 1.0])
    def test_what_is_left_does_not_depend_on_the_sky(self, offset):
        z = self.noise(256, 256)
        left, moved = z - remaining_sky(z), z + offset - remaining_sky(z + offset)
        assert_allclose(moved, left, atol=0.02)

    def test_outskirts_of_a_galaxy_are_light(self):
        y, x = np.mgrid[:64, :64] - 31.5
        galaxy = 30 * np.exp(-np.hypot(y, x) / 15)  # 3.6 where an edge is nearest
        found = remaining_sky(self.noise(64, 64) + galaxy)
        assert found.max() < 0.05

    def test_follows_a_gradient_away_from_the_edges(self):
        ramp = -20 - np.add.outer(np.arange(320) / 100, np.arange(320) / 50)
        inside = (slice(LEVEL_RADIUS, -LEVEL_RADIUS),) * 2
        assert_allclose(remaining_sky(ramp)[inside], ramp[inside], atol=0.2)

    def test_sources_do_not_hide_it(self):
        y, x = np.mgrid[:256, :256] - 128
        source = 1000 * np.exp(-np.hypot(y, x) / 6)
        found = remaining_sky(self.noise(256, 256) + source - 1)
        assert found[:50].mean() == pytest.approx(-1, abs=0.05)
        assert found[128, 128] == pytest.approx(-1, abs=0.5)

    def test_of_a_part(self):
        z = self.noise(256, 320).cumsum(axis=0) / 5 - 1
        part, whole = remaining_sky(z[:, 3 * LEVEL_BLOCK :]), remaining_sky(z)[:, 3 * LEVEL_BLOCK :]
        assert whole.min() < -1
        assert_allclose(part[:, LEVEL_RADIUS:], whole[:, LEVEL_RADIUS:], atol=1e-10)

    def test_no_preferred_direction(self):
        z = self.noise(160, 160).cumsum(axis=1) / 5 - 1  # a multiple of the blocks
        for turn in (np.transpose, np.rot90, np.fliplr):
            assert_allclose(remaining_sky(turn(z)), turn(remaining_sky(z)), atol=1e-10)

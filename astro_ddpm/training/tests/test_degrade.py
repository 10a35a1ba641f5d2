# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the degrade module.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.training import (
    add_exposure_noise,
    correlated_noise,
    dihedral,
    random_holes,
    split_exposure,
)

SHAPE = (400, 500)
N = SHAPE[0] * SHAPE[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class TestCorrelatedNoise:
    @pytest.mark.parametrize("width", [0, 0.3, 0.5, 0.8, 2.0])
    def test_unit_variance(self, rng, width):
        noise = correlated_noise(SHAPE, width, rng)
        assert noise.shape == SHAPE
        assert noise.dtype == np.float32
        # correlation reduces the number of independent pixels by 4 pi w^2 at most
        independent = N / max(1, 4 * np.pi * width**2)
        assert abs(noise.var() - 1) < 4 * np.sqrt(2 / independent)
        assert abs(noise.mean()) < 4 / np.sqrt(independent)

    @pytest.mark.parametrize("width", [0.8, 2.0])
    @pytest.mark.parametrize("lag", [(0, 1), (2, 0), (1, 1), (0, 4)])
    def test_autocorrelation(self, rng, width, lag):
        # a Gaussian kernel convolved with itself is a Gaussian of twice the variance
        noise = correlated_noise(SHAPE, width, rng).astype(float)
        dy, dx = lag
        product = noise[dy:, dx:] * noise[: SHAPE[0] - dy, : SHAPE[1] - dx]
        expected = np.exp(-(dy**2 + dx**2) / (4 * width**2))
        assert_allclose(product.mean(), expected, atol=4 * np.sqrt(2 * 4 * np.pi * width**2 / N))

    def test_edges_are_as_noisy_as_the_centre(self):
        rng = np.random.default_rng(1)
        draws = np.array([correlated_noise((9, 11), 1.5, rng) for _ in range(2000)])
        assert_allclose(draws.var(axis=0), 1, atol=5 * np.sqrt(2 / 2000))

    def test_same_generator_same_noise(self):
        one, two = (correlated_noise((8, 9), 1, np.random.default_rng(5)) for _ in range(2))
        assert_array_equal(one, two)


class TestAddExposureNoise:
    def test_variance(self, rng):
        sigma = np.full(SHAPE, 0.5, np.float32)
        sigma[:, 250:] = 2
        data = sigma * rng.standard_normal(SHAPE, dtype=np.float32) + 7
        noisier, new_sigma = add_exposure_noise(data, sigma, 3.0, correlated_noise(SHAPE, 0, rng))
        assert noisier.dtype == new_sigma.dtype == np.float32
        assert_allclose(new_sigma, 3 * sigma)
        pull = (noisier - 7) / new_sigma
        for half in (pull[:, :250], pull[:, 250:]):
            assert abs(half.var() - 1) < 4 * np.sqrt(2 / half.size)
            assert abs(half.mean()) < 4 / np.sqrt(half.size)

    def test_factor_one_changes_nothing(self, rng):
        data = rng.standard_normal((4, 5))
        noisier, sigma = add_exposure_noise(data, np.ones((4, 5)), 1, rng.standard_normal((4, 5)))
        assert_array_equal(noisier, data)
        assert_array_equal(sigma, 1)

    @pytest.mark.parametrize("factor", [0.99, 0, -2])
    def test_bad_factor(self, factor):
        with pytest.raises(ValueError, match="factor must be at least 1"):
            add_exposure_noise(np.ones(3), np.ones(3), factor, np.ones(3))


class TestSplitExposure:
    @pytest.mark.parametrize("factor", [0.5, 2.0, 20.0])
    def test_noises_are_independent(self, rng, factor):
        scene, sigma = np.float32(5), np.full(SHAPE, 0.3, np.float32)
        deep = scene + sigma * rng.standard_normal(SHAPE, dtype=np.float32)
        data, data_sigma, target = split_exposure(
            deep, sigma, factor, rng.standard_normal(SHAPE, dtype=np.float32)
        )
        assert data.dtype == data_sigma.dtype == target.dtype == np.float32
        assert_allclose(data_sigma, 0.3 * np.sqrt(1 + factor**2), rtol=1e-6)
        noise = (data - scene) / data_sigma
        target_noise = (target - scene) / (0.3 * np.sqrt(1 + factor**-2))
        for unit in (noise, target_noise):
            assert abs(unit.var() - 1) < 4 * np.sqrt(2 / N)
        assert abs(np.mean(noise * target_noise)) < 4 / np.sqrt(N)
        # the depth is the ratio of the two
        assert_allclose(
            target_noise.std() * np.sqrt(1 + factor**-2) / (noise.std() * np.sqrt(1 + factor**2)),
            1 / factor,
            rtol=4 / np.sqrt(N),
        )

    def test_correlated_alike_stays_independent_at_every_lag(self, rng):
        deep, fresh = (correlated_noise(SHAPE, 0.8, rng) for _ in range(2))
        data, _, target = split_exposure(deep, np.ones(SHAPE, np.float32), 2.0, fresh)
        for lag in (1, 2):
            product = np.mean(data[:, lag:] * target[:, :-lag])
            assert abs(product) < 4 * np.sqrt(5 * 1.25 * 4 * np.pi * 0.64 / N)

    @pytest.mark.parametrize("factor", [0, -1, np.nan])
    def test_bad_factor(self, factor):
        with pytest.raises(ValueError, match="factor must be positive"):
            split_exposure(np.ones(3), np.ones(3), factor, np.ones(3))


class TestRandomHoles:
    @pytest.mark.parametrize("shape", [(64, 64), (30, 50), (5, 5)])
    def test_shape_and_dtype(self, rng, shape):
        for _ in range(50):
            valid = random_holes(shape, rng)
            assert valid.shape == shape
            assert valid.dtype == bool

    def test_holes_are_there_but_small(self):
        fractions = np.array(
            [1 - random_holes((64, 64), np.random.default_rng(i)).mean() for i in range(300)]
        )
        assert np.mean(fractions > 0) > 0.95
        # at most five patches of 9 x 9, or a trail or bad columns of about 4 pixels
        assert fractions.max() <= 5 * 81 / 64**2
        assert 0.01 < fractions.mean() < 0.05

    def test_three_kinds(self):
        columns = trails = patches = 0
        for i in range(300):
            holes = ~random_holes((64, 64), np.random.default_rng(i))
            bad_column = holes.all(axis=0).any() or holes.all(axis=1).any()
            rows_hit = holes.any(axis=1).sum() + holes.any(axis=0).sum()
            columns += bad_column and rows_hit < 70
            trails += not bad_column and rows_hit > 90
            patches += not bad_column and rows_hit < 90
        assert min(columns, trails, patches) > 30

    def test_max_size(self, rng):
        for _ in range(100):
            holes = ~random_holes((40, 60), rng, max_size=1)
            if 0 < holes.sum() <= 5:
                break
        else:
            pytest.fail("no patches of single pixels among 100 draws")


class TestDihedral:
    image = np.arange(18.0).reshape(2, 3, 3)

    def test_eight_different_symmetries(self):
        images = {dihedral(self.image, code).tobytes() for code in range(8)}
        assert len(images) == 8

    def test_zero_is_the_identity(self):
        assert_array_equal(dihedral(self.image, 0), self.image)

    def test_is_a_group(self):
        codes = {dihedral(self.image, code).tobytes(): code for code in range(8)}
        for a in range(8):
            products = [codes[dihedral(dihedral(self.image, a), b).tobytes()] for b in range(8)]
            assert sorted(products) == list(range(8))  # closed; the 0 among them is the inverse

    def test_neighbours_stay_neighbours(self):
        y, x = np.mgrid[:5, :5]
        for code in range(8):
            ty, tx = dihedral(y, code), dihedral(x, code)
            for axis in (0, 1):
                step = abs(np.diff(ty, axis=axis)) + abs(np.diff(tx, axis=axis))
                assert_array_equal(step, 1)

    def test_turns_only_the_last_axes(self):
        for code in range(8):
            assert_array_equal(dihedral(self.image, code)[1], dihedral(self.image[1], code))

    def test_rectangle(self):
        assert dihedral(np.zeros((2, 3)), 1).shape == (3, 2)
        assert dihedral(np.zeros((2, 3)), 6).shape == (2, 3)

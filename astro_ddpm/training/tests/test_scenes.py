# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the scenes module.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.training import SceneDataset, draw_scene, scenes
from astro_ddpm.training.cameras import PSF, RESAMPLING
from astro_ddpm.training.scenes import KINDS, WIDTH, Optics, Scene, random_cut


def rngs(number):
    return map(np.random.default_rng, range(number))


class TestDrawScene:
    @pytest.mark.parametrize("kind", KINDS)
    def test_light_is_finite_and_not_negative(self, kind):
        for rng in rngs(12):
            scene = draw_scene(rng, kind)
            assert scene.light.shape == (WIDTH, WIDTH)
            assert scene.light.dtype == np.float32
            for flux in (scene.light, scene.stars[:, 2]):
                assert np.isfinite(flux).all()
                assert (flux >= 0).all()
            light = kind not in ("stars", "crowd", "empty")
            assert (scene.light.max() > 0) == light
            assert (len(scene.stars) > 0) == (kind in ("stars", "crowd"))

    def test_every_kind_is_drawn(self, monkeypatch):
        seen = []
        for kind, draw in KINDS.items():

            def record(rng, draw=draw, kind=kind):
                seen.append(kind)
                return np.ones((WIDTH, WIDTH), np.float32)

            monkeypatch.setitem(KINDS, kind, draw and record)
        drawn = [draw_scene(rng) for rng in rngs(300)]
        assert set(seen) == {kind for kind, draw in KINDS.items() if draw}
        number = np.array([len(scene.stars) for scene in drawn])
        assert (number == 0).mean() > 0.2
        assert (number > 200).mean() > 0.05
        assert any(number[i] == 0 and not scene.light.any() for i, scene in enumerate(drawn))

    def test_follows_from_the_seed(self):
        one, two, other = (draw_scene(np.random.default_rng(seed)) for seed in (4, 4, 5))
        assert_array_equal(one.light, two.light)
        assert_array_equal(one.stars, two.stars)
        assert (one.light != other.light).any()

    def test_luminosity_function(self):
        # of a power law N(> f) ~ f^-a the logarithm of the flux above the least is exponential: mean 1 / a
        for rng in rngs(10):
            flux = np.log(scenes._stars(rng, 3000)[:, 2])
            assert flux.min() >= 0
            assert 1 / 1.5 * 0.9 < flux.mean() < 1 / 0.3 * 1.1

    def test_sersic_profile_holds_half_the_light(self):
        y, x = np.mgrid[:801, :801] - 400.0
        r = np.hypot(y, x)
        for index in (0.7, 1.0, 2.0):
            light = scenes._sersic(r, 20, index)
            assert_allclose(light[r < 20].sum() / light.sum(), 0.5, atol=0.01)

    @pytest.mark.parametrize("slope", [1.0, 3.0])
    def test_slope_of_the_noise(self, slope):
        power = np.mean([np.abs(np.fft.rfft2(scenes._noise(rng, slope))) ** 2 for rng in rngs(30)], axis=0)
        k = np.arange(4, 60)
        assert_allclose(np.polyfit(np.log(k), np.log(power[0, k]), 1)[0], -slope, atol=0.15)


class TestScene:
    @pytest.mark.parametrize("fwhm", [1.1, 3.0, 9.0])
    def test_flux_is_kept(self, fwhm):
        scene = draw_scene(np.random.default_rng(1), "stars")
        scene.light[20, 30] = 7
        image = scene.image(Optics(PSF(fwhm, "moffat")))
        assert_allclose(image.sum(), 7 + scene.stars[:, 2].sum(), rtol=1e-4)

    @pytest.mark.parametrize("fwhm", [1.0, 1.8, 2.5])
    def test_star_between_pixels(self, fwhm):
        # a star is the PSF integrated over pixels, at its own place, to the sub-pixel of the grid
        psf = PSF(fwhm)
        place = np.floor(np.array([80.3, 70.8]) * psf.oversampling) / psf.oversampling
        image = Scene(np.zeros((WIDTH, WIDTH), np.float32), [[80.3, 70.8, 100]]).image(Optics(psf))
        nodes, weights = np.polynomial.legendre.leggauss(8)
        pixels = np.arange(66, 95)
        y, x = ((pixels[:, None] - centre + nodes / 2).ravel() for centre in place)
        light = psf.profile(y[:, None], x).astype(float).reshape(29, 8, 29, 8)
        truth = np.einsum("iajb,a,b->ij", light, weights, weights)
        assert_allclose(image[66:95, 66:95], 100 * truth / truth.sum(), atol=3e-4 * image.max())

    def test_sharp_star_depends_on_its_place(self):
        dark = np.zeros((WIDTH, WIDTH), np.float32)
        optics = Optics(PSF(1.0))
        middle, corner = (Scene(dark, [[y, y, 1]]).image(optics).max() for y in (80, 80.5))
        assert middle > 2 * corner

    def test_light_and_stars_add_up(self):
        scene, optics = draw_scene(np.random.default_rng(2), "crowd"), Optics(PSF(1.5, "airy"))
        light = np.random.default_rng(0).random((WIDTH, WIDTH), np.float32)
        both = Scene(light, scene.stars).image(optics)
        parts = Scene(light).image(optics) + scene.image(optics)
        assert_allclose(both, parts, atol=1e-5 * both.max())

    def test_cuts_are_parts(self):
        image = np.arange(WIDTH**2, dtype=np.float32).reshape(WIDTH, WIDTH)
        for rng in rngs(20):
            part = random_cut(image, 40, rng)
            assert part.shape == (40, 40)
            y, x = divmod(int(part[0, 0]), WIDTH)
            assert_array_equal(part, image[y : y + 40, x : x + 40])
        assert random_cut(0 * image, WIDTH, rng).shape == (WIDTH, WIDTH)


@pytest.fixture(scope="module")
def clean():
    """Examples without flaws: what noise and truth are can be read off."""
    data = SceneDataset(seed=2, number=300, size=32, noisy_target=False)
    data.sky_share = data.hole_share = 0
    return data


class TestSceneDataset:
    @pytest.mark.parametrize("size", [33, 96])
    def test_shapes_and_dtypes(self, size):
        example = SceneDataset(number=5, size=size)[3]
        assert sorted(example) == ["depth", "residual", "use", "valid", "z"]
        for name in ("residual", "valid", "z"):
            assert example[name].shape == (1, size, size)
            assert example[name].dtype == np.float32
            assert np.isfinite(example[name]).all()
        assert 0.02 <= example["depth"] <= 0.5

    def test_draws_follow_from_seed_epoch_stream_and_index(self):
        options = {"seed": 1, "epoch": 2, "stream": 3, "size": 24, "number": 400}
        one = SceneDataset(**options)[250]
        scenes._scene.cache_clear()
        scenes._optics.cache_clear()
        two = SceneDataset(**options)[250]
        for name, values in one.items():
            assert_array_equal(values, two[name])
        for change in ({"seed": 2}, {"epoch": 1}, {"stream": 4}):
            assert (SceneDataset(**options | change)[250]["z"] != one["z"]).any()

    def test_scenes_and_optics_are_reused(self, monkeypatch):
        counts = {"_scene": set(), "_optics": set()}
        pairs = set()

        class Nothing:
            def image(self, optics):
                pairs.add((self.key, optics.key))
                return np.zeros((WIDTH, WIDTH), np.float32)

        for name, seen in counts.items():

            def make(*key, seen=seen):
                seen.add(key)
                thing = Nothing()
                thing.key = key
                return thing

            monkeypatch.setattr(scenes, name, make)
        data = SceneDataset(number=400, size=8, reuse=5)
        for i in range(240):  # two blocks
            data._draw(data._row(i), np.random.default_rng(i))
        assert len(counts["_scene"]) == len(counts["_optics"]) == 48
        assert len(pairs) == 240  # each time with another partner

    def test_noise_is_as_stated(self, clean, monkeypatch):
        # the variance of what is added to the truth is that of photons and read-out, from sky to core; where
        # it is estimated from the image let that be the truth
        for name in ("row_offsets", "hot_pixels"):
            monkeypatch.setattr(scenes, name, lambda shape, _: np.zeros(shape, np.float32))
        monkeypatch.setattr(scenes.ndimage, "gaussian_filter", lambda image, _: self.truth)
        look = clean._look

        def remember(*args):
            self.truth, *rest = look(*args)
            return self.truth, *rest

        monkeypatch.setattr(clean, "_look", remember)
        pulls, bright = [], []
        for i in range(300):
            data, sigma, truth, depth, *_ = clean._draw(clean._row(i), np.random.default_rng(i))
            assert depth == 0
            pulls.append((data - truth) / sigma)
            bright.append(pulls[-1][truth > 3 * sigma])
        for values in (np.ravel(pulls), np.concatenate(bright)):
            error = np.sqrt(6 / len(values))  # some of the noise is correlated
            assert_allclose(values.var(), 1, atol=4 * np.sqrt(2) * error)
            assert_allclose(values.mean(), 0, atol=4 * error)

    def test_photon_noise(self):
        # where nothing but photons counts the variance is the flux itself, in electrons
        data = SceneDataset(
            number=200, size=32, sky_range=(5, 10), snr_range=(1000, 2000), noisy_target=False
        )
        ratios = []
        for i in range(60):
            truth, sky, read_noise = data._look(*data._row(i), np.random.default_rng(i))
            core = truth > 100 * (sky + read_noise**2)
            image, sigma = scenes.expose(truth, 1.0, read_noise, sky, np.random.default_rng(i))
            assert_allclose(sigma[core] ** 2, truth[core], rtol=0.011)
            ratios.append((image - truth)[core] ** 2 / truth[core])
        ratios = np.concatenate(ratios)
        assert_allclose(ratios.mean(), 1, atol=4 * np.sqrt(2 / len(ratios)) + 0.01)

    def test_peaks(self, clean):
        # log-uniform from 0.3 to 5000 in units of the noise of the sky, where there is any light
        peaks = []
        for i in range(300):
            truth, sky, read_noise = clean._look(*clean._row(i), np.random.default_rng(i))
            peaks.append(truth.max() / np.sqrt(sky + read_noise**2))
        peaks = np.log(np.sort([peak for peak in peaks if peak > 0]) / 0.3) / np.log(5000 / 0.3)
        n = len(peaks)
        assert n > 250
        assert np.abs(peaks - (np.arange(n) + 0.5) / n).max() < 1.63 / np.sqrt(n)

    def test_noisy_targets(self):
        depths, pulls = [], []
        for i in range(150):
            rng = np.random.default_rng(i)
            noisy, exact = (
                SceneDataset(seed=4, number=200, size=24, noisy_target=noisy, sky_range=(1e3, 1e4))
                for noisy in (1, 0)
            )
            truth = exact._draw(exact._row(i), np.random.default_rng(i))[2]
            _, sigma, target, depth, *_ = noisy._draw(noisy._row(i), rng)
            depths.append(depth)
            pulls.append(np.median(np.abs(target - truth) / sigma) / 0.6745 / depth)
        assert_allclose(np.mean(pulls), 1, atol=0.02)
        place = np.sort(np.log(np.array(depths) / 0.02) / np.log(25))
        assert np.abs(place - (np.arange(150) + 0.5) / 150).max() < 1.63 / np.sqrt(150)

    def test_noise_is_white_or_not(self, monkeypatch):
        seen = []
        monkeypatch.setattr(scenes, "resampling_kernel", lambda kind, _: seen.append(kind) or np.ones((1, 1)))
        data = SceneDataset(number=300, size=8)
        for i in range(300):
            data._draw(data._row(i), np.random.default_rng(i))
        assert abs(len(seen) / 300 - 0.4) < 4 * np.sqrt(0.24 / 300)
        assert set(seen) == set(RESAMPLING)

    @pytest.mark.parametrize("size", [7, 97])
    def test_bad_size(self, size):
        with pytest.raises(ValueError, match=f"size must be between 8 and 96, not {size}"):
            SceneDataset(size=size)

    def test_beyond_the_end(self):
        with pytest.raises(IndexError, match="index 5 is outside of 5 examples"):
            SceneDataset(number=5)[5]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the posterior of a frame: its noise, its parts, and how large they are.
"""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import posterior, zoo
from astro_ddpm.core import knows_bfloat16
from astro_ddpm.noise import remaining_sky
from astro_ddpm.posterior import TiledModel, choose_sizes, sample_posterior, white_noise

from .helpers import toy_model

DDPM = toy_model()
OPTIONS = {"n_samples": 3, "steps": 3, "seed": 1, "noise_ratio": 0.2, "memory": 1e9}


class TestWhiteNoise:
    def test_white_and_of_unit_variance(self):
        noise = white_noise(1, 0, (300, 400))
        assert noise.dtype == np.float32
        power = np.abs(np.fft.fft2(noise)) ** 2 / noise.size
        assert_allclose(power.mean(), 1, atol=4 * (2 / noise.size) ** 0.5)
        bands = power.reshape(30, 10, 40, 10).mean(axis=(1, 3))
        assert_allclose(bands, 1, atol=7 * 0.1 * 2**0.5)

    def test_a_part_of_the_frame_has_its_noise(self):
        assert_array_equal(white_noise(1, 2, (70, 150)), white_noise(1, 2, (300, 400))[:70, :150])

    def test_blocks_samples_and_seeds_differ(self):
        fields = [white_noise(seed, i, (256, 256)) for seed in (0, 1) for i in (0, 1)]
        blocks = np.array(
            [f[y : y + 128, x : x + 128].ravel() for f in fields for y in (0, 128) for x in (0, 128)]
        )
        assert_allclose(np.corrcoef(blocks), np.eye(16), atol=5 / 128)


class TestTiledModel:
    """Test that tiles do what the model does."""

    shape = (37, 51)

    def tensors(self):
        rng = np.random.default_rng(0)
        z, valid = rng.normal(size=self.shape).astype("f4"), rng.random(self.shape) > 0.1
        seen = torch.from_numpy(z - remaining_sky(z))[None, None]
        return z, valid, seen, torch.from_numpy(valid)[None, None].float()

    @pytest.mark.parametrize("tile_size", [None, 8, 17])
    def test_estimate(self, tile_size):
        z, valid, *tensors = self.tensors()
        with torch.inference_mode():
            expected = DDPM.estimate(*tensors)
            result = TiledModel(DDPM, z, valid, tile_size).estimate()
        for one, other in zip(result, expected, strict=True):
            assert_allclose(one, other, atol=1e-5)

    @pytest.mark.parametrize("tile_size", [None, 8, 17])
    @pytest.mark.parametrize("one_step", [False, True])
    def test_draws(self, tile_size, one_step):
        model = replace(DDPM, one_step=one_step)
        z, valid, *tensors = self.tensors()
        noise = torch.from_numpy(np.stack([white_noise(0, i, self.shape) for i in range(2)]))[:, None]
        with torch.inference_mode():
            tiled = TiledModel(model, z, valid, tile_size)
            estimate = tiled.estimate()
            expected = model.draw(*tensors, estimate, 0.2, noise, 4)
            result = model.sample(tiled.guided_network(estimate), estimate, 0.2, noise, 4)
        assert_allclose(result, expected, atol=1e-4)

    def test_parts_without_measured_pixels_are_skipped(self):
        z, valid = np.zeros((40, 200), np.float32), np.zeros((40, 200), bool)
        valid[:, :20] = True
        seen = 0

        def count(*_):
            nonlocal seen
            seen += 1

        handle = DDPM.regressor.stem.register_forward_hook(count)
        try:
            tiled, calls = TiledModel(DDPM, z, valid, 20), []
            mean, std = tiled.estimate(lambda: calls.append(None))
        finally:
            handle.remove()
        assert len(calls) == len(tiled.tiles) == 20
        assert seen == 4 * 2 * 2  # orientations, rows and columns of tiles
        reach = 20 + DDPM.receptive_radius
        assert_array_equal(mean[..., reach:], 0)
        assert_array_equal(std[..., reach:], 1)
        assert (mean[..., :reach] != 0).all()


class TestSamplePosterior:
    def test_the_networks_do_not_see_a_sky_below_zero(self):
        z = np.random.default_rng(0).normal(size=(96, 80)).astype("f4")
        valid, keep = np.ones(z.shape, bool), {}.__setitem__
        low, lower = (sample_posterior(DDPM, z - sky, valid, keep=keep, **OPTIONS) for sky in (2, 5))
        for one, other in zip(low, lower, strict=True):
            assert_allclose(one, other, atol=1e-3)

    def test_moments_are_those_of_the_draws(self):
        rng = np.random.default_rng(0)
        z, valid, draws = rng.normal(size=(20, 24)).astype("f4"), np.ones((20, 24), bool), {}
        keep = draws.__setitem__
        mean, std = sample_posterior(DDPM, z, valid, keep=keep, batch_size=2, **OPTIONS)
        assert sorted(draws) == [0, 1, 2]
        stack = torch.from_numpy(np.stack([draws[i] for i in range(3)]))[:, None]
        tensors = torch.from_numpy(z - remaining_sky(z))[None, None], torch.ones(1, 1, 20, 24)
        estimate = DDPM.estimate(*tensors)
        noise = np.stack([white_noise(1, i, (20, 24)) for i in range(3)])
        control = np.stack([noise.mean(axis=0), 0 * noise[0]])[:, None]
        control = DDPM.draw(*tensors, estimate, 0.2, torch.from_numpy(control), 3)[:, 0]
        assert_allclose(mean, stack.mean(dim=0)[0] - control[0] + control[1], atol=1e-5)
        variance = stack.var(dim=0, correction=0, keepdim=True)
        assert_allclose(std, DDPM.scene_std(variance, 3, estimate, 0.2)[0, 0], rtol=1e-4)

    def test_tf32_is_off_meanwhile(self, monkeypatch):
        flags = []
        forward = DDPM.regressor.forward

        def watched(*args):
            flags.append(torch.backends.cudnn.allow_tf32)
            return forward(*args)

        monkeypatch.setattr(DDPM.regressor, "forward", watched)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
            z = np.zeros((8, 8), np.float32)
            sample_posterior(replace(DDPM, denoiser=None), z, z == 0, keep=None, **OPTIONS)
            assert torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.benchmark
        assert flags == [False, False]


class TestChooseSizes:
    def test_stamp_in_one_piece_and_a_large_batch(self):
        tile_size, batch_size = choose_sizes(zoo.load("ddpm"), (64, 64), 5e8)
        assert tile_size >= 64
        assert batch_size >= 18

    @pytest.mark.parametrize("memory", [5e7, 5e8, 5e9])
    def test_memory_of_a_frame(self, memory):
        model = zoo.load("ddpm")
        tile_size, batch_size = choose_sizes(model, (8192, 8192), memory)
        assert batch_size == 1
        widest = tile_size + 2 * (model.receptive_radius + model.stride)
        assert 0.9 < widest**2 * 4 * 7 * 32 / memory <= 1

    def test_draws_in_progress_count(self):
        assert choose_sizes(DDPM, (2048, 2048), 1e9, tile_size=64)[1] == 4

    def test_what_is_chosen_stays(self):
        assert choose_sizes(DDPM, (500, 500), 1e6, tile_size=99, batch_size=7) == (99, 7)

    def test_too_little(self):
        model = zoo.load("ddpm")
        with pytest.raises(ValueError, match=r"at least \d+ MB .* not 10 MB") as error:
            choose_sizes(model, (500, 500), 1e7)
        least = float(str(error.value).split(" MB")[0].split()[-1])
        assert choose_sizes(model, (500, 500), 1e6 * least)[0] >= 32
        with pytest.raises(ValueError, match="at least"):
            choose_sizes(model, (500, 500), 1e6 * (least - 1))


class TestExpectedTime:
    """What a user is told of a large frame before it starts."""

    def sample(self, model, caplog, tile_size=16, **options):
        z = np.random.default_rng(0).standard_normal((48, 64)).astype("f4")
        with caplog.at_level(logging.INFO, "astro_ddpm.posterior"):
            options = OPTIONS | {"keep": lambda *_: None, "tile_size": tile_size} | options
            sample_posterior(model, z, np.ones(z.shape, bool), **options)
        return caplog.text

    @pytest.fixture
    def slow(self, monkeypatch):
        monkeypatch.setattr(posterior, "_fastest", lambda function: 10.0)

    @pytest.mark.usefixtures("slow")
    def test_is_told(self, caplog, capsys):
        # 12 tiles in 4 orientations, and 8 draws (2 of them controls) of 3 evaluations, 10 seconds each
        text = self.sample(toy_model(), caplog, progress_bar=True, n_samples=6)
        assert "64 x 48 pixels take about 56 minutes; n_samples=4 would take 44 minutes" in text
        assert "64 x 48 pixels take about" in capsys.readouterr().err

    @pytest.mark.usefixtures("slow")
    def test_check_takes_half_as_long_as_the_estimate(self, caplog, capsys):
        text = self.sample(toy_model(samples=False), caplog, check=lambda z, mean, std, _: (mean, std))
        assert "take about 6 minutes; verify=False would take 4 minutes" in text
        assert capsys.readouterr().err == ""

    def test_quick_frames_are_not_worth_a_word(self, caplog):
        assert self.sample(toy_model(), caplog) == ""

    @pytest.mark.usefixtures("slow")
    def test_few_tiles_are_not_measured(self, caplog):
        assert self.sample(toy_model(), caplog, tile_size=48) == ""


@pytest.mark.skipif(not knows_bfloat16(torch.device("cpu")), reason="the processor only emulates bfloat16")
def test_precision():
    z = 3 * np.random.default_rng(0).standard_normal((40, 40)).astype("f4")
    draws = {}
    for precision in ("float32", "bfloat16"):
        options = OPTIONS | {"keep": lambda i, x, p=precision: draws.setdefault(p, []).append(x)}
        sample_posterior(toy_model(), z, np.ones(z.shape, bool), **options, precision=precision)
    one, other = (np.array(draws[precision]) for precision in ("float32", "bfloat16"))
    assert 0 < (one - other).std() < 0.02 * one.std()

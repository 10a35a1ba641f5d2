# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the model module.
"""

import dataclasses

import numpy as np
import pytest
import torch
from astropy.utils.exceptions import AstropyDeprecationWarning
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import uniform_filter

from astro_ddpm.diffusion import FittedSolver
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.tests.helpers import toy_model
from astro_ddpm.zoo import Model

SHAPE = (11, 14)
MODEL = toy_model()


def perturb(network, scale=0.1):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)
    return network


@pytest.fixture
def model():
    """Return a RAUNet with random weights, and a guided network that has learnt nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(perturb(RAUNet((4, 6))), GuidedUNet((4, 6), embedding_channels=8))


@pytest.fixture
def trained(model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model.denoiser.load_state_dict(perturb(GuidedUNet((4, 6), embedding_channels=8)).state_dict())
    return model


@pytest.fixture
def image():
    z = 3 * torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(2))
    valid = torch.ones_like(z)
    valid[..., 4, 5] = 0
    return z, valid


def white(n, seed=3):
    return torch.randn(n, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))


class TestModel:
    def test_kind(self, model):
        assert (model.kind, model.draws_samples) == ("ddpm", True)
        regressor = Model(model.regressor)
        assert (regressor.kind, regressor.draws_samples) == ("raunet", False)

    def test_old_names(self, model):
        with (
            pytest.warns(AstropyDeprecationWarning, match='Use argument "regressor"'),
            pytest.warns(AstropyDeprecationWarning, match='Use argument "denoiser"'),
        ):
            old = Model(raunet=model.regressor, network=model.denoiser)
        with pytest.warns(AstropyDeprecationWarning, match="Use regressor instead"):
            assert old.raunet is old.regressor is model.regressor
        with pytest.warns(AstropyDeprecationWarning, match="Use denoiser instead"):
            assert old.network is old.denoiser is model.denoiser
        ranges = {"depth": [0.1, 0.5], "default_depth": 0.2}
        assert Model(model.regressor, ranges=ranges).ranges == {
            "noise_ratio": [0.1, 0.5],
            "default_noise_ratio": 0.2,
        }

    def test_is_for_evaluation(self, model):
        for network in (model.regressor, model.denoiser):
            assert not network.training
            assert not any(p.requires_grad for p in network.parameters())

    def test_is_frozen(self, model):
        with pytest.raises(dataclasses.FrozenInstanceError):
            model.name = "other"

    def test_defaults(self, model):
        assert model.name == model.sha256 == ""
        assert model.ranges == model.training == {}
        assert Model(model.regressor).ranges is not model.ranges

    def test_estimate_looks_from_all_sides_where_samples_are_drawn(self, model, image):
        without = dataclasses.replace(model, denoiser=None)
        cases = (model, 4), (without, 2), (dataclasses.replace(without, orientations=1), 1)
        for each, orientations in cases:
            assert each.passes == orientations
            mean, std = each.estimate(*image)
            assert mean.shape == std.shape == (1, 1, *SHAPE)
            assert (std > 0).all()
            for a, b in zip((mean, std), model.regressor.estimate(*image, orientations), strict=True):
                assert_array_equal(a, b)

    def test_impossible_orientations(self, model):
        with pytest.raises(ValueError, match="orientations must be one of 1, 2, 4, 8, not 3"):
            dataclasses.replace(model, orientations=3)

    def test_to(self, model, image):
        assert model.to("cpu") is model
        elsewhere = model.to("meta")
        assert next(elsewhere.regressor.parameters()).device.type == "meta"
        assert next(elsewhere.denoiser.parameters()).device.type == "meta"
        assert next(model.denoiser.parameters()).device.type == "cpu"  # stays where it is
        assert Model(model.regressor).to("meta").denoiser is None


class TestSceneStd:
    noise_ratio = 0.5

    @pytest.fixture
    def estimate(self):
        std = torch.linspace(0.2, 1.5, 60 * 80).reshape(1, 1, 60, 80)
        return torch.zeros_like(std), std

    def scene_std(self, draws, estimate):
        variance = draws.var(dim=0, correction=0, keepdim=True)
        return MODEL.scene_std(variance, len(draws), estimate, self.noise_ratio)

    def draws(self, estimate, n, ratio):
        """Draw Gaussians, of scenes whose variance differs from the estimated one by a factor, and noise."""
        std = torch.sqrt(ratio * estimate[1] ** 2 + self.noise_ratio**2)
        return 3 + std * torch.randn(n, 1, 60, 80, generator=torch.Generator().manual_seed(0))

    @pytest.mark.parametrize("n", [4, 16, 64])
    @pytest.mark.parametrize("ratio", [1.0, 1.5])
    def test_takes_the_noise_of_the_exposure_out(self, estimate, n, ratio):
        scene = self.scene_std(self.draws(estimate, n, ratio), estimate)
        assert scene.shape == (1, 1, 60, 80)
        # one pseudo-draw of ratio 1 shrinks the ratio towards it
        error = scene**2 / estimate[1] ** 2 - ((n - 1) * ratio + 1) / n
        total = ratio * estimate[1][0, 0] ** 2 + self.noise_ratio**2
        power = uniform_filter(total.numpy() ** 2, 17, mode="nearest") * 2 * (n - 1)
        scatter = np.sqrt(power) / n / 17 / uniform_filter(estimate[1][0, 0].numpy() ** 2, 17, mode="nearest")
        pulls = (error[0, 0].numpy() / scatter)[8:-8, 8:-8]
        assert abs(pulls.mean()) < 4 * 17 / (44 * 64) ** 0.5
        assert_allclose(np.sqrt(np.mean(pulls**2)), 1, atol=0.35)  # of about ten independent boxes

    def test_single_draw_falls_back_on_the_estimate(self, estimate):
        scene = self.scene_std(self.draws(estimate, 1, 2.0), estimate)
        assert_allclose(scene, estimate[1], rtol=1e-5)

    @pytest.mark.parametrize("temperature", [0.8, 1.2])
    def test_temperature_is_in_the_noise_of_the_exposure(self, estimate, temperature):
        model = dataclasses.replace(MODEL, temperature=temperature)
        draws = temperature * self.draws(estimate, 400, 1.0)
        variance = draws.var(dim=0, correction=0, keepdim=True)
        scene = model.scene_std(variance, len(draws), estimate, self.noise_ratio)
        assert_allclose((scene / estimate[1]).median(), temperature, rtol=0.01)
        single = model.scene_std(torch.zeros_like(variance), 1, estimate, self.noise_ratio)
        assert_allclose(single, temperature * estimate[1], rtol=1e-4)

    def test_something_is_left(self, estimate):
        # of draws that do not differ, or differ by less than the noise of the exposure
        scene = self.scene_std(torch.zeros(50, 1, 60, 80), estimate)
        assert_allclose(scene, estimate[1] / 2, rtol=1e-5)


class TestDraw:
    """An untrained network leaves the exact denoiser of Gaussian pixels."""

    @pytest.mark.parametrize("noise_ratio", [0.3, 0.6, 1.5])
    @pytest.mark.parametrize(("steps", "error"), [(6, 0.02), (10, 0.026), (20, 0.014)])
    def test_untrained_draws_are_the_estimate(self, model, image, noise_ratio, steps, error):
        mean, std = model.estimate(*image)
        total = (std**2 + noise_ratio**2).sqrt()  # the noise of the exposure comes on top of the scene's
        assert total.min() > 0.3
        assert total.max() < 4
        assert total.std() > 0.001  # it differs between pixels
        noise = white(5)
        draws = model.draw(*image, (mean, std), noise_ratio, noise, steps)
        # the map from noise to draw is linear, and its slope is the width, to the error of the sampler
        assert_allclose((draws - mean) / noise, total.expand_as(draws), rtol=error)

    @pytest.mark.parametrize("noise_ratio", [0.05, 0.3, 1.5])
    def test_untrained_draws_with_a_solver_are_exactly_the_estimate(self, model, image, noise_ratio):
        solver = FittedSolver((2.0, 0.4), (((1.0, 2.0, 3.0),), ((4.0, 5.0, 6.0),) * 2), (0.1, 1.0))
        few = dataclasses.replace(model, solver=solver, temperature=0.9)
        mean, std = model.estimate(*image)
        noise = white(5)
        draws = few.draw(*image, (mean, std), noise_ratio, noise, few.default_steps)
        expected = mean + 0.9 * (std**2 + noise_ratio**2).sqrt() * noise
        assert_allclose(draws, expected, rtol=1e-4, atol=1e-4)

    def test_solver_is_for_its_steps(self, model, trained, image):
        solver = FittedSolver((2.0, 0.4), (((1.0, 2.0, 3.0),), ((4.0, 5.0, 6.0),) * 2), (0.1, 1.0))
        few = dataclasses.replace(trained, solver=solver)
        assert (trained.default_steps, few.default_steps) == (10, 2)
        arguments = *image, trained.estimate(*image), 0.2, white(2)
        assert_array_equal(few.draw(*arguments, 3), trained.draw(*arguments, 3))
        assert abs(few.draw(*arguments, 2) - trained.draw(*arguments, 2)).max() > 0.01

    def test_mean_and_scatter_of_many_draws(self, model, image):
        mean, std = model.estimate(*image)
        n, noise_ratio = 100, 0.5
        draws = model.draw(*image, (mean, std), noise_ratio, white(n), 10)
        total = (std**2 + noise_ratio**2).sqrt()[0]
        assert (abs(draws.mean(0) - mean[0]) < 4.5 * total / n**0.5).all()
        assert_allclose(draws.std(0), total, rtol=0.025 + 4.5 / (2 * n) ** 0.5)

    def test_no_noise_gives_the_mean(self, model, image):
        mean, std = model.estimate(*image)
        draw = model.draw(*image, (mean, std), 0.2, torch.zeros(1, 1, *SHAPE), 10)
        assert_allclose(draw, mean, rtol=1e-6, atol=1e-6)

    def test_shape_and_dtype(self, trained, image):
        estimate = trained.estimate(*image)
        for n in (1, 3):
            draws = trained.draw(*image, estimate, 0.2, white(n), 4)
            assert draws.shape == (n, 1, *SHAPE)
            assert draws.dtype == torch.float32
            assert torch.isfinite(draws).all()

    def test_noise_decides(self, trained, image):
        estimate = trained.estimate(*image)
        state = torch.get_rng_state()
        one, two = (trained.draw(*image, estimate, 0.2, white(2), 4) for _ in range(2))
        assert_array_equal(one, two)
        assert_array_equal(torch.get_rng_state(), state)
        assert (one != trained.draw(*image, estimate, 0.2, white(2, seed=4), 4)).any()
        assert (one[0] != one[1]).any()

    def test_batch_size_does_not_matter(self, trained, image):
        estimate = trained.estimate(*image)
        noise = white(4)
        together = trained.draw(*image, estimate, 0.2, noise, 5)
        for i in range(4):
            alone = trained.draw(*image, estimate, 0.2, noise[i : i + 1], 5)
            assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-4)

    def test_noise_ratio_matters(self, trained, image):
        estimate = trained.estimate(*image)
        shallow, deep = (trained.draw(*image, estimate, d, white(20), 6).std() for d in (2.0, 0.1))
        assert shallow > deep

    def test_callback(self, trained, image):
        calls = []
        draws = trained.draw(
            *image,
            trained.estimate(*image),
            0.2,
            white(2),
            5,
            callback=lambda i, x: calls.append((i, x)),
        )
        assert [i for i, _ in calls] == list(range(5))
        assert_array_equal(calls[-1][1], draws)

    def test_inputs_are_not_changed(self, trained, image):
        estimate, noise = trained.estimate(*image), white(2)
        inputs = [*image, *estimate, noise]
        copies = [tensor.clone() for tensor in inputs]
        trained.draw(*image, estimate, 0.2, noise, 3)
        for tensor, copy in zip(inputs, copies, strict=True):
            assert_array_equal(tensor, copy)

    def test_steps_must_be_positive(self, trained, image):
        with pytest.raises(ValueError, match="n must be at least 1"):
            trained.draw(*image, trained.estimate(*image), 0.2, white(1), 0)

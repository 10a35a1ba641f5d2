# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the modules module.
"""

import math
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from astro_ddpm import zoo
from astro_ddpm.diffusion import multiscale_square
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.nn.raunet import turn_back
from astro_ddpm.training import CRPSModule, DDPMModule, RAUNetModule
from astro_ddpm.training.modules import copy_shared_weights, restore_module

CHANNELS = (4, 6)


@pytest.fixture(autouse=True)
def seeded():
    """Start every test with the same weights, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def make_batch(n=4, size=16, depth=0.3):
    """Return noise around a source; the residual brings back the source, up to noise of the depth."""
    generator = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    scene = 5 * torch.exp(-((y - size / 2) ** 2 + (x - size / 2) ** 2) / 10)
    noise, deep_noise = torch.randn((2, n, 1, size, size), generator=generator)
    return {
        "z": scene + noise,
        "valid": torch.ones(n, 1, size, size),
        "residual": depth * deep_noise - noise,
        "depth": torch.full((n,), depth),
    }


class Fixed(nn.Module):
    """A RAUNet that returns what it is told."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = nn.Parameter(mean), nn.Parameter(std)

    def forward(self, z, valid):
        return self.mean, self.std


def record_logs(module, monkeypatch):
    """Collect what the module logs; without a trainer there is nowhere else to go."""
    logs = {}
    monkeypatch.setattr(module, "log_dict", lambda values, **options: logs.update(values))
    monkeypatch.setattr(module, "log", lambda name, value, **options: logs.update({name: value}))
    return logs


def set_rng(seed):
    return torch.Generator().manual_seed(seed)


class TestRAUNetModule:
    @pytest.mark.parametrize("weighting", [0.0, 0.5, 1.0])
    def test_loss_formula(self, monkeypatch, weighting):
        module, batch = RAUNetModule(CHANNELS, weighting=weighting), make_batch()
        logs = record_logs(module, monkeypatch)
        mean = 0.3 * torch.randn(4, 1, 16, 16)
        std = torch.randn(4, 1, 16, 16).exp()
        module.network = Fixed(mean, std)
        loss = module.training_step(batch, 0)
        variance = (std**2 + 0.3**2).double()
        error = (batch["residual"] - mean).double()
        mean_loss = multiscale_square(error / variance ** (weighting / 2))
        # twice the negative logarithm of a Gaussian, up to a constant
        likelihood = torch.distributions.Normal(0, variance.sqrt()).log_prob(error).mean()
        width_loss = -2 * likelihood - math.log(2 * math.pi)
        assert_allclose(logs["mean_loss"].detach(), mean_loss, rtol=1e-5)
        assert_allclose(logs["width_loss"].detach(), width_loss, rtol=1e-5)
        assert_allclose(loss.detach(), mean_loss + 0.1 * width_loss, rtol=1e-5)

    def test_what_cannot_teach_has_no_loss(self, monkeypatch):
        module, batch = RAUNetModule(CHANNELS, weighting=0.0), make_batch()
        logs = record_logs(module, monkeypatch)
        module.network = Fixed(torch.zeros(4, 1, 16, 16), torch.full((4, 1, 16, 16), 0.5))
        batch["use"] = torch.ones_like(batch["z"])
        batch["use"][:, :, 4:9] = 0
        batch["residual"][:, :, 4:9] = 1e3
        loss = module.training_step(batch, 0)
        module.validation_step(batch, 0)
        assert logs["val_mse_sky"] < 10
        assert logs["mean_loss"] < 20
        (mean, std) = torch.autograd.grad(loss, list(module.network.parameters()))
        assert not mean[:, :, 4:9].any()
        assert not std[:, :, 4:9].any()
        assert mean[:, :, 9:].all()
        # the mean is over what is left
        error, variance = batch["residual"][batch["use"] > 0], 0.25 + 0.09
        assert_allclose(
            logs["width_loss"].detach(), math.log(variance) + (error**2).mean() / variance, rtol=1e-5
        )

    def test_each_loss_trains_its_own_output(self, monkeypatch):
        module, batch = RAUNetModule(CHANNELS), make_batch()
        logs = record_logs(module, monkeypatch)
        module.network = Fixed(torch.zeros(4, 1, 16, 16), torch.ones(4, 1, 16, 16))
        module.training_step(batch, 0)
        grads = [
            torch.autograd.grad(logs[name], list(module.network.parameters()), allow_unused=True)
            for name in ("mean_loss", "width_loss")
        ]
        (mean_by_mean, std_by_mean), (mean_by_width, std_by_width) = grads
        assert mean_by_mean.any()
        assert std_by_width.any()
        assert std_by_mean is None or not std_by_mean.any()
        assert mean_by_width is None or not mean_by_width.any()

    def test_mean_loss_is_least_at_the_average(self, monkeypatch):
        # of possible scenes for one and the same input, whatever the width
        module, batch = RAUNetModule(CHANNELS), make_batch(n=8)
        logs = record_logs(module, monkeypatch)
        average = batch["residual"].mean(0, keepdim=True)
        module.network = Fixed(average, torch.randn(1, 1, 16, 16).exp())
        module.training_step(batch, 0)
        (gradient,) = torch.autograd.grad(logs["mean_loss"], [module.network.mean])
        assert_allclose(gradient, 0, atol=1e-6)

    def test_width_loss_is_least_at_the_true_width(self, monkeypatch):
        # total variance = width^2 + depth^2 = mean square error
        module, batch = RAUNetModule(CHANNELS), make_batch(n=64, size=32)
        logs = record_logs(module, monkeypatch)

        def slope(width):
            module.network = Fixed(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), width))
            module.training_step(batch, 0)
            return float(torch.autograd.grad(logs["width_loss"], [module.network.std])[0])

        square = float(batch["residual"].square().mean())
        best = math.sqrt(square - 0.3**2)
        assert_allclose(best, 1, rtol=0.03)
        assert abs(slope(best)) < 1e-3
        assert slope(0.8 * best) < -0.1
        assert slope(1.2 * best) > 0.1

    @pytest.mark.parametrize("step", [0, 3, 13])
    def test_teacher(self, monkeypatch, tmp_path, step):
        # the target counts with one fifth, the mean of the teacher, turned back, with the rest
        zoo.save(zoo.Model(RAUNet((4, 6, 8))), tmp_path / "teacher.safetensors")
        module = RAUNetModule(CHANNELS, teacher=str(tmp_path / "teacher.safetensors"))
        module._trainer = SimpleNamespace(global_step=step)
        batch, logs = make_batch(), record_logs(module, monkeypatch)
        mean, taught = torch.randn(2, 4, 1, 16, 16)
        std = torch.randn(4, 1, 16, 16).exp()
        module.network, module.teacher = Fixed(mean, std), Fixed(taught, std)
        module.training_step(batch, 0)
        scale = (std**2 + 0.3**2) ** 0.25
        expected = 0.2 * multiscale_square((batch["residual"] - mean) / scale)
        expected += 0.8 * multiscale_square((turn_back(taught, step % 8) - mean) / scale)
        assert_allclose(logs["mean_loss"].detach(), expected.detach(), rtol=1e-5)

    def test_what_is_taught_is_the_mean_over_orientations(self, tmp_path):
        teacher = RAUNet((4, 6, 8))
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        zoo.save(zoo.Model(teacher), tmp_path / "teacher.safetensors")
        module = RAUNetModule(CHANNELS, teacher=str(tmp_path / "teacher.safetensors"))
        batch, taught = make_batch(), []
        for step in range(8):
            module._trainer = SimpleNamespace(global_step=step)
            taught.append(module._taught(module.teacher, batch).detach())
        mean = module.teacher.estimate(batch["z"], batch["valid"], 8)[0]
        assert_allclose(torch.stack(taught).mean(dim=0), mean.detach(), atol=1e-4)
        assert torch.stack(taught).std(dim=0).max() > 0.01

    def test_impossible_share_of_the_teacher(self):
        with pytest.raises(ValueError, match=r"teacher_share must be from 0 to 1, not 1\.2"):
            RAUNetModule(CHANNELS, teacher_share=1.2)

    @pytest.mark.parametrize("joint", [False, True])
    def test_joint(self, joint):
        # the last layer of the width starts at zero, so its bias is what can learn first
        module = RAUNetModule(CHANNELS, dropout=0.0, joint=joint)
        torch.nn.init.constant_(module.network.mean_head[2].bias, 0.5)
        module._losses(make_batch())[0].backward()
        learns = module.network.std_head[2].bias.grad
        assert (learns is not None and bool(learns.abs().sum() > 0)) == joint

    def test_teacher_stays_as_it_is(self, tmp_path):
        zoo.save(zoo.Model(RAUNet((4, 6, 8), dropout=0.5)), tmp_path / "teacher.safetensors")
        module = RAUNetModule(CHANNELS, teacher=str(tmp_path / "teacher.safetensors")).train()
        assert module.network.training
        assert not module.teacher.training
        trained = {id(p) for p in module.parameters() if p.requires_grad}
        assert trained == {id(p) for p in module.network.parameters()}
        assert set(module.parts()) == {"regressor"}

    def test_validation_tells_whether_width_is_right(self, monkeypatch):
        module, batch = RAUNetModule(CHANNELS), make_batch(n=64, size=32)
        logs = record_logs(module, monkeypatch)
        module.network = Fixed(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
        module.validation_step(batch, 0)
        bright = batch["z"] + batch["residual"] > 1
        for name, pick in (("sky", ~bright), ("source", bright)):
            square = batch["residual"][pick].square().mean()
            assert_allclose(logs[f"val_mse_{name}"].detach(), square, rtol=1e-5)
            assert_allclose(logs[f"val_reduced_{name}"].detach(), square / 1.09, rtol=1e-5)
            assert abs(square / 1.09 - 1) < 0.1

    def test_overfits_one_batch(self, monkeypatch):
        module, batch = RAUNetModule(CHANNELS, dropout=0.0), make_batch(n=2)
        logs = record_logs(module, monkeypatch)
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        errors = []
        for _ in range(40):
            loss = module.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            errors.append(float(logs["mean_loss"].detach()))
        assert errors[-1] < 0.5 * errors[0]


class TestDDPMModule:
    @pytest.fixture
    def raunet(self):
        raunet = RAUNet(CHANNELS)
        with torch.no_grad():
            for parameter in raunet.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return raunet

    def test_untrained_loss_is_known_for_gaussian_data(self):
        # a new RAUNet returns mean 0 and width exp(-1); make data that are just so. The loss is 1 times the
        # square of the weight, the width
        module = DDPMModule(RAUNet(CHANNELS))
        batch = make_batch(n=32, size=32)
        std = math.sqrt(math.exp(-2) + 0.3**2)
        batch["residual"] = std * torch.randn(batch["z"].shape)
        blocks = 32 * 4 * 3
        assert abs(float(module.loss(batch).detach()) / std - 1) < 4 * math.sqrt(2 / blocks)

    def test_denoiser_is_told_estimate_and_depth(self, raunet, monkeypatch):
        module, batch = DDPMModule(raunet), make_batch()
        batch["depth"] = torch.tensor([0.1, 0.5, 1.0, 2.0])
        calls = []

        def loss(x, sigma, noise, mean, std, guide, depth, weight, target):
            assert target is None
            calls.append((x, sigma, noise, mean, std, guide, depth, weight))
            return x.sum()

        monkeypatch.setattr(module.denoiser, "loss", loss)
        module.loss(batch, set_rng(0))
        ((x, sigma, noise, mean, std, guide, depth, weight),) = calls
        expected_mean, scene_std = (plane.detach() for plane in raunet.estimate(batch["z"], batch["valid"]))
        assert_array_equal(x, batch["residual"])
        assert sigma.shape == (4,)
        assert noise.shape == x.shape
        assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-6)
        for i, value in enumerate(batch["depth"]):
            assert_allclose(std[i], torch.hypot(scene_std[i], value), rtol=1e-5)
        assert_array_equal(depth, batch["depth"])
        assert_allclose(weight, std.sqrt(), rtol=1e-6)
        expected = module.network.encode(batch["z"], batch["valid"], expected_mean, scene_std)
        assert_allclose(guide.detach(), expected.detach(), rtol=1e-4, atol=1e-5)

    def test_teacher(self, raunet, tmp_path):
        # a network like the teacher has no loss, unless the teacher sees the image turned; without a share of
        # the teacher the loss is that of the target, and in between a quadratic function of the share
        file, batch = tmp_path / "teacher.safetensors", make_batch()
        teacher = DDPMModule(raunet)
        with torch.no_grad():
            for parameter in teacher.network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        zoo.save(zoo.Model(raunet, deepcopy(teacher.network)), file)

        def loss(share, step=0, start=None):
            options = {"teacher": str(file), "teacher_share": share, "dropout": 0.0}
            module = DDPMModule(raunet, start=start, **options).train()
            module._trainer = SimpleNamespace(global_step=step)
            return float(module.loss(batch, set_rng(2)).detach())

        assert loss(1.0, 0, teacher.network) < 1e-8
        assert loss(1.0, 8, teacher.network) < 1e-8
        assert loss(1.0, 3, teacher.network) > 1e-4
        plain = DDPMModule(raunet, dropout=0.0).eval()
        assert_allclose(loss(0.0), float(plain.loss(batch, set_rng(2)).detach()), rtol=1e-6)
        values = [loss(share) for share in (0.0, 0.25, 0.5, 0.75)]
        assert_allclose(np.diff(values, 3), 0, atol=1e-5)
        assert abs(np.diff(values, 2)[0]) > 1e-3
        taught = DDPMModule(raunet, teacher=str(file), dropout=0.0).eval()
        assert taught.loss(batch, set_rng(2)) == plain.loss(batch, set_rng(2))  # in validation

    def test_levels(self, raunet, monkeypatch):
        module, seen = DDPMModule(raunet, log_levels=(2.0, 0.1)), []
        monkeypatch.setattr(module.denoiser, "loss", lambda x, sigma, *_, **__: seen.append(sigma) or x.sum())
        module.loss(make_batch(n=64), set_rng(0))
        assert_allclose([seen[0].log().mean(), seen[0].log().std()], [2.0, 0.1], atol=0.02)

    def test_one_step_is_not_taught(self, raunet):
        with pytest.raises(ValueError, match="teacher must be None"):
            CRPSModule(raunet, teacher="ddpm")

    def test_teacher_must_denoise(self, raunet, tmp_path):
        file = tmp_path / "raunet.safetensors"
        zoo.save(zoo.Model(raunet), file)
        with pytest.raises(ValueError, match="of kind raunet, which has no denoiser"):
            DDPMModule(raunet, teacher=str(file))

    def test_loss_repeats_with_the_generator(self, raunet):
        module, batch = DDPMModule(raunet).eval(), make_batch()
        state = torch.get_rng_state()
        one, two, other = (module.loss(batch, set_rng(seed)).detach() for seed in (3, 3, 4))
        assert one == two
        assert one != other
        assert_array_equal(torch.get_rng_state(), state)

    def test_validation_has_the_same_noise_every_time(self, raunet, monkeypatch):
        module, batch = DDPMModule(raunet).eval(), make_batch()
        logs = record_logs(module, monkeypatch)
        values = []
        for index in (0, 1, 0):
            module.validation_step(batch, index)
            values.append(float(logs["val_loss"].detach()))
        assert values[0] == values[2] != values[1]

    def test_training_step_is_the_loss(self, raunet, monkeypatch):
        module, batch = DDPMModule(raunet, dropout=0.0), make_batch()
        logs = record_logs(module, monkeypatch)
        torch.manual_seed(5)
        loss = module.training_step(batch, 0)
        torch.manual_seed(5)
        assert loss == module.loss(batch) == logs["loss"]

    def test_starts_from_the_weights_of_the_raunet(self, raunet):
        module = DDPMModule(raunet)
        given, started = raunet.state_dict(), module.network.state_dict()
        shared = given.keys() & started.keys()
        assert any(name.startswith("stem.") for name in shared)
        for name in shared - {"unet.stem.weight"}:
            assert_array_equal(started[name], given[name])
        first = given["unet.stem.weight"]
        assert_array_equal(started["unet.stem.weight"][:, : first.shape[1]], first)
        assert not any(name.endswith("head.2.weight") and "mean" in name for name in shared)

    def test_starts_from_another_raunet(self, raunet, tmp_path):
        # whose architecture it has then, while the guide stays the guide
        other = RAUNet((6, 8, 10), patch=2)
        zoo.save(zoo.Model(other), tmp_path / "other.safetensors")
        module = DDPMModule(raunet, start=str(tmp_path / "other.safetensors"))
        assert module.network.config["channels"] == [6, 8, 10]
        assert module.network.config["patch"] == 2
        assert module.raunet is raunet
        assert_array_equal(module.network.stem.bank.weight.detach(), other.stem.bank.weight)
        assert torch.isfinite(module.loss(make_batch()))

    def test_starts_from_a_diffusion_model(self, raunet, tmp_path):
        # whose denoiser it goes on with, not its guide
        torch.manual_seed(0)
        earlier = DDPMModule(RAUNet((6, 8)), (4, 6, 8), patch=2)
        torch.nn.init.normal_(earlier.network.head[2].weight)
        zoo.save(zoo.Model(**earlier.parts()), tmp_path / "earlier.safetensors")
        module = DDPMModule(raunet, start=str(tmp_path / "earlier.safetensors"))
        assert module.network.config == earlier.network.config
        for name, weight in earlier.network.state_dict().items():
            assert_array_equal(module.network.state_dict()[name], weight)
        assert module.raunet is raunet

    def test_other_patches_than_the_guide(self, raunet):
        module = DDPMModule(raunet, (6, 8), patch=2)
        assert module.network.config["patch"] == 2
        model = zoo.Model(**module.parts())
        again = restore_module(model)
        assert again.network.config == module.network.config
        for name, weight in model.denoiser.state_dict().items():
            assert_array_equal(again.network.state_dict()[name], weight)

    def test_raunet_stays_as_it_is(self, raunet):
        module, batch = DDPMModule(raunet), make_batch()
        module.train()
        assert module.network.training
        assert not module.raunet.training
        before = {name: value.clone() for name, value in raunet.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            module.loss(batch).backward()
            optimizer.step()
        assert module.network.head[2].weight.any()  # has moved from zero
        for name, value in raunet.state_dict().items():
            assert_array_equal(value, before[name])
        assert all(p.grad is None for p in raunet.parameters())

    def test_overfits_one_batch(self, raunet):
        module, batch = DDPMModule(raunet, dropout=0.0), make_batch(n=2)
        optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 0.01)
        losses = []
        for _ in range(40):
            loss = module.loss(batch, set_rng(0))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.5 * losses[0]


class TestCopySharedWeights:
    def test_same_names_and_shapes(self):
        source, target = nn.Linear(3, 2), nn.Linear(3, 2)
        copy_shared_weights(source, target)
        assert_array_equal(target.weight.detach(), source.weight.detach())
        assert target.weight is not source.weight
        assert target.weight.requires_grad

    def test_more_input_channels(self):
        source, target = nn.Conv2d(2, 4, 3), nn.Conv2d(5, 4, 3)
        rest = target.weight[:, 2:].detach().clone()
        copy_shared_weights(source, target)
        assert_array_equal(target.weight[:, :2].detach(), source.weight.detach())
        assert_array_equal(target.weight[:, 2:].detach(), rest)

    @pytest.mark.parametrize("source", [nn.Conv2d(2, 4, 3), nn.Conv2d(3, 5, 3), nn.Conv2d(2, 5, 1)])
    def test_what_does_not_fit_stays(self, source):
        # more output channels, fewer input channels, or another kernel
        target = nn.Conv2d(2, 5, 3)
        before = target.weight.detach().clone()
        copy_shared_weights(source, target)
        assert_array_equal(target.weight.detach(), before)

    def test_new_planes_come_last(self):
        # the guided network must see in its first channels what the RAUNet saw in them
        raunet, network = RAUNet(CHANNELS), GuidedUNet(CHANNELS)
        copy_shared_weights(raunet, network)
        batch = make_batch(n=1)
        guide = network.encode(batch["z"], batch["valid"], batch["z"], batch["valid"])
        features = raunet.stem(batch["z"], batch["valid"])
        assert_array_equal(guide[:, : raunet.stem.channels].detach(), features.detach())


class TestOptimizer:
    @pytest.fixture
    def configured(self):
        module = DDPMModule(RAUNet(CHANNELS), learning_rate=0.01, warmup_steps=100)
        trainer = SimpleNamespace(estimated_stepping_batches=1000)
        module._trainer = trainer
        return module, module.configure_optimizers()

    def test_learning_rate(self, configured):
        _, options = configured
        assert options["lr_scheduler"]["interval"] == "step"
        scheduler = options["lr_scheduler"]["scheduler"]
        rates = []
        for _ in range(1001):
            rates += scheduler.get_last_lr()
            options["optimizer"].step()
            scheduler.step()
        rates = np.array(rates) / 0.01
        assert_allclose(rates[:50], np.arange(1, 51) / 100)
        late = np.arange(100, 1001)
        assert_allclose(rates[late], np.cos(np.pi * late / 2000) ** 2, atol=1e-12)
        assert rates.max() <= 1
        assert abs(np.diff(rates)).max() <= 0.01 + 1e-12

    def test_only_what_is_trained(self, configured):
        module, options = configured
        (group,) = options["optimizer"].param_groups
        assert {id(p) for p in group["params"]} == {id(p) for p in module.network.parameters()}


class TestCRPSModule:
    def test_training_brings_the_score_down(self):
        from astro_ddpm.training import CRPSModule

        batch, module = make_batch(n=8), CRPSModule(RAUNet(CHANNELS), dropout=0.0)
        optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 3e-3)
        before = module.loss(batch, set_rng(3)).item()
        for step in range(60):
            optimizer.zero_grad()
            module.loss(batch, set_rng(step)).backward()
            optimizer.step()
        assert module.loss(batch, set_rng(3)).item() < 0.9 * before

    def test_model_draws_in_one_step(self, tmp_path):
        from astro_ddpm import zoo
        from astro_ddpm.training import CRPSModule

        module, batch = CRPSModule(RAUNet(CHANNELS)), make_batch(n=1)
        model = zoo.Model(**module.parts())
        zoo.save(model, tmp_path / "crps.safetensors")
        loaded = zoo.load(tmp_path / "crps.safetensors")
        assert loaded.kind == model.kind == "crps"
        planes, noise = (batch["z"], batch["valid"]), torch.randn(3, 1, 16, 16)
        mean, std = model.estimate(*planes)
        draws = loaded.draw(*planes, (mean, std), 0.3, noise, 10)
        # an untrained network adds nothing to the noise
        assert_allclose(draws, mean + torch.sqrt(std**2 + 0.09) * noise, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="PyTorch compiles in validation, too")
def test_validation_is_not_compiled(monkeypatch):
    module, compiled = RAUNetModule(CHANNELS), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    module.network.compile(backend=backend)
    logs = record_logs(module, monkeypatch)
    module.validation_step(make_batch(), 0)
    assert len(logs) == 4
    assert not compiled
    module.loss(make_batch())
    assert compiled
    torch.compiler.reset()

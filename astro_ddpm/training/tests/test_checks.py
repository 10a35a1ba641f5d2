# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the checks module.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose

from astro_ddpm import zoo
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.training import EMASnapshots, choose_average, examples, residual_gap
from astro_ddpm.training.tests.helpers import simulated_arrays

LEVELS = {"sky": 0.0, "lsb": 3.0, "mid": 15.0, "hi": 60.0}


@pytest.fixture(autouse=True)
def flat_images_are_sources(monkeypatch):
    """Leave the level of an image as it is, which for a flat one would be its sky."""
    monkeypatch.setattr(examples, "remaining_sky", np.zeros_like)


def make_arrays(spread, n=8, size=32, seed=0):
    """Make pairs, two per bin, whose targets differ from the input by Gaussians of given widths."""
    rng = np.random.default_rng(seed)
    index = np.arange(n) % 4
    sigma = np.full((n, size, size), 2.0)
    shallow = sigma * np.array([*LEVELS.values()])[index][:, None, None]
    width = np.array([*spread.values()])[index][:, None, None]
    arrays = {"shallow": shallow, "sigma": sigma, "depth": np.full(n, 0.2)}
    arrays["target"] = shallow + sigma * width * rng.standard_normal(sigma.shape)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


class Memory(torch.nn.Module):
    """A network that knows the residual of some images by heart, as far as a fraction of it."""

    def __init__(self, arrays, fraction):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(fraction))
        residual = (arrays["target"] - arrays["shallow"]) / arrays["sigma"]
        self.known = dict(zip((arrays["shallow"] / arrays["sigma"])[:, 0, 0], residual, strict=False))

    def estimate(self, z, valid):
        mean = [torch.from_numpy(self.known.get(float(image[0, 0, 0]), np.zeros((32, 32)))) for image in z]
        return self.weight * torch.stack(mean)[:, None].to(z), torch.ones_like(z)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_untrained_network(batch_size):
    # its mean is zero: the ratio is that of the variances that the pairs were made with
    train, validation = dict.fromkeys(LEVELS, 1.0), dict(zip(LEVELS, (1.0, 1.2, 0.8, 1.5), strict=True))
    arrays = make_arrays(train), make_arrays(validation, seed=1)
    network, state = RAUNet((4, 6)), torch.get_rng_state()
    gap = residual_gap(network, *arrays, batch_size=batch_size)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(gap) == list(LEVELS)
    n = 2 * 32**2
    for name, ratio in gap.items():
        assert_allclose(ratio, validation[name] ** 2, rtol=4 * 2 / math.sqrt(n))


def test_a_network_that_remembers():
    # errors on known images are smaller by the factor 1 - fraction
    spread = dict.fromkeys(LEVELS, 0.3)
    train, validation = make_arrays(spread, n=4), make_arrays(spread, n=4, seed=1)
    validation["shallow"] += 1e-3
    validation["target"] += 1e-3
    gap = residual_gap(Memory(train, 0.5), train, validation)
    assert_allclose([*gap.values()], 4, rtol=4 * 2 / 32)


def test_dropout_is_off_and_network_stays():
    network = RAUNet((4, 6), dropout=0.9)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    network.train()
    arrays = make_arrays(dict.fromkeys(LEVELS, 1.0))
    gap = residual_gap(network, arrays, arrays)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(ratio == 1 for ratio in gap.values())


def test_bins_without_pixels():
    arrays = make_arrays(dict.fromkeys(LEVELS, 0.1))
    faint = {name: values[:1] for name, values in arrays.items()}
    gap = residual_gap(RAUNet((4, 6)), arrays, faint)
    assert math.isfinite(gap["sky"])
    assert all(math.isnan(gap[name]) for name in ("lsb", "mid", "hi"))


def trainer_in(folder):
    return SimpleNamespace(is_global_zero=True, default_root_dir=folder)


def test_widths_that_the_snapshots_do_not_give(tmp_path):
    with torch.random.fork_rng(devices=[]):
        raunet = RAUNet((4, 6))
    callback = EMASnapshots()
    for width in ("0.05", "0.1"):
        callback.averages[width] = {name: weight.clone() for name, weight in raunet.state_dict().items()}
    for callback.last_step in range(5, 30, 5):
        callback._write(trainer_in(tmp_path))
    model, arrays = zoo.Model(raunet), simulated_arrays(2)
    with pytest.warns(AstropyUserWarning, match=r"width 0\.2 is left out: .* 5 snapshots"):
        _, losses = choose_average(model, tmp_path / "ema", arrays, (0.1, 0.2))
    assert list(losses) == [0.1]
    with (
        pytest.warns(AstropyUserWarning, match="is left out"),
        pytest.raises(ValueError, match=r"width 0\.2 cannot be made"),
    ):
        choose_average(model, tmp_path / "ema", arrays, (0.2,))


@pytest.mark.parametrize("kind", ["raunet", "ddpm", "crps"])
def test_the_average_with_the_least_loss_is_chosen(tmp_path, kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        raunet = RAUNet((4, 6), dropout=0.3)
        network = GuidedUNet((4, 6), dropout=0.3) if kind != "raunet" else None
    model = zoo.Model(raunet, network, sha256="old", one_step=kind == "crps", training={"steps": 7})
    trained = network or raunet
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    # the untrained network, which estimates noise of one, and the same with a head that adds a constant
    bad = {name: weight + (2 if "head.2.bias" in name else 0) for name, weight in before.items()}
    callback = EMASnapshots()
    callback.averages = {"0.05": bad, "0.1": before}
    callback.last_step = 7
    callback._write(trainer_in(tmp_path))
    best, losses = choose_average(model, tmp_path / "ema", simulated_arrays(5), (0.05, 0.1), batch_size=2)
    assert losses[0.1] < losses[0.05] - 0.1
    assert best.training == {"steps": 7, "ema_width": 0.1}
    assert best.kind == kind
    assert not best.sha256  # it is new
    assert (best.denoiser or best.regressor).config == trained.config
    weights = (best.denoiser or best.regressor).state_dict()
    for name, weight in before.items():
        assert_allclose(weights[name], weight, rtol=1e-6, atol=1e-12)
        assert torch.equal(trained.state_dict()[name], weight)

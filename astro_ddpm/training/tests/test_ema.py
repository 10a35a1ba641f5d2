# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the ema module.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.testing import assert_allclose
from torch.utils.data import DataLoader

from astro_ddpm.training import EMASnapshots, PowerEMA, average_snapshots
from astro_ddpm.training.ema import _profile_products, exponent
from astro_ddpm.training.tests.helpers import LIGHTNING_WARNINGS

pytestmark = LIGHTNING_WARNINGS

GAMMA = 6.94


def power_average(values, gamma=GAMMA):
    """Average with the profile t^gamma, by the recursion of Karras et al. 2024, equation 2."""
    average = np.nan
    for t, value in enumerate(values, start=1):
        beta = (1 - 1 / t) ** (gamma + 1)
        average = value if t == 1 else beta * average + (1 - beta) * value
    return average


class Walk(pl.LightningModule):
    """A parameter that goes where it is told: gradient 1 and a learning rate that is minus the step."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.place = torch.nn.Parameter(torch.tensor(path[0], dtype=torch.float64))
        self.register_buffer("constant", torch.tensor(3.7))
        self.seen = []

    def training_step(self, batch, batch_index):
        return self.place

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def on_before_optimizer_step(self, optimizer):
        step = self.path[self.global_step + 1] - self.path[self.global_step]
        optimizer.param_groups[0]["lr"] = -step

    def validation_step(self, batch, batch_index):
        self.seen.append(float(self.place.detach()))


def walk(path, callback, validate=False, kind=Walk, folder=None):
    """Train along the path, whose first element is the start, and return the module."""
    module = kind(path)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=len(path) - 1,
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader = DataLoader(range(len(path) - 1))
    if not validate:
        module.validation_step = None
    trainer.fit(module, loader, DataLoader(range(1)) if validate else None)
    return module


@pytest.mark.parametrize("gamma", [0.0, 2.0, GAMMA])
def test_recursion(gamma):
    path = np.random.default_rng(0).standard_normal(30)
    module = walk(path, PowerEMA(gamma))
    assert_allclose(float(module.place.detach()), power_average(path[1:], gamma), rtol=2e-6)


def test_default_gamma():
    path = np.random.default_rng(0).standard_normal(20)
    assert_allclose(float(walk(path, PowerEMA()).place.detach()), power_average(path[1:]), rtol=2e-6)


def test_first_step_copies():
    # the start, at -50, is forgotten
    assert float(walk([-50.0, 2.0], PowerEMA()).place.detach()) == 2


def test_constant_weights_stay():
    module = walk([1.3] * 20, PowerEMA())
    assert float(module.place.detach()) == 1.3
    assert module.constant == torch.tensor(3.7)


def test_gamma_zero_is_the_plain_mean():
    path = np.random.default_rng(0).standard_normal(25)
    assert_allclose(float(walk(path, PowerEMA(0.0)).place.detach()), path[1:].mean(), rtol=2e-6)


def test_validation_sees_the_average():
    # as do those who use the weights later; and training goes on from the current ones
    path = np.random.default_rng(0).standard_normal(12)
    module = walk(path, PowerEMA(), validate=True)
    assert_allclose(module.seen, [power_average(path[1:])], rtol=2e-6)
    assert_allclose(float(module.place.detach()), power_average(path[1:]), rtol=2e-6)


def test_width_is_a_tenth_of_the_run():
    # what the choice of the exponent promises: standard deviation of the profile over the length
    t = np.arange(1.0, 2001)
    variance = power_average(t**2) - power_average(t) ** 2
    assert_allclose(np.sqrt(variance) / t[-1], 0.1, rtol=0.01)


class SnapshotWalk(Walk):
    """The same, for a callback that looks at the network."""

    @property
    def network(self):
        return self


def snapshots(path, folder, callback):
    """Train along the path with snapshots, and return the callback."""
    walk(path, callback, kind=SnapshotWalk, folder=folder)
    return callback


class TestSnapshots:
    path = np.cumsum(np.random.default_rng(0).standard_normal(401))

    @pytest.mark.parametrize("width", [0.05, 0.1])
    def test_width_that_was_kept(self, tmp_path, width):
        snapshots(self.path, tmp_path, EMASnapshots(100))
        weights = average_snapshots(tmp_path / "ema", width)
        assert_allclose(float(weights["place"]), power_average(self.path[1:], exponent(width)), rtol=1e-5)

    @pytest.mark.parametrize("width", [0.03, 0.07, 0.15])
    def test_other_width(self, tmp_path, width):
        snapshots(self.path, tmp_path, EMASnapshots(20))
        weights = average_snapshots(tmp_path / "ema", width)
        error = float(weights["place"]) - power_average(self.path[1:], exponent(width))
        assert abs(error) < 0.05 * self.path.std()

    def test_constant_weights_stay(self, tmp_path):
        snapshots([1.25] * 101, tmp_path, EMASnapshots(10))
        assert_allclose(float(average_snapshots(tmp_path / "ema", 0.08)["place"]), 1.25, rtol=1e-6)

    def test_files(self, tmp_path):
        snapshots(self.path[:36], tmp_path, EMASnapshots(10))
        names = [path.name for path in sorted((tmp_path / "ema").iterdir())]
        assert names == [f"step-{step:07d}.safetensors" for step in (10, 20, 30, 35)]

    def test_state_goes_on(self, tmp_path):
        whole = snapshots(self.path, tmp_path / "whole", EMASnapshots(100))
        first = snapshots(self.path[:201], tmp_path / "parts", EMASnapshots(100))
        second = EMASnapshots(100)
        second.load_state_dict(first.state_dict())
        module = SnapshotWalk(self.path)
        for step in range(201, 401):
            module.place.data.fill_(self.path[step])
            trainer = SimpleNamespace(
                global_step=step, max_steps=400, is_global_zero=True, default_root_dir=tmp_path / "parts"
            )
            for _ in range(2):  # the second call of a step counts for nothing
                second.on_train_batch_end(trainer, module, None, None, 0)
        for width in ("0.05", "0.1"):
            assert_allclose(second.averages[width]["place"], whole.averages[width]["place"], rtol=1e-12)

    def test_another_run_replaces_them(self, tmp_path):
        snapshots(self.path[:41], tmp_path, EMASnapshots(20))
        snapshots(self.path[:11], tmp_path, EMASnapshots(20))
        assert [path.name for path in (tmp_path / "ema").iterdir()] == ["step-0000010.safetensors"]

    def test_twelve_by_default(self, tmp_path):
        snapshots(self.path[:61], tmp_path, EMASnapshots())
        steps = [int(path.stem[5:]) for path in sorted((tmp_path / "ema").iterdir())]
        assert steps == list(range(5, 61, 5))

    def test_run_that_ends_early(self, tmp_path):
        class Stopping(EMASnapshots):
            def on_train_batch_end(self, trainer, *args):
                super().on_train_batch_end(trainer, *args)
                trainer.should_stop = trainer.global_step == 7

        snapshots(self.path[:21], tmp_path, Stopping(5))
        assert [int(path.stem[5:]) for path in sorted((tmp_path / "ema").iterdir())] == [5, 7]

    @pytest.mark.parametrize("number", [2, 4])
    def test_too_few_snapshots(self, tmp_path, number):
        snapshots(self.path, tmp_path, EMASnapshots(400 // number))
        average_snapshots(tmp_path / "ema", 0.1)
        with pytest.raises(ValueError, match=f"width 0.2 cannot be made of the {number} snapshots"):
            average_snapshots(tmp_path / "ema", 0.2)

    def test_no_snapshots(self, tmp_path):
        with pytest.raises(ValueError, match="holds no snapshots; train with the callback EMASnapshots"):
            average_snapshots(tmp_path, 0.1)

    def test_impossible_interval(self):
        with pytest.raises(ValueError, match="every_n_steps must be at least 1, not 0"):
            EMASnapshots(0)


class TestExponent:
    @pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.28])
    def test_width_of_the_profile(self, width):
        gamma = exponent(width)
        t = np.linspace(0, 1, 200_001)
        profile = (gamma + 1) * t**gamma
        mean = np.trapezoid(t * profile, t)
        assert_allclose(np.sqrt(np.trapezoid((t - mean) ** 2 * profile, t)), width, rtol=1e-3)

    def test_exponent_of_the_default(self):
        assert_allclose(exponent(0.1), GAMMA, atol=0.01)

    @pytest.mark.parametrize("width", [0, -0.1, 0.3])
    def test_impossible(self, width):
        with pytest.raises(ValueError, match=r"width must be positive and at most 0\.288"):
            exponent(width)


def test_profile_products():
    times, gammas = [0.5, 1.0], [3.0, 6.0]
    t = np.linspace(0, 1, 100_001)
    profiles = [
        np.where(t <= s, (g + 1) * t**g / s ** (g + 1), 0) for s, g in zip(times, gammas, strict=True)
    ]
    expected = [[np.trapezoid(a * b, t) for b in profiles] for a in profiles]
    assert_allclose(_profile_products(times, gammas, times, gammas), expected, rtol=1e-3)

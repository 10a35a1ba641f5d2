# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the ema module.
"""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.testing import assert_allclose
from torch.utils.data import DataLoader

from astro_ddpm.training import PowerEMA
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


def walk(path, callback, validate=False):
    """Train along the path, whose first element is the start, and return the module."""
    module = Walk(path)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=len(path) - 1,
        callbacks=[callback],
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

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the callbacks module.
"""

import csv
import json
import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from astro_ddpm.evaluation import coverage, crps, spread_skill
from astro_ddpm.nn import RAUNet
from astro_ddpm.training import (
    DDPMModule,
    EnsembleValidation,
    PairDataModule,
    PairDataset,
    PowerEMA,
    RAUNetModule,
    examples,
)
from astro_ddpm.training.tests.helpers import LIGHTNING_WARNINGS, simulated_arrays
from astro_ddpm.zoo import Model

pytestmark = [LIGHTNING_WARNINGS, pytest.mark.slow]

CHANNELS = (4, 6)
WIDTH = math.exp(-1)  # of the scene, as an untrained RAUNet states it
DEPTH = 0.3
FEW = {"n_samples": 3, "steps": 2, "n_images": 2}


@pytest.fixture(autouse=True)
def seeded():
    """Start every test with the same weights, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def flat_images_are_sources(monkeypatch):
    """Leave the level of an image as it is, which for a flat one would be its sky."""
    monkeypatch.setattr(examples, "remaining_sky", np.zeros_like)


def make_module(kind, **options):
    torch.manual_seed(0)
    if kind == "raunet":
        return RAUNetModule(CHANNELS, **options)
    return DDPMModule(RAUNet(CHANNELS), **options)


def known_arrays(n=12, size=32):
    """Make pairs whose residual is Gaussian with the width that an untrained network states."""
    rng = np.random.default_rng(0)
    level = np.array([0.0, 3.0, 15.0, 60.0])[np.arange(n) % 4][:, None, None]
    shallow = np.broadcast_to(level, (n, size, size))
    target = shallow + math.hypot(WIDTH, DEPTH) * rng.standard_normal(shallow.shape)
    arrays = {"shallow": shallow, "sigma": np.ones_like(shallow), "target": target}
    arrays["depth"] = np.full(n, DEPTH)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def make_trainer(folder, callbacks, *, logger=True, sanity=0, **options):
    return pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, name=None, version="") if logger else False,
        default_root_dir=folder,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=sanity,
        log_every_n_steps=1,
        **options,
    )


def validate(folder, module, callback, arrays=None, batch_size=5):
    """Validate and return what was logged and the record that was written."""
    data = PairDataset(arrays or known_arrays(), augment=False)
    trainer = make_trainer(folder, [callback])
    trainer.validate(module, DataLoader(data, batch_size), verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return metrics, json.loads((folder / "ensembles" / "step-0000000.json").read_text())


@pytest.fixture
def pairs(tmp_path):
    paths = [tmp_path / "train.npz", tmp_path / "val.npz"]
    for seed, path in enumerate(paths):
        np.savez(path, **simulated_arrays(4, size=16, seed=seed))
    return PairDataModule(*map(str, paths), batch_size=2, epoch_steps=2)


def fit(folder, module, pairs, callbacks, **options):
    trainer = make_trainer(folder, callbacks, **({"max_epochs": 2} | options))
    trainer.fit(module, pairs)
    return trainer


class TestKnownTruth:
    @pytest.mark.parametrize("kind", ["raunet", "ddpm"])
    def test_honest_networks_get_what_is_due(self, tmp_path, kind):
        # data as an untrained network predicts them: the fair CRPS of a Gaussian of the width s is
        # s / sqrt(pi), its intervals cover what they promise
        callback = EnsembleValidation(n_samples=8, steps=20, n_images=12, picture=False)
        metrics, record = validate(tmp_path, make_module(kind), callback)
        expected = math.hypot(WIDTH, DEPTH) / math.sqrt(math.pi)
        assert_allclose(metrics["val_crps"], expected, rtol=0.02)
        for name in ("sky", "lsb", "mid", "hi"):
            assert record["bins"][name]["n"] == 3 * 32**2
            assert_allclose(metrics[f"val_crps_{name}"], expected, rtol=0.05)
            assert_allclose(metrics[f"val_spread_skill_{name}"], 1, atol=0.05)
            assert_allclose(metrics[f"val_coverage68_{name}"], 0.68, atol=4 * 0.0085)
            assert_allclose(metrics[f"val_coverage95_{name}"], 0.95, atol=4 * 0.004)
            ranks = np.array(record["bins"][name]["ranks"])
            assert_allclose(ranks, 3 * 32**2 / 9, atol=4.5 * math.sqrt(3 * 32**2 / 9))

    def test_width_too_small_is_seen(self, tmp_path):
        module = make_module("raunet")
        with torch.no_grad():
            module.network.std_head[2].bias -= 3
        metrics, _ = validate(tmp_path, module, EnsembleValidation(picture=False))
        total = math.hypot(WIDTH * math.exp(-3), DEPTH)
        ratio = total / math.hypot(WIDTH, DEPTH)
        assert_allclose(metrics["val_spread_skill_sky"], ratio, rtol=0.05)
        erf = math.erf(ratio * 0.9944579 / math.sqrt(2))  # 68 % of a Gaussian lie within 0.9944579 sigma
        assert_allclose(metrics["val_coverage68_sky"], erf, atol=4 * 0.0085)

    def test_samples_are_those_of_the_model(self, tmp_path):
        # by the public functions, from the samples that a zoo model draws
        module = make_module("ddpm")
        with torch.no_grad():
            for parameter in module.network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        metrics, record = validate(tmp_path, module, EnsembleValidation(**FEW, seed=5, picture=False))
        model, draws, truths = Model(module.raunet, module.network), [], []
        for i in range(2):
            example = PairDataset(known_arrays(), augment=False)[i]
            planes = [torch.from_numpy(example[name])[None] for name in ("z", "valid")]
            noise = np.random.default_rng([5, i]).standard_normal((3, 1, 32, 32), dtype="f4")
            noise = torch.from_numpy(noise)
            draw = model.draw(*planes, model.estimate(*planes), DEPTH, noise, 2)
            draws.append(draw[:, 0].numpy())
            truths.append(example["residual"][0])
        for i, name in enumerate(["sky", "lsb"]):
            assert_allclose(metrics[f"val_crps_{name}"], crps(draws[i], truths[i]).mean(), rtol=1e-5)
            assert_allclose(metrics[f"val_spread_skill_{name}"], spread_skill(draws[i], truths[i]), rtol=1e-5)
            fraction, error = coverage(draws[i], truths[i])
            assert_allclose(record["bins"][name]["coverage"], fraction, atol=4 * error.max())
        assert np.isnan(metrics["val_crps_hi"])
        assert record["bins"]["hi"]["crps"] is None


class TestTraining:
    @pytest.mark.parametrize("kind", ["raunet", "ddpm"])
    @pytest.mark.parametrize("average", [False, True])
    def test_weights_are_the_same_to_the_last_bit(self, tmp_path, pairs, kind, average):
        weights, states = [], []
        for callbacks in ([], [EnsembleValidation(**FEW, picture=False)]):
            module = make_module(kind, dropout=0.3)
            numbers = np.random.get_state()[1].copy()  # noqa: NPY002
            callbacks += [PowerEMA()] if average else []
            fit(tmp_path, module, pairs, callbacks)
            assert module.training
            assert all(p.requires_grad for p in module.network.parameters())
            weights.append({name: value.clone() for name, value in module.state_dict().items()})
            states.append(torch.get_rng_state())
            assert_array_equal(np.random.get_state()[1], numbers)  # noqa: NPY002
        assert len(list(tmp_path.glob("ensembles/*.json"))) == 2
        start = make_module(kind).state_dict()
        assert any(not torch.equal(value, start[name]) for name, value in weights[0].items())
        for name, value in weights[0].items():
            assert torch.equal(value, weights[1][name])
        assert torch.equal(*states)

    @pytest.mark.parametrize("average_first", [True, False])
    def test_judges_the_average(self, tmp_path, pairs, average_first):
        # which is what is left in the module after the last step, when validation ends the run
        callbacks = [PowerEMA(), EnsembleValidation(n_images=4, picture=False)]
        module = make_module("raunet", learning_rate=0.1, warmup_steps=1)
        trainer = fit(tmp_path, module, pairs, callbacks if average_first else callbacks[::-1])
        model, scores = Model(module.network), []
        data = PairDataset(pairs.validation, augment=False)
        for example in (data[i] for i in range(len(data))):
            planes = [torch.from_numpy(example[name])[None] for name in ("z", "valid")]
            mean, std = (plane.numpy() for plane in model.estimate(*planes))
            std = np.hypot(std, example["depth"])
            w = (example["residual"] - mean) / std
            cdf = torch.special.ndtr(torch.from_numpy(w)).numpy()
            pdf = np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi)
            scores.append(std * (w * (2 * cdf - 1) + 2 * pdf - 1 / np.sqrt(np.pi)))
        assert_allclose(float(trainer.callback_metrics["val_crps"]), np.mean(scores), rtol=1e-4)

    def test_early_stopping(self, tmp_path, pairs):
        # a network that does not change does not improve
        stop = EarlyStopping("val_crps", patience=2)
        trainer = fit(
            tmp_path,
            make_module("raunet", learning_rate=0.0),
            pairs,
            [EnsembleValidation(**FEW, picture=False), stop],
            max_epochs=9,
        )
        assert stop.stopped_epoch == 2
        assert trainer.current_epoch == 3

    def test_early_stopping_waits_while_it_improves(self, tmp_path, pairs, monkeypatch):
        values = iter([5.0, 4.0, 3.0, 2.0, 1.0, 1.5, 1.5, 1.5, 1.5])
        scores = EnsembleValidation._scores

        def falling(callback):
            total, bins = scores(callback)
            return total | {"crps": next(values)}, bins

        monkeypatch.setattr(EnsembleValidation, "_scores", falling)
        stop = EarlyStopping("val_crps", patience=2)
        callbacks = [EnsembleValidation(**FEW, picture=False), stop]
        fit(tmp_path, make_module("raunet"), pairs, callbacks, max_epochs=9)
        assert stop.stopped_epoch == 6
        assert stop.best_score == 1

    def test_every_n_epochs(self, tmp_path, pairs):
        # early stopping finds its metric in all epochs; patience counts those without samples, too
        stop = EarlyStopping("val_crps", patience=4)
        callbacks = [EnsembleValidation(**FEW, every_n_epochs=3, picture=False), stop]
        fit(tmp_path, make_module("raunet", learning_rate=0.0), pairs, callbacks, max_epochs=9)
        assert stop.stopped_epoch == 4
        files = sorted(tmp_path.glob("ensembles/*.json"))
        assert [json.loads(file.read_text())["epoch"] for file in files] == [0, 3]
        with (tmp_path / "metrics.csv").open() as file:
            logged = [row["val_crps"] for row in csv.DictReader(file)]
        assert len([value for value in logged if value]) == 2

    def test_sparse_validation(self, tmp_path, pairs):
        callbacks = [EnsembleValidation(**FEW, every_n_epochs=2, picture=False)]
        fit(tmp_path, make_module("raunet"), pairs, callbacks, max_epochs=6, check_val_every_n_epoch=3)
        files = sorted(tmp_path.glob("ensembles/*.json"))
        assert [json.loads(file.read_text())["epoch"] for file in files] == [2, 5]

    def test_not_before_training(self, tmp_path, pairs):
        callback = EnsembleValidation(**FEW, picture=False)
        fit(tmp_path, make_module("raunet"), pairs, [callback], sanity=1, max_epochs=1)
        assert [file.name for file in tmp_path.glob("ensembles/*")] == ["step-0000002.json"]


class TestFiles:
    def test_record(self, tmp_path):
        _, record = validate(tmp_path, make_module("raunet"), EnsembleValidation(n_images=3, picture=False))
        assert record["n_images"] == 3
        assert record["levels"] == [0.68, 0.95]
        assert list(record["bins"]) == ["sky", "lsb", "mid", "hi"]
        for scores in record["bins"].values():
            assert len(scores["ranks"]) == 9
            assert sum(scores["ranks"]) == scores["n"]
        assert record["all"]["n"] == 3 * 32**2

    @pytest.mark.parametrize("kind", ["raunet", "ddpm"])
    def test_independent_of_batches(self, tmp_path, kind):
        callback = EnsembleValidation(n_samples=2, steps=2, n_images=7, picture=False)
        first, second = (
            validate(tmp_path / str(size), make_module(kind), callback, batch_size=size)[1]
            for size in (2, 12)
        )
        assert first["bins"]["sky"]["ranks"] == second["bins"]["sky"]["ranks"]
        assert_allclose(first["all"]["crps"], second["all"]["crps"], rtol=1e-6)

    def test_seed(self, tmp_path):
        records = [
            validate(
                tmp_path / str(i), make_module("ddpm"), EnsembleValidation(**FEW, seed=s, picture=False)
            )[1]
            for i, s in enumerate([0, 0, 1])
        ]
        assert records[0] == records[1]
        assert records[0]["all"]["crps"] != records[2]["all"]["crps"]

    @pytest.mark.parametrize(("kind", "n_panels"), [("raunet", 5), ("ddpm", 8)])
    def test_picture(self, tmp_path, kind, n_panels):
        from matplotlib.image import imread

        (tmp_path / "ensembles").mkdir()
        path = tmp_path / "ensembles" / "step-0000000.png"
        path.write_text("of a run before")
        validate(tmp_path, make_module(kind), EnsembleValidation(**(FEW | {"n_images": 4})))
        picture = imread(path)
        assert picture.shape[1] == pytest.approx(170 * n_panels, abs=1)
        assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 100
        assert sorted(file.name for file in path.parent.iterdir()) == ["step-0000000.json", path.name]

    def test_picture_without_matplotlib(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with caplog.at_level(logging.WARNING, "astro_ddpm"):
            validate(tmp_path, make_module("raunet"), EnsembleValidation(**FEW))
        assert "no picture of the validation images" in caplog.text
        assert [file.suffix for file in tmp_path.glob("ensembles/*")] == [".json"]

    def test_without_logger(self, tmp_path, pairs):
        callback = EnsembleValidation(**FEW, picture=False)
        trainer = fit(tmp_path, make_module("raunet"), pairs, [callback], logger=False, max_epochs=1)
        assert math.isfinite(trainer.callback_metrics["val_crps"])
        assert (tmp_path / "ensembles" / "step-0000002.json").is_file()

    def test_a_network_that_diverged(self, tmp_path):
        module = make_module("raunet")
        with torch.no_grad():
            module.network.mean_head[2].bias.fill_(math.nan)
        metrics, record = validate(tmp_path, module, EnsembleValidation(**FEW))
        assert math.isnan(metrics["val_crps"])
        assert record["all"]["crps"] is None


class TestErrors:
    @pytest.mark.parametrize("name", ["n_samples", "steps", "n_images", "every_n_epochs"])
    def test_numbers(self, name):
        with pytest.raises(ValueError, match=f"{name} must be at least [12], not 0"):
            EnsembleValidation(**{name: 0})

    def test_module(self):
        with pytest.raises(TypeError, match="needs a TrainingModule, not LightningModule"):
            EnsembleValidation().setup(None, pl.LightningModule(), "fit")


def test_needs_no_images():
    code = "import sys; from astro_ddpm.training import EnsembleValidation, residual_gap;"
    code += "print(*{'astropy.nddata', 'astropy.io.fits', 'photutils'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""

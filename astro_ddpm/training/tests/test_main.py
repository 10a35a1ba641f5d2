# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for training from the shell.
"""

import contextlib
import errno
import gc
import re

import numpy as np
import pytest
import torch
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from pytorch_lightning.utilities.seed import isolate_rng

from astro_ddpm import zoo
from astro_ddpm.training import DDPMModule, RAUNetModule
from astro_ddpm.training.__main__ import main
from astro_ddpm.training.tests.helpers import LIGHTNING_WARNINGS, simulated_arrays

pytestmark = LIGHTNING_WARNINGS

STEPS = 6  # an epoch has 4


@pytest.fixture(scope="module", autouse=True)
def undo():
    """Put back the global generators and the environment that seeding by Lightning changes."""
    with isolate_rng(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "0")
        patch.setenv("PL_SEED_WORKERS", "0")
        yield
        gc.collect()  # the progress bars of interrupted trainings say their last word now, not at the end


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    np.savez(folder / "train.npz", **simulated_arrays(8, size=32))
    np.savez(folder / "validation.npz", **simulated_arrays(4, size=32, seed=1))
    return folder


def fit(folder, kind, name, *, runs="runs", steps=STEPS, extra=()):
    """Fit a tiny network and return the model that was saved."""
    output = folder / f"{name}.safetensors"
    options = ["--steps", steps, "--batch-size", 8, "--learning-rate", 0.01, "--dropout", 0]
    options += ["--device", "cpu", "--folder", folder / runs, *extra]
    data = [folder / "train.npz", folder / "validation.npz"]
    main([str(a) for a in (kind, *data, output, *options)])
    return zoo.load(output)


SMALL = ("--channels", 4, 6)


@pytest.fixture(scope="module")
def raunet(folder):
    return fit(folder, "raunet", "raunet", extra=SMALL)


@pytest.fixture(scope="module")
def ddpm(folder, raunet):
    return fit(folder, "ddpm", "ddpm", extra=("--raunet", folder / "raunet.safetensors"))


def assert_equal_weights(one, two):
    one, two = one.state_dict(), two.state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert_array_equal(one[name], two[name], err_msg=name)


class TestFit:
    def test_raunet(self, raunet):
        assert raunet.kind == "raunet"
        assert raunet.raunet.config == {"channels": [4, 6], "dropout": 0.0}
        assert raunet.raunet.mean_head[2].weight.any()  # zero at the start
        assert all(torch.isfinite(p).all() for p in raunet.raunet.parameters())

    def test_ddpm(self, ddpm):
        assert ddpm.kind == "ddpm"
        assert ddpm.network.config["channels"] == [4, 6]
        assert ddpm.network.head[2].weight.any()

    def test_ddpm_leaves_the_raunet_as_it_was(self, raunet, ddpm):
        assert_equal_weights(raunet.raunet, ddpm.raunet)

    def test_history(self, folder, raunet, ddpm):
        depth = simulated_arrays(8, size=32)["depth"]
        for model in (raunet, ddpm):
            assert model.training["steps"] == STEPS
            assert model.training["seed"] == 0
            assert model.training["batch_size"] == 8
            assert model.training["pairs"] == 8
            low, high = model.ranges["depth"]
            assert low < depth.min() < depth.max() < high
            assert abs(model.ranges["default_depth"] - np.median(depth)) < 1e-3

    def test_logs(self, folder, raunet, ddpm):
        for kind, name in (("raunet", "val_mse_sky"), ("ddpm", "val_loss")):
            header = (folder / "runs" / kind / "metrics.csv").read_text().splitlines()[0]
            assert name in header.split(",")

    def test_output(self, folder, capsys):
        model = fit(folder, "raunet", "told", runs="told", steps=1, extra=SMALL)
        out = capsys.readouterr().out
        assert f"{folder / 'told.safetensors'} {model.sha256}" in out
        assert not list(folder.glob(".*"))

    def test_same_seed_same_weights(self, folder, raunet):
        again = fit(folder, "raunet", "again", runs="again", extra=SMALL)
        assert_equal_weights(again.raunet, raunet.raunet)
        assert again.sha256 == raunet.sha256

    def test_other_seed_other_weights(self, folder, raunet):
        # in the folder of a finished run, which is not continued
        other = fit(folder, "raunet", "other", extra=(*SMALL, "--seed", 1))
        assert other.training["seed"] == 1
        assert other.sha256 != raunet.sha256
        fresh = fit(folder, "raunet", "fresh", runs="fresh", extra=(*SMALL, "--seed", 1))
        assert_equal_weights(other.raunet, fresh.raunet)


class TestStart:
    def test_from_given_weights(self, folder, raunet):
        # the learning rate of the first step is almost zero, and so is what it changes
        extra = (*SMALL, "--learning-rate", 1e-9)
        new = fit(folder, "raunet", "new", runs="new", steps=1, extra=extra)
        start = ("--start", folder / "raunet.safetensors")
        started = fit(folder, "raunet", "started", runs="started", steps=1, extra=(*extra, *start))
        for name, weight in started.raunet.state_dict().items():
            assert_allclose(weight, raunet.raunet.state_dict()[name], rtol=1e-6, atol=1e-8)
        assert not new.raunet.mean_head[2].weight.abs().max() > 1e-6

    def test_weighting_is_recorded(self, folder, raunet):
        extra = (*SMALL, "--weighting", 0.1)
        other = fit(folder, "raunet", "weighted", runs="weighted", extra=extra)
        assert raunet.training["weighting"] == 0.5
        assert other.training["weighting"] == 0.1
        assert other.sha256 != raunet.sha256


class PowerCutError(Exception):
    """The power went."""


def fit_until(step, monkeypatch, folder, kind, *args, **options):
    """Break off a training after some steps."""
    module = {"raunet": RAUNetModule, "ddpm": DDPMModule}[kind]
    original = module.training_step

    def training_step(self, batch, batch_index):
        if self.trainer.global_step == step:
            raise PowerCutError
        return original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(module, "training_step", training_step)
        with pytest.raises(PowerCutError):
            fit(folder, kind, *args, **options)


class TestResume:
    @pytest.mark.parametrize("steps", [6, 8])
    def test_raunet_continues_where_it_stopped(self, folder, monkeypatch, steps):
        whole = fit(folder, "raunet", f"whole{steps}", runs=f"w{steps}", steps=steps, extra=SMALL)
        name, runs = f"broken{steps}", f"b{steps}"
        fit_until(5, monkeypatch, folder, "raunet", name, runs=runs, steps=steps, extra=SMALL)
        assert not (folder / f"{name}.safetensors").exists()
        assert (folder / runs / "raunet" / "last.ckpt").exists()
        seen = []
        original = RAUNetModule.training_step

        def training_step(self, batch, batch_index):
            seen.append(self.trainer.global_step)
            return original(self, batch, batch_index)

        monkeypatch.setattr(RAUNetModule, "training_step", training_step)
        resumed = fit(folder, "raunet", name, runs=runs, steps=steps, extra=SMALL)
        assert seen == list(range(4, steps))  # from the end of the first epoch
        assert resumed.training["steps"] == steps
        assert_equal_weights(resumed.raunet, whole.raunet)

    def test_ddpm_continues_where_it_stopped(self, folder, raunet, monkeypatch):
        options = {"runs": "ddpm", "extra": ("--raunet", folder / "raunet.safetensors")}
        fit_until(5, monkeypatch, folder, "ddpm", "resumed", **options)
        resumed = fit(folder, "ddpm", "resumed", **options)
        assert resumed.training["steps"] == STEPS
        assert_equal_weights(resumed.raunet, raunet.raunet)
        assert not (folder / "ddpm" / "ddpm" / "last.ckpt").exists()

    def test_run_that_could_not_be_saved(self, folder, raunet, monkeypatch):
        # all steps are done: what is left is to save the average of the weights, not the last ones
        def full_disk(*args, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(zoo, "save", full_disk)
            with pytest.raises(OSError, match="No space"):
                fit(folder, "raunet", "late", runs="late", extra=SMALL)
        late = fit(folder, "raunet", "late", runs="late", extra=SMALL)
        assert_equal_weights(late.raunet, raunet.raunet)


class TestErrors:
    def test_refuses_to_overwrite(self, folder, raunet):
        before = (folder / "raunet.safetensors").read_bytes()
        with pytest.raises(FileExistsError, match=r"raunet\.safetensors exists; use --overwrite"):
            fit(folder, "raunet", "raunet", runs="unused", extra=SMALL)
        assert (folder / "raunet.safetensors").read_bytes() == before
        assert not (folder / "unused").exists()

    def test_overwrites_when_told(self, folder, tmp_path):
        (folder / "replaced.safetensors").write_text("old")
        model = fit(folder, "raunet", "replaced", runs="replaced", steps=1, extra=(*SMALL, "--overwrite"))
        assert model.kind == "raunet"

    def test_too_few_pairs(self, folder):
        with pytest.raises(ValueError, match="batch_size 64 exceeds the 32 examples"):
            fit(folder, "raunet", "never", runs="never", extra=(*SMALL, "--batch-size", 64))
        assert not (folder / "never.safetensors").exists()

    @pytest.mark.parametrize("args", [[], ["unknown"], ["raunet"], ["ddpm", "a", "b", "c"]])
    def test_usage(self, args, capsys):
        with pytest.raises(SystemExit) as error:
            main(args)
        assert error.value.code == 2
        assert "usage: python -m astro_ddpm.training" in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["prepare", "raunet", "ddpm"])
    def test_help(self, command, capsys):
        with pytest.raises(SystemExit) as error:
            main([command, "--help"])
        assert error.value.code == 0
        assert "output" in capsys.readouterr().out


class TestPrepare:
    def write(self, folder, n=2):
        arrays = simulated_arrays(n, size=64, flux=300)
        lines = ["shallow,deep"]
        for i in range(n):
            for name in ("shallow", "deep"):
                fits.writeto(folder / f"{name}{i}.fits", arrays[name][i].astype(">f4"))
            lines.append(f"shallow{i}.fits,deep{i}.fits")
        (folder / "pairs.csv").write_text("\n".join(lines) + "\n")

    def test_counts(self, tmp_path, capsys):
        self.write(tmp_path)
        output = tmp_path / "pairs.npz"
        main(["prepare", str(tmp_path / "pairs.csv"), str(output), "--gain", "20"])
        out = capsys.readouterr().out
        assert re.search(rf"2 pairs written to {re.escape(str(output))}, 0 left out", out)
        with np.load(output) as arrays:
            assert len(arrays["shallow"]) == 2
            # a gain of 20 electron per unit of flux: variance 0.05 per unit, as simulated
            bright = arrays["target"] > 100
            expected = np.sqrt(1 + 0.05 * arrays["target"][bright])
            assert_allclose(arrays["sigma"][bright], expected, rtol=0.15)

    def test_without_gain_the_noise_is_that_of_the_sky(self, tmp_path):
        self.write(tmp_path)
        with contextlib.suppress(ValueError):  # pairs that differ by more than that are left out
            main(["prepare", str(tmp_path / "pairs.csv"), str(tmp_path / "pairs.npz")])
            with np.load(tmp_path / "pairs.npz") as arrays:
                assert (np.ptp(arrays["sigma"], axis=(1, 2)) == 0).all()

    def test_overwrite(self, tmp_path):
        self.write(tmp_path)
        args = ["prepare", str(tmp_path / "pairs.csv"), str(tmp_path / "pairs.npz"), "--gain", "20"]
        main(args)
        with pytest.raises(FileExistsError, match="set overwrite"):
            main(args)
        main([*args, "--overwrite"])

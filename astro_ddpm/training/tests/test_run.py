# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for training runs, through the command line.
"""

import csv
import errno
import gc
import re
import signal
import subprocess
import sys
from itertools import chain, repeat
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.seed import isolate_rng

from astro_ddpm import enhance, zoo
from astro_ddpm.cli import main
from astro_ddpm.domain import OutOfDomainWarning
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.tests.helpers import make_image
from astro_ddpm.training import CRPSModule, DDPMModule, PairDataModule, RAUNetModule, train
from astro_ddpm.training.run import HOME, check_precision, find_config
from astro_ddpm.training.tests.helpers import (
    LIGHTNING_WARNINGS,
    deep_arrays,
    frame_arrays,
    simulated_arrays,
)

pytestmark = [LIGHTNING_WARNINGS, pytest.mark.slow]

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


def options(folder, kind, name, runs="runs", steps=STEPS, extra=()):
    """Return the command line of a short training, after ``astro-ddpm``."""
    line = ["train", f"smoke_{kind}", "--output", folder / f"{name}.safetensors"]
    line += ["--data.train", folder / "train.npz", "--data.validation", folder / "validation.npz"]
    line += ["--trainer.max_steps", steps, "--trainer.default_root_dir", folder / runs]
    line += ["--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1"]
    if kind == "ddpm":
        line += ["--model.raunet", folder / "raunet.safetensors"]
    return [str(item) for item in (*line, *extra)]


def fit(*args, **settings):
    """Train a tiny network and return the model that was saved."""
    _, config, *rest = options(*args, **settings)
    return zoo.load(train(config, rest))


@pytest.fixture(scope="module")
def raunet(folder):
    return fit(folder, "raunet", "raunet")


@pytest.fixture(scope="module")
def ddpm(folder, raunet):
    return fit(folder, "ddpm", "ddpm", runs="runs_ddpm")


@pytest.fixture(scope="module")
def mixed(folder):
    """Write all kinds of arrays and return the options that mix them."""
    np.savez(folder / "deep.npz", **deep_arrays(3, size=40))
    np.savez(folder / "frames.npz", **frame_arrays(3, size=40))
    plain = {name: plane for name, plane in simulated_arrays(3).items() if not name.startswith("deep")}
    np.savez(folder / "plain.npz", **plain)
    extra = ["--data.train", "{train.npz: 2, deep.npz: 1, frames.npz: 1, plain.npz: 1}"]
    extra += ["--data.folder", folder, "--data.scene_share", "0.3", "--data.frame_split", "[1.5, 10]"]
    return [*extra, "--data.size", "{16: 0.5, 32: 0.5}"]


def read_log(folder, name):
    """Return all values of a column of the newest log."""
    newest = max(folder.glob("version_*"), key=lambda path: int(path.name.split("_")[1]))
    with (newest / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def assert_equal_weights(one, two):
    one, two = one.state_dict(), two.state_dict()
    assert one.keys() == two.keys()
    for name in one:
        assert_array_equal(one[name], two[name], err_msg=name)


class TestFit:
    def test_raunet(self, raunet):
        assert raunet.kind == "raunet"
        assert raunet.regressor.config == {"channels": [4, 6], "dropout": 0.1, "patch": 1}
        assert raunet.regressor.mean_head[2].weight.any()  # zero at the start
        assert all(torch.isfinite(p).all() for p in raunet.regressor.parameters())

    def test_ddpm(self, ddpm):
        assert ddpm.kind == "ddpm"
        assert ddpm.denoiser.config["channels"] == [4, 6]
        assert ddpm.denoiser.head[2].weight.any()

    def test_ddpm_leaves_the_raunet_as_it_was(self, raunet, ddpm):
        assert_equal_weights(raunet.regressor, ddpm.regressor)

    def test_model_can_be_used(self, folder, ddpm):
        # the model knows what it was trained for
        with pytest.warns(OutOfDomainWarning, match=r"peak S/N \d+ \(0 to \d"):
            enhanced = enhance(make_image(), model=folder / "ddpm.safetensors", n_samples=2, steps=2, seed=0)
        assert enhanced.samples.shape == (2, *make_image().shape)
        assert np.isfinite(enhanced.samples).all()
        assert enhanced.meta["DDPMMODL"] == "ddpm"

    def test_history(self, folder, raunet, ddpm):
        depth = simulated_arrays(8, size=32)["depth"]
        for model in (raunet, ddpm):
            assert model.training["steps"] == STEPS
            assert model.training["seed"] == 0
            assert model.training["batch_size"] == 8
            assert model.training["pairs"] == 8
            assert model.training["learning_rate"] == 0.01
            assert str(folder) not in str(model.training)
            low, high = model.ranges["noise_ratio"]
            assert low < depth.min() < depth.max() < high
            assert abs(model.ranges["default_noise_ratio"] - np.median(depth)) < 1e-3
            assert model.ranges["peak_snr"][1] < 50

    def test_logs(self, folder, raunet, ddpm):
        for runs, name in (("runs", "val_mse_sky"), ("runs_ddpm", "val_loss")):
            assert len(read_log(folder / runs, name)) == 1  # after the one whole epoch
            rates = read_log(folder / runs, "lr-AdamW")
            assert len(rates) == STEPS
            assert rates[0] == 0.01 / 5  # of a warm-up of 5 steps
            assert rates[-1] == min(rates)

    def test_settings_are_kept_and_repeat_the_run(self, folder, raunet):
        settings = folder / "runs" / "version_0" / "config.yaml"
        output = folder / "repeated.safetensors"
        train(settings, ["--output", output, "--trainer.default_root_dir", folder / "repeated"])
        assert_equal_weights(zoo.load(output).regressor, raunet.regressor)
        assert zoo.load(output).sha256 == raunet.sha256

    def test_other_seed_other_weights(self, folder, raunet):
        # in the folder of a finished run, which is not continued
        other = fit(folder, "raunet", "other", extra=("--seed_everything", "1"))
        assert other.training["seed"] == 1
        assert other.sha256 != raunet.sha256
        fresh = fit(folder, "raunet", "fresh", runs="fresh", extra=("--seed_everything", "1"))
        assert_equal_weights(other.regressor, fresh.regressor)

    def test_accumulated_batches_draw_anew(self, folder, raunet, monkeypatch):
        drawn = []
        loss = DDPMModule.loss
        monkeypatch.setattr(
            DDPMModule, "loss", lambda *args: drawn.append(torch.get_rng_state().sum()) or loss(*args)
        )
        extra = ["--trainer.accumulate_grad_batches", "2", "--trainer.limit_val_batches", "0"]
        main(options(folder, "ddpm", "gathered", runs="gathered", steps=2, extra=extra))
        assert len(drawn) == len(set(map(int, drawn))) == 4

    def test_trial_of_lightning(self, folder):
        extra = ["--trainer.fast_dev_run", "true"]
        (folder / "trial" / "ema").mkdir(parents=True)
        kept = [folder / "trial" / name for name in ("last.ckpt", "ema/step-0000001.safetensors")]
        for path in kept:
            path.write_text("of a real run")
        assert main(options(folder, "raunet", "trial", runs="trial", extra=extra)) == 0
        assert (folder / "trial.safetensors").exists()
        assert [path.read_text() for path in kept] == 2 * ["of a real run"]

    def test_weighting_is_recorded(self, folder, raunet):
        other = fit(folder, "raunet", "weighted", runs="weighted", extra=("--model.weighting", "0.1"))
        assert raunet.training["weighting"] == 0.5
        assert other.training["weighting"] == 0.1
        assert other.sha256 != raunet.sha256

    def test_memory_of_the_average(self, folder, raunet):
        other = fit(folder, "raunet", "plain", runs="plain", extra=("--ema.gamma", "0"))
        assert other.sha256 != raunet.sha256

    @pytest.fixture
    def compiled(self, monkeypatch):
        """Collect the networks that are compiled, by the backend that needs no compiler."""
        compiled = []

        def compile_network(self, **options):
            compiled.append(type(self))
            torch.nn.Module.compile(self, backend="eager")

        for network in (RAUNet, GuidedUNet):
            monkeypatch.setattr(network, "compile", compile_network)
        yield compiled
        torch.compiler.reset()

    def test_compiled(self, folder, raunet, compiled):
        model = fit(folder, "raunet", "compiled", runs="compiled", extra=("--compile", "true"))
        assert compiled == [RAUNet]
        for name, weight in model.regressor.state_dict().items():
            assert_allclose(weight, raunet.regressor.state_dict()[name], rtol=1e-4, atol=1e-6)

    def test_compiled_with_its_guide(self, folder, ddpm, compiled):
        model = fit(folder, "ddpm", "compiled_ddpm", runs="compiled_ddpm", extra=("--compile", "true"))
        assert set(compiled) == {RAUNet, GuidedUNet}
        for name, weight in model.denoiser.state_dict().items():
            assert_allclose(weight, ddpm.denoiser.state_dict()[name], rtol=1e-3, atol=1e-5)


class TestStart:
    def test_from_given_weights(self, folder, raunet):
        # the learning rate is almost zero, and so is what it changes
        extra = ("--model.learning_rate", "1e-9", "--model.start", str(folder / "raunet.safetensors"))
        started = fit(folder, "raunet", "started", runs="started", steps=1, extra=extra)
        for name, weight in started.regressor.state_dict().items():
            assert_allclose(weight, raunet.regressor.state_dict()[name], rtol=1e-6, atol=1e-8)

    def test_other_channels(self, folder, raunet):
        extra = ("--model.channels", "[4, 8]", "--model.start", str(folder / "raunet.safetensors"))
        with pytest.raises(ValueError, match=r"start .* has channels \[4, 6\], not \[4, 8\]"):
            fit(folder, "raunet", "never", runs="never", extra=extra)

    def test_other_patches(self, folder, raunet):
        extra = ("--model.patch", "2", "--model.start", str(folder / "raunet.safetensors"))
        with pytest.raises(ValueError, match=r"start .* has patch 1, not 2"):
            fit(folder, "raunet", "never", runs="never", extra=extra)

    def test_given_model_is_not_changed(self, folder, raunet):
        module = DDPMModule(str(folder / "raunet.safetensors"))
        assert module.raunet is not raunet.regressor
        state = torch.get_rng_state()
        RAUNetModule((4, 6), start=str(folder / "raunet.safetensors")).network.mean_head[2].weight.data += 1
        assert_equal_weights(module.raunet, raunet.regressor)
        torch.set_rng_state(state)


class PowerCutError(Exception):
    """The power went."""


def fit_until(step, monkeypatch, *args, error=PowerCutError, module=RAUNetModule, **settings):
    """Break off a training after some steps."""
    original = module.training_step

    def training_step(self, batch, batch_index):
        if self.trainer.global_step == step:
            raise error
        return original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(module, "training_step", training_step)
        with pytest.raises(error):
            fit(*args, **settings)


KILLED = """
import os, signal, sys
import torch
from astro_ddpm.cli import main
from astro_ddpm.training import DDPMModule

torch.set_num_threads(int(sys.argv.pop(1)))
original = DDPMModule.training_step

def training_step(self, batch, batch_index):
    if self.trainer.global_step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, batch_index)

DDPMModule.training_step = training_step
sys.exit(main(sys.argv[1:]))
"""


class TestResume:
    @pytest.mark.parametrize("steps", [6, 8])
    def test_continues_where_it_stopped(self, folder, monkeypatch, steps):
        whole = fit(folder, "raunet", f"whole{steps}", runs=f"w{steps}", steps=steps)
        name, runs = f"broken{steps}", f"b{steps}"
        fit_until(5, monkeypatch, folder, "raunet", name, runs=runs, steps=steps)
        assert not (folder / f"{name}.safetensors").exists()
        assert (folder / runs / "last.ckpt").exists()
        seen = []
        original = RAUNetModule.training_step

        def training_step(self, batch, batch_index):
            seen.append(self.trainer.global_step)
            return original(self, batch, batch_index)

        monkeypatch.setattr(RAUNetModule, "training_step", training_step)
        resumed = fit(folder, "raunet", name, runs=runs, steps=steps)
        assert seen == list(range(4, steps))  # from the end of the first epoch
        assert resumed.training["steps"] == steps
        assert_equal_weights(resumed.regressor, whole.regressor)

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system that can kill")
    def test_killed_and_resumed_is_as_if_never_killed(self, folder, raunet):
        # with everything that is random: noise levels, noise and dropout
        whole = fit(folder, "ddpm", "whole", runs="whole", steps=16)
        line = options(folder, "ddpm", "killed", runs="killed", steps=16)
        threads = str(torch.get_num_threads())
        command = [sys.executable, "-c", KILLED, threads, *line]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
        assert (folder / "killed" / "last.ckpt").exists()
        assert not (folder / "killed.safetensors").exists()
        resumed = fit(folder, "ddpm", "killed", runs="killed", steps=16)
        assert_equal_weights(resumed.denoiser, whole.denoiser)
        losses = [read_log(folder / runs, "val_loss") for runs in ("whole", "killed")]
        assert len(losses[0]) == 4
        assert losses[1] == losses[0][2:]
        assert not (folder / "killed" / "last.ckpt").exists()

    def test_run_that_could_not_be_saved(self, folder, raunet, monkeypatch):
        # all steps are done: what is left is to save the average of the weights, not the last ones
        def full_disk(*args, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(zoo, "save", full_disk)
            with pytest.raises(OSError, match="No space"):
                fit(folder, "raunet", "late", runs="late")
        late = fit(folder, "raunet", "late", runs="late")
        assert_equal_weights(late.regressor, raunet.regressor)

    def test_interrupted_by_hand_and_continued_with_other_settings(self, folder, monkeypatch):
        handler = signal.getsignal(signal.SIGINT)
        fit_until(5, monkeypatch, folder, "raunet", "c", runs="c", error=KeyboardInterrupt)
        signal.signal(signal.SIGINT, handler)  # Lightning ignores the next ones
        last = (folder / "c" / "last.ckpt").read_bytes()
        for extra in (("--model.dropout", "0.2"), ("--seed_everything", "3"), ("--data.batch_size", "4")):
            name = extra[0].removeprefix("--").replace(".", r"\.(init_args\.)?")
            with pytest.raises(ValueError, match=f"interrupted and had another {name}; give"):
                fit(folder, "raunet", "c", runs="c", extra=extra)
        assert (folder / "c" / "last.ckpt").read_bytes() == last


class TestMixture:
    """All kinds of arrays, scenes, crops of two sizes, both stages."""

    @pytest.mark.parametrize(("kind", "muon"), [("raunet", True), ("ddpm", False)])
    def test_repeated_and_interrupted_runs_give_equal_models(
        self, folder, raunet, mixed, kind, muon, monkeypatch
    ):
        settings = {"steps": 8, "extra": [*mixed, *(["--model.muon_rate", "0.01"] if muon else [])]}
        names = [f"{kind}_{muon}_{turn}" for turn in ("first", "again", "broken")]
        module = {"raunet": RAUNetModule, "ddpm": DDPMModule}[kind]
        fit_until(6, monkeypatch, folder, kind, names[2], runs=names[2], module=module, **settings)
        for name in names:
            fit(folder, kind, name, runs=name, **settings)
        first, *others = (zoo.load(folder / f"{name}.safetensors") for name in names)
        for other in others:
            assert other.sha256 == first.sha256
            assert (other.training, other.ranges) == (first.training, first.ranges)

    def test_history(self, folder, raunet, mixed):
        model = fit(folder, "raunet", "mixture", runs="mixture", steps=1, extra=mixed)
        shares = {"train.npz": 2, "deep.npz": 1, "frames.npz": 1, "plain.npz": 1}
        assert model.training["train"] == shares
        assert model.training["pairs"] == 11
        assert model.training["scene_share"] == 0.3
        assert model.ranges["peak_snr"] == [0, 5000]  # of the scenes
        assert str(folder) not in str(model.training)


class TestMaximumTime:
    def test_run_that_ran_out_of_time_is_continued(self, folder, monkeypatch):
        whole = fit(folder, "raunet", "long", runs="long", steps=12)
        extra = ("--trainer.max_time", "00:01:00:00", "--overwrite", "true")
        clock = chain([0.0], repeat(7200.0))  # at the start and later
        with monkeypatch.context() as patch:
            patch.setattr(Timer, "time_elapsed", lambda *_: next(clock))
            part = fit(folder, "raunet", "timed", runs="timed", steps=12, extra=extra)
        assert part.training["steps"] == 4  # an epoch
        rest = fit(folder, "raunet", "timed", runs="timed", steps=12, extra=extra[2:])
        assert rest.training["steps"] == 12
        assert_equal_weights(rest.regressor, whole.regressor)


class TestProcesses:
    def test_two_do_the_work_of_one(self, folder):
        extra = ("--model.dropout", "0")
        one = fit(folder, "raunet", "one", runs="one", steps=8, extra=extra)
        line = options(folder, "raunet", "two", runs="two", steps=8, extra=(*extra, "--trainer.devices", "2"))
        done = subprocess.run(
            [sys.executable, "-m", "astro_ddpm", *line], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        two = zoo.load(folder / "two.safetensors")
        assert done.stdout.count(two.sha256) == 1
        assert two.training["steps"] == 8
        for name in ("mean_loss", "width_loss", "val_mse_source", "val_reduced_sky"):
            assert_allclose(read_log(folder / "two", name), read_log(folder / "one", name), rtol=1e-3)
        for name, weight in two.regressor.state_dict().items():
            assert_allclose(weight, one.regressor.state_dict()[name], atol=1e-3, err_msg=name)

    @pytest.fixture
    def batches(self, folder):
        def batches(rank, world):
            data = PairDataModule(
                str(folder / "train.npz"), str(folder / "validation.npz"), batch_size=6, epoch_steps=6
            )
            data.setup()
            data.trainer = SimpleNamespace(current_epoch=1, global_rank=rank, world_size=world)
            return [batch["z"].numpy() for batch in data.train_dataloader()]

        return batches

    @pytest.mark.parametrize("world", [2, 3])
    def test_batches_are_shared(self, batches, world):
        whole = batches(0, 1)
        shares = [batches(rank, world) for rank in range(world)]
        assert len(whole) == 6
        assert {len(share) for share in shares} == {6}
        for one, *others in zip(whole, *shares, strict=True):
            assert {len(other) for other in others} == {6 // world}
            together = np.concatenate(others)
            assert {image.tobytes() for image in one} == {image.tobytes() for image in together}

    def test_batch_that_cannot_be_shared(self, batches):
        with pytest.raises(ValueError, match="batch_size 6 must be a multiple of the 4 processes"):
            batches(0, 4)


class TestPrecision:
    @pytest.fixture
    def plain_cpu(self, monkeypatch):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)

    @pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
    def test_no_bfloat16_without_hardware(self, folder, plain_cpu, precision):
        with pytest.raises(
            ValueError, match=f"{precision} needs hardware with bfloat16, which this cpu lacks"
        ):
            fit(folder, "raunet", "never", runs="never", extra=("--trainer.precision", precision))
        assert not (folder / "never").exists()

    def test_float32_runs_everywhere(self, plain_cpu):
        check_precision("32-true", torch.device("cpu"))

    @pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
    def test_hardware_that_has_it(self, monkeypatch, name):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True}, raising=False)
        check_precision("bf16-mixed", torch.device("cpu"))

    @pytest.mark.parametrize("native", [True, False])
    def test_graphics_cards(self, monkeypatch, native):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
        if native:
            check_precision("bf16-mixed", torch.device("cuda:0"))
        else:
            with pytest.raises(ValueError, match="this cuda lacks"):
                check_precision("bf16-mixed", torch.device("cuda:0"))

    def test_mixed_precision_keeps_the_weights_in_float32(self, folder, raunet, monkeypatch):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True}, raising=False)
        mixed = fit(folder, "raunet", "mixed", runs="mixed", extra=("--trainer.precision", "bf16-mixed"))
        assert mixed.training["precision"] == "bf16-mixed"
        assert {weight.dtype for weight in mixed.regressor.state_dict().values()} == {torch.float32}
        assert mixed.sha256 != raunet.sha256


class TestConfigs:
    def test_each_released_model_has_one(self):
        names = {path.stem for path in HOME.glob("*.yaml")}
        assert names == {*zoo.list_models(), "crps", "smoke_raunet", "smoke_ddpm"}

    def test_found_by_name_or_path(self, tmp_path):
        path = tmp_path / "my.yaml"
        path.touch()
        assert find_config(path) == path
        assert find_config("ddpm") == HOME / "ddpm.yaml"

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"unknown config 'unet': .* one of crps, ddpm, raunet"):
            find_config("unet")

    @pytest.mark.parametrize("name", ["raunet", "ddpm", "crps"])
    def test_released_settings_are_valid(self, folder, raunet, name, monkeypatch):
        # as far as the first step, on crops that fit into the small images of the tests
        extra = ("--data.size", "24", "--compile", "false", "--trainer.precision", "32-true")
        extra += () if name == "raunet" else ("--model.raunet", str(folder / "raunet.safetensors"))
        _, _, *rest = options(folder, "raunet", "unused", runs="unused", extra=extra)
        module = {"raunet": RAUNetModule, "ddpm": DDPMModule, "crps": CRPSModule}[name]

        def stop(self, batch, batch_index):
            raise PowerCutError

        monkeypatch.setattr(module, "training_step", stop)
        with pytest.raises(PowerCutError):
            train(name, rest)


class TestErrors:
    def test_refuses_to_overwrite(self, folder, raunet):
        before = (folder / "raunet.safetensors").read_bytes()
        with pytest.raises(FileExistsError, match=r"raunet\.safetensors exists; use --overwrite true"):
            fit(folder, "raunet", "raunet", runs="unused")
        assert (folder / "raunet.safetensors").read_bytes() == before

    def test_overwrites_when_told(self, folder):
        (folder / "replaced.safetensors").write_text("old")
        extra = ("--overwrite", "true")
        assert fit(folder, "raunet", "replaced", runs="replaced", steps=1, extra=extra).kind == "raunet"

    @pytest.mark.parametrize("output", ["model.ckpt", "missing/model.safetensors"])
    def test_bad_output(self, folder, output):
        with pytest.raises(ValueError, match=r"output .* must be a \.safetensors file in a folder"):
            fit(folder, "raunet", "never", runs="never", extra=("--output", output))

    def test_without_end(self, folder):
        with pytest.raises(ValueError, match=r"trainer\.max_steps must be the steps of the .* run, not -1"):
            fit(folder, "raunet", "never", runs="never", steps=-1)


class TestCommandLine:
    def test_tells_file_and_sha256(self, folder, capsys):
        assert main(options(folder, "raunet", "told", runs="told", steps=1)) == 0
        sha256 = zoo.load(folder / "told.safetensors").sha256
        assert f"{folder / 'told.safetensors'} {sha256}" in capsys.readouterr().out
        assert not list(folder.glob(".*"))

    def test_error(self, capsys):
        assert main(["train", "missing.yaml"]) == 1
        assert "astro-ddpm: error: unknown config 'missing.yaml'" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("args", "text"),
        [
            ([], "CONFIG.yaml"),
            (["smoke_raunet"], r"error: give --data\.\w+ .*, which 'astro-ddpm prepare' writes\n"),
            (["smoke_raunet", "--data.train", "a"], r"error: give --data\.validation VAL\.npz, which"),
            (["ddpm"], r"error: give --model\.raunet\n"),
            (["raunet", "--nonsense", "1"], "nonsense"),
            (["raunet", "--data.train", "a", "--data.validation", "b", "--model.dropout", "much"], "dropout"),
            (["raunet", "--data.train", "a", "--data.validation", "b", "--model.drop", "1"], "'drop' is not"),
        ],
    )
    def test_usage(self, args, text, capsys):
        with pytest.raises(SystemExit) as error:
            main(["train", *args])
        assert error.value.code == 2
        error = capsys.readouterr().err
        assert re.search(text, error)
        assert not args or error.count("\n") == 1

    @pytest.mark.parametrize(("args", "text"), [((), "settings"), (("raunet",), "--output")])
    def test_help(self, args, text, capsys):
        with pytest.raises(SystemExit) as error:
            main(["train", *args, "--help"])
        assert error.value.code == 0
        assert text in capsys.readouterr().out

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what comes before and after a training, from the shell.
"""

import contextlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits
from numpy.testing import assert_allclose

from astro_ddpm import zoo
from astro_ddpm.nn import RAUNet
from astro_ddpm.training import EMASnapshots
from astro_ddpm.training.__main__ import main
from astro_ddpm.training.tests.helpers import simulated_arrays


class TestUsage:
    @pytest.mark.parametrize("args", [[], ["unknown"], ["prepare"], ["prepare-deep"], ["average"]])
    def test_usage(self, args, capsys):
        with pytest.raises(SystemExit) as error:
            main(args)
        assert error.value.code == 2
        assert "usage: python -m astro_ddpm.training" in capsys.readouterr().err

    def test_help(self, capsys):
        with pytest.raises(SystemExit) as error:
            main(["prepare", "--help"])
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


class TestPrepareDeep:
    def test_stamps(self, tmp_path, capsys):
        frame = np.random.default_rng(0).standard_normal((70, 100))
        names = [str(tmp_path / f"{i}.fits") for i in range(2)]
        for name in names:
            fits.writeto(name, frame)
        output = tmp_path / "deep.npz"
        main(["prepare-deep", str(output), *names, "--size", "32"])
        assert f"12 stamps written to {output}" in capsys.readouterr().out
        with np.load(output) as arrays:
            assert arrays["deep"].shape == (12, 32, 32)
        with pytest.raises(FileExistsError, match="set overwrite"):
            main(["prepare-deep", str(output), *names, "--size", "32"])
        main(["prepare-deep", str(output), names[0], "--size", "64", "--overwrite"])
        with np.load(output) as arrays:
            assert arrays["deep"].shape == (1, 64, 64)


class TestAverage:
    def test_choice(self, tmp_path, capsys):
        with torch.random.fork_rng(devices=[]):
            raunet = RAUNet((4, 6))
        np.savez(tmp_path / "validation.npz", **simulated_arrays(3))
        callback = EMASnapshots(every_n_steps=1, widths=(0.1, 0.2))
        trainer = SimpleNamespace(
            global_step=1, max_steps=1, is_global_zero=True, default_root_dir=tmp_path / "run"
        )
        callback.on_train_batch_end(trainer, SimpleNamespace(network=raunet), None, None, 0)
        zoo.save(zoo.Model(raunet), tmp_path / "trained.safetensors")
        names = ["trained.safetensors", "run/ema", "validation.npz", "chosen.safetensors"]
        args = ["average", *(str(tmp_path / name) for name in names), "--widths", "0.1", "0.2"]
        main(args)
        out = capsys.readouterr().out
        # one snapshot after one step: both averages are the network
        losses = re.findall(r"width 0\.[12]: loss ([\d.]+)", out)
        assert len(losses) == 2
        assert losses[0] == losses[1]
        assert re.search(r"width 0\.[12] written to .*chosen\.safetensors", out)
        chosen = zoo.load(tmp_path / "chosen.safetensors")
        assert chosen.training["ema_width"] in {0.1, 0.2}
        with pytest.raises(FileExistsError, match="set overwrite"):
            main(args)
        main([*args, "--overwrite"])

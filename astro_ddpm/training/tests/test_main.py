# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for what comes before and after a training, from the shell.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.utils.exceptions import AstropyDeprecationWarning
from numpy.testing import assert_allclose

from astro_ddpm import zoo
from astro_ddpm.cli import main
from astro_ddpm.nn import RAUNet
from astro_ddpm.training import EMASnapshots
from astro_ddpm.training.__main__ import main as earlier_main
from astro_ddpm.training.tests.helpers import simulated_arrays


class TestEarlierCommandLine:
    """Test ``python -m astro_ddpm.training``."""

    @pytest.mark.parametrize(
        "args",
        [[], ["unknown"], ["prepare"], ["prepare-deep"], ["prepare-simulated", "o"], ["average"], ["-h"]],
    )
    def test_usage(self, args, capsys):
        assert earlier_main(args) == 2
        assert "astro-ddpm prepare --pairs LIST.csv" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            ("prepare l.csv o.npz --gain 3", "prepare --pairs l.csv -o o.npz --gain 3"),
            ("prepare-deep o.npz a.fits b.fits --size 9", "prepare -o o.npz --deep a.fits b.fits --size 9"),
            ("average m ema v.npz o --widths 0.1", "average m ema v.npz -o o --widths 0.1"),
        ],
    )
    def test_is_translated(self, monkeypatch, args, expected):
        calls = []
        monkeypatch.setattr("astro_ddpm.cli.main", lambda args: calls.append(args) or 0)
        with pytest.warns(AstropyDeprecationWarning, match=f"use astro-ddpm {expected}"):
            assert earlier_main(args.split()) == 0
        assert calls == [expected.split()]


class TestPrepare:
    def write(self, folder, n=2, flux=300):
        arrays = simulated_arrays(n, size=64, flux=flux)
        lines = ["shallow,deep"]
        for i in range(n):
            for name in ("shallow", "deep"):
                fits.writeto(folder / f"{name}{i}.fits", arrays[name][i].astype(">f4"))
            lines.append(f"shallow{i}.fits,deep{i}.fits")
        (folder / "pairs.csv").write_text("\n".join(lines) + "\n")

    def test_counts(self, tmp_path, capsys):
        self.write(tmp_path)
        output = tmp_path / "pairs.npz"
        main(["prepare", "--pairs", str(tmp_path / "pairs.csv"), "-o", str(output), "--gain", "20"])
        out = capsys.readouterr().out
        assert re.search(rf"{re.escape(str(output))}: 2 pairs, 0 left out", out)
        with np.load(output) as arrays:
            assert len(arrays["shallow"]) == 2
            # a gain of 20 electron per unit of flux: variance 0.05 per unit, as simulated
            bright = arrays["target"] > 100
            expected = np.sqrt(1 + 0.05 * arrays["target"][bright])
            assert_allclose(arrays["sigma"][bright], expected, rtol=0.15)

    def test_without_gain_the_noise_is_that_of_the_sky(self, tmp_path):
        self.write(tmp_path, flux=1)
        assert (
            main(["prepare", "--pairs", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "pairs.npz")]) == 0
        )
        with np.load(tmp_path / "pairs.npz") as arrays:
            assert (np.ptp(arrays["sigma"], axis=(1, 2)) == 0).all()

    def test_overwrite(self, tmp_path, capsys):
        self.write(tmp_path)
        args = ["prepare", "--pairs", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "pairs.npz")]
        args += ["--gain", "20", "--quiet"]
        assert [main(args), main(args)] == [0, 1]
        assert "--output" in (error := capsys.readouterr().err)
        assert "pairs.npz exists; use --overwrite to replace it" in error
        assert main([*args, "--overwrite"]) == 0
        assert capsys.readouterr().out == ""


class TestPrepareDeep:
    def test_stamps(self, tmp_path, capsys):
        frame = np.random.default_rng(0).standard_normal((70, 100))
        names = [str(tmp_path / f"{i}.fits") for i in range(2)]
        for name in names:
            fits.writeto(name, frame)
        output = tmp_path / "deep.npz"
        args = ["prepare", "-o", str(output), "--deep"]
        assert main([*args, *names, "--size", "32"]) == 0
        assert f"{output}: 12 stamps" in capsys.readouterr().out
        with np.load(output) as arrays:
            assert arrays["deep"].shape == (12, 32, 32)
        assert main([*args, *names, "--size", "32"]) == 1
        with pytest.raises(SystemExit):
            main([*args, names[0], "--size", "20"])
        assert "--size: must be at least 32, not 20" in capsys.readouterr().err
        assert main([*args, names[0], "--size", "64", "--overwrite"]) == 0
        with np.load(output) as arrays:
            assert arrays["deep"].shape == (1, 64, 64)


def test_prepare_cameras(tmp_path, capsys):
    (tmp_path / "frames").mkdir()
    fits.writeto(tmp_path / "frames" / "a.fits", np.random.default_rng(0).standard_normal((80, 80)))
    manifest = tmp_path / "cameras.yaml"
    manifest.write_text("- {camera: one, use: frames, files: [a.fits], number: 3}\n")
    args = ["prepare", "--cameras", str(manifest), "--root", str(tmp_path / "frames"), "--size", "48"]
    assert main([*args, "-o", str(tmp_path / "out")]) == 0
    assert "one_frames 3" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "one_frames.npz") as arrays:
        assert arrays["data"].shape == (3, 48, 48)


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
        *files, output = (str(tmp_path / name) for name in names)
        args = ["average", *files, "-o", output, "--widths", "0.1", "0.2"]
        assert main(args) == 0
        out = capsys.readouterr().out
        # one snapshot after one step: both averages are the network
        losses = re.findall(r"width 0\.[12]: loss ([\d.]+)", out)
        assert len(losses) == 2
        assert losses[0] == losses[1]
        assert re.search(r"chosen\.safetensors: width 0\.[12]", out)
        chosen = zoo.load(tmp_path / "chosen.safetensors")
        assert chosen.training["ema_width"] in {0.1, 0.2}
        assert main(args) == 1
        assert "use --overwrite" in capsys.readouterr().err
        assert main([*args, "--overwrite"]) == 0

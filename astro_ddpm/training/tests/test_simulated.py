# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the simulated module.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from astro_ddpm.noise import estimate_sky_sigma
from astro_ddpm.training import DeepDataset, prepare_simulated
from astro_ddpm.training.__main__ import main
from astro_ddpm.training.arrays import open_arrays


class TestPrepareSimulated:
    def test_noise_is_white_and_known(self, tmp_path):
        prepare_simulated(6, tmp_path / "deep.npz", seed=3)
        arrays = open_arrays(tmp_path / "deep.npz")
        assert arrays["deep"].shape == (6, 100, 100)
        assert_array_equal(arrays["noise_width"], 0)
        for image, sigma in zip(arrays["deep"], arrays["sky_sigma"], strict=True):
            # sixth differences are blind to what is smooth, and raise white noise by sqrt(924)
            step = np.diff(image, 6, axis=1) / np.sqrt(924)
            assert 1.4826 * np.median(np.abs(step)) == pytest.approx(sigma, rel=0.1)
            # sources cover part of the image, never less than nothing
            assert estimate_sky_sigma(image) > 0.9 * sigma
            assert image.sum() > 0

    def test_seed(self, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            prepare_simulated(2, tmp_path / name, size=40, seed=seed)
        a, b, c = (open_arrays(tmp_path / name)["deep"] for name in "abc")
        assert_array_equal(a, b)
        assert (a != c).any()
        assert (a[0] != a[1]).any()

    def test_depth_is_the_noise(self, tmp_path):
        sigmas = []
        for depth in (0.1, 0.3):
            prepare_simulated(2, tmp_path / "deep.npz", size=40, depth=depth, overwrite=True)
            sigmas.append(open_arrays(tmp_path / "deep.npz")["sky_sigma"].copy())
        np.testing.assert_allclose(sigmas[1], 3 * sigmas[0], rtol=1e-6)

    def test_trains(self, tmp_path):
        prepare_simulated(2, tmp_path / "deep.npz", size=64)
        data = DeepDataset(open_arrays(tmp_path / "deep.npz"), size=32, repeat=20)
        residuals = [e["residual"][e["valid"] > 0] for e in map(data.__getitem__, range(40))]
        assert np.concatenate(residuals).std() == pytest.approx(1, rel=0.1)

    def test_bad_input(self, tmp_path):
        output = tmp_path / "deep.npz"
        with pytest.raises(ValueError, match=r"number and depth must be positive, not 0 and 0\.1"):
            prepare_simulated(0, output)
        with pytest.raises(ValueError, match="number and depth must be positive, not 1 and -1"):
            prepare_simulated(1, output, depth=-1)
        with pytest.raises(TypeError, match="float"):
            prepare_simulated(2.5, output)
        with pytest.raises(ValueError, match="32"):
            prepare_simulated(1, output, size=20)
        output.write_text("kept")
        with pytest.raises(FileExistsError, match="set overwrite"):
            prepare_simulated(1, output)
        assert output.read_text() == "kept"

    def test_command(self, tmp_path, capsys):
        output = tmp_path / "deep.npz"
        main(["prepare-simulated", str(output), "--number", "3", "--size", "32", "--seed", "4"])
        assert capsys.readouterr().out == f"3 images written to {output}\n"
        assert open_arrays(output)["deep"].shape == (3, 32, 32)

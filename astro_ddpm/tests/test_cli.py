# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the command line and of the file step behind it.
"""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, OutOfDomainWarning, conf, enhance, zoo
from astro_ddpm.cli import _flux_verdict, _pixel_verdict, compare_fluxes, main
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.pipeline import enhance_file

from .helpers import SIGMA, make_image, toy_model


@pytest.fixture
def model(tmp_path):
    zoo.save(toy_model(), tmp_path / "toy.safetensors")
    return str(tmp_path / "toy.safetensors")


@pytest.fixture
def image(tmp_path):
    make_image().write(tmp_path / "image.fits")
    return str(tmp_path / "image.fits")


@pytest.fixture
def quiet(tmp_path, image, model):
    """Arguments that enhance the image into ``o.fits`` and print nothing."""
    return ["enhance", image, "-o", str(tmp_path / "o.fits"), "--model", model, "--samples", "1", "--quiet"]


@pytest.fixture
def exposure(tmp_path):
    """Image, weight and data quality, each in extension N2 of a file of its own."""
    ccd = make_image()
    quality = np.zeros(ccd.shape, ">i4")
    quality[:, 7] = 4
    weight = np.full(ccd.shape, SIGMA**-2, ">f4")
    weight[3] = 0
    for name, data in (("ooi", ccd.data), ("oow", weight), ("ood", quality)):
        hdus = [fits.PrimaryHDU(), fits.CompImageHDU(data, name="N2")]
        hdus[0].header["OBSERVAT"] = "CTIO"
        fits.HDUList(hdus).writeto(tmp_path / f"{name}.fits.fz")
    return {name: str(tmp_path / f"{name}.fits.fz") for name in ("ooi", "oow", "ood")}


class TestEnhance:
    """Test ``astro-ddpm enhance``."""

    def test_default_model_of_several_images(self, tmp_path, image, model):
        with conf.set_temp("default_model", model):
            assert (
                main(["enhance", image, image.replace("image", "other"), "-o", str(tmp_path / "deep")]) == 1
            )
            assert main(["enhance", image, "-o", f"{tmp_path / 'folder'}/", "--samples", "1", "--quiet"]) == 0
        header = fits.getheader(tmp_path / "deep" / "image.fits")
        assert header["DDPMSHA"] == zoo.load(model).sha256
        assert (tmp_path / "folder" / "image.fits").exists()

    def test_same_as_the_function(self, tmp_path, image, model, capsys):
        out = tmp_path / "out.fits"
        options = ["--model", model, "--samples", "2", "--steps", "3", "--seed", "5"]
        assert main(["enhance", image, "-o", str(out), *options]) == 0
        captured = capsys.readouterr()
        assert "36 x 40 pixels, model toy, 2 samples, seed 5" in captured.out
        assert captured.err == ""  # no terminal
        expected = enhance(make_image(), model=model, n_samples=2, steps=3, seed=5)
        assert_allclose(EnhancedCCDData.read(out).samples, expected.samples, rtol=1e-6, atol=1e-5)

    def test_quiet(self, quiet, capsys, monkeypatch):
        monkeypatch.setattr("astro_ddpm.utils.PATIENCE", 0)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert main(quiet) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "")
        assert main([arg for arg in quiet if arg != "--quiet"] + ["--overwrite"]) == 0
        assert "step/s" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "sky"), [("photutils", "photutils"), ("photutils:128", {"box_size": 128}), ("-2.5", -2.5)]
    )
    def test_sky(self, image, model, tmp_path, text, sky):
        args = ["enhance", image, "-o", str(tmp_path / "o.fits"), "--model", model, "--samples", "1"]
        assert main([*args, f"--background={text}", "--seed", "1", "--quiet"]) == 0
        expected = enhance(make_image(), model=model, n_samples=1, seed=1, background=sky)
        assert_allclose(EnhancedCCDData.read(tmp_path / "o.fits").data, expected.data, rtol=1e-6, atol=1e-5)

    def test_warns_once_outside_of_the_domain(self, tmp_path, image, model, capsys):
        options = ["--model", model, "--samples", "1", "--depth", "0.01", "--quiet"]
        assert main(["enhance", image, "-o", str(tmp_path / "o.fits"), *options]) == 0
        assert capsys.readouterr().err.count("astro-ddpm: warning: outside of the ranges") == 1
        with pytest.warns(OutOfDomainWarning, match=r"noise ratio 0\.01") as record:
            enhance_file(image, tmp_path / "p.fits", model=model, n_samples=1, noise_ratio=0.01)
        assert [warning.filename for warning in record] == [__file__]

    def test_weight_and_mask_planes(self, tmp_path, exposure, model):
        out = tmp_path / "out.fits"
        planes = ["--weight", exposure["oow"], "--mask", exposure["ood"], "--ext", "n2"]
        options = ["--model", model, "--samples", "2", "--steps", "2", "--seed", "1", "--quiet"]
        assert main(["enhance", exposure["ooi"], "-o", str(out), *planes, *options]) == 0
        back = EnhancedCCDData.read(out)
        assert back.mask[:, 7].all()
        assert back.mask[3].all()
        assert back.mask.sum() == 40 + 36 - 1
        assert np.isfinite(back.data).all()
        assert back.meta["OBSERVAT"] == "CTIO"
        # pixels without weight are filled: their uncertainty is not infinite
        assert back.uncertainty.array.max() < 100 * SIGMA

    def test_other_planes(self, tmp_path, image, model):
        for name, value in (("stddev", SIGMA), ("variance", SIGMA**2)):
            fits.PrimaryHDU(np.full((40, 36), value)).writeto(tmp_path / f"{name}.fits")
            bare = tmp_path / f"{name}_bare.fits"
            fits.PrimaryHDU(make_image().data).writeto(bare)
            result = enhance_file(
                bare, tmp_path / f"{name}_out.fits", **{name: tmp_path / f"{name}.fits"}, model=model,
                n_samples=1, seed=1,
            )  # fmt: skip
            expected = enhance(make_image(), model=model, n_samples=1, seed=1)
            assert_allclose(result.data, expected.data, rtol=1e-5, atol=1e-4)

    def test_overwriting(self, tmp_path, quiet, capsys):
        (tmp_path / "o.fits").write_text("precious")
        assert main(quiet) == 1
        assert "o.fits exists; use --overwrite to replace it" in capsys.readouterr().err
        assert (tmp_path / "o.fits").read_text() == "precious"
        assert main([*quiet, "--overwrite"]) == 0
        assert CCDData.read(tmp_path / "o.fits").shape == (40, 36)

    @pytest.mark.parametrize(
        ("args", "match"),
        [
            (["missing.fits", "-o", "{}/o.fits"], "missing.fits"),
            (["{}/image.fits", "-o", "{}/nowhere/o.fits"], "no folder"),
            (["{}/image.fits", "-o", "{}/o.fits", "--ext", "9"], "ext '9' is not in"),
            (["{}/image.fits", "-o", "{}/o.fits", "--memory-limit", "many"], "--memory-limit must be"),
            (["{}/image.fits", "-o", "{}/o.fits", "--gain", "CARD"], "--gain 'CARD' is not a keyword"),
            (["{}/image.fits", "-o", "{}/o.fits", "--model", "none"], "unknown model 'none'"),
            (["{}/image.fits", "-o", "{}/o.fits", "--ignore-bits", "4"], "--ignore-bits needs a mask"),
            (["{}/image.fits", "-o", "{}/o.fits", "--mask", "{}/small.fits"], "--mask .* has shape"),
            (["{}/toy.safetensors", "-o", "{}/o.fits"], "FITS|SIMPLE"),
        ],
    )
    def test_errors_have_no_traceback(self, tmp_path, image, model, capsys, args, match):
        fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "small.fits")
        options = [] if "--model" in args else ["--model", model]
        code = main(["enhance", *(arg.replace("{}", str(tmp_path)) for arg in args), *options])
        error = capsys.readouterr().err
        assert code == 1
        assert error.splitlines()[-1].startswith("astro-ddpm: error: ")
        assert "Traceback" not in error
        assert re.search(match, error)
        assert not (tmp_path / "o.fits").exists()

    def test_debug_shows_where(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            main(["--debug", "enhance", "missing.fits", "-o", str(tmp_path / "o.fits")])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--samples", "0"], "--samples: must be at least 1, not 0"),
            (["--samples", "x"], "--samples: invalid int value: 'x'"),
            (["--background", "dark"], "--background: must be 'photutils' or a number, not 'dark'"),
            (["--noise-ratio", "-1"], "--noise-ratio/--depth: must be positive, not -1"),
            (["--noise-ratio", "x"], "--noise-ratio/--depth: invalid float value: 'x'"),
            (["--steps", "0"], "--steps: must be at least 1, not 0"),
        ],
    )
    def test_wrong_options(self, capsys, options, message):
        with pytest.raises(SystemExit) as error:
            main(["enhance", "a.fits", "-o", "b.fits", *options])
        assert error.value.code == 2
        assert message in capsys.readouterr().err

    def test_gain_and_saturation(self, tmp_path, model):
        image = make_image(uncertainty=None)
        del image.meta["GAIN"]
        image.write(tmp_path / "bare.fits")
        args = ["enhance", str(tmp_path / "bare.fits"), "-o", str(tmp_path / "o.fits"), "--model", model]
        options = ["--gain", "2", "--read-noise", "3", "--saturation", "200", "--samples", "1", "--quiet"]
        assert main([*args, *options]) == 0
        header = fits.getheader(tmp_path / "o.fits")
        assert (header["DDPMGAIN"], header["DDPMRDN"], header["DDPMSAT"]) == (2, 3, 200)

    def test_wrong_usage(self, capsys):
        for args in ([], ["enhance"], ["paint"], ["enhance", "a.fits", "-o", "b.fits", "--samples", "x"]):
            with pytest.raises(SystemExit) as error:
                main(args)
            assert error.value.code == 2
        capsys.readouterr()

    def test_warnings_are_one_line(self, tmp_path, model, capsys):
        fits.PrimaryHDU(make_image((80, 80)).data).writeto(tmp_path / "bare.fits")
        out = str(tmp_path / "o.fits")
        args = ["enhance", str(tmp_path / "bare.fits"), "-o", out, "--model", model, "--samples", "1"]
        args.append("--no-verify")
        assert main([*args, "--quiet"]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("astro-ddpm: warning: the image has no uncertainty")
        assert line.endswith("better give --stddev, --variance or --weight")

    def test_warnings_are_said_once(self, monkeypatch, capsys):
        def warn():
            for text in ("one", "one", "other"):
                warnings.warn(text, AstropyUserWarning, stacklevel=2)
            raise KeyboardInterrupt

        monkeypatch.setattr("astro_ddpm.zoo.list_models", warn)
        assert main(["models"]) == 130
        lines = capsys.readouterr().err.splitlines()
        assert lines[:-1] == [f"astro-ddpm: warning: {text}" for text in ("one", "other")]

    def test_interrupt(self, monkeypatch, capsys):
        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr("astro_ddpm.zoo.list_models", interrupt)
        assert main(["models"]) == 130
        assert "interrupted" in capsys.readouterr().err


class TestEnhanceFile:
    """Test the step of a pipeline."""

    def test_two_planes_of_noise(self, tmp_path, image):
        with pytest.raises(ValueError, match="at most one of stddev, variance and weight"):
            enhance_file(image, tmp_path / "o.fits", stddev=image, weight=image)

    def test_mask_of_the_file_is_kept(self, tmp_path, model):
        mask = np.zeros((40, 36), bool)
        mask[2, 2] = True
        make_image(mask=mask).write(tmp_path / "masked.fits")
        quality = np.zeros((40, 36), "i2")
        quality[4, 4] = 1
        fits.PrimaryHDU(quality).writeto(tmp_path / "quality.fits")
        result = enhance_file(
            tmp_path / "masked.fits", tmp_path / "o.fits", mask=tmp_path / "quality.fits", model=model,
            n_samples=1,
        )  # fmt: skip
        assert_array_equal(result.mask, mask | (quality > 0))


class TestDemo:
    """Test ``astro-ddpm demo``."""

    def test_demo(self, tmp_path, model, capsys):
        folder = tmp_path / "demo"
        args = ["demo", "-o", str(folder), "--model", model, "--samples", "3", "--size", "96"]
        assert main(args) == 0
        out = capsys.readouterr().out
        assert "true" in out
        assert "rms flux error" in out
        enhanced = EnhancedCCDData.read(folder / "enhanced.fits")
        assert enhanced.samples.shape == (3, 96, 96)
        assert CCDData.read(folder / "input.fits").mask.any()
        table = QTable.read(folder / "fluxes.ecsv")
        assert {"true", "input", "input_err", "enhanced", "enhanced_err", "pull"} <= {*table.colnames}
        assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
        assert main(args) == 1
        assert "would be overwritten" in capsys.readouterr().err
        assert main([*args, "--overwrite", "--quiet"]) == 0


def test_verdict_of_the_demo():
    """The sentence says which error is smaller, and how many fluxes are right."""
    table = QTable({"true": [10.0, 10, 10, 10], "input": [12.0, 8, 12, 8]})
    table["enhanced"] = [10.5, 9.5, 10.5, 9.5]
    table["input_err"], table["pull"] = 1.0, [0.5, -0.5, -2.0, 0.9]
    assert _flux_verdict(table) == (
        "4 sources: rms flux error 2.00 before and 0.50 after, in units of the error of the input; "
        "75% of the fluxes within one error of the truth"
    )


@pytest.mark.parametrize(("enhanced", "said"), [(3.5, "faint by 0.50"), (4.25, "bright by 0.25")])
def test_verdict_of_the_demo_on_faint_sources(enhanced, said):
    table = QTable({"true": [4.0, 100], "input": [4.0, 100], "enhanced": [enhanced, 100]})
    table["input_err"], table["pull"] = 1.0, 0.0
    assert f"; the 1 fainter than 10 of these errors came out too {said} of them" in _flux_verdict(table)


@pytest.fixture
def field():
    return make_galaxy_field((64, 64), n_galaxies=2, n_stars=1, bad_columns=0)


def test_pixels_of_the_demo_before_and_after(field):
    after = field.image.copy()
    after.data = field.truth + 0.25 * field.image.uncertainty.array
    said = re.search(r"rms error ([\d.]+) before and ([\d.]+) after", _pixel_verdict(field, after))
    assert_allclose([float(number) for number in said.groups()], [1, 0.25], atol=0.1)


def test_pulls_of_the_demo(field):
    brighter = field.image.copy()
    brighter.data = field.truth + 1.0
    table = compare_fluxes(field, brighter)
    assert np.all(table["pull"] > 0)  # apertures at the edge are less than whole
    assert_allclose(np.max(table["pull"] * table["enhanced_err"].value), np.pi * 6**2, rtol=0.01)


class TestEvaluate:
    """Test that ``astro-ddpm evaluate`` complains before it reads an image."""

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            (["--compare", "median"], r"--compare must be names among .*, not median"),
            (["--model", "none"], "unknown model 'none'"),
            (["--model", "ddpm", "--samples", "1"], "--samples must be at least 2"),
            (["--model", "raunet", "--device", "nix"], "--device 'nix' cannot be used"),
            (["--model", "raunet", "raunet"], "--model and --compare must differ in name"),
        ],
    )
    def test_methods(self, tmp_path, capsys, monkeypatch, options, match):
        monkeypatch.setattr("astro_ddpm.report.pairs.read_listing", None)
        assert main(["evaluate", "--pairs", "pairs.csv", "-o", str(tmp_path / "report"), *options]) == 1
        assert re.search(f"astro-ddpm: error: {match}", capsys.readouterr().err)
        assert not (tmp_path / "report").exists()

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--limit", "0"),
            ("--gain", "0"),
            ("--factor", "inf"),
            ("--zero-point", "nan"),
            ("--injections", "-1"),
        ],
    )
    def test_numbers(self, capsys, option, value):
        with pytest.raises(SystemExit) as error:
            main(["evaluate", "--pairs", "pairs.csv", "-o", "report", option, value])
        assert error.value.code == 2
        assert f"argument {option}: must be " in capsys.readouterr().err

    def test_output_is_a_file(self, tmp_path, capsys):
        (tmp_path / "report").write_text("")
        args = ["evaluate", "--pairs", "pairs.csv", "--model", "raunet", "-o", str(tmp_path / "report")]
        assert main(args) == 1
        assert "report" in capsys.readouterr().err


class TestProcess:
    """Test the program as the shell sees it."""

    def test_models_and_version(self):
        run = [sys.executable, "-m", "astro_ddpm"]
        out = subprocess.run([*run, "models"], check=True, capture_output=True, text=True).stdout
        lines = [line for line in out.splitlines() if not line.startswith(" ")]
        assert [re.match(r"[\w-]+", line)[0] for line in lines] == zoo.list_models()
        assert [" (default): " in line for line in lines] == [name == "ddpm" for name in zoo.list_models()]
        for line, name in zip(lines, zoo.list_models(), strict=True):
            assert ("samples" in line) == (zoo.load(name).draws_samples)
        low, high = zoo.load("ddpm").ranges["psf_fwhm"]
        assert f"PSF FWHM in pixels: {low:g} to {high:g}\n" in out
        out = subprocess.run([*run, "--version"], check=True, capture_output=True, text=True).stdout
        assert out.split()[0] == "astro-ddpm"

    def test_exit_code(self, tmp_path):
        run = [sys.executable, "-m", "astro_ddpm", "enhance", "missing.fits", "-o", str(tmp_path / "o.fits")]
        done = subprocess.run(run, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr

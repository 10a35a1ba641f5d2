# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Test the evaluation from pairs to the page, with an untrained model.
"""

import re

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from astro_ddpm import enhance, zoo
from astro_ddpm.cli import main
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.report import degrade_images, evaluate, run
from astro_ddpm.tests.helpers import toy_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*lie outside:astropy.utils.exceptions.AstropyUserWarning"),
    pytest.mark.filterwarnings("ignore:the network alone is wrong"),  # they are not trained
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def deep_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deep")
    for seed in range(2):
        field = make_galaxy_field((64, 64), seed=seed, n_galaxies=4, n_stars=2, bad_columns=0)
        field.deep_exposure(0.1).write(folder / f"deep_{seed}.fits")
    return sorted(folder.glob("*.fits"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The files of two models, one that draws samples and one that does not."""
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / "toy_ddpm.safetensors", folder / "toy_raunet.safetensors"]
    for path, samples in zip(paths, (True, False), strict=True):
        zoo.save(toy_model(samples=samples), path)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def done(tmp_path_factory, deep_images, models):
    """The folder of an evaluation."""
    folder = tmp_path_factory.mktemp("report")
    pairs = degrade_images(deep_images)
    page = evaluate(
        pairs, folder, models=models, classics=["gaussian"], n_samples=3, n_injections=0, rejected=["other"]
    )
    assert page == folder / "index.html"
    return folder


class TestEvaluate:
    """Test evaluate."""

    def test_page_stands_alone_and_answers(self, done):
        html = (done / "index.html").read_text()
        for question in ("Are the fluxes right?", "Are the errors right?", "Does it invent or lose sources?"):
            assert question in html
        assert "1 more differ" in html
        assert not re.findall(r'(?:src|href)="(?!data:)', html)
        pictures = sorted(done.glob("*.png"))
        assert {path.stem for path in pictures} >= {
            "coverage",
            "excess",
            "first_1",
            "ranks",
            "spectra",
            "worst_1",
        }
        assert html.count("data:image/png;base64") == len(pictures)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)

    def test_tables(self, done):
        paths = sorted(done.glob("*.ecsv"))
        assert {path.stem for path in paths} >= {
            "pixels",
            "calibration",
            "fluxes",
            "sources",
            "invented",
            "cost",
        }
        for path in paths:
            table = QTable.read(path)
            assert set(table.meta["models"]) == {"toy_ddpm", "toy_raunet"}
            assert table.meta["caption"]
            assert all(len(sha) == 64 for sha in table.meta["models"].values())
            assert all(table[name].info.description for name in table.colnames)
        assert QTable.read(done / "cost.ecsv")["seconds"].unit == "s"
        pixels = QTable.read(done / "pixels.ecsv")
        assert list(dict.fromkeys(pixels["method"])) == ["input", "toy_ddpm", "toy_raunet", "gaussian"]
        excess = pixels["excess"][(pixels["method"] == "input") & (pixels["bin"] == "sky")]
        assert excess == pytest.approx(1, abs=0.1)

    def test_samples_only_where_drawn(self, done):
        assert (done / "honesty_toy_ddpm.ecsv").is_file()
        assert not (done / "honesty_toy_raunet.ecsv").is_file()

    @pytest.mark.slow
    def test_goes_on_where_it_was(self, done, deep_images, models, monkeypatch):
        enhanced = sorted(done.rglob("enhanced/**/*.fits"))
        assert len(enhanced) == 2 * 3
        before = {path: path.read_bytes() for path in enhanced}
        enhanced[0].write_bytes(before[enhanced[0]][:3000])
        calls = []
        monkeypatch.setattr(run, "enhance", lambda *args, **kw: calls.append(1) or enhance(*args, **kw))
        options = {"models": models, "classics": [], "n_samples": 3, "n_injections": 0}
        evaluate(degrade_images(deep_images), done, **options)
        assert len(calls) == 1
        again = fits.getdata(enhanced[0])
        enhanced[0].write_bytes(before[enhanced[0]])
        np.testing.assert_array_equal(again, fits.getdata(enhanced[0]))
        # another seed is another result
        evaluate(degrade_images(deep_images), done, seed=1, **options)
        assert len(calls) == 1 + 2 * 3

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="pairs must hold at least one pair"):
            evaluate([], tmp_path)
        with pytest.raises(ValueError, match=r"classics must be names among.*not median"):
            evaluate([None], tmp_path, classics=["median"])

    def test_one_sample(self, tmp_path, deep_images, models):
        with pytest.raises(ValueError, match="n_samples must be at least 2"):
            evaluate(degrade_images(deep_images), tmp_path, models=models, n_samples=1)

    def test_two_models_of_one_name(self, tmp_path, deep_images, models):
        with pytest.raises(ValueError, match="must differ in name; rename the file of toy_raunet"):
            evaluate(degrade_images(deep_images), tmp_path, models=[models[1]] * 2)
        assert not list(tmp_path.iterdir())

    def test_missing_package(self, tmp_path, monkeypatch):
        monkeypatch.setattr(run, "find_spec", lambda name: None if name == "pywt" else name)
        with pytest.raises(ImportError, match=r"'wavelet' in classics needs pywt: pip install"):
            evaluate([None], tmp_path, classics=["wavelet"])
        monkeypatch.setattr(run, "find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"evaluate needs jinja2: pip install 'astro_ddpm\[evaluate\]'"):
            evaluate([None], tmp_path, classics=[])


class TestCommand:
    """Test astro-ddpm evaluate."""

    def test_degrade(self, tmp_path, deep_images, models, capsys):
        options = ["--model", models[1], "--compare", "--injections", "10", "--limit", "1", "--factor", "5"]
        files = [str(path) for path in deep_images]
        assert main(["evaluate", "--degrade", *files, *options, "-o", str(tmp_path / "out")]) == 0
        assert "index.html: 1 images, 0 left out" in capsys.readouterr().out
        limits = QTable.read(tmp_path / "out" / "detection_limits_toy_raunet.ecsv")
        assert limits.meta["n_injections"] == 10

    def test_needs_data(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as error:
            main(["evaluate", "-o", str(tmp_path)])
        assert error.value.code == 2
        assert "--pairs" in capsys.readouterr().err

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the settings.
"""

import os
import subprocess
import sys

import pytest

from astro_ddpm import conf, enhance, zoo

from .helpers import make_image, toy_model


@pytest.fixture
def path(tmp_path):
    zoo.save(toy_model(samples=False), tmp_path / "mine.safetensors")
    return str(tmp_path / "mine.safetensors")


def test_default_model(path):
    assert conf.default_model == "ddpm"
    with conf.set_temp("default_model", path):
        assert enhance(make_image()).meta["DDPMMODL"] == "mine"
        assert zoo.load() is zoo.load(path)


def test_cached_models(path):
    with conf.set_temp("cached_models", 0):
        assert zoo.load(path) is not zoo.load(path)
    assert zoo.load(path) is zoo.load(path)


def test_file_of_the_user(path, tmp_path):
    folder = tmp_path / "astropy"
    folder.mkdir()
    (folder / "astro_ddpm.cfg").write_text(f"default_model = {path}\ncached_models = 7\n")
    code = "from astro_ddpm import conf; print(conf.default_model, conf.cached_models)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )
    assert run.stdout.split() == [path, "7"]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run every program of this folder with tiny sizes, so that none rots: ``pytest benchmarks``.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.training.tests.helpers import simulated_arrays

HOME = Path(__file__).parent
RUNS = {
    "adapt": [
        "home arrays.npz --number 2 --steps 1",
        "refusals --steps 1 --size 128",
        "cost --steps 1 --size 128",
    ],
    "collection": ["--workers 1 --frames 2 --size 32 --repeats 1"],
    "comparison": ["report docs"],
    "detection": [
        f"{image} --model raunet --size 128 --images 2 --injections 10 --table table.txt"
        for image in ("noise", "cases")
    ],
    "memory": ["--model raunet --sizes 64 --threads 1"],
    "photometry": ["--model raunet --number 1 --table table.txt"],
    "quality": [
        *(f"{name} arrays.npz --number 1 --samples 4" for name in ("added-noise", "shared-noise")),
        *(f"{name} arrays.npz --number 1 --samples 4" for name in ("temperature", "posterior", "flux-pulls")),
        "solver arrays.npz --number 2 --output solved.safetensors",
        *(f"{name} --number 2 --samples 2" for name in ("pure-noise", "self-noise")),
        "scene-pulls --number 2 --samples 2 --table table.txt",
        *(["cameras . --number 1 --widths 2 --table table.txt"] if find_spec("bm3d") else []),
    ],
    "selfcheck": ["fields --number 1 --size 64", "alarms --number 1", "cost --size 64"],
    "runtimes": ["--size 32 --repeats 1"],
    "throughput": ["--threads 1 --batch 2 --size 16 --frame 16 --repeats 1 --sizes 64 --table table.txt"],
}


def execute(folder, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with prepared arrays, a report and a folder for figures."""
    folder = tmp_path_factory.mktemp("benchmarks")
    np.savez(folder / "arrays.npz", **simulated_arrays(2, size=64))
    (folder / "docs" / "figures").mkdir(parents=True)
    for seed in range(2):
        field = make_galaxy_field((96, 96), seed=seed, n_galaxies=4, n_stars=2, bad_columns=0)
        field.deep_exposure(0.1).write(folder / f"deep_{seed}.fits")
    options = ["--model", "raunet", "--compare", "gaussian", "--injections", "0", "--quiet"]
    deep = ["deep_0.fits", "deep_1.fits"]
    execute(folder, "-m", "astro_ddpm", "evaluate", "--degrade", *deep, "-o", "report", *options)
    return folder


def test_all_are_run():
    assert RUNS.keys() == {path.stem for path in HOME.glob("*.py")} - {"test_smoke"}


@pytest.mark.parametrize(
    ("program", "options"), [(name, text) for name, texts in RUNS.items() for text in texts]
)
def test_runs(folder, program, options):
    out = execute(folder, str(HOME / f"{program}.py"), *options.split())
    assert out or program == "comparison"

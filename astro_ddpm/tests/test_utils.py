# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the helpers, above all of what a process leaves behind that is killed while it writes.
"""

import signal
import subprocess
import sys

import pytest
from astropy.io import fits

from astro_ddpm import EnhancedCCDData, zoo
from astro_ddpm.utils import atomic_path

from .helpers import toy_model

WRITERS = {
    "atomic_path": """
from astro_ddpm.utils import atomic_path

def write(path, version):
    with atomic_path(path, overwrite=True) as partial, partial.open("w") as file:
        for _ in range(3000):
            file.write(f"{version}\\n")
""",
    "EnhancedCCDData": """
import numpy as np
from astro_ddpm import EnhancedCCDData

def write(path, version):
    plane = np.full((64, 64), float(version))
    EnhancedCCDData(plane, unit="adu", samples=[plane]).write(path, overwrite=True)
""",
    "zoo": """
from astro_ddpm import zoo
from astro_ddpm.tests.helpers import toy_model

def write(path, version):
    zoo.save(toy_model(seed=version), path, overwrite=True)
""",
}

# Writes version 1 of a file, and dies while it writes version 2.
PROCESS = """
import os, pathlib, resource, signal, sys

path, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
write(path, 1)
replace = os.replace

def die(source, target):
    if moment == "after":
        replace(source, target)
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "halfway":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    limit = path.stat().st_size // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
else:
    os.replace = die
write(path, 2)
"""


def version_of(path):
    """Return the version that a file holds completely."""
    if path.suffix == ".txt":
        (version,) = set(path.read_text().split())
        assert path.stat().st_size == 6000
        return int(version)
    if path.suffix == ".fits":
        with fits.open(path) as hdus:
            hdus.verify("exception")
        image = EnhancedCCDData.read(path)
        assert (image.data == image.samples[0]).all()
        return int(image.data.max())
    versions = {
        zoo.save(toy_model(seed=seed), path.with_name(f"{seed}.safetensors")): seed for seed in (1, 2)
    }
    return versions[zoo.load(path).sha256]


class TestAtomicPath:
    def test_file_appears_when_complete(self, tmp_path):
        with atomic_path(tmp_path / "file.txt") as partial:
            partial.write_text("new")
            assert partial.parent == tmp_path
            assert partial.suffix == ".txt"
            assert not (tmp_path / "file.txt").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]

    def test_error_leaves_nothing(self, tmp_path):
        with (
            pytest.raises(TypeError, match="data must be str"),
            atomic_path(tmp_path / "file.txt") as partial,
        ):
            partial.write_text(2)
        assert not list(tmp_path.iterdir())

    def test_refuses_to_overwrite(self, tmp_path):
        (tmp_path / "file.txt").write_text("old")
        with pytest.raises(FileExistsError, match="set overwrite"), atomic_path(tmp_path / "file.txt"):
            pass
        assert (tmp_path / "file.txt").read_text() == "old"

    def test_two_writers_at_once(self, tmp_path):
        path = tmp_path / "file.txt"
        with atomic_path(path, overwrite=True) as one, atomic_path(path, overwrite=True) as other:
            assert one != other
            one.write_text("one")
            other.write_text("other")
        assert path.read_text() == "one"  # the last to finish


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of Unix")
@pytest.mark.parametrize(
    ("writer", "name"), [("atomic_path", "a.txt"), ("EnhancedCCDData", "a.fits"), ("zoo", "a.safetensors")]
)
@pytest.mark.parametrize(
    ("moment", "cause", "version"),
    [("halfway", "SIGXFSZ", 1), ("before", "SIGKILL", 1), ("after", "SIGKILL", 2)],
)
def test_killed_process_leaves_a_whole_file(tmp_path, writer, name, moment, cause, version):
    path = tmp_path / name
    command = [sys.executable, "-c", WRITERS[writer] + PROCESS, str(path), moment]
    assert subprocess.run(command, check=False).returncode == -getattr(signal, cause)
    left = [other for other in tmp_path.iterdir() if other != path]
    assert version_of(path) == version
    assert len(left) == (moment != "after")
    assert all(other.name.startswith(".") for other in left)


def test_training_without_lightning_names_the_extra():
    code = "import sys; sys.modules['pytorch_lightning'] = None; from astro_ddpm.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "smoke_raunet"]
    error = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    assert (
        "error: astro_ddpm.training.train needs pytorch_lightning: pip install 'astro_ddpm[train]'" in error
    )

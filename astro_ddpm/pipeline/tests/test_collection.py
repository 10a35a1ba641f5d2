# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the enhancement of many files.
"""

import gzip
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.nddata import InverseVariance
from astropy.table import QTable
from ccdproc import ImageFileCollection
from numpy.testing import assert_array_equal

from astro_ddpm import EnhancedCCDData, conf, enhance, zoo
from astro_ddpm.cli import main
from astro_ddpm.nddata import files
from astro_ddpm.pipeline import collection, enhance_collection, enhance_file
from astro_ddpm.pipeline.workers import process_alone
from astro_ddpm.tests.helpers import SIGMA, make_image, toy_model
from astro_ddpm.utils import partial_path

from .conftest import WAIT


@pytest.fixture
def model(tmp_path):
    zoo.save(toy_model(samples=False), tmp_path / "toy.safetensors")
    return tmp_path / "toy.safetensors"


@pytest.fixture
def frames(tmp_path):
    return write_frames(tmp_path / "raw", 3)


@pytest.fixture
def run(tmp_path, model, frames):
    """Enhance the frames into a folder."""

    def run(paths=frames, **options):
        return enhance_collection(paths, tmp_path / "deep", **{"model": model} | options)

    return run


@pytest.mark.parametrize("ext", ["RED", 2])
def test_extension_of_the_collection(tmp_path, model, ext):
    ccd = make_image()
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(ccd.data, name="BLUE"),
        fits.ImageHDU(ccd.data + 500, name="RED"),
    ]
    (tmp_path / "night").mkdir()
    fits.HDUList(hdus).writeto(tmp_path / "night" / "a.fits")
    options = {"model": model, "background": 500.0, "uncertainty": SIGMA, "seed": 1}
    red = ImageFileCollection(tmp_path / "night", ext=ext)
    named = enhance_collection([tmp_path / "night" / "a.fits[RED]"], tmp_path / "named", **options)
    enhance_collection(red, tmp_path / "deep", **options)
    assert list(named["output"]) == ["a_RED.fits"]
    same = (fits.getdata(tmp_path / name) for name in ("deep/a.fits", "named/a_RED.fits"))
    assert_array_equal(*same)
    assert fits.getdata(tmp_path / "deep" / "a.fits").min() > 400
    again = enhance_collection(red, tmp_path / "deep", **options)
    assert list(again["status"]) == ["skipped"]


def write_frames(folder, n, shape=(40, 36)):
    folder.mkdir()
    paths = [folder / f"frame{i:02}.fits" for i in range(n)]
    for i, path in enumerate(paths):
        make_image(shape, seed=i).write(path)
    return paths


def status(manifest):
    return list(manifest["status"])


def snapshot(folder):
    """Contents and times of the results in a folder."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.fits")}


class TestOneAfterTheOther:
    """Test ``enhance_collection`` without a client."""

    def test_results_are_those_of_enhance(self, tmp_path, frames, run, model):
        manifest = run(seed=5, background=1.5)
        assert status(manifest) == ["done"] * 3
        assert list(manifest["input"]) == [str(path) for path in frames]
        for path, row in zip(frames, manifest, strict=True):
            result = EnhancedCCDData.read(tmp_path / "deep" / row["output"])
            expected = enhance(path, model=model, seed=int(row["seed"]), background=1.5)
            assert_array_equal(result.data, expected.data)
            assert_array_equal(result.uncertainty.array, expected.uncertainty.array)
            assert result.meta["DDPMSEED"] == row["seed"]
            assert result.meta["DDPMSHA"] == row["model_sha256"] == zoo.load(model).sha256
            assert result.meta["DDPMFILE"] == path.name

    def test_default_model(self, tmp_path, frames, model):
        with conf.set_temp("default_model", str(model)):
            manifest = enhance_collection(frames[:1], tmp_path / "default")
        assert list(manifest["model_sha256"]) == [zoo.load(model).sha256]
        result = EnhancedCCDData.read(tmp_path / "default" / manifest["output"][0])
        assert result.meta["DDPMSHA"] == zoo.load(model).sha256

    def test_manifest_is_written(self, tmp_path, run):
        manifest = run(seed=5)
        written = QTable.read(tmp_path / "deep" / "manifest.ecsv")
        assert written.colnames == manifest.colnames
        assert written["seconds"].unit == u.s
        for name in manifest.colnames:
            assert_array_equal(written[name], manifest[name])
            assert written[name].info.description == manifest[name].info.description
        assert written.meta == manifest.meta
        assert written.meta["seed"] == 5
        assert written.meta["versions"].keys() == {"astro_ddpm", "astropy", "numpy", "torch"}

    def test_failures_are_rows(self, tmp_path, frames, run):
        corrupt, truncated, missing = (tmp_path / f"{name}.fits" for name in ("corrupt", "cut", "missing"))
        corrupt.write_bytes(b"not FITS")
        truncated.write_bytes(frames[0].read_bytes()[:6000])
        manifest = run([corrupt, frames[0], truncated, missing, frames[1]])
        assert status(manifest) == ["failed", "done", "failed", "failed", "done"]
        assert "OSError: No SIMPLE card" in manifest["reason"][0]
        assert manifest["reason"][2]
        assert "FileNotFoundError" in manifest["reason"][3]
        assert not any("\n" in reason for reason in manifest["reason"])
        assert sorted(snapshot(tmp_path / "deep")) == ["frame00.fits", "frame01.fits"]

    def test_warnings_are_in_the_manifest(self, tmp_path, frames, run):
        bare = tmp_path / "bare.fits"
        fits.PrimaryHDU(make_image((80, 80)).data).writeto(bare)
        manifest = run([bare, frames[0]])
        assert status(manifest) == ["done", "done"]
        assert "the image has no uncertainty" in manifest["warnings"][0]
        assert manifest["warnings"][1] == ""

    def test_nothing_to_do(self, tmp_path, run):
        assert len(run([])) == 0
        assert len(QTable.read(tmp_path / "deep" / "manifest.ecsv")) == 0

    def test_progress_bar(self, run, capsys):
        run(progress_bar=True)
        assert "3/3" in capsys.readouterr().err
        run()
        assert capsys.readouterr().err == ""

    def test_threads_stay_as_they_are(self, run):
        before = torch.get_num_threads()
        run()
        assert torch.get_num_threads() == before


class TestRerun:
    """Test what happens to results that are there already."""

    def test_nothing_is_done_twice(self, tmp_path, run, model):
        first = run()
        before = snapshot(tmp_path / "deep")
        for options in ({}, {"overwrite": True}, {"n_samples": 16, "device": "cpu", "model": str(model)}):
            again = run(**options)
            assert status(again) == ["skipped"] * 3
            # the seeds are those of the results, not those drawn by the second call
            assert_array_equal(again["seed"], first["seed"])
        assert snapshot(tmp_path / "deep") == before

    @pytest.mark.parametrize(
        ("change", "options", "reason"),
        [
            ("image", {}, "other contents"),
            ("mask", {}, "other contents"),
            ("cut", {}, "not complete"),
            ("foreign", {}, "not made by this function"),
            ("empty", {}, "not readable"),
            (None, {"background": 1.0}, "other options"),
            (None, {"background": np.ones((40, 36))}, "other options"),
            (None, {"ext": 0}, "other options"),
            (None, {"seed": 6}, "another seed"),
            ("model", {}, "other weights"),
        ],
    )
    def test_other_results_are_replaced_only_when_asked(
        self, tmp_path, frames, run, model, change, options, reason
    ):
        mask, output = tmp_path / "mask.fits", tmp_path / "deep" / "frame01.fits"
        fits.PrimaryHDU(np.zeros((40, 36), "u1")).writeto(mask)
        given = {"mask": lambda path: mask if path == frames[1] else None, "seed": 5}
        run(**given)
        if change == "image":
            make_image((40, 36), seed=9).write(frames[1], overwrite=True)
        elif change == "mask":
            fits.PrimaryHDU(np.eye(40, 36, dtype="u1")).writeto(mask, overwrite=True)
        elif change == "cut":
            output.write_bytes(output.read_bytes()[:-2880])
        elif change == "foreign":
            make_image().write(output, overwrite=True)
        elif change == "empty":
            output.write_bytes(b"")
        elif change == "model":
            zoo.save(toy_model(samples=False, seed=1), model, overwrite=True)
        before = snapshot(tmp_path / "deep")
        manifest = run(**given | options)
        assert manifest["status"][1] == "failed"
        assert reason in manifest["reason"][1]
        assert "overwrite" in manifest["reason"][1]
        assert snapshot(tmp_path / "deep") == before
        manifest = run(**given | options, overwrite=True)
        everything = change == "model" or change is None
        assert status(manifest) == (["done"] * 3 if everything else ["skipped", "done", "skipped"])
        assert status(run(**given | options)) == ["skipped"] * 3

    def test_copies_are_the_same_input(self, tmp_path, frames, run):
        run()
        os.utime(frames[0], (1, 1))
        assert status(run()) == ["skipped"] * 3

    def test_interrupted_run_is_continued(self, tmp_path, frames, run, monkeypatch):
        def interrupt(path, *args, **kwargs):
            if path == frames[1]:
                raise KeyboardInterrupt
            return enhance_file(path, *args, **kwargs)

        monkeypatch.setattr(collection, "enhance_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(seed=5)
        monkeypatch.undo()
        left = QTable.read(tmp_path / "deep" / "manifest.ecsv")
        assert status(left) == ["done", "pending", "pending"]
        manifest = run(seed=5)
        assert status(manifest) == ["skipped", "done", "done"]
        assert_array_equal(manifest["seed"], left["seed"])

    def test_leftovers_are_removed(self, tmp_path, run):
        (tmp_path / "deep").mkdir()
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        kept = set()
        for pid, name in ((gone.pid, "frame01"), (gone.pid, "other"), (os.getpid(), "frame02")):
            partial = partial_path(tmp_path / "deep" / f"{name}.fits")
            partial = partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{pid}-"))
            partial.touch()
            kept.add(partial.name)
            if name == "frame01":
                kept.remove(partial.name)
        other_computer = tmp_path / "deep" / f".abcdef-{gone.pid}-1234.partial.frame01.fits"
        other_computer.touch()
        assert status(run()) == ["done"] * 3
        assert {path.name for path in (tmp_path / "deep").glob(".*")} == {*kept, other_computer.name}

    def test_enhance_file_makes_the_same(self, tmp_path, frames, run, model):
        manifest = run(seed=5, mask_treatment="propagate")
        output = tmp_path / "deep" / "frame00.fits"
        output.unlink()
        seed = int(manifest["seed"][0])
        enhance_file(frames[0], output, model=model, seed=seed, mask_treatment="propagate")
        assert status(run(seed=5, mask_treatment="propagate")) == ["skipped"] * 3


class TestSeeds:
    """Test the seeds of frames."""

    def test_do_not_depend_on_the_other_frames(self, tmp_path, frames, model):
        def seeds(paths, location, seed):
            manifest = enhance_collection(paths, tmp_path / location, model=model, seed=seed)
            return dict(zip(manifest["output"], manifest["seed"], strict=True))

        every = seeds(frames, "all", 5)
        assert len(set(every.values())) == 3
        assert seeds(frames[::-1], "backwards", 5) == every
        assert seeds(frames[1:2], "one", 5) == {"frame01.fits": every["frame01.fits"]}
        assert not set(seeds(frames, "other", 6).values()) & set(every.values())

    def test_drawn_seed_is_recorded(self, frames, run):
        first = run()
        again = run(seed=first.meta["seed"])
        assert status(again) == ["skipped"] * 3
        assert_array_equal(again["seed"], first["seed"])


class TestInputs:
    """Test what can be enhanced, and the names of the results."""

    def test_image_file_collection(self, frames, run):
        make_image(meta=fits.Header({"OBJECT": "flat"})).write(frames[0], overwrite=True)
        found = ImageFileCollection(frames[0].parent)
        assert sorted(run(found)["input"]) == [str(path) for path in frames]
        some = run(found.filter(object="galaxy"))
        assert sorted(some["input"]) == [str(path) for path in frames[1:]]
        assert status(some) == ["skipped"] * 2

    def test_unreadable_file_of_a_collection_is_a_row(self, frames, run):
        frames[1].write_bytes(b"not FITS")
        manifest = run(ImageFileCollection(frames[0].parent))
        assert sorted(status(manifest)) == ["done", "done", "failed"]

    def test_names_are_unique(self, tmp_path, model):
        names = [
            "a/1/x.fits",
            "a/2/x.fits",
            "b/1/x.fits",
            "b/3/X.FIT",
            "b/b_1_x.fits",
            "c/y.fits.gz",
            "c/z.fz",
        ]
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            hdus = make_image().to_hdu()
            if path.suffix == ".fz":
                hdus = fits.HDUList(
                    [fits.PrimaryHDU(), fits.CompImageHDU(hdus[0].data, hdus[0].header), *hdus[1:]]
                )
            hdus.writeto(path)
        manifest = enhance_collection(paths, tmp_path / "deep", model=model)
        assert status(manifest) == ["done"] * 7
        first, *others = manifest["output"]
        assert first == "a_1_x.fits"
        third = f"{tmp_path.name}_b_1_x.fits"
        assert others == ["2_x.fits", third, "3_X.fits", "b_b_1_x.fits", "y.fits", "z.fits"]
        assert {path.name for path in (tmp_path / "deep").glob("*.fits")} == {*manifest["output"]}

    def test_same_name_in_same_folder(self, frames, run):
        packed = frames[0].with_suffix(".fits.gz")
        packed.write_bytes(gzip.compress(frames[0].read_bytes()))
        with pytest.raises(ValueError, match=r"of one name in one folder: .*00\.fits and .*00\.fits\.gz"):
            run([*frames, packed])

    def test_inputs_are_never_replaced(self, frames, model):
        before = snapshot(frames[0].parent)
        with pytest.raises(ValueError, match=r"must be another folder: frame00\.fits"):
            enhance_collection(frames, frames[0].parent, model=model, overwrite=True)
        assert snapshot(frames[0].parent) == before

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"paths": "raw.fits"}, TypeError, "not a single path"),
            ({"colour": 1, "taste": 2}, TypeError, "unknown options: colour, taste"),
            ({"model": "none"}, ValueError, "unknown model 'none'"),
            ({"add_keyword": False}, ValueError, "add_keyword must be True"),
            ({"samples_file": "samples.fits"}, TypeError, "samples_file is for one image"),
        ],
    )
    def test_errors(self, tmp_path, run, change, error, match):
        with pytest.raises(error, match=match):
            run(**change)
        assert not (tmp_path / "deep").exists()

    def test_loaded_model(self, frames, run, model):
        run(seed=5)
        assert status(run(seed=5, model=zoo.load(model))) == ["skipped"] * 3


class TestPlanes:
    """Test noise and masks in files."""

    @pytest.fixture
    def bare(self, tmp_path):
        """Write frames without noise, each with a weight beside it that differs from frame to frame."""
        (tmp_path / "bare").mkdir()
        paths = [tmp_path / "bare" / f"f{i}_sci.fits" for i in range(2)]
        for i, path in enumerate(paths):
            data, weight = make_image(seed=i).data, np.full((40, 36), SIGMA**-2 / (i + 1))
            fits.PrimaryHDU(data).writeto(path)
            for name in (f"f{i}_sci.weight.fits", f"f{i}_wht.fits"):
                fits.PrimaryHDU(weight).writeto(path.with_name(name))
            hdus = [fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI"), fits.ImageHDU(weight, name="WHT")]
            fits.HDUList(hdus).writeto(path.with_name(f"f{i}.mef"))
        return paths

    def check(self, manifest, model, mask=None):
        assert status(manifest) == ["done"] * 2
        for i, row in enumerate(manifest):
            noise = InverseVariance(np.full((40, 36), SIGMA**-2 / (i + 1)))
            image = make_image(seed=i, uncertainty=noise, mask=mask)
            expected = enhance(image, model=model, seed=int(row["seed"]))
            output = Path(manifest.meta["options"]["model"]).parent / "deep" / row["output"]
            assert_array_equal(EnhancedCCDData.read(output).data, expected.data)

    def test_pattern(self, bare, run, model):
        self.check(run(bare, weight="{folder}/{stem}.weight.fits"), model)

    def test_function(self, bare, run, model):
        weight = lambda path: path.with_name(path.name.replace("sci", "wht"))  # noqa: E731
        self.check(run(bare, weight=weight), model)

    def test_extensions_of_one_file(self, bare, run, model):
        paths = [path.with_name(path.name[:2] + ".mef") for path in bare]
        self.check(run(paths, ext="SCI", weight="{path}[WHT]"), model)

    def test_one_file_for_all(self, tmp_path, bare, run, model):
        bad = np.zeros((40, 36), "u1")
        bad[:, 7] = 1
        fits.PrimaryHDU(bad).writeto(tmp_path / "bad.fits")
        manifest = run(bare, weight="{folder}/{stem}.weight.fits", mask=tmp_path / "bad.fits")
        self.check(manifest, model, mask=bad > 0)

    def test_missing_plane_is_a_row(self, bare, run):
        bare[0].with_name("f0_sci.weight.fits").unlink()
        manifest = run(bare, weight="{folder}/{stem}.weight.fits")
        assert status(manifest) == ["failed", "done"]
        assert "f0_sci.weight.fits" in manifest["reason"][0]

    def test_missing_extension_is_a_row(self, bare, run):
        manifest = run([bare[0].with_name("f0.mef")], ext="SCI", weight="{path}[NOISE]")
        assert status(manifest) == ["failed"]
        assert "'NOISE' is not in" in manifest["reason"][0]


class TestCommandLine:
    """Test ``astro-ddpm enhance`` with several inputs."""

    def test_several_inputs(self, tmp_path, frames, model, capsys, monkeypatch):
        monkeypatch.setattr("astro_ddpm.utils.PATIENCE", 0)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # a bar appears in terminals
        frames[1].write_bytes(b"not FITS")
        args = ["enhance", *map(str, frames), "-o", str(tmp_path / "deep"), "--model", str(model)]
        assert main(args) == 1
        captured = capsys.readouterr()
        assert "2 done, 1 failed" in captured.out
        assert "3/3" in captured.err
        lines = [line for line in captured.err.splitlines() if line.startswith("astro-ddpm:")]
        assert len(lines) == 1
        assert lines[0].startswith(f"astro-ddpm: error: {frames[1]}: OSError")
        make_image(seed=1).write(frames[1], overwrite=True)
        assert main([*args, "--quiet"]) == 0
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", "")
        assert status(QTable.read(tmp_path / "deep" / "manifest.ecsv")) == ["skipped", "done", "skipped"]

    def test_one_input_and_a_folder(self, tmp_path, frames, model):
        bare = tmp_path / "bare.fits"
        fits.PrimaryHDU(make_image().data).writeto(bare)
        fits.PrimaryHDU(np.full((40, 36), SIGMA)).writeto(tmp_path / "bare.rms.fits")
        (tmp_path / "deep").mkdir()
        noise = ["--stddev", "{folder}/{stem}.rms.fits"]
        args = ["enhance", str(bare), "-o", str(tmp_path / "deep"), *noise, "--model", str(model), "--quiet"]
        assert main(args) == 0
        result = EnhancedCCDData.read(tmp_path / "deep" / "bare.fits")
        assert_array_equal(result.data, enhance(make_image(wcs=None), model=model).data)

    def test_warnings_are_lines(self, tmp_path, frames, model, capsys):
        bare = tmp_path / "bare.fits"
        fits.PrimaryHDU(make_image((80, 80)).data).writeto(bare)
        args = ["enhance", str(bare), str(frames[0]), "-o", str(tmp_path / "deep"), "--model", str(model)]
        assert main([*args, "--quiet"]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"astro-ddpm: warning: {bare}: the image has no uncertainty")


def die_while_writing(name, marker):
    """Let this process be killed in the middle of writing a file, unless another one was before."""
    original = files.atomic_path

    @contextmanager
    def deadly(path, **kwargs):
        with original(path, **kwargs) as partial:
            if Path(path).name == name and not marker.exists():
                marker.write_text(str(os.getpid()))
                partial.write_bytes(b"SIMPLE  =")
                os.kill(os.getpid(), signal.SIGKILL)
            yield partial

    files.atomic_path = deadly


def count_threads():
    """Count the threads of PyTorch before, while and after a frame is done."""
    before = torch.get_num_threads()
    with process_alone():
        inside = torch.get_num_threads()
    return before, inside, torch.get_num_threads()


def do_not_retry(dask_scheduler):
    dask_scheduler.allowed_failures = 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be killed in the same way")
class TestCluster:
    """Test ``enhance_collection`` on two worker processes of two threads."""

    def test_worker_is_killed(self, client, tmp_path, model):
        frames, deep = write_frames(tmp_path / "raw", 12, (64, 64)), tmp_path / "deep"
        frames[8].write_bytes(frames[8].read_bytes()[:10000])
        marker = tmp_path / "killed"
        workers = client.run(os.getpid)
        client.run(die_while_writing, "frame05.fits", marker)

        manifest = enhance_collection(frames, deep, client=client, model=model, seed=5)
        assert int(marker.read_text()) in workers.values()
        assert [*np.flatnonzero(manifest["status"] == "failed")] == [8]
        assert manifest["reason"][8]
        assert status(manifest).count("done") == 11
        assert not list(deep.glob(".*"))  # the half of a file is gone

        here = enhance_collection(frames, tmp_path / "here", model=model, seed=5)
        assert status(here) == ["done"] * 8 + ["failed"] + ["done"] * 3
        assert_array_equal(here["seed"], manifest["seed"])
        assert len(snapshot(deep)) == 11
        for name in snapshot(deep):
            result, expected = (EnhancedCCDData.read(folder / name) for folder in (deep, tmp_path / "here"))
            np.testing.assert_allclose(result.data, expected.data, rtol=1e-5, atol=1e-4)

        before = snapshot(deep)
        again = enhance_collection(frames, deep, client=client, model=model, seed=5)
        assert status(again) == ["skipped"] * 8 + ["failed"] + ["skipped"] * 3
        assert snapshot(deep) == before

    def test_threads(self, client):
        before, inside, after = client.submit(count_threads, pure=False).result(timeout=WAIT)
        assert inside == 2
        assert after == before

    def test_frame_that_kills_workers_is_a_row(self, client, tmp_path, model):
        frames = write_frames(tmp_path / "raw", 1)
        client.run_on_scheduler(do_not_retry)
        client.run(die_while_writing, "frame00.fits", tmp_path / "killed")
        manifest = enhance_collection(frames, tmp_path / "deep", client=client, model=model)
        assert status(manifest) == ["failed"]
        assert manifest["reason"][0].startswith("KilledWorker")

    def test_loaded_model(self, client, frames, tmp_path, model):
        with pytest.raises(TypeError, match="model must be a name or a path if there is a client"):
            enhance_collection(frames, tmp_path / "deep", client=client, model=zoo.load(model))


def test_client_without_dask(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"astro_ddpm\[dask\]"):
        run(client=object())

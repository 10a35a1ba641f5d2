# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the prepared arrays.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from astro_ddpm.training.arrays import open_arrays, write_arrays


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "planes": rng.standard_normal((3, 4, 5)).astype(np.float32),
        "turned": np.asfortranarray(rng.standard_normal((6, 7))),
        "numbers": np.arange(5, dtype=">i4"),
    }


def test_round_trip(arrays, tmp_path):
    write_arrays(tmp_path / "a.npz", arrays)
    opened = open_arrays(tmp_path / "a.npz")
    assert list(opened) == list(arrays)
    for name, values in arrays.items():
        assert isinstance(opened[name], np.memmap)
        assert opened[name].dtype == values.dtype
        assert_array_equal(opened[name], values)


def test_read_only(arrays, tmp_path):
    write_arrays(tmp_path / "a.npz", arrays)
    with pytest.raises(ValueError, match="read-only"):
        open_arrays(tmp_path / "a.npz")["planes"][0] = 1


def test_is_what_numpy_reads_and_writes(arrays, tmp_path):
    write_arrays(tmp_path / "a.npz", arrays)
    np.savez(tmp_path / "b.npz", **arrays)
    with np.load(tmp_path / "a.npz") as loaded:
        for name, values in open_arrays(tmp_path / "b.npz").items():
            assert_array_equal(values, loaded[name])


def test_no_overwriting(arrays, tmp_path):
    write_arrays(tmp_path / "a.npz", arrays)
    with pytest.raises(FileExistsError, match="set overwrite"):
        write_arrays(tmp_path / "a.npz", arrays)
    write_arrays(tmp_path / "a.npz", {"x": np.ones(2)}, overwrite=True)
    assert list(open_arrays(tmp_path / "a.npz")) == ["x"]


def test_other_files(arrays, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=r"is compressed; write it with numpy\.savez"):
        open_arrays(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_text("text")
    with pytest.raises(ValueError, match=r"is no \.npz file"):
        open_arrays(tmp_path / "b.npz")
    with pytest.raises(FileNotFoundError):
        open_arrays(tmp_path / "missing.npz")

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the examples, at a reduced size.
"""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData
from astro_ddpm.datasets import Detector, make_galaxy_field

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch):
    """Run an example as a program and return its variables."""
    pytest.importorskip("photutils", minversion="3.0")  # which the examples are written for
    import matplotlib.pyplot as plt

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        return runpy.run_path(str(EXAMPLES / name))

    monkeypatch.setattr(plt, "show", lambda: None)
    yield run
    plt.close("all")


class TestRawToCatalog:
    def test_simulated_frame(self, run):
        result = run("plot_raw_to_catalog.py", "--size", 64, "--samples", 3)
        deep, table = result["deep"], result["table"]
        assert isinstance(deep, EnhancedCCDData)
        assert deep.samples.shape == (3, 64, 64)
        brightest = table[0]
        assert_allclose(brightest["flux"], brightest["flux_true"], rtol=0.05)
        assert_allclose(brightest["flux_before"], brightest["flux_true"], rtol=0.05)
        assert np.all(table["flux_err"] > 0)
        dead = result["detector"].response < 0.1
        assert_array_equal(result["dead"], dead)
        assert_array_equal(deep.mask | dead[result["part"]], deep.mask)

    def test_frame_of_ones_own(self, run, tmp_path):
        detector = Detector(
            shape=(100, 130),
            gain=1.5,
            read_noise=4.0,
            bias_section="[1:20, 1:100]",
            trim_section="[31:130, 1:100]",
            bias_structure=0,
            response_scatter=0,
            vignetting=0,
            bad_columns=0,
        )
        field = make_galaxy_field((100, 100), n_galaxies=2, n_stars=2, n_companions=0, bad_columns=0, seed=3)
        detector.raw_frame(field, cosmic_rays=3).write(tmp_path / "raw.fits")
        result = run("plot_raw_to_catalog.py", tmp_path / "raw.fits", "--size", 64, "--samples", 2)
        table, part = result["table"], result["part"]
        assert "flux_true" not in table.colnames
        truth = 1.5 * field.truth[part][result["segments"].data == table["label"][0]].sum()
        assert_allclose(table["flux"][0].value, truth, rtol=0.05)
        header = result["deep"].meta
        assert (header["GAIN"], header["RDNOISE"], header["DDPMNSAM"]) == (1.5, 4, 2)

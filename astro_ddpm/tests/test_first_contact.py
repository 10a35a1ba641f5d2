# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of what somebody meets first: files without unit, progress, and what an image shows of itself.
"""

import re
import sys
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from matplotlib.image import imread
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, enhance
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.utils import progress


@pytest.fixture(scope="module")
def ccd():
    ccd = make_galaxy_field((72, 64), seed=2, n_galaxies=2, n_stars=2).image
    ccd.psf = None  # which arithmetic gives up with a warning
    ccd.data = ccd.data + 300 + np.arange(64.0)
    return ccd


@pytest.fixture(scope="module")
def deep(ccd):
    return enhance(ccd, background=300 + np.ones((72, 1)) * np.arange(64.0), n_samples=2, steps=1, seed=1)


def test_html_says_what_it_is(deep):
    html = deep._repr_html_()
    for text in ("64 x 72 pixels, adu", "ddpm", "<td style='text-align:left'>1</td>", "image"):
        assert text in html
    picture = imread(BytesIO(b64decode(re.search("base64,([^']+)", html)[1])))
    assert picture.shape[:2] == (72, 64)
    brightness = picture[::-1, :, :3].sum(axis=2)
    peak = np.unravel_index(np.argmax(deep.data - deep.background), deep.shape)
    assert brightness[peak] > np.percentile(brightness, 99)


def test_html_of_a_part_and_of_what_is_unknown(deep):
    assert "check" not in deep[:40, :40]._repr_html_()
    assert "2 x 2 pixels" in EnhancedCCDData(np.arange(4.0).reshape(2, 2), unit="adu")._repr_html_()


def test_html_tells_the_check_without_tags(ccd):
    result = enhance(ccd, model="raunet", background=330)
    result.check.meta["sentence"] = "a < b"
    assert "a &lt; b" in result._repr_html_()


def test_plot(deep):
    figure = deep.plot()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["Input", "Enhanced", "Uncertainty", "Input − enhanced", "Sample 1"]
    shown = next(axes for axes in figure.axes if axes.get_title() == "Enhanced").images[0].get_array()
    assert_allclose(shown, deep.data - deep.background, rtol=1e-5, atol=1e-3)  # without the sky


def test_background_and_input_follow(deep, ccd, tmp_path):
    assert_allclose(deep.background[5], 300 + np.arange(64))
    assert_array_equal(deep.observed, ccd.data)
    part = deep[10:30, 5:45]
    assert_array_equal(part.background, deep.background[10:30, 5:45])
    assert_array_equal(part.observed, ccd.data[10:30, 5:45])
    electrons = deep.convert_unit_to("electron", [(u.adu, u.electron, lambda x: 2 * x, lambda x: x / 2)])
    assert_allclose(electrons.background, 2 * deep.background)
    assert_array_equal(deep.copy().background, deep.background)
    assert deep.multiply(2).background is None
    deep.write(tmp_path / "deep.fits")
    back = EnhancedCCDData.read(tmp_path / "deep.fits")
    assert_array_equal(back.background, deep.background)
    assert back.observed is None
    back.plot(image=ccd)


def test_a_number_as_background_is_in_the_header(ccd, tmp_path):
    deep = enhance(ccd, model="raunet", background=330)
    assert deep.background == 330
    deep.write(tmp_path / "deep.fits")
    assert EnhancedCCDData.read(tmp_path / "deep.fits").background == 330


def test_no_background(ccd):
    sky = ccd.subtract(330 * u.adu, handle_meta="first_found")
    assert enhance(sky, model="raunet").background is None


@pytest.mark.parametrize("position", ["pixels", "sky"])
def test_cutout_keeps_class_and_samples(deep, position):
    place = (39.7, 29.8) if position == "pixels" else deep.wcs.pixel_to_world(39.7, 29.8)
    part = deep.cutout(place, (20, 10))
    assert type(part) is EnhancedCCDData
    assert_array_equal(part.samples, deep.samples[:, 20:40, 35:45])
    assert_array_equal(part.mask, deep.mask[20:40, 35:45])
    there = part.wcs.pixel_to_world(5, 10)
    assert there.separation(deep.wcs.pixel_to_world(40, 30)).arcsec < 1e-6


class TestProgress:
    """Test that a bar appears by itself where somebody sees it, and the work is long."""

    @staticmethod
    def steps(show=None):
        with progress(3, show=show) as advance:
            for _ in range(3):
                advance()

    @pytest.mark.parametrize("patience", [0, 100])
    @pytest.mark.parametrize("place", ["terminal", "notebook", "file"])
    def test_by_itself(self, monkeypatch, capsys, place, patience):
        monkeypatch.setattr("astro_ddpm.utils.PATIENCE", patience)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: place == "terminal")
        if place == "notebook":
            shell = type("Shell", (), {"kernel": None})()
            module = type(sys)("IPython")
            module.get_ipython = lambda: shell
            monkeypatch.setitem(sys.modules, "IPython", module)
        self.steps()
        assert ("3/3" in capsys.readouterr().err) == (place != "file" and patience == 0)

    def test_as_asked(self, capsys):
        self.steps(show=False)
        assert capsys.readouterr().err == ""
        self.steps(show=True)
        assert "3/3" in capsys.readouterr().err


def test_result_of_a_file_without_unit_is_read_by_ccddata(tmp_path):
    rng = np.random.default_rng(0)
    fits.writeto(tmp_path / "image.fits", rng.normal(0, 1, (48, 48)).astype(np.float32))
    with pytest.warns(AstropyUserWarning, match="no uncertainty"):
        deep = enhance(tmp_path / "image.fits", n_samples=2, steps=1, seed=1)
    deep.write(tmp_path / "deep.fits")
    for kind in (CCDData, EnhancedCCDData):
        back = kind.read(tmp_path / "deep.fits", unit="adu")
        assert back.unit == u.adu
        assert_array_equal(back.data, deep.data)
        assert_array_equal(back.uncertainty.array, deep.uncertainty.array)


def test_overscan_that_is_still_there():
    frame = CCDData(
        np.random.default_rng(0).normal(0, 1, (48, 64)),
        unit="adu",
        uncertainty=StdDevUncertainty(np.ones((48, 64))),
    )
    frame.header.update({"BIASSEC": "[1:10, 1:48]", "TRIMSEC": "[13:64, 1:48]"})
    with pytest.warns(AstropyUserWarning, match="cut the overscan off"):
        enhance(frame, model="raunet")
    enhance(frame[:, 12:], model="raunet")  # does not warn
    enhance(frame[5:45, 20:60], model="raunet")

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of headers and outputs: nothing that was computed is lost, and what was written can be read.
"""

import multiprocessing
import os

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, enhance, pipeline, provenance
from astro_ddpm.nddata import Exposure, read_image
from astro_ddpm.pipeline import enhance_ccd, enhance_file

from .helpers import SIGMA, make_image, toy_model

MODEL = toy_model(samples=False)
OPTIONS = {"model": MODEL, "uncertainty": SIGMA, "seed": 1}
SHAPE = (40, 36)


def write_raw(path, *cards):
    """Write an image whose header holds cards that astropy would not write."""
    header = fits.PrimaryHDU(make_image().data).header
    text = "".join([*map(str, header.cards), *(card.ljust(80)[:80] for card in cards), "END".ljust(80)])
    data = make_image().data.astype(">f4").tobytes()
    content = text.ljust(-(-len(text) // 2880) * 2880).encode("latin1")
    path.write_bytes(content + data + bytes(-len(data) % 2880))
    return path


def lookup_hdus():
    """Return the HDUs of an image of a camera whose distortion is in tables, a quarter of a pixel."""
    image = fits.ImageHDU(make_image().data, make_image().wcs.to_header(), name="SCI")
    tables = []
    for k in (1, 2):
        image.header[f"CPDIS{k}"] = "LOOKUP"
        for key, value in (("EXTVER", k), ("NAXES", 2), ("AXIS.1", 1), ("AXIS.2", 2)):
            image.header[f"DP{k}.{key}"] = float(value)
        tables.append(fits.ImageHDU(np.full((4, 4), 0.25 * k, "f4"), name="WCSDVARR", ver=k))
        tables[-1].header.update({f"{key}{i}": 1.0 for key in ("CRPIX", "CRVAL") for i in (1, 2)})
        tables[-1].header.update({"CDELT1": 15.0, "CDELT2": 15.0})
    return fits.HDUList([fits.PrimaryHDU(), image, *tables])


class TestCards:
    @pytest.mark.parametrize(
        ("card", "keyword", "value"),
        [
            ("CCD.TEMP=                -90.5", "CCD_TEMP", -90.5),
            ("READ/N  =                  3.5", "READ_N", 3.5),
            ("AIR MASS=                  1.2", "AIR_MASS", 1.2),
            ("BAND    = 'r'      / a\ttab", "BAND", "r"),
            ("DATE-OBS= 2020-01-01T00:00:00 / start", "DATE-OBS", "2020-01-01T00:00:00"),
            ("AIRMASS =                  1,5", "AIRMASS", "1,5"),
            ("TARGET  = 'M 31", "TARGET", "M 31"),
        ],
    )
    def test_illegal_cards(self, tmp_path, card, keyword, value):
        write_raw(tmp_path / "image.fits", card)
        with pytest.warns(AstropyUserWarning, match="cards that FITS does not allow"):
            enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **OPTIONS)
        with fits.open(tmp_path / "deep.fits") as hdus:
            hdus.verify("exception")
            assert hdus[0].header[keyword] == value

    @pytest.mark.parametrize("bunit", [2.5, fits.card.Undefined(), "", True])
    def test_bunit_that_is_no_text(self, tmp_path, bunit):
        fits.PrimaryHDU(make_image().data, fits.Header([("BUNIT", bunit)])).writeto(tmp_path / "image.fits")
        enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **OPTIONS)
        assert CCDData.read(tmp_path / "deep.fits", unit="adu").shape == SHAPE

    def test_bunit_of_the_primary_header(self, tmp_path):
        primary = fits.PrimaryHDU(header=fits.Header([("BUNIT", "electron")]))
        fits.HDUList([primary, fits.ImageHDU(make_image().data)]).writeto(tmp_path / "image.fits")
        assert read_image(tmp_path / "image.fits").unit == u.electron

    def test_cards_of_integers(self, tmp_path):
        data = np.round(100 * make_image().data).astype(np.int16)
        data[3, 4] = -32768
        header = make_image().wcs.to_header()
        header.update({"BLANK": -32768, "PC001001": 1.0, "PC002002": 1.0})
        fits.PrimaryHDU(data, header).writeto(tmp_path / "image.fits")
        deep = enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **OPTIONS)
        assert_array_equal(np.argwhere(deep.mask), [[3, 4]])
        assert not {"BLANK", "PC001001", "PC002002"} & {*fits.getheader(tmp_path / "deep.fits")}

    def test_history_without_numpy(self):
        header = fits.Header()
        provenance.add(header, {"gain": np.float64(2.5), "read_noise": np.float32(3)}, "enhance_ccd")
        assert "gain=2.5, read_noise=3.0" in str(header["HISTORY"])


class TestWCS:
    def test_lookup_tables(self, tmp_path):
        hdus = lookup_hdus()
        hdus.writeto(tmp_path / "image.fits")
        truth = WCS(hdus[1].header, hdus).all_pix2world([[3, 30]], 0)
        assert np.abs(truth - make_image().wcs.wcs_pix2world([[3, 30]], 0)).max() > 1e-5
        deep = enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **OPTIONS)
        with fits.open(tmp_path / "deep.fits") as written:
            again = WCS(written[0].header, written)
            for wcs in (deep.wcs, again, EnhancedCCDData.read(tmp_path / "deep.fits").wcs):
                assert_allclose(wcs.all_pix2world([[3, 30]], 0), truth, rtol=0, atol=1e-9)

    def test_lookup_tables_that_are_missing(self, tmp_path):
        lookup_hdus()[:2].writeto(tmp_path / "image.fits")
        with pytest.warns(AstropyUserWarning, match="the distortion of the WCS is lost"):
            ccd = read_image(tmp_path / "image.fits")
        assert_allclose(ccd.wcs.all_pix2world([[3, 30]], 0), make_image().wcs.wcs_pix2world([[3, 30]], 0))

    def test_plate_solution(self, tmp_path):
        header = fits.Header()
        header.update(
            {"PLTRAH": 3, "PLTRAM": 20, "PLTRAS": 7.5, "PLTDECSN": "-", "PLTDECD": 41, "PLTDECM": 5}
        )
        header.update({"PLTDECS": 12.0, "PLTSCALE": 67.2, "XPIXELSZ": 25.284, "YPIXELSZ": 25.284})
        header.update({"CNPIX1": 6000, "CNPIX2": 5200, "PPO3": 177000.0, "PPO6": 177000.0})
        header.update({f"PPO{i}": 0.0 for i in (1, 2, 4, 5)})
        header.update({f"AMD{axis}{i}": 0.0 for axis in "XY" for i in range(1, 21)})
        for axis in "XY":
            header.update(
                {f"AMD{axis}1": 67.2, f"AMD{axis}2": 0.01, f"AMD{axis}4": 1e-5, f"AMD{axis}8": 2e-6}
            )
        fits.PrimaryHDU(make_image().data, header).writeto(tmp_path / "image.fits")
        truth = WCS(fits.getheader(tmp_path / "image.fits")).pixel_to_world([3, 30], [5, 20])
        enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **OPTIONS)
        header = fits.getheader(tmp_path / "deep.fits")
        assert not {"AMDX1", "PLTRAH", "DQ1"} & {*header}
        assert WCS(header).pixel_to_world([3, 30], [5, 20]).separation(truth).arcsec.max() < 1e-3

    def test_planes_match_the_image(self, tmp_path):
        image = enhance(make_image(mask=np.eye(*SHAPE, dtype=bool)), model=toy_model(), n_samples=2, steps=1)
        image.write(tmp_path / "deep.fits")
        with fits.open(tmp_path / "deep.fits") as hdus:
            assert {hdu.name for hdu in hdus} == {"PRIMARY", "MASK", "UNCERT", "SAMPLES"}
            for hdu in hdus:
                sky = WCS(hdu.header).celestial.wcs_pix2world([[3, 30]], 0)
                assert_allclose(sky, image.wcs.wcs_pix2world([[3, 30]], 0))
                assert hdu.header.get("BUNIT") == (None if hdu.name == "MASK" else "adu")


class TestPlaces:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch):
        monkeypatch.setattr(pipeline.files, "enhance_ccd", None)

    def test_no_folder(self, tmp_path):
        make_image().write(tmp_path / "image.fits")
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            enhance_file(tmp_path / "image.fits", tmp_path / "none" / "deep.fits", **OPTIONS)

    def test_name_that_is_too_long(self, tmp_path):
        make_image().write(tmp_path / "image.fits")
        with pytest.raises(OSError, match="cannot be written"):
            enhance_file(tmp_path / "image.fits", tmp_path / f"{'a' * 251}.fits", **OPTIONS)

    def test_folder_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        make_image().write(tmp_path / "image.fits")

        def refuse(self):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr("pathlib.Path.touch", refuse)
        with pytest.raises(PermissionError, match=r"output .*deep.fits cannot be written: Permission denied"):
            enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **OPTIONS)

    def test_folder_in_the_place_of_the_output(self, tmp_path):
        make_image().write(tmp_path / "image.fits")
        with pytest.raises(IsADirectoryError, match="is a folder"):
            enhance_file(tmp_path / "image.fits", tmp_path, overwrite=True, **OPTIONS)


@pytest.mark.parametrize("length", [241, 255])
def test_long_names(tmp_path, length):
    make_image().write(tmp_path / "image.fits")
    output = tmp_path / ("a" * (length - 5) + ".fits")
    ccd = make_image()
    enhance_file(tmp_path / "image.fits", output, model=MODEL, seed=1)
    assert fits.getdata(output).shape == ccd.shape
    assert len(list(tmp_path.iterdir())) == 2


class TestNotFlux:
    def test_asinh_magnitudes(self):
        ccd = make_image()
        ccd.meta.update({"BSOFTEN": 3.0, "BOFFSET": -2.0})
        with pytest.raises(ValueError, match=r"asinh magnitudes .BSOFTEN"):
            enhance(ccd, model=MODEL)

    def test_bayer_pattern(self):
        ccd = make_image()
        ccd.meta["BAYERPAT"] = "RGGB"
        with pytest.warns(AstropyUserWarning, match="BAYERPAT = 'RGGB' in the header"):
            enhance(ccd, model=MODEL)

    def test_enhanced_already(self):
        deep = enhance(make_image(), model=MODEL)
        for image in (deep, CCDData(deep.data, unit="adu", meta=deep.meta)):
            with pytest.raises(ValueError, match="has been enhanced already"):
                enhance(image, model=MODEL)
        assert enhance(deep, model=MODEL, again=True).shape == deep.shape


class TestAxesOfLengthOne:
    def test_file(self, tmp_path):
        ccd, wcs = make_image(), WCS(naxis=4)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN", "FREQ", "STOKES"
        wcs.wcs.crval, wcs.wcs.crpix = (150.0, 2.0, 1.4e9, 1.0), (18, 20, 1, 1)
        wcs.wcs.cdelt = -5e-5, 5e-5, 1e6, 1.0
        fits.PrimaryHDU(ccd.data[None, None], wcs.to_header()).writeto(tmp_path / "image.fits")
        fits.PrimaryHDU(np.full((1, 1, *SHAPE), SIGMA)).writeto(tmp_path / "noise.fits")
        options = {"model": MODEL, "stddev": tmp_path / "noise.fits"}
        deep = enhance_file(tmp_path / "image.fits", tmp_path / "deep.fits", **options)
        assert_array_equal(deep.data, enhance(ccd.data, uncertainty=SIGMA, model=MODEL).data)
        back = EnhancedCCDData.read(tmp_path / "deep.fits")
        assert_allclose(back.wcs.wcs_pix2world([[3, 30]], 0), ccd.wcs.wcs_pix2world([[3, 30]], 0))

    def test_memory(self):
        ccd = make_image(mask=np.eye(*SHAPE, dtype=bool))
        noise = type(ccd.uncertainty)(ccd.uncertainty.array[None])
        deep = CCDData(ccd.data[None], unit="adu", mask=ccd.mask[None], uncertainty=noise)
        for step in (enhance, enhance_ccd):
            result = step(deep, model=MODEL)
            assert_array_equal(result.data, enhance(ccd, model=MODEL).data)
            assert_array_equal(result.mask, ccd.mask)

    def test_cubes_are_refused(self):
        with pytest.raises(ValueError, match="two-dimensional"):
            Exposure.parse(np.ones((2, 4, 4)))

    @pytest.mark.parametrize("first", [np.ones(64), np.ones((0, 5))])
    def test_first_image_is_not_empty(self, tmp_path, first):
        hdus = fits.HDUList([fits.PrimaryHDU(first.astype("f4")), fits.ImageHDU(make_image().data)])
        hdus.writeto(tmp_path / "image.fits")
        assert read_image(tmp_path / "image.fits").shape == SHAPE


def _enhance_sum(seed):
    return float(enhance(make_image(seed=seed), model=MODEL).data.sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_after_enhance():
    import torch

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        alone = _enhance_sum(3)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply_async(_enhance_sum, (3,)).get(60) == pytest.approx(alone, rel=1e-5)
    finally:
        torch.set_num_threads(threads)

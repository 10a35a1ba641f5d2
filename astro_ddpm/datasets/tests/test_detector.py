# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the simulated CCD.
"""

from dataclasses import replace

import astropy.units as u
import ccdproc
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm.datasets import Detector, make_galaxy_field

HEADER = {
    "NAXIS1": 160,
    "NAXIS2": 128,
    "GAIN": 1.9,
    "RDNOISE": 5.0,
    "BIASSEC": "[4:23, 1:128]",
    "TRIMSEC": "[33:160, 1:128]",
}


@pytest.fixture(scope="module")
def detector():
    return Detector.from_header(HEADER)


@pytest.fixture(scope="module")
def field():
    return make_galaxy_field((128, 128), n_galaxies=5, n_stars=3, seed=2, sky_level=86, bad_columns=0)


def light(detector, frame):
    return frame.data[detector.light].astype(float)


class TestDetector:
    def test_header(self, detector, field):
        for frame, kind in (
            (detector.bias_frame(), "zero"),
            (detector.flat_frame(), "flat"),
            (detector.raw_frame(field), "object"),
        ):
            assert frame.data.dtype == np.uint16
            assert frame.shape == (128, 160)
            assert frame.unit == u.adu
            assert frame.header["IMAGETYP"] == kind
            for keyword in ("GAIN", "RDNOISE", "BIASSEC", "TRIMSEC"):
                assert frame.header[keyword] == HEADER[keyword]

    def test_quantities(self, detector):
        same = Detector(
            shape=(128, 160),
            gain=1.9 * u.electron / u.adu,
            read_noise=5 * u.electron,
            trim_section=HEADER["TRIMSEC"],
            bias_section=HEADER["BIASSEC"],
        )
        assert same == detector

    def test_whole_frame_without_a_section(self):
        assert Detector(shape=(20, 30), gain=1, read_noise=1).light_shape == (20, 30)
        part = Detector(shape=(20, 30), gain=1, read_noise=1, trim_section="[11:, :]")
        assert part.light_shape == (20, 20)

    def test_seeds(self, detector, field):
        assert_array_equal(detector.raw_frame(field).data, detector.raw_frame(field).data)
        assert np.any(detector.bias_frame().data != detector.bias_frame(seed=2).data)
        assert_array_equal(detector.response, Detector.from_header(HEADER).response)
        assert np.any(detector.response != replace(detector, seed=1).response)

    def test_round_trip(self, detector, field, tmp_path):
        frame = detector.raw_frame(field)
        frame.write(tmp_path / "raw.fits")
        back = CCDData.read(tmp_path / "raw.fits")
        assert_array_equal(back.data, frame.data)
        again = Detector.from_header(fits.getheader(tmp_path / "raw.fits"))
        assert again == detector

    @pytest.mark.parametrize(
        ("properties", "match"),
        [
            ({"gain": 0}, "gain must be finite and positive"),
            ({"read_noise": -1}, "read_noise must be finite and not negative"),
            ({"saturation": 1e5}, "saturation must be at most 65535"),
            ({"vignetting": 1}, "vignetting must be less than 1"),
            ({"trim_section": "[1:161, 1:128]"}, "trim_section .* is outside"),
            ({"bad_columns": 128}, "bad_columns must be at least 0 and at most 127"),
        ],
    )
    def test_bad_values(self, detector, properties, match):
        with pytest.raises(ValueError, match=match):
            replace(detector, **properties)

    def test_bad_header(self):
        with pytest.raises(ValueError, match="header lacks NAXIS1, GAIN"):
            Detector.from_header({"NAXIS2": 4, "RDNOISE": 5})

    def test_bad_arguments(self, detector, field):
        with pytest.raises(ValueError, match="field must be of shape"):
            replace(detector, trim_section=None).raw_frame(field)
        with pytest.raises(ValueError, match="level must be finite and positive"):
            detector.flat_frame(0)
        with pytest.raises(TypeError, match="cosmic_rays must be an integer"):
            detector.raw_frame(field, cosmic_rays=1.5)


class TestPhotonTransfer:
    """Gain and read noise measured as at a telescope are those that were put in."""

    def test_read_noise(self, detector):
        first, second = (light(detector, detector.bias_frame(seed=seed)) for seed in (1, 2))
        difference = first - second
        difference -= difference.mean(axis=1, keepdims=True)
        expected = np.sqrt(2 * ((5 / 1.9) ** 2 + 1 / 12))  # the second term is that of whole numbers
        assert_allclose(difference.std(), expected, rtol=4 / np.sqrt(2 * difference.size))

    @pytest.mark.parametrize("level", [200, 20000])
    def test_gain(self, detector, level):
        flats = [light(detector, detector.flat_frame(level, seed=seed)) for seed in (1, 2)]
        good = detector.response > 0.5
        difference = (flats[0] - flats[1])[good]
        variance = difference.var() / 2 - (5 / 1.9) ** 2 - 1 / 12
        mean = level * detector.response[good].mean()
        assert_allclose(mean / variance, 1.9, rtol=4 * np.sqrt(2 / difference.size) * 1.2)

    def test_flat_is_the_response(self, detector):
        flat = light(detector, detector.flat_frame(30000)) - detector.bias[detector.light]
        pull = (flat - 30000 * detector.response) / np.sqrt(30000 * detector.response / 1.9 + (5 / 1.9) ** 2)
        assert_allclose(pull.std(), 1, rtol=0.03)
        assert_allclose(detector.response[0, 0], 0.9, rtol=0.05)

    def test_overscan_is_the_bias(self, detector, field):
        overscan = detector.raw_frame(field).data[:, 3:23]
        assert abs(overscan.mean() - detector.bias_level) < 5
        assert_allclose(np.diff(overscan.astype(float)).std(), np.sqrt(2) * 5 / 1.9, rtol=0.05)

    def test_saturation(self, detector):
        frame = replace(detector, saturation=5000).flat_frame(20000)
        assert frame.data.max() == 5000
        assert frame.header["SATURATE"] == 5000

    def test_bad_columns(self, detector):
        bad = detector.response < 0.1
        assert_array_equal(bad.sum(axis=1), 1)
        flat = light(detector, detector.flat_frame())
        assert flat[bad].max() < 0.1 * np.median(flat)


class TestRawFrame:
    def test_cosmic_rays(self, detector, field):
        with_rays, without = (
            light(detector, detector.raw_frame(field, cosmic_rays=number)) for number in (40, 0)
        )
        hits = with_rays != without
        assert 40 < hits.sum() < 40 * 20
        assert np.all(with_rays[hits] > without[hits])

    def test_wcs(self, detector, field):
        trimmed = ccdproc.trim_image(detector.raw_frame(field), fits_section=HEADER["TRIMSEC"])
        x, y = field.catalog["x"].value, field.catalog["y"].value
        offset = trimmed.wcs.pixel_to_world(x, y).separation(field.catalog["sky_center"])
        assert offset.arcsec.max() < 1e-6

    def test_reduction_gives_the_field_back(self, detector, field):
        """With perfect calibration frames what remains is the noise of the detector."""
        raw = ccdproc.subtract_overscan(
            detector.raw_frame(field, cosmic_rays=0), fits_section=HEADER["BIASSEC"], median=False
        )
        bias = CCDData(detector.bias - detector.bias_level, unit="adu")
        flat = CCDData(detector.response, unit="adu")
        ccd = ccdproc.subtract_bias(raw, bias)
        ccd = ccdproc.trim_image(ccd, fits_section=HEADER["TRIMSEC"])
        ccd = ccdproc.flat_correct(ccd, flat, norm_value=1)
        expected = field.truth + field.sky_level
        f = detector.response
        variance = expected / (1.9 * f) + ((5 / 1.9) ** 2 * (1 + 1 / 20) + 1 / 12) / f**2
        pull = ((ccd.data - expected) / np.sqrt(variance))[f > 0.5]
        assert abs(pull.mean()) < 0.05
        assert_allclose(pull.std(), 1, rtol=4 / np.sqrt(2 * pull.size))

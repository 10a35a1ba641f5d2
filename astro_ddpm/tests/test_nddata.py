# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the parser of images and of `EnhancedCCDData`.
"""

from io import BytesIO

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, nddata
from astro_ddpm.nddata import Exposure, is_complete, read_image

from .helpers import SIGMA, make_image

ALL_DTYPES = [
    order + kind for order in "<>" for kind in ("u1", "u2", "u4", "i1", "i2", "i4", "i8", "f4", "f8")
]


def make_enhanced(n=5, shape=(12, 10), seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    samples = rng.normal(10, 1, (n, *shape)).astype("f4")
    std = StdDevUncertainty(samples.std(axis=0))
    image = make_image(shape, uncertainty=std, **kwargs)
    options = {name: getattr(image, name) for name in ("unit", "wcs", "mask", "meta", "psf", "flags")}
    return EnhancedCCDData(samples.mean(axis=0), uncertainty=std, samples=samples, **options)


def cube_wcs():
    """Return a WCS of right ascension, declination and frequency, as radio images have."""
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN", "FREQ"
    wcs.wcs.crval, wcs.wcs.cdelt = (20.0, 10.0, 1.4e9), (-1e-3, 1e-3, 1e6)
    return wcs


def plain_wcs():
    """Return a tangential WCS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (20.0, 10.0), (16.0, 16.0), (-1e-3, 1e-3)
    return wcs


class TestExposure:
    """Test the parser of inputs."""

    @pytest.mark.parametrize("dtype", ALL_DTYPES)
    def test_dtypes_and_byte_orders(self, dtype):
        values = np.arange(12).reshape(3, 4)
        data = Exposure.parse(values.astype(dtype)).data
        assert data.dtype.isnative
        assert data.dtype.itemsize == (4 if np.dtype(dtype).itemsize < 4 or dtype.endswith("f4") else 8)
        assert_array_equal(data, values)

    def test_every_kind_of_input_is_the_same_image(self, tmp_path):
        ccd = make_image()
        hdu = fits.ImageHDU(ccd.data, ccd.wcs.to_header())
        hdu.header["BUNIT"] = "adu"
        ccd.write(tmp_path / "ccd.fits")
        kinds = [
            ccd,
            NDData(ccd.data, unit="adu", uncertainty=ccd.uncertainty),
            ccd.data * u.adu,
            ccd.data,
            ccd.data.tolist(),
            np.ma.array(ccd.data),
            hdu,
            fits.PrimaryHDU(ccd.data, hdu.header),
            tmp_path / "ccd.fits",
            str(tmp_path / "ccd.fits"),
        ]
        for kind in kinds:
            noisy = Exposure.parse(kind)
            assert_array_equal(noisy.data, ccd.data)
            assert noisy.valid.all()
            assert noisy.data.dtype.isnative

    def test_input_is_copied(self):
        ccd = make_image()
        assert not np.shares_memory(Exposure.parse(ccd).data, ccd.data)
        assert not np.shares_memory(Exposure.parse(ccd.data).data, ccd.data)

    def test_read_only_and_strided(self):
        data = make_image().data
        data.flags.writeable = False
        assert_array_equal(Exposure.parse(data[::-1, ::2]).data, data[::-1, ::2])
        assert_array_equal(Exposure.parse(np.asfortranarray(data)).data, data)

    def test_masks(self):
        values = np.ma.array(np.ones((4, 4)), mask=np.eye(4))
        noisy = Exposure.parse(values)
        assert_array_equal(noisy.valid, ~np.eye(4, dtype=bool))
        ccd = make_image((4, 4), mask=np.eye(4, dtype=bool))
        ccd.data[0, 3], ccd.data[0, 2] = np.nan, -np.inf
        assert Exposure.parse(ccd).valid.sum() == 10

    @pytest.mark.parametrize(
        "uncertainty",
        [
            StdDevUncertainty(np.full((4, 4), SIGMA)),
            StdDevUncertainty(np.full((4, 4), SIGMA * 1e3), unit="mJy"),
            VarianceUncertainty(np.full((4, 4), SIGMA**2)),
            VarianceUncertainty(np.full((4, 4), SIGMA**2 * 1e6), unit="mJy2"),
            InverseVariance(np.full((4, 4), SIGMA**-2)),
            InverseVariance(np.full((4, 4), SIGMA**-2), unit="Jy-2"),
        ],
    )
    def test_uncertainty_of_the_image(self, uncertainty):
        ccd = CCDData(np.ones((4, 4)), unit="Jy", uncertainty=uncertainty)
        assert_allclose(Exposure.parse(ccd).sigma, SIGMA)

    @pytest.mark.parametrize(
        "uncertainty",
        [
            SIGMA,
            SIGMA * 1e3 * u.mJy,
            np.full((4, 4), SIGMA, ">f4"),
            np.full((4, 4), SIGMA) * u.Jy,
            VarianceUncertainty(np.full((4, 4), SIGMA**2)),
        ],
    )
    def test_uncertainty_given(self, uncertainty):
        ccd = CCDData(np.ones((4, 4)), unit="Jy")
        assert_allclose(Exposure.parse(ccd, uncertainty).sigma, SIGMA)
        assert Exposure.parse(ccd).sigma is None

    def test_pixels_without_information(self):
        weight = np.ones((4, 4))
        weight[1, 2] = 0
        noisy = Exposure.parse(CCDData(np.ones((4, 4)), unit="adu", uncertainty=InverseVariance(weight)))
        assert_array_equal(noisy.valid, weight > 0)

    @pytest.mark.parametrize("level", [0.0, 1e4])
    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (InverseVariance, 0),
            (VarianceUncertainty, np.inf),
            (VarianceUncertainty, 0),
            (StdDevUncertainty, 0),
            (StdDevUncertainty, np.nan),
            (StdDevUncertainty, 40),
            (StdDevUncertainty, 1e16),
            (VarianceUncertainty, 1e20),
            (InverseVariance, 1e-12),
        ],
    )
    def test_every_spelling_of_no_information(self, kind, value, level):
        rng = np.random.default_rng(1)
        plane, bad = np.ones((32, 32)), np.zeros((32, 32), bool)
        bad[3:5, 7:9] = True
        plane[bad] = value
        data = rng.normal(level, 1, bad.shape)
        data[20, 20] += 1e5  # a star with its photon noise
        plane[20, 20] = {StdDevUncertainty: 300, VarianceUncertainty: 9e4, InverseVariance: 1.1e-5}[kind]
        ccd = CCDData(data, unit="adu", uncertainty=kind(plane))
        with pytest.warns(AstropyUserWarning, match="4 pixels hold no information"):
            checked = Exposure.parse(ccd).check()
        assert_array_equal(checked.valid, ~bad)
        packed = checked.pack(data, data, None, ccd.meta)
        assert_array_equal(packed.mask, bad)

    @pytest.mark.parametrize(
        ("image", "match"),
        [
            (np.ones((2, 4, 4)), "two-dimensional"),
            (np.ones(4), "two-dimensional"),
            (np.ones((0, 4)), "empty"),
            (np.full((4, 4), np.nan), "image has no valid pixel"),
            (np.ma.array(np.ones((4, 4)), mask=True), "image has no valid pixel"),
        ],
    )
    def test_bad_images(self, image, match):
        with pytest.raises(ValueError, match=match):
            Exposure.parse(image).check()

    def test_bad_classes(self):
        with pytest.raises(TypeError, match="real numbers"):
            Exposure.parse(np.ones((4, 4), complex))
        with pytest.raises(TypeError, match="HDUList"):
            Exposure.parse(fits.HDUList([fits.PrimaryHDU(np.ones((4, 4)))]))
        with pytest.raises(ValueError, match="HDU without data"):
            Exposure.parse(fits.PrimaryHDU())
        with pytest.raises(TypeError, match="uncertainty must hold real numbers"):
            Exposure.parse(np.ones((4, 4)), np.full((4, 4), "a"))

    @pytest.mark.parametrize(
        ("uncertainty", "match"),
        [
            (np.zeros((4, 4)), "uncertainty is zero"),
            (0.0, "uncertainty is zero"),
            (-np.ones((4, 4)), "uncertainty is negative"),
            (VarianceUncertainty(-np.ones((4, 4))), "uncertainty is negative"),
            (np.ones((3, 4)), "uncertainty has shape"),
            (np.full((4, 4), np.nan), "uncertainty is not finite"),
        ],
    )
    def test_bad_uncertainties(self, uncertainty, match):
        with pytest.raises(ValueError, match=match):
            Exposure.parse(np.ones((4, 4)), uncertainty).check()

    def test_uncertainty_given_twice(self):
        with pytest.raises(ValueError, match="although the image carries one"):
            Exposure.parse(make_image(), 1.0)

    def test_unit_that_ccdproc_left_behind(self):
        ccd = make_image()
        ccd.unit = u.electron
        with pytest.raises(u.UnitConversionError, match="cosmicray_lacosmic"):
            Exposure.parse(ccd)

    def test_bad_pixels_may_have_bad_noise(self):
        mask = np.eye(4, dtype=bool)
        ccd = make_image((4, 4), mask=mask, uncertainty=StdDevUncertainty(np.where(mask, -1.0, 2.0)))
        assert_array_equal(Exposure.parse(ccd).valid, ~mask)

    def test_mask_policy(self):
        # what is masked never counts, unless the posterior has filled it
        mask = np.eye(12, 10, dtype=bool)
        plain = make_image((12, 10), mask=mask)
        assert_array_equal(Exposure.parse(plain).mask, mask)
        filled = make_enhanced(mask=mask)
        assert Exposure.parse(filled).valid.all()
        for treatment, masked in (("fill", False), ("propagate", True)):
            filled.meta["DDPMMASK"] = treatment
            assert_array_equal(Exposure.parse(filled).mask, mask & masked)

    def test_samples(self):
        image = make_enhanced()
        image.samples[2, 3, 4] = np.inf
        exposure = Exposure.parse(image)
        assert exposure.is_enhanced
        assert exposure.samples.shape == (5, 12, 10)
        assert_array_equal(np.argwhere(exposure.mask), [[3, 4]])
        assert Exposure.parse(make_image()).samples is None
        assert not Exposure.parse(make_image()).is_enhanced

    def test_other_unit(self):
        jansky, milli = make_enhanced(unit="Jy"), make_enhanced(unit="Jy").convert_unit_to("mJy")
        exposure = Exposure.parse(jansky, unit="mJy")
        assert exposure.unit == u.mJy
        for name in ("data", "sigma", "samples"):
            assert_allclose(getattr(exposure, name), getattr(Exposure.parse(milli), name), rtol=1e-6)
        assert exposure.pack(exposure.data, exposure.sigma, None, {}).unit == u.mJy
        assert exposure.to("mJy") is exposure
        for bare in (np.ones((4, 4)), NDData(np.ones((4, 4)))):
            assert Exposure.parse(bare, unit="mJy").unit == u.mJy
        with pytest.raises(u.UnitConversionError, match="not convertible"):
            Exposure.parse(jansky, unit="adu")

    def test_pixels_left_out(self):
        exposure = Exposure.parse(make_image((4, 4), mask=np.eye(4, dtype=bool)))
        assert exposure.leave_out(None) is exposure
        assert_array_equal(exposure.leave_out(np.eye(4)[::-1]).mask, np.eye(4) + np.eye(4)[::-1])
        with pytest.raises(ValueError, match="mask must have the shape"):
            exposure.leave_out(np.ones(4))

    def test_errors_name_the_image(self):
        with pytest.raises(ValueError, match="reference must be two-dimensional"):
            Exposure.parse(np.ones(4), name="reference")
        with pytest.raises(TypeError, match="reference must hold real numbers"):
            Exposure.parse(np.ones((4, 4), complex), name="reference")


class TestReadImage:
    """Test reading of FITS files."""

    @pytest.fixture
    def path(self, tmp_path):
        primary = fits.PrimaryHDU()
        primary.header["INSTRUME"] = "camera"
        science = fits.ImageHDU(np.ones((4, 5), ">i2"), name="sci ")
        science.header["GAIN"] = 3.0
        packed = fits.CompImageHDU(np.full((4, 5), 2.0, "f4"), name="PACKED")
        fits.HDUList([primary, science, packed]).writeto(tmp_path / "mef.fits")
        return tmp_path / "mef.fits"

    def test_first_image_and_headers(self, path):
        ccd = read_image(path)
        assert_array_equal(ccd.data, 1)
        assert ccd.unit == u.dimensionless_unscaled
        assert (ccd.meta["GAIN"], ccd.meta["INSTRUME"]) == (3.0, "camera")

    @pytest.mark.parametrize("ext", [2, "2", "packed", " PACKED "])
    def test_extension(self, path, ext):
        assert_array_equal(read_image(path, ext).data, 2)

    @pytest.mark.parametrize("ext", [3, "-1", "none"])
    def test_no_such_extension(self, path, ext):
        with pytest.raises(ValueError, match="0 to 2 named"):
            read_image(path, ext)

    @pytest.mark.parametrize(
        ("bunit", "unit"),
        [
            ("adu", "adu"),
            ("ADU", "adu"),
            ("nanomaggy", "nmgy"),
            ("ELECTRONS/S", "electron / s"),
            ("Electrons/sec", "electron / s"),
            ("counts", "count"),
            ("Counts / s", "count / s"),
            ("DN", "DN"),
            ("mJy", "mJy"),
            ("DN/S", "DN / s"),
            ("e-", "electron"),
            ("e- / sec", "electron / s"),
            ("cts/second", "count / s"),
            ("PHOTONS", "photon"),
            ("nanomaggies", "nmgy"),
            ("count / sec", "ct / s"),
            ("ct s", "ct s"),
        ],
    )
    def test_units(self, tmp_path, bunit, unit):
        hdu = fits.PrimaryHDU(np.ones((3, 3)))
        hdu.header["BUNIT"] = bunit
        hdu.writeto(tmp_path / "unit.fits")
        assert read_image(tmp_path / "unit.fits").unit == u.Unit(unit)
        assert Exposure.parse(hdu).ccd.unit == u.Unit(unit)

    def test_unknown_unit(self, tmp_path):
        fits.PrimaryHDU(np.ones((3, 3)), fits.Header([("BUNIT", "furlongs?")])).writeto(tmp_path / "a.fits")
        with pytest.warns(AstropyUserWarning, match="not a unit that astropy knows"):
            assert read_image(tmp_path / "a.fits").unit == u.dimensionless_unscaled

    def test_upper_case_is_not_guessed(self, tmp_path):
        # in lower case this would be per year
        header = fits.Header([("BUNIT", "ERG/S/CM2/A")])
        fits.PrimaryHDU(np.ones((3, 3)), header).writeto(tmp_path / "a.fits")
        with pytest.warns(AstropyUserWarning, match="not a unit that astropy knows"):
            assert read_image(tmp_path / "a.fits").unit == u.dimensionless_unscaled

    @pytest.fixture
    def planes(self, tmp_path):
        """Two chips, each with mask and uncertainty of its own, and a third with neither."""
        hdus = [fits.PrimaryHDU()]
        for version in (1, 2):
            mask = np.zeros((8, 9), np.uint8)
            mask[version] = 1
            for name, data in (
                ("SCI", np.ones((8, 9))),
                ("MASK", mask),
                ("UNCERT", version * np.ones((8, 9))),
            ):
                hdus.append(fits.ImageHDU(data, name=name, ver=version))
        hdus.append(fits.ImageHDU(np.ones((8, 9)), name="SCI", ver=3))
        fits.HDUList(hdus).writeto(tmp_path / "planes.fits")
        return tmp_path / "planes.fits"

    @pytest.mark.parametrize("version", [1, 2])
    def test_planes_of_the_same_version(self, planes, version):
        ccd = read_image(planes, f"SCI,{version}")
        assert_array_equal(np.flatnonzero(ccd.mask.any(axis=1)), version)
        assert_array_equal(ccd.uncertainty.array, version)

    def test_mask_of_floats(self, tmp_path):
        hdus = make_enhanced(mask=np.eye(12, 10, dtype=bool)).to_hdu()
        hdus["MASK"].data = hdus["MASK"].data.astype(">f4")
        hdus.writeto(tmp_path / "image.fits")
        assert_array_equal(read_image(tmp_path / "image.fits").mask, np.eye(12, 10))

    def test_table_of_the_name(self, tmp_path):
        table = fits.BinTableHDU.from_columns([fits.Column("x", "J", array=[1])], name="MASK")
        fits.HDUList([fits.PrimaryHDU(np.ones((3, 3))), table]).writeto(tmp_path / "image.fits")
        assert read_image(tmp_path / "image.fits").mask is None

    def test_planes_of_another_version(self, planes):
        ccd = read_image(planes, "SCI,3")
        assert ccd.mask is None
        assert ccd.uncertainty is None

    def test_bits_are_no_mask(self, tmp_path):
        # as in LSST and HSC exposures, where a bit marks every pixel of a source
        bits = np.zeros((8, 9), np.int32)
        bits[2:6, 2:6] = 32
        hdus = [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.ones((8, 9)), name="IMAGE"),
            fits.ImageHDU(bits, name="MASK"),
        ]
        fits.HDUList(hdus).writeto(tmp_path / "exposure.fits")
        with pytest.warns(AstropyUserWarning, match="MASK is not used: it holds more than 0 and 1"):
            assert read_image(tmp_path / "exposure.fits").mask is None

    def test_wcs_of_the_primary_header_is_another(self, tmp_path):
        primary = fits.PrimaryHDU()
        for keyword, value in {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CD1_1": 1e-4}.items():
            primary.header[keyword] = value
        primary.header.update({"CD2_2": 1e-4, "A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": 1e-4})
        image = fits.ImageHDU(np.ones((40, 40)), plain_wcs().to_header(), name="SCI")
        image.header.update({"CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3})
        for keyword in ("CDELT1", "CDELT2"):
            image.header.remove(keyword)
        fits.HDUList([primary, image]).writeto(tmp_path / "mef.fits")
        ccd = read_image(tmp_path / "mef.fits")
        EnhancedCCDData(ccd.data, unit="adu", wcs=ccd.wcs, meta=ccd.meta).write(tmp_path / "out.fits")
        header = fits.getheader(tmp_path / "out.fits")
        assert not {"CD1_1", "A_ORDER", "B_2_0"} & {*header}
        assert_allclose(WCS(header).wcs_pix2world(30, 5, 0), plain_wcs().wcs_pix2world(30, 5, 0))

    def test_hdu(self):
        hdu = fits.ImageHDU(np.ones((40, 40)), plain_wcs().to_header(), name="SCI")
        hdu.header.update({"CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3, "GAIN": 2.0})
        for keyword in ("CDELT1", "CDELT2"):
            hdu.header.remove(keyword)
        hdu.add_checksum()
        ccd = Exposure.parse(hdu).ccd
        assert_allclose(ccd.wcs.wcs_pix2world(30, 5, 0), plain_wcs().wcs_pix2world(30, 5, 0))
        assert {*ccd.meta} & {"CD1_1", "CTYPE1", "CHECKSUM", "EXTNAME", "GAIN"} == {"GAIN"}
        assert hdu.header["CD1_1"] == -1e-3

    def test_no_image(self, tmp_path):
        fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
        with pytest.raises(ValueError, match="holds no image"):
            read_image(tmp_path / "empty.fits")
        with pytest.raises(FileNotFoundError):
            read_image(tmp_path / "missing.fits")
        table = fits.BinTableHDU(np.zeros(1, [("x", "f4")]), name="EVENTS")
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
        with pytest.raises(ValueError, match="is a table, not an image"):
            read_image(tmp_path / "table.fits", "EVENTS")


class TestEnhancedCCDData:
    """Test the class of results."""

    def test_samples_are_checked(self):
        image = make_enhanced()
        for bad in (np.ones((12, 10)), np.ones((5, 12, 9)), 3.0):
            with pytest.raises(ValueError, match="samples must be of shape"):
                image.samples = bad
        assert EnhancedCCDData(np.ones((2, 2)), unit="adu").samples is None

    def test_quantile(self):
        image = make_enhanced(n=200)
        assert_array_equal(image.quantile(0), image.samples.min(axis=0))
        assert_allclose(image.quantile(0.5), np.median(image.samples, axis=0))
        assert image.quantile([0.16, 0.84]).shape == (2, 12, 10)
        with pytest.raises(ValueError, match="q must be between"):
            image.quantile(1.1)
        with pytest.raises(ValueError, match="quantile needs samples"):
            EnhancedCCDData(np.ones((2, 2)), unit="adu").quantile(0.5)

    @pytest.mark.parametrize("item", [np.s_[2:7], np.s_[2:7, 3:], np.s_[::2, ::-1], np.s_[..., 1:4]], ids=str)
    def test_slicing(self, item):
        image = make_enhanced(wcs=None)
        part = image[item]
        assert isinstance(part, EnhancedCCDData)
        assert_array_equal(part.data, image.data[item])
        assert_array_equal(part.samples, np.stack([sample[item] for sample in image.samples]))

    def test_slices_keep_the_psf(self):
        image = make_enhanced(psf=np.ones((3, 3)))
        assert_array_equal(image[2:7, 3:].psf, image.psf)

    def test_arithmetic_with_numbers_and_quantities(self):
        image = make_enhanced()
        for result, truth in [
            (image.multiply(3), image.samples * 3),
            (image.add(2 * u.adu), image.samples + 2),
            (image.subtract(CCDData(np.ones((12, 10)), unit="adu")), image.samples - 1),
            (image.divide(2 * u.s), image.samples / 2),
        ]:
            assert_allclose(result.samples, truth, rtol=1e-6)
            assert_allclose(result.samples.mean(axis=0), result.data, rtol=1e-5)
        assert image.divide(2 * u.s).unit == u.adu / u.s

    def test_arithmetic_with_uncertain_operand(self):
        image = make_enhanced()
        with pytest.warns(AstropyUserWarning, match="samples are dropped by subtract"):
            assert image.subtract(make_image((12, 10))).samples is None
        with pytest.warns(AstropyUserWarning, match="samples are dropped by add"):
            assert image.add(make_enhanced(seed=1)).samples is None
        no_samples = EnhancedCCDData(image, copy=True)
        no_samples.samples = None
        assert no_samples.add(make_enhanced()).samples is None

    def test_convert_unit(self):
        image = make_enhanced(unit="Jy").convert_unit_to("mJy")
        assert image.unit == u.mJy
        assert_allclose(image.samples, 1e3 * make_enhanced().samples, rtol=1e-6)

    def test_data_are_compared_once(self, monkeypatch):
        image, compared = make_enhanced(), []

        def checksum(data, original=nddata.enhanced._checksum):
            compared.append(data)
            return original(data)

        monkeypatch.setattr(nddata.enhanced, "_checksum", checksum)
        for operation in (
            lambda: image.multiply(3),
            lambda: image[2:4],
            lambda: image.convert_unit_to("electron", [(u.adu, u.electron)]),
        ):
            compared.clear()
            operation()
            assert len(compared) == 2  # those of the input, and those of the result

    def test_copy_is_deep(self):
        image = make_enhanced()
        copy = image.copy()
        copy.samples[:] = 0
        assert image.samples.min() > 0
        assert EnhancedCCDData(image).samples is image.samples

    def test_fits_round_trip(self, tmp_path):
        image = make_enhanced(
            mask=np.eye(12, 10, dtype=bool), psf=np.ones((3, 3)), flags=np.arange(120).reshape(12, 10)
        )
        image.write(tmp_path / "image.fits")
        back = EnhancedCCDData.read(tmp_path / "image.fits")
        for name in ("data", "mask", "samples", "psf", "flags"):
            assert_array_equal(getattr(back, name), getattr(image, name))
        assert_array_equal(back.uncertainty.array, image.uncertainty.array)
        assert isinstance(back.uncertainty, StdDevUncertainty)
        assert all(a.dtype.isnative for a in (back.data, back.samples, back.uncertainty.array, back.flags))
        assert back.unit == image.unit
        assert back.meta["OBJECT"] == "galaxy"
        assert back.meta.comments["OBJECT"] == "a comment"
        assert_allclose(back.wcs.pixel_to_world_values(3, 4), image.wcs.pixel_to_world_values(3, 4))
        # and other packages read the mean as any CCDData
        assert_array_equal(CCDData.read(tmp_path / "image.fits").data, image.data)

    def test_round_trip_without_anything(self, tmp_path):
        image = EnhancedCCDData(np.ones((3, 4)), unit=u.dimensionless_unscaled)
        image.write(tmp_path / "bare.fits")
        back = EnhancedCCDData.read(tmp_path / "bare.fits")
        assert back.unit == u.dimensionless_unscaled
        assert back.samples is None
        assert back.uncertainty is None

    def test_bool_flags_are_written(self, tmp_path):
        image = make_enhanced(flags=np.eye(12, 10, dtype=bool))
        image.write(tmp_path / "flags.fits")
        assert_array_equal(EnhancedCCDData.read(tmp_path / "flags.fits").flags, np.eye(12, 10))

    def test_file_objects(self):
        image, stream = make_enhanced(), BytesIO()
        image.write(stream, format="fits")
        assert_array_equal(EnhancedCCDData.read(BytesIO(stream.getvalue()), format="fits").data, image.data)

    def test_unit_that_nobody_knows(self, tmp_path):
        hdus = make_enhanced(unit=u.dimensionless_unscaled).to_hdu()
        hdus[0].header["BUNIT"] = "furlongs?"
        hdus.writeto(tmp_path / "image.fits")
        with pytest.warns(AstropyUserWarning, match="BUNIT 'furlongs.' is not a unit"):
            assert EnhancedCCDData.read(tmp_path / "image.fits").unit == u.dimensionless_unscaled
        assert EnhancedCCDData.read(tmp_path / "image.fits", unit="nmgy").unit == u.Unit("nmgy")

    def test_table_of_a_slice_of_a_cube(self):
        image = make_enhanced(wcs=cube_wcs())
        sky = image.to_table()["sky_center"]
        assert_allclose(sky[13].ra.deg, cube_wcs().celestial.pixel_to_world(3, 1).ra.deg)

    def test_no_silent_overwriting(self, tmp_path):
        image = make_enhanced()
        image.write(tmp_path / "image.fits")
        with pytest.raises(OSError, match="exists"):
            image.write(tmp_path / "image.fits")
        image.multiply(2).write(tmp_path / "image.fits", overwrite=True)
        assert_allclose(EnhancedCCDData.read(tmp_path / "image.fits").data, 2 * image.data)

    def test_failed_write_keeps_the_old_file(self, tmp_path, monkeypatch):
        image = make_enhanced()
        image.write(tmp_path / "image.fits")

        def fail(self, path, **kwargs):
            path.write_bytes(b"half")
            msg = "disk full"
            raise OSError(msg)

        monkeypatch.setattr(fits.HDUList, "writeto", fail)
        with pytest.raises(OSError, match="disk full"):
            image.write(tmp_path / "image.fits", overwrite=True)
        monkeypatch.undo()
        assert_array_equal(EnhancedCCDData.read(tmp_path / "image.fits").data, image.data)
        assert [path.name for path in tmp_path.iterdir()] == ["image.fits"]


def test_is_complete(tmp_path):
    path = tmp_path / "image.fits"
    make_image().write(path)
    assert is_complete(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2880])
    assert not is_complete(path)
    path.write_bytes(b"no FITS file")
    with pytest.raises(OSError, match="No SIMPLE card"):
        is_complete(path)

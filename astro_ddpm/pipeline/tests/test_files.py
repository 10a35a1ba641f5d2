# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of files with several extensions.
"""

import gzip
import shutil

import astropy.units as u
import ccdproc
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, enhance, zoo
from astro_ddpm.cli import main
from astro_ddpm.pipeline import enhance_file
from astro_ddpm.pipeline.files import make_record, read_ccd
from astro_ddpm.tests.helpers import SIGMA, make_image, toy_model

MODEL = toy_model(samples=False)
SHAPE = (40, 36)


@pytest.fixture(scope="module")
def quality():
    """Bit 1 in column 3, bit 4 in column 7, bits 1 and 64 in column 9."""
    quality = np.zeros(SHAPE, ">i4")
    quality[:, 3], quality[:, 7], quality[:, 9] = 1, 4, 65
    return quality


@pytest.fixture
def folder(tmp_path, quality):
    """Two chips in one file, each as image, errors and data quality, and the planes again in other files."""
    primary = fits.PrimaryHDU()
    primary.header["INSTRUME"], primary.header["CHECKSUM"] = "camera", "stale"
    hdus = [primary]
    for version in (1, 2):
        ccd = make_image(seed=version)
        header = fits.Header([("BUNIT", "adu"), ("GAIN", 2.0), ("INHERIT", True)]) + tpv_header()
        planes = {"SCI": ccd.data, "ERR": np.full(SHAPE, version * SIGMA, ">f4"), "DQ": quality}
        for name, data in planes.items():
            hdus.append(fits.ImageHDU(data, header if name == "SCI" else None, name=name, ver=version))
    fits.HDUList(hdus).writeto(tmp_path / "chips.fits")
    weight = [fits.PrimaryHDU(), fits.ImageHDU(np.full(SHAPE, SIGMA**-2), name="SCI")]
    weight.append(fits.ImageHDU(np.full(SHAPE, 0.25 * SIGMA**-2), name="SECOND"))
    fits.HDUList(weight).writeto(tmp_path / "weight.fits")
    with (tmp_path / "chips.fits").open("rb") as plain, gzip.open(tmp_path / "chips.fits.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    return tmp_path


def tpv_header():
    """Return a WCS with the polynomial distortions that many mosaic cameras have."""
    header = fits.Header()
    for axis, name, value, pixel in ((1, "RA---TPV", 187.3, -118.2), (2, "DEC--TPV", 25.5, 7292.7)):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = name, "deg"
        header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = value, pixel
        header[f"PV{axis}_0"], header[f"PV{axis}_1"] = 0.002, 1.01
        header[f"PV{axis}_3"], header[f"PV{axis}_4"] = 0.0, 0.008
    header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -1e-7, 7.3e-5, -7.3e-5, -1e-7
    return header


def run(folder, image="chips.fits", **options):
    options = {"model": MODEL, "seed": 1, "overwrite": True} | options
    return enhance_file(folder / image, folder / "out.fits", **options)


def expected(version=1, sigma=SIGMA, **kwargs):
    ccd = make_image(seed=version, **kwargs)
    ccd.uncertainty.array[:] = sigma
    return enhance(ccd, model=MODEL, seed=1)


class TestPlanes:
    def test_in_the_same_file(self, folder, quality):
        result = run(folder, stddev="[ERR]", mask="[DQ]")
        truth = expected(mask=quality != 0)
        assert_allclose(result.data, truth.data, rtol=1e-6)
        assert_allclose(result.uncertainty.array, truth.uncertainty.array, rtol=1e-6)
        assert_array_equal(result.mask, quality != 0)

    def test_of_the_second_chip(self, folder):
        result = run(folder, ext="sci, 2", stddev="[ERR,2]")
        assert_allclose(result.data, expected(2, 2 * SIGMA).data, rtol=1e-6)

    @pytest.mark.parametrize("ext", [4, "4", ("SCI", 2), "SCI,2"])
    def test_of_the_image_however_it_is_named(self, folder, ext):
        result = run(folder, ext=ext, stddev="[ERR]", mask="[DQ]")
        truth = expected(2, 2 * SIGMA, mask=fits.getdata(folder / "chips.fits", "DQ", 2) != 0)
        assert_allclose(result.data, truth.data, rtol=1e-6)

    def test_in_the_path(self, folder):
        result = run(folder, image="chips.fits[SCI,2]", stddev="[ERR]")
        assert_allclose(result.data, expected(2, 2 * SIGMA).data, rtol=1e-6)

    @pytest.mark.parametrize(
        ("names", "choice", "found"),
        [
            (["SCI", "SECOND"], "", 1),  # the name of the image
            (["WHT"], "", 1),  # the only image
            (["WHT,1", "WHT,2"], "", 2),  # the version of the image
            (["SECOND", "THIRD"], "", None),  # named images, and none fits
            (["WHT", "WHT"], "[WHT]", None),  # two of one name and version
            (["WHT,1", "WHT,3"], "[WHT]", None),  # those of other chips
            (["WHT,1", "WHT,3"], "[2]", 2),
            (["SCI,3", "SCI,1"], "", None),  # other chips
        ],
    )
    def test_which_one_of_another_file(self, folder, names, choice, found):
        hdus = [fits.PrimaryHDU()]
        for number, name in enumerate(names, 1):
            hdus.append(fits.ImageHDU(np.full(SHAPE, number**-2 * SIGMA**-2)))
            hdus[-1].header["EXTNAME"], _, version = name.partition(",")
            if version:
                hdus[-1].header["EXTVER"] = int(version)
        fits.HDUList(hdus).writeto(folder / "other.fits")
        version = 1 if "SECOND" in names and "SCI" in names else 2
        options = {"ext": version if version == 1 else 4, "weight": f"{folder / 'other.fits'}{choice}"}
        if found is None:
            with pytest.raises(ValueError, match=r"is not clear from .* It has 1 "):
                run(folder, **options)
        else:
            assert_allclose(run(folder, **options).data, expected(version, found * SIGMA).data, rtol=1e-6)

    def test_image_as_its_own_noise(self, folder):
        with pytest.raises(
            ValueError, match=r"which extension of .* belongs to the image SCI,1 is not clear"
        ):
            run(folder, ext="SCI", stddev=folder / "chips.fits")

    def test_names_by_exttype(self, tmp_path, quality):
        planes = {"IMAGE": make_image().data, "MASK": quality, "VARIANCE": np.full(SHAPE, SIGMA**2)}
        hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(plane) for plane in planes.values())]
        for hdu, kind in zip(hdus[1:], planes, strict=True):
            hdu.header["EXTTYPE"] = kind
        fits.HDUList(hdus).writeto(tmp_path / "exposure.fits")
        result = run(tmp_path, "exposure.fits", ext="image", variance="[VARIANCE]", mask="[mask]")
        assert_allclose(result.data, expected(0, mask=quality != 0, unit="").data, rtol=1e-6)

    @pytest.mark.parametrize(("ext", "sigma"), [("", SIGMA), ("[SCI]", SIGMA), ("[2]", 2 * SIGMA)])
    def test_in_another_file(self, folder, ext, sigma):
        result = run(folder, ext="SCI", weight=f"{folder / 'weight.fits'}{ext}")
        assert_allclose(result.data, expected(1, sigma).data, rtol=1e-6)

    def test_compressed(self, folder):
        result = run(folder, image="chips.fits.gz", stddev=f"{folder / 'chips.fits.gz'}[ERR]")
        assert_allclose(result.data, expected().data, rtol=1e-6)

    def test_file_whose_name_ends_in_brackets(self, folder):
        name = folder / "weight[1]"
        (folder / "weight.fits").rename(name)
        result = run(folder, weight=name, ext="SCI")
        assert_allclose(result.data, expected().data, rtol=1e-6)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"mask": "[NONE]"}, "ext 'NONE' is not in"),
            ({"mask": "[DQ,3]"}, "ext 'DQ,3' is not in"),
            ({"mask": "[DQ]", "ignore_bits": "many"}, "ignore_bits 'many' cannot be used"),
            ({"mask": "[DQ]", "ignore_bits": [3]}, r"ignore_bits \[3\] cannot be used"),
            ({"mask": "[ERR]", "ignore_bits": 4}, "needs a mask of integers, not of"),
            ({"ignore_bits": 4}, "ignore_bits needs a mask"),
        ],
    )
    def test_errors(self, folder, options, match):
        with pytest.raises(ValueError, match=match):
            run(folder, **options)
        assert not (folder / "out.fits").exists()


@pytest.mark.parametrize("name", ["chips.fits", "weight.fits", "link.fits"])
def test_inputs_are_not_overwritten(folder, name):
    (folder / "link.fits").symlink_to(folder / "weight.fits")
    before = (folder / name).read_bytes()
    options = {"model": MODEL, "ext": "SCI", "weight": folder / "weight.fits", "overwrite": True}
    with pytest.raises(ValueError, match=r"output .* is an input, which would be lost"):
        enhance_file(folder / "chips.fits", folder / name, **options)
    assert (folder / name).read_bytes() == before


class TestUnitsOfPlanes:
    @pytest.fixture
    def write(self, folder):
        def write(values, bunit):
            fits.PrimaryHDU(np.full(SHAPE, values), fits.Header([("BUNIT", bunit)])).writeto(
                folder / "noise.fits"
            )
            return folder / "noise.fits"

        return write

    def test_standard_deviation(self, folder, write):
        result = run(folder, ext="SCI,1", stddev=write(SIGMA / 1000, "1000 adu"))
        assert_allclose(result.data, expected().data, rtol=1e-5)

    @pytest.mark.parametrize("bunit", ["adu2", "adu", "furlongs?"])
    def test_variance(self, folder, write, bunit):
        # many files give the unit of the image where it should be its square
        result = run(folder, ext="SCI,1", variance=write(SIGMA**2, bunit))
        assert_allclose(result.data, expected().data, rtol=1e-5)

    @pytest.mark.parametrize(
        ("kind", "bunit"), [("stddev", "electron"), ("stddev", "ELECTRONS"), ("variance", "electron2")]
    )
    def test_unit_of_something_else(self, folder, write, kind, bunit):
        with pytest.raises(
            u.UnitConversionError, match=f"{kind} is in .*, which does not fit an image in adu"
        ):
            run(folder, ext="SCI,1", **{kind: write(SIGMA, bunit)})


@pytest.mark.parametrize("bit", [1, 32])
def test_bits_that_look_like_a_mask(tmp_path, bit):
    # the extension MASK of an exposure of LSST or HSC; a frame may have no bits but the lowest
    ccd, bits = make_image(), np.zeros(SHAPE, np.int32)
    bits[5:9, 5:9], bits[20, 20] = bit, 64
    bits[bits == 64] = 0 if bit == 1 else 64
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(ccd.data, name="IMAGE"), fits.ImageHDU(bits, name="MASK")]
    fits.HDUList(hdus).writeto(tmp_path / "exposure.fits")
    options = {"model": MODEL, "mask": "[MASK]", "ignore_bits": bit, "uncertainty": SIGMA}
    result = enhance_file(tmp_path / "exposure.fits", tmp_path / "deep.fits", **options)
    assert_array_equal(result.mask, bits == 64)


def test_plane_of_the_version_of_the_image(folder, quality):
    with fits.open(folder / "chips.fits", mode="update") as hdus:
        hdus["DQ", 2].data[:] = 0
        hdus["DQ", 2].data[5, 5] = 1
    result = run(folder, ext="SCI,2", mask="[DQ]", uncertainty=SIGMA)
    assert_array_equal(np.argwhere(result.mask), [[5, 5]])


def test_record_of_a_keyword():
    keyword, other = (ccdproc.Keyword(name, unit=u.electron / u.adu) for name in ("GAIN", "GAIN2"))
    before = make_record(__file__, gain=keyword)["DDPMOPTS"]
    keyword.value_from({"GAIN": 2.0})  # as its use does
    assert make_record(__file__, gain=keyword)["DDPMOPTS"] == before
    assert make_record(__file__, gain=other)["DDPMOPTS"] != before


def test_record_of_a_background():
    one, same, other = (
        make_record(__file__, background=NDData(np.full((3, 3), level)))["DDPMOPTS"]
        for level in (1.0, 1.0, 2.0)
    )
    assert one == same != other


def test_options_of_the_sky_are_compared():
    one, same, other = (
        make_record(__file__, background={"box_size": size})["DDPMOPTS"] for size in (64, 64, 128)
    )
    assert one == same != other


class TestBits:
    @pytest.mark.parametrize(
        ("ignore_bits", "bad"),
        [
            (None, [3, 7, 9]),
            (0, [3, 7, 9]),
            (1, [7, 9]),
            ([1, 64], [7]),
            ("1,64", [7]),
            ("~4", [7]),
            ("~1", [3, 9]),
            ("1,4,64", []),
            ("BAD,CROSSTALK", [7]),
            ("~SAT", [7]),
        ],
    )
    def test_choice_of_bits(self, folder, ignore_bits, bad):
        with fits.open(folder / "chips.fits", "update") as hdus:
            hdus["DQ", 1].header.update({"MP_BAD": 0, "MP_SAT": 2, "HIERARCH MB_CROSSTALK": 6})
        mask = run(folder, stddev="[ERR]", mask="[DQ]", ignore_bits=ignore_bits).mask
        assert_array_equal(np.flatnonzero(mask.any(axis=0)), bad)
        assert_array_equal(mask.any(axis=0), mask.all(axis=0))

    @pytest.mark.parametrize("dtype", ["i4", "f8"])
    @pytest.mark.parametrize("name", ["DETECTED", "INEXACT_PSF"])
    def test_names_of_good_pixels(self, folder, name, dtype):
        with fits.open(folder / "chips.fits", "update") as hdus:
            hdus["DQ", 1].header.update({"MP_BAD": 0, "MP_SAT": 1, f"HIERARCH MP_{name}": 2})
            hdus["DQ", 1].data = hdus["DQ", 1].data.astype(dtype)
        mask = run(folder, stddev="[ERR]", mask="[DQ]").mask
        assert_array_equal(np.flatnonzero(mask.any(axis=0)), [3, 9])
        assert_array_equal(
            run(folder, stddev="[ERR]", mask="[DQ]", ignore_bits=0).mask.any(axis=0).nonzero()[0], [3, 7, 9]
        )

    def test_mask_that_marks_good_pixels(self, folder, quality):
        fits.PrimaryHDU((quality == 0).astype(np.uint8)).writeto(folder / "good.fits")
        with pytest.warns(AstropyUserWarning, match="good.fits marks 92% of the pixels as bad"):
            ccd = read_ccd(folder / "chips.fits", mask=folder / "good.fits")
        assert_array_equal(ccd.mask, quality == 0)

    def test_integers_that_are_read_as_floats(self, folder, quality):
        plane = fits.ImageHDU(quality)
        plane.header["BLANK"] = -1
        plane.data[:, 20] = -1
        plane.writeto(folder / "dq.fits")
        with fits.open(folder / "dq.fits") as hdus:
            assert hdus[1].data.dtype.kind == "f"
        mask = run(folder, stddev="[ERR]", mask=folder / "dq.fits", ignore_bits=[1, 64]).mask
        assert_array_equal(np.flatnonzero(mask.any(axis=0)), [7, 20])

    def test_command_line(self, folder):
        zoo.save(MODEL, folder / "toy.safetensors")
        out = folder / "o.fits"
        args = ["enhance", str(folder / "chips.fits"), "-o", str(out), "--quiet"]
        args += ["--model", str(folder / "toy.safetensors"), "--seed", "1"]
        assert main([*args, "--stddev", "[ERR]", "--dq", "[DQ]", "--ignore-bits", "1,64"]) == 0
        same = run(folder, stddev="[ERR]", mask="[DQ]", ignore_bits=[1, 64])
        back = EnhancedCCDData.read(out)
        assert_array_equal(back.data, same.data)
        assert_array_equal(back.mask, same.mask)


class TestOutput:
    @pytest.fixture
    def files(self, folder):
        run(folder, stddev="[ERR]", mask="[DQ]")
        with fits.open(folder / "chips.fits") as before, fits.open(folder / "out.fits") as after:
            yield before, after

    def test_wcs(self, files):
        before, after = files
        y, x = np.indices(SHAPE)
        old, new = (WCS(header).pixel_to_world(x, y) for header in (before[1].header, after[0].header))
        assert old.separation(new).arcsec.max() < 1e-6

    def test_header(self, files):
        before, after = files
        header = after[0].header
        assert (header["INSTRUME"], header["GAIN"], header["BUNIT"]) == ("camera", 2, "adu")
        left_out = {"CHECKSUM", "EXTNAME", "EXTVER", "INHERIT", "EXTEND", "XTENSION", "PCOUNT", "GCOUNT"}
        in_pc = {"CD1_1", "CD1_2", "CD2_1", "CD2_2"}
        lost = ({*before[0].header} | {*before[1].header}) - {*header}
        zero = {"PV1_3", "PV2_3"}  # as they are without a card
        assert lost <= left_out | in_pc | zero
        assert not {"CHECKSUM", "EXTNAME", "INHERIT"} & {*header}

    def test_order_of_keywords(self, files):
        _, after = files
        order = list(after[0].header)
        wcs = [k for k in order if k.startswith(("CTYPE", "CRVAL", "CRPIX", "PV", "PC", "CUNIT"))]
        assert order.index("WCSAXES") < min(map(order.index, wcs))

    def test_standard(self, files):
        _, after = files
        after.verify("exception")
        assert [hdu.name for hdu in after] == ["PRIMARY", "MASK", "UNCERT"]


def test_planes_that_workers_compute_are_written(tmp_path, client):
    da = pytest.importorskip("dask.array")
    values = np.arange(24, dtype="f4").reshape(4, 6)
    lazy = EnhancedCCDData(da.from_array(values, chunks=(2, 6)), unit="adu")
    lazy.uncertainty = StdDevUncertainty(da.from_array(values + 1, chunks=(2, 6)))
    lazy.write(tmp_path / "lazy.fits")
    back = EnhancedCCDData.read(tmp_path / "lazy.fits")
    assert_array_equal(back.data, values)
    assert_array_equal(back.uncertainty.array, values + 1)

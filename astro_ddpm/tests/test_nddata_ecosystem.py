# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of `EnhancedCCDData` in the hands of astropy, ccdproc, photutils and reproject.

Whatever a function does, samples either follow the data or are gone.
"""

import bz2
import copy
import pickle

import ccdproc
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D, StdDevUncertainty
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.visualization import AsinhStretch, ImageNormalize, ZScaleInterval, simple_norm
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import ApertureStats, SkyCircularAperture, aperture_photometry
from photutils.psf import CircularGaussianPRF, PSFPhotometry

from astro_ddpm import EnhancedCCDData, evaluation

from .test_nddata import make_enhanced

SHAPE = (40, 36)
DROPPED = "samples are dropped"


@pytest.fixture
def image():
    return make_enhanced(shape=SHAPE)


def frame(values=1.0, uncertainty=None):
    uncertainty = None if uncertainty is None else StdDevUncertainty(np.full(SHAPE, uncertainty))
    return CCDData(np.broadcast_to(values, SHAPE).astype(float), unit="adu", uncertainty=uncertainty)


class TestSamplesFollow:
    """Functions of ccdproc through which samples go as the data do."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: ccdproc.subtract_bias(x, frame()),
            lambda x: ccdproc.subtract_dark(
                x, frame(), dark_exposure=1 * u.s, data_exposure=2 * u.s, scale=True
            ),
            lambda x: ccdproc.flat_correct(x, frame(np.linspace(0.5, 2, 36))),
            lambda x: ccdproc.gain_correct(x, 2 * u.electron / u.adu),
            lambda x: ccdproc.trim_image(x, fits_section="[3:20, 2:10]"),
            lambda x: ccdproc.trim_image(x[:10, 4:]),
            lambda x: ccdproc.create_deviation(x, gain=2 * u.electron / u.adu, readnoise=5 * u.electron),
        ],
        ids=["bias", "dark", "flat", "gain", "trim", "slice", "deviation"],
    )
    def test_as_each_of_them_would(self, image, function):
        result = function(image)
        assert isinstance(result, EnhancedCCDData)
        for sample, before in zip(result.samples, image.samples, strict=True):
            alone = function(CCDData(before, unit="adu"))
            assert_allclose(sample, alone.data, rtol=1e-6)
            assert result.unit == alone.unit

    @pytest.mark.parametrize(
        "duplicate",
        [copy.copy, copy.deepcopy, EnhancedCCDData.copy, lambda x: pickle.loads(pickle.dumps(x))],  # noqa: S301
    )
    def test_duplicates(self, image, duplicate):
        result = duplicate(image)
        assert isinstance(result, EnhancedCCDData)
        assert_array_equal(result.samples, image.samples)
        assert_array_equal(result.uncertainty.array, image.uncertainty.array)
        assert_array_equal(result.wcs.wcs_pix2world([[3, 4]], 0), image.wcs.wcs_pix2world([[3, 4]], 0))
        assert repr(result.meta) == repr(image.meta)

    def test_precision_of_the_data_may_change(self, image):
        image.data = image.data.astype(float)
        assert image.samples is not None


class TestSamplesAreDropped:
    """Functions that replace the data or write into them, which samples cannot follow."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: ccdproc.subtract_bias(x, frame(uncertainty=1.0)),
            lambda x: ccdproc.subtract_overscan(x, x[:, :5]),
            lambda x: ccdproc.cosmicray_median(x, thresh=0.5, mbox=5, rbox=3),
            lambda x: ccdproc.cosmicray_lacosmic(x, gain=2.0, readnoise=1.0),
            lambda x: ccdproc.ccd_process(x, oscan="[1:3, :]"),
            lambda x: ccdproc.combine([x, x.multiply(2)]),
            lambda x: ccdproc.combine([x.multiply(1.0), x.multiply(2.0)], method="median", mem_limit=1e4),
            lambda x: x.mean(axis=0),
        ],
        ids=["bias", "overscan", "median", "lacosmic", "process", "combine", "chunks", "mean"],
    )
    def test_with_a_warning(self, image, function):
        with pytest.warns(AstropyUserWarning, match=DROPPED):
            assert function(image).samples is None
        assert image.samples is not None

    def test_transformed(self, image):
        image.wcs = None
        result = ccdproc.transform_image(image, np.fliplr)
        with pytest.warns(AstropyUserWarning, match=DROPPED):
            assert result.samples is None

    def test_changed_in_place(self, image):
        image.data *= 2
        with pytest.warns(AstropyUserWarning, match="the data were changed after the samples had been set"):
            assert image.samples is None
        image.samples = np.stack([image.data, image.data])
        assert len(image.samples) == 2

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: ccdproc.wcs_project(x, x.wcs),
            lambda x: ccdproc.Combiner([x, x]).average_combine(),
            lambda x: frame().subtract(x),
        ],
        ids=["project", "Combiner", "other"],
    )
    def test_where_a_plain_ccddata_comes_back(self, image, function):
        assert not hasattr(function(image), "samples")


class TestCutouts:
    def test_cutout_and_slice(self, image):
        position = image.wcs.pixel_to_world(12.2, 15.4)
        cutout = Cutout2D(image, position, 1.5 * u.arcsec, wcs=image.wcs)
        part = image[cutout.slices_original]
        assert_array_equal(part.data, cutout.data)
        assert_array_equal(part.samples, image.samples[(slice(None), *cutout.slices_original)])
        assert_allclose(part.wcs.world_to_pixel(position), cutout.wcs.world_to_pixel(position))

    def test_slice_of_everything(self, image, tmp_path):
        image.mask = np.eye(*SHAPE, dtype=bool)
        image.flags = np.arange(image.size).reshape(SHAPE)
        part = image[5:20, 3:30]
        for name in ("data", "mask", "flags"):
            assert_array_equal(getattr(part, name), getattr(image, name)[5:20, 3:30])
        part.write(tmp_path / "part.fits")
        assert_array_equal(EnhancedCCDData.read(tmp_path / "part.fits").samples, part.samples)


class TestReproject:
    def test_image_and_samples(self, image):
        reproject = pytest.importorskip("reproject")
        target = image.wcs.deepcopy()
        target.wcs.crpix -= [3, 2]
        mean, _ = reproject.reproject_interp(image, target, shape_out=(30, 30))
        assert_allclose(mean, image.data[2:32, 3:33], rtol=1e-4)
        samples, _ = reproject.reproject_interp((image.samples, image.wcs), target, shape_out=(30, 30))
        assert_allclose(samples, image.samples[:, 2:32, 3:33], rtol=1e-4)


class TestVisualization:
    def test_intervals_and_norms(self, image):
        assert ZScaleInterval().get_limits(image) == ZScaleInterval().get_limits(image.data)
        for norm in (simple_norm(image, "asinh"), ImageNormalize(image.data, stretch=AsinhStretch())):
            assert (norm.vmin, norm.vmax) == (image.data.min(), image.data.max())

    def test_axes_with_a_wcs(self, image):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot(projection=image.wcs)
        assert_array_equal(axes.imshow(image).get_array(), image.data)


class TestPhotutils:
    def test_apertures_on_the_sky(self, image):
        aperture = SkyCircularAperture(image.wcs.pixel_to_world(12, 15), r=1 * u.arcsec)
        ours = evaluation.aperture_photometry(image, aperture)
        theirs = aperture_photometry(image, aperture)
        assert_allclose(ours["flux"][0], theirs["aperture_sum"][0], rtol=1e-6)
        assert ours["flux"].unit == u.adu
        assert isinstance(ours["sky_center"], SkyCoord)
        assert_allclose(ApertureStats(image, aperture).sum, ours["flux"][0], rtol=1e-6)

    def test_psf_photometry(self, image):
        photometry = PSFPhotometry(CircularGaussianPRF(fwhm=4), (5, 5), aperture_radius=4)
        table = photometry(image, init_params=QTable({"x": [12.0], "y": [15.0]}))
        assert table["flux_fit"].unit == u.adu


class TestTable:
    def test_columns(self, image):
        image.mask = np.eye(*SHAPE, dtype=bool)
        table = image.to_table()
        assert table.colnames == ["x", "y", "sky_center", "data", "uncertainty", "mask", "samples"]
        assert_array_equal(table["data"].value.reshape(SHAPE), image.data)
        assert_array_equal(table["uncertainty"].value.reshape(SHAPE), image.uncertainty.array)
        assert_array_equal(table["mask"].reshape(SHAPE), image.mask)
        assert {table[name].unit for name in ("data", "uncertainty", "samples")} == {u.adu}
        row = table[3 * 36 + 7]
        assert (row["x"], row["y"]) == (7 * u.pix, 3 * u.pix)
        assert_array_equal(row["samples"].value, image.samples[:, 3, 7])
        assert row["sky_center"].separation(image.wcs.pixel_to_world(7, 3)).arcsec < 1e-6

    def test_without_anything(self):
        table = EnhancedCCDData(np.ones((2, 3)), unit="Jy").to_table()
        assert table.colnames == ["x", "y", "data"]

    def test_metadata(self, image):
        image.meta["DDPMSEED"], image.meta["DDPMMODL"] = 5, "toy"
        assert image.to_table().meta == {"model": "toy", "seed": 5}

    @pytest.mark.parametrize("name", ["table.ecsv", "table.fits"])
    def test_files(self, image, tmp_path, name):
        table = image.to_table()
        table.write(tmp_path / name)
        back = QTable.read(tmp_path / name)
        assert_array_equal(back["samples"], table["samples"])
        assert back.colnames == table.colnames

    def test_one_dimension(self):
        with pytest.raises(ValueError, match="needs a two-dimensional image"):
            EnhancedCCDData(np.ones(3), unit="Jy").to_table()


class TestFiles:
    """The unified interface of astropy to files."""

    def test_options_of_astropy(self, image, tmp_path):
        image.write(tmp_path / "image.fits", format="fits", checksum=True, output_verify="exception")
        with fits.open(tmp_path / "image.fits", checksum=True) as hdus:
            assert all("DATASUM" in hdu.header for hdu in hdus)
        back = EnhancedCCDData.read(tmp_path / "image.fits", format="fits")
        assert_array_equal(back.samples, image.samples)

    def test_compressed(self, image, tmp_path):
        image.write(tmp_path / "image.fits.gz")
        assert (tmp_path / "image.fits.gz").read_bytes().startswith(b"\x1f\x8b")
        assert_array_equal(EnhancedCCDData.read(tmp_path / "image.fits.gz").samples, image.samples)

    def test_bzip2(self, image, tmp_path):
        image.write(tmp_path / "image.fits")
        packed = bz2.compress((tmp_path / "image.fits").read_bytes())
        (tmp_path / "image.fits.bz2").write_bytes(packed)
        assert_array_equal(EnhancedCCDData.read(tmp_path / "image.fits.bz2").samples, image.samples)

    def test_byte_order_of_the_psf(self, image, tmp_path):
        image.psf = np.ones((3, 3))
        image.write(tmp_path / "image.fits")
        assert EnhancedCCDData.read(tmp_path / "image.fits").psf.dtype.isnative

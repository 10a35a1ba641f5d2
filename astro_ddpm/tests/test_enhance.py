# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of `enhance`: invariances, what is kept, and what is refused.
"""

import re
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty
from astropy.utils.exceptions import AstropyDeprecationWarning, AstropyUserWarning
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, OutOfDomainWarning, __version__, core, enhance, zoo
from astro_ddpm.noise import fill_holes, frame, smooth_sigma

from .helpers import SIGMA, make_image, toy_model

DDPM = toy_model()
RAUNET = toy_model(samples=False)
RANGES = {
    "psf_fwhm": [8.0, 11.0],  # the galaxy of make_image is 9.4 pixels wide
    "noise_correlation": [-0.15, 0.15],
    "peak_snr": [0.0, 200.0],
    "noise_ratio": [0.02, 0.6],
}
ODD = (131, 149)
# The networks are not trained: a check would find that they do harm.
OPTIONS = {"model": DDPM, "n_samples": 3, "steps": 3, "seed": 1, "verify": False}


def planes(enhanced):
    return enhanced.data, enhanced.uncertainty.array, enhanced.samples


class TestInvariance:
    """Test what must not change the result."""

    @pytest.mark.parametrize("model", ["ddpm", "raunet"])
    @pytest.mark.parametrize("factor", [1e-3, 1e3])
    def test_scaling(self, model, factor):
        ccd = make_image()
        scaled = make_image(uncertainty=StdDevUncertainty(factor * ccd.uncertainty.array))
        scaled.data = (factor * ccd.data).astype("f4")
        options = {"model": model, "n_samples": 2, "steps": 4, "seed": 1}
        for one, other in zip(
            planes(enhance(ccd, **options)), planes(enhance(scaled, **options)), strict=True
        ):
            if one is not None:
                assert_allclose(other, factor * one, rtol=1e-5, atol=1e-5 * factor * SIGMA)

    def test_unit(self):
        ccd = make_image(unit="Jy")
        milli = make_image(unit="mJy", uncertainty=StdDevUncertainty(1e3 * ccd.uncertainty.array))
        milli.data = 1e3 * ccd.data
        first, second = enhance(ccd, **OPTIONS), enhance(milli, **OPTIONS)
        assert second.unit == u.mJy
        assert_allclose(second.convert_unit_to("Jy").data, first.data, rtol=1e-5, atol=1e-5 * SIGMA)

    def test_seed(self):
        ccd = make_image()
        first, same = enhance(ccd, **OPTIONS), enhance(ccd, **OPTIONS)
        other = enhance(ccd, **(OPTIONS | {"seed": 2}))
        assert_array_equal(first.samples, same.samples)
        assert np.abs(first.samples - other.samples).max() > 0.1

    def test_recorded_seed_repeats_the_result(self):
        ccd = make_image()
        first = enhance(ccd, **(OPTIONS | {"seed": None}))
        again = enhance(ccd, **(OPTIONS | {"seed": first.meta["DDPMSEED"]}))
        assert_array_equal(first.samples, again.samples)

    def test_batch_size_and_number_of_samples(self):
        ccd = make_image()
        first = enhance(ccd, **(OPTIONS | {"n_samples": 5, "batch_size": 5}))
        second = enhance(ccd, **(OPTIONS | {"n_samples": 5, "batch_size": 2, "tile_size": 64}))
        fewer = enhance(ccd, **(OPTIONS | {"n_samples": 2}))
        assert_allclose(first.samples, second.samples, atol=1e-4 * SIGMA)
        assert_allclose(first.samples[:2], fewer.samples, atol=1e-4 * SIGMA)

    def test_global_random_state_is_left_alone(self):
        np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        enhance(make_image(), **OPTIONS)
        assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), torch_state)

    @pytest.mark.parametrize(
        "uncertainty",
        [VarianceUncertainty(np.full((40, 36), SIGMA**2)), InverseVariance(np.full((40, 36), SIGMA**-2))],
    )
    def test_kinds_of_uncertainty(self, uncertainty):
        expected = enhance(make_image(), **OPTIONS)
        result = enhance(make_image(uncertainty=uncertainty), **OPTIONS)
        assert_allclose(result.data, expected.data, rtol=1e-5, atol=1e-4)
        result = enhance(make_image(uncertainty=None), uncertainty=SIGMA, **OPTIONS)
        assert_allclose(result.data, expected.data, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "i2", ">i4", "u2"])
    def test_dtypes(self, dtype):
        ccd = make_image()
        ccd.data = np.round(ccd.data + 20).astype("f4")
        other = make_image()
        other.data = ccd.data.astype(dtype)
        expected, result = (enhance(image, background=20, **OPTIONS) for image in (ccd, other))
        assert_allclose(result.data, expected.data, rtol=1e-5, atol=1e-4)
        assert result.data.dtype.isnative
        assert result.data.dtype.itemsize == (8 if dtype in (">f8", ">i4") else 4)
        assert result.samples.dtype == result.uncertainty.array.dtype == result.data.dtype

    def test_memory_mapped_file(self, tmp_path):
        ccd = make_image()
        ccd.write(tmp_path / "image.fits")
        expected = enhance(ccd, **OPTIONS)
        with fits.open(tmp_path / "image.fits", memmap=True) as hdus:
            result = enhance(hdus[0], uncertainty=SIGMA, **OPTIONS)
        assert_allclose(result.data, expected.data, rtol=1e-6, atol=1e-5)
        assert_allclose(enhance(tmp_path / "image.fits", **OPTIONS).data, expected.data, rtol=1e-6, atol=1e-5)


@pytest.fixture(scope="module")
def holed():
    """Return an image with holes small and large."""
    mask = np.random.default_rng(3).random(ODD) < 0.02
    mask[:, 70] = mask[20:50, 90:140] = True
    mask[60:, :60] = True  # whole tiles without a measured pixel
    ccd = make_image(ODD, mask=mask)
    ccd.data[mask] = np.nan
    return ccd


@pytest.fixture(scope="module")
def whole(holed):
    """Return its results in one piece."""
    options = OPTIONS | {"tile_size": 1000}
    return {model.kind: enhance(holed, **(options | {"model": model})) for model in (DDPM, RAUNET)}


class TestTiles:
    """Test that the result does not know in what parts it was computed."""

    @staticmethod
    def check(result, expected):
        noise = np.maximum(SIGMA, expected.uncertainty.array)  # that of a hole in a bright source is large
        for one, other in zip(planes(result), planes(expected), strict=True):
            if one is not None:
                assert np.all(np.abs(one - other) <= 1e-4 * noise + 1.2e-7 * np.abs(other))  # that of float32

    @pytest.mark.parametrize("model", [DDPM, RAUNET])
    @pytest.mark.parametrize("tile_size", [1, 24, 33, 64])
    def test_tile_size(self, holed, whole, model, tile_size):
        if tile_size == 1:  # as many tiles as pixels
            part = (slice(50, 61), slice(62, 75))
            holed, expected = holed[part], enhance(holed[part], **(OPTIONS | {"model": model}))
        else:
            expected = whole[model.kind]
        self.check(enhance(holed, **(OPTIONS | {"model": model, "tile_size": tile_size})), expected)

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_batch_size(self, holed, whole, batch_size):
        self.check(enhance(holed, tile_size=64, batch_size=batch_size, **OPTIONS), whole["ddpm"])

    @pytest.mark.parametrize("model", [DDPM, RAUNET])
    @pytest.mark.parametrize("memory_limit", [2e6, 5 * u.Mbyte, "1 GB"])
    def test_memory_limit(self, holed, whole, model, memory_limit):
        options = OPTIONS | {"model": model, "memory_limit": memory_limit}
        self.check(enhance(holed, **options), whole[model.kind])

    def test_threads(self, holed, whole):
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(3 - min(threads, 2))
            self.check(enhance(holed, **(OPTIONS | {"model": RAUNET})), whole["raunet"])
        finally:
            torch.set_num_threads(threads)

    @pytest.mark.filterwarnings("ignore::astro_ddpm.OutOfDomainWarning")
    @pytest.mark.parametrize("model", ["raunet", "ddpm"])
    def test_default_models(self, model):
        mask = np.zeros(ODD, bool)
        mask[40:60, 30:90] = True
        ccd = make_image(ODD, mask=mask, amplitude=6000)
        options = {"model": model, "n_samples": 1, "steps": 2, "seed": 1}
        self.check(enhance(ccd, tile_size=96, **options), enhance(ccd, **options))

    def test_far_from_any_measured_pixel(self, holed):
        # there is the filled-in image with its noise: draws of independent pixels
        corner, radius = holed[40:, :80], DDPM.receptive_radius
        far = (slice(20 + radius, None), slice(0, 60 - radius))
        data, sigma = (p[far] for p in fill_holes(corner.data, corner.uncertainty.array, ~corner.mask))
        alone = enhance(corner, **(OPTIONS | {"model": RAUNET}))
        assert_allclose(alone.data[far], data, rtol=1e-6)
        assert_allclose(alone.uncertainty.array[far], sigma, rtol=1e-6)
        draws = enhance(corner, **(OPTIONS | {"n_samples": 16, "noise_ratio": 0.3, "steps": 10})).samples
        spread = (draws[:, *far] - data) / sigma
        assert_allclose(spread.std(), np.hypot(1, 0.3), rtol=0.05)
        assert_allclose(np.mean(spread[..., 1:] * spread[..., :-1]), 0, atol=0.05)

    @pytest.mark.parametrize("fill_radius", [8, 32])
    def test_larger_than_one_part(self, monkeypatch, holed, whole, fill_radius):
        # noise and holes of large frames are dealt with in parts
        monkeypatch.setattr(frame, "PART", 40)
        monkeypatch.setattr(frame, "FILL_RADIUS", fill_radius)
        result = enhance(holed, **(OPTIONS | {"model": RAUNET}))
        same = ~holed.mask
        if fill_radius == 32:  # it sees across the smaller holes
            same[:50] = same[:, 80:] = True
        for one, other in zip(planes(result)[:2], planes(whole["raunet"])[:2], strict=True):
            assert np.isfinite(one).all()
            assert_allclose(one[same], other[same], atol=0.3 * SIGMA)

    def test_mask_like_a_grid(self, monkeypatch):
        # every other row and column is valid: any regular choice of pixels may miss them all
        monkeypatch.setattr(frame, "PART", 40)
        ccd = make_image((80, 80))
        ccd.mask = np.ones(ccd.shape, bool)
        ccd.mask[1::2, ::2] = False
        assert np.isfinite(enhance(ccd, **(OPTIONS | {"model": RAUNET})).data).all()

    def test_noise_is_measured_in_parts(self, monkeypatch):
        monkeypatch.setattr(frame, "PART", 40)
        ccd = make_image(ODD, uncertainty=None)
        ccd.mask = np.zeros(ODD, bool)
        ccd.mask[:45, :45] = True  # a part in which nothing can be measured
        with pytest.warns(AstropyUserWarning, match=r"uniform noise of (1\.9|2\.0|2\.1)\d* adu"):
            enhance(ccd, **OPTIONS)

    def test_samples_need_not_be_kept(self, holed, whole):
        result = enhance(holed, keep_samples=False, **OPTIONS)
        assert result.samples is None
        assert result.meta["DDPMNSAM"] == 3
        assert_array_equal(result.data, enhance(holed, **OPTIONS).data)
        assert_array_equal(result.uncertainty.array, enhance(holed, **OPTIONS).uncertainty.array)

    def test_samples_in_a_file(self, tmp_path):
        ccd, path = make_image(), tmp_path / "samples.fits"
        expected, result = enhance(ccd, **OPTIONS), enhance(ccd, samples_file=path, **OPTIONS)
        assert isinstance(result.samples, np.memmap)
        for one, other in zip(planes(result), planes(expected), strict=True):
            assert_array_equal(one, other)
        with fits.open(path) as hdus:
            hdus.verify("exception")
            assert hdus[0].header["BUNIT"] == "adu"
            assert_array_equal(hdus[0].data, expected.samples)
        assert list(tmp_path.iterdir()) == [path]
        result.write(tmp_path / "result.fits")
        assert_array_equal(EnhancedCCDData.read(tmp_path / "result.fits").samples, expected.samples)
        assert_array_equal(result.quantile(0.5), expected.quantile(0.5))
        with pytest.raises(FileExistsError, match="exists"):
            enhance(ccd, samples_file=path, **OPTIONS)

    def test_failure_leaves_no_file(self, tmp_path, monkeypatch):
        TestOutOfMemory.exhausted(monkeypatch, DDPM.denoiser, 10, RuntimeError)
        with pytest.raises(RuntimeError):
            enhance(make_image(), samples_file=tmp_path / "samples.fits", **OPTIONS)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("options", [{"model": RAUNET}, {"keep_samples": False}])
    def test_file_without_samples(self, tmp_path, options):
        with pytest.raises(ValueError, match="samples_file needs a model that draws samples"):
            enhance(make_image(), **(OPTIONS | options | {"samples_file": tmp_path / "samples.fits"}))


class TestOutOfMemory:
    """Test that a GPU of little memory gets less to do at once."""

    @staticmethod
    def exhausted(monkeypatch, network, pixels, error=torch.cuda.OutOfMemoryError):
        forward, tried = network.forward, []

        def limited(x, *args):
            tried.append(x.shape)
            if x.shape[0] * x.shape[-2] * x.shape[-1] > pixels:
                raise error
            return forward(x, *args)

        monkeypatch.setattr(network, "forward", limited)
        return tried

    def test_smaller_batches_then_smaller_tiles(self, monkeypatch):
        ccd = make_image((100, 90))
        expected = enhance(ccd, **OPTIONS)
        tried = self.exhausted(monkeypatch, DDPM.denoiser, 90 * 80)
        with pytest.warns(AstropyUserWarning, match="trying again with batch_size=") as record:
            result = enhance(ccd, **OPTIONS)
        assert [str(warning.message).split("with ")[-1].split(",")[0] for warning in record] == [
            "batch_size=2 and tile_size=100",
            "batch_size=1 and tile_size=100",
            "batch_size=1 and tile_size=45",
        ]
        assert tried[0] == (5, 1, 100, 90)
        TestTiles.check(result, expected)

    def test_raunet(self, monkeypatch):
        ccd = make_image((100, 90))
        expected = enhance(ccd, model=RAUNET, verify=False)
        self.exhausted(monkeypatch, RAUNET.regressor, 90 * 80)
        with pytest.warns(AstropyUserWarning, match="tile_size=45"):
            TestTiles.check(enhance(ccd, model=RAUNET, verify=False), expected)

    @pytest.mark.filterwarnings("ignore:the memory of")
    def test_no_end(self, monkeypatch):
        self.exhausted(monkeypatch, RAUNET.regressor, 10)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            enhance(make_image((100, 90)), model=RAUNET, verify=False)

    def test_other_errors_are_not_caught(self, monkeypatch):
        tried = self.exhausted(monkeypatch, RAUNET.regressor, 10, RuntimeError)
        with pytest.raises(RuntimeError):
            enhance(make_image((100, 90)), model=RAUNET, verify=False)
        assert len(tried) == 1


class TestInputIsKept:
    """Test that the input survives and that what it carried arrives."""

    def test_bytes_of_the_input(self):
        mask = np.zeros((40, 36), bool)
        mask[:, 5] = True
        ccd = make_image(mask=mask)
        ccd.data[3, 3] = np.nan
        before = ccd.data.tobytes(), ccd.mask.tobytes(), ccd.uncertainty.array.tobytes(), ccd.meta.tostring()
        for array in (ccd.data, ccd.mask, ccd.uncertainty.array):
            array.flags.writeable = False
        for treatment in ("fill", "propagate"):
            enhance(ccd, mask_treatment=treatment, background=3.0, **OPTIONS)
        after = ccd.data.tobytes(), ccd.mask.tobytes(), ccd.uncertainty.array.tobytes(), ccd.meta.tostring()
        assert before == after

    def test_attributes(self):
        ccd = make_image(mask=np.zeros((40, 36), bool), psf=np.ones((3, 3)), flags=np.ones((40, 36), int))
        result = enhance(ccd, **OPTIONS)
        assert isinstance(result, EnhancedCCDData)
        assert isinstance(result.uncertainty, StdDevUncertainty)
        assert result.unit == ccd.unit
        assert result.wcs.to_header_string() == ccd.wcs.to_header_string()
        assert result.wcs is not ccd.wcs
        for name in ("mask", "psf", "flags"):
            assert_array_equal(getattr(result, name), getattr(ccd, name))
            assert getattr(result, name) is not getattr(ccd, name)
        assert result.meta["OBJECT"] == "galaxy"
        assert result.samples.shape == (3, 40, 36)

    def test_mean_is_free_of_the_noise_of_the_draws(self):
        options = OPTIONS | {"steps": 6}
        many = enhance(make_image(), **(options | {"n_samples": 64}))
        few = [enhance(make_image(), **(options | {"n_samples": 4, "seed": seed})) for seed in (2, 3)]
        scatter = np.std(few[0].data - few[1].data)
        plain = np.std(few[0].samples.mean(axis=0) - few[1].samples.mean(axis=0))
        assert scatter < 0.3 * plain
        standard_error = many.samples.std(axis=0) / 8
        assert np.mean(((many.samples.mean(axis=0) - many.data) / standard_error) ** 2) < 1.5

    def test_provenance(self):
        result = enhance(make_image(), noise_ratio=0.3, **OPTIONS)
        meta = result.meta
        assert meta["DDPMVERS"] == __version__
        assert (meta["DDPMMODL"], meta["DDPMSHA"]) == ("toy", DDPM.sha256)
        assert (meta["DDPMSEED"], meta["DDPMNSAM"], meta["DDPMSTEP"], meta["DDPMDEP"]) == (1, 3, 3, 0.3)
        assert (meta["DDPMDEVI"], meta["DDPMNOIS"], meta["DDPMBKG"]) == ("cpu", "given", "none")
        assert "enhance: model='toy', seed=1" in str(meta["HISTORY"]).replace("\n", "")
        again = enhance(result, background=1.5, again=True, **OPTIONS)
        assert str(again.meta["HISTORY"]).count("enhance:") == 2
        assert again.meta["DDPMBKG"] == 1.5
        assert "HISTORY" not in enhance(make_image(), add_keyword=False, **OPTIONS).meta

    def test_provenance_in_a_dictionary(self):
        ccd = make_image(meta={"OBJECT": "galaxy"})
        again = enhance(enhance(ccd, **OPTIONS), again=True, **OPTIONS)
        assert again.meta["HISTORY"].count("enhance:") == 2
        assert "HISTORY" not in ccd.meta

    def test_fits_round_trip(self, tmp_path):
        mask = np.zeros((40, 36), bool)
        mask[7] = True
        result = enhance(make_image(mask=mask), **OPTIONS)
        result.write(tmp_path / "result.fits")
        back = EnhancedCCDData.read(tmp_path / "result.fits")
        for one, other in zip(planes(result), planes(back), strict=True):
            assert_array_equal(one, other)
        assert_array_equal(back.mask, mask)
        assert back.meta["DDPMSHA"] == DDPM.sha256
        assert "enhance: model='toy'" in str(back.meta["HISTORY"]).replace("\n", "")

    def test_plain_inputs(self):
        data = make_image().data
        for image in (data, data * u.Jy, NDData(data, unit="Jy"), np.ma.array(data)):
            result = enhance(image, uncertainty=SIGMA, **OPTIONS)
            assert isinstance(result, EnhancedCCDData)
            assert result.unit == getattr(image, "unit", u.dimensionless_unscaled)


class TestMaskTreatment:
    """Test holes."""

    @pytest.fixture
    def holed(self):
        mask = np.zeros((40, 36), bool)
        mask[:, 18] = mask[20:24, 3:9] = True
        ccd = make_image(mask=mask)
        ccd.data[mask] = 1e9
        ccd.data[0, 0], ccd.data[1, 1] = np.nan, np.inf
        return ccd

    def test_fill(self, holed):
        result = enhance(holed, **OPTIONS)
        assert all(np.isfinite(plane).all() for plane in planes(result))
        assert np.abs(result.data).max() < 1e3
        assert_array_equal(result.mask, holed.mask | ~np.isfinite(holed.data))

    @pytest.mark.filterwarnings("ignore:the image has no uncertainty")
    def test_banding_is_told(self):
        ccd = make_image((96, 96), uncertainty=None)
        ccd.data += np.random.default_rng(1).normal(0, 2 * SIGMA, (96, 1)).astype("f4")
        with pytest.warns(AstropyUserWarning, match=r"of the noise is in whole rows or columns"):
            enhance(ccd, **OPTIONS)

    @pytest.mark.parametrize("value", [0, 9.96921e36, -3.4028235e38])
    def test_areas_of_one_value_are_missing(self, value):
        ccd, border = make_image(), np.zeros((40, 36), bool)
        border[:9] = True
        ccd.data[border] = value
        with pytest.warns(AstropyUserWarning, match=r"324 pixels lie in areas of one value"):
            result = enhance(ccd, **OPTIONS)
        assert_array_equal(result.mask, border)
        ccd.mask = border
        assert_array_equal(enhance(ccd, **OPTIONS).samples, result.samples)

    def test_content_of_holes_does_not_matter(self, holed):
        result = enhance(holed, **OPTIONS)
        holed.data[holed.mask] = -7
        holed.uncertainty.array[holed.mask] = 0
        assert_array_equal(enhance(holed, **OPTIONS).samples, result.samples)

    def test_propagate(self, holed):
        filled, result = enhance(holed, **OPTIONS), enhance(holed, mask_treatment="propagate", **OPTIONS)
        bad = holed.mask | ~np.isfinite(holed.data)
        assert_array_equal(result.data[bad], holed.data[bad])
        assert_array_equal(result.uncertainty.array[bad], holed.uncertainty.array[bad])
        assert_array_equal(result.samples[:, bad], np.broadcast_to(holed.data[bad], (3, bad.sum())))
        assert_array_equal(result.data[~bad], filled.data[~bad])

    def test_propagate_without_uncertainty(self, holed):
        holed.uncertainty = None
        with pytest.warns(AstropyUserWarning, match="no uncertainty"):
            result = enhance(holed, mask_treatment="propagate", **OPTIONS)
        assert_array_equal(np.isnan(result.uncertainty.array), result.mask)

    def test_no_mask_stays_no_mask(self):
        assert enhance(make_image(), **OPTIONS).mask is None


class TestNoiseAndBackground:
    """Test what is assumed about noise and sky."""

    def test_estimated_noise(self):
        with pytest.warns(AstropyUserWarning, match="uniform noise of .* adu was measured") as record:
            result = enhance(make_image((80, 80), uncertainty=None), **OPTIONS)
        assert record[0].filename == __file__
        assert result.meta["DDPMNOIS"] == "estimated"
        given = enhance(make_image((80, 80)), **OPTIONS)
        assert np.std(result.data - given.data) < 0.3 * SIGMA

    def test_noise_of_each_pixel_alone_warns(self):
        electrons = np.random.default_rng(0).poisson(100.0, (64, 64)).astype("f4")
        ccd = CCDData(electrons - 100, unit="electron", uncertainty=StdDevUncertainty(np.sqrt(electrons)))
        with pytest.warns(
            AstropyUserWarning, match="rises and falls with the noise of each .* 0.05"
        ) as record:
            enhance(ccd, **OPTIONS)
        assert record[0].filename == __file__
        ccd.uncertainty.array = smooth_sigma(ccd.uncertainty.array)
        enhance(ccd, **OPTIONS)  # does not warn

    def test_pedestal_warns(self):
        ccd = make_image()
        ccd.data += 500
        with pytest.warns(AstropyUserWarning, match="sky level of 50"):
            enhance(ccd, **OPTIONS)

    @pytest.mark.parametrize("background", ["photutils", 500, 500 * u.adu, np.full((40, 36), 500.0)])
    def test_background_is_subtracted_and_added_back(self, background):
        expected = enhance(make_image(), **OPTIONS)
        ccd = make_image()
        ccd.data += 500
        result = enhance(ccd, background=background, **OPTIONS)
        tolerance = 0.5 * SIGMA if isinstance(background, str) else 1e-3
        assert_allclose(np.median(result.data - expected.data), 500, atol=tolerance)
        assert_allclose(np.median(result.samples - expected.samples), 500, atol=tolerance)

    @pytest.mark.parametrize("kind", ["list", "CCDData", "NDData"])
    def test_other_forms_of_a_background(self, kind):
        ccd, sky = make_image(), np.full((40, 36), 500.0)
        ccd.data = ccd.data + 500
        forms = {"list": sky.tolist(), "CCDData": CCDData(sky, unit="adu"), "NDData": NDData(sky)}
        result = enhance(ccd, background=forms[kind], **OPTIONS)
        assert_array_equal(result.data, enhance(ccd, background=sky, **OPTIONS).data)
        assert result.meta["DDPMBKG"] == "image"

    def test_background_errors(self):
        with pytest.raises(ValueError, match="background must be None, 'photutils'"):
            enhance(make_image(), background="sky", **OPTIONS)
        with pytest.raises(ValueError, match="background has shape"):
            enhance(make_image(), background=np.ones((3, 3)), **OPTIONS)
        with pytest.raises(ValueError, match="background must be finite"):
            enhance(make_image(), background=np.nan, **OPTIONS)
        with pytest.raises(u.UnitConversionError):
            enhance(make_image(), background=1 * u.m, **OPTIONS)


class TestGuard:
    """Test the warning that an image is unlike those that a model was trained on."""

    @staticmethod
    def options(noise_ratio=None, **ranges):
        return OPTIONS | {"model": replace(DDPM, ranges=RANGES | ranges), "noise_ratio": noise_ratio}

    def test_silent_inside(self):
        result = enhance(make_image((64, 64)), **self.options())
        assert_allclose(result.meta["DDPMPSF"], 2 * np.sqrt(2 * np.log(2)) * 4, rtol=0.05)
        assert abs(result.meta["DDPMCORR"]) < 0.12
        assert_allclose(result.meta["DDPMPEAK"], 150, rtol=0.1)
        assert result.meta["DDPMOUT"] == "none"

    def test_one_warning_lists_everything(self):
        ranges = {"psf_fwhm": [12, 14], "noise_correlation": [0.3, 0.5], "peak_snr": [0, 50]}
        with pytest.warns(OutOfDomainWarning) as record:
            result = enhance(make_image((64, 64)), **self.options(noise_ratio=0.01, **ranges))
        assert len(record) == 1
        assert record[0].filename == __file__
        text = str(record[0].message)
        for part in (
            r"PSF FWHM in pixels 9\.\d+ \(12 to 14\)",
            r"neighbouring pixels -?0\.\d+ \(0\.3 to 0\.5\)",
            r"peak S/N 1\d\d \(0 to 50\)",
            r"noise ratio 0\.01 \(0\.02 to 0\.6\)",
            "errors are not verified",
        ):
            assert re.search(part, text)
        assert result.meta["DDPMOUT"] == "psf_fwhm, noise_correlation, peak_snr, noise_ratio"

    def test_can_be_silenced_and_changes_nothing(self):
        plain = enhance(make_image((64, 64)), **OPTIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDomainWarning)
            result = enhance(make_image((64, 64)), **self.options(peak_snr=[0, 1], psf_fwhm=[1, 2]))
        for one, other in zip(planes(plain), planes(result), strict=True):
            assert_array_equal(one, other)

    def test_broad_source_may_be_a_galaxy_unless_the_psf_is_given(self):
        options = self.options(psf_fwhm=[2, 5])
        enhance(make_image((64, 64)), **options)
        y, x = np.mgrid[-15:16, -15:16]
        with pytest.warns(OutOfDomainWarning, match=r"PSF FWHM in pixels 9\.\d+ \(2 to 5\)"):
            enhance(make_image((64, 64), psf=np.exp(-0.5 * (x**2 + y**2) / 4**2)), **options)

    def test_useless_psf_is_not_used(self):
        for psf in (np.full((5, 5), np.nan), np.ones((3, 3)), np.ones(7)):
            result = enhance(make_image((64, 64), psf=psf), **self.options())
            assert_allclose(result.meta["DDPMPSF"], 9.42, rtol=0.05)

    def test_record(self, tmp_path):
        result = enhance(make_image((64, 64)), **self.options())
        result.write(tmp_path / "result.fits")
        meta = fits.getheader(tmp_path / "result.fits")
        assert meta["DDPMPSF"] == result.meta["DDPMPSF"]
        assert "outside='none'" in str(meta["HISTORY"]).replace("\n", "")
        again = enhance(result, again=True, **(OPTIONS | {"model": replace(DDPM, ranges={})}))
        assert not {"DDPMPSF", "DDPMCORR", "DDPMPEAK", "DDPMOUT"} & {*again.meta}


class TestOptions:
    """Test what is refused."""

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"n_samples": 0}, "n_samples must be"),
            ({"n_samples": 2.5}, "n_samples must be"),
            ({"n_samples": None}, "n_samples must be"),
            ({"precision": "float16"}, "precision must be 'float32' or 'bfloat16'"),
            ({"steps": 0}, "steps must be"),
            ({"batch_size": -1}, "batch_size must be"),
            ({"tile_size": 0}, "tile_size must be"),
            ({"memory_limit": 0}, "memory_limit must be positive"),
            ({"memory_limit": "much"}, "memory_limit must be a number of bytes"),
            ({"memory_limit": 1e3}, "memory_limit must be at least"),
            ({"seed": -1}, "seed must be"),
            ({"seed": 2**63}, "seed must be"),
            ({"noise_ratio": 0}, "noise_ratio must be"),
            ({"noise_ratio": np.nan}, "noise_ratio must be"),
            ({"mask_treatment": "zero"}, "mask_treatment must be"),
            ({"model": "unet"}, "unknown model 'unet'"),
            ({"device": "abacus"}, "device 'abacus'"),
            ({"uncertainty": 1.0}, "uncertainty is given although"),
        ],
    )
    def test_errors(self, options, match):
        with pytest.raises(ValueError, match=match):
            enhance(make_image(), **(OPTIONS | options))

    @pytest.mark.parametrize(
        ("image", "match"),
        [
            (np.ones((3, 8, 8)), "two-dimensional"),
            (np.ones((0, 0)), "empty"),
            (np.ma.masked_all((8, 8)), "no valid pixel"),
        ],
    )
    def test_images(self, image, match):
        with pytest.raises(ValueError, match=match):
            enhance(image, uncertainty=1.0, **OPTIONS)

    def test_noise_ratio_outside_the_range(self):
        with pytest.warns(OutOfDomainWarning, match=r"trained for: noise ratio 0\.9 \(0\.02 to 0\.6\)\. The"):
            enhance(make_image(), noise_ratio=0.9, **OPTIONS)

    def test_old_name_of_the_noise_ratio(self):
        with pytest.warns(AstropyDeprecationWarning, match='"depth" was deprecated'):
            old = enhance(make_image(), depth=0.3, **OPTIONS)
        assert_array_equal(old.samples, enhance(make_image(), noise_ratio=0.3, **OPTIONS).samples)

    @pytest.mark.parametrize("ranges", [{}, RANGES])
    @pytest.mark.parametrize("shape", [(1, 40), (7, 13), (33, 65)])
    def test_any_size(self, shape, ranges):
        options = OPTIONS | {"model": replace(DDPM, ranges=ranges)}
        result = enhance(make_image(shape, amplitude=0), **options)
        assert result.samples.shape == (3, *shape)

    def test_progress_bar(self, capsys):
        enhance(make_image(), **OPTIONS)
        assert capsys.readouterr().err == ""
        enhance(make_image(), progress_bar=True, **OPTIONS)
        assert "3/3" in capsys.readouterr().err

    def test_raunet_gives_no_samples(self):
        result = enhance(make_image(), model=RAUNET)
        assert result.samples is None
        assert result.meta["DDPMNSAM"] == 0

    def test_model_from_file(self, tmp_path):
        zoo.save(DDPM, tmp_path / "mine.safetensors")
        result = enhance(make_image(), **(OPTIONS | {"model": tmp_path / "mine.safetensors"}))
        assert_array_equal(result.samples, enhance(make_image(), **OPTIONS).samples)
        assert result.meta["DDPMMODL"] == "mine"

    def test_one_sample(self, monkeypatch):
        # has no scatter, so the uncertainty is that of the RAUNet in all orientations
        monkeypatch.setattr(zoo.Model, "passes", 4)
        one = enhance(make_image(), **(OPTIONS | {"n_samples": 1}))
        raunet = enhance(make_image(), model=RAUNET)
        assert_allclose(one.uncertainty.array, raunet.uncertainty.array, rtol=1e-4)


class TestDefaultModels:
    """Test the models that ship with the package."""

    @pytest.mark.parametrize("model", ["raunet", "ddpm"])
    def test_noise_falls_and_errors_are_honest(self, model):
        rng = np.random.default_rng(5)
        ccd = make_image((64, 64))
        y, x = np.mgrid[:64, :64]
        scene = 30 * np.exp(-np.hypot(y - 32, x - 32) / 6)
        ccd.data = (scene + rng.normal(0, SIGMA, scene.shape)).astype("f4")
        result = enhance(ccd, model=model, n_samples=8, seed=1)
        error = result.data - scene
        assert error.std() < 0.4 * SIGMA
        assert 0.6 < np.std(error / result.uncertainty.array) < 1.5
        assert abs(error.mean()) < 0.1 * SIGMA
        if result.samples is not None:
            spread = result.samples.std(axis=0, ddof=1).mean() / SIGMA
            assert 0.2 < spread < 0.45

    def test_fills_a_column_in_a_galaxy(self):
        y, x = np.mgrid[:64, :64]
        scene = 100 * np.exp(-np.hypot(y - 32, x - 32) / 8)
        data = scene + np.random.default_rng(2).normal(0, SIGMA, scene.shape)
        mask = np.zeros(scene.shape, bool)
        mask[:, 30] = True
        data[mask] = 1e5
        ccd = CCDData(data.astype("f4"), unit="adu", mask=mask)
        result = enhance(ccd, uncertainty=SIGMA, model="raunet")
        error = (result.data - scene)[mask]
        assert np.sqrt(np.mean(error**2)) < 3 * SIGMA
        assert np.abs(error / result.uncertainty.array[mask]).max() < 6


class TestImports:
    """Test that heavy packages are imported late, or not at all."""

    @staticmethod
    def modules(code):
        code += "; import sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()

    def test_import_is_light(self):
        loaded = self.modules("import astro_ddpm, astro_ddpm.cli, astro_ddpm.zoo, astro_ddpm.datasets")
        assert not {"torch", "lightning", "pytorch_lightning", "matplotlib", "photutils"} & {*loaded}

    def test_inference_never_imports_lightning(self):
        code = "import astro_ddpm, numpy; astro_ddpm.enhance(numpy.eye(16), uncertainty=1.0, model='raunet')"
        loaded = self.modules(code)
        assert "torch" in loaded
        assert not {"lightning", "pytorch_lightning"} & {*loaded}

    def test_training_is_light_until_used(self):
        loaded = self.modules("from astro_ddpm.training import homogenize_psf")
        assert not {"torch", "lightning", "pytorch_lightning"} & {*loaded}


def test_precision_of_a_slow_processor(monkeypatch):
    monkeypatch.setattr(core, "knows_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match="precision must be 'float32' on this processor"):
        enhance(make_image(), **OPTIONS, precision="bfloat16")

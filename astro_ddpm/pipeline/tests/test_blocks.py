# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the enhancement of one frame in blocks.
"""

import sys

import numpy as np
import pytest
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData, enhance, zoo
from astro_ddpm.pipeline import blocks, enhance_blocks
from astro_ddpm.tests.helpers import SIGMA, make_image, toy_model

from .conftest import WAIT

da = pytest.importorskip("dask.array")
import dask  # noqa: E402 - known to be there


@pytest.fixture
def toy():
    return toy_model(samples=False)


def holed_frame(shape=(373, 31)):
    """Make a frame of odd size with a hole, a bad row and a pixel that is not finite."""
    frame = make_image(shape)
    mask = np.zeros(shape, bool)
    mask[shape[0] // 2 - 8 : shape[0] // 2 + 9, 5:20] = mask[100] = True
    frame.mask = mask
    frame.data[42, 3] = np.nan
    frame.uncertainty.array[:, 25:] *= 3
    return frame


def compute(enhanced):
    return dask.compute(enhanced.data, enhanced.uncertainty.array)


def assert_same(enhanced, expected):
    data, sigma = compute(enhanced)
    assert data.dtype == expected.data.dtype
    assert_allclose(data, expected.data, rtol=1e-6, atol=1e-4 * SIGMA)
    assert_allclose(sigma, expected.uncertainty.array, rtol=1e-4)


class TestBlocks:
    """Test ``enhance_blocks``."""

    @pytest.mark.parametrize("rows", [30, 64, 65, 200, 400])
    def test_same_as_the_whole_frame(self, toy, rows):
        frame = holed_frame()
        enhanced = enhance_blocks(frame, model=toy, rows=rows)
        assert max(enhanced.data.chunks[0]) <= rows
        assert_same(enhanced, enhance(frame, model=toy, verify=False))

    def test_same_with_the_released_model(self):
        frame = holed_frame((301, 27))
        assert_same(enhance_blocks(frame, rows=64), enhance(frame, model="raunet", verify=False))

    def test_gap(self, toy):
        frame = make_image((301, 31))
        frame.mask = np.zeros(frame.shape, bool)
        frame.mask[120:170] = True
        assert_same(enhance_blocks(frame, model=toy, rows=64), enhance(frame, model=toy, verify=False))

    @pytest.mark.parametrize(("shape", "model"), [((101, 31), None), ((301, 27), "raunet")])
    def test_halo_is_the_receptive_field(self, monkeypatch, toy, shape, model):
        monkeypatch.setattr(blocks, "HOLE_RADIUS", 0)
        frame, model = make_image(shape), model or toy
        assert_same(enhance_blocks(frame, model=model, rows=40), enhance(frame, model=model, verify=False))

    @pytest.mark.parametrize("mask_treatment", ["fill", "propagate"])
    @pytest.mark.parametrize(
        ("noise", "power"), [(StdDevUncertainty, 1), (VarianceUncertainty, 2), (InverseVariance, -2)]
    )
    def test_dask_arrays(self, toy, noise, power, mask_treatment):
        frame = holed_frame()
        frame.uncertainty = noise(frame.uncertainty.array**power)
        lazy = CCDData(
            da.from_array(frame.data, chunks=(50, 20)),
            uncertainty=noise(da.from_array(frame.uncertainty.array, chunks=(70, 31))),
            mask=frame.mask,
            unit=frame.unit,
        )
        options = {"model": toy, "background": 1.5, "mask_treatment": mask_treatment}
        assert_same(enhance_blocks(lazy, rows=100, **options), enhance(frame, verify=False, **options))

    @pytest.mark.parametrize("dtype", [">f4", "f8", ">i2", "i4"])
    def test_types(self, toy, dtype):
        frame = make_image((100, 31))
        frame.data = frame.data.round().astype(dtype)
        assert_same(enhance_blocks(frame, model=toy, rows=40), enhance(frame, model=toy, verify=False))

    def test_nothing_is_computed_before(self, toy):
        def fail(block):
            msg = "computed"
            raise RuntimeError(msg)

        frame = make_image((100, 31))
        frame.data = da.from_array(frame.data, chunks=(50, 31)).map_blocks(fail, dtype="f4")
        enhanced = enhance_blocks(frame, model=toy, rows=40)
        with pytest.raises(RuntimeError, match="computed"):
            compute(enhanced)

    def test_carries_what_the_frame_has(self, tmp_path, toy):
        frame = holed_frame()
        enhanced = enhance_blocks(frame, model=toy, rows=100)
        whole = enhance(frame, model=toy, verify=False)
        assert enhanced.unit == frame.unit
        assert_array_equal(enhanced.mask, frame.mask)
        assert enhanced.wcs.to_header() == frame.wcs.to_header()
        for keyword in ("OBJECT", "DDPMMODL", "DDPMSHA", "DDPMNSAM", "DDPMSTEP", "DDPMMASK", "DDPMNOIS"):
            assert enhanced.meta[keyword] == whole.meta[keyword]
        assert "DDPMSHA" not in frame.meta
        enhanced.write(tmp_path / "deep.fits")
        back = EnhancedCCDData.read(tmp_path / "deep.fits")
        assert_allclose(back.data, whole.data, rtol=1e-6, atol=1e-4 * SIGMA)
        assert_allclose(back.uncertainty.array, whole.uncertainty.array, rtol=1e-4)

    def test_block_without_measured_pixels(self, toy):
        frame = make_image((400, 31))
        frame.data[:250] = np.nan
        data, sigma = compute(enhance_blocks(frame, model=toy, rows=100))
        assert np.isnan(data[:100]).all()
        assert np.isnan(sigma[:100]).all()
        assert np.isfinite(data[100:]).all()
        whole = enhance(frame, model=toy, verify=False)
        assert_allclose(data[300:], whole.data[300:], rtol=1e-6, atol=1e-4 * SIGMA)

    @pytest.mark.parametrize(
        ("change", "error", "match"),
        [
            ({"uncertainty": None}, ValueError, "ccd must have an uncertainty"),
            ({"data": np.ones((2, 40, 36))}, ValueError, "ccd must be two-dimensional"),
            ({"rows": 0}, ValueError, "rows must be an integer of at least 1, not 0"),
            ({"background": "photutils"}, TypeError, "background must be a number, not 'photutils'"),
            ({"model": "none"}, ValueError, "unknown model 'none'"),
            ({"model": "ddpm"}, ValueError, "model must be one that draws no samples"),
        ],
    )
    def test_errors(self, change, error, match):
        frame = make_image()
        if "data" in change:
            frame = CCDData(change.pop("data"), unit="adu")
        elif "uncertainty" in change:
            frame.uncertainty = change.pop("uncertainty")
        with pytest.raises(error, match=match):
            enhance_blocks(frame, **change)

    def test_without_dask(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "dask", None)
        with pytest.raises(ImportError, match=r"astro_ddpm\[dask\]"):
            enhance_blocks(make_image())

    @pytest.mark.slow
    def test_on_worker_processes(self, client, tmp_path, toy):
        zoo.save(toy, tmp_path / "toy.safetensors")
        frame = holed_frame()
        for model in (tmp_path / "toy.safetensors", toy):
            enhanced = enhance_blocks(frame, model=model, rows=100)
            planes = client.compute([enhanced.data, enhanced.uncertainty.array])
            expected = enhance(frame, model=toy, verify=False)
            for future, plane in zip(planes, (expected.data, expected.uncertainty.array), strict=True):
                assert_allclose(future.result(timeout=WAIT), plane, rtol=1e-4, atol=1e-4 * SIGMA)

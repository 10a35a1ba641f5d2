# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the manifest module.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter, shift

from astro_ddpm.noise import noise_kernel
from astro_ddpm.tests.helpers import galaxies
from astro_ddpm.training import (
    ManifestEntry,
    correlated_noise,
    gaussian_kernel,
    open_arrays,
    prepare_cameras,
    read_manifest,
)
from astro_ddpm.training.manifest import choose_stamps, read_frame


def entry(**options):
    return ManifestEntry(**{"camera": "cam", "use": "frames", "files": ["*.fits"]} | options)


def write_manifest(folder, text):
    path = folder / "cameras.yaml"
    path.write_text(text)
    return path


def exposure(rng, scene, gain=20.0, sky=100.0):
    """Return an exposure whose sky is not subtracted, and its noise."""
    sigma = np.sqrt((scene + sky) / gain)
    return scene + sky + sigma * rng.standard_normal(scene.shape), sigma


class TestReadManifest:
    def test_entries(self, tmp_path):
        path = write_manifest(tmp_path, "- {camera: a, use: deep, files: [x.fits], noise: 0.5}\n")
        (found,) = read_manifest(path)
        assert (found.camera, found.use, found.noise, found.hdu) == ("a", "deep", 0.5, 0)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("camera: a", "must be a list of mappings"),
            ("- {camera: a, use: deep}", "missing 1 required positional argument: 'files'"),
            ("- {camera: a, use: deep, files: [x], colour: red}", "unexpected keyword argument 'colour'"),
            ("- {camera: a, use: stack, files: [x]}", "use of camera a must be one of .* not 'stack'"),
            ("- {camera: a, use: deep, files: [x], sky: dark}", "sky of camera a must be one of"),
            (
                "- {camera: a, use: deep, files: [x], weight: {kind: ivar}}",
                "kind of the weight of a must be one of .*not 'ivar'",
            ),
            ("- {camera: a, use: deep, files: [x], noise: pink}", "noise of camera a must be .*not .pink"),
        ],
    )
    def test_mistakes(self, tmp_path, text, message):
        with pytest.raises(ValueError, match=message):
            read_manifest(write_manifest(tmp_path, text))


class TestReadFrame:
    def test_planes(self, tmp_path):
        rng = np.random.default_rng(0)
        data, sigma = exposure(rng, 0.1 * galaxies(rng))
        weight = 0.25 / sigma**2  # wrong by a factor, as weights are
        weight[5, 7] = 0
        flags = np.zeros(data.shape, np.int32)
        flags[10, :5], flags[20, :5] = 4, 32
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data), fits.ImageHDU(flags)]).writeto(
            tmp_path / "a_im.fits"
        )
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(weight)]).writeto(tmp_path / "a_wt.fits")
        one = entry(hdu=1, sky="subtract", weight={"replace": ["_im", "_wt"]}, mask={"hdu": 2, "bits": [2]})
        (frame,) = read_frame(one, tmp_path / "a_im.fits")
        assert (~frame.valid).sum() == 6
        assert not frame.valid[5, 7]
        assert not frame.valid[10, :5].any()
        assert not frame.use[9, :5].any()
        assert_allclose(frame.sigma[frame.valid], sigma[frame.valid], rtol=0.1)
        assert_allclose(frame.data[frame.valid], data[frame.valid] - 100, atol=0.5)
        (all_bits,) = read_frame(entry(hdu=1, sky="subtract", mask={"hdu": 2}), tmp_path / "a_im.fits")
        assert (~all_bits.valid).sum() == 10

    def test_gain(self, tmp_path):
        rng = np.random.default_rng(1)
        data, sigma = exposure(rng, galaxies(rng))
        fits.writeto(tmp_path / "a.fits", data)
        for gain in (20, "sky"):
            (frame,) = read_frame(entry(sky="subtract", gain=gain), tmp_path / "a.fits")
            assert_allclose(frame.sigma, sigma, rtol=0.25)
            assert frame.use.all()
        (frame,) = read_frame(entry(sky="subtract"), tmp_path / "a.fits")
        assert not frame.use[data > 150].any()  # whose noise nobody told

    def test_limits_cube_and_trim(self, tmp_path):
        data = np.random.default_rng(2).standard_normal((3, 30, 40))
        data[1, 9, 9] = 500
        fits.writeto(tmp_path / "a.fits", data)
        (frame,) = read_frame(entry(plane=1, limits=[-100, 100], trim=5), tmp_path / "a.fits")
        assert frame.data.shape == (20, 30)
        assert np.argwhere(~frame.valid).tolist() == [[4, 4]]
        with pytest.raises(ValueError, match="HDU 0 is not two-dimensional; give plane"):
            read_frame(entry(), tmp_path / "a.fits")

    def test_bayer(self, tmp_path):
        colours = np.tile([[10.0, 20.0], [30.0, 40.0]], (40, 40))
        fits.writeto(tmp_path / "a.fits", colours + np.random.default_rng(3).standard_normal((80, 80)))
        frames = read_frame(entry(bayer=True, limits=[0, 100]), tmp_path / "a.fits")
        assert [round(np.median(frame.data)) for frame in frames] == [10, 20, 30, 40]
        assert_allclose([frame.sky_sigma for frame in frames], 1, rtol=0.15)


class TestNoiseKernel:
    @pytest.mark.parametrize("kernel", [gaussian_kernel(0.6), np.array([[0, 0, 0], [0, 1, 0.6], [0, 0, 0]])])
    def test_recovers_the_correlation(self, kernel):
        rng = np.random.default_rng(0)
        scene = gaussian_filter(200 * (rng.random((400, 400)) > 0.998), 2)
        found = noise_kernel(scene + correlated_noise((400, 400), kernel, rng))
        assert_allclose(np.sum(found**2), 1)
        kernel = kernel / np.sqrt(np.sum(kernel**2))
        for lag in ((0, 1), (1, 0), (1, 1), (0, 2)):
            expected, measured = (
                np.sum(k * np.roll(k, lag, (0, 1))) for k in (np.pad(kernel, 4), np.pad(found, 4))
            )
            assert_allclose(measured, expected, atol=0.04)

    def test_white(self):
        found = noise_kernel(np.random.default_rng(1).standard_normal((300, 300)))
        assert found[4, 4] == 1
        assert np.count_nonzero(found) == 1


def test_stamps_hold_all_levels(tmp_path):
    rng = np.random.default_rng(4)
    scene = 20 * np.exp(-0.5 * np.sum((np.mgrid[:300, :300] - 150.0) ** 2, axis=0) / 4**2)
    fits.writeto(tmp_path / "a.fits", 20 * scene + rng.standard_normal(scene.shape))
    (frame,) = read_frame(entry(gain=1e6, limits=[-1e9, 1e9]), tmp_path / "a.fits")
    corners = choose_stamps(frame, 48, 40, rng)
    assert len(set(corners)) == 40
    bright = [frame.data[top : top + 48, left : left + 48].max() > 200 for top, left in corners]
    assert 0.5 < np.mean(bright) < 0.95  # of random stamps one in forty would be


class TestPrepareCameras:
    def test_frames_and_deep(self, tmp_path):
        rng = np.random.default_rng(5)
        for number in range(2):
            data, _ = exposure(rng, 0.1 * galaxies(rng, 96, 30))
            fits.writeto(tmp_path / f"f{number}.fits", data.astype("f4"))
        manifest = write_manifest(
            tmp_path,
            "- {camera: one, use: frames, files: ['f?.fits'], sky: subtract, gain: sky, number: 12}\n"
            "- {camera: two, use: deep, files: [f0.fits], sky: subtract, noise: correlated, number: 5}\n",
        )
        counts = prepare_cameras(manifest, tmp_path, size=48)
        assert counts == {"one_frames": 12, "two_deep": 5}
        frames = open_arrays(tmp_path / "one_frames.npz")
        assert frames["data"].shape == frames["use"].shape == (12, 48, 48)
        assert frames["kernel"].shape == (12, 9, 9)
        assert_allclose(frames["min_factor"], 0.3)
        assert {name: values.dtype.kind for name, values in frames.items()} == {
            "data": "f",
            "sigma": "f",
            "valid": "b",
            "use": "b",
            "kernel": "f",
            "min_factor": "f",
            "psf_fwhm": "f",
            "psf_is_limit": "f",
            "noise_correlation": "f",
            "peak_snr": "f",
        }
        deep = {name: np.array(column) for name, column in open_arrays(tmp_path / "two_deep.npz").items()}
        assert sorted(deep) == ["deep", "noise_width", "sky_sigma"]
        with pytest.raises(FileExistsError, match="set overwrite"):
            prepare_cameras(manifest, tmp_path, size=48, cameras=["two"])
        assert prepare_cameras(manifest, tmp_path, size=48, cameras=["two"], overwrite=True) == {
            "two_deep": 5
        }
        assert_array_equal(open_arrays(tmp_path / "two_deep.npz")["deep"], deep["deep"])

    @pytest.mark.parametrize("align", ["pixels", "wcs"])
    def test_pairs(self, tmp_path, align):
        rng = np.random.default_rng(6)
        scene = gaussian_filter(0.02 * galaxies(rng, 120, 30), 1)
        step = (6, 3) if align == "pixels" else (5.7, 3.2)
        for number in range(4):
            moved = np.roll(scene, (-number * 3, -number * 6), (0, 1))
            moved = (
                moved
                if align == "pixels"
                else shift(scene, (-number * step[1], -number * step[0]), mode="wrap")
            )
            world = WCS(naxis=2)
            world.wcs.ctype, world.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (-1e-4, 1e-4)
            world.wcs.crpix = 60 - number * step[0], 60 - number * step[1]
            header = world.to_header() if align == "wcs" else None
            image = moved + rng.standard_normal(scene.shape)
            fits.writeto(tmp_path / f"e{number}.fits", image.astype("f4"), header)
        text = (
            f"- {{camera: c, use: pairs, files: ['e?.fits'], align: {align}, offset: [6, 3], number: 16}}\n"
        )
        counts = prepare_cameras(write_manifest(tmp_path, text), tmp_path, size=40)
        assert counts["c_pairs"] > 8
        arrays = open_arrays(tmp_path / "c_pairs.npz")
        used = arrays["use"]
        residual = ((arrays["shallow"] - arrays["target"]) / arrays["sigma"])[used]
        # noise of one exposure and of the mean of three, seen through the kernel
        depth = np.broadcast_to(arrays["depth"][:, None, None], used.shape)[used]
        assert_allclose(np.mean(residual**2 / (1 + depth**2)), 1, atol=0.1)
        assert np.median(arrays["depth"]) < 0.7
        assert used.mean() > 0.9
        assert "deep" not in arrays  # three exposures are not to be split

    def test_nothing_found(self, tmp_path):
        manifest = write_manifest(tmp_path, "- {camera: one, use: frames, files: ['f?.fits']}\n")
        with pytest.raises(ValueError, match=r"files \['f\?.fits'\] of camera one fit no file"):
            prepare_cameras(manifest, tmp_path)
        fits.writeto(tmp_path / "f1.fits", np.random.default_rng(7).standard_normal((40, 40)))
        with pytest.raises(ValueError, match="no stamp of 96 pixels of one_frames can be used"):
            prepare_cameras(manifest, tmp_path)

    def test_inputs_stay(self, tmp_path):
        data = np.random.default_rng(8).standard_normal((50, 50)).astype("f4")
        fits.writeto(tmp_path / "f1.fits", data)
        manifest = write_manifest(tmp_path, "- {camera: one, use: frames, files: ['f?.fits'], number: 3}\n")
        prepare_cameras(manifest, tmp_path, size=32)
        assert_array_equal(fits.getdata(tmp_path / "f1.fits"), data)

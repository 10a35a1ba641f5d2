# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the pairs module.
"""

import errno
import logging

import numpy as np
import pytest
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from astro_ddpm.tests.helpers import galaxies
from astro_ddpm.training import correlated_noise, prepare_deep, prepare_pairs, split_by_group
from astro_ddpm.training.arrays import open_arrays

SKY, DEEP_SKY = 1.0, 0.2


def write_pair(folder, number, *, size=64, variable=0, dtype=">f4", variance_per_flux=0):
    """Write a shallow and a deep exposure of one scene, the shallow one blurred, on another sky."""
    rng = np.random.default_rng(number)
    scene = galaxies(rng, size)
    truth = gaussian_filter(scene, 0.8)
    sigma = np.sqrt(SKY**2 + variance_per_flux * truth)
    shallow = truth + 0.1 + sigma * rng.standard_normal(scene.shape)
    shallow[size // 2, size // 2] += variable
    deep_sigma = np.sqrt(1 + variance_per_flux * scene / SKY**2) * DEEP_SKY
    deep = scene + deep_sigma * rng.standard_normal(scene.shape)
    paths = folder / f"wide{number}.fits", folder / f"deep{number}.fits"
    for path, image in zip(paths, (shallow, deep), strict=True):
        fits.writeto(path, image.astype(dtype))
    return paths


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    pairs = [write_pair(folder, i, variance_per_flux=0.05) for i in range(4)]
    output = folder / "pairs.npz"
    counts = prepare_pairs(pairs, output, variance_per_flux=0.05)
    with np.load(output) as arrays:
        return folder, pairs, counts, dict(arrays)


class TestPreparePairs:
    def test_arrays(self, prepared):
        folder, pairs, counts, arrays = prepared
        assert counts == (4, 0)
        names = ["deep", "deep_sigma", "depth", "shallow", "sigma", "target", "use", "valid"]
        measures = ["psf_fwhm", "psf_is_limit", "noise_correlation", "peak_snr"]
        assert sorted(arrays) == sorted(names + measures)
        assert all(arrays[name].shape == (4,) for name in measures)
        side = 64 - 8  # without the border that the derivatives cannot reach
        for name in names:
            assert arrays[name].dtype == (bool if name in ("use", "valid") else np.float32)
            assert arrays[name].shape == ((4,) if name == "depth" else (4, side, side))
        assert_array_equal(arrays["shallow"][1], fits.getdata(pairs[1][0])[4:-4, 4:-4])
        assert_array_equal(arrays["deep"][2], fits.getdata(pairs[2][1])[4:-4, 4:-4])
        assert not list(folder.glob(".*"))
        assert not list(folder.glob("*partial*"))

    def test_noise_is_measured(self, prepared):
        arrays = prepared[-1]
        # the MAD of the faint half of a stamp knows sigma to about 5 %
        assert_allclose(np.median(arrays["sigma"], axis=(1, 2)), SKY, rtol=0.2)
        assert_allclose(np.median(arrays["deep_sigma"], axis=(1, 2)), DEEP_SKY, rtol=0.2)
        # photon noise adds where there is flux
        bright = arrays["shallow"] > 60
        expected = np.sqrt(SKY**2 + 0.05 * arrays["shallow"][bright])
        assert_allclose(arrays["sigma"][bright], expected, rtol=0.2)

    def test_residual_is_noise(self, prepared):
        arrays = prepared[-1]
        residual = (arrays["shallow"] - arrays["target"]) / arrays["sigma"]
        assert abs(residual.std() - 1) < 0.1
        bright = arrays["target"] > 60
        assert bright.sum() > 100
        assert abs(residual[bright].std() - 1) < 0.2

    def test_target_is_at_the_sky_of_the_shallow_image(self, prepared):
        arrays = prepared[-1]
        residual = (arrays["shallow"] - arrays["target"]) / arrays["sigma"]
        assert_allclose(residual.mean(axis=(1, 2)), 0, atol=0.05)

    def test_depth(self, prepared):
        # of the target: the noise of the deep image, reduced by the kernel, over that of the shallow one
        arrays = prepared[-1]
        assert (arrays["depth"] < 1.3 * DEEP_SKY / SKY).all()
        assert (arrays["depth"] > 0.2 * DEEP_SKY / SKY).all()

    def test_byte_order_does_not_matter(self, tmp_path):
        results = []
        for dtype in (">f4", "<f4", ">f8"):
            folder = tmp_path / dtype.strip("<>") / ("big" if dtype[0] == ">" else "little")
            folder.mkdir(parents=True)
            pair = write_pair(folder, 0, dtype=dtype)
            prepare_pairs([pair], folder / "out.npz")
            with np.load(folder / "out.npz") as arrays:
                results.append(arrays["target"])
        assert_array_equal(results[0], results[1])
        assert_allclose(results[0], results[2], atol=1e-3)

    def test_rejects_a_variable_source(self, tmp_path, caplog):
        pairs = [write_pair(tmp_path, 0), write_pair(tmp_path, 1, variable=100)]
        with caplog.at_level(logging.INFO, logger="astro_ddpm"):
            assert prepare_pairs(pairs, tmp_path / "out.npz") == (1, 1)
        assert "wide1.fits left out" in caplog.text
        with np.load(tmp_path / "out.npz") as arrays:
            assert_array_equal(arrays["shallow"][0], fits.getdata(pairs[0][0])[4:-4, 4:-4])

    def test_nothing_left(self, tmp_path):
        pair = write_pair(tmp_path, 1, variable=100)
        with pytest.raises(ValueError, match="no pair whose exposures agree"):
            prepare_pairs([pair], tmp_path / "out.npz")
        assert not (tmp_path / "out.npz").exists()

    def test_masks_and_uncertainties_are_read(self, tmp_path):
        shallow, deep = write_pair(tmp_path, 0)
        image = fits.getdata(shallow)
        image[30, 30] = np.nan
        planes = {"MASK": np.zeros(image.shape, np.uint8), "UNCERT": np.full(image.shape, 1.5)}
        planes["MASK"][20, 20], planes["UNCERT"][40, 40] = 1, np.nan
        hdus = [fits.PrimaryHDU(image), *(fits.ImageHDU(plane, name=name) for name, plane in planes.items())]
        fits.HDUList(hdus).writeto(shallow, overwrite=True)
        with pytest.warns(AstropyUserWarning, match="1 pixels hold no information"):
            assert prepare_pairs([(shallow, deep)], tmp_path / "out.npz") == (1, 0)
        arrays = open_arrays(tmp_path / "out.npz")
        for place in (20, 30):
            assert not arrays["valid"][0, place - 4, place - 4]
            assert not arrays["use"][0, place - 4, place - 4]
        assert all(np.isfinite(values).all() for values in arrays.values())
        assert_allclose(arrays["sigma"], 1.5)

    def test_refuses_to_overwrite(self, tmp_path):
        pair = write_pair(tmp_path, 0)
        output = tmp_path / "out.npz"
        output.write_text("precious")
        with pytest.raises(FileExistsError, match=r"out\.npz exists; set overwrite"):
            prepare_pairs([pair], output)
        assert output.read_text() == "precious"
        prepare_pairs([pair], output, overwrite=True)
        with np.load(output) as arrays:
            assert "target" in arrays

    def test_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        pair = write_pair(tmp_path, 0)
        output = tmp_path / "out.npz"
        output.write_text("precious")

        def full_disk(file, **arrays):
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match="No space"):
            prepare_pairs([pair], output, overwrite=True)
        assert output.read_text() == "precious"
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".fits", ".fits", ".npz"]

    def test_shapes_must_agree(self, tmp_path):
        pairs = [write_pair(tmp_path, 0), write_pair(tmp_path, 1, size=72)]
        with pytest.raises(ValueError, match="must all be of one shape"):
            prepare_pairs(pairs, tmp_path / "out.npz")
        with pytest.raises(ValueError, match="of one shape"):
            prepare_pairs([(pairs[0][0], pairs[1][1])], tmp_path / "out.npz")


class TestPrepareDeep:
    def test_noise_is_measured(self, tmp_path):
        rng = np.random.default_rng(2)
        widths = (0, 0.4, 0.5, 0.8)
        images = np.array([0.5 * correlated_noise((240, 240), width, rng) for width in widths])
        assert prepare_deep(images, tmp_path / "deep.npz") == 4
        arrays = open_arrays(tmp_path / "deep.npz")
        assert_allclose(arrays["deep"], images)
        assert_allclose(arrays["sky_sigma"], 0.5, rtol=0.1)
        assert_allclose(arrays["noise_width"], widths, atol=0.02)

    def test_frames_are_cut(self, tmp_path):
        frame = np.random.default_rng(3).standard_normal((70, 100)).astype("f4")
        frame[5, 5] = np.nan
        fits.writeto(tmp_path / "frame.fits", frame)
        number = prepare_deep([tmp_path / "frame.fits"], tmp_path / "deep.npz", size=32)
        assert number == 5  # of 2 x 3 stamps one has a bad pixel
        stamps = open_arrays(tmp_path / "deep.npz")["deep"]
        assert_array_equal(stamps[0], frame[:32, 32:64])
        assert_array_equal(stamps[-1], frame[32:64, 64:96])

    def test_bad_images(self, tmp_path):
        good, output = np.random.default_rng(3).standard_normal((40, 40)), tmp_path / "deep.npz"
        bad = good.copy()
        bad[0, 0] = np.inf
        with pytest.raises(ValueError, match="image 1 holds pixels that are not finite; give size"):
            prepare_deep([good, bad], output)
        with pytest.raises(ValueError, match="images must hold finite images of one shape"):
            prepare_deep([good, good[1:]], output)
        with pytest.raises(ValueError, match="images must hold finite images of one shape"):
            prepare_deep([], output)
        with pytest.raises(ValueError, match="size 50 exceeds the image"):
            prepare_deep([good], output, size=50)
        output.write_text("kept")
        with pytest.raises(FileExistsError, match="set overwrite"):
            prepare_deep([good], output)
        assert output.read_text() == "kept"


class TestSplitByGroup:
    def test_no_group_on_both_sides(self):
        groups = np.random.default_rng(0).choice(list("abcdefghij"), 200)
        validation = split_by_group(groups, 0.3)
        assert validation.shape == (200,)
        assert len(set(groups[validation])) == 3
        assert not set(groups[validation]) & set(groups[~validation])

    def test_seed_selects(self):
        groups = np.repeat(np.arange(50), 2)
        assert_array_equal(split_by_group(groups, 0.2, 1), split_by_group(groups, 0.2, 1))
        assert (split_by_group(groups, 0.2, 1) != split_by_group(groups, 0.2, 2)).any()

    @pytest.mark.parametrize("fraction", [0, 0.04, 0.97, 1])
    def test_bad_fraction(self, fraction):
        with pytest.raises(ValueError, match="leaves none on one side"):
            split_by_group(np.arange(10), fraction)

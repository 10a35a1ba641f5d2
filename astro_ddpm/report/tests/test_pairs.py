# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Test the reading of pairs and the degrading of deep images.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from scipy.ndimage import gaussian_filter

from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.report import Pair, degrade_images, read_pairs

BRIGHT = 20


@pytest.fixture(scope="module")
def scene():
    return make_galaxy_field((64, 64), seed=2, n_galaxies=4, n_stars=1, bad_columns=0)


@pytest.fixture
def listing(tmp_path, scene):
    """Two pairs of plain images; the second is of different scenes."""
    rng = np.random.default_rng(1)
    sky = float(np.median(scene.image.uncertainty.array))
    blurred = gaussian_filter(BRIGHT * scene.truth, 1)
    for name, other in (("good", blurred), ("bad", np.roll(blurred, 9, axis=1))):
        shallow = BRIGHT * scene.truth + sky * rng.standard_normal(scene.truth.shape)
        deep = other + 0.1 * sky * rng.standard_normal(scene.truth.shape)
        for folder, data in (("wide", shallow), ("deep", deep)):
            (tmp_path / folder).mkdir(exist_ok=True)
            fits.writeto(tmp_path / folder / f"{name}.fits", data.astype("f4"))
    path = tmp_path / "pairs.csv"
    path.write_text("wide,deep\nwide/good.fits,deep/good.fits\nwide/bad.fits,deep/bad.fits\n")
    return path


class TestPair:
    def test_masks_become_arrays(self, scene):
        image, reference = scene.image.copy(), scene.deep_exposure(0.1)
        image.mask, image.data[3, 4] = None, np.nan
        pair = Pair("pair", image, reference, 0.1)
        assert pair.image.mask.sum() == 1
        assert pair.image.mask[3, 4]
        assert pair.reference.mask.shape == reference.shape
        assert image.mask is None
        assert not pair.fitted

    def test_arithmetic_when_the_originals_are_gone(self, scene):
        image, reference = scene.image.copy(), scene.deep_exposure(0.1)
        image.psf = reference.psf = None
        pair = Pair("pair", image, reference, 0.1)
        del image, reference
        difference = pair.image.subtract(pair.reference)
        expected = np.hypot(pair.image.uncertainty.array, pair.reference.uncertainty.array)
        np.testing.assert_allclose(difference.uncertainty.array, expected)

    def test_errors(self, scene):
        image, reference = scene.image, scene.deep_exposure(0.1)
        with pytest.raises(
            ValueError, match="image and reference of the pair p must have one shape and unit"
        ):
            Pair("p", image, reference[:32], 0.1)
        reference.uncertainty = None
        with pytest.raises(ValueError, match="reference of p must have an uncertainty"):
            Pair("p", image, reference, 0.1)


class TestReadPairs:
    """Test read_pairs."""

    def test_one_psf(self, listing, scene):
        # a sharper reference than the deep image, as the PSF of the shallow one is
        (pair,), rejected = read_pairs(listing)
        assert rejected == ["bad"]
        assert pair.name == "good"
        assert pair.fitted
        usable = ~pair.reference.mask
        sky = float(np.median(scene.image.uncertainty.array))
        inside = np.pad(np.ones((56, 56), bool), 4)
        assert not usable[~inside].any()
        # the kernel is for what is fainter than 100 sigma
        assert usable[inside & (BRIGHT * scene.truth < 90 * sky)].mean() > 0.99
        assert not usable[BRIGHT * scene.truth > 110 * sky].any()
        fluxes = [float(np.sum(plane[usable])) for plane in (pair.reference.data, BRIGHT * scene.truth)]
        assert fluxes[0] == pytest.approx(fluxes[1], abs=3 * sky * np.sqrt(usable.sum()))
        truth = BRIGHT * scene.truth
        error = np.std((pair.reference.data - truth)[usable])
        assert error < 0.3 * np.std((gaussian_filter(truth, 1) - truth)[usable])

    def test_noise(self, listing, scene):
        (pair,), _ = read_pairs(listing)
        sky = float(np.median(scene.image.uncertainty.array))
        assert pair.image.uncertainty.array == pytest.approx(sky, rel=0.1)
        # a kernel that sharpens amplifies the noise
        assert pair.noise_ratio > 0.1
        assert pair.reference.uncertainty.array == pytest.approx(pair.noise_ratio * sky, rel=0.1)

    def test_gain_adds_photon_noise(self, listing):
        without, pair = (read_pairs(listing, gain=gain)[0][0] for gain in (None, 2.0))
        added = pair.image.uncertainty.array**2 - without.image.uncertainty.array**2
        expected = np.maximum(gaussian_filter(pair.image.data, 1), 0) / 2
        np.testing.assert_allclose(added, expected, rtol=1e-3, atol=0.02)

    def test_given_uncertainty_and_mask(self, tmp_path, scene):
        deep = scene.deep_exposure(0.2)
        image = CCDData(scene.image, mask=np.zeros((64, 64), bool))
        image.mask[30, 20:24] = True
        image.data[30, 20:24] = np.nan
        image.write(tmp_path / "image.fits")
        deep.write(tmp_path / "deep.fits")
        (tmp_path / "pairs.csv").write_text("a,b\nimage.fits,deep.fits\n")
        (pair,), _ = read_pairs(tmp_path / "pairs.csv")
        np.testing.assert_array_equal(pair.image.mask, image.mask)
        assert pair.reference.mask[30, 20:24].all()
        valid = ~image.mask
        np.testing.assert_allclose(
            pair.image.uncertainty.array[valid], image.uncertainty.array[valid], rtol=1e-6
        )
        assert pair.image.wcs.wcs.ctype[0] == "RA---TAN"

    def test_same_names_in_two_folders(self, tmp_path, listing):
        other = tmp_path / "other"
        other.mkdir()
        (other / "good.fits").write_bytes((tmp_path / "wide" / "good.fits").read_bytes())
        row = "wide/good.fits,deep/good.fits\n"
        listing.write_text(f"a,b\n{row}{row.replace('wide', 'other')}")
        pairs, _ = read_pairs(listing)
        assert [pair.name for pair in pairs] == ["good_1", "good_2"]

    def test_errors(self, tmp_path, listing):
        with pytest.raises(ValueError, match="gain must be positive"):
            read_pairs(listing, gain=-1)
        fits.writeto(tmp_path / "small.fits", np.ones((32, 32), "f4"))
        listing.write_text("a,b\nwide/good.fits,small.fits\n")
        with pytest.raises(ValueError, match=r"good.fits.*must be of one shape"):
            read_pairs(listing)


class TestDegradeImages:
    """Test degrade_images."""

    def test_noise(self, tmp_path, scene):
        deep = scene.deep_exposure(0.1)
        deep.write(tmp_path / "deep.fits")
        (pair,) = degrade_images([tmp_path / "deep.fits"], factor=5)
        assert pair.noise_ratio == pytest.approx(1 / np.hypot(1, 5))
        ratio = pair.image.uncertainty.array / deep.uncertainty.array
        np.testing.assert_allclose(ratio, np.hypot(1, 5), rtol=1e-5)
        added = (pair.image.data - deep.data) / (5 * deep.uncertainty.array)
        assert added.mean() == pytest.approx(0, abs=4 / 64)
        assert added.std() == pytest.approx(1, abs=4 / 64 / np.sqrt(2))
        np.testing.assert_array_equal(pair.reference.data, deep.data.astype("f4"))

    def test_measured_noise(self, tmp_path):
        data = np.random.default_rng(3).normal(0, 3, (64, 64)).astype("f4")
        fits.writeto(tmp_path / "deep.fits", data)
        (pair,) = degrade_images([tmp_path / "deep.fits"], factor=4)
        assert pair.image.data.std() == pytest.approx(3 * np.hypot(1, 4), rel=0.1)
        assert pair.reference.uncertainty.array == pytest.approx(3, rel=0.1)

    def test_seed(self, tmp_path, scene):
        scene.image.write(tmp_path / "deep.fits")
        first, same, other = (
            degrade_images([tmp_path / "deep.fits"], seed=s)[0].image.data for s in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, same)
        assert not np.array_equal(first, other)

    def test_factor(self):
        with pytest.raises(ValueError, match="factor must be at least 2"):
            degrade_images([], factor=1)


def test_uncertainty_class(tmp_path, scene):
    # whatever the class of the uncertainty in the file, the pair has a standard deviation
    image = CCDData(scene.image, uncertainty=StdDevUncertainty(scene.image.uncertainty.array))
    image.write(tmp_path / "deep.fits", key_uncertainty_type="UTYPE")
    (pair,) = degrade_images([tmp_path / "deep.fits"])
    assert isinstance(pair.reference.uncertainty, StdDevUncertainty)

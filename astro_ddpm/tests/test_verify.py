# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the check without truth as a step of `enhance`.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from scipy.ndimage import gaussian_filter

from astro_ddpm import EnhancedCCDData, OutOfDomainWarning, enhance
from astro_ddpm.cli import main
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.pipeline import enhance_collection


@pytest.fixture(scope="module")
def field():
    return make_galaxy_field((96, 112), seed=3, n_galaxies=4, n_stars=2)


@pytest.fixture(scope="module")
def deep(field):
    return enhance(field.image, model="raunet", seed=1)


def scaled(field, factor):
    """The image with its noise stated wrongly."""
    image = field.image.copy()
    image.uncertainty = StdDevUncertainty(factor * image.uncertainty.array)
    return image


def test_result_has_a_table(field, deep):
    assert deep.check["n_pixels"].sum() == np.count_nonzero(~field.image.mask)
    assert np.all(deep.check["rms"] < 1.1)
    assert "networks help" in deep.check.meta["sentence"]
    for keyword in ("DDPMERR0", "DDPMERR1", "DDPMSKYB", "DDPMSTAT"):
        assert np.isfinite(deep.meta[keyword])
    assert deep.meta["DDPMSTAT"] == pytest.approx(1, abs=0.15)


def test_without(field):
    plain = enhance(field.image, model="raunet", seed=1, verify=False)
    assert plain.check is None
    assert "DDPMERR0" not in plain.meta


def test_too_small_to_be_checked(field):
    assert enhance(field.image[:40, :40], model="raunet").check is None


def test_tiles_change_nothing(field, deep):
    tiled = enhance(field.image, model="raunet", seed=1, tile_size=40)
    sigma = field.image.uncertainty.array
    assert np.abs((tiled.data - deep.data) / sigma).max() < 1e-4
    assert np.abs((tiled.uncertainty.array - deep.uncertainty.array) / sigma).max() < 1e-4
    for name in ("rms", "rms_err", "factor", "width_factor"):
        assert tiled.check[name] == pytest.approx(deep.check[name], abs=2e-3)


def test_fits(deep, tmp_path):
    deep.write(tmp_path / "deep.fits")
    again = EnhancedCCDData.read(tmp_path / "deep.fits")
    assert again.check.colnames == deep.check.colnames
    for name in deep.check.colnames:
        assert np.array_equal(again.check[name], deep.check[name])
    assert again.check.meta["sentence"] == deep.check.meta["sentence"]
    assert fits.getheader(tmp_path / "deep.fits")["DDPMERR1"] == deep.meta["DDPMERR1"]


def test_parts_and_sums_have_no_table(deep):
    assert deep[:50].check is None
    without_psf = deep.copy()
    without_psf.psf = None
    assert without_psf.check is not None
    assert without_psf.multiply(2).check is None
    assert EnhancedCCDData(deep).check is deep.check


@pytest.mark.parametrize(("factor", "numbers"), [(3, "3"), (0.3, "0.3")])
def test_wrong_noise_is_told(field, factor, numbers):
    with pytest.warns(AstropyUserWarning, match=f"stated noise is {numbers}.* times") as caught:
        enhance(scaled(field, factor), model="raunet")
    assert any("exposure time" in str(warning.message) for warning in caught)


def test_noise_that_is_correlated_too_far_is_told():
    noise = gaussian_filter(np.random.default_rng(2).normal(size=(96, 96)), 1.7, mode="wrap")
    ccd = CCDData(noise / noise.std(), unit="adu", uncertainty=StdDevUncertainty(np.ones((96, 96))))
    with pytest.warns(OutOfDomainWarning, match=r"pixels 0\.9\d* \(-0\.1 to 0\.7\).* Rebin") as caught:
        deep = enhance(ccd, model="raunet")
    assert len(caught) == 1
    assert deep.meta["DDPMOUT"] == "noise_correlation"


def test_harm_is_told_and_taken_back(field, monkeypatch):
    from astro_ddpm import zoo

    estimate = zoo.Model.estimate

    def spoil(self, *planes):
        mean, std = estimate(self, *planes)
        return -2 * mean, std

    monkeypatch.setattr(zoo.Model, "estimate", spoil)
    with pytest.warns(OutOfDomainWarning, match="measured on the image itself"):
        result = enhance(field.image, model="raunet", seed=1)
    sigma, use = field.image.uncertainty.array, ~field.image.mask
    error = ((result.data - field.truth) / sigma)[use]
    assert np.sqrt(np.mean(error**2)) < 1.05
    assert result.check["factor"][0] < 0.1


def test_samples_follow(field):
    deep = enhance(field.image, model="ddpm", seed=1, n_samples=4, steps=6)
    assert deep.check is not None
    assert deep.samples.shape == (4, *field.image.shape)


def test_command_line(field, tmp_path, capsys):
    field.image.write(tmp_path / "image.fits")
    assert main(["check", str(tmp_path / "image.fits")]) == 0
    printed = capsys.readouterr().out
    assert "rms_input" in printed
    assert "networks help" in printed
    paths = [str(tmp_path / name) for name in ("image.fits", "deep.fits")]
    arguments = ["enhance", paths[0], "-o", paths[1], "--model", "raunet"]
    assert main([*arguments, "--seed", "0"]) == 0
    sentence = printed.splitlines()[-1]
    assert sentence in capsys.readouterr().out
    assert main(["check", str(tmp_path / "deep.fits")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == sentence


def test_collection_pools_one_camera(field, tmp_path):
    paths = []
    for number in range(2):
        ccd = CCDData(field.image, meta={"INSTRUME": "camera"})
        paths.append(tmp_path / f"{number}.fits")
        ccd.write(paths[-1])
    manifest = enhance_collection(paths, tmp_path / "out", model="raunet", seed=1)
    assert np.all(np.isfinite(manifest["worst_after"]))
    pooled = manifest.meta["checks"]["camera"]
    assert sum(pooled["n_pixels"]) == 2 * np.count_nonzero(~field.image.mask)
    assert "networks" in pooled["sentence"]


def test_without_samples_no_seed_matters():
    field = make_galaxy_field((64, 64), n_galaxies=1, n_stars=0, seed=3)
    one, other = (enhance(field.image, model="raunet", seed=seed) for seed in (1, 2))
    assert np.array_equal(one.data, other.data)
    assert np.array_equal(one.uncertainty.array, other.uncertainty.array)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the plots module.
"""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from astro_ddpm import EnhancedCCDData
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.evaluation import plot_comparison


@pytest.fixture(scope="module")
def field():
    return make_galaxy_field((48, 64), n_galaxies=4, n_stars=1, n_companions=0)


@pytest.fixture
def enhanced(field):
    samples = np.array([field.deep_exposure(0.2, seed=seed).data for seed in range(5)])
    sigma = StdDevUncertainty(samples.std(axis=0))
    return EnhancedCCDData(samples.mean(axis=0), unit="adu", uncertainty=sigma, samples=samples)


def panels(figure):
    return {axes.get_title(): axes.images[0] for axes in figure.axes if axes.get_title()}


def bars(figure):
    return [axes for axes in figure.axes if not axes.get_title()]


class TestPanels:
    def test_everything(self, field, enhanced):
        figure = plot_comparison(enhanced, field.deep_exposure(), image=field.image)
        assert isinstance(figure, Figure)
        assert list(panels(figure)) == [
            *("Input", "Enhanced", "Reference", "Enhanced − reference"),
            *("Sample 1", "Sample 2", "Sample 3", "Uncertainty"),
        ]
        assert len(bars(figure)) == 3

    def test_no_reference(self, field, enhanced):
        figure = plot_comparison(enhanced, image=field.image, n_samples=2)
        assert list(panels(figure)) == [
            *("Input", "Enhanced", "Uncertainty", "Input − enhanced", "Sample 1", "Sample 2"),
        ]

    def test_enhanced_alone(self, enhanced):
        figure = plot_comparison(enhanced, n_samples=0)
        assert list(panels(figure)) == ["Enhanced", "Uncertainty"]

    def test_no_samples(self, field, enhanced):
        enhanced.samples = None
        figure = plot_comparison(enhanced, field.truth, image=field.image)
        assert len(panels(figure)) == 5

    def test_plain_images(self, field):
        plain = CCDData(field.truth, unit="adu")
        figure = plot_comparison(plain, image=field.image.data)
        assert list(panels(figure)) == ["Input", "Enhanced", "Input − enhanced"]

    @pytest.mark.parametrize("n_samples", [1, 5, 9])
    def test_n_samples(self, enhanced, n_samples):
        shown = panels(plot_comparison(enhanced, n_samples=n_samples))
        assert len(shown) == 2 + min(n_samples, 5)


class TestContent:
    def test_planes(self, field, enhanced):
        deep = field.deep_exposure()
        shown = panels(plot_comparison(enhanced, deep, image=field.image))
        sigma = field.image.uncertainty.array
        assert_allclose(shown["Enhanced"].get_array(), enhanced.data)
        assert_allclose(shown["Reference"].get_array(), deep.data)
        assert_allclose(shown["Uncertainty"].get_array(), enhanced.uncertainty.array)
        for number in (1, 2, 3):
            assert_allclose(shown[f"Sample {number}"].get_array(), enhanced.samples[number - 1])
        pull = (enhanced.data - deep.data) / sigma
        assert_allclose(shown["Enhanced − reference"].get_array(), pull, rtol=1e-4, atol=1e-5)

    def test_what_is_too_bright_is_red(self, field):
        too_bright = CCDData(field.truth + 1.0, unit="adu", uncertainty=field.image.uncertainty)
        (residual,) = (a for a in plot_comparison(too_bright, field.truth).axes if "−" in a.get_title())
        red, _, blue, _ = residual.images[0].to_rgba(np.array([[2.0]]))[0, 0]
        assert red > blue

    def test_mask(self, field, enhanced):
        shown = panels(plot_comparison(enhanced, image=field.image))
        for title in ("Input", "Input − enhanced"):
            assert_array_equal(shown[title].get_array().mask, field.image.mask)
        good = ~field.image.mask
        assert_allclose(shown["Input"].get_array()[good], field.image.data[good])
        pull = (field.image.data - enhanced.data) / field.image.uncertainty.array
        assert_allclose(shown["Input − enhanced"].get_array()[good], pull[good], rtol=1e-4)
        assert not np.ma.getmaskarray(shown["Enhanced"].get_array()).any()

    def test_one_stretch_for_all_images(self, field, enhanced):
        shown = panels(plot_comparison(enhanced, field.truth, image=field.image))
        images = ("Input", "Enhanced", "Reference", "Sample 1", "Sample 2", "Sample 3")
        assert len({id(shown[title].norm) for title in images}) == 1
        sky = np.median(field.image.uncertainty.array)
        assert_allclose(shown["Input"].norm.vmin, -2 * sky, rtol=0.05)

    def test_units_are_converted(self, field, enhanced):
        kilo = u.def_unit("kadu", 1000 * u.adu)
        image = CCDData(
            field.image.data / 1000,
            unit=kilo,
            mask=field.image.mask,
            uncertainty=StdDevUncertainty(field.image.uncertainty.array / 1000),
        )
        shown = panels(plot_comparison(enhanced, field.truth / 1000 * kilo, image=image))
        plain = panels(plot_comparison(enhanced, field.truth * u.adu, image=field.image))
        for title, picture in plain.items():
            assert_allclose(shown[title].get_array(), picture.get_array(), rtol=1e-4, atol=1e-3)

    def test_noise_is_measured_if_not_given(self, field, enhanced):
        image = np.ma.array(field.image.data, mask=field.image.mask)
        norms = [
            panels(plot_comparison(enhanced, image=given))["Input"].norm for given in (image, field.image)
        ]
        assert_allclose(norms[0].vmin, norms[1].vmin, rtol=0.25)

    def test_nan(self, enhanced):
        samples = enhanced.samples
        enhanced.data[5, 5] = np.nan
        enhanced.uncertainty.array[5, 5] = np.nan
        enhanced.samples = samples
        shown = panels(plot_comparison(enhanced, np.zeros((48, 64))))
        assert shown["Enhanced"].get_array().mask.sum() == 1

    def test_constant_image(self, tmp_path):
        plain = CCDData(np.zeros((32, 32)), unit="adu")
        plot_comparison(plain, np.zeros((32, 32)), image=plain).savefig(tmp_path / "flat.png")

    def test_inputs_unchanged(self, field, enhanced):
        before = [array.copy() for array in (enhanced.data, enhanced.samples, field.image.data)]
        plot_comparison(enhanced, field.truth, image=field.image)
        after = enhanced.data, enhanced.samples, field.image.data
        for first, second in zip(before, after, strict=True):
            assert_array_equal(first, second)


class TestFigure:
    def test_save(self, field, enhanced, tmp_path):
        figure = plot_comparison(enhanced, field.truth, image=field.image, cmap="gray")
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000

    def test_panel_size(self, enhanced):
        widths = [plot_comparison(enhanced, panel_size=size).get_figwidth() for size in (1.5, 3)]
        assert_allclose(2 * widths[0], widths[1])

    @pytest.mark.parametrize("module", ["datasets", "evaluation"])
    def test_imports_are_light(self, module):
        code = f"import sys, astro_ddpm.{module}; print(*{{'torch', 'matplotlib'}} & set(sys.modules))"
        run = [sys.executable, "-c", code]
        result = subprocess.run(run, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == ""


class TestErrors:
    def test_not_an_image(self):
        with pytest.raises(TypeError, match="enhanced must hold real numbers"):
            plot_comparison(np.ones((32, 32), complex))

    @pytest.mark.parametrize("name", ["reference", "image"])
    def test_shapes(self, enhanced, name):
        with pytest.raises(ValueError, match=f"{name} must have the shape"):
            plot_comparison(enhanced, **{name: np.ones((5, 5))})

    def test_n_samples(self, enhanced):
        with pytest.raises(ValueError, match="n_samples must not be negative"):
            plot_comparison(enhanced, n_samples=-1)

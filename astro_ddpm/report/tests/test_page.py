# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Test the page, its sections and its figures: signs, orders, axes and colors that a reader sees.
"""

import re

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable

from astro_ddpm.report import Pair, figures
from astro_ddpm.report.page import Section, render_page
from astro_ddpm.report.sections import _excess_by_bin, _medians, worst_pairs


@pytest.fixture
def pair():
    def image(value, sigma, shape=(12, 16)):
        sigma = StdDevUncertainty(np.full(shape, sigma))
        return CCDData(np.full(shape, value), unit="adu", uncertainty=sigma, mask=np.zeros(shape, bool))

    return Pair("one", image(3.0, 2.0), image(1.0, 0.2), 0.1)


class TestPage:
    def page(self, *verdicts):
        table = QTable({"method": ["<b>"], "value": [0.12345], "n": [4]}, meta={"caption": "a table"})
        table["large"] = np.ma.array([12345.6])
        table["unknown"] = [np.nan]
        return render_page("title", "text & more", [Section("A question?", verdicts, [table])], "end")

    @pytest.mark.parametrize(
        ("verdict", "name", "color"),
        [("holds", "holds", "1a7f37"), ("fails", "fails", "b42318"), ("too few", "too-few", "666")],
    )
    def test_color_of_a_verdict(self, verdict, name, color):
        html = self.page((verdict, "sentence"))
        assert f'<span class="{name}">{verdict}</span> sentence' in html
        assert re.search(rf"\.{name} {{ color: #{color}; }}", html)

    def test_sentence_without_verdict(self):
        assert "<li>sentence</li>" in self.page((None, "sentence"))

    def test_text_is_escaped(self):
        html = self.page()
        assert "text &amp; more" in html
        assert "&lt;b&gt;" in html

    def test_cells(self):
        cells = re.findall(r"<td>(.*?)</td>", self.page())
        assert cells == ["&lt;b&gt;", "0.123", "4", "12,346", ""]


class TestSections:
    def test_worst_first(self):
        images = QTable({"method": ["a"] * 5 + ["b"] * 5, "rmse": [1, 5, 2, 4, 3, 1, 1, 9, 1, 1.0]})
        assert worst_pairs(images, ["a", "b"]).tolist() == [2, 1, 3, 4]
        assert worst_pairs(images, ["a"], number=2).tolist() == [1, 3]

    def test_excess_by_bin(self):
        pixels = QTable({"method": ["a"] * 4 + ["b"] * 4, "bin": ["sky", "lsb", "mid", "hi"] * 2})
        pixels["excess"] = np.arange(8.0)
        assert _excess_by_bin(pixels).colnames == ["method", "sky", "lsb", "mid", "hi"]
        assert _excess_by_bin(pixels)["sky"].tolist() == [0, 4]
        assert _excess_by_bin(pixels)["hi"].tolist() == [3, 7]

    def test_medians(self):
        images = QTable({"method": ["a", "a", "a", "b"]}, meta={"caption": ""})
        for name in ("psnr", "ssim", "mae", "mse", "spectral_mse"):
            images[name] = [1.0, 9.0, 2.0, 7.0]
        assert _medians(images)["psnr"].tolist() == [2, 7]


class TestFigures:
    def test_residual_is_image_minus_reference(self, pair):
        results = {"a": [CCDData(np.full((12, 16), 5.0), unit="adu")]}
        figure = figures.plot_panels([pair], results, [0], ["a"])
        shown = {ax.get_title(): ax.images[0] for ax in figure.axes if ax.get_title()}
        assert list(shown) == ["Input", "Reference", "a", "a residual"]
        np.testing.assert_allclose(shown["a residual"].get_array(), (5 - 1) / 2)
        assert shown["a residual"].get_clim() == (-2, 2)
        # red is positive
        red, _, blue, _ = shown["a residual"].cmap(1.0)
        assert red > 2 * blue

    def test_pairs_are_in_order(self, pair):
        other = Pair("two", pair.reference, pair.image, 10.0)
        results = {"a": [CCDData(np.full((12, 16), value), unit="adu") for value in (7.0, 8.0)]}
        figure = figures.plot_panels([pair, other], results, [1, 0], ["a"])
        values = [ax.images[0].get_array().mean() for ax in figure.axes if ax.get_title() == "a"]
        assert values == [8, 7]
        assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["two", "one"]

    def test_border_without_reference_is_not_shown(self, pair):
        reference = pair.reference.copy()
        reference.mask = np.ones((12, 16), bool)
        reference.mask[2:-1, 3:] = False
        pair = Pair("one", pair.image, reference, 0.1)
        results = {"a": [CCDData(np.full((12, 16), 5.0), unit="adu")]}
        figure = figures.plot_panels([pair], results, [0], ["a"])
        assert {ax.images[0].get_array().shape for ax in figure.axes if ax.get_title()} == {(9, 13)}

    def test_few_keeps_order_and_bm3d(self):
        assert figures._few([*"abcdefg", "bm3d", "h"]) == [*"abcde", "bm3d"]
        assert figures._few(["bm3d", "a"]) == ["bm3d", "a"]

    def test_coverage_axes(self):
        curves = QTable({"method": ["a"] * 3, "level": [0.2, 0.5, 0.8], "covered": [0.1, 0.3, 0.6]})
        (ax,) = figures.plot_coverage(curves).axes
        diagonal, line = ax.lines
        np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
        np.testing.assert_allclose(line.get_xdata(), curves["level"])
        np.testing.assert_allclose(line.get_ydata(), curves["covered"])
        assert ax.get_xlabel() == "probability of the interval"
        assert ax.get_ylabel() == "fraction of pixels in it"

    def test_reliability_axes(self):
        table = QTable({"probability": [0.2, 0.9], "frequency": [0.4, 0.5], "frequency_err": [0.1, 0.1]})
        (ax,) = figures.plot_reliability({"a": table}).axes
        line = ax.containers[0].lines[0]
        np.testing.assert_allclose(line.get_xydata(), [[0.2, 0.4], [0.9, 0.5]])
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("probability of existence", "part that exists")

    def test_completeness_axes(self):
        table = QTable({"method": ["x", "x"], "completeness": [0.9, 0.2], "completeness_err": [0.1, 0.1]})
        table["magnitude"] = [20.0, 22.0] * u.mag
        (ax,) = figures.plot_completeness({"a": table}).axes
        np.testing.assert_allclose(ax.containers[0].lines[0].get_xydata(), [[20, 0.9], [22, 0.2]])
        assert ax.get_xlabel() == "magnitude"

    def test_pulls(self):
        fluxes = QTable({"method": ["a", "b"], "radius": [5.0, 5.0], "magnitude": [20.0, 21.0]})
        fluxes["pull"] = [2.0, -9.0]
        first, second = figures.plot_pulls(fluxes, ["a", "b"]).axes
        np.testing.assert_allclose(first.collections[-1].get_offsets(), [[20, 2]])
        np.testing.assert_allclose(second.collections[-1].get_offsets(), [[21, -6]])

    def test_spectra(self):
        spectra = QTable({"method": ["a"], "ratio": [0.5], "correlation": [0.9]})
        spectra["frequency"] = [0.1] * u.cycle / u.pix
        upper, lower = figures.plot_spectra(spectra).axes
        assert upper.lines[0].get_ydata()[0] == 0.5
        assert lower.lines[0].get_ydata()[0] == 0.9
        assert upper.get_ylabel() == "power / power of the reference"

    def test_excess(self):
        pixels = QTable({"method": ["input"] * 4 + ["a"] * 4, "bin": ["sky", "lsb", "mid", "hi"] * 2})
        pixels["excess"] = [1, 1, 1, 1, 0.1, 0.2, 0.3, 0.4]
        (ax,) = figures.plot_excess(pixels).axes
        assert [patch.get_height() for patch in ax.patches] == [0.1, 0.2, 0.3, 0.4]
        assert [text.get_text()[:3] for text in ax.get_xticklabels()] == ["sky", "fai", "mid", "bri"]

    def test_ranks(self):
        table = QTable({"method": ["a"] * 4, "bin": ["sky", "lsb", "mid", "hi"]})
        table["ranks"] = [[6, 2], [4, 4], [2, 6], [0, 8]]
        axes = figures.plot_ranks(table).axes
        assert [ax.get_title() for ax in axes] == ["sky", "lsb", "mid", "hi"]
        assert [patch.get_height() for patch in axes[0].patches] == [1.5, 0.5]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Test the verdicts of the report, each on numbers that are right, wrong, and too few to tell.
"""

import numpy as np
import pytest
from astropy.table import QTable

from astro_ddpm.report import verdicts

RIGHT, WRONG, FEW = "holds", "fails", "too few"


class TestJudge:
    @pytest.mark.parametrize(
        ("value", "error", "expected"),
        [
            (0.0, 0.01, RIGHT),
            (0.1, 0.01, RIGHT),
            (-0.1, 0.01, RIGHT),
            (0.13, 0.01, WRONG),
            (-0.13, 0.01, WRONG),
            (0.11, 0.01, RIGHT),  # one error outside
            (5.0, 1.0, WRONG),  # a large error, and still much too far
            (0.0, 0.2, FEW),
            (0.3, 0.2, FEW),
            (np.nan, 0.01, FEW),
            (0.0, np.nan, FEW),
        ],
    )
    def test_range(self, value, error, expected):
        assert verdicts.judge(value, error, -0.1, 0.1) == expected

    def test_combine(self):
        assert verdicts.combine([RIGHT, FEW, WRONG]) == WRONG
        assert verdicts.combine([FEW, RIGHT]) == RIGHT
        assert verdicts.combine([FEW, FEW]) == verdicts.combine([]) == FEW


def summary(**values):
    row = {"method": "m", "radius": 5.0, "n": 100, "scatter_ratio": 0.5}
    row |= {"bias": 0.0, "bias_err": 0.01, "pull": 1.0, "pull_err": 0.05}
    return QTable([row | values, row | {"method": "other", "bias": 9.0, "pull": 9.0}])


class TestFluxes:
    @pytest.mark.parametrize(
        ("bias", "error", "expected"),
        [(0.0, 0.02, RIGHT), (0.3, 0.02, WRONG), (-0.3, 0.02, WRONG), (0.0, 0.4, FEW)],
    )
    def test_bias(self, bias, error, expected):
        ((verdict, text),) = verdicts.fluxes(summary(bias=bias, bias_err=error), ["m"])
        assert verdict == expected
        assert f"biased by {bias:+.2f} ± {error:.2f}" in text
        assert "0.50 times that of the input" in text

    @pytest.mark.parametrize(
        ("pull", "error", "expected"),
        [(1.0, 0.05, RIGHT), (1.6, 0.05, WRONG), (0.5, 0.05, WRONG), (1.0, 0.3, FEW)],
    )
    def test_pulls(self, pull, error, expected):
        ((verdict, text),) = verdicts.pulls(summary(pull=pull, pull_err=error), ["m"])
        assert verdict == expected
        assert f"width of {pull:.2f} ± {error:.2f}" in text

    def test_few_sources_tell_nothing(self):
        few = summary(n=3, bias=5.0, pull=5.0)
        assert [verdicts.fluxes(few, ["m"])[0][0], verdicts.pulls(few, ["m"])[0][0]] == [FEW, FEW]


class TestCoverage:
    def table(self, covered, n=(10_000, 10_000)):
        rows = [
            {"method": "m", "bin": str(i), "n": k, "coverage_68": c, "coverage_95": 0.95}
            for i, (c, k) in enumerate(zip(covered, n, strict=True))
        ]
        return QTable(rows)

    @pytest.mark.parametrize(
        ("covered", "expected"),
        [((0.68, 0.69), RIGHT), ((0.68, 0.55), WRONG), ((0.8, 0.68), WRONG)],
    )
    def test_every_bin_must_hold(self, covered, expected):
        (at_68, text), (at_95, _) = verdicts.coverage(self.table(covered), ["m"])
        assert (at_68, at_95) == (expected, RIGHT)
        assert f"{100 * min(covered):.1f} to {100 * max(covered):.1f} %" in text

    def test_bins_of_few_pixels_do_not_count(self):
        assert verdicts.coverage(self.table((0.68, 0.6), (10_000, 30)), ["m"])[0][0] == RIGHT
        assert verdicts.coverage(self.table((0.68, 0.68), (30, 30)), ["m"])[0][0] == FEW
        assert verdicts.coverage(self.table((0.1, 0.68), (200, 30)), ["m"])[0][0] == WRONG
        assert verdicts.coverage(self.table((0.1, 0.68), (30, 30)), ["m"])[0][0] == FEW
        assert verdicts.coverage(self.table((np.nan, np.nan), (0, 0)), ["m"])[0][0] == FEW


class TestInvented:
    def said(self, invented, sources, blank):
        counts = {"method": "m", "sources": sources, "invented": invented, "references": 9, "missed": 4}
        noise = {"method": "m", "sources": blank, "rate_low": 0.0, "rate_high": 46.0}
        return verdicts.invented(QTable([counts]), QTable([noise]), ["m"], 65536)

    @pytest.mark.parametrize(
        ("invented", "sources", "expected"),
        [(0, 50, RIGHT), (1, 50, WRONG), (0, 3, FEW), (0, 0, FEW), (2, 3, WRONG)],
    )
    def test_sources(self, invented, sources, expected):
        verdict, text = self.said(invented, sources, 0)[0]
        assert verdict == expected
        assert f"of {sources} sources in its images {invented} are not" in text
        assert "of 9 in the references it misses 4" in text

    def test_confidence_limit(self):
        # 1 - (1 - p)^50 = 0.975 at p = 0.071; the interval of Jeffreys ends at 0.049
        assert "at most 5 %" in self.said(0, 50, 0)[0][1]

    @pytest.mark.parametrize(("blank", "expected"), [(0, RIGHT), (1, WRONG)])
    def test_noise(self, blank, expected):
        verdict, text = self.said(0, 50, blank)[1]
        assert verdict == expected
        assert f"{blank} sources in 65536 pixels" in text


def test_gain_is_fainter_if_positive():
    limits = QTable({"method": ["matched filter", "mean"], "gain": [0.0, -0.2], "gain_err": [0.0, 0.1]})
    ((verdict, text),) = verdicts.gains({"m": limits})
    assert verdict is None
    assert text.startswith("m, mean: point sources in noise are found -0.20 ± 0.10 mag fainter")

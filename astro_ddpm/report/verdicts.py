# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The sentences of the report, and whether what they say holds, fails, or rests on too few cases.
"""

from __future__ import annotations

import math

import numpy as np
from astropy.stats import binom_conf_interval

HOLDS, FAILS, TOO_FEW = "holds", "fails", "too few"
_BIAS = 0.1  # in units of the error of the input
_WIDTHS = (0.85, 1.15)  # of pulls
_TOLERANCES = {68: 0.02, 95: 0.01}  # of coverage
_MIN_SOURCES = 20  # below which their scatter, and so the errors, are too uncertain
_MIN_PIXELS = 100  # of a bin


def judge(value: float, error: float, low: float, high: float) -> str:
    """
    Say whether a value with its standard error lies in the allowed range from ``low`` to ``high``.

    Returns "fails" if it is more than two errors outside of the range, else "holds", or "too few" if the
    error is larger than half of the range, or not a number.
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return TOO_FEW
    if max(low - value, value - high) > 2 * error:
        return FAILS
    return HOLDS if error <= (high - low) / 2 else TOO_FEW


def combine(verdicts: list[str]) -> str:
    """Combine verdicts: "fails" if any fails, else "holds" if any holds, else "too few"."""
    return next((verdict for verdict in (FAILS, HOLDS) if verdict in verdicts), TOO_FEW)


def fluxes(summary, names):
    """Judge the bias of fluxes, from `~astro_ddpm.report.tables.flux_summary`."""
    text = (
        "{method}, {n} sources within {radius:g} pixels: biased by {bias:+.2f} ± {bias_err:.2f} of the error "
        "of the input (allowed ±{high}); their scatter is {scatter_ratio:.2f} times that of the input."
    )
    return [_judge_row(row, "bias", -_BIAS, _BIAS, text) for row in _rows_of(summary, names)]


def pulls(summary, names):
    """Judge the width of the pulls of fluxes, from `~astro_ddpm.report.tables.flux_summary`."""
    text = (
        "{method}: pulls of fluxes within {radius:g} pixels have a width of {pull:.2f} ± {pull_err:.2f} "
        "(allowed {low} to {high})."
    )
    return [_judge_row(row, "pull", *_WIDTHS, text) for row in _rows_of(summary, names)]


def coverage(calibration, names):
    """Judge the coverage of intervals, from `~astro_ddpm.report.tables.calibration_rows`."""
    sentences = []
    for name in names:
        rows = calibration[(calibration["method"] == name) & (calibration["n"] > 0)]
        n = np.asarray(rows["n"], float)
        for level, tolerance in _TOLERANCES.items():
            covered, wanted = np.asarray(rows[f"coverage_{level}"], float), level / 100
            error = np.sqrt(wanted * (1 - wanted) / n)
            low, high = wanted - tolerance, wanted + tolerance
            bins = zip(covered[n >= _MIN_PIXELS], error[n >= _MIN_PIXELS], strict=True)
            verdict = combine([judge(*each, low, high) for each in bins])
            least, most = (100 * covered.min(), 100 * covered.max()) if len(rows) else (np.nan, np.nan)
            text = (
                f"{name}: the {level} % intervals contain {least:.1f} to {most:.1f} % of the reference "
                f"pixels, depending on brightness (allowed {100 * low:g} to {100 * high:g} %, in bins with "
                "enough pixels)."
            )
            sentences.append((verdict, text))
    return sentences


def invented(counts, noise, names, area):
    """Judge invented sources, from `~astro_ddpm.report.tables.invented_rows` and ``noise_rows``."""
    sentences = []
    for row in _rows_of(counts, names):
        k, n = int(row["invented"]), int(row["sources"])
        most = binom_conf_interval(k, n, 0.95, interval="jeffreys")[1] if n else 1.0
        text = (
            f"{row['method']}: of {n} sources in its images {k} are not in the references (at most "
            f"{100 * most:.0f} %, at 95 % confidence); of {row['references']} in the references it misses "
            f"{row['missed']}."
        )
        enough = HOLDS if n >= _MIN_SOURCES else TOO_FEW
        sentences.append((FAILS if k else enough, text))
    for row in _rows_of(noise, names):
        text = (
            f"{row['method']}: {row['sources']} sources in {area} pixels of pure noise, a rate of "
            f"{row['rate_low']:.0f} to {row['rate_high']:.0f} per million pixels (95 %)."
        )
        sentences.append((FAILS if row["sources"] else HOLDS, text))
    return sentences


def gains(limits):
    """State how much fainter sources are found, from ``limits`` of `detection_curve` for every model."""
    sentences = []
    for name, table in limits.items():
        for row in table[1:]:
            gain, error = (float(getattr(row[key], "value", row[key])) for key in ("gain", "gain_err"))
            text = (
                f"{name}, {row['method']}: point sources in noise are found {gain:+.2f} ± {error:.2f} mag "
                "fainter than by a matched filter on the input, at the same completeness and purity."
            )
            sentences.append((None, text))
    return sentences


def _judge_row(row, name, low, high, text):
    """Return the verdict on a value of a row, and a text with the values of the row in it."""
    verdict = judge(row[name], row[f"{name}_err"], low, high)
    text = text.format(low=low, high=high, **dict(row))
    return verdict if row["n"] >= _MIN_SOURCES else TOO_FEW, text


def _rows_of(table, names):
    return [row for name in names for row in table[table["method"] == name]]

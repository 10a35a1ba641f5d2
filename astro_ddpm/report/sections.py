# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The sections of the report: three questions with verdicts, a comparison, and pictures.
"""

import numpy as np
from astropy.table import QTable

from . import figures, verdicts
from .page import Picture, Section
from .tables import BINS, STRUCTURE, numbers

__all__ = ["make_sections", "worst_pairs"]

_PULLS = (
    "Pulls of the fluxes of all sources. Without samples the error of a flux ignores the covariance of "
    "pixels and is too small for an enhanced image."
)
_PANELS = "Residuals are image minus reference."
_SPECTRA = (
    "Structure of arcsinh(image / noise of the sky) by spatial frequency; dotted: the samples, which have "
    "the noise of an exposure."
)
_COMPLETENESS = "Completeness and purity of the detection of injected point sources."
_RELIABILITY = "Probability of existence against the frequency of existence."


def make_sections(pairs, results, tables, names, *, area):
    """
    Return all sections of the page.

    ``results`` maps methods to images, ``tables`` are all tables, without units, ``names`` are the models,
    and ``area`` is the number of pixels of pure noise.
    """
    return [
        _fluxes(tables, names),
        _errors(tables, names),
        _inventions(tables, names, area),
        _comparison(tables),
        _pictures(pairs, results, tables, names),
    ]


def _fluxes(tables, names):
    title = "Are the fluxes right?"
    if "flux_summary" not in tables:
        return Section(title, [(verdicts.TOO_FEW, "The references show no source to measure.")])
    summary = tables["flux_summary"]
    picture = Picture("pulls", figures.plot_pulls(tables["fluxes"], ["input", *names]), _PULLS)
    return Section(title, verdicts.fluxes(summary, names), [summary], [picture])


def _errors(tables, names):
    calibration = tables["calibration"]
    said = verdicts.coverage(calibration, names)
    if "flux_summary" in tables:
        said += verdicts.pulls(tables["flux_summary"], names)
    curves = figures.plot_coverage(_of(tables["coverage"], names))
    ranks = figures.plot_ranks(_of(calibration, names))
    pictures = [
        Picture("coverage", curves, "Coverage of intervals of pixels."),
        Picture("ranks", ranks, "Rank histograms of pixels, relative to flat."),
    ]
    tests = _by_model(tables, "honesty", names)
    return Section("Are the errors right?", said, [calibration, *tests.values()], pictures)


def _inventions(tables, names, area):
    limits, curves, diagrams = (
        _by_model(tables, kind, names) for kind in ("detection_limits", "detection_curve", "reliability")
    )
    said = verdicts.invented(tables["invented"], tables["noise"], names, area) + verdicts.gains(limits)
    pictures = []
    if curves:
        pictures.append(Picture("completeness", figures.plot_completeness(curves), _COMPLETENESS))
    if diagrams:
        pictures.append(Picture("reliability", figures.plot_reliability(diagrams), _RELIABILITY))
    shown = [tables["invented"], tables["noise"], *limits.values()]
    return Section("Does it invent or lose sources?", said, shown, pictures)


def _comparison(tables):
    shown = [_medians(tables["images"]), _excess_by_bin(tables["pixels"])]
    shown += [_scatter_of(tables["structure"])] if "structure" in tables else []
    pictures = [
        Picture("excess", figures.plot_excess(tables["pixels"]), "Noise left over, by brightness."),
        Picture("spectra", figures.plot_spectra(tables["spectra"]), _SPECTRA),
    ]
    return Section("How does it compare?", tables=[*shown, tables["cost"]], pictures=pictures)


def _pictures(pairs, results, tables, names):
    shown = [*names, *(name for name in ("bm3d", "nlm") if name in results)][:3]
    chosen = {
        "first": (range(min(4, len(pairs))), "One of the first pairs of the list."),
        "worst": (worst_pairs(tables["images"], names), "One of the pairs with the largest errors."),
    }
    pictures = []
    for name, (places, caption) in chosen.items():
        for place, number in enumerate(places, start=1):
            figure = figures.plot_panels(pairs, results, [number], shown)
            pictures.append(Picture(f"{name}_{place}", figure, f"{caption} {_PANELS}"))
    return Section("What does it look like, and where does it fail?", pictures=pictures)


def worst_pairs(images, names, number=4):
    """
    Return the numbers of the pairs with the largest error by any of the models, worst first.

    ``images`` is from `~astro_ddpm.report.tables.image_rows`, ``names`` are the models, and ``number`` says
    how many pairs at most.
    """
    errors = np.max([numbers(images["rmse"][images["method"] == name]) for name in names], axis=0)
    return np.argsort(-errors)[:number]


def _medians(images):
    methods = list(dict.fromkeys(images["method"]))
    table = QTable({"method": methods})
    for name in ("psnr", "ssim", "mae", "mse", "spectral_mse"):
        values = numbers(images[name])
        table[name] = [np.nanmedian(values[images["method"] == method]) for method in methods]
    table.meta["caption"] = f"{images.meta['caption']} Medians over the pairs."
    return table


def _excess_by_bin(pixels):
    """Return the noise left over with one row per method and one column per bin."""
    table = QTable({"method": list(dict.fromkeys(pixels["method"]))})
    for name in BINS:
        table[name] = numbers(pixels["excess"][pixels["bin"] == name])
    table.meta["caption"] = (
        "Noise left over, in units of that of the input, in bins of the brightness of the reference in units "
        "of the noise of the sky: below 1, 1 to 5, 5 to 30, above 30."
    )
    return table


def _scatter_of(structure):
    """Return the scatter of sizes and shapes alone."""
    table = QTable({name: structure[name] for name in ("method", "n")})
    for name in STRUCTURE:
        table[name] = structure[f"{name}_scatter"]
    table.meta["caption"] = "Scatter of sizes and shapes of sources round those of the references."
    return table


def _of(table, names):
    return table[np.isin(table["method"], names)]


def _by_model(tables, kind, names):
    """Return the tables of one kind by the name of the model."""
    return {name: tables[f"{kind}_{name}"] for name in names if f"{kind}_{name}" in tables}

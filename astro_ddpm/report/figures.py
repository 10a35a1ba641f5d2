# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The figures of the report, each made from tables or images; `matplotlib.pyplot` does not know them.
"""

import numpy as np
from matplotlib.figure import Figure

from astro_ddpm.evaluation.calibration import BINS
from astro_ddpm.evaluation.plots import Panel, draw_panels, flux_scale, residual_scale

from .tables import sigma_of

_COLORS = {"input": "#888888", "raunet": "#2a6fbb", "ddpm": "#c8452d", "bm3d": "#3a8f5c"}
WORDS = {
    "gaussian": "Gaussian filter",
    "starlet": "starlets",
    "bm3d": "BM3D",
    "nlm": "non-local means",
    "tv": "total variation",
    "wavelet": "wavelets",
}
_OTHERS = ("#8a5fb0", "#b8860b", "#4fb0ae", "#d477a5", "#6b7b3a", "#a0522d")


def _color(method, methods):
    others = [name for name in methods if name.removesuffix(" samples") not in _COLORS]
    return _COLORS.get(method) or _OTHERS[others.index(method) % len(_OTHERS)]


def _axes(rows=1, columns=1, *, size, **options):
    """Return a figure and its axes, an array of rows and columns unless there is one only."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _by_method(table):
    """Return name, color and rows of each method of a table, in order."""
    methods = list(dict.fromkeys(table["method"]))
    return [(method, _color(method, methods), table[table["method"] == method]) for method in methods]


def plot_panels(pairs, results, numbers, methods):
    """
    Show some pairs: input, reference and samples, below them the images of all methods, and their residuals.

    ``numbers`` are those of the pairs. Images of a pair share one arcsinh stretch. Residuals are image
    minus reference in units of the noise of the input, from -2 (blue) to 2 (red). Only what the reference
    shows is drawn.
    """
    panels, scales, first = [], {"residual": residual_scale(2.0, "residual / noise of the input")}, []
    n_columns = max(len(methods), 2)
    for row, number in enumerate(numbers):
        planes = _planes(pairs[number], {m: results[m][number] for m in methods})
        sky = float(np.nanpercentile(sigma_of(pairs[number].image), 2))
        top = np.nanpercentile(planes[1][1], 99.8)
        scales[f"flux {row}"] = flux_scale(sky, top, "flux / noise of the sky")
        first.append(len([panel for panel in panels if panel]))
        kinds = (f"flux {row}", "residual")
        panels += [Panel(title, plane, kinds[title.endswith("residual")]) for title, plane in planes]
        gap = -(len(planes) - 2 * len(methods)) % n_columns
        place = len(panels) - 2 * len(methods)
        panels[place:place] = [None] * gap
    figure = draw_panels(panels, scales, n_columns, 2.2)
    axes = [ax for ax in figure.axes if ax.get_title()]
    for number, place in zip(numbers, first, strict=True):
        axes[place].set_ylabel(pairs[number].name, fontsize="x-small")
    return figure


def _planes(pair, images):
    """Return titles and planes of one pair, without the border that the reference does not show."""
    masked, sigma = pair.reference.mask, sigma_of(pair.image)
    rows, columns = (np.flatnonzero(~masked.all(axis=axis)) for axis in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    reference = np.where(masked, np.nan, pair.reference.data)
    samples = {
        f"{name} sample": image.samples[0]
        for name, image in images.items()
        if getattr(image, "samples", None) is not None
    }
    planes = {"Input": np.where(pair.image.mask, np.nan, pair.image.data), "Reference": reference, **samples}
    named = {WORDS.get(name, name): image.data for name, image in images.items()}
    planes |= named | {f"{name} residual": (data - reference) / sigma for name, data in named.items()}
    return [(title, np.asarray(plane)[part]) for title, plane in planes.items()]


def _few(methods, number=6):
    """Return some methods, the first and BM3D, since more than six curves tell nothing."""
    kept = sorted(methods, key="bm3d".__ne__)[:number]
    return [name for name in methods if name in kept]


def plot_excess(pixels):
    """Show the noise that each method leaves, in bins of brightness, from `pixel_rows`."""
    figure, ax = _axes(size=(7.5, 4.2))
    methods = _few([name for name in dict.fromkeys(pixels["method"]) if name != "input"])
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        values = [float(v) for v in pixels["excess"][pixels["method"] == method]]
        place = np.arange(len(values)) + (number - (len(methods) - 1) / 2) * width
        ax.bar(place, values, 0.9 * width, label=WORDS.get(method, method), color=_color(method, methods))
    ax.axhline(1, color="#888888", lw=1, ls="--")
    labels = ["sky\n< 1 σ", "faint\n1–5 σ", "middle\n5–30 σ", "bright\n> 30 σ"]
    ax.set(xticks=np.arange(len(BINS)), ylabel="noise left / noise of the input", ylim=(0, 1.5))
    ax.set_xticklabels(labels)
    ax.legend(frameon=False, ncols=2, fontsize="small")
    return figure


def plot_coverage(curves):
    """Show the fraction covered against the probability of the interval, from `coverage_rows`."""
    figure, ax = _axes(size=(4.6, 4.6))
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--")
    for method, color, rows in _by_method(curves):
        ax.plot(rows["level"], rows["covered"], color=color, label=method, marker="o", ms=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="probability of the interval", ylabel="fraction of pixels in it")
    ax.legend(frameon=False)
    return figure


def plot_ranks(calibration):
    """Show rank histograms, relative to flat, of each method (rows) and bin (columns)."""
    methods = _by_method(calibration)
    size = (8.5, 1.9 * len(methods) + 0.3)
    figure, axes = _axes(len(methods), len(BINS), size=size, squeeze=False, sharey=True)
    for ax, name in zip(axes[0], BINS, strict=True):
        ax.set_title(name, fontsize="medium")
    for row, (method, color, rows) in zip(axes, methods, strict=True):
        for ax, name in zip(row, BINS, strict=True):
            ranks = np.asarray(rows["ranks"][rows["bin"] == name][0], float)
            ax.bar(np.arange(len(ranks)), ranks / max(ranks.mean(), 1e-9), 1.0, color=color, alpha=0.7)
            ax.axhline(1, color="black", lw=0.8)
            ax.set(ylim=(0, 2.5), xticks=[0, len(ranks) - 1])
        row[0].set_ylabel(method)
    figure.supxlabel("rank of the reference among the samples", fontsize="small")
    return figure


def plot_pulls(fluxes, methods):
    """Show the pulls of fluxes against magnitude, from `flux_rows`, for each radius and method."""
    radii = sorted(set(fluxes["radius"]))
    size, shared = (3.2 * len(methods), 2.4 * len(radii) + 0.3), {"sharex": True, "sharey": True}
    figure, axes = _axes(len(radii), len(methods), size=size, squeeze=False, **shared)
    for top, bottom, method in zip(axes[0], axes[-1], methods, strict=True):
        top.set_title(method, fontsize="medium")
        bottom.set_xlabel("magnitude")
    for row, radius in zip(axes, radii, strict=True):
        for ax, method in zip(row, methods, strict=True):
            pick = (fluxes["method"] == method) & (fluxes["radius"] == radius)
            ax.axhspan(-1, 1, color="#dddddd", lw=0)
            ax.axhline(0, color="#888888", lw=0.8)
            style = {"s": 10, "color": _color(method, methods), "alpha": 0.7, "lw": 0}
            ax.scatter(fluxes["magnitude"][pick], np.clip(fluxes["pull"][pick], -6, 6), **style)
            ax.set(ylim=(-6.3, 6.3))
        row[0].set_ylabel(f"pull, r = {radius:g} px")
    return figure


def plot_spectra(spectra):
    """Show the ratio of powers and the correlation with the reference, from `spectrum_rows`."""
    figure, (upper, lower) = _axes(2, 1, size=(6.6, 6.6), sharex=True)
    methods = _few(list(dict.fromkeys(spectra["method"])))
    for method in methods:
        pick = spectra["method"] == method
        base = method.removesuffix(" samples")
        style = {"color": _color(base, methods), "ls": "-" if base == method else ":"}
        style["label"] = WORDS.get(method, method)
        frequency = spectra["frequency"][pick].value
        upper.plot(frequency, spectra["ratio"][pick], **style)
        lower.plot(frequency, spectra["correlation"][pick], **style)
    upper.axhline(1, color="#888888", lw=1, ls="--")
    upper.set(yscale="log", ylabel="power / power of the reference")
    upper.yaxis.set_major_formatter("{x:g}")
    lower.set(ylim=(-0.05, 1.02), ylabel="correlation with the reference")
    lower.set_xlabel("frequency (cycles per pixel)")
    upper.legend(frameon=False, fontsize="small")
    return figure


def plot_completeness(curves):
    """Show completeness against magnitude, from ``curve`` of `detection_curve` for every model."""
    size = (4.4 * len(curves), 3.6)
    figure, axes = _axes(1, len(curves), size=size, sharey=True, squeeze=False)
    for ax, (model, curve) in zip(axes[0], curves.items(), strict=True):
        for (method, _, rows), color in zip(_by_method(curve), ("#888888", *_OTHERS), strict=False):
            error = np.asarray(rows["completeness_err"], float)
            look = {"color": color, "label": method, "marker": "o", "ms": 3, "lw": 1.2}
            ax.errorbar(rows["magnitude"].value, rows["completeness"], error, **look)
        ax.axhline(0.9, color="#888888", lw=1, ls="--")
        ax.set(title=model, xlabel="magnitude", ylim=(0, 1.03))
        ax.legend(frameon=False, fontsize="small")
    axes[0, 0].set_ylabel("completeness at 90 % purity")
    return figure


def plot_reliability(diagrams):
    """Show the frequency of existence against its probability, from `detection_curve`."""
    figure, ax = _axes(size=(4.6, 4.6))
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--")
    for method, table in diagrams.items():
        look = {"color": _color(method, [method]), "label": method, "marker": "o", "ms": 4}
        error = np.asarray(table["frequency_err"], float)
        ax.errorbar(table["probability"], table["frequency"], error, **look)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set(xlabel="probability of existence", ylabel="part that exists")
    ax.legend(frameon=False)
    return figure

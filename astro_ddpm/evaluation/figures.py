# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The figures of the report, each made from tables or images and not known to `matplotlib.pyplot`.
"""

import numpy as np
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure

from .measures import BINS
from .photometry import standard_deviation

__all__ = [
    "plot_completeness",
    "plot_coverage",
    "plot_excess",
    "plot_panels",
    "plot_pulls",
    "plot_ranks",
    "plot_reliability",
    "plot_spectra",
]

_COLORS = {"input": "#888888", "raunet": "#2a6fbb", "ddpm": "#c8452d", "bm3d": "#3a8f5c"}
_OTHERS = ("#8a5fb0", "#b8860b", "#4fb0ae", "#d477a5", "#6b7b3a", "#a0522d")


def _color(method, methods):
    others = [name for name in methods if name not in _COLORS]
    return _COLORS.get(method) or _OTHERS[others.index(method) % len(_OTHERS)]


def _axes(width=6.0, height=4.2):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def plot_panels(pairs, results, numbers, methods):
    """
    Show some pairs: input, reference, the image of every method, a sample, and residuals.

    Parameters
    ----------
    pairs : list of `~astro_ddpm.evaluation.pairs.Pair`
        The images and their references.

    results : dict
        The images of every method.

    numbers : sequence of int
        The pairs to show, one in each row.

    methods : sequence of str
        The methods to show.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Images share one arcsinh stretch in each row; residuals against the reference are in units of the
        noise of the input, from -2 (blue) to 2 (red).
    """
    rows = [_panels(pairs[number], {m: results[m][number] for m in methods}) for number in numbers]
    n_columns = len(rows[0])
    figure = Figure(figsize=(1.7 * n_columns, 1.85 * len(rows) + 0.2), layout="compressed")
    axes = figure.subplots(len(rows), n_columns, squeeze=False)
    for ax, title in zip(axes[0], rows[0], strict=True):
        ax.set_title(title, fontsize="small")
    for row, number, panels in zip(axes, numbers, rows, strict=True):
        sky = float(np.nanpercentile(standard_deviation(pairs[number].image), 2))
        top = max(np.nanpercentile(panels["Reference"], 99.8), 20 * sky)
        norm = AsinhNorm(1.5 * sky, vmin=-2 * sky, vmax=top)
        for ax, (title, plane) in zip(row, panels.items(), strict=True):
            residual = title.endswith("residual")
            look = {"cmap": "RdBu_r", "vmin": -2, "vmax": 2} if residual else {"cmap": "magma", "norm": norm}
            ax.imshow(plane, origin="lower", interpolation="nearest", **look)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(pairs[number].name, fontsize="xx-small")
    return figure


def _panels(pair, images):
    """Return the planes of one row by their titles."""
    hidden, sigma = pair.reference.mask, standard_deviation(pair.image)
    reference = np.where(hidden, np.nan, pair.reference.data)
    panels = {"Input": np.where(pair.image.mask, np.nan, pair.image.data), "Reference": reference}
    panels |= {name: image.data for name, image in images.items()}
    for name, image in images.items():
        if getattr(image, "samples", None) is not None:
            panels[f"{name} sample"] = image.samples[0]
    panels |= {f"{name} residual": (image.data - reference) / sigma for name, image in images.items()}
    return panels


def plot_excess(pixels):
    """
    Show the noise that each method leaves, in bins of brightness.

    Parameters
    ----------
    pixels : `~astropy.table.QTable`
        From `~astro_ddpm.evaluation.measures.pixel_rows`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Grouped bars.
    """
    figure, ax = _axes(7.5)
    methods = [name for name in dict.fromkeys(pixels["method"]) if name != "input"]
    width = 0.8 / len(methods)
    for number, method in enumerate(methods):
        values = [float(v) for v in pixels["excess"][pixels["method"] == method]]
        place = np.arange(len(values)) + (number - (len(methods) - 1) / 2) * width
        ax.bar(place, values, 0.9 * width, label=method, color=_color(method, methods))
    ax.axhline(1, color="#888888", lw=1, ls="--")
    labels = ["sky\n< 1 σ", "faint\n1–5 σ", "middle\n5–30 σ", "bright\n> 30 σ"]
    ax.set(xticks=np.arange(len(BINS)), ylabel="noise left / noise of the input", ylim=(0, 1.5))
    ax.set_xticklabels(labels)
    ax.legend(frameon=False, ncols=2, fontsize="small")
    return figure


def plot_coverage(curves):
    """
    Show how often intervals contain the reference.

    Parameters
    ----------
    curves : `~astropy.table.QTable`
        From `~astro_ddpm.evaluation.measures.coverage_rows`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The fraction covered against the probability of the interval; honest errors follow the diagonal.
    """
    figure, ax = _axes(4.6, 4.6)
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--")
    methods = list(dict.fromkeys(curves["method"]))
    for method in methods:
        pick = curves["method"] == method
        style = {"color": _color(method, methods), "label": method, "marker": "o", "ms": 3}
        ax.plot(curves["level"][pick], curves["covered"][pick], **style)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set(xlabel="probability of the interval", ylabel="fraction of pixels in it")
    ax.legend(frameon=False)
    return figure


def plot_ranks(calibration):
    """
    Show rank histograms in bins of brightness.

    Parameters
    ----------
    calibration : `~astropy.table.QTable`
        From `~astro_ddpm.evaluation.measures.calibration_rows`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        One histogram for each method (rows) and bin (columns), relative to a flat one.
    """
    methods = list(dict.fromkeys(calibration["method"]))
    figure = Figure(figsize=(8.5, 1.9 * len(methods) + 0.3), layout="constrained")
    axes = figure.subplots(len(methods), len(BINS), squeeze=False, sharey=True)
    for ax, name in zip(axes[0], BINS, strict=True):
        ax.set_title(name, fontsize="medium")
    for row, method in zip(axes, methods, strict=True):
        for ax, name in zip(row, BINS, strict=True):
            pick = (calibration["method"] == method) & (calibration["bin"] == name)
            ranks = np.asarray(calibration["ranks"][pick][0], float)
            ax.bar(
                np.arange(len(ranks)),
                ranks / max(ranks.mean(), 1e-9),
                1.0,
                color=_color(method, methods),
                alpha=0.7,
            )
            ax.axhline(1, color="black", lw=0.8)
            ax.set(ylim=(0, 2.5), xticks=[0, len(ranks) - 1])
        row[0].set_ylabel(method)
    figure.supxlabel("rank of the reference among the samples", fontsize="small")
    return figure


def plot_pulls(fluxes, methods):
    """
    Show the pulls of fluxes against magnitude.

    Parameters
    ----------
    fluxes : `~astropy.table.QTable`
        From `~astro_ddpm.evaluation.measures.flux_rows`.

    methods : sequence of str
        The methods to show.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Difference over error of every source, in one panel for each radius and method.
    """
    radii = sorted(set(fluxes["radius"]))
    figure = Figure(figsize=(3.2 * len(methods), 2.4 * len(radii) + 0.3), layout="constrained")
    axes = figure.subplots(len(radii), len(methods), squeeze=False, sharex=True, sharey=True)
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
    """
    Show the power of the images, and how far their structure is where it should be.

    Parameters
    ----------
    spectra : `~astropy.table.QTable`
        From `~astro_ddpm.evaluation.measures.spectrum_rows`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Ratio of powers and correlation with the reference against spatial frequency.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    methods = list(dict.fromkeys(spectra["method"]))
    for method in methods:
        pick = spectra["method"] == method
        base = method.removesuffix(" samples")
        style = {"color": _color(base, methods), "ls": "-" if base == method else ":", "label": method}
        frequency = spectra["frequency"][pick].value
        left.plot(frequency, spectra["ratio"][pick], **style)
        right.plot(frequency, spectra["correlation"][pick], **style)
    left.axhline(1, color="#888888", lw=1, ls="--")
    left.set(yscale="log", ylabel="power / power of the reference")
    right.set(ylim=(-0.05, 1.02), ylabel="correlation with the reference")
    for ax in (left, right):
        ax.set_xlabel("frequency (cycles per pixel)")
    right.legend(frameon=False, fontsize="x-small")
    return figure


def plot_completeness(curves):
    """
    Show which part of injected sources is found.

    Parameters
    ----------
    curves : dict of `~astropy.table.QTable`
        For every model the table ``curve`` of `~astro_ddpm.evaluation.detection_curve`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Completeness against magnitude in one panel for each model.
    """
    figure = Figure(figsize=(4.4 * len(curves), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(curves), sharey=True))
    for ax, (model, curve) in zip(axes, curves.items(), strict=True):
        for method, color in zip(dict.fromkeys(curve["method"]), ("#888888", *_OTHERS), strict=False):
            pick = curve["method"] == method
            error = np.asarray(curve["completeness_err"][pick], float)
            ax.errorbar(
                curve["magnitude"][pick].value,
                curve["completeness"][pick],
                error,
                color=color,
                label=method,
                marker="o",
                ms=3,
                lw=1.2,
            )
        ax.axhline(0.9, color="#888888", lw=1, ls="--")
        ax.set(title=model, xlabel="magnitude", ylim=(0, 1.03))
        ax.legend(frameon=False, fontsize="small")
    axes[0].set_ylabel("completeness at 90 % purity")
    return figure


def plot_reliability(diagrams):
    """
    Show whether the probability of existence keeps its promise.

    Parameters
    ----------
    diagrams : dict of `~astropy.table.QTable`
        For every model with samples the table ``reliability`` of `~astro_ddpm.evaluation.detection_curve`.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The frequency with which it came true against the probability; honest ones follow the diagonal.
    """
    figure, ax = _axes(4.6, 4.6)
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls="--")
    for method, table in diagrams.items():
        ax.errorbar(
            table["probability"],
            table["frequency"],
            np.asarray(table["frequency_err"], float),
            color=_color(method, [method]),
            label=method,
            marker="o",
            ms=4,
        )
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set(xlabel="probability of existence", ylabel="part that exists")
    ax.legend(frameon=False)
    return figure

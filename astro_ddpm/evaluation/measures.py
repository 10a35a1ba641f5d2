# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables of how images of several methods compare with their references.

``results`` maps the name of a method to its images, `~astropy.nddata.CCDData` in the order of the pairs.
Images with an uncertainty, or with samples, have their errors judged as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std, poisson_conf_interval
from astropy.table import QTable, vstack
from photutils.aperture import CircularAperture
from scipy.ndimage import label
from scipy.special import ndtr

from .calibration import _covered, coverage, ensemble_scores, gaussian_scores
from .images import image_metrics, power_ratio
from .photometry import aperture_photometry, standard_deviation
from .sources import NoSourceError, recovered_photometry

__all__ = [
    "BINS",
    "calibration_rows",
    "coverage_rows",
    "flux_features",
    "flux_rows",
    "flux_summary",
    "image_rows",
    "invented_rows",
    "noise_rows",
    "pixel_rows",
    "source_rows",
    "spectrum_rows",
    "structure_summary",
]

STRUCTURE = ("half_light_radius", "ellipticity", "concentration", "asymmetry", "gini", "m20")
BINS = {"sky": (-np.inf, 1.0), "lsb": (1.0, 5.0), "mid": (5.0, 30.0), "hi": (30.0, np.inf)}
LEVELS = tuple(np.arange(0.05, 1, 0.05).round(2))
_MAX_PIXELS = 20_000


@dataclass(frozen=True)
class Pixels:
    """
    Pixels of a pair that can judge, at most 20 000 of them; everything in units of the noise of the image.

    Parameters
    ----------
    where : tuple of ndarray
        Their rows and columns.

    unit : ndarray, shape (n,)
        The noise of the image there, in its own unit.

    truth : ndarray, shape (n,)
        The reference.

    floor : ndarray, shape (n,)
        The noise of the reference.

    level : ndarray, shape (n,)
        The reference in units of the noise of the *sky*: the brightness.

    sky : float
        The noise of the sky, in the unit of the image.
    """

    where: tuple
    unit: np.ndarray
    truth: np.ndarray
    floor: np.ndarray
    level: np.ndarray
    sky: float

    @classmethod
    def of(cls, pair, seed=0):
        """Choose the pixels of a pair."""
        sigma, floor = standard_deviation(pair.image), standard_deviation(pair.reference)
        usable = ~(pair.reference.mask | pair.image.mask) & np.isfinite(pair.reference.data)
        index = np.flatnonzero(usable)
        if len(index) > _MAX_PIXELS:
            index = np.sort(np.random.default_rng(seed).choice(index, _MAX_PIXELS, replace=False))
        where = np.unravel_index(index, usable.shape)
        truth, sky = pair.reference.data[where].astype(float), float(np.percentile(sigma[usable], 2))
        unit = sigma[where]
        return cls(where, unit, truth / unit, floor[where] / unit, truth / sky, sky)

    def of_plane(self, plane):
        """Return the pixels of a plane, or of many, in units of the noise of the image."""
        return plane[(..., *self.where)].astype(float) / self.unit


def pixel_rows(pairs, results):
    r"""
    Error of the images in bins of brightness.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and bin of the reference: ``n`` pixels, ``rmse`` and ``bias`` in units of the
        noise of the image, ``excess``, the error :math:`\sqrt{\mathrm{rmse}^2 - \sigma_\mathrm{ref}^2}`
        without the noise of the reference, and ``std_over_rmse``, the error that the uncertainty
        announces over the one that occurs.

    Notes
    -----
    The bins are those of the reference, so that all methods share their pixels. But pixels that are chosen
    by what the truth is are not those of which a posterior speaks: in a bin of bright pixels even the best
    estimate is too faint on average, and ``std_over_rmse`` of an honest posterior is not exactly 1.
    `calibration_rows` judges honesty, in bins of the estimate.
    """
    pixels = [Pixels.of(pair) for pair in pairs]
    floor, level = (np.concatenate([getattr(p, name) for p in pixels]) for name in ("floor", "level"))
    rows = []
    for method, images in results.items():
        error = np.concatenate(
            [p.of_plane(image.data) - p.truth for p, image in zip(pixels, images, strict=True)]
        )
        std = _concatenate_std(pixels, images)
        for name, (low, high) in BINS.items():
            pick = (level >= low) & (level < high)
            row = {"method": method, "bin": name, "n": int(pick.sum())}
            rows.append(row | _error_scores(error[pick], floor[pick], None if std is None else std[pick]))
    return QTable(rows)


def _error_scores(error, floor, std):
    if not error.size:
        return dict.fromkeys(("rmse", "excess", "bias", "std_over_rmse"), np.nan)
    square, base = np.mean(error**2), np.mean(floor**2)
    announced = np.nan if std is None else np.sqrt((np.mean(std**2) + base) / square)
    return {
        "rmse": np.sqrt(square),
        "excess": np.sqrt(max(square - base, 0.0)),
        "bias": np.mean(error),
        "std_over_rmse": announced,
    }


def _concatenate_std(pixels, images):
    """Return the standard deviations of images in units of the input's, None if one has none."""
    planes = [standard_deviation(image) for image in images]
    if any(plane is None for plane in planes):
        return None
    return np.concatenate([p.of_plane(plane) for p, plane in zip(pixels, planes, strict=True)])


def _predictions(pixels, images):
    """Predict the reference: mean and standard deviation, (n,), and samples, (m, n), or None."""
    mean = np.concatenate([p.of_plane(image.data) for p, image in zip(pixels, images, strict=True)])
    if all(getattr(image, "samples", None) is not None for image in images):
        draws = [p.of_plane(image.samples) for p, image in zip(pixels, images, strict=True)]
        return mean, None, np.concatenate(draws, axis=1)
    std = _concatenate_std(pixels, images)
    floor = np.concatenate([p.floor for p in pixels])
    return mean, None if std is None else np.hypot(std, floor), None


def calibration_rows(pairs, results):
    """
    Honesty of the errors of pixels in bins of brightness.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method; those without uncertainty and samples are left out.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and bin of the **estimated** brightness: ``n``, ``crps`` in units of the noise of
        the image, ``coverage_68``, ``coverage_95``, ``spread_skill`` and ``ranks``. Samples are
        compared with the reference as they are; a standard deviation has the noise of the reference added,
        and its Gaussian is divided into as many ranks as samples have.
    """
    pixels = [Pixels.of(pair) for pair in pairs]
    truth = np.concatenate([p.truth for p in pixels])
    to_sky = np.concatenate([p.unit / p.sky for p in pixels])
    predictions = {method: _predictions(pixels, images) for method, images in results.items()}
    n_ranks = max((len(draws) + 1 for *_, draws in predictions.values() if draws is not None), default=17)
    rows = []
    for method, (mean, std, samples) in predictions.items():
        if std is None and samples is None:
            continue
        for name, (low, high) in BINS.items():
            pick = (mean * to_sky >= low) & (mean * to_sky < high)
            if samples is None:
                scores = gaussian_scores(mean[pick], std[pick], truth[pick], n_ranks=n_ranks)
            else:
                scores = ensemble_scores(samples[:, pick], truth[pick])
            rows.append({"method": method, "bin": name} | _flatten(scores))
    table = QTable(rows)
    table["ranks"] = np.stack([row["ranks"] for row in rows])
    return table


def _flatten(scores):
    fraction = dict(zip(("coverage_68", "coverage_95"), scores["coverage"], strict=True))
    names = ("n", "crps", "spread_skill", "ranks")
    return {name: scores[name] for name in names[:2]} | fraction | {name: scores[name] for name in names[2:]}


def coverage_rows(pairs, results, levels=LEVELS):
    """
    Fraction of reference pixels within central intervals, at many levels.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method; those without uncertainty and samples are left out.

    levels : sequence of float, optional
        The probabilities of the intervals.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and level: ``level`` and ``covered``.
    """
    pixels = [Pixels.of(pair) for pair in pairs]
    truth, rows = np.concatenate([p.truth for p in pixels]), []
    for method, images in results.items():
        mean, std, samples = _predictions(pixels, images)
        if samples is not None:
            covered = coverage(samples, truth, levels)[0]
        elif std is not None:
            covered = _covered(ndtr((truth - mean) / std), np.asarray(levels))[0]
        else:
            continue
        rows += [{"method": method, "level": p, "covered": c} for p, c in zip(levels, covered, strict=True)]
    return QTable(rows)


def flux_rows(pairs, results, positions, *, radii=(5.0, 10.0), zero_point=0.0):
    r"""
    Fluxes of sources in circular apertures, beside those of the references.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method.

    positions : list of ndarray, shape (n_sources, 2)
        Columns and rows of the sources of each pair.

    radii : sequence of float, optional
        Radii in pixels.

    zero_point : float, optional
        The magnitude of unit flux.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method, source and radius: ``pair``, ``x``, ``y``, ``radius``, the ``magnitude`` and
        ``snr`` (over the noise of the image) of the reference, ``flux``, ``flux_err``, ``reference``,
        ``noise``, the error of the flux in the image, and ``pull``, the difference over the error of both
        (NaN without one). The error of samples contains the noise of the reference; to others it is added.
    """
    tables = []
    for number, pair in enumerate(pairs):
        inside = _judged(pair, positions[number], max(radii))
        if not len(inside):
            continue
        for radius in radii:
            apertures = CircularAperture(inside, radius)
            truth, before = (aperture_photometry(i, apertures) for i in (pair.reference, pair.image))
            for method, images in results.items():
                after = aperture_photometry(images[number], apertures)
                table = _compare_fluxes(after, truth, before, zero_point)
                table.add_columns(
                    [method, pair.name, radius], names=["method", "pair", "radius"], indexes=[0] * 3
                )
                tables.append(table)
    return vstack(tables, metadata_conflicts="silent") if tables else QTable()


def _compare_fluxes(after, truth, before, zero_point):
    """Return fluxes of one method beside those of reference and input."""
    table = QTable({name: after[name].value for name in ("x", "y")})
    flux, reference, noise = after["flux"], truth["flux"], before["flux_err"]
    with np.errstate(invalid="ignore", divide="ignore"):
        table["magnitude"] = zero_point - 2.5 * np.log10(reference.value)
    table["snr"] = (reference / noise).value
    table["flux"], table["reference"], table["noise"] = flux, reference, noise
    error = after["flux_err"] if "flux_err" in after.colnames else np.full(len(after), np.nan) * flux.unit
    if after.meta.get("flux_err") != "samples":
        error = np.hypot(error, truth["flux_err"])
    table["flux_err"] = error
    table["pull"] = ((flux - reference) / error).value
    return table


def _judged(pair, positions, radius):
    """Return the positions whose apertures hold usable pixels only."""
    bad = CircularAperture(positions, radius).do_photometry(
        (pair.reference.mask | pair.image.mask).astype(float)
    )
    ny, nx = pair.image.shape
    x, y = np.transpose(positions)
    inside = (x > radius) & (x < nx - 1 - radius) & (y > radius) & (y < ny - 1 - radius)
    return positions[inside & (bad[0] == 0)]


def flux_features(pairs, images, fluxes):
    """
    Fluxes of samples and references, to be given to `calibration_tests`.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    images : list of `~astro_ddpm.EnhancedCCDData`
        The images of one method, with samples.

    fluxes : `~astropy.table.QTable`
        From `flux_rows`.

    Returns
    -------
    samples, truth : dict of ndarray, shapes (n_samples, n) and (n,)
        Under the name of each radius, in units of the noise of the flux in the input.
    """
    samples, truth = {}, {}
    for radius in dict.fromkeys(fluxes["radius"]):
        draws, expected = [], []
        for pair, image in zip(pairs, images, strict=True):
            pick = (
                (fluxes["method"] == "input") & (fluxes["radius"] == radius) & (fluxes["pair"] == pair.name)
            )
            rows = fluxes[pick]
            if not len(rows):
                continue
            apertures = CircularAperture(np.transpose([rows["x"], rows["y"]]), radius)
            sums = np.array([apertures.do_photometry(sample)[0] for sample in image.samples])
            draws.append(sums / rows["noise"].value)
            expected.append((rows["reference"] / rows["noise"]).value)
        name = f"flux, r = {radius:g}"
        samples[name], truth[name] = np.concatenate(draws, axis=1), np.concatenate(expected)
    return samples, truth


def flux_summary(fluxes):
    """
    Bias, scatter and pulls of fluxes.

    Parameters
    ----------
    fluxes : `~astropy.table.QTable`
        From `flux_rows`.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and radius: the number of sources ``n``, and in units of the noise of the flux in
        the image ``bias`` (the median difference), its error ``bias_err`` and ``scatter``;
        ``scatter_ratio`` to that of the input; the robust width ``pull`` of the pulls and its error
        ``pull_err``.
    """
    rows = []
    for method in dict.fromkeys(fluxes["method"]):
        for radius in dict.fromkeys(fluxes["radius"]):
            pick = (fluxes["method"] == method) & (fluxes["radius"] == radius)
            rows.append({"method": method, "radius": radius} | _summarize_fluxes(fluxes[pick]))
    table = QTable(rows)
    before = {row["radius"]: row["scatter"] for row in rows if row["method"] == "input"}
    table["scatter_ratio"] = [row["scatter"] / before[row["radius"]] for row in rows]
    return table


def _summarize_fluxes(fluxes):
    difference = ((fluxes["flux"] - fluxes["reference"]) / fluxes["noise"]).to_value("")
    scatter, pull = mad_std(difference), mad_std(np.asarray(fluxes["pull"]))
    return {
        "n": len(fluxes),
        "bias": np.median(difference),
        # the standard error of the median of Gaussian numbers
        "bias_err": scatter * np.sqrt(np.pi / 2 / len(fluxes)),
        "scatter": scatter,
        "pull": pull,
        # that of the median absolute deviation, whose efficiency is 37 %
        "pull_err": pull / np.sqrt(2 * 0.37 * len(fluxes)),
    }


def invented_rows(pairs, results, *, threshold=5.0, n_pixels=5):
    r"""
    Sources that the reference does not show, and those that it shows in vain.

    A source is a region of at least ``n_pixels`` pixels above ``threshold`` times the noise of the
    reference, here in the image of a method. It is *invented* if the flux of the reference within the region
    is less than 2 of its own standard deviations, or less than a fifth of the flux in the image. A source of
    the reference is *missed* if the image has less than half of its flux there and no pixel above the
    threshold.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method.

    threshold : float, optional
        In units of the noise of the reference.

    n_pixels : int, optional
        The least area of a source.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method: ``sources`` in its images, how many of them are ``invented``, ``references``, the
        sources in the references, and how many of them are ``missed``.
    """
    rows = []
    for method, images in results.items():
        counts = np.sum(
            [_count_invented(*args, threshold, n_pixels) for args in zip(pairs, images, strict=True)], axis=0
        )
        rows.append(dict(zip(("sources", "invented", "references", "missed"), counts.tolist(), strict=True)))
        rows[-1] = {"method": method} | rows[-1]
    return QTable(rows)


def _count_invented(pair, image, threshold, n_pixels):
    usable = ~(pair.reference.mask | pair.image.mask)
    data, truth = (np.where(usable, plane.data, 0).astype(float) for plane in (image, pair.reference))
    noise = standard_deviation(pair.reference)
    found = _regions(data, threshold * noise, n_pixels)
    expected = _regions(truth, threshold * noise, n_pixels)
    invented = sum(
        truth[region].sum() < max(2 * np.sqrt(np.sum(noise[region] ** 2)), data[region].sum() / 5)
        for region in found
    )
    missed = sum(
        data[region].sum() < truth[region].sum() / 2 and not np.any(data[region] > threshold * noise[region])
        for region in expected
    )
    return len(found), invented, len(expected), missed


def _regions(data, threshold, n_pixels):
    """Return the connected regions above a threshold, as masks."""
    labels, number = label(data > threshold)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)
    return [labels == index for index in range(1, number + 1) if sizes[index] >= n_pixels]


def noise_rows(images, noises, area):
    """
    Sources found where there are none.

    Parameters
    ----------
    images : dict
        The enhanced image of pure noise of every method.

    noises : dict
        The noise of the exposure that was asked for, in the unit of the images.

    area : float
        The area of an image in pixels.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method: ``sources``, the regions above 5 times that noise, and their ``rate`` per million
        pixels with the limits of its 95 % interval (Gehrels 1986), ``rate_low`` and ``rate_high``.
    """
    rows = []
    for method, image in images.items():
        number = label(image.data > 5 * noises[method])[1]
        low, high = poisson_conf_interval(number, "frequentist-confidence", sigma=2)
        rates = [1e6 * value / area for value in (number, max(low, 0), high)]
        names = ("rate", "rate_low", "rate_high")
        rows.append({"method": method, "sources": number} | dict(zip(names, rates, strict=True)))
    return QTable(rows)


def source_rows(pairs, results, *, n_pixels=25, zero_point=0.0):
    """
    Fluxes, sizes and shapes of the sources of each reference, by `recovered_photometry`.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method. What samples say is compared as one exposure with another, since
        Gini, M20 and asymmetry depend on noise.

    n_pixels : int, optional
        The least number of pixels of a source, above twice the noise of the reference.

    zero_point : float, optional
        The magnitude of unit flux.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and source: ``method``, ``pair``, and the columns of `recovered_photometry` but for
        the profiles. Empty if no reference shows a source.
    """
    tables = []
    for method, images in results.items():
        for pair, image in zip(pairs, images, strict=True):
            table = _measure_sources(pair, image, n_pixels, zero_point)
            if table is None:
                continue
            table.remove_columns([name for name in table.colnames if name.startswith(("profile", "sky"))])
            table.add_columns([method, pair.name], names=["method", "pair"], indexes=[0, 0])
            tables.append(table)
    return vstack(tables, metadata_conflicts="silent") if tables else QTable()


def _measure_sources(pair, image, n_pixels, zero_point):
    """Return the sources of a pair, or None if the reference shows none."""
    options = {"n_pixels": n_pixels, "zero_point": zero_point, "mask": pair.image.mask}
    scene = getattr(image, "samples", None) is None
    try:
        return recovered_photometry(image, pair.reference, scene=scene, **options)
    except NoSourceError:
        return None


def structure_summary(sources, quantities=STRUCTURE):
    """
    How far sizes and shapes are from those in the references.

    Parameters
    ----------
    sources : `~astropy.table.QTable`
        From `source_rows`.

    quantities : sequence of str, optional
        Columns to compare.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method: ``n`` sources, and for each quantity the median of its difference from
        the reference, ``_bias``, and the robust scatter of the difference, ``_scatter``, over the sources for
        which all methods have it.
    """
    methods = list(dict.fromkeys(sources["method"]))
    rows = [{"method": method, "n": int(np.sum(sources["method"] == method))} for method in methods]
    for name in quantities:
        difference = np.array(
            [_values(sources[f"{name}_difference"][sources["method"] == method]) for method in methods]
        )
        common = difference[:, np.isfinite(difference).all(axis=0)]
        for row, values in zip(rows, common, strict=True):
            row[f"{name}_bias"] = np.median(values) if values.size else np.nan
            row[f"{name}_scatter"] = mad_std(values) if values.size else np.nan
    return QTable(rows)


def _values(column):
    return np.asarray(getattr(column, "value", column), float)


def image_rows(pairs, results):
    r"""
    The metrics of image restoration for every image.

    They are computed on :math:`\mathrm{arcsinh}(x / \sigma_\mathrm{sky})`, which gives faint structure a say.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and pair: ``rmse``, the error over all pixels in units of the noise of the image,
        and the metrics of `image_metrics`.
    """
    rows = []
    for number, pair in enumerate(pairs):
        pixels = Pixels.of(pair)
        hidden = pair.reference.mask | pair.image.mask
        reference = np.arcsinh(pair.reference.data / pixels.sky)
        for method, images in results.items():
            error = pixels.of_plane(images[number].data) - pixels.truth
            row = {"method": method, "pair": pair.name, "rmse": np.sqrt(np.mean(error**2))}
            rows.append(
                row | image_metrics(np.arcsinh(images[number].data / pixels.sky), reference, mask=hidden)
            )
    return QTable(rows)


def spectrum_rows(pairs, results, n_bins=14):
    r"""
    Power spectra beside those of the references.

    Like the metrics of `image_rows` they are those of :math:`\mathrm{arcsinh}(x / \sigma_\mathrm{sky})`.

    Parameters
    ----------
    pairs : list of `Pair`
        The images and their references.

    results : dict
        The images of every method; samples, where there are any, appear as a method of their own.

    n_bins : int, optional
        The number of bins of frequency.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per method and bin: ``frequency``, and the medians over the pairs of the ``ratio`` of powers
        and of the ``correlation`` with the reference.
    """
    tables, skies = [], [Pixels.of(pair).sky for pair in pairs]
    for method, images in results.items():
        planes = {method: [image.data for image in images]}
        if all(getattr(image, "samples", None) is not None for image in images):
            planes[f"{method} samples"] = [image.samples for image in images]
        for name, stack in planes.items():
            spectra = [
                power_ratio(
                    np.arcsinh(plane / sky),
                    np.arcsinh(pair.reference.data / sky),
                    mask=pair.reference.mask | pair.image.mask,
                    n_bins=n_bins,
                )
                for plane, pair, sky in zip(stack, pairs, skies, strict=True)
            ]
            table = QTable({"method": [name] * n_bins, "frequency": spectra[0]["frequency"]})
            for key in ("ratio", "correlation"):
                table[key] = np.median([_values(spectrum[key]) for spectrum in spectra], axis=0)
            tables.append(table)
    return vstack(tables, metadata_conflicts="silent")

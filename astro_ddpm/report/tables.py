# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tables that compare the images of several methods with their references.

``pairs`` are `Pair`, and ``results`` maps the name of a method to its images, `~astropy.nddata.CCDData` in
the order of the pairs. The errors of images with an uncertainty, or with samples, are tested as well.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from astropy.stats import mad_std, poisson_conf_interval
from astropy.table import QTable, vstack
from photutils.aperture import CircularAperture
from scipy.ndimage import label, uniform_filter

from astro_ddpm.evaluation.calibration import BINS, binned_scores, calibration_table
from astro_ddpm.evaluation.images import image_metrics, power_ratio
from astro_ddpm.evaluation.photometry import aperture_photometry
from astro_ddpm.evaluation.sources import NoSourceError, recovered_photometry
from astro_ddpm.nddata import std_in_unit
from astro_ddpm.noise import fill_holes

STRUCTURE = ("half_light_radius", "ellipticity", "concentration", "asymmetry", "gini", "m20")
LEVELS = tuple(np.arange(0.05, 1, 0.05).round(2).tolist())
_EDGES = [low for low, _ in BINS.values()] + [math.inf]
_MAX_PIXELS = 20_000  # of each pair


def sigma_of(image):
    """Return the standard deviation of every pixel in the unit of an image, None if it has none."""
    if image.uncertainty is None:
        return None
    return std_in_unit(image.uncertainty, image.unit, image.shape)


def hidden(pair):
    """Return the pixels of a pair that are masked in the image or in the reference."""
    return pair.reference.mask | pair.image.mask


def sky_noise(pair):
    """Return the noise of the sky in the unit of the image."""
    return float(np.percentile(sigma_of(pair.image)[~hidden(pair)], 2))


def have_samples(images):
    """Tell whether all images have samples."""
    return all(getattr(image, "samples", None) is not None for image in images)


def _whole(planes, pair, sky):
    """Return the arcsinh of planes over the noise of the sky, smoothly continued into masked pixels."""
    scaled = np.arcsinh(np.asarray(planes, float) / sky)
    valid = np.broadcast_to(~hidden(pair), scaled.shape)
    whole = fill_holes(scaled, np.ones_like(scaled), valid)[0]
    for _ in range(0 if valid.all() else 100):
        whole = np.where(valid, whole, uniform_filter(whole, (1,) * (whole.ndim - 2) + (3, 3)))
    return whole


class Pixels:
    """
    The usable pixels of pairs, at most 20 000 of each, in units of the noise of the image, shape (n,).

    ``truth`` and ``floor`` are the reference and its noise, and ``to_sky`` is the noise of the image in units
    of the noise of the sky.
    """

    def __init__(self, pairs, seed=0):
        self._where = [_choose(pair, seed) for pair in pairs]
        self._unit = 1.0
        self._unit = self.gather([sigma_of(pair.image) for pair in pairs])
        self.truth = self.gather([pair.reference.data for pair in pairs])
        self.floor = self.gather([sigma_of(pair.reference) for pair in pairs])
        sky = [np.full(pair.image.shape, sky_noise(pair)) for pair in pairs]
        self.to_sky = 1 / self.gather(sky)

    def gather(self, planes):
        """Return the pixels of planes, shape ``(..., ny, nx)``, in units of the noise of the image."""
        parts = [plane[(..., *where)].astype(float) for plane, where in zip(planes, self._where, strict=True)]
        return np.concatenate(parts, axis=-1) / self._unit

    def std(self, images):
        """Return the standard deviations of images, or None if one has none."""
        planes = [sigma_of(image) for image in images]
        return None if any(plane is None for plane in planes) else self.gather(planes)

    def predict(self, images):
        """Return the prediction of the reference: samples, or mean and standard deviation, or None."""
        if have_samples(images):
            return self.gather([image.samples for image in images])
        std = self.std(images)
        if std is None:
            return None
        return self.gather([image.data for image in images]), np.hypot(std, self.floor)


def _choose(pair, seed):
    """Return the rows and columns of usable pixels."""
    usable = ~hidden(pair) & np.isfinite(pair.reference.data)
    index = np.flatnonzero(usable)
    if len(index) > _MAX_PIXELS:
        index = np.sort(np.random.default_rng(seed).choice(index, _MAX_PIXELS, replace=False))
    return np.unravel_index(index, usable.shape)


def pixel_rows(pairs, results):
    r"""
    Tabulate the error of the images, one row per method and bin of the brightness of the reference.

    ``excess`` is :math:`\sqrt{\mathrm{rmse}^2 - \sigma_\mathrm{ref}^2}`. In a bin of bright pixels even the
    best estimate is too faint on average, and ``std_over_rmse`` of a calibrated posterior is not exactly 1.
    `calibration_rows` has bins of the estimate.
    """
    pixels, rows = Pixels(pairs), []
    level = pixels.truth * pixels.to_sky
    for method, images in results.items():
        error = pixels.gather([image.data for image in images]) - pixels.truth
        std = pixels.std(images)
        for name, (low, high) in BINS.items():
            pick = (level >= low) & (level < high)
            rows.append({"method": method, "bin": name, "n": int(pick.sum())})
            rows[-1] |= dict.fromkeys(("rmse", "excess", "bias", "std_over_rmse"), np.nan)
            if pick.any():
                square, base = np.mean(error[pick] ** 2), np.mean(pixels.floor[pick] ** 2)
                rows[-1] |= {"rmse": np.sqrt(square), "excess": np.sqrt(max(square - base, 0.0))}
                rows[-1] |= {"bias": np.mean(error[pick])}
                if std is not None:
                    rows[-1]["std_over_rmse"] = np.sqrt((np.mean(std[pick] ** 2) + base) / square)
    return QTable(rows)


def calibration_rows(pairs, results):
    """
    Tabulate the calibration of pixels, one row per method and bin of the **estimated** brightness.

    Methods without uncertainty and samples are left out. Samples are compared with the reference as they are.
    The noise of the reference is added to a standard deviation.
    """
    pixels, tables = Pixels(pairs), []
    n_ranks = max((len(i[0].samples) + 1 for i in results.values() if have_samples(i)), default=17)
    for method, images in results.items():
        prediction = pixels.predict(images)
        if prediction is None:
            continue
        samples, std = prediction if isinstance(prediction, tuple) else (prediction, None)
        level = pixels.gather([image.data for image in images]) * pixels.to_sky
        table = calibration_table(samples, pixels.truth, level, _EDGES, std=std, n_ranks=n_ranks)
        table.remove_columns(["low", "high"])
        table.add_columns([[method] * len(BINS), list(BINS)], names=["method", "bin"], indexes=[0, 0])
        tables.append(table)
    return vstack(tables, metadata_conflicts="silent")


def coverage_rows(pairs, results, levels=LEVELS):
    """Tabulate the fraction of reference pixels within central intervals, one row per method and level."""
    pixels, rows = Pixels(pairs), []
    for method, images in results.items():
        prediction = pixels.predict(images)
        if prediction is None:
            continue
        options = {"is_gaussian": isinstance(prediction, tuple), "levels": levels}
        everywhere = np.zeros(pixels.truth.shape), (-math.inf, math.inf)
        (scores,) = binned_scores(np.stack(prediction), pixels.truth, *everywhere, **options)
        covered = zip(levels, scores["coverage"], strict=True)
        rows += [{"method": method, "level": level, "covered": fraction} for level, fraction in covered]
    return QTable(rows)


def flux_rows(pairs, results, positions, *, radii=(5.0, 10.0), zero_point=0.0):
    """
    Tabulate fluxes in circular apertures, one row per method, source and radius.

    ``positions`` holds columns and rows of the sources of each pair, shape ``(n_sources, 2)``. ``pull`` is
    the flux minus the reference over the error of the difference (NaN without one). The error of samples
    contains the noise of the reference; to others it is added.
    """
    tables = []
    for number, pair in enumerate(pairs):
        inside = _undisturbed(pair, positions[number], max(radii))
        for radius in radii if len(inside) else ():
            apertures = CircularAperture(inside, radius)
            truth, before = (_fluxes(image, apertures) for image in (pair.reference, pair.image))
            for method, images in results.items():
                table = _compare_fluxes(_fluxes(images[number], apertures), truth, before, zero_point)
                keys = [method, pair.name, radius]
                table.add_columns(keys, names=["method", "pair", "radius"], indexes=[0] * 3)
                tables.append(table)
    return vstack(tables, metadata_conflicts="silent") if tables else QTable()


def _fluxes(image, apertures):
    return aperture_photometry(image, apertures, scene=False)


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


def _undisturbed(pair, positions, radius):
    """Return the positions whose apertures hold usable pixels only."""
    bad = CircularAperture(positions, radius).do_photometry(hidden(pair).astype(float))[0]
    top = np.array(pair.image.shape[::-1]) - 1 - radius
    inside = np.all((positions > radius) & (positions < top), axis=1)
    return positions[inside & (bad == 0)]


def flux_features(pairs, images, fluxes):
    """
    Return the fluxes of samples and references for `calibration_tests`, as dicts with a name for each radius.

    ``images`` are those of one method, with samples, and ``fluxes`` is from `flux_rows`. The arrays have the
    shapes ``(n_samples, n)`` and ``(n,)`` and are in units of the noise of the flux in the input.
    """
    samples, truth = {}, {}
    before = fluxes[fluxes["method"] == "input"]
    for radius in dict.fromkeys(fluxes["radius"]):
        draws, expected = [], []
        for pair, image in zip(pairs, images, strict=True):
            rows = before[(before["radius"] == radius) & (before["pair"] == pair.name)]
            if len(rows):
                apertures = CircularAperture(np.transpose([rows["x"], rows["y"]]), radius)
                sums = np.array([apertures.do_photometry(sample)[0] for sample in image.samples])
                draws.append(sums / rows["noise"].value)
                expected.append((rows["reference"] / rows["noise"]).value)
        name = f"flux, r = {radius:g}"
        samples[name], truth[name] = np.concatenate(draws, axis=1), np.concatenate(expected)
    return samples, truth


def flux_summary(fluxes):
    """Summarize bias, scatter and pulls of fluxes from `flux_rows`, one row per method and radius."""
    rows = []
    for method, radius in product(dict.fromkeys(fluxes["method"]), dict.fromkeys(fluxes["radius"])):
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
    """
    Count sources that the reference does not show, and sources of the reference that are missed, by method.

    A source is a region of at least ``n_pixels`` pixels above ``threshold`` times the noise of the reference.
    A source of an image is *invented* if the flux of the reference in the region is less than 2 of its
    standard deviations, or less than a fifth of the flux in the image. A source of the reference is *missed*
    if the image has less than half of its flux there and no pixel above the threshold.
    """
    counts = [
        np.sum([_count_invented(*each, threshold, n_pixels) for each in zip(pairs, images, strict=True)], 0)
        for images in results.values()
    ]
    names = ["sources", "invented", "references", "missed"]
    return QTable([list(results), *np.transpose(counts)], names=["method", *names])


def _count_invented(pair, image, threshold, n_pixels):
    usable = ~hidden(pair)
    data, truth = (np.where(usable, plane.data, 0).astype(float) for plane in (image, pair.reference))
    noise = sigma_of(pair.reference)
    found, expected = (_regions(plane, threshold * noise, n_pixels) for plane in (data, truth))
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
    Count the sources, regions above 5 sigma, in enhanced images of pure noise, one of every method.

    ``noises`` maps the method to the noise of the exposure that was asked for, in the unit of the images, and
    ``area`` is that of an image in pixels. The interval of the rate is that of Gehrels (1986).
    """
    numbers = np.array([label(image.data > 5 * noises[method])[1] for method, image in images.items()])
    low, high = poisson_conf_interval(numbers, "frequentist-confidence", sigma=2)
    table = QTable({"method": list(images), "sources": numbers, "rate": 1e6 * numbers / area})
    table["rate_low"], table["rate_high"] = 1e6 * np.maximum(low, 0) / area, 1e6 * high / area
    return table


def source_rows(pairs, results, *, n_pixels=25, zero_point=0.0):
    """
    Measure the sources of each reference by `recovered_photometry`, one row per method and source.

    Images with samples are compared as one exposure with another, since Gini, M20 and asymmetry depend on
    noise. The table is empty if no reference shows a source.
    """
    tables = []
    for method, images in results.items():
        for pair, image in zip(pairs, images, strict=True):
            options = {"n_pixels": n_pixels, "zero_point": zero_point, "mask": pair.image.mask}
            options["scene"] = not have_samples([image])
            try:
                table = recovered_photometry(image, pair.reference, **options)
            except NoSourceError:
                continue
            table.remove_columns([name for name in table.colnames if name.startswith(("profile", "sky"))])
            table.add_columns([method, pair.name], names=["method", "pair"], indexes=[0, 0])
            tables.append(table)
    return vstack(tables, metadata_conflicts="silent") if tables else QTable()


def structure_summary(sources, quantities=STRUCTURE):
    """
    Summarize the differences in size and shape from the references, from `source_rows`, one row per method.

    Median and robust scatter are over the sources for which all methods have the quantity.
    """
    methods = list(dict.fromkeys(sources["method"]))
    rows = [{"method": method, "n": int(np.sum(sources["method"] == method))} for method in methods]
    for name in quantities:
        column = numbers(sources[f"{name}_difference"])
        difference = np.array([column[sources["method"] == method] for method in methods])
        common = difference[:, np.isfinite(difference).all(axis=0)]
        for row, values in zip(rows, common, strict=True):
            row[f"{name}_bias"] = np.median(values) if values.size else np.nan
            row[f"{name}_scatter"] = mad_std(values) if values.size else np.nan
    return QTable(rows)


def numbers(column):
    """Return a column, with or without unit, as an array."""
    return np.asarray(getattr(column, "value", column), float)


def image_rows(pairs, results):
    r"""
    Compute the metrics of image restoration, one row per method and pair.

    They are computed on :math:`\mathrm{arcsinh}(x / \sigma_\mathrm{sky})`, which gives faint structure
    weight.
    """
    rows = []
    for number, pair in enumerate(pairs):
        pixels, sky = Pixels([pair]), sky_noise(pair)
        reference = np.arcsinh(pair.reference.data / sky)
        for method, images in results.items():
            error = pixels.gather([images[number].data]) - pixels.truth
            row = {"method": method, "pair": pair.name, "rmse": np.sqrt(np.mean(error**2))}
            row |= image_metrics(np.arcsinh(images[number].data / sky), reference, mask=hidden(pair))
            whole = (_whole(plane, pair, sky) for plane in (images[number].data, pair.reference.data))
            rows.append(row | {"spectral_mse": image_metrics(*whole)["spectral_mse"]})
    return QTable(rows)


def spectrum_rows(pairs, results, n_bins=14):
    r"""
    Compute power spectra beside those of the references, one row per method and bin: medians over the pairs.

    Like the metrics of `image_rows` they are those of :math:`\mathrm{arcsinh}(x / \sigma_\mathrm{sky})`.
    Masked pixels are filled from their surroundings: the edges of a hole in a bright core are the same in all
    images and would drown what differs at high frequencies.
    Samples, where there are any, appear as a method of their own.
    """
    tables, skies = [], [sky_noise(pair) for pair in pairs]
    for method, images in results.items():
        planes = {method: [image.data for image in images]}
        if have_samples(images):
            planes[f"{method} samples"] = [image.samples for image in images]
        for name, stack in planes.items():
            spectra = []
            for plane, pair, sky in zip(stack, pairs, skies, strict=True):
                whole = (_whole(values, pair, sky) for values in (plane, pair.reference.data))
                spectra.append(power_ratio(*whole, n_bins=n_bins))
            table = QTable({"method": [name] * n_bins, "frequency": spectra[0]["frequency"]})
            for key in ("ratio", "correlation"):
                table[key] = np.median([numbers(spectrum[key]) for spectrum in spectra], axis=0)
            tables.append(table)
    return vstack(tables, metadata_conflicts="silent")

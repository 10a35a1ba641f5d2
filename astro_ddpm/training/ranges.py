# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ranges that training covers, for the guard of `astro_ddpm.enhance`.
"""

import numpy as np

from astro_ddpm.utils import require

__all__ = ["measure_ranges", "measure_stamps", "merge_ranges"]

NAMES = ("psf_fwhm", "noise_correlation", "peak_snr")


def measure_stamps(data, sigma, valid=None):
    """
    Measure images as `~astro_ddpm.enhance` does, for `measure_ranges`.

    Parameters
    ----------
    data, sigma : ndarray, shape (n, ny, nx)
        The images and their noise (1 sigma).

    valid : ndarray of bool, shape (n, ny, nx), optional
        Where they were measured.

    Returns
    -------
    measures : dict of str to ndarray, shape (n,), float32
        ``psf_fwhm`` in pixels, ``psf_is_limit``, 1 where that is an upper limit, ``noise_correlation`` and
        ``peak_snr``; NaN where an image does not tell.
    """
    from astro_ddpm.domain import Measure, measure_image

    masks = [None] * len(data) if valid is None else ~np.asarray(valid, bool)
    rows = [measure_image(*planes) for planes in zip(data, sigma, masks, strict=True)]
    columns = {name: [row.get(name, Measure(np.nan)).value for row in rows] for name in NAMES}
    columns["psf_is_limit"] = [row.get("psf_fwhm", Measure(np.nan)).is_limit for row in rows]
    return {name: np.array(column, np.float32) for name, column in columns.items()}


def measure_ranges(arrays, *, percentiles=(0.5, 99.5), max_extra_noise=10.0, split_range=(2.0, 60.0)):
    r"""
    Measure the ranges of prepared pairs or frames in which a model trained on them is known to work.

    Measures (``measure_stamps``) are taken from the arrays if they hold them, and each range goes from the
    lower to the upper percentile, with these exceptions.

    * A stamp of a galaxy gives an upper limit of the FWHM of its PSF. If there are stamps with enough stars
      the upper end of ``psf_fwhm`` is the percentile of those, otherwise the median of the limits: at least
      half of the stamps have a PSF that narrow.
    * Training adds noise to images, most of it white, so the lower end of ``noise_correlation`` is at most
      what images of white noise of the same shape give. That of ``peak_snr`` is 0: there is sky in every
      image.
    * ``noise_ratio`` includes that of the noisier images and of split deep images.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_pairs` or `prepare_cameras` wrote: ``shallow`` or ``data``, and ``sigma``, of shape
        (n, ny, nx), and of pairs ``depth`` of shape (n,).

    percentiles : tuple of float, optional
        The lower and the upper percentile.

    max_extra_noise, split_range : float, tuple of float, optional
        As for `PairDataset`.

    Returns
    -------
    ranges : dict
        Lists [low, high] under ``psf_fwhm`` in pixels, ``noise_correlation``, ``peak_snr`` and
        ``noise_ratio``, as far as they could be measured, and of pairs under ``default_noise_ratio`` the
        median noise ratio: what `~astro_ddpm.zoo.Model` takes as ``ranges``.

    Raises
    ------
    ValueError
        If there is no image, or ``percentiles`` do not ascend from 0 or more to 100 or less.
    """
    images = arrays["shallow" if "shallow" in arrays else "data"]
    require(len(images), "arrays hold no pair")
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        msg = f"percentiles must ascend between 0 and 100, not {percentiles}"
        raise ValueError(msg)
    measures = arrays
    if NAMES[-1] not in arrays:
        measures = measure_stamps(images, arrays["sigma"], arrays.get("valid"))
    found = {name: np.isfinite(measures[name]) for name in NAMES}
    known = [name for name in NAMES if found[name].any()]
    ranges = {name: np.percentile(measures[name][found[name]], percentiles) for name in known}
    if "psf_fwhm" in ranges:
        columns = (measures[name][found["psf_fwhm"]] for name in ("psf_fwhm", "psf_is_limit"))
        ranges["psf_fwhm"][1] = _upper_psf(*columns, percentiles[1])
    if "noise_correlation" in ranges:
        white = np.percentile(_white_correlations(images.shape), percentiles[0])
        ranges["noise_correlation"][0] = min(ranges["noise_correlation"][0], white)
    ranges["peak_snr"][0] = 0
    ranges = {name: _round_outwards(*limits) for name, limits in ranges.items()}
    if "depth" not in arrays:
        return ranges
    low, high = np.percentile(arrays["depth"], percentiles)
    limits = min(low / max_extra_noise, 1 / split_range[1]), max(high, 1 / split_range[0])
    typical = round(float(np.median(arrays["depth"])), 3)
    return ranges | {"noise_ratio": _round_outwards(*limits), "default_noise_ratio": typical}


def merge_ranges(several):
    """Return ranges that hold those of several sources of examples; the default noise ratio is the first."""
    ranges = {}
    for each in several:
        for name, new in each.items():
            old = ranges.setdefault(name, new)
            if name != "default_noise_ratio":
                ranges[name] = [min(old[0], new[0]), max(old[1], new[1])]
    return ranges


def _round_outwards(low, high, scale=1e4):
    """Round to four digits behind the point, so that the range does not shrink."""
    return [float(np.floor(low * scale) / scale), float(np.ceil(high * scale) / scale)]


def _white_correlations(shape):
    """Correlations measured in images of white noise."""
    from astro_ddpm.noise import neighbour_correlation

    rng = np.random.default_rng(0)
    return [neighbour_correlation(rng.standard_normal(shape[1:])) for _ in range(shape[0])]


def _upper_psf(values, is_limit, percentile):
    """Upper end of the FWHM: of stars, or half of the upper limits from galaxies."""
    stars = values[is_limit == 0]
    median = float(np.median(values))
    return max(median, float(np.percentile(stars, percentile))) if len(stars) else median

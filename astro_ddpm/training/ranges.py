# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The ranges that training covers, for the guard of `astro_ddpm.enhance`.
"""

import numpy as np

__all__ = ["measure_ranges"]

NAMES = ("psf_fwhm", "noise_correlation", "peak_snr")


def measure_ranges(arrays, *, percentiles=(0.5, 99.5), max_extra_noise=10.0, split_range=(2.0, 60.0)):
    r"""
    Measure the ranges of prepared pairs in which a model trained on them is known to work.

    The shallow images are measured by `~astro_ddpm.domain.measure_image`, as `~astro_ddpm.enhance` measures
    an image, and each range goes from the lower to the upper percentile, with these exceptions.

    * A stamp of a galaxy gives an upper limit of the FWHM of its PSF. If there are stamps with enough stars
      the upper end of ``psf_fwhm`` is the percentile of those, otherwise the median of the limits: at least
      half of the stamps have a PSF that narrow.
    * Training adds noise to images, most of it white, so the lower end of ``noise_correlation`` is at most
      what images of white noise of the same shape give. The upper end stays that of the pairs, although some
      of the noise that is added is correlated more. The lower end of ``peak_snr`` is 0: there is sky in
      every image.
    * ``noise_ratio`` includes that of the noisier images and of split deep images; its upper end may stem
      from those.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_pairs` wrote: ``shallow`` and ``sigma`` of shape (n, ny, nx) and ``depth`` of shape
        (n,).

    percentiles : tuple of float, optional
        The lower and the upper percentile.

    max_extra_noise, split_range : float, tuple of float, optional
        As for `PairDataset`.

    Returns
    -------
    ranges : dict
        Lists [low, high] under ``psf_fwhm`` in pixels, ``noise_correlation``, ``peak_snr`` and
        ``noise_ratio``, as far as they could be measured, and under ``default_noise_ratio`` the median noise
        ratio: what `~astro_ddpm.zoo.Model` takes as ``ranges``.

    Raises
    ------
    ValueError
        If there is no pair, or ``percentiles`` do not ascend from 0 or more to 100 or less.

    Notes
    -----
    This step needs SciPy and astropy, so it belongs to the preparation of the pairs, not to the fit.
    """
    from astro_ddpm.domain import measure_image

    shallow, sigma, depth = (np.asarray(arrays[key]) for key in ("shallow", "sigma", "depth"))
    if not len(shallow):
        msg = "arrays hold no pair"
        raise ValueError(msg)
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        msg = f"percentiles must ascend between 0 and 100, not {percentiles}"
        raise ValueError(msg)
    rows = [measure_image(*planes) for planes in zip(shallow, sigma, strict=True)]
    measures = {name: [row[name] for row in rows if name in row] for name in NAMES}
    ranges = {
        name: np.percentile([measure.value for measure in found], percentiles)
        for name, found in measures.items()
        if found
    }
    if "psf_fwhm" in ranges:
        ranges["psf_fwhm"][1] = _upper_psf(measures["psf_fwhm"], percentiles[1])
    if "noise_correlation" in ranges:
        white = np.percentile(_white_correlations(shallow.shape), percentiles[0])
        ranges["noise_correlation"][0] = min(ranges["noise_correlation"][0], white)
    ranges["peak_snr"][0] = 0
    ranges = {name: _round_outwards(*limits) for name, limits in ranges.items()}
    return ranges | depth_range(depth, percentiles, max_extra_noise, split_range)


def depth_range(depth, percentiles=(0.5, 99.5), max_extra_noise=10.0, split_range=(2.0, 60.0)):
    """Return ``noise_ratio`` and ``default_noise_ratio`` of `measure_ranges`."""
    low, high = np.percentile(depth, percentiles)
    limits = min(low / max_extra_noise, 1 / split_range[1]), max(high, 1 / split_range[0])
    typical = round(float(np.median(depth)), 3)
    return {"noise_ratio": _round_outwards(*limits), "default_noise_ratio": typical}


def _round_outwards(low, high, scale=1e4):
    """Round to four digits behind the point, so that the range does not shrink."""
    return [float(np.floor(low * scale) / scale), float(np.ceil(high * scale) / scale)]


def _white_correlations(shape):
    """Correlations measured in images of white noise."""
    from astro_ddpm.noise import neighbour_correlation

    rng = np.random.default_rng(0)
    return [neighbour_correlation(rng.standard_normal(shape[1:])) for _ in range(shape[0])]


def _upper_psf(measures, percentile):
    """Upper end of the FWHM: of stars, or half of the upper limits from galaxies."""
    stars = [measure.value for measure in measures if not measure.is_limit]
    median = float(np.median([measure.value for measure in measures]))
    return max(median, float(np.percentile(stars, percentile))) if stars else median

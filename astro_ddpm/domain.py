# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measures of an image, compared with the ranges that a model was trained for.

The images that a model is trained on are measured in the same way. A quantity that cannot be measured is
left out and not checked.
"""

from itertools import islice
from typing import NamedTuple

import numpy as np
from astropy.utils.exceptions import AstropyUserWarning

from .noise import detect_pedestal, neighbour_correlation, whiten
from .noise._contrast import faint_pixels, lagged_contrast
from .noise.correlation import MAX_CORRELATION, MAX_LAG
from .tiling import make_tiles
from .utils import require

__all__ = ["Measure", "compare", "describe", "measure_image", "psf_fwhm"]

LABELS = {
    "noise_ratio": "noise ratio",
    "psf_fwhm": "PSF FWHM in pixels",
    "noise_correlation": "noise correlation of neighbouring pixels",
    "peak_snr": "peak S/N",
}

MAX_WIDTH = 1024  # of the central part of an image that is measured
MAX_NOISE_WIDTH = 512  # of that for the noise correlation, whose error is then 0.004
MIN_NOISE_PIXELS = 2500  # for the noise correlation, whose error is then 0.04
MIN_CONTRAST = 0.1  # of the noise, what differs between pixels that noise tells apart
MIN_SNR = 20.0
MAX_SOURCES = 50
HALF_WIDTH = 12
ZOOM = 5


class OutOfDomainWarning(AstropyUserWarning):
    """
    The image, or the noise ratio asked for, is unlike anything that the model was trained on.
    """


class Measure(NamedTuple):
    """A measured property of an image: its value, and whether the true value may be lower."""

    value: float
    is_limit: bool = False

    def lies_outside(self, limits):
        """Whether the property lies outside of a range (low, high); a limit may lie inside."""
        low, high = limits
        return self.value < low or (self.value > high and not self.is_limit)


def psf_fwhm(psf):
    r"""
    FWHM of the image of a PSF.

    .. math:: \mathrm{FWHM} = 2 \sqrt{A / \pi}

    with the area :math:`A` round the brightest pixel where a cubic spline through the pixels exceeds half
    of its maximum. The pixels have widened what is measured.

    Parameters
    ----------
    psf : array_like, shape (ny, nx)
        The PSF, or a star on a sky of zero, with the sampling of the image.

    Returns
    -------
    fwhm : float
        In pixels.

    Raises
    ------
    ValueError
        If ``psf`` is not two-dimensional and finite with a positive maximum, or its edge is brighter than
        half of that.
    """
    psf = np.asarray(psf, float)
    if psf.ndim != 2 or not psf.size or not (np.isfinite(psf).all() and psf.max() > 0):
        msg = f"psf must be a finite two-dimensional image with a positive maximum, shape {psf.shape}"
        raise ValueError(msg)
    edge = max(part.max() for part in (psf[0], psf[-1], psf[:, 0], psf[:, -1]))
    require(edge <= psf.max() / 2, f"psf of shape {psf.shape} is cut off above half of its maximum")
    return _width(psf, np.unravel_index(psf.argmax(), psf.shape))


def _width(stamp, peak):
    """FWHM of the source at a pixel from the area above half of its maximum."""
    from scipy.ndimage import label, zoom

    fine = zoom(stamp, ZOOM, order=3, mode="nearest", grid_mode=True)
    window = tuple(slice(max(ZOOM * (i - 1), 0), ZOOM * (i + 2)) for i in peak)
    top = np.unravel_index(fine[window].argmax(), fine[window].shape)
    top = tuple(i + part.start for i, part in zip(top, window, strict=True))
    labels, _ = label(fine > fine[top] / 2)
    return float(2 / ZOOM * np.sqrt(np.sum(labels == labels[top]) / np.pi))


def _centre(shape, width):
    """Slices of the central part of an image."""
    return tuple(slice(max(n - width, 0) // 2, (n + width) // 2) for n in shape)


def _find_peaks(z, valid):
    """Pixels (y, x) of the brightest sources, none near an edge or a hole."""
    from scipy.ndimage import maximum_filter

    if z.max() < MIN_SNR:
        return []
    peaks = np.argwhere((z >= MIN_SNR) & (z == maximum_filter(z, 7)))
    brightest = peaks[np.argsort(-z[tuple(peaks.T)], kind="stable")]
    around = np.pad(valid, 3)
    whole = (tuple(map(int, (y, x))) for y, x in brightest if around[y : y + 7, x : x + 7].all())
    return list(islice(whole, MAX_SOURCES))


def _source_width(data, y, x):
    part = tuple(slice(max(i - HALF_WIDTH, 0), i + HALF_WIDTH + 1) for i in (y, x))
    return _width(data[part], (y - part[0].start, x - part[1].start))


def _measure_psf(data, sigma, valid):
    """FWHM of the narrowest fifth of the bright sources, a limit unless most have that width."""
    data = np.where(valid, data - detect_pedestal(data, sigma, ~valid), 0.0)
    z = whiten(data, sigma)
    widths = np.array([_source_width(data, *peak) for peak in _find_peaks(z, valid)])
    if not widths.size:
        return None
    fwhm = float(np.quantile(widths, 0.2))
    alike = np.abs(widths / fwhm - 1) < 0.15
    return Measure(fwhm, is_limit=not (widths.size >= 10 and alike.mean() > 0.5))


def _measure_correlation(z, valid):
    centre = _centre(z.shape, MAX_NOISE_WIDTH)
    z, valid = z[centre], valid[centre]
    if valid.sum() < MIN_NOISE_PIXELS:
        return None
    try:
        rho = neighbour_correlation(z, ~valid)
    except ValueError:  # too few faint pixels, or no noise
        return None
    if rho >= MAX_CORRELATION:  # as smooth as an image of few photons where there is none?
        contrast = lagged_contrast(z, faint_pixels(z, ~valid), MAX_LAG)
        if not (contrast.size and np.median(np.abs(contrast)) > MIN_CONTRAST):
            return None
    return Measure(rho)


def _valid_part(data, sigma, mask):
    """Return data, noise and validity of the centre of an image, or of another part if that is a hole."""

    def usable(part):
        valid = np.isfinite(data[part]) & np.isfinite(sigma[part]) & (sigma[part] > 0)
        return valid if mask is None else valid & ~np.asarray(mask, bool)[part]

    part = _centre(data.shape, MAX_WIDTH)
    if usable(part).sum() < MIN_NOISE_PIXELS:
        parts = [part, *(tile.core for tile in make_tiles(data.shape, MAX_WIDTH))]
        part = max(parts, key=lambda part: usable(part).sum())
    valid = usable(part)
    require(valid.any(), "data has no valid pixel: every one is masked or not finite")
    return data[part].astype(float), sigma[part], valid


def measure_image(data, sigma, mask=None, psf=None, names=("psf_fwhm", "noise_correlation", "peak_snr")):
    r"""
    Measure what decides whether a model knows images of this kind.

    ``psf_fwhm`` is the FWHM of the PSF in pixels (`psf_fwhm`). Without ``psf`` it is taken from up to 50
    sources of a peak S/N above 20: the 20 % quantile of their FWHM, which is an upper limit, since a
    source may be a galaxy, unless there are ten or more and most agree with it within 15 %.
    ``noise_correlation`` is that of neighbouring pixels (`~astro_ddpm.noise.neighbour_correlation`), in
    units of the noise. ``peak_snr`` is the value :math:`y / \sigma` that 0.1 % of the pixels exceed: bright
    cores count, a hot pixel or one star in a wide field does not.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The sky-subtracted image :math:`y`. Of a larger one the central 1024 x 1024 pixels are measured, or
        where hardly a pixel is valid there, those of another part.

    sigma : array_like, shape (ny, nx) or float
        Its noise (1 sigma).

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out.

    psf : array_like, optional
        The image of the PSF, if it is known. Anything else is ignored.

    names : collection of str, optional
        What to measure. Other names are ignored.

    Returns
    -------
    measures : dict of str to `Measure`
        What could be measured.

    Raises
    ------
    ValueError
        If no pixel is valid.
    """
    data, sigma, valid = _valid_part(np.asarray(data), np.broadcast_to(sigma, np.shape(data)), mask)
    data, sigma = np.where(valid, data, 0.0), np.where(valid, sigma, 1.0)
    z = whiten(data, sigma)
    measures = {}
    if "psf_fwhm" in names:
        try:
            measures["psf_fwhm"] = Measure(psf_fwhm(psf))
        except (TypeError, ValueError):
            measures["psf_fwhm"] = _measure_psf(data, sigma, valid)
    if "noise_correlation" in names:
        measures["noise_correlation"] = _measure_correlation(z, valid)
    if "peak_snr" in names:
        measures["peak_snr"] = Measure(float(np.quantile(z[valid], 0.999)))
    return {name: measure for name, measure in measures.items() if measure is not None}


def compare(measures, ranges):
    """
    Return the names of the measures that lie outside of the ranges of a model.

    ``measures`` are those of `measure_image`, and ``ranges`` those of a model as [low, high]. Names that only
    one of both has are not compared.
    """
    return [name for name in measures if name in ranges and measures[name].lies_outside(ranges[name])]


def describe(names, measures, ranges):
    """
    Return a text that says what lies outside of the ranges of a model, and what follows.

    ``names`` is the result of `compare` for ``measures`` and ``ranges``.
    """
    parts = (
        "{} {:.3g} ({:.3g} to {:.3g})".format(LABELS.get(name, name), measures[name].value, *ranges[name])
        for name in names
    )
    text = (
        f"outside of the ranges that the model was trained for: {', '.join(parts)}. The model has not seen "
        "such images, and its errors are not verified there"
    )
    if "noise_correlation" in names and measures["noise_correlation"].value > ranges["noise_correlation"][1]:
        text += (
            "; noise that is correlated that far looks like structure. Rebin the image before "
            "(astropy.nddata.block_reduce), or take one that was not resampled"
        )
    return text

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Level and noise of the sky.
"""

import numpy as np

from ._contrast import LAG, MAD_TO_STD, check_valid, faint_pixels, lagged_contrast, prepare_plane
from .whitening import whiten

__all__ = ["detect_pedestal", "estimate_sky_level", "estimate_sky_sigma"]


def estimate_sky_sigma(data, mask=None, lag=LAG):
    r"""
    Measure the noise of the sky.

    The second differences :math:`(y_{i,j} - y_{i+l,j} - y_{i,j+l} + y_{i+l,j+l}) / 2` at lag :math:`l`
    are free of level and gradient and have the variance of one pixel wherever pixels :math:`l` apart
    are independent. Neighbours are not in resampled images, hence a lag of 3 pixels. Their median
    absolute deviation is taken over the faint half of the valid pixels.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image; pixels that are not finite are left out.

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out.

    lag : int, optional
        The lag in pixels.

    Returns
    -------
    sigma : float
        The noise (1 sigma) in the unit of ``data``.

    Raises
    ------
    ValueError
        If ``data`` is not two-dimensional, smaller than the lag, without enough valid pixels, or if the
        noise measured is zero.
    """
    data, mask = prepare_plane(data, mask, lag)
    contrast = lagged_contrast(np.where(np.isfinite(data), data, 0.0), faint_pixels(data, mask), lag)
    if contrast.size < 16:
        msg = "data has too few faint valid pixels to measure the noise; give uncertainty="
        raise ValueError(msg)
    sigma = MAD_TO_STD * np.median(np.abs(contrast - np.median(contrast)))
    if not sigma > 0:
        msg = "the noise measured in data is zero (a constant or noise-free image); give uncertainty="
        raise ValueError(msg)
    return float(sigma)


def estimate_sky_level(data, mask=None):
    """
    Level of the sky.

    The mode of the sigma-clipped pixels, estimated as 2.5 median - 1.5 mean
    (`photutils.background.SExtractorBackground`).

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image; pixels that are not finite are left out.

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out.

    Returns
    -------
    level : float
        The level, in the unit of ``data``.

    Raises
    ------
    ValueError
        If no pixel is valid.
    """
    from astropy.stats import SigmaClip
    from photutils.background import SExtractorBackground

    data, valid = check_valid(data, mask)
    return float(SExtractorBackground(sigma_clip=SigmaClip(sigma=3.0, maxiters=10))(data[valid]))


def detect_pedestal(data, sigma, mask=None, threshold=3.0):
    r"""
    Detect a sky level that was not subtracted.

    Around a subtracted sky some pixels lie near zero, whatever sources there are, and sources only add.
    So there is a pedestal if the 1 % quantile of :math:`y / \sigma` is above the threshold, or the
    median below minus the threshold.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image.

    sigma : array_like, shape (ny, nx) or float
        Its noise (1 sigma).

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out.

    threshold : float, optional
        In units of the noise.

    Returns
    -------
    level : float
        The level of the sky in the unit of ``data``, or 0 if there is no pedestal.

    Raises
    ------
    ValueError
        If no pixel is valid.
    """
    data, valid = check_valid(data, mask)
    low, middle = np.quantile(whiten(data[valid], np.broadcast_to(sigma, data.shape)[valid]), [0.01, 0.5])
    return estimate_sky_level(data, mask) if low > threshold or middle < -threshold else 0.0

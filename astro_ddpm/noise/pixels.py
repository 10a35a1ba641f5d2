# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The noise of every pixel: from an uncertainty, from the gain, and without the noise of the pixel itself.
"""

import numpy as np

from ._contrast import (
    LAG,
    MAD_TO_STD,
    check_valid,
    faint_pixels,
    is_common,
    lagged_contrast,
    local_mean,
    prepare_plane,
)

__all__ = [
    "detect_scatter",
    "detect_self_noise",
    "photon_noise",
    "sigma_from_gain",
    "sigma_from_uncertainty",
    "smooth_sigma",
]

MAX_STRUCTURE = 1.3  # times the noise, in second differences


def sigma_from_uncertainty(uncertainty):
    """
    Per-pixel standard deviation of a standard deviation, a variance or an inverse variance.

    Parameters
    ----------
    uncertainty : `~astropy.nddata.NDUncertainty`
        The uncertainty, shape (ny, nx). One without a standard deviation raises TypeError.

    Returns
    -------
    sigma : ndarray, shape (ny, nx)
        The standard deviation, in the unit of ``uncertainty`` or its square root. Pixels of zero
        inverse variance, which are pixels without information, are infinite.
    """
    from astropy.nddata import NDUncertainty, StdDevUncertainty

    if not isinstance(uncertainty, NDUncertainty):
        msg = f"uncertainty must be an NDUncertainty, not {type(uncertainty).__name__}"
        raise TypeError(msg)
    if isinstance(uncertainty, StdDevUncertainty):
        return np.asarray(uncertainty.array)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wide = type(uncertainty)(
                np.asarray(uncertainty.array, float)
            )  # float32 holds no squares of 1e-20
            return np.asarray(wide.represent_as(StdDevUncertainty).array)
    except TypeError:
        msg = (
            f"uncertainty of class {type(uncertainty).__name__} has no standard deviation; use "
            "StdDevUncertainty, VarianceUncertainty or InverseVariance"
        )
        raise TypeError(msg) from None


def photon_noise(image, sky_sigma, variance_per_flux, smoothing=1.0, mask=None):
    r"""
    Add the photon noise of sources to the noise of the sky.

    .. math:: \sigma^2 = \sigma_\mathrm{sky}^2 + v \, \max(\tilde y, 0)

    where :math:`\tilde y` is the image smoothed by a Gaussian. Without that the noise would be low where the
    pixel happens to be low, and bias every weighted flux.

    Parameters
    ----------
    image : array_like, shape (ny, nx)
        The sky-subtracted image.

    sky_sigma : float
        The noise of its sky.

    variance_per_flux : float
        The photon noise :math:`v`: variance per unit of flux, the inverse of the gain.

    smoothing : float, optional
        The standard deviation of the Gaussian in pixels; 0 for an image without noise.

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out of the smoothing, as those that are not finite are.

    Returns
    -------
    sigma : ndarray, shape (ny, nx)
        The noise (1 sigma).

    Raises
    ------
    ValueError
        If the image is to be smoothed and no pixel is valid.
    """
    smooth = local_mean(*check_valid(image, mask), smoothing) if smoothing else np.asarray(image)
    return np.sqrt(sky_sigma**2 + variance_per_flux * np.maximum(smooth, 0))


def sigma_from_gain(data, gain, read_noise, sky_level=0.0, smoothing=1.0, mask=None):
    r"""
    Per-pixel noise of a CCD image from its gain and read noise.

    .. math:: \sigma^2 = \frac{\max(\tilde y, 0) + s}{g} + \left(\frac{R}{g}\right)^2

    (for example Howell 2006, *Handbook of CCD Astronomy*, section 4.4), with the smoothed image :math:`\tilde
    y` of `photon_noise`.

    Parameters
    ----------
    data, smoothing, mask : array_like, float, array_like of bool
        The sky-subtracted image in adu, and the rest as for `photon_noise`.

    gain : float
        The gain :math:`g` in electron / adu.

    read_noise : float
        The read noise :math:`R` in electron.

    sky_level : float, optional
        The level :math:`s` of the sky that was subtracted, in adu.

    Returns
    -------
    sigma : ndarray, shape (ny, nx)
        The noise (1 sigma) in adu.

    Raises
    ------
    ValueError
        If ``gain`` is not positive, ``read_noise`` or ``sky_level`` is negative, or the noise is zero
        somewhere because all of them vanish.
    """
    if not gain > 0:
        msg = f"gain must be positive (electron / adu), not {gain}"
        raise ValueError(msg)
    if not (read_noise >= 0 and sky_level >= 0):
        msg = f"read_noise and sky_level must not be negative, not {read_noise} and {sky_level}"
        raise ValueError(msg)
    floor = np.sqrt(sky_level / gain + (read_noise / gain) ** 2)
    sigma = photon_noise(data, floor, 1 / gain, smoothing, mask)
    if not sigma.min() > 0:
        msg = "the noise is zero where there is no flux: give read_noise or sky_level"
        raise ValueError(msg)
    return sigma


def smooth_sigma(sigma, mask=None, smoothing=1.0):
    """
    Smooth a noise that was computed from each pixel alone.

    The variance is smoothed by a Gaussian, as the photon noise is in `sigma_from_gain`, for the same reason.

    Parameters
    ----------
    sigma : array_like, shape (ny, nx)
        The noise (1 sigma).

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out; they and those that are not finite or not positive keep their value.

    smoothing : float, optional
        The standard deviation of the Gaussian in pixels.

    Returns
    -------
    smooth : ndarray, shape (ny, nx)
        The smoothed noise.

    See Also
    --------
    detect_self_noise : Finds noise that should be smoothed.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.noise import smooth_sigma
    >>> counts = np.random.default_rng(1).poisson(100.0, (64, 64))
    >>> print(f"{np.sqrt(counts).std():.2f} {smooth_sigma(np.sqrt(counts)).std():.2f}")
    0.50 0.15
    """
    sigma, valid = check_valid(sigma, mask)
    valid &= sigma > 0
    variance = local_mean(np.where(valid, sigma, 0.0) ** 2, valid, smoothing)
    return np.where(valid, np.sqrt(variance), sigma)


def detect_scatter(sigma, mask=None):
    r"""
    Notice noise that is the scatter of a few values in each pixel, as `ccdproc.combine` leaves it.

    The variance of N values scatters by :math:`\sqrt{2 / (N - 1)}` of itself from pixel to pixel, where a
    noise that is known varies smoothly. The second differences of the variance tell it.

    Parameters
    ----------
    sigma : array_like, shape (ny, nx)
        The noise (1 sigma).

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out. Those where ``sigma`` is not finite are left out too.

    Returns
    -------
    scatter : float
        The scatter of the variance in units of its mean, 0 if it cannot be told.

    See Also
    --------
    smooth_sigma : The remedy.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.noise import detect_scatter
    >>> frames = np.random.default_rng(1).normal(0, 1, (5, 64, 64))
    >>> print(f"{detect_scatter(frames.std(axis=0)):.1f} {detect_scatter(np.ones((64, 64)))}")
    0.7 0.0
    """
    if min(np.shape(sigma), default=0) <= LAG:
        return 0.0
    sigma, mask = prepare_plane(sigma, mask, LAG)
    sigma, valid = check_valid(sigma, mask)
    variance = np.where(valid, sigma, 0.0) ** 2
    contrast = lagged_contrast(variance, valid, LAG)
    mean = np.mean(variance[valid])
    if contrast.size < 16 or not mean > 0:
        return 0.0
    return float(MAD_TO_STD * np.median(np.abs(contrast)) / mean)


def detect_self_noise(data, sigma, mask=None, threshold=0.8):
    r"""
    Detect noise that was computed from each pixel alone.

    A variance computed from the counts of each pixel follows their noise. Pixels that happen to be low are
    then trusted more than those that happen to be high, and sources become too faint, by up to
    :math:`\mathrm{d}\sigma / \mathrm{d}y` of the noise in every pixel: for the photon noise of a sky of N
    electrons that is :math:`1 / (2 \sqrt{N})`.

    The slope is measured on the second differences of image and noise (`estimate_sky_sigma`) in the faint
    half of the valid pixels, without those beyond 4 standard deviations. In crowded fields those of the image
    exceed the noise: they show structure, which a correct noise follows too, and the result is 0. A flat
    field whose pixels differ by several percent may hide the slope.

    Parameters
    ----------
    data, mask : array_like, array_like of bool
        As for `estimate_sky_sigma`. Pixels where ``sigma`` is not finite are left out too.

    sigma : array_like, shape (ny, nx) or float
        The noise (1 sigma).

    threshold : float, optional
        The least correlation coefficient of the differences of both.

    Returns
    -------
    slope : float
        The slope :math:`\mathrm{d}\sigma / \mathrm{d}y`, without unit; 0 if the noise does not follow the
        image or the slope cannot be measured.

    See Also
    --------
    smooth_sigma : The remedy.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.noise import detect_self_noise, sigma_from_gain
    >>> counts = np.random.default_rng(1).poisson(100.0, (64, 64)).astype(float)
    >>> round(detect_self_noise(counts, np.sqrt(counts)), 2)
    0.05
    >>> detect_self_noise(counts, sigma_from_gain(counts, gain=1.0, read_noise=0.0))
    0.0
    """
    if min(np.shape(data), default=0) <= LAG:
        return 0.0
    data, mask = prepare_plane(data, mask, LAG)
    sigma = np.broadcast_to(np.asarray(sigma, float), data.shape)
    unknown = ~np.isfinite(sigma)
    data, valid = check_valid(data, unknown if mask is None else unknown | mask)
    faint = faint_pixels(data, ~valid)
    typical = np.median(sigma[faint])
    if not typical > 0:
        return 0.0
    planes = (np.where(valid, plane, 0.0) / typical for plane in (data, sigma))
    image, noise = (lagged_contrast(plane, faint, LAG) for plane in planes)
    if image.size < 16:
        return 0.0
    common = is_common(image) & is_common(noise)
    image, noise = image[common], noise[common]
    power = np.mean(image**2) if image.size else 0.0
    if not 0 < power < MAX_STRUCTURE**2:
        return 0.0
    slope = np.mean(image * noise) / power
    return float(slope) if slope * np.sqrt(power) > threshold * np.sqrt(np.mean(noise**2)) else 0.0

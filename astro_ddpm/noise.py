# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
The noise of an image: per-pixel standard deviation, sky level, holes, whitening.

Everything in this package happens in units of the noise. For an image :math:`y` with noise
:math:`\sigma` the networks see :math:`z = y / \sigma` and predict :math:`r = (x - y) / \sigma`, the
whitened distance to the deep image :math:`x`.
"""

import numpy as np

__all__ = [
    "detect_pedestal",
    "detect_self_noise",
    "estimate_sky_level",
    "estimate_sky_sigma",
    "fill_holes",
    "neighbour_correlation",
    "sigma_from_gain",
    "sigma_from_uncertainty",
    "smooth_sigma",
    "unwhiten",
    "whiten",
]

MAD_TO_STD = 1.482602218505602
_LAG = 3  # pixels, at which the noise of resampled images is independent
_MAX_STRUCTURE = 1.3  # times the noise, in second differences


def whiten(data, sigma, origin=0.0):
    r"""
    Express an image in units of its noise.

    .. math:: z = (x - x_0) / \sigma

    Parameters
    ----------
    data : array_like, shape (..., ny, nx)
        The image :math:`x`.

    sigma : array_like, shape (..., ny, nx)
        Its noise (1 sigma), in the unit of ``data``, positive.

    origin : array_like, optional
        The image :math:`x_0` that becomes zero.

    Returns
    -------
    z : ndarray, shape (..., ny, nx)
        The whitened image, without unit.

    See Also
    --------
    unwhiten : The inverse.
    """
    return np.subtract(data, origin) / sigma


def unwhiten(z, sigma, origin=0.0):
    r"""
    Bring an image in units of the noise back to its own unit.

    .. math:: x = x_0 + \sigma z

    Parameters
    ----------
    z : array_like, shape (..., ny, nx)
        The whitened image.

    sigma : array_like, shape (..., ny, nx)
        The noise (1 sigma) in the unit of the result.

    origin : array_like, optional
        The image :math:`x_0` where ``z`` is zero.

    Returns
    -------
    data : ndarray, shape (..., ny, nx)
        The image in its own unit.

    See Also
    --------
    whiten : The inverse.
    """
    return np.add(origin, np.multiply(sigma, z))


def sigma_from_uncertainty(uncertainty):
    """
    Per-pixel standard deviation from any uncertainty class that knows its own meaning.

    Parameters
    ----------
    uncertainty : `~astropy.nddata.NDUncertainty`
        A standard deviation, a variance or an inverse variance of shape (ny, nx).

    Returns
    -------
    sigma : ndarray, shape (ny, nx)
        The standard deviation, in the unit of ``uncertainty`` or its square root. Pixels of zero
        inverse variance, which are pixels without information, are infinite.

    Raises
    ------
    TypeError
        If ``uncertainty`` cannot be expressed as a standard deviation.
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


def sigma_from_gain(data, gain, read_noise, sky_level=0.0, smoothing=1.0, mask=None):
    r"""
    Per-pixel noise of a CCD image from its gain and read noise.

    .. math:: \sigma^2 = \frac{\max(\tilde y, 0) + s}{g} + \left(\frac{R}{g}\right)^2

    (for example Howell 2006, *Handbook of CCD Astronomy*, section 4.4). The photon noise uses the image
    :math:`\tilde y` smoothed by a Gaussian, since a noise estimated from the very pixel that it
    describes is low where the pixel is low, and biases every weighted flux.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The sky-subtracted image, in adu.

    gain : float
        The gain :math:`g` in electron / adu.

    read_noise : float
        The read noise :math:`R` in electron.

    sky_level : float, optional
        The level :math:`s` of the sky that was subtracted, in adu.

    smoothing : float, optional
        The standard deviation of the Gaussian in pixels.

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out of the smoothing, as those that are not finite are.

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
    smooth = _smooth(*_check_valid(data, mask), smoothing)
    variance = (np.maximum(smooth, 0) + sky_level) / gain + (read_noise / gain) ** 2
    if not variance.min() > 0:
        msg = "the noise is zero where there is no flux: give read_noise or sky_level"
        raise ValueError(msg)
    return np.sqrt(variance)


def smooth_sigma(sigma, mask=None, smoothing=1.0):
    r"""
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

    Raises
    ------
    ValueError
        If no pixel is valid.

    See Also
    --------
    detect_self_noise : Tells whether it should be.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.noise import smooth_sigma
    >>> counts = np.random.default_rng(1).poisson(100.0, (64, 64))
    >>> print(f"{np.sqrt(counts).std():.2f} {smooth_sigma(np.sqrt(counts)).std():.2f}")
    0.50 0.15
    """
    sigma, valid = _check_valid(sigma, mask)
    valid &= sigma > 0
    variance = _smooth(np.where(valid, sigma, 0.0) ** 2, valid, smoothing)
    return np.where(valid, np.sqrt(variance), sigma)


def _lagged(array, lag):
    """Return the four corners of a ``lag`` x ``lag`` square at every position."""
    return array[lag:, lag:], array[:-lag, lag:], array[lag:, :-lag], array[:-lag, :-lag]


def _check_valid(data, mask=None):
    """Return float64 data and where it is neither masked nor infinite, which must be somewhere."""
    data = np.asarray(data, float)
    valid = np.isfinite(data) if mask is None else np.isfinite(data) & ~np.asarray(mask, bool)
    if not valid.any():
        msg = "data has no valid pixel: every one is masked or not finite"
        raise ValueError(msg)
    return data, valid


def _smooth(data, valid, width):
    """Return the local mean of the valid pixels under a Gaussian."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(valid.astype(float), width)
    return gaussian_filter(np.where(valid, data, 0.0), width) / np.maximum(weight, 1e-6)


def _faint_pixels(data, mask, fraction=0.5):
    """Mark the faintest valid pixels, by their local mean, leaving out sources and holes."""
    data, valid = _check_valid(data, mask)
    level = _smooth(data, valid, 2)
    return valid & (level <= np.quantile(level[valid], fraction))


def _lagged_contrast(data, faint, lag):
    """Second differences of the faint pixels at a lag, scaled to the variance of one pixel."""
    a, b, c, d = _lagged(data, lag)
    return ((a - b - c + d) / 2)[np.logical_and.reduce(_lagged(faint, lag))]


def _prepare_plane(data, mask, lag):
    """Return float64 data and a boolean mask, checked."""
    data = np.asarray(data, float)
    mask = None if mask is None else np.asarray(mask, bool)
    if data.ndim != 2:
        msg = f"data must be two-dimensional, not of shape {data.shape}"
        raise ValueError(msg)
    if mask is not None and mask.shape != data.shape:
        msg = f"mask has shape {mask.shape}, data has {data.shape}"
        raise ValueError(msg)
    if lag < 1 or min(data.shape) <= lag:
        msg = (
            f"lag must be at least 1 and less than the size of data {data.shape}, not {lag}; the noise of so "
            "small an image cannot be measured, give uncertainty="
        )
        raise ValueError(msg)
    return data, mask


def estimate_sky_sigma(data, mask=None, lag=_LAG):
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
    data, mask = _prepare_plane(data, mask, lag)
    contrast = _lagged_contrast(np.where(np.isfinite(data), data, 0.0), _faint_pixels(data, mask), lag)
    if contrast.size < 16:
        msg = "data has too few faint valid pixels to measure the noise; give uncertainty="
        raise ValueError(msg)
    sigma = MAD_TO_STD * np.median(np.abs(contrast - np.median(contrast)))
    if not sigma > 0:
        msg = "the noise measured in data is zero (a constant or noise-free image); give uncertainty="
        raise ValueError(msg)
    return float(sigma)


def neighbour_correlation(data, mask=None):
    r"""
    Correlation of the noise of neighbouring pixels, measured on the faint half of an image.

    From the variances of the second differences of `estimate_sky_sigma` at the lags 1 and 2, without those
    beyond 4 standard deviations. Where noise was smoothed by a Gaussian, its correlation is
    :math:`\rho^{l^2}` at the lag :math:`l` along rows and columns and the product of both along diagonals,
    so the variance is proportional to :math:`(1 - \rho^{l^2})^2`, and the ratio of both standard deviations
    is

    .. math:: \frac{1 - \rho^4}{1 - \rho} = 1 + \rho + \rho^2 + \rho^3 .

    Divide the image by its noise before if that is not uniform.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image; pixels that are not finite are left out.

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out.

    Returns
    -------
    rho : float
        The correlation coefficient, averaged over both axes.

    Raises
    ------
    ValueError
        As in `estimate_sky_sigma`.
    """
    data, mask = _prepare_plane(data, mask, 2)
    faint = _faint_pixels(data, mask)
    data = np.where(np.isfinite(data), data, 0.0)
    near, far = (_clipped_rms(_lagged_contrast(data, faint, lag)) for lag in (1, 2))
    roots = np.roots([1, 1, 1, 1 - far / near])
    return float(roots[np.abs(roots.imag).argmin()].real)


def _is_common(contrast):
    """Mark what lies within 4 standard deviations of zero."""
    return np.abs(contrast) <= 4 * MAD_TO_STD * np.median(np.abs(contrast))


def _clipped_rms(contrast):
    """Root mean square of what lies within 4 standard deviations of zero."""
    if contrast.size < 16:
        msg = "data has too few faint valid pixels to measure the correlation of their noise"
        raise ValueError(msg)
    rms = np.sqrt(np.mean(contrast[_is_common(contrast)] ** 2))
    if not rms > 0:
        msg = "the noise measured in data is zero (a constant or noise-free image)"
        raise ValueError(msg)
    return rms


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

    data, valid = _check_valid(data, mask)
    return float(SExtractorBackground(sigma_clip=SigmaClip(sigma=3.0, maxiters=10))(data[valid]))


def detect_pedestal(data, sigma, mask=None, threshold=3.0):
    r"""
    Notice a sky level that was not subtracted.

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
    data, valid = _check_valid(data, mask)
    low, middle = np.quantile(whiten(data[valid], np.broadcast_to(sigma, data.shape)[valid]), [0.01, 0.5])
    return estimate_sky_level(data, mask) if low > threshold or middle < -threshold else 0.0


def detect_self_noise(data, sigma, mask=None, threshold=0.8):
    r"""
    Notice noise that was estimated from the very pixels that it describes.

    A variance computed from the counts of each pixel follows their noise. Pixels that happen to be low are
    then trusted more than those that happen to be high, and sources become too faint, by up to
    :math:`\mathrm{d}\sigma / \mathrm{d}y` of the noise in every pixel: for the photon noise of a sky of N
    electrons that is :math:`1 / (2 \sqrt{N})`.

    The slope is measured on the second differences of image and noise (`estimate_sky_sigma`) in the faint
    half of the valid pixels, without those beyond 4 standard deviations. Where those of the image exceed the
    noise, as in crowded fields, they show structure, which a right noise follows too, and nothing can be
    told. A flat field whose pixels differ by several percent may hide the slope.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image.

    sigma : array_like, shape (ny, nx) or float
        Its noise (1 sigma).

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out. Those where ``sigma`` is not finite are left out too.

    threshold : float, optional
        The least correlation coefficient of the differences of both.

    Returns
    -------
    slope : float
        The slope :math:`\mathrm{d}\sigma / \mathrm{d}y`, without unit, or 0 if the noise does not follow the
        image, or that cannot be told.

    Raises
    ------
    ValueError
        If ``data`` is not two-dimensional, shapes differ, or no pixel is valid.

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
    if min(np.shape(data), default=0) <= _LAG:
        return 0.0
    data, mask = _prepare_plane(data, mask, _LAG)
    sigma = np.broadcast_to(np.asarray(sigma, float), data.shape)
    unknown = ~np.isfinite(sigma)
    data, valid = _check_valid(data, unknown if mask is None else unknown | mask)
    faint = _faint_pixels(data, ~valid)
    typical = np.median(sigma[faint])
    if not typical > 0:
        return 0.0
    planes = (np.where(valid, plane, 0.0) / typical for plane in (data, sigma))
    image, noise = (_lagged_contrast(plane, faint, _LAG) for plane in planes)
    if image.size < 16:
        return 0.0
    common = _is_common(image) & _is_common(noise)
    image, noise = image[common], noise[common]
    power = np.mean(image**2) if image.size else 0.0
    if not 0 < power < _MAX_STRUCTURE**2:
        return 0.0
    slope = np.mean(image * noise) / power
    return float(slope) if slope * np.sqrt(power) > threshold * np.sqrt(np.mean(noise**2)) else 0.0


def _box_sum(array, half):
    """
    Sum over the (2 half + 1)-pixel box centred on each pixel, cut at the edges; half is a power of two.

    Sums of 1, 2, 4, ... pixels are added up. A difference of cumulative sums would lose faint pixels beside
    a bright one.
    """
    for axis in (-2, -1):
        array = np.moveaxis(array, axis, 0)
        n = len(array)
        padded = np.pad(array, [(half, half)] + [(0, 0)] * (array.ndim - 1))
        sums, width = padded, 1
        while width < 2 * half:
            sums = sums[:-width] + sums[width:]
            width *= 2
        array = np.moveaxis(sums[:n] + padded[2 * half : 2 * half + n], 0, axis)
    return array


def fill_holes(data, sigma, valid, minimum=4):
    r"""
    Treat each hole as a poor measurement made by its surroundings.

    A pixel that was not measured gets the mean :math:`m` of the measured pixels in the smallest box
    around it (3, 5, 9, 17, ... pixels wide) that holds at least ``minimum`` of them. Its noise is theirs,
    and, if the box is wider than 3 pixels, so that the mean may lie far away or to one side, their scatter
    about that mean in quadrature,

    .. math:: \sigma^2 = \langle \sigma_y^2 \rangle + \langle (y - m)^2 \rangle .

    What the networks predict in a hole, the distance to that mean in units of that noise, is then of
    order one wherever the hole lies, on the sky or on a galaxy.

    Parameters
    ----------
    data, sigma : ndarray, shape (..., ny, nx)
        Images and their noise (1 sigma).

    valid : ndarray of bool, shape (..., ny, nx)
        True for pixels that were measured. What the others hold is not used.

    minimum : int, optional
        The number of measured pixels that a box must hold.

    Returns
    -------
    data, sigma : ndarray, shape (..., ny, nx)
        Copies without holes, of the dtypes of the inputs.

    Raises
    ------
    ValueError
        If an image holds less than ``minimum`` measured pixels.
    """
    if valid.all():
        return data.copy(), sigma.copy()
    if valid.sum(axis=(-2, -1)).min() < minimum:
        msg = f"an image must hold at least {minimum} valid pixels to fill the others from"
        raise ValueError(msg)
    y, noise = data.astype(float), sigma.astype(float)
    planes = np.where(valid, np.stack([np.ones_like(y), y, y**2, noise**2]), 0.0)
    filled, spread = data.copy(), sigma.copy()
    todo = ~valid
    half = 1
    while todo.any():
        number, total, square, variance = _box_sum(planes, half)
        now = todo & (number > minimum - 0.5)
        mean = total[now] / number[now]
        filled[now] = mean
        scatter = square[now] / number[now] - mean**2 if half > 1 else 0.0
        spread[now] = np.sqrt(variance[now] / number[now] + np.maximum(scatter, 0.0))
        todo &= ~now
        half *= 2
    return filled, spread

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Correlated noise: measured and made.
"""

import numpy as np
import scipy.fft

from ._contrast import LAG, faint_pixels, is_common, lagged_contrast, prepare_plane

__all__ = [
    "convolve_periodic",
    "correlated_noise",
    "correlation_kernel",
    "embed_kernel",
    "gaussian_kernel",
    "neighbour_correlation",
    "noise_kernel",
]

_REACH = 3  # pixels, of the correlation of the noise

MAX_LAG = 8  # pixels
MAX_CORRELATION = 0.99  # beyond it discrete or smooth data are measured, not noise


def neighbour_correlation(data, mask=None):
    r"""
    Correlation of the noise of neighbouring pixels, measured on the faint half of an image.

    From the variances of the second differences of `estimate_sky_sigma` at the lags 1 and 2, without those
    beyond 4 standard deviations. Where noise was smoothed by a Gaussian, its correlation is
    :math:`\rho^{l^2}` at the lag :math:`l` along rows and columns and the product of both along diagonals, so
    the variance is proportional to :math:`(1 - \rho^{l^2})^2`, and the ratio of both standard deviations is

    .. math:: \frac{1 - \rho^4}{1 - \rho} = 1 + \rho + \rho^2 + \rho^3 .

    Divide the image by its noise before if that is not uniform.

    Parameters
    ----------
    data, mask : array_like, array_like of bool
        As for `estimate_sky_sigma`, with the same errors.

    Returns
    -------
    rho : float
        The correlation coefficient, averaged over both axes, between -0.99 and 0.99.
    """
    data, mask = prepare_plane(data, mask, 2)
    faint = faint_pixels(data, mask)
    data = np.where(np.isfinite(data), data, 0.0)
    near, far = (_clipped_rms(lagged_contrast(data, faint, lag)) for lag in (1, 2))
    roots = np.roots([1, 1, 1, 1 - far / near])
    return float(np.clip(roots[np.abs(roots.imag).argmin()].real, -MAX_CORRELATION, MAX_CORRELATION))


def independent_lag(data, mask=None):
    r"""
    Return how many pixels apart the noise is independent, 3 to 8.

    Where noise was smoothed by a Gaussian its correlation at the lag :math:`l` is :math:`\rho^{l^2}`
    (`neighbour_correlation`); the lag at which that is 0.05 is taken.
    """
    try:
        rho = neighbour_correlation(data, mask)
    except ValueError:
        return LAG
    lag = np.sqrt(np.log(0.05) / np.log(rho)) if rho > 0 else LAG
    return int(np.clip(np.ceil(lag), LAG, max(LAG, min(MAX_LAG, min(np.shape(data)) // 8))))


def _clipped_rms(contrast):
    """Root mean square of what lies within 4 standard deviations of zero."""
    if contrast.size < 16:
        msg = "data has too few faint valid pixels to measure the correlation of their noise"
        raise ValueError(msg)
    rms = np.sqrt(np.mean(contrast[is_common(contrast)] ** 2))
    if not rms > 0:
        msg = "the noise measured in data is zero (a constant or noise-free image)"
        raise ValueError(msg)
    return rms


def gaussian_kernel(width, ratio=1.0, angle=0.0):
    r"""
    Elliptical Gaussian, :math:`\exp[-u^2 / 2 w^2 - v^2 / 2 (q w)^2]`, of unit sum, out to 4 widths.

    Parameters
    ----------
    width : float
        The standard deviation :math:`w` along the major axis in pixels, positive.

    ratio, angle : float, optional
        The axis ratio :math:`q`, up to 1, and the angle of the major axis from the x axis in radians.
    """
    half = int(np.ceil(4 * width))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * (u**2 + (v / ratio) ** 2) / width**2)
    return kernel / kernel.sum()


def embed_kernel(kernel, shape):
    """Put a kernel with odd sides on a larger periodic plane, shape (ny, nx), its centre at the origin."""
    plane = np.zeros(shape)
    plane[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.roll(plane, [-(n // 2) for n in kernel.shape], axis=(0, 1))


def convolve_periodic(image, kernel):
    """Convolve an image whose opposite edges meet with a smaller kernel with odd sides."""
    spectrum = scipy.fft.rfft2(image) * scipy.fft.rfft2(embed_kernel(kernel, image.shape))
    return scipy.fft.irfft2(spectrum, image.shape)


def correlated_noise(shape, kernel, rng, dtype=np.float32):
    r"""
    Gaussian noise of unit variance, shape (ny, nx), correlated like that of a resampled image.

    White noise is convolved with a kernel :math:`g` and divided by :math:`\sqrt{\sum g^2}`, which restores
    the variance.

    Parameters
    ----------
    shape : tuple of int
        The shape (ny, nx).

    kernel : float or ndarray, shape (n, n)
        The kernel, or the standard deviation of a Gaussian one in pixels; 0 for white noise.

    rng : `numpy.random.Generator`
        The source of randomness.

    dtype : dtype, optional
        Float32 or float64.
    """
    kernel = gaussian_kernel(kernel) if np.ndim(kernel) == 0 and kernel > 0 else np.atleast_2d(kernel)
    if kernel.size == 1:
        return rng.standard_normal(shape, dtype=dtype)
    kernel = kernel / np.sqrt(np.sum(kernel**2))
    padded = [scipy.fft.next_fast_len(n + m - 1, real=True) for n, m in zip(shape, kernel.shape, strict=True)]
    white = rng.standard_normal(padded, dtype=dtype)
    return convolve_periodic(white, kernel)[: shape[0], : shape[1]].astype(dtype)


def correlation_kernel(rho):
    r"""
    Kernel that makes white noise as correlated as `neighbour_correlation` measures it.

    The autocorrelation of the noise is :math:`\rho^{x^2 + y^2}`. The kernel is the Fourier transform of the
    root of its power spectrum.

    Parameters
    ----------
    rho : float
        The correlation :math:`\rho` of neighbouring pixels, at least 0 and less than 1.

    Returns
    -------
    kernel : ndarray, shape (n, n)
        The kernel for `correlated_noise`.
    """
    half = int(np.sqrt(14 / -np.log(rho))) if rho else 0  # beyond it the correlation is 1e-6
    lag = np.arange(-half, half + 1)
    power = np.fft.fft(np.fft.ifftshift(float(rho) ** (lag**2))).real
    row = np.fft.fftshift(np.fft.ifft(np.sqrt(np.maximum(power, 0.0))).real)
    return np.outer(row, row)


def noise_kernel(data, valid=None, threshold=0.03):
    r"""
    Kernel that correlates white noise as the noise of an image is correlated.

    The correlation at each lag l up to 3 pixels follows from the differences of pixels without sources,
    :math:`\rho(l) = 1 - D(l) / D_\infty` with their mean square D, without what is beyond 4 standard
    deviations, and that at lags of 6 pixels. The transform of the kernel is the root of that of the
    correlation.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image, in units of its noise.

    valid : array_like of bool, shape (ny, nx), optional
        Where it was measured.

    threshold : float, optional
        If no correlation exceeds it the noise is white.

    Returns
    -------
    kernel : ndarray, shape (9, 9)
        The kernel, its squares summing to 1; a single 1 for white noise.
    """
    from scipy.ndimage import gaussian_filter

    data = np.asarray(data, float)
    valid = np.ones(data.shape, bool) if valid is None else np.asarray(valid, bool)
    level = gaussian_filter(np.where(valid, data, 0), 2)
    middle = np.median(level[valid])
    spread = 1.4826 * np.median(middle - level[valid & (level < middle)])
    faint = valid & (level < middle + 3 * spread)  # a lower limit would choose among the noise

    def mean_square(dy, dx):
        ny, nx = data.shape
        one = (slice(max(dy, 0), ny + min(dy, 0)), slice(max(dx, 0), nx + min(dx, 0)))
        two = (slice(max(-dy, 0), ny + min(-dy, 0)), slice(max(-dx, 0), nx + min(-dx, 0)))
        steps = (data[one] - data[two])[faint[one] & faint[two]]
        limit = 4 * 1.4826 * np.median(np.abs(steps))
        return np.mean(steps[np.abs(steps) <= limit] ** 2)

    far = np.mean([mean_square(*lag) for lag in ((0, 6), (6, 0), (0, 7), (7, 0), (5, 5), (5, -5))])
    lags = range(-_REACH, _REACH + 1)
    rho = np.array([[1 - mean_square(dy, dx) / far if dy or dx else 1.0 for dx in lags] for dy in lags])
    kernel = np.zeros((9, 9))
    if np.abs(rho[rho < 1]).max() < threshold:
        kernel[4, 4] = 1
        return kernel
    plane = np.zeros((32, 32))
    plane[: 2 * _REACH + 1, : 2 * _REACH + 1] = np.where(np.abs(rho) < threshold / 2, 0, rho)
    power = np.fft.rfft2(np.roll(plane, (-_REACH, -_REACH), (0, 1))).real
    kernel = np.roll(np.fft.irfft2(np.sqrt(np.maximum(power, 0)), plane.shape), (4, 4), (0, 1))[:9, :9]
    return kernel / np.sqrt(np.sum(kernel**2))

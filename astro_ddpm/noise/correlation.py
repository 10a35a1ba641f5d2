# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Correlated noise: measured and made.
"""

import numpy as np
import scipy.fft

from ._contrast import faint_pixels, is_common, lagged_contrast, prepare_plane

__all__ = [
    "convolve_periodic",
    "correlated_noise",
    "correlation_kernel",
    "embed_kernel",
    "gaussian_kernel",
    "neighbour_correlation",
]


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
    data, mask = prepare_plane(data, mask, 2)
    faint = faint_pixels(data, mask)
    data = np.where(np.isfinite(data), data, 0.0)
    near, far = (_clipped_rms(lagged_contrast(data, faint, lag)) for lag in (1, 2))
    roots = np.roots([1, 1, 1, 1 - far / near])
    return float(roots[np.abs(roots.imag).argmin()].real)


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
    Elliptical Gaussian, :math:`\exp[-u^2 / 2 w^2 - v^2 / 2 (q w)^2]`, of unit sum.

    Parameters
    ----------
    width : float
        The standard deviation :math:`w` along the major axis in pixels, positive.

    ratio : float, optional
        The axis ratio :math:`q`, up to 1.

    angle : float, optional
        The angle of the major axis from the x axis in radians.

    Returns
    -------
    kernel : ndarray, shape (n, n)
        The kernel out to 4 widths.
    """
    half = int(np.ceil(4 * width))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kernel = np.exp(-0.5 * (u**2 + (v / ratio) ** 2) / width**2)
    return kernel / kernel.sum()


def embed_kernel(kernel, shape):
    """
    Put a kernel on a periodic plane, its centre at the origin.

    Parameters
    ----------
    kernel : ndarray, shape (n, m)
        The kernel, with odd sides.

    shape : tuple of int
        The shape (ny, nx) of the plane, not less than that of the kernel.

    Returns
    -------
    plane : ndarray, shape (ny, nx)
        Zero beside the kernel.
    """
    plane = np.zeros(shape)
    plane[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.roll(plane, [-(n // 2) for n in kernel.shape], axis=(0, 1))


def convolve_periodic(image, kernel):
    """
    Convolve an image whose opposite edges meet.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The image.

    kernel : ndarray, shape (n, m)
        The kernel, with odd sides and not larger than the image.

    Returns
    -------
    result : ndarray, shape (ny, nx)
        The convolution.
    """
    spectrum = scipy.fft.rfft2(image) * scipy.fft.rfft2(embed_kernel(kernel, image.shape))
    return scipy.fft.irfft2(spectrum, image.shape)


def correlated_noise(shape, kernel, rng):
    r"""
    Gaussian noise of unit variance, correlated like that of a resampled image.

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

    Returns
    -------
    noise : ndarray, shape (ny, nx), float32
        The noise.
    """
    if np.ndim(kernel) == 0:
        if kernel == 0:
            return rng.standard_normal(shape, dtype=np.float32)
        kernel = gaussian_kernel(kernel)
    kernel = kernel / np.sqrt(np.sum(kernel**2))
    padded = [scipy.fft.next_fast_len(n + m - 1, real=True) for n, m in zip(shape, kernel.shape, strict=True)]
    white = rng.standard_normal(padded, dtype=np.float32)
    return convolve_periodic(white, kernel)[: shape[0], : shape[1]].astype(np.float32)


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
    half = 1 if rho == 0 else int(np.ceil(np.sqrt(14 / -np.log(rho))))  # beyond it the correlation is 1e-6
    lag = np.arange(-half, half + 1)
    power = np.fft.fft(np.fft.ifftshift(float(rho) ** (lag**2))).real
    row = np.fft.fftshift(np.fft.ifft(np.sqrt(np.maximum(power, 0.0))).real)
    return np.outer(row, row)

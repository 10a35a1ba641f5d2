# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Two exposures of one scene brought to one PSF and one sky level.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from .pixels import photon_noise
from .sky import estimate_sky_sigma

__all__ = ["BORDER", "MatchedPair", "PSFMatch", "homogenize_psf", "match_pair"]

MAX_RESIDUAL_RMS = 1.2  # of the residual in units of the noise, for exposures that differ by nothing else
MAX_BRIGHTNESS = 100.0  # in units of the noise of the sky, of what the basis fits
BORDER = 4  # pixels at the edge, where the derivatives see mirrored pixels
MARGIN = 12  # pixels that the widest kernel of the basis reaches
BLURS = (1.5, 3.0)


class PSFMatch(NamedTuple):
    """
    A deep image at the PSF and sky level of a shallow one.

    Attributes
    ----------
    image : ndarray, shape (ny, nx)
        The deep image convolved with ``kernel``, plus ``sky_offset``.

    kernel : ndarray, shape (25, 25)
        The kernel, in the orientation of a correlation.

    sky_offset : float
        The difference in sky level.

    noise_gain : float
        The factor by which the kernel changes white noise, the root of its summed squares.

    noise_share : ndarray, shape (ny, nx)
        The noise of the shallow image that the fit carried into ``image``, in units of that noise.
    """

    image: np.ndarray
    kernel: np.ndarray
    sky_offset: float
    noise_gain: float
    noise_share: np.ndarray


class MatchedPair(NamedTuple):
    """
    A shallow image and a deep one at its PSF.

    Attributes
    ----------
    sigma : ndarray, shape (ny, nx)
        The noise (1 sigma) of the shallow image.

    target : ndarray, shape (ny, nx)
        The deep image at the PSF and sky level of the shallow one.

    deep_sigma : ndarray, shape (ny, nx)
        The noise of the deep image as it was.

    kernel : ndarray, shape (25, 25)
        The kernel that brought it there.

    noise_gain : float
        The factor by which the kernel changed that noise, if it is white.

    noise_ratio : float
        The noise of the sky of ``target``, in units of that of the shallow image.

    valid : ndarray of bool, shape (ny, nx)
        Where both images were measured, without the border.

    use : ndarray of bool, shape (ny, nx)
        Those of the valid pixels that the kernel fits.
    """

    sigma: np.ndarray
    target: np.ndarray
    deep_sigma: np.ndarray
    kernel: np.ndarray
    noise_gain: float
    noise_ratio: float
    valid: np.ndarray
    use: np.ndarray


@cache
def _basis():
    """Kernels of the basis, shape (n, 25, 25), in the orientation of a correlation, each of unit norm."""
    from scipy.ndimage import correlate, gaussian_filter

    point = np.zeros((2 * MARGIN + 1, 2 * MARGIN + 1))
    point[MARGIN, MARGIN] = 1
    slope, curve = np.array([[-0.5, 0, 0.5]]), np.array([[1.0, -2, 1]])
    dx, dxx = (correlate(point, stencil) for stencil in (slope, curve))
    second = [dxx, dxx.T, correlate(dx, slope.T)]
    first = [dx, dx.T]

    def laplacian(kernel):
        return correlate(kernel, curve) + correlate(kernel, curve.T)

    third, fourth = ([laplacian(kernel) for kernel in kernels] for kernels in (first, second))
    sixth = laplacian(laplacian(laplacian(point)))
    blurs = [gaussian_filter(point, width) for width in BLURS]
    kernels = np.stack([point, *first, *second, *third, *fourth, sixth, *blurs])
    return kernels / np.sqrt(np.sum(kernels**2, axis=(1, 2), keepdims=True))


def _convolve_basis(image):
    """Return the image convolved with each kernel of the basis, shape (n, ny, nx), mirrored at the edges."""
    from scipy.signal import oaconvolve

    padded = np.pad(image, MARGIN, mode="reflect")
    return np.stack([oaconvolve(padded, kernel[::-1, ::-1], mode="valid") for kernel in _basis()])


def homogenize_psf(shallow, deep, sigma):
    r"""
    Bring the deep image of a pair to the PSF and the sky level of the shallow one.

    Finds the kernel K and the offset c that minimise

    .. math:: \sum_{ij} \left(\frac{y_{ij} - (K * d)_{ij} - c}{\sigma_{ij}}\right)^2

    by linear least squares. K is a sum of few functions (Alard & Lupton 1998): a point and its derivatives,
    which are 1, 2, 3, 2, 3 and 1 functions of the orders 0 to 4 and 6, and Gaussians of 1.5 and 3 pixels. A
    kernel with a free value per pixel (Bramich 2008) fits bright sources better, but follows the noise of
    the shallow image, and a network trained on such targets learns to keep noise. Without any kernel it
    learns the difference between two PSFs.

    How much of the noise of the shallow image is in the result follows from the hat matrix H of the fit in
    units of the noise: of :math:`H = H^2` the root of the diagonal.

    Parameters
    ----------
    shallow, deep : array_like, shape (ny, nx)
        The images :math:`y` and :math:`d`, on the same pixels and flux scale, at least 13 pixels wide.

    sigma : array_like, shape (ny, nx)
        The noise (1 sigma) of ``shallow``. Pixels with infinite noise do not take part.

    Returns
    -------
    match : `~astro_ddpm.noise.PSFMatch`
        The homogenised deep image, the kernel, the offset, the noise gain and the share of the noise.

    Raises
    ------
    ValueError
        If shapes differ, ``sigma`` is not positive, ``deep`` is not finite, or the image is too small to
        determine the kernel.
    """
    shallow, deep, sigma = (np.asarray(a, float) for a in (shallow, deep, sigma))
    _check_pair(shallow, deep, sigma)
    use = np.isfinite(sigma) & np.isfinite(shallow) & _inside(deep.shape)
    planes = np.stack([*_convolve_basis(deep), np.ones(deep.shape)]) if min(deep.shape) > MARGIN else None
    if planes is None or use.sum() <= 2 * len(planes):
        msg = f"shallow of shape {shallow.shape} has too few valid pixels to fit the kernel"
        raise ValueError(msg)
    scale = np.sqrt(np.mean((planes[:, use] / sigma[use]) ** 2, axis=1))
    planes /= np.where(scale > 0, scale, 1)[:, None, None]
    left, values, right = np.linalg.svd((planes[:, use] / sigma[use]).T, full_matrices=False)
    kept = values > 1e-7 * values[0]
    inverse = right[kept].T / values[kept]
    solution = inverse @ (left[:, kept].T @ (shallow[use] / sigma[use]))
    image = np.tensordot(solution, planes, 1)
    coverage = np.tensordot(inverse.T, planes, 1) / np.where(np.isfinite(sigma), sigma, 1)
    solution = solution / np.where(scale > 0, scale, 1)
    kernel = np.tensordot(solution[:-1], _basis(), 1)
    share = np.sqrt(np.sum(coverage**2, axis=0))
    return PSFMatch(image, kernel, float(solution[-1]), float(np.sqrt(np.sum(kernel**2))), share)


def _check_pair(shallow, deep, sigma):
    if shallow.ndim != 2 or not shallow.shape == deep.shape == sigma.shape:
        msg = (
            "shallow, deep and sigma must be two-dimensional and of one shape, not "
            f"{shallow.shape}, {deep.shape} and {sigma.shape}"
        )
        raise ValueError(msg)
    if not np.all(sigma > 0):
        msg = "sigma must be positive everywhere"
        raise ValueError(msg)
    if not np.all(np.isfinite(deep)):
        msg = "deep must be finite everywhere"
        raise ValueError(msg)


def _inside(shape, width=BORDER):
    """Mark what is not within ``width`` pixels of the edge."""
    marks = np.zeros(shape, bool)
    marks[width : shape[0] - width, width : shape[1] - width] = True
    return marks


def match_pair(
    shallow,
    deep,
    *,
    sigma=None,
    deep_sigma=None,
    valid=None,
    deep_valid=None,
    variance_per_flux=0.0,
    max_residual=MAX_RESIDUAL_RMS,
):
    r"""
    Bring the deep image of a pair to the PSF of the shallow one, and find out where it can judge or teach.

    Parameters
    ----------
    shallow, deep : array_like, shape (ny, nx)
        The sky-subtracted images.

    sigma, deep_sigma : array_like, shape (ny, nx), optional
        Their noise (1 sigma). By default that of the sky is measured, and ``variance_per_flux`` gives that
        of the sources.

    valid, deep_valid : array_like of bool, shape (ny, nx), optional
        Where they were measured. Pixels that are not finite were not.

    variance_per_flux : float, optional
        The photon noise of the shallow image: variance per unit of flux, the inverse of the gain. As both
        see the same scene, that of the deep one is less by the square of the ratio of their sky noises.

    max_residual : float, optional
        The largest rms of their difference, where valid, in units of the noise of the shallow image.

    Returns
    -------
    pair : `MatchedPair` or None
        None if the images differ by more than noise, that is by more than ``max_residual``: sources may be
        variable or saturated, or there is the trail of a satellite.

    Raises
    ------
    ValueError
        If shapes differ, or too few pixels are valid.

    Notes
    -----
    Pixels brighter than 100 times the noise of the sky, which the kernel does not fit, are not in ``use``,
    nor those within two pixels of where the difference, smoothed by a Gaussian of one pixel, is beyond 5 of
    its own standard deviations.
    """
    from scipy.ndimage import binary_dilation, gaussian_filter

    shallow, deep = np.asarray(shallow, float), np.asarray(deep, float)
    if shallow.shape != deep.shape:
        msg = f"shallow and deep must be of one shape, not {shallow.shape} and {deep.shape}"
        raise ValueError(msg)
    measured = [
        np.isfinite(image) & (True if given is None else np.asarray(given, bool))
        for image, given in ((shallow, valid), (deep, deep_valid))
    ]
    shallow, deep = (
        np.where(marks, image, 0.0) for image, marks in zip((shallow, deep), measured, strict=True)
    )
    sky, deep_sky = (
        estimate_sky_sigma(image, ~marks) for image, marks in zip((shallow, deep), measured, strict=True)
    )
    if sigma is None:
        sigma = photon_noise(shallow, sky, variance_per_flux)
    if deep_sigma is None:
        deep_sigma = photon_noise(deep, deep_sky, variance_per_flux * (deep_sky / sky) ** 2)
    sigma, deep_sigma = (
        np.where(marks, noise, np.median(noise[marks]))
        for noise, marks in zip((np.asarray(sigma), np.asarray(deep_sigma)), measured, strict=True)
    )
    reach = np.ones((2 * BORDER + 1, 2 * BORDER + 1))
    both = measured[0] & ~binary_dilation(~measured[1], reach) & _inside(shallow.shape)
    match = homogenize_psf(shallow, deep, np.where(both, sigma, np.inf))
    residual = np.where(both, (shallow - match.image) / sigma, 0.0)
    if np.sqrt(np.mean(residual[both] ** 2)) > max_residual:
        return None
    smooth = np.abs(gaussian_filter(residual, 1))
    limit = 5 * 1.4826 * np.median(smooth[both])
    unfit = binary_dilation(smooth > limit, iterations=2)
    use = both & ~unfit & (match.image < MAX_BRIGHTNESS * sky)
    return MatchedPair(
        sigma,
        match.image,
        deep_sigma,
        match.kernel,
        match.noise_gain,
        match.noise_gain * deep_sky / sky,
        both,
        use,
    )

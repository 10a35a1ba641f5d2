# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Degradations of images, as small functions of arrays and a random generator.
"""

import numpy as np

__all__ = [
    "add_exposure_noise",
    "block_sum",
    "broaden_psf",
    "correlated_noise",
    "dihedral",
    "dim",
    "expose",
    "gaussian_kernel",
    "moffat_kernel",
    "noise_gain",
    "random_crop",
    "random_holes",
    "random_noise_kernel",
    "split_exposure",
]


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


def moffat_kernel(fwhm, beta=3.0):
    r"""
    PSF of the atmosphere, :math:`(1 + r^2 / \alpha^2)^{-\beta}` (Moffat 1969), of unit sum.

    Parameters
    ----------
    fwhm : float
        The full width at half maximum, :math:`2 \alpha \sqrt{2^{1 / \beta} - 1}`, in pixels, positive.

    beta : float, optional
        The slope of the wings.

    Returns
    -------
    kernel : ndarray, shape (n, n)
        The kernel out to 3 times its full width at half maximum.
    """
    half = int(np.ceil(3 * fwhm))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = (1 + 4 * (2 ** (1 / beta) - 1) * (x**2 + y**2) / fwhm**2) ** -beta
    return kernel / kernel.sum()


def _embed(kernel, shape):
    """Kernel on a periodic plane, its centre at the origin."""
    plane = np.zeros(shape)
    plane[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.roll(plane, [-(n // 2) for n in kernel.shape], axis=(0, 1))


def _convolve_periodic(image, kernel):
    return np.fft.irfft2(np.fft.rfft2(image) * np.fft.rfft2(_embed(kernel, image.shape)), image.shape)


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
    white = rng.standard_normal([n + m - 1 for n, m in zip(shape, kernel.shape, strict=True)])
    return _convolve_periodic(white, kernel)[: shape[0], : shape[1]].astype(np.float32)


def random_noise_kernel(rng, widths=(0.3, 0.8)):
    """
    Draw the kernel of a correlated noise: an elliptical Gaussian.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        The source of randomness.

    widths : tuple of float, optional
        The range of the standard deviation along the major axis in pixels; neighbours of a round kernel
        of 0.3, 0.5 and 0.8 pixels are correlated by 1, 26 and 67 %.

    Returns
    -------
    kernel : ndarray, shape (n, n)
        The kernel; its axis ratio is between 0.6 and 1.
    """
    return gaussian_kernel(rng.uniform(*widths), rng.uniform(0.6, 1), rng.uniform(0, np.pi))


def broaden_psf(image, kernel):
    """
    Convolve an image with a kernel, as a worse seeing would.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The image. It is mirrored at its edges, so keep away from them by the width of the kernel.

    kernel : ndarray, shape (n, n)
        The kernel, of unit sum.

    Returns
    -------
    image : ndarray, shape (ny, nx)
        The broader image. White noise in it is less by the root of the summed squares of the kernel.
    """
    half = [n // 2 for n in kernel.shape]
    padded = np.pad(image, [(n, n) for n in half], mode="symmetric")
    ny, nx = image.shape
    broad = _convolve_periodic(padded, kernel)[half[0] : half[0] + ny, half[1] : half[1] + nx]
    return broad.astype(image.dtype)


def block_sum(image, factor):
    """
    Sum blocks of pixels, as a detector with larger pixels would.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The image. Rows and columns that do not fill a block are left out.

    factor : int
        The width of a block in pixels.

    Returns
    -------
    image : ndarray, shape (ny // factor, nx // factor)
        The sums.

    Raises
    ------
    ValueError
        If no block fits into the image.
    """
    ny, nx = (n // factor for n in image.shape)
    if min(ny, nx) < 1:
        msg = f"factor {factor} exceeds the size of the image {image.shape}"
        raise ValueError(msg)
    blocks = image[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor)
    return blocks.sum(axis=(1, 3))


def noise_gain(*kernels):
    r"""
    Factor by which convolutions, one after the other, change the standard deviation of white noise.

    .. math:: \sqrt{\sum (k_1 * k_2 * \ldots)^2}

    Parameters
    ----------
    *kernels : ndarray, shape (n, n)
        The kernels.

    Returns
    -------
    gain : float
        The factor.
    """
    size = sum(max(kernel.shape) for kernel in kernels)
    power = np.ones((size, size // 2 + 1))
    for kernel in kernels:
        power = power * np.abs(np.fft.rfft2(_embed(kernel, (size, size)))) ** 2
    return float(np.sqrt(np.fft.irfft2(power, (size, size))[0, 0]))


def expose(scene, gain, read_noise, sky_level, rng):
    r"""
    Expose a scene on a detector: photon noise of scene and sky, and read noise.

    .. math:: y = \frac{P(g (x + b)) + N(0, r^2)}{g} - b, \qquad \sigma^2 = \frac{x + b}{g} + \frac{r^2}{g^2}

    with a Poisson variate P (Howell 2006, *Handbook of CCD Astronomy*, section 4.4).

    Parameters
    ----------
    scene : ndarray, shape (ny, nx)
        The scene :math:`x` without noise, in ADU; where it is negative it counts as zero in the photon noise.

    gain : float
        The gain :math:`g` in electron per ADU.

    read_noise : float
        The read noise :math:`r` in electron.

    sky_level : float
        The level of the sky :math:`b` in ADU, which is subtracted afterwards.

    rng : `numpy.random.Generator`
        The source of randomness.

    Returns
    -------
    data, sigma : ndarray, shape (ny, nx)
        The exposure and its noise (1 sigma) in ADU.

    Raises
    ------
    ValueError
        If ``gain`` is not positive, or ``read_noise`` or ``sky_level`` is negative.
    """
    if not gain > 0 or not read_noise >= 0 or not sky_level >= 0:
        msg = (
            "gain must be positive, read_noise and sky_level must not be negative; they are "
            f"{gain}, {read_noise} and {sky_level}"
        )
        raise ValueError(msg)
    light = np.maximum(scene, 0.0)
    electrons = rng.poisson(gain * (light + sky_level)) + read_noise * rng.standard_normal(scene.shape)
    data = electrons / gain - sky_level + np.minimum(scene, 0.0)
    sigma = np.sqrt((light + sky_level) / gain + (read_noise / gain) ** 2)
    return data.astype(scene.dtype), sigma.astype(scene.dtype)


def dim(data, sigma, factor, noise):
    r"""
    Move a galaxy farther away: scale the light and restore the noise.

    .. math:: y' = f y + \sqrt{1 - f^2} \, \sigma \epsilon

    Parameters
    ----------
    data, sigma : ndarray, shape (ny, nx)
        The image and its noise (1 sigma).

    factor : float
        The factor :math:`f`, from 0 to 1.

    noise : ndarray, shape (ny, nx)
        Noise of unit variance.

    Returns
    -------
    data : ndarray, shape (ny, nx)
        The fainter image; its noise is as before.

    Raises
    ------
    ValueError
        If ``factor`` is not between 0 and 1.
    """
    if not 0 <= factor <= 1:
        msg = f"factor must be between 0 and 1, not {factor}"
        raise ValueError(msg)
    return np.float32(factor) * data + np.float32(np.sqrt(1 - factor**2)) * sigma * noise


def random_crop(planes, size, rng):
    """
    Cut the same random square out of several planes.

    Parameters
    ----------
    planes : sequence of ndarray, shape (ny, nx)
        The planes.

    size : int
        The width of the square in pixels.

    rng : `numpy.random.Generator`
        The source of randomness.

    Returns
    -------
    planes : list of ndarray, shape (size, size)
        Views.

    Raises
    ------
    ValueError
        If the planes are smaller than the square.
    """
    ny, nx = planes[0].shape
    if size > min(ny, nx):
        msg = f"size {size} exceeds the planes of shape {(ny, nx)}"
        raise ValueError(msg)
    top, left = rng.integers(ny - size + 1), rng.integers(nx - size + 1)
    return [plane[top : top + size, left : left + size] for plane in planes]


def add_exposure_noise(data, sigma, factor, noise):
    r"""
    Make an image as noisy as a shorter exposure.

    .. math:: y' = y + \sqrt{k^2 - 1} \, \sigma \epsilon, \qquad \sigma' = k \sigma

    Parameters
    ----------
    data, sigma : ndarray, shape (ny, nx)
        The image and its noise (1 sigma).

    factor : float
        The factor :math:`k`, at least 1, by which the noise grows.

    noise : ndarray, shape (ny, nx)
        Noise of unit variance.

    Returns
    -------
    data, sigma : ndarray, shape (ny, nx)
        The noisier image and its noise.

    Raises
    ------
    ValueError
        If ``factor`` is less than 1.
    """
    if factor < 1:
        msg = f"factor must be at least 1, not {factor}"
        raise ValueError(msg)
    return data + np.float32(np.sqrt(factor**2 - 1)) * sigma * noise, np.float32(factor) * sigma


def split_exposure(data, sigma, factor, noise):
    r"""
    Split one image into a noisy input and a target whose noises are independent.

    .. math:: y = d + k \sigma \epsilon, \qquad t = d - \sigma \epsilon / k

    With Gaussian noise of variance :math:`\sigma^2` in :math:`d`, the noises of y and t have the
    covariance :math:`\sigma^2 - \sigma^2 = 0` and the variances :math:`\sigma^2 (1 + k^2)` and
    :math:`\sigma^2 (1 + k^{-2})`; their ratio, the depth, is :math:`1 / k` (Pang et al. 2021,
    *Recorrupted-to-Recorrupted*). With the image itself as the target, a network would learn to keep the
    noise that both share.

    Parameters
    ----------
    data, sigma : ndarray, shape (ny, nx)
        The image and its noise (1 sigma).

    factor : float or ndarray, shape (ny, nx)
        The factor :math:`k`, positive.

    noise : ndarray, shape (ny, nx)
        Noise of unit variance, independent of the image's.

    Returns
    -------
    data, sigma, target : ndarray, shape (ny, nx)
        The input :math:`y`, its noise, and the target :math:`t`.

    Raises
    ------
    ValueError
        If ``factor`` is not positive.
    """
    factor = np.float32(factor)
    if not np.all(factor > 0):
        msg = f"factor must be positive, not {factor.min()}"
        raise ValueError(msg)
    step = sigma * noise
    return data + factor * step, np.sqrt(1 + factor**2) * sigma, data - step / factor


def random_holes(shape, rng, max_size=9):
    """
    Draw the pixels that a detector lost: a bad column, a trail, patches, or a saturated star.

    Parameters
    ----------
    shape : tuple of int
        The shape (ny, nx).

    rng : `numpy.random.Generator`
        The source of randomness.

    max_size : int, optional
        The largest width of a patch in pixels.

    Returns
    -------
    valid : ndarray of bool, shape (ny, nx)
        False in holes.
    """
    ny, nx = shape
    valid = np.ones(shape, bool)
    kind = rng.integers(4)
    if kind == 0:
        start, width = rng.integers(nx), rng.integers(1, 4)
        valid[:, start : start + width] = False
    elif kind == 1:
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * min(shape)
        y, x = np.mgrid[:ny, :nx] - np.reshape([(ny - 1) / 2, (nx - 1) / 2], (2, 1, 1))
        distance = x * np.sin(angle) - y * np.cos(angle) - offset
        valid[np.abs(distance) < rng.uniform(0.5, 2)] = False
    elif kind == 2:
        radius, centre = rng.uniform(2, max(max_size, 4) / 2), rng.uniform(0, shape)
        y, x = np.mgrid[:ny, :nx] - centre.reshape(2, 1, 1)
        spikes = np.minimum(np.abs(x), np.abs(y)) < 0.1 * radius
        valid[(np.hypot(x, y) < radius) | (spikes & (np.hypot(x, y) < 2.5 * radius))] = False
    else:
        for _ in range(rng.integers(1, 6)):
            height, width = rng.integers(1, max_size + 1, 2)
            top, left = rng.integers(ny), rng.integers(nx)
            valid[top : top + height, left : left + width] = False
    return valid.T if ny == nx and rng.integers(2) else valid


def dihedral(image, code):
    """
    Flip and rotate an image by quarter turns, without interpolation.

    Parameters
    ----------
    image : ndarray, shape (..., ny, nx)
        The image.

    code : int
        Which of the eight symmetries of the square, 0 to 7; 0 changes nothing.

    Returns
    -------
    image : ndarray, shape (..., ny, nx) or (..., nx, ny)
        A view.
    """
    turned = np.rot90(image, code % 4, axes=(-2, -1))
    return turned[..., ::-1] if code >= 4 else turned

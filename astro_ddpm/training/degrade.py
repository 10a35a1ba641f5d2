# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Degradations of images, as small functions of arrays and a random generator.
"""

import numpy as np

__all__ = [
    "add_exposure_noise",
    "correlated_noise",
    "dihedral",
    "random_holes",
    "split_exposure",
]


def correlated_noise(shape, width, rng):
    r"""
    Gaussian noise of unit variance, correlated like that of a resampled image.

    White noise is convolved with a Gaussian kernel :math:`g` and divided by
    :math:`\sqrt{\sum g^2}`, which restores the variance.

    Parameters
    ----------
    shape : tuple of int
        The shape (ny, nx).

    width : float
        The standard deviation of the kernel in pixels; 0 for white noise.

    rng : `numpy.random.Generator`
        The source of randomness.

    Returns
    -------
    noise : ndarray, shape (ny, nx), float32
        The noise.
    """
    if width == 0:
        return rng.standard_normal(shape, dtype=np.float32)
    half = int(np.ceil(4 * width))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / width) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    noise = rng.standard_normal((shape[0] + 2 * half, shape[1] + 2 * half))
    for _ in range(2):
        windows = np.lib.stride_tricks.sliding_window_view(noise, kernel.size, axis=1)
        noise = (windows @ kernel).T
    return noise.astype(np.float32)


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

    factor : float
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
    if not factor > 0:
        msg = f"factor must be positive, not {factor}"
        raise ValueError(msg)
    step = sigma * noise
    total = np.float32(np.sqrt(1 + factor**2)) * sigma
    return data + np.float32(factor) * step, total, data - step / np.float32(factor)


def random_holes(shape, rng, max_size=9):
    """
    Draw the pixels that a detector lost: a bad column, a trail, or patches.

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
    kind = rng.integers(3)
    if kind == 0:
        start, width = rng.integers(nx), rng.integers(1, 4)
        valid[:, start : start + width] = False
    elif kind == 1:
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * min(shape)
        y, x = np.mgrid[:ny, :nx] - np.reshape([(ny - 1) / 2, (nx - 1) / 2], (2, 1, 1))
        distance = x * np.sin(angle) - y * np.cos(angle) - offset
        valid[np.abs(distance) < rng.uniform(0.5, 2)] = False
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

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Two exposures of one scene: their list, their noise, and one PSF for both.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .noise import photon_noise

__all__ = ["PSFMatch", "homogenize_psf", "photon_noise", "read_listing"]

MAX_RESIDUAL_RMS = 1.2  # of the residual in units of the noise, for exposures that differ by nothing else


class PSFMatch(NamedTuple):
    """
    A deep image at the PSF and sky level of a shallow one.

    Attributes
    ----------
    image : ndarray, shape (ny, nx)
        The deep image convolved with ``kernel``, plus ``sky_offset``.

    kernel : ndarray, shape (kernel_size, kernel_size)
        The kernel, in the orientation of a correlation.

    sky_offset : float
        The difference in sky level.

    noise_gain : float
        The factor by which the kernel changes white noise, the root of its summed squares.
    """

    image: np.ndarray
    kernel: np.ndarray
    sky_offset: float
    noise_gain: float


def homogenize_psf(shallow, deep, sigma, kernel_size=9):
    r"""
    Bring the deep image of a pair to the PSF and the sky level of the shallow one.

    Finds the kernel K and the offset c that minimise

    .. math:: \sum_{ij} \left(\frac{y_{ij} - (K * d)_{ij} - c}{\sigma_{ij}}\right)^2

    by linear least squares (as Alard & Lupton 1998 do for difference imaging, with one free value per
    kernel pixel; Bramich 2008). Without this a network trained on pairs learns the difference between
    two PSFs and calls it enhancement.

    Parameters
    ----------
    shallow, deep : array_like, shape (ny, nx)
        The images :math:`y` and :math:`d`, on the same pixels and flux scale.

    sigma : array_like, shape (ny, nx)
        The noise (1 sigma) of ``shallow``. Pixels with infinite noise do not take part.

    kernel_size : int, optional
        The width of the kernel in pixels, odd.

    Returns
    -------
    match : `PSFMatch`
        The homogenised deep image, the kernel, the offset and the noise gain.

    Raises
    ------
    ValueError
        If shapes differ, ``kernel_size`` is not odd and positive, ``sigma`` is not positive, or the
        image is too small to determine the kernel.
    """
    shallow, deep, sigma = (np.asarray(a, float) for a in (shallow, deep, sigma))
    _check_pair(shallow, deep, sigma, kernel_size)
    half = kernel_size // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(deep, half, mode="reflect"), (kernel_size, kernel_size)
    )
    design = np.concatenate([windows.reshape(deep.size, -1), np.ones((deep.size, 1))], axis=1)
    use = np.zeros(deep.shape, bool)
    use[half : deep.shape[0] - half, half : deep.shape[1] - half] = True
    use &= np.isfinite(sigma) & np.isfinite(shallow)
    if use.sum() <= 2 * design.shape[1]:
        msg = f"shallow of shape {shallow.shape} is too small for kernel_size {kernel_size}"
        raise ValueError(msg)
    weight = 1 / sigma[use]
    solution = np.linalg.lstsq(design[use.ravel()] * weight[:, None], shallow[use] * weight, rcond=1e-6)[0]
    kernel = solution[:-1].reshape(kernel_size, kernel_size)
    image = (design @ solution).reshape(deep.shape)
    return PSFMatch(image, kernel, float(solution[-1]), float(np.sqrt(np.sum(kernel**2))))


def _check_pair(shallow, deep, sigma, kernel_size):
    if shallow.ndim != 2 or not shallow.shape == deep.shape == sigma.shape:
        msg = (
            "shallow, deep and sigma must be two-dimensional and of one shape, not "
            f"{shallow.shape}, {deep.shape} and {sigma.shape}"
        )
        raise ValueError(msg)
    if kernel_size < 1 or kernel_size % 2 == 0:
        msg = f"kernel_size must be odd and positive, not {kernel_size}"
        raise ValueError(msg)
    if not np.all(sigma > 0):
        msg = "sigma must be positive everywhere"
        raise ValueError(msg)
    if not np.all(np.isfinite(deep)):
        msg = "deep must be finite everywhere"
        raise ValueError(msg)


def read_listing(listing):
    """
    Read a list of pairs.

    Parameters
    ----------
    listing : str or path-like
        A CSV file whose first two columns are the paths of a shallow and a deep FITS image, relative to
        the folder of the file, below one header line.

    Returns
    -------
    pairs : list of tuple of `~pathlib.Path`
        The paths.

    Raises
    ------
    ValueError
        If the file holds no pair.
    """
    listing = Path(listing)
    with listing.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    pairs = [(listing.parent / row[0], listing.parent / row[1]) for row in rows if row]
    if not pairs:
        msg = f"listing {listing} holds no pair"
        raise ValueError(msg)
    return pairs

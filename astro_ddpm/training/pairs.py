# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pairs of a shallow and a deep exposure: one PSF for both, and arrays ready for training.
"""

import csv
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astro_ddpm.noise import estimate_sky_sigma, neighbour_correlation

from .arrays import check_output, write_arrays

__all__ = [
    "PSFMatch",
    "cut_stamps",
    "homogenize_psf",
    "prepare_deep",
    "prepare_pairs",
    "read_listing",
    "split_by_group",
]

log = logging.getLogger(__name__)

MAX_RESIDUAL_RMS = 1.2


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


def photon_noise(image, sky_sigma, variance_per_flux):
    r"""
    Estimate the noise of every pixel from that of the sky and the photon noise of the sources.

    .. math:: \sigma^2 = \sigma_\mathrm{sky}^2 + v \, \max(\tilde y, 0)

    where :math:`\tilde y` is the image smoothed by a Gaussian of one pixel.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        The sky-subtracted image.

    sky_sigma : float
        The noise of its sky.

    variance_per_flux : float
        The photon noise :math:`v`: variance per unit of flux, the inverse of the gain.

    Returns
    -------
    sigma : ndarray, shape (ny, nx)
        The noise (1 sigma).
    """
    from scipy.ndimage import gaussian_filter

    return np.sqrt(sky_sigma**2 + variance_per_flux * np.maximum(gaussian_filter(image, 1), 0))


def _prepare_pair(shallow, deep, variance_per_flux):
    """Arrays of one pair, or None if its exposures differ by more than noise."""
    sky, deep_sky = estimate_sky_sigma(shallow), estimate_sky_sigma(deep)
    sigma = photon_noise(shallow, sky, variance_per_flux)
    # both exposures see the same scene: photon noise per flux goes with the square of the sky noise
    deep_sigma = photon_noise(deep, deep_sky, variance_per_flux * (deep_sky / sky) ** 2)
    match = homogenize_psf(shallow, deep, sigma)
    inside = (slice(len(match.kernel) // 2, -(len(match.kernel) // 2)),) * 2
    if np.sqrt(np.mean((((shallow - match.image) / sigma)[inside]) ** 2)) > MAX_RESIDUAL_RMS:
        return None
    planes = {
        "shallow": shallow,
        "sigma": sigma,
        "target": match.image,
        "deep": deep,
        "deep_sigma": deep_sigma,
    }
    # beyond the inside the kernel has seen pixels that do not exist
    return {name: plane[inside] for name, plane in planes.items()} | {
        "depth": match.noise_gain * deep_sky / sky
    }


def prepare_pairs(pairs, output, *, variance_per_flux=0.0, overwrite=False):
    """
    Turn pairs of FITS images into one file of arrays.

    Each pair gets its noise measured and its PSF homogenised. Pairs whose exposures differ by more than
    noise even so (variable or saturated sources, satellite trails) are left out.

    Parameters
    ----------
    pairs : list of tuple of path-like
        Paths of sky-subtracted shallow and deep images of one shape (ny, nx), for example from
        `read_listing`.

    output : str or path-like
        The ``.npz`` file to write: ``shallow``, ``sigma``, ``target``, ``deep``, ``deep_sigma`` of shape
        (n, ny - 8, nx - 8), without the border that the kernel cannot reach, and ``depth`` of shape
        (n,), all float32.

    variance_per_flux : float, optional
        The photon noise of the shallow images: variance per unit of flux, the inverse of the gain.

    overwrite : bool, optional
        Whether to replace an existing file.

    Returns
    -------
    n_used, n_rejected : int
        How many pairs were written, and how many left out.

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten.

    ValueError
        If images differ in shape, or no pair can be used.
    """
    check_output(output, overwrite)
    rows = []
    for paths in pairs:
        shallow, deep = map(_read_fits, paths)
        try:
            row = _prepare_pair(shallow, deep, variance_per_flux)
        except ValueError as error:
            msg = f"pair {paths[0]}, {paths[1]}: {error}"
            raise ValueError(msg) from error
        if row is None:
            log.info("%s left out: the exposures differ by more than noise", paths[0])
        else:
            rows.append(row)
    if not rows:
        msg = "pairs holds no pair whose exposures agree within the noise"
        raise ValueError(msg)
    if len({row["shallow"].shape for row in rows}) > 1:
        msg = "pairs must all be of one shape; cut stamps of one size first"
        raise ValueError(msg)
    arrays = {key: np.array([row[key] for row in rows], np.float32) for key in rows[0]}
    write_arrays(output, arrays, overwrite=overwrite)
    return len(rows), len(pairs) - len(rows)


def cut_stamps(image, size):
    """
    Cut an image into stamps side by side.

    Parameters
    ----------
    image : array_like, shape (ny, nx)
        The image.

    size : int
        The width of the stamps in pixels.

    Returns
    -------
    stamps : ndarray, shape (n, size, size)
        Those of them that hold finite pixels only. Rows and columns that do not fill a stamp are left out.

    Raises
    ------
    ValueError
        If the image is smaller than a stamp.
    """
    image = np.asarray(image, float)
    ny, nx = (n // size for n in image.shape)
    if min(ny, nx) < 1:
        msg = f"size {size} exceeds the image of shape {image.shape}"
        raise ValueError(msg)
    stamps = image[: ny * size, : nx * size].reshape(ny, size, nx, size).swapaxes(1, 2)
    stamps = stamps.reshape(-1, size, size)
    return stamps[np.isfinite(stamps).all(axis=(1, 2))]


def _noise_width(stamp):
    r"""Gaussian that correlates neighbours as the noise is, from :math:`\rho = e^{-1 / 4 w^2}`."""
    correlation = neighbour_correlation(stamp)
    return 0.5 / np.sqrt(-np.log(min(correlation, 0.9))) if correlation > 0.05 else 0.0


def prepare_deep(images, output, *, size=None, overwrite=False):
    """
    Turn single deep images, to be degraded in training, into one file of arrays.

    Parameters
    ----------
    images : ndarray, shape (n, ny, nx), or list of path-like
        Sky-subtracted images: stamps in one array, or the paths of FITS files.

    output : str or path-like
        The ``.npz`` file to write: ``deep`` of shape (n, ny, nx), and of shape (n,) ``sky_sigma``, the noise
        of the sky, and ``noise_width``, the standard deviation in pixels of the Gaussian kernel that
        correlates white noise as theirs is; all float32.

    size : int, optional
        Cut the images into stamps of this width. By default they must be of one shape.

    overwrite : bool, optional
        Whether to replace an existing file.

    Returns
    -------
    n_used : int
        How many images or stamps were written.

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten.

    ValueError
        If images differ in shape, hold pixels that are not finite, or have no noise that can be measured.
    """
    check_output(output, overwrite)
    stamps = []
    for number, image in enumerate(images):
        name = f"image {number}" if isinstance(image, np.ndarray) else image
        data = image if isinstance(image, np.ndarray) else _read_fits(image)
        if size is None and not np.isfinite(data).all():
            msg = f"{name} holds pixels that are not finite; give size to use the stamps without them"
            raise ValueError(msg)
        stamps.extend([np.asarray(data, float)] if size is None else cut_stamps(data, size))
    if not stamps or len({stamp.shape for stamp in stamps}) > 1:
        msg = "images must hold finite images of one shape; give size to cut them into stamps"
        raise ValueError(msg)
    arrays = {
        "deep": stamps,
        "sky_sigma": [estimate_sky_sigma(stamp) for stamp in stamps],
        "noise_width": [_noise_width(stamp) for stamp in stamps],
    }
    arrays = {name: np.array(values, np.float32) for name, values in arrays.items()}
    write_arrays(output, arrays, overwrite=overwrite)
    return len(stamps)


def _read_fits(path):
    from astropy.io import fits

    return fits.getdata(path).astype(float)


def split_by_group(groups, fraction, seed=0):
    """
    Choose images for validation so that no group is on both sides.

    Several images of one galaxy, in several bands or epochs, show the same structure: a model that
    trained on one of them has seen the others.

    Parameters
    ----------
    groups : array_like, shape (n,)
        What the images belong to, for example the names of the galaxies.

    fraction : float
        The share of the groups to validate with, between 0 and 1.

    seed : int, optional
        Selects the groups.

    Returns
    -------
    validation : ndarray of bool, shape (n,)
        True for the images to validate with.

    Raises
    ------
    ValueError
        If ``fraction`` leaves no group on one of the sides.
    """
    names, member = np.unique(groups, return_inverse=True)
    number = round(fraction * len(names))
    if not 0 < number < len(names):
        msg = f"fraction {fraction} of {len(names)} groups leaves none on one side"
        raise ValueError(msg)
    chosen = np.zeros(len(names), bool)
    chosen[np.random.default_rng(seed).permutation(len(names))[:number]] = True
    return chosen[member]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pairs of a shallow and a deep exposure, and single deep images, as arrays ready for training.
"""

import logging
from functools import cache

import numpy as np

from astro_ddpm.noise import BORDER, constant_areas, estimate_sky_sigma, neighbour_correlation
from astro_ddpm.utils import check_output, require

from .arrays import write_arrays
from .cameras import gaussian_kernel
from .ranges import measure_stamps

__all__ = ["cut_stamps", "prepare_deep", "prepare_pairs", "split_by_group"]

log = logging.getLogger(__name__)


def _prepare_pair(paths, variance_per_flux):
    """Arrays of one pair, or None if its exposures differ by more than noise."""
    from astro_ddpm.nddata import Exposure, read_image

    shallow, deep = (Exposure.parse(read_image(path)).check() for path in paths)
    pair = shallow.match(deep, variance_per_flux=variance_per_flux)
    if pair is None:
        return None
    planes = {
        "shallow": np.where(shallow.valid, shallow.data, 0),
        "sigma": pair.sigma,
        "target": pair.target,
        "deep": np.where(deep.valid, deep.data, 0),
        "deep_sigma": pair.deep_sigma,
        "valid": shallow.valid & deep.valid,
        "use": pair.use,
    }
    # beyond the inside the kernel has seen pixels that do not exist
    inside = (slice(BORDER, -BORDER),) * 2
    return {name: plane[inside] for name, plane in planes.items()} | {"depth": pair.noise_ratio}


def prepare_pairs(pairs, output, *, variance_per_flux=0.0, overwrite=False):
    """
    Turn pairs of FITS images into one file of arrays.

    Each pair gets its noise measured and its PSF homogenised. Pairs whose exposures differ by more than
    noise even so (variable or saturated sources, satellite trails) are left out.

    Parameters
    ----------
    pairs : list of tuple of path-like
        Paths of sky-subtracted shallow and deep images of one shape (ny, nx), for example from
        `read_listing`, with their masks and uncertainties if there are any.

    output : str or path-like
        The ``.npz`` file to write: ``shallow``, ``sigma``, ``target``, ``deep``, ``deep_sigma`` of shape
        (n, ny - 8, nx - 8), without the border that the kernel cannot reach, and ``depth`` of shape (n,), all
        float32; as bool ``valid``, where both were measured, and ``use``, where the target is good; and the
        measures of `measure_stamps`, of shape (n,).

    variance_per_flux : float, optional
        The photon noise of the shallow images: variance per unit of flux, the inverse of the gain. An
        uncertainty in the files comes first.

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
        try:
            row = _prepare_pair(paths, variance_per_flux)
        except ValueError as error:
            msg = f"pair {paths[0]}, {paths[1]}: {error}"
            raise ValueError(msg) from error
        if row is None:
            log.info("%s left out: the exposures differ by more than noise", paths[0])
        else:
            rows.append(row)
    require(rows, "pairs holds no pair whose exposures agree within the noise")
    if len({row["shallow"].shape for row in rows}) > 1:
        msg = "pairs must all be of one shape; cut stamps of one size first"
        raise ValueError(msg)
    write_arrays(output, stack_rows(rows), overwrite=overwrite)
    return len(rows), len(pairs) - len(rows)


def stack_rows(rows):
    """Arrays of a list of stamps, float32 but for the planes that are bool, with ``measure_stamps``."""
    arrays = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    arrays = {key: a if a.dtype == bool else a.astype(np.float32) for key, a in arrays.items()}
    if "sigma" not in arrays:
        return arrays
    images = arrays["shallow" if "shallow" in arrays else "data"]
    return arrays | measure_stamps(images, arrays["sigma"], arrays["valid"])


def cut_stamps(image, size):
    """
    Cut an image into stamps side by side, shape (n, size, size), those that hold finite pixels only.

    Rows and columns that do not fill a stamp are left out. An image smaller than a stamp raises ValueError.
    """
    image = np.asarray(image, float)
    ny, nx = (n // size for n in image.shape)
    require(min(ny, nx) >= 1, f"size {size} exceeds the image of shape {image.shape}")
    stamps = image[: ny * size, : nx * size].reshape(ny, size, nx, size).swapaxes(1, 2)
    stamps = stamps.reshape(-1, size, size)
    return stamps[np.isfinite(stamps).all(axis=(1, 2))]


@cache
def _noise_widths():
    """Widths of Gaussian kernels in pixels, and the correlation of neighbours in white noise behind each."""
    widths = np.linspace(0.2, 2.5, 231)
    kernels = map(gaussian_kernel, widths)
    return widths, [np.sum(kernel[:, 1:] * kernel[:, :-1]) / np.sum(kernel**2) for kernel in kernels]


def noise_width(stamp, mask=None):
    """Width of the Gaussian that correlates neighbours as the noise is."""
    correlation = neighbour_correlation(stamp, mask)
    widths, correlations = _noise_widths()
    return float(np.interp(correlation, correlations, widths)) if correlation > 0.05 else 0.0


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
        Cut the images into stamps of this width. By default they must be of one shape, and finite.

    overwrite : bool, optional
        Whether to replace an existing file.

    Returns
    -------
    n_used : int
        How many images or stamps were written.

    Raises
    ------
    FileExistsError, ValueError
        If ``output`` exists and is not to be overwritten, or the images cannot be used.
    """
    from astropy.io import fits

    check_output(output, overwrite)
    stamps = []
    for number, image in enumerate(images):
        name = f"image {number}" if isinstance(image, np.ndarray) else image
        data = image if isinstance(image, np.ndarray) else fits.getdata(image).astype(float)
        data = np.where(constant_areas(data, np.isfinite(data)), np.nan, data)
        if size is None and not np.isfinite(data).all():
            msg = f"{name} holds pixels that are not finite; give size to use the stamps without them"
            raise ValueError(msg)
        stamps.extend([np.asarray(data, float)] if size is None else cut_stamps(data, size))
    if not stamps or len({stamp.shape for stamp in stamps}) > 1:
        msg = "images must hold finite images of one shape; give size to cut them into stamps"
        raise ValueError(msg)
    arrays = {"deep": stamps, "sky_sigma": list(map(estimate_sky_sigma, stamps))}
    arrays |= {"noise_width": list(map(noise_width, stamps))}
    arrays = {name: np.array(values, np.float32) for name, values in arrays.items()}
    write_arrays(output, arrays, overwrite=overwrite)
    return len(stamps)


def split_by_group(groups, fraction, seed=0):
    """
    Choose images for validation, True in the result, so that no group is on both sides.

    A model that trained on one of several images of a galaxy has seen the structure of the others.

    Parameters
    ----------
    groups : array_like, shape (n,)
        What the images belong to, for example the names of the galaxies.

    fraction : float
        The share of the groups to validate with, between 0 and 1. None on one side raises ValueError.

    seed : int, optional
        Selects the groups.
    """
    names, member = np.unique(groups, return_inverse=True)
    number = round(fraction * len(names))
    require(0 < number < len(names), f"fraction {fraction} of {len(names)} groups leaves none on one side")
    chosen = np.zeros(len(names), bool)
    chosen[np.random.default_rng(seed).permutation(len(names))[:number]] = True
    return chosen[member]

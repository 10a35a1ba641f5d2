# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The sky of a frame, measured where there are no sources.
"""

import numpy as np

from astro_ddpm.utils import warn_user

from ._contrast import block_means
from .sky import choose_grain, estimate_sky_level, estimate_sky_sigma, smear

__all__ = ["find_sources", "measure_sky", "warn_of_bowls"]

BOX = 64  # pixels, of a frame without large sources
MAX_PASSES = 6
MAX_BOWL = 0.1  # of the noise
MAX_LIFT = 0.15  # of the noise; what is deeper is not made by a galaxy
MIN_SIDE = 6  # blocks, in which the noise of blocks can be measured
SCALES = (1, 4, 16)  # pixels on a side of the blocks in which sources are looked for
WIDTH = 1.5  # pixels, of the Gaussian under which the smallest are looked for
THRESHOLD = 3.0  # of the noise of the blocks


def measure_sky(data, valid, box_size=None, filter_size=None):
    """
    Measure the sky between the sources.

    The sky is a plane and what `photutils.background.Background2D` finds above it in the frame without its
    sources (`find_sources`), which are looked for at least twice. The boxes are 64 pixels wide. Where that
    is less than the diameter of the largest source (of a circle of its area) they grow, and the sources are
    looked for again: the sky must not follow a galaxy. Where less than two boxes fit in, the plane remains,
    and goes down by up to 0.15 of the noise where that leaves no place below it: light is not negative.
    Where the noise is skewed, as that of few photons is, all this happens in the means of blocks of pixels.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame.

    valid : ndarray of bool, shape (ny, nx)
        True for pixels to measure.

    box_size : int or tuple of int, optional
        The size (ny, nx) of the boxes, whatever sources there are.

    filter_size : int or tuple of int, optional
        The size of the median filter, in boxes, odd; 3 if there are four boxes or more on a side, or else 1.

    Returns
    -------
    sky : ndarray, shape (ny, nx)
        The sky, in the dtype of the frame.

    sources : ndarray of bool, shape (ny, nx)
        True where a source was found.

    Raises
    ------
    ValueError
        If too few pixels are valid.
    """
    grain = choose_grain(data, valid)
    if grain == 1:
        return _measure_sky(data, valid, box_size, filter_size)
    if box_size:
        box_size = tuple(-(-size // grain) for size in np.broadcast_to(box_size, 2))
    sky, sources = _measure_sky(*block_means(data, valid, grain), box_size, filter_size, BOX // grain)
    return _interpolated(sky, grain, data.shape).astype(data.dtype), _enlarged(sources, grain, data.shape)


def _measure_sky(data, valid, box_size, filter_size, box=BOX):
    """Measure the sky where the noise is not skewed, in boxes of some size at least."""
    box, sources = box_size or box, np.zeros(data.shape, bool)
    for number in range(MAX_PASSES):
        sky = _background(data, valid & ~sources, box, filter_size)
        sources = find_sources(data - sky, valid)
        wanted = box if box_size else max(_largest(sources), box)
        if number and wanted <= box:
            break
        box = wanted
    sky = _background(data, valid & ~sources, box, filter_size)
    if not box_size and 2 * box > max(data.shape):  # a plane, which halos of galaxies pull up
        depth, error, _ = _deepest(data - sky, valid & ~sources)
        if depth > 2 * error:
            sky -= min(depth - 2 * error, MAX_LIFT * estimate_sky_sigma(data - sky, ~valid | sources))
    return sky, sources


def _background(data, valid, box, filter_size):
    """Return a plane and what photutils finds above it."""
    from photutils.background import Background2D

    plane = _plane(data, valid)
    rest = np.zeros(data.shape)
    rest[valid] = smear(data[valid]) - plane[valid]
    counts = [max(n // min(b, n), 1) for n, b in zip(data.shape, np.broadcast_to(box, 2), strict=True)]
    size = tuple(-(-n // count) for n, count in zip(data.shape, counts, strict=True))
    filter_size = filter_size or (3 if min(counts) > 3 else 1)
    try:
        sky = Background2D(rest, size, mask=~valid, exclude_percentile=80, filter_size=filter_size).background
    except ValueError:  # sources leave no box
        sky = estimate_sky_level(rest, ~valid)
    return (plane + sky).astype(data.dtype)


def _plane(data, valid):
    """Return the plane that fits the blocks without sources."""
    from astropy.stats import sigma_clip

    block = SCALES[-1]
    means, enough = _block_means(data, valid, block)
    plane = np.zeros(data.shape)
    if enough.sum() < MIN_SIDE**2:
        return plane
    y, x = (np.arange(n) - (n - 1) / 2 for n in data.shape)
    rows, columns = (
        np.arange(n) * block + (block - 1) / 2 + part[0] for n, part in zip(means.shape, (y, x), strict=True)
    )
    grid = np.stack(
        [plane.ravel() for plane in (*np.meshgrid(rows, columns, indexing="ij"), np.ones(means.shape))]
    )
    use = enough.ravel()
    for _ in range(5):
        slopes = np.linalg.lstsq(grid[:, use].T, means.ravel()[use])[0]
        rest = np.ma.array(means.ravel() - slopes @ grid, mask=~enough.ravel())
        use = ~np.ma.getmaskarray(sigma_clip(rest, sigma=2.5, maxiters=5, stdfunc="mad_std"))
    return slopes[0] * y[:, None] + slopes[1] * x + slopes[2]


def find_sources(residual, valid):
    """
    Find everything that is brighter than the sky, and its surroundings.

    That is where the image smoothed by a Gaussian of 1.5 pixels, or the mean of 4x4 or 16x16 pixels without
    the sources found before, is 3 times its noise, and 2 pixels or a block around.

    Parameters
    ----------
    residual : ndarray, shape (ny, nx)
        The sky-subtracted frame.

    valid : ndarray of bool, shape (ny, nx)
        True for pixels that were measured.

    Returns
    -------
    sources : ndarray of bool, shape (ny, nx)
        True on sources.
    """
    from scipy.ndimage import binary_dilation

    sources = np.zeros(residual.shape, bool)
    white = _noise(residual, valid)
    for scale in SCALES:
        means, enough = _block_means(residual, valid & ~sources, scale)
        if min(means.shape) < MIN_SIDE:
            break
        averaged = scale if scale > 1 else 2 * np.sqrt(np.pi) * WIDTH  # by which white noise becomes less
        noise = max(_noise(means, enough, lag=1 if scale > 1 else 5), white / averaged)
        found = enough & (means > THRESHOLD * noise)
        found = binary_dilation(found, np.ones((3, 3)), iterations=2 if scale == 1 else 1)
        sources |= _enlarged(found, scale, residual.shape)
    return sources


def _noise(data, valid, **options):
    """Return the noise, infinity if it cannot be measured."""
    try:
        return estimate_sky_sigma(data, ~valid, **options)
    except ValueError:
        return np.inf


def _block_means(data, valid, size):
    """Return the means of the valid pixels of blocks, and which of them have enough."""
    from scipy.ndimage import gaussian_filter

    if size == 1:
        weight = gaussian_filter(valid.astype(np.float32), WIDTH)
        means = gaussian_filter(np.where(valid, data, 0), WIDTH) / np.maximum(weight, 1e-6)
        return means, valid & (weight > 0.5)
    return block_means(data, valid, size)


def _enlarged(blocks, size, shape):
    """Return a plane of blocks as one of pixels."""
    rows, columns = (
        np.minimum(np.arange(n) // size, k - 1) for n, k in zip(shape, blocks.shape, strict=True)
    )
    return blocks[np.ix_(rows, columns)]


def _interpolated(blocks, size, shape):
    """Return a plane of blocks as a smooth one of pixels."""
    from scipy.ndimage import map_coordinates

    places = [(np.arange(n) + 0.5) / size - 0.5 for n in shape]
    return map_coordinates(blocks, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")


def _largest(sources):
    """Return the diameter of the circle that has the area of the largest source, in whole blocks."""
    from scipy.ndimage import label

    block = SCALES[-1]
    share, _ = _block_means(sources, np.ones_like(sources), block)
    labels, number = label(share > 0.5)
    return int(2 * block * np.sqrt(np.bincount(labels.ravel())[1:].max() / np.pi)) if number else 0


def warn_of_bowls(residual, valid, sigma):
    """
    Warn where a sky that was subtracted is too high.

    That is where the mean of 5x5 blocks of 16 pixels is below zero by more than 0.1 of the noise, and five
    times its error.

    Parameters
    ----------
    residual : ndarray, shape (ny, nx)
        The sky-subtracted frame.

    valid : ndarray of bool, shape (ny, nx)
        True for pixels that were measured and have no source.

    sigma : float
        The noise (1 sigma).
    """
    depth, error, (y, x) = _deepest(residual, valid)
    if depth > max(MAX_BOWL * sigma, 5 * error):
        warn_user(
            f"the sky that is subtracted is too high by up to {depth / sigma:.2f} of the noise, most around "
            f"x = {x}, y = {y}: give larger or smaller boxes, "
            'background={"box_size": ...}, or an image of the sky'
        )


def _deepest(residual, valid):
    """Return how far the mean of 5x5 blocks is below zero at most, its error, and where that is."""
    from scipy.ndimage import uniform_filter

    block = SCALES[-1]
    means, enough = _block_means(residual, valid, block)
    try:
        error = estimate_sky_sigma(means, ~enough, lag=1) / 5
    except ValueError:  # too few blocks
        return 0.0, np.inf, (0, 0)
    weight = uniform_filter(enough.astype(float), 5)
    levels = uniform_filter(np.where(enough, means, 0), 5) / np.maximum(weight, 0.1)
    levels[weight < 0.5] = 0
    place = np.unravel_index(np.argmin(levels), levels.shape)
    return -levels[place], error, tuple(int(n) * block + block // 2 for n in place)

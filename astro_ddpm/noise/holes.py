# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Holes: pixels that were not measured.
"""

import numpy as np

__all__ = ["fill_holes", "lacks_information"]

MAX_NOISE = 30.0  # times that of the best tenth of the pixels
MAX_SNR = 3.0  # of a pixel that such noise marks as bad; photon noise is that large only where the signal is


def lacks_information(data, sigma, valid):
    """
    Mark pixels of which the noise says that they were not measured.

    Zero, infinity and NaN say so, and so does noise of more than 30 times that of the best tenth of the
    pixels, where the pixel differs by less than 3 of its own sigma from the median of the image. The photon
    noise of a bright source is large too, but its signal is larger still.

    Parameters
    ----------
    data, sigma : ndarray, shape (ny, nx)
        The image and its noise (1 sigma).

    valid : ndarray of bool, shape (ny, nx)
        True for pixels to judge by.

    Returns
    -------
    empty : ndarray of bool, shape (ny, nx)
        True for pixels without information.
    """
    known = np.isfinite(sigma) & (sigma > 0)
    use = valid & known
    if not use.any():
        return ~known
    level, best = np.median(data[use]), np.quantile(sigma[use], 0.1)
    with np.errstate(invalid="ignore", over="ignore"):
        return ~known | (sigma > MAX_NOISE * best) & (np.abs(data - level) < MAX_SNR * sigma)


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
    Fill holes from their surroundings, with a noise that says how well these tell.

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

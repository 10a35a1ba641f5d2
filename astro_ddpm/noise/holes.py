# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Holes: pixels that were not measured.
"""

import numpy as np

from ._contrast import MAD_TO_STD

__all__ = ["fill_holes", "lacks_information"]

MAX_VALUES = 5  # that areas of one value may have
MAX_NOISE = 30.0  # times that of the best tenth of the pixels
MAX_SNR = 3.0  # of a pixel that such noise marks as bad; photon noise is that large only where the signal is


def lacks_information(data, sigma, valid):
    """
    Mark pixels of which the noise says that they were not measured.

    Zero, infinity and NaN say so, and so does noise of more than 30 times that of the best tenth of the valid
    pixels, where the pixel differs by less than 3 of its own sigma from the median of the image. The photon
    noise of a bright source is large too, but its signal is larger still.
    """
    known = np.isfinite(sigma) & (sigma > 0)
    use = valid & known
    if not use.any():
        return ~known
    level, best = np.median(data[use]), np.quantile(sigma[use], 0.1)
    with np.errstate(invalid="ignore", over="ignore"):
        return ~known | (sigma > MAX_NOISE * best) & (np.abs(data - level) < MAX_SNR * sigma)


def constant_areas(data, valid):
    """
    Mark areas of one value, which stand for missing data: borders of 0 or -999, saturated cores.

    Of N pixels a share p may have one value because the values are discrete or were cut. That n of them in a
    row or in a square do so by chance has the probability :math:`N p^n`. Rows, columns and squares of twice
    the n that makes it one in a million are marked, and with them all other pixels of a value that is rare
    outside. So is the lowest value if four pixels have it and it lies 4.5 standard deviations below the
    median, as -999 in single pixels does. Only valid pixels are looked at. An image of nothing but one value
    has no such area.
    """
    areas = np.zeros(data.shape, bool)
    below = data[:-1][(data[1:] == data[:-1]) & valid[1:] & valid[:-1]]
    beside = data[:, :-1][(data[:, 1:] == data[:, :-1]) & valid[:, 1:] & valid[:, :-1]]
    values, excess = np.unique(np.concatenate([below, beside]), return_counts=True)
    if values.size > MAX_VALUES:  # values of discrete data have equal neighbours by chance
        known, number = np.unique(data[valid], return_counts=True)
        excess = excess - 2 * number[np.searchsorted(known, values)] ** 2 / valid.sum()
    for value in values[np.argsort(-excess, kind="stable")[:MAX_VALUES]]:
        here, rest = valid & (data == value), (valid & ~areas).sum()
        share = here.sum() / rest
        if not share < 1:
            break
        n = int(np.ceil(2 * np.log(1e-6 / data.size) / np.log(share)))
        side = int(np.ceil(np.sqrt(n)))
        found = np.any([_open(here, shape) for shape in ((1, n), (n, 1), (side, side))], axis=0)
        if found.any() and (here & ~found).sum() < 0.01 * rest:
            found = here
        areas |= found
    return areas | _markers(data, valid & ~areas)


def _markers(data, valid):
    """Mark the lowest value where several pixels have it, and it is far below the others."""
    values = data[valid]
    here = valid & (data == values.min(initial=np.inf))
    if here.sum() < 4:
        return here & False
    middle = np.median(values)
    spread = MAD_TO_STD * np.median(np.abs(values - middle))
    return here & (spread > 0) & (middle - data > 4.5 * spread)


def _open(here, shape):
    """Keep what lies in rectangles of a shape, whose sides are made odd, that are all True."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    shape = [n | 1 for n in shape]
    if any(n > m for n, m in zip(shape, here.shape, strict=True)):
        return np.zeros(here.shape, bool)
    here = here.astype(np.uint8)
    for step in (minimum_filter1d, maximum_filter1d):
        for axis, n in enumerate(shape):
            here = step(here, n, axis, mode="constant")
    return here.astype(bool)


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

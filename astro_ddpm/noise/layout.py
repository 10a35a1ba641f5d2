# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Frames whose pixels do not all see the same sky: mosaics of colours, and edges that see none.
"""

import numpy as np

from ._contrast import MAD_TO_STD, check_valid, cut_into_blocks

__all__ = ["detect_mosaic", "find_edges"]

BLOCK = 16  # pixels
MIN_BLOCKS = 9
MAX_WIDTH = 512  # pixels, of the central part that is looked at
MIN_BRIGHT = 10  # pixels of a block that are brighter than the sky
BRIGHT = 5.0  # of the noise
LOW = np.array([1, 2, 1]) / 4  # the mean of neighbours
HIGH = np.array([-1, 2, -1]) / 4  # what alternates from one to the next
NOISE = 0.375  # of the noise of a pixel, what is left of it by both
MIN_LEVEL, MIN_GAIN = 0.1, 0.05
SURE = 8.0  # standard errors
MIN_EDGE, MAX_EDGE = 3, 0.2  # lines, and share of all lines, of an edge
MIN_LINE = 32  # valid pixels of a line
RAMP = 2  # lines, over which an edge may go


def detect_mosaic(data, mask=None):
    r"""
    Detect whether the four pixels of cells of 2 x 2 differ, as they do behind a Bayer pattern.

    What alternates from row to row, from column to column, and like a checkerboard,

    .. math:: n = (-1)^{k y + l x} \, (h_k \otimes h_l) * y , \quad
        h_0 = (1, 2, 1) / 4 , \quad h_1 = (-1, 2, -1) / 4 ,

    has the mean zero in every other image: sources, gradients and noise have no preferred phase. Its medians
    in blocks of 16 x 16 pixels tell the level, and its ratio to the image, in the pixels that are 5 times the
    noise above the sky, the gain. A pattern is a checkerboard, or both rows and columns, that is 8 times its
    error. Where rows alone alternate, or columns, `~astro_ddpm.noise.measure_banding` tells.

    Parameters
    ----------
    data, mask : array_like, array_like of bool
        As for `~astro_ddpm.noise.estimate_sky_sigma`.

    Returns
    -------
    level : float
        Root mean square difference of the pixels of a cell in units of the noise; 0 if it is less than 0.1.

    gain : float
        The same for their gain, in units of its mean; 0 if it is less than 0.05.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.noise import detect_mosaic
    >>> image = np.random.default_rng(1).normal(0, 1, (96, 96))
    >>> image[::2, ::2] += 4  # a quarter of the pixels sees red
    >>> print("{:.1f} {}".format(*detect_mosaic(image)))
    1.7 0.0
    """
    from scipy.ndimage import convolve1d, minimum_filter

    data, valid = check_valid(data, mask)
    part = tuple(slice(max(n - MAX_WIDTH, 0) // 2, (n + MAX_WIDTH) // 2) for n in data.shape)
    data, valid = np.where(valid, data, 0.0)[part], valid[part]
    valid = minimum_filter(valid, 3, mode="constant")
    enough = cut_into_blocks(valid, BLOCK).mean(axis=(2, 3)) > 0.5
    if enough.sum() < MIN_BLOCKS:
        return 0.0, 0.0
    use = cut_into_blocks(valid, BLOCK)[enough]

    def filtered(rows, columns):
        plane = convolve1d(convolve1d(data, HIGH if rows else LOW, 0), HIGH if columns else LOW, 1)
        if rows:
            plane[1::2] *= -1
        if columns:
            plane[:, 1::2] *= -1
        return cut_into_blocks(plane, BLOCK)[enough]

    waves = [filtered(*pattern) for pattern in ((1, 0), (0, 1), (1, 1))]
    noise = MAD_TO_STD * np.median(np.abs(waves[2][use] - np.median(waves[2][use]))) / NOISE
    light = filtered(0, 0)
    light -= np.median(light[use])
    levels = [
        _sure([np.median(block[good]) for block, good in zip(wave, use, strict=True)]) for wave in waves
    ]
    bright = use & (light > BRIGHT * noise)
    chosen = bright.sum(axis=(1, 2)) >= MIN_BRIGHT
    light, bright = light[chosen], bright[chosen]
    gains = []
    for wave, level in zip(waves, levels, strict=True):
        ratios = zip(wave[chosen] - level, light, bright, strict=True)
        gains.append(_sure([np.median(n[good] / y[good]) for n, y, good in ratios]))
    level, gain = _root(levels), _root(gains)
    return level / noise if level > MIN_LEVEL * noise else 0.0, gain if gain > MIN_GAIN else 0.0


def _sure(values):
    """Return the median of values if it is many times its error, or zero."""
    if len(values) < MIN_BLOCKS:
        return 0.0
    middle = np.median(values)
    error = 1.25 * MAD_TO_STD * np.median(np.abs(values - middle)) / np.sqrt(len(values))
    return float(middle) if abs(middle) > SURE * error else 0.0


def _root(waves):
    """Return the root of the power of waves along rows, columns and both; one of the first is no pattern."""
    rows, columns, both = waves
    return float(np.sqrt(rows**2 + columns**2 + both**2)) if both or (rows and columns) else 0.0


def find_edges(data, mask=None):
    """
    Find strips along the edges of a frame that do not see the sky, such as an overscan.

    These are at least 3 rows or columns, and at most a fifth of all, whose medians differ from those of as
    many that follow by more than the noise of a pixel, and by 8 times the scatter of the medians, within two
    lines.

    Parameters
    ----------
    data, mask : array_like, array_like of bool
        As for `~astro_ddpm.noise.estimate_sky_sigma`.

    Returns
    -------
    section : tuple of slice
        The rows and columns without these strips; all of them if there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.noise import find_edges
    >>> frame = np.random.default_rng(1).normal(0, 5, (96, 128))
    >>> frame[:, 20:] += 150  # the sky
    >>> find_edges(frame)
    (slice(0, 96, None), slice(20, 128, None))
    """
    data, valid = check_valid(data, mask)
    plane = np.where(valid, data, np.nan)
    thin_y, thin_x = (slice(None, None, max(n // MAX_WIDTH, 1)) for n in plane.shape)
    differences = np.abs(np.diff(plane[thin_y]))
    differences = differences[np.isfinite(differences)]
    noise = MAD_TO_STD * np.median(differences) / np.sqrt(2) if differences.size else np.inf
    levels = [_levels(lines) for lines in (plane[:, thin_x], plane[thin_y].T)]
    return tuple(slice(_edge(level, noise), len(level) - _edge(level[::-1], noise)) for level in levels)


def _levels(plane):
    """Return the median of each row that has enough pixels."""
    levels = np.full(len(plane), np.nan)
    enough = np.isfinite(plane).sum(axis=1) >= MIN_LINE
    levels[enough] = [np.nanmedian(line) for line in plane[enough]]
    return levels


def _edge(level, noise):
    """Return the number of the first lines whose level differs from that of those that follow."""
    best, edge = SURE, 0
    for k in range(MIN_EDGE, int(MAX_EDGE * len(level)) + 1):
        sharp = abs(level[k + RAMP] - level[k - 1])
        if not sharp > 0.7 * noise:
            continue
        (before, scatter), (after, rest) = (
            _centre(part) for part in (level[:k], level[k + RAMP : 2 * k + RAMP + MIN_BLOCKS])
        )
        step, scatter = abs(after - before), max(scatter, rest, 1e-3 * noise)
        if noise < step < sharp / 0.7 and step > best * scatter:
            best = step / scatter
            reached = np.abs(level[k : k + RAMP] - after) < step / 4
            edge = k + (int(np.argmax(reached)) if reached.any() else RAMP)
    return edge


def _centre(values):
    """Return the median of values and their scatter."""
    middle = np.nanmedian(values)
    return middle, MAD_TO_STD * np.nanmedian(np.abs(values - middle))

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A sky below zero, which the networks do not see.
"""

import numpy as np

__all__ = ["LEVEL_BLOCK", "LEVEL_RADIUS", "negative_sky"]

LEVEL_BLOCK = 8  # pixels
LEVEL_RADIUS = 11 * LEVEL_BLOCK  # of the percentiles, the Gaussian and the splines together

_WINDOW = 13  # blocks
_DOUBT = 0.15  # of the noise, where half of a level is believed


def negative_sky(z):
    r"""
    Find where the sky of a whitened image lies below zero.

    Light is not negative: a level below zero is a sky that was subtracted too high, as it happens round large
    galaxies. The level :math:`l` is found among means of 8x8 pixels. It follows from the percentiles 10 and
    30 of the 13x13 means about each as the centre of a Gaussian, so that sources hardly raise it, is smoothed
    by a Gaussian of 1.5 blocks and interpolated by quadratic splines. What lies within the doubt is left out,

    .. math:: b = \min(l, 0) \, \frac{l^4}{l^4 + 0.15^4} .

    Parameters
    ----------
    z : ndarray, shape (ny, nx)
        The image divided by its noise, without holes. Blocks are counted from its first pixel.

    Returns
    -------
    level : ndarray, shape (ny, nx)
        The level :math:`b`, zero or negative, in the dtype of the image.

    Notes
    -----
    A part of an image that begins at a multiple of 8 pixels has the level of the whole 88 pixels from its
    edges.
    """
    from scipy.ndimage import gaussian_filter, percentile_filter, uniform_filter

    block = LEVEL_BLOCK
    ny, nx = z.shape
    whole = np.pad(z, [(0, -n % block) for n in z.shape], mode="edge")
    blocks = whole.reshape(whole.shape[0] // block, block, whole.shape[1] // block, block)
    means = blocks.mean(axis=(1, 3), dtype=float)
    low, high = (percentile_filter(means, percent, _WINDOW, mode="reflect") for percent in (10, 30))
    level = high + 0.6926 * (high - low)  # the percentiles are 1.2816 and 0.5244 deviations below the centre
    level = np.minimum(gaussian_filter(level, 1.5, mode="nearest", truncate=2), 0)
    level *= level**4 / (level**4 + _DOUBT**4)
    level = level.repeat(block, axis=0).repeat(block, axis=1)
    for origin in (0, -1):  # boxes of even width, half a pixel to either side
        level = uniform_filter(level, block, mode="nearest", origin=origin)
    return level[:ny, :nx].astype(z.dtype)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A sky that is not zero, which the networks do not see.
"""

import numpy as np

__all__ = ["LEVEL_BLOCK", "LEVEL_RADIUS", "remaining_sky"]

LEVEL_BLOCK = 8  # pixels
LEVEL_RADIUS = 11 * LEVEL_BLOCK  # of the percentiles, the Gaussian and the splines together

_WINDOW = 13  # blocks
_FLAT = 0.33  # of the noise, scatter of the means of 8x8 pixels: 0.125 in white noise


def remaining_sky(z):
    r"""
    Find the level of the sky of a whitened image, where it is not zero.

    The networks learn that the sky is zero, and what lies above it is light. A sky that was subtracted too
    high or too low must not look like light or its absence.

    The level :math:`l` is found among means of 8x8 pixels. It follows from the percentiles 10 and 30 of the
    13x13 means about each as the centre of a Gaussian, so that sources hardly raise it. The distance of the
    percentiles gives the scatter :math:`s` of that Gaussian. Both are smoothed by a Gaussian of 1.5 blocks,
    and the result is interpolated by quadratic splines. Light is not negative, so a level below zero is
    always one of the sky. Above zero it may be the outskirts of a galaxy; those are not flat:

    .. math:: b = \min(l, 0) + \frac{\max(l, 0)}{1 + (s / 0.33)^8} .

    Parameters
    ----------
    z : ndarray, shape (ny, nx)
        The image divided by its noise, without holes. Blocks are counted from its first pixel.

    Returns
    -------
    level : ndarray, shape (ny, nx)
        The level :math:`b`, in the dtype of the image.

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
    low, high = (
        gaussian_filter(
            percentile_filter(means, percent, _WINDOW, mode="reflect"), 1.5, mode="nearest", truncate=2
        )
        for percent in (10, 30)
    )
    level = high + 0.6926 * (high - low)  # the percentiles are 1.2816 and 0.5244 deviations below the centre
    scatter = (high - low) / 0.7572
    level = np.where(level < 0, level, level / (1 + (scatter / _FLAT) ** 8))
    level = level.repeat(block, axis=0).repeat(block, axis=1)
    for origin in (0, -1):  # boxes of even width, half a pixel to either side
        level = uniform_filter(level, block, mode="nearest", origin=origin)
    return level[:ny, :nx].astype(z.dtype)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What measures of the noise have in common: faint pixels, and their second differences.
"""

import numpy as np

MAD_TO_STD = 1.482602218505602
LAG = 3  # pixels, at which the noise of resampled images is independent


def _lagged(array, lag):
    """Return the four corners of a ``lag`` x ``lag`` square at every position."""
    return array[lag:, lag:], array[:-lag, lag:], array[lag:, :-lag], array[:-lag, :-lag]


def check_valid(data, mask=None):
    """Return float64 data and where it is neither masked nor infinite, which must be somewhere."""
    data = np.asarray(data, float)
    valid = np.isfinite(data) if mask is None else np.isfinite(data) & ~np.asarray(mask, bool)
    if not valid.any():
        msg = "data has no valid pixel: every one is masked or not finite"
        raise ValueError(msg)
    return data, valid


def local_mean(data, valid, width):
    """Return the local mean of the valid pixels under a Gaussian."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(valid.astype(float), width)
    return gaussian_filter(np.where(valid, data, 0.0), width) / np.maximum(weight, 1e-6)


def cut_into_blocks(plane, size):
    """Return a plane, without what is left at its end, as blocks, shape (rows, columns, size, size)."""
    ny, nx = (n // size for n in plane.shape)
    return plane[: ny * size, : nx * size].reshape(ny, size, nx, size).swapaxes(1, 2)


def block_means(data, valid, size):
    """Return the means of the valid pixels of blocks, and which of them have enough."""
    counts, sums = (
        cut_into_blocks(plane, size).sum(axis=(2, 3), dtype=float)
        for plane in (valid, np.where(valid, data, 0))
    )
    return sums / np.maximum(counts, 1), counts > size**2 / 2


def faint_pixels(data, mask, fraction=0.5, width=2):
    """Mark the faintest valid pixels, by their local mean, leaving out sources and holes."""
    data, valid = check_valid(data, mask)
    level = local_mean(data, valid, width)
    return valid & (level <= np.quantile(level[valid], fraction))


def lagged_contrast(data, faint, lag):
    """Second differences of the faint pixels at a lag, scaled to the variance of one pixel."""
    a, b, c, d = _lagged(data, lag)
    return ((a - b - c + d) / 2)[np.logical_and.reduce(_lagged(faint, lag))]


def prepare_plane(data, mask, lag):
    """Return float64 data and a boolean mask, checked."""
    data = np.asarray(data, float)
    mask = None if mask is None else np.asarray(mask, bool)
    if data.ndim != 2:
        msg = f"data must be two-dimensional, not of shape {data.shape}"
        raise ValueError(msg)
    if mask is not None and mask.shape != data.shape:
        msg = f"mask has shape {mask.shape}, data has {data.shape}"
        raise ValueError(msg)
    if lag < 1 or min(data.shape) <= lag:
        msg = (
            f"lag must be at least 1 and less than the size of data {data.shape}, not {lag}; the noise of so "
            "small an image cannot be measured, give uncertainty="
        )
        raise ValueError(msg)
    return data, mask


def is_common(contrast):
    """Mark what lies within 4 standard deviations of zero."""
    return np.abs(contrast) <= 4 * MAD_TO_STD * np.median(np.abs(contrast))

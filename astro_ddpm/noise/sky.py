# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Level and noise of the sky.
"""

import numpy as np

from ._contrast import (
    LAG,
    MAD_TO_STD,
    block_means,
    check_valid,
    cut_into_blocks,
    faint_pixels,
    lagged_contrast,
    prepare_plane,
)
from .holes import constant_areas
from .whitening import whiten

__all__ = ["detect_pedestal", "estimate_sky_level", "estimate_sky_sigma", "measure_banding"]

FINE = 25.0  # steps of the second differences in one sigma, from which on their median is right to 3 percent
MIN_BANDING = 0.3  # of the noise, below which it is not told from it
MIN_CUT = 0.05  # of the pixels that have the lowest value
MIN_STEP = 1e-3  # of the scatter of values, below which their steps do not matter
MIN_SKEWNESS = 0.15  # of the noise of single pixels, where the mode is 0.06 of it below the mean
SHARED = 1.3  # times what neighbours share of the skewness is what a source of 2.5 pixels or more has
MAX_BELOW = 0.01  # of the pixels, that lie below no photon
MIN_BLOCKS = 16  # on the shorter side of a frame
MIN_LINE = 48  # valid pixels in half a row: in stamps, galaxies look like bands


def estimate_sky_sigma(data, mask=None, lag=LAG):
    r"""
    Measure the noise of the sky.

    The second differences :math:`(y_{i,j} - y_{i+l,j} - y_{i,j+l} + y_{i+l,j+l}) / 2` at lag :math:`l`
    are free of level and gradient and have the variance of one pixel wherever pixels :math:`l` apart
    are independent. Neighbours are not in resampled images, hence a lag of 3 pixels. Their median
    absolute deviation is taken over the faint half of the valid pixels.

    Some data need more:

    * Areas of one value (`~astro_ddpm.noise.constant_areas`) are missing data, and left out.
    * Where the values go in steps that are not small against the noise, the root mean square without what
      lies beyond 4 standard deviations takes the place of the median.
    * Where most pixels saw no photon or one, all pixels are compared, as where values go in steps.
    * Where a fraction :math:`p` of the pixels was cut at a lowest value, only pixels above it are compared.
      The variance of a Gaussian above its quantile :math:`z = \Phi^{-1}(p)` is
      :math:`1 + z \lambda - \lambda^2` of the whole, with :math:`\lambda = \phi(z) / (1 - p)`.
    * The scatter of the levels of rows and columns (`measure_banding`), which the differences do not see, is
      added in quadrature where it exceeds 0.3 of the rest.

    Parameters
    ----------
    data : array_like, shape (ny, nx)
        The image; pixels that are not finite are left out.

    mask : array_like of bool, shape (ny, nx), optional
        True for pixels to leave out.

    lag : int, optional
        The lag in pixels.

    Returns
    -------
    sigma : float
        The noise (1 sigma) in the unit of ``data``.

    Raises
    ------
    ValueError
        If ``data`` is not two-dimensional, smaller than the lag, without enough valid pixels, or if the
        noise measured is zero.
    """
    data, mask = prepare_plane(data, mask, lag)
    data, valid = check_valid(data, mask)
    valid &= ~constant_areas(data, valid)
    faint = faint_pixels(data, ~valid, width=max(2, 2 * lag / LAG))
    data = np.where(valid, data, 0.0)
    contrast = lagged_contrast(data, faint, lag)
    if contrast.size < 16:
        msg = "data has too few faint valid pixels to measure the noise; give uncertainty="
        raise ValueError(msg)
    sigma = _robust_std(contrast)
    if np.mean(data[faint] == data[faint].min()) > MIN_CUT:
        most = faint_pixels(data, ~valid, 0.9)
        gap = _gap(data[valid])
        if gap:
            sigma = _robust_std(lagged_contrast(data, valid, lag), gaussian=False, least=gap)
        elif _is_cut(data[most]):
            sigma = _sigma_above(data, most, lag)
    banding = np.hypot(*measure_banding(data, ~valid))
    if banding > MIN_BANDING * sigma:
        sigma = np.hypot(sigma, banding)
    if not sigma > 0:
        msg = "the noise measured in data is zero (a constant or noise-free image); give uncertainty="
        raise ValueError(msg)
    return float(sigma)


def _step(values):
    """Return the step between values that are discrete, or nearly zero if they are not."""
    values = np.unique(values[:: max(1, values.size // 10000)])
    if values.size < 2:
        return 0.0
    gaps = np.diff(values)
    return gaps[gaps > 1e-6 * (values[-1] - values[0])].min()  # smaller ones are errors of rounding


def in_steps(values):
    """Tell whether values go in steps that matter."""
    step = _step(values)
    return bool(step and step > MIN_STEP * np.std(values))


def is_discrete(values):
    """Tell whether values go in steps, or many are the lowest: those of no photon, or cut there."""
    return in_steps(values) or bool(np.mean(values == values.min()) > MIN_CUT)


def smear(values):
    """
    Spread values that go in steps evenly over their steps, as they were before they were rounded.

    The median of values in steps is off by up to half a step, the mode that is made of it by 1.25 steps.
    """
    if not in_steps(values):
        return values
    return values + _step(values) * np.random.default_rng(0).uniform(-0.5, 0.5, values.shape).astype(
        values.dtype
    )


def _gap(values):
    """Return the step from none to one of few photons, which a flat field has changed a little, or zero."""
    floor = values.min()
    above = values[values > floor]
    gap = above.min() - floor if above.size else 0.0
    return gap if gap > max(0.1 * np.std(values), 3 * _step(values)) else 0.0


def _robust_std(contrast, *, gaussian=True, least=0.0):
    """Return the standard deviation of contrasts, without sources, whether they are discrete or not."""
    if contrast.size < 16:
        return np.nan
    sigma, step = MAD_TO_STD * np.median(np.abs(contrast - np.median(contrast))), _step(contrast)
    if gaussian and sigma > FINE * step:
        return sigma
    sigma = max(sigma, step, least)
    for _ in range(20):
        before, sigma = sigma, np.sqrt(np.mean(contrast[np.abs(contrast) <= 4 * sigma] ** 2))
        if not abs(sigma - before) > 1e-3 * before:
            break
    return sigma


def _is_cut(values):
    """Tell whether values were cut at the lowest."""
    floor, spread, step = values.min(), np.std(values), _step(values)
    width = max(0.1 * spread, 1.2 * step)
    share, above = np.mean(values == floor), np.mean((values > floor) & (values <= floor + width))
    return MIN_CUT < share < 1 and share > 3 * above and spread > 3 * step


def _sigma_above(data, use, lag):
    """Return the standard deviation of a Gaussian of which only what lies above the lowest value is known."""
    from scipy.special import ndtri

    floor = data[use].min()
    share, above = np.mean(data[use] == floor), use & (data > floor)
    pairs = [(p[lag:] - p[:-lag])[q[lag:] & q[:-lag]] for p, q in ((data, above), (data.T, above.T))]
    z = ndtri(share)
    hazard = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) / (1 - share)
    return _robust_std(np.concatenate(pairs) / np.sqrt(2), gaussian=False) / np.sqrt(
        1 + z * hazard - hazard**2
    )


def measure_banding(data, mask=None, lag=LAG):
    """
    Measure by how much the levels of rows and of columns scatter.

    The medians of the left and of the right half of a row share its level, but nothing else. Of both the
    second differences :math:`m_i - (m_{i-l} + m_{i+l}) / 2` are taken, which are free of slopes. Their
    covariance is 1.5 times the variance of independent levels. The same for columns.

    Parameters
    ----------
    data, mask, lag : array_like, array_like of bool, int
        As for `estimate_sky_sigma`.

    Returns
    -------
    rows, columns : float
        Standard deviations of the levels in the unit of ``data``; 0 where they are not 5 times their error.
    """
    data, valid = check_valid(data, mask)
    plane = np.where(valid, data, np.nan)
    return _banding(plane, lag), _banding(plane.T, lag)


def _banding(plane, lag):
    """Return the scatter of the levels of rows."""
    halves = np.array_split(plane, 2, axis=1)
    enough = np.all([np.isfinite(half).sum(axis=1) >= MIN_LINE for half in halves], axis=0)
    if not enough.any():
        return 0.0
    levels = np.full((2, len(plane)), np.nan)
    levels[:, enough] = [np.nanmedian(half[enough], axis=1) for half in halves]
    bends = levels[:, lag:-lag] - (levels[:, : -2 * lag] + levels[:, 2 * lag :]) / 2
    bends = bends[:, np.isfinite(bends).all(axis=0)]
    if bends.shape[1] < 16:
        return 0.0
    bends = bends[
        :, np.all([np.abs(bend) <= 5 * MAD_TO_STD * np.median(np.abs(bend)) for bend in bends], axis=0)
    ]
    covariance = np.mean(bends[0] * bends[1])
    error = np.prod(np.std(bends, axis=1)) / np.sqrt(max(bends.shape[1], 1))
    return float(np.sqrt(covariance / 1.5)) if covariance > 5 * error else 0.0


def choose_grain(data, valid):
    r"""
    Choose the side of the blocks of pixels whose means are not skewed.

    The mode of pixels lies about :math:`0.4 \gamma \sigma` below their mean where their noise has the
    skewness :math:`\gamma`, which is :math:`1 / \sqrt{N}` for N photons. In the means of blocks of k x k
    pixels that is :math:`k^2` times less, and k makes it 0.02 of the noise of a pixel. The skewness is the
    median of that of the faintest quarter of the blocks of 16 x 16 pixels, without what neighbours share:
    sources make a skewed image too, but not everywhere and not one pixel at a time. No photon at all lies
    :math:`\sigma / \gamma` below the mean; noise that goes further down has another cause.

    Returns 1 for noise whose skewness is below 0.15.
    """
    for side in (16, 32, 64):
        blocks, use = _faintest_blocks(data, valid, side)
        scatter = np.sqrt(np.sum(blocks**2, axis=(1, 2)) / use.sum(axis=(1, 2)))
        if np.sum(scatter > 0) > scatter.size / 2:
            break
    else:
        return 1
    z, use = (plane[scatter > 0] for plane in (blocks / np.maximum(scatter, 1e-300)[:, None, None], use))
    neighbours = ((z[:, 1:], z[:, :-1]), (z[:, :, 1:], z[:, :, :-1]))
    shared = sum(np.sum(a**2 * b + a * b**2, axis=(1, 2)) / 4 for a, b in neighbours) * SHARED
    skewness = np.median((np.sum(z**3, axis=(1, 2)) - shared) / use.sum(axis=(1, 2)))
    if not skewness > max(MIN_SKEWNESS, 10 * np.sqrt(6 / valid.sum())):
        return 1
    if np.mean(z[use] < -1.2 / skewness) > MAX_BELOW:
        return 1
    return max(1, min(int(np.ceil(np.sqrt(20 * skewness))), min(data.shape) // MIN_BLOCKS))


def _faintest_blocks(data, valid, side):
    """Return the faintest quarter of the blocks of pixels, without their mean, and which pixels count."""
    means, enough = block_means(data, valid, side)
    if enough.any():
        enough &= means <= np.quantile(means[enough], 0.25)
    blocks, use = (cut_into_blocks(plane, side)[enough] for plane in (np.where(valid, data, 0.0), valid))
    return np.where(use, blocks - means[enough][:, None, None], 0.0), use


def estimate_sky_level(data, mask=None):
    """
    Level of the sky.

    The mode of the sigma-clipped pixels, estimated as 2.5 median - 1.5 mean
    (`photutils.background.SExtractorBackground`), or that of the means of blocks of pixels where their noise
    is skewed, as that of few photons is.

    Parameters
    ----------
    data, mask : array_like, array_like of bool
        As for `estimate_sky_sigma`. At least one pixel must be valid.

    Returns
    -------
    level : float
        The level, in the unit of ``data``.
    """
    from astropy.stats import SigmaClip
    from photutils.background import SExtractorBackground

    data, valid = check_valid(data, mask)
    grain = choose_grain(data, valid) if data.ndim == 2 else 1
    if grain > 1:
        data, valid = block_means(data, valid, grain)
    return float(SExtractorBackground(sigma_clip=SigmaClip(sigma=3.0, maxiters=10))(smear(data[valid])))


def detect_pedestal(data, sigma, mask=None, threshold=3.0):
    r"""
    Detect a sky level that was not subtracted.

    Around a subtracted sky some pixels lie near zero, whatever sources there are, and sources only add. So
    there is a pedestal if the 1 % quantile of :math:`y / \sigma` is above the threshold, or the median below
    minus the threshold.

    Parameters
    ----------
    data, mask : array_like, array_like of bool
        As for `estimate_sky_level`.

    sigma : array_like, shape (ny, nx) or float
        The noise (1 sigma).

    threshold : float, optional
        In units of the noise.

    Returns
    -------
    level : float
        The level of the sky in the unit of ``data``, or 0 if there is no pedestal.
    """
    data, valid = check_valid(data, mask)
    low, middle = np.quantile(whiten(data[valid], np.broadcast_to(sigma, data.shape)[valid]), [0.01, 0.5])
    return estimate_sky_level(data, mask) if low > threshold or middle < -threshold else 0.0

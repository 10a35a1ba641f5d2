# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sky, noise and holes of a whole frame, part by part.
"""

from itertools import product

import numpy as np

from astro_ddpm.tiling import make_tiles
from astro_ddpm.utils import warn_user

from .background import measure_sky, warn_of_bowls
from .correlation import independent_lag
from .holes import fill_holes
from .pixels import detect_self_noise
from .sky import MIN_BANDING, detect_pedestal, estimate_sky_sigma, is_discrete, measure_banding
from .whitening import largest_value, whiten

__all__ = ["fill_frame", "find_self_noise", "frame_sigma", "frame_sky"]

PART = 1024  # pixels on a side of the parts in which noise is measured and holes are filled
FILL_RADIUS = 128  # pixels
MIN_MEASURED = 4  # pixels round a hole
MAX_LOWEST = 0.5  # of the pixels, that have the lowest value: less than 0.7 photons per pixel
MAX_SNR = 1e15  # the networks see float32
MAX_SELF_NOISE = 0.01  # bright fluxes were off by a fifth of their error then


def _thin_out(valid):
    """Slices that leave at most ``PART`` evenly spaced pixels of each axis, mostly valid, and their step."""
    step = -(-max(valid.shape) // PART)
    starts = [range(min(step, n)) for n in valid.shape]
    grids = [(slice(y, None, step), slice(x, None, step)) for y, x in product(*starts)]
    return max(grids, key=lambda grid: valid[grid].sum()), step


def frame_sky(background, data, valid, unit):
    """
    Return the sky of a frame, a number or an image, from what a user gave.

    Parameters
    ----------
    background : None, "photutils", dict, float, `~astropy.units.Quantity` or array_like
        None for no sky, ``"photutils"`` or the options of `~astro_ddpm.noise.measure_sky` to measure it, or
        its value or image. ValueError if it is no such thing, not finite, or cannot be measured.

    data, valid : ndarray, shape (ny, nx)
        The frame, and True for pixels to measure.

    unit : `~astropy.units.Unit`
        The unit of frame and sky.
    """
    if background is None:
        return 0.0
    if isinstance(background, (str, dict)):
        return _measured_sky(background, data, valid)
    values = background if getattr(background, "unit", None) is None else background.to_value(unit)
    values = np.asarray(values, float)
    if values.shape not in ((), data.shape):
        msg = f"background has shape {values.shape}, image has {data.shape}"
        raise ValueError(msg)
    if not np.all(np.abs(values) <= largest_value(data.dtype)):
        msg = f"background must be finite everywhere, and at most {largest_value(data.dtype):g}"
        raise ValueError(msg)
    return values.astype(data.dtype)


def _measured_sky(background, data, valid):
    """Measure the sky, and warn where it is too high."""
    options = {} if background == "photutils" else background
    if isinstance(options, str) or not options.keys() <= {"box_size", "filter_size"}:
        msg = (
            "background must be None, 'photutils', a number, an image, or a dict of box_size and "
            f"filter_size, not {background!r}"
        )
        raise ValueError(msg)
    for name, value in options.items():
        sizes = np.atleast_1d(value)
        if not (np.issubdtype(sizes.dtype, np.integer) and np.all(sizes > 0)) or (
            name == "filter_size" and np.any(sizes % 2 == 0)
        ):
            msg = f"{name} of background must be positive integers, odd for filter_size, not {value!r}"
            raise ValueError(msg)
    try:
        sky, sources = measure_sky(data, valid, **options)
        sigma = _measure_sigma(data, ~valid)
    except ValueError as error:
        msg = f"background='photutils' finds too few valid pixels; give a number or an image: {error}"
        raise ValueError(msg) from error
    warn_of_bowls(data - sky, valid & ~sources, sigma)
    return sky


def frame_sigma(data, sigma, valid, unit, raw=None):
    """
    Return the noise of a frame: the given one, or that of its sky.

    Measured noise is uniform, the median of the noise of the sky (`~astro_ddpm.noise.estimate_sky_sigma`) of
    all parts where it can be measured.

    Parameters
    ----------
    data, valid : ndarray, shape (ny, nx)
        The sky-subtracted frame, and True for pixels that were measured.

    sigma : ndarray, shape (ny, nx), or None
        Its noise (1 sigma), if it is known.

    unit : `~astropy.units.Unit`
        The unit of the frame, for messages.

    raw : ndarray, shape (ny, nx), optional
        The frame with its sky. If its values go in steps, or many are the lowest, the noise is that of it.

    Raises
    ------
    ValueError
        If the noise cannot be measured, or a result would overflow with it.

    Warns
    -----
    `~astropy.utils.exceptions.AstropyUserWarning`
        If the noise was measured, if it seems to be computed from each pixel alone, if most pixels have the
        lowest value, or if the sky does not seem to be subtracted.
    """
    if sigma is None:
        value = _measure_sigma(raw if raw is not None and is_discrete(raw[valid]) else data, ~valid)
        warn_user(
            f"the image has no uncertainty: uniform noise of {_text(value, unit)} was measured in its "
            "sky. The photon noise of sources is not in it; better give uncertainty="
        )
        thin, _ = _thin_out(valid)
        banding = np.hypot(*measure_banding(data[thin], ~valid[thin]))
        if banding > MIN_BANDING * value:
            warn_user(
                f"{_text(banding, unit)} of the noise is in whole rows or columns (banding), which the "
                "networks take for structure; remove it before"
            )
        sigma = np.broadcast_to(data.dtype.type(value), data.shape)
    for tile in make_tiles(data.shape, PART):
        use = valid[tile.core]
        _check_range(data[tile.core][use], sigma[tile.core][use], largest_value(data.dtype))
    values = (data if raw is None else raw)[valid]
    share = np.mean(values == values.min())
    if share > MAX_LOWEST:
        warn_user(
            f"{share:.0%} of the pixels have the lowest value, as if they saw no photon: their noise is not "
            "Gaussian, and the networks take photons for sources. Rebin the image before "
            "(astropy.nddata.block_reduce)"
        )
    thin, _ = _thin_out(valid)
    level = detect_pedestal(data[thin], sigma[thin], ~valid[thin])
    if level:
        warn_user(
            f"the image seems to contain a sky level of {_text(level, unit)}; subtract it or use "
            "background='photutils'"
        )
    slope = find_self_noise(data, sigma, ~valid)
    if slope:
        warn_user(
            f"uncertainty rises and falls with the noise of each pixel (slope {slope:.2g}), as if computed "
            "from the counts of that pixel alone; sources will come out too faint. Smooth it with "
            "astro_ddpm.noise.smooth_sigma"
        )
    return sigma


def find_self_noise(data, sigma, mask):
    """
    Find noise that was computed from each pixel alone, so that bright fluxes suffer.

    Returns the slope by `~astro_ddpm.noise.detect_self_noise` of data and noise, measured on evenly spaced
    pixels; 0 if it is at most 0.01. ``mask`` is True for pixels to leave out.
    """
    thin, _ = _thin_out(~mask & np.isfinite(sigma))
    slope = detect_self_noise(data[thin], sigma[thin], mask[thin])
    return slope if slope > MAX_SELF_NOISE else 0.0


def _check_range(data, sigma, largest):
    """Refuse noise of valid pixels with which the result would overflow."""
    if not sigma.size:
        return
    if not (sigma.min() >= 1 / largest and sigma.max() <= largest):
        msg = f"uncertainty must be {1 / largest:g} to {largest:g}; mask other pixels, or choose another unit"
        raise ValueError(msg)
    if np.abs(whiten(data, sigma)).max() > MAX_SNR:
        msg = f"image is more than {MAX_SNR:g} times its uncertainty at valid pixels; mask them or mend it"
        raise ValueError(msg)


def _measure_sigma(data, mask):
    """Return the median of the noise of the sky of all parts where it can be measured."""
    values, failure = [], None
    for tile in make_tiles(data.shape, PART):
        try:
            part = data[tile.core], mask[tile.core]
            values.append(estimate_sky_sigma(*part, lag=independent_lag(*part)))
        except ValueError as error:
            failure = error
    if not values:
        raise failure
    return np.median(values)


def fill_frame(data, sigma, valid):
    """
    Fill the holes of a frame, of pixels where ``valid`` is False, in data and noise.

    By `~astro_ddpm.noise.fill_holes` in parts of 1024 pixels. A part without measured pixels nearby is filled
    like the frame with most of its pixels left out. A frame without holes is returned itself. Less than 4
    measured pixels raise ValueError.
    """
    if valid.all():
        return data, sigma
    planes, coarse = (data.copy(), sigma.copy()), None
    for tile in make_tiles(data.shape, PART, FILL_RADIUS):
        hole = ~valid[tile.core]
        if not hole.any():
            continue
        if valid[tile.outer].sum() >= MIN_MEASURED or max(data.shape) <= PART:
            parts = fill_holes(data[tile.outer], sigma[tile.outer], valid[tile.outer], MIN_MEASURED)
            parts = [part[tile.inner] for part in parts]
        else:
            if coarse is None:
                thin, step = _thin_out(valid)
                coarse = fill_holes(data[thin], sigma[thin], valid[thin], MIN_MEASURED)
            rows, columns = (np.arange(part.start, part.stop) // step for part in tile.core)
            parts = [plane.take(rows, 0, mode="clip").take(columns, 1, mode="clip") for plane in coarse]
        for plane, part in zip(planes, parts, strict=True):
            plane[tile.core][hole] = part[hole]
    return planes


def _text(value, unit):
    return f"{value:.4g} {unit}".strip()

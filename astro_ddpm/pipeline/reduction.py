# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement as a step between those of ccdproc.
"""

import logging
from copy import copy
from typing import Any

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty

from astro_ddpm import provenance
from astro_ddpm.core import enhance
from astro_ddpm.nddata import EnhancedCCDData, squeeze_image, std_unit
from astro_ddpm.noise import (
    detect_scatter,
    estimate_sky_sigma,
    find_self_noise,
    sigma_from_gain,
    sigma_from_uncertainty,
    smooth_sigma,
)
from astro_ddpm.utils import require, warn_user

__all__ = ["enhance_ccd", "prepare_ccd"]

log = logging.getLogger(__name__)

# EGAIN before GAIN: where a camera writes both, GAIN is the number of a setting.
KEYWORDS = {
    "gain": ("EGAIN", "GAIN", "CCDGAIN"),
    "read_noise": ("RDNOISE", "READNOIS", "RON", "ENOISE"),
    "saturation": ("SATURATE", "SATLEVEL"),
}
GAIN_UNIT = u.electron / u.adu
FRAMES = ("NCOMBINE", "NCOMB", "NIMAGES", "NCOADD", "COADDS", "STACKCNT", "NFRAMES")
MIN_SCATTER = 0.3  # of the variance: that of 23 frames
SCATTER_WIDTH = 3.0  # pixels
MAX_SATURATED = 0.2  # of the pixels, beyond which the keyword is in another unit
TOO_LARGE, TOO_SMALL = 1.5, 0.4  # noise by the gain / noise of the sky, which sources may exceed


def enhance_ccd(
    ccd: CCDData,
    *,
    gain: Any = None,
    read_noise: Any = None,
    saturation: Any = None,
    add_keyword: Any = True,
    **options: Any,
) -> EnhancedCCDData:
    r"""
    Enhance an image between other steps of a reduction.

    It composes with the functions of ccdproc. Beyond what `~astro_ddpm.enhance` does, it makes the noise of
    an image without uncertainty from gain and read noise, repairs an uncertainty that was left in adu when
    the data were turned into electrons, smooths one that was computed from each pixel alone, and masks
    saturated pixels.

    Parameters
    ----------
    ccd : `~astropy.nddata.CCDData`
        An image of shape (ny, nx), bias-subtracted and flat-fielded. It is never changed.

    gain, read_noise : float, `~astropy.units.Quantity`, str or `ccdproc.Keyword`, optional
        The gain in electron/adu and the read noise in electron, or the header keywords that hold them; by
        default the first of EGAIN, GAIN and CCDGAIN, and of RDNOISE, READNOIS, RON and ENOISE, in the header
        that is a positive number.

    saturation : float, `~astropy.units.Quantity`, str or `ccdproc.Keyword`, optional
        The level from which on pixels are masked, in the unit of the image, or the header keyword that
        holds it in adu; by default SATURATE or SATLEVEL if it is in the header and at most a fifth of the
        pixels reach it.

    add_keyword : bool, None, str, dict or `ccdproc.Keyword`, optional
        What to write to the header: with True all that is needed to repeat the step, unless
        ``ccdproc.conf.auto_logging`` is off; nothing with None or False; or just these items.

    **options
        Passed to `~astro_ddpm.enhance`.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        The enhanced image. Saturated pixels are in its mask.

    Raises
    ------
    TypeError
        If ``ccd`` is not a CCDData.

    ValueError
        If gain, read noise or saturation are no positive numbers, not in the header, or of no use because
        the image is neither in adu nor in electron; or if `~astro_ddpm.enhance` refuses.

    `~astropy.units.UnitConversionError`
        If the unit of the uncertainty is not one of the image and cannot be repaired.

    Warns
    -----
    `~astropy.utils.exceptions.AstropyUserWarning`
        If the uncertainty was repaired, and as `~astro_ddpm.enhance` warns.

    See Also
    --------
    astro_ddpm.pipeline.enhance_file : The same for files.

    Notes
    -----
    The noise of an image without uncertainty, with gain :math:`g` (1 for an image in electron) and read
    noise :math:`R`, is (for example Howell 2006, *Handbook of CCD Astronomy*, section 4.4)

    .. math:: \sigma^2 = \frac{\max(\tilde y, 0)}{g} + \left(\frac{R}{g}\right)^2

    where :math:`\tilde y` is the image, sky included, smoothed over its unmasked pixels. Where the sky was
    subtracted, as ``background=None`` says, the measured noise of the sky, unless the read noise is larger,
    takes the place of the last term. If gain or read noise are not known, `~astro_ddpm.enhance` measures the
    noise and warns.

    Noise from a gain of the header is used only if it is 0.4 to 1.5 times the noise measured in the sky.

    An uncertainty in the image (not in ``uncertainty=``) is multiplied by the gain where
    `ccdproc.cosmicray_lacosmic` did so with the data alone. Its variance is smoothed by a Gaussian of one to
    four pixels where `~astro_ddpm.noise.detect_self_noise` finds a slope of more than 0.01, as in that of
    `ccdproc.create_deviation`, and where `~astro_ddpm.noise.detect_scatter` finds more than 0.3, as in the
    scatter of N values that `ccdproc.combine` leaves; the latter is brought to the noise of the sky.
    :doc:`/pipelines` says why.

    Examples
    --------
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> from astro_ddpm.pipeline import enhance_ccd
    >>> ccd = make_galaxy_field(shape=(64, 64), n_galaxies=1, n_stars=1).image
    >>> ccd.uncertainty = None
    >>> deep = enhance_ccd(ccd, model="raunet")
    >>> deep.meta["DDPMNOIS"], deep.meta["DDPMGAIN"], deep.meta["DDPMRDN"]
    ('gain', 2.0, 5.0)
    """
    from ccdproc import conf

    prepared, record = prepare_ccd(ccd, gain, read_noise, saturation, **options)
    in_full = add_keyword is True and conf.auto_logging
    enhanced = enhance(prepared, add_keyword=in_full, **options)
    if in_full and record:
        provenance.add(enhanced.meta, record, "enhance_ccd")
    elif add_keyword and add_keyword is not True:
        provenance.add_items(enhanced.meta, add_keyword)
    return enhanced


def prepare_ccd(ccd, gain=None, read_noise=None, saturation=None, **options):
    """
    Give an image the mask and the uncertainty that `enhance_ccd`, with its parameters, gives it.

    Returns a shallow copy, and what was done as a dict.
    """
    require(isinstance(ccd, CCDData), f"ccd must be a CCDData, not {type(ccd).__name__}", TypeError)
    ccd = squeeze_image(ccd)
    must_work = gain is not None or read_noise is not None
    gain = _number("gain", gain, ccd.meta, GAIN_UNIT)
    read_noise = _number("read_noise", read_noise, ccd.meta, u.electron)
    prepared, record = copy(ccd), {}
    prepared.data = np.asarray(ccd.data)  # ccdproc 2.4 may leave a Quantity
    level = _saturation(saturation, ccd, gain)
    saturated = np.asarray(ccd.data) >= (np.inf if level is None else level)
    if saturation is None and saturated.mean() > MAX_SATURATED:
        warn_user(
            f"the saturation in the header, {level:g}, is reached by {saturated.mean():.0%} of the pixels "
            "and is not used; give saturation="
        )
        level = None
    if level is not None:
        prepared.mask = saturated if ccd.mask is None else saturated | np.asarray(ccd.mask, bool)
        record["saturation"] = level
    if ccd.uncertainty is not None:
        changes = []
        if _is_left_in_adu(ccd):
            prepared.uncertainty = _repair(prepared, gain)
            changes, record["gain"] = ["multiplied by gain"], gain
        for mend, change in ((_without_scatter, "scatter of few frames smoothed"), (_smoothed, "smoothed")):
            mended = mend(prepared)
            if mended is not None:
                prepared.uncertainty = mended
                changes.append(change)
        if changes:
            record["noise"] = ", ".join(changes)
    elif options.get("uncertainty") is None:
        found = _sigma(prepared, gain, read_noise, options.get("background"), must_work)
        if found is not None:
            sigma, gain, read_noise = found
            prepared.uncertainty = StdDevUncertainty(sigma)
            record |= {"noise": "gain"}
            record |= {"gain": gain} if ccd.unit == u.adu else {}
            record |= {"read_noise": read_noise} if read_noise is not None else {}
    return prepared, record


def _number(name, value, header, unit):
    """Return a positive number in ``unit``, looked up in the header if need be, or None."""
    if value is None:
        return _find_number(name, header, unit)
    if hasattr(value, "value_from"):
        value = value.value_from(header)
    label = name
    if isinstance(value, str):
        require(value in header, f"{name} {value!r} is not a keyword of the header")
        label, value = f"{name}, {value} in the header,", header[value]
    number = _positive(name, value, unit)
    require(number is not None, f"{label} must be a positive number in {unit}, not {value!r}")
    return number


def _find_number(name, header, unit):
    """Return the first usable number of the usual keywords in ``unit``, or None."""
    for keyword in KEYWORDS[name]:
        if keyword not in header:
            continue
        number = _positive(name, header[keyword], unit)
        if number is not None:
            return number
        report = warn_user if name == "saturation" else log.info
        report(f"{keyword} in the header is {header[keyword]!r}, no positive number, and is not used")
    return None


def _positive(name, value, unit):
    """Return a positive number in ``unit``, of a read noise also zero, or None."""
    try:
        number = np.nan if isinstance(value, bool) else u.Quantity(value, unit).value
    except TypeError:
        return None
    except ValueError:
        if isinstance(value, str):
            return None
        raise
    if np.ndim(number) or not np.isfinite(number) or number < 0 or (number == 0 and name != "read_noise"):
        return None
    return float(number)


def _saturation(saturation, ccd, gain):
    """Return the saturation level in the unit of the image, or None."""
    unit = getattr(saturation, "unit", ccd.unit)
    if saturation is None or isinstance(saturation, str) or hasattr(saturation, "value_from"):
        unit = u.one if ccd.unit == u.one else u.adu  # that of headers
    level = _number("saturation", saturation, ccd.meta, unit)
    if level is None:
        return None
    level = level * unit
    adu_to_electron = [] if gain is None else [(u.adu, u.electron, lambda x: gain * x, lambda x: x / gain)]
    if level.unit.is_equivalent(ccd.unit, adu_to_electron):
        return level.to_value(ccd.unit, adu_to_electron)
    if saturation is None:
        return None
    msg = f"saturation is in {level.unit}, the image in {ccd.unit}; give it in the unit of the image"
    raise u.UnitConversionError(msg)


def _is_left_in_adu(ccd):
    """Whether the data were turned from adu into electrons without the uncertainty."""
    unit = std_unit(ccd.uncertainty)
    return ccd.unit == u.electron and unit is not None and unit.is_equivalent(u.adu)


def _repair(ccd, gain):
    """Multiply the uncertainty by the gain, unless the data cannot have been multiplied."""
    sigma = sigma_from_uncertainty(ccd.uncertainty) * std_unit(ccd.uncertainty).to(u.adu)
    story = (
        "the image is in electron but its uncertainty in adu, as cosmicray_lacosmic of ccdproc leaves them"
    )
    require(gain is not None, f"{story}; give the gain to repair it", u.UnitConversionError)
    measured = estimate_sky_sigma(ccd.data, ccd.mask) / np.median(sigma[np.isfinite(sigma)])
    if abs(np.log(measured / gain)) > max(abs(np.log(measured)), np.log(1.25)):
        msg = (
            f"{story}. The noise of its sky is {measured:.2f} times the uncertainty, not {gain:.2f}: the "
            "data seem not to be multiplied by the gain; correct the unit of one of them"
        )
        raise u.UnitConversionError(msg)
    warn_user(f"{story}: the uncertainty is multiplied by the gain, {gain:g} electron / adu")
    return StdDevUncertainty(gain * sigma, unit=u.electron)


def _noise(ccd):
    """Return the noise of an image, None if nothing can be told of it, its unit, and the bad pixels."""
    unit, sigma = std_unit(ccd.uncertainty) or ccd.unit, sigma_from_uncertainty(ccd.uncertainty)
    bad = ~np.isfinite(ccd.data) if ccd.mask is None else ~np.isfinite(ccd.data) | ccd.mask
    # enhance refuses it, or the noise is uniform
    useless = ccd.data.ndim != 2 or sigma.shape != ccd.shape or not unit.is_equivalent(ccd.unit)
    return None if useless or not np.any(~bad & np.isfinite(sigma)) else sigma, unit, bad


def _without_scatter(ccd):
    """Return an uncertainty that is the scatter of few frames as a smooth noise; None if it is not."""
    sigma, unit, bad = _noise(ccd)
    if sigma is None or detect_scatter(sigma, bad) < MIN_SCATTER:
        return None
    typical = np.median(sigma[~bad & np.isfinite(sigma)])
    smooth = smooth_sigma(np.maximum(sigma, 1e-3 * typical), bad, SCATTER_WIDTH)
    factor = estimate_sky_sigma(ccd.data, bad) / (np.median(smooth[~bad]) * unit.to(ccd.unit))
    smooth *= factor if 0.5 < factor < 2 else 1.0
    warn_user(
        "the uncertainty is the scatter of a few values in each pixel, as ccdproc.combine leaves it: it is "
        "smoothed, and brought to the noise of the sky"
    )
    return StdDevUncertainty(smooth, unit=unit)


def _smoothed(ccd):
    """Return an uncertainty that was computed from each pixel alone, smoothed; None if it was not."""
    sigma, unit, bad = _noise(ccd)
    if sigma is None:
        return None
    smooth = sigma
    for width in (1, 2, 4):  # pixels; resampled noise needs more than one
        if not find_self_noise(ccd.data, smooth * unit.to(ccd.unit), bad):
            break
        smooth = smooth_sigma(sigma, bad, width)
    if smooth is sigma:
        return None
    log.info("the uncertainty follows the noise of every pixel, and is smoothed")
    return StdDevUncertainty(smooth, unit=unit)


def _sigma(ccd, gain, read_noise, background, must_work):
    """Return the noise from gain and read noise, and both, as far as they are known and fit, or None."""
    missing = None
    if ccd.unit not in (u.adu, u.electron):
        missing = f"an image in adu or electron, not in '{ccd.unit}'"
    elif gain is None and ccd.unit == u.adu:
        missing = "the gain"
    elif read_noise is None and background is not None:
        missing = "the read noise"
    if missing and must_work:
        msg = f"the noise cannot be made from gain and read_noise: it needs {missing}"
        raise ValueError(msg)
    if missing:
        log.info("noise not made from gain and read noise: it needs %s", missing)
        return None
    gain, measured = gain if ccd.unit == u.adu else 1.0, _sky_sigma(ccd, needed=background is None)
    for n in [1] if must_work else dict.fromkeys([1, _count_frames(ccd.meta)]):  # a mean has n times the gain
        rms = read_noise if read_noise is None else float(np.sqrt(n) * read_noise)
        floor = rms if background is not None else max(n * gain * measured, rms or 0.0)
        sigma = sigma_from_gain(ccd.data, n * gain, floor, mask=ccd.mask)
        fits = measured is None or TOO_SMALL * measured < np.median(sigma) < TOO_LARGE * measured
        if fits or must_work:
            return sigma, n * gain, rms
    warn_user(
        f"the noise of the sky is {measured:.4g} {ccd.unit}, but gain and read noise in the header say "
        f"{np.median(sigma):.4g}: the gain, perhaps a setting of the camera, is not used"
    )
    return None


def _sky_sigma(ccd, *, needed):
    """Return the noise of the sky, or None if it cannot be measured and is not needed."""
    try:
        return estimate_sky_sigma(ccd.data, ccd.mask)
    except ValueError:
        if needed:
            raise
        return None


def _count_frames(header):
    """Return of how many frames a header says that they were combined."""
    for keyword in FRAMES:
        number = _positive("frames", header.get(keyword), u.one)
        if number is not None and number >= 1:
            return number
    return 1

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Photometry on enhanced images, with errors from the posterior samples.
"""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import astropy
import astropy.units as u
import numpy as np
import photutils
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import QTable
from photutils.aperture import Aperture, SkyAperture

import astro_ddpm
from astro_ddpm.nddata import EnhancedCCDData, _std_in_unit, image_wcs

__all__ = ["aperture_photometry"]

_QUANTILES = {"flux_q16": 0.16, "flux_q50": 0.50, "flux_q84": 0.84}
_KEYWORDS = {"model": "DDPMMODL", "model_sha256": "DDPMSHA", "depth": "DDPMDEP"}
_DESCRIPTIONS = {
    "id": "Aperture number, from 1",
    "x": "Column of the aperture center; pixel centers are integers, from 0",
    "y": "Row of the aperture center; pixel centers are integers, from 0",
    "sky_center": "Sky position of the aperture center",
    "flux": "Sum of the data in the aperture",
    "flux_err": "Error of flux; flux_err in the metadata says what it was made from",
    "flux_q16": "16 % quantile of the sums of the samples",
    "flux_q50": "Median of the sums of the samples",
    "flux_q84": "84 % quantile of the sums of the samples",
}


def aperture_photometry(
    enhanced: CCDData,
    apertures: Aperture | list[Aperture],
    *,
    mask: np.ndarray | None = None,
    scene: bool = False,
) -> QTable:
    r"""
    Sum an enhanced image, and all its samples, in apertures.

    The error of a flux is the standard deviation of the sums of the
    samples. Neighboring pixels of an enhanced image are correlated, so
    an error that is added up from the uncertainty plane is too small;
    the samples contain the covariances.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The image, shape ``(ny, nx)``, as `~astro_ddpm.enhance` returns it,
        with its samples of shape ``(n, ny, nx)``. Any other
        `~astropy.nddata.CCDData` will do, such as the input of the
        enhancement to compare with.

    apertures : `~photutils.aperture.Aperture` or list of it
        The apertures, in pixel or sky coordinates. All apertures of a
        list must have the same positions.

    mask : array_like of bool, optional
        Pixels to leave out, shape ``(ny, nx)``; `True` means left out.
        The mask of ``enhanced`` is **not** used by default: it marks the
        pixels that were masked in the input and that the posterior has
        filled (unless it was made with ``mask_treatment="propagate"``;
        then it is used). To leave them out give ``mask=enhanced.mask``, which
        for an image that was not enhanced is most often the right choice.
        Pixels that are not finite are left out anyway.

    scene : bool, optional
        Whether ``flux_err`` is the error of the noise-free scene, to be compared
        with a truth without noise, rather than that of an exposure of the
        depth of the samples. The quantiles are always those of an exposure.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per position, with the columns

        * ``id``: the number of the position, from 1.
        * ``x``, ``y``: the center in pixels.
        * ``sky_center``: the center on the sky, if there is a celestial
          WCS.
        * ``flux``: the sum of the data in the unit of the image, NaN
          where no valid pixel is in the aperture.
        * ``flux_err``: its error, see Notes; missing if there are neither
          samples nor an uncertainty.
        * ``flux_q16``, ``flux_q50``, ``flux_q84``: quantiles of the sums
          of the samples, if there are samples. Those of few samples lie
          too close together: between the outer two of 16 samples are 61 %
          of the posterior, not 68. For an interval take ``flux_err``.

        If ``apertures`` is a list, the names of flux columns end with
        ``_0``, ``_1`` and so on. The metadata name the versions of the
        software, the model and its checksum, the depth, the apertures
        and what the errors are made of.

    Raises
    ------
    TypeError
        If ``enhanced`` or ``apertures`` is of the wrong class.

    ValueError
        If sky apertures meet an image without WCS, positions differ
        between apertures, ``mask`` or the samples do not have the
        shape of the image, or ``scene`` is asked of samples without an uncertainty.

    Notes
    -----
    A pixel :math:`i` counts with the part :math:`w_i` of its area that
    lies in the aperture, and only pixels in the image count. The error is

    .. math::

        \sigma_F^2 = \frac{1}{n - 1} \sum_{s=1}^{n}
            \left(F_s - \langle F \rangle\right)^2,
        \qquad F_s = \sum_i w_i x_{s, i}

    over the :math:`n` samples :math:`x_s`. Each sample is what an exposure
    of finite depth would show, with the noise of that exposure. So
    ``flux_err`` is the error of a prediction of what such an exposure would
    measure. The depth, its noise in units of the noise of the input, is the
    header keyword DDPMDEP and ``depth`` in the metadata of the table. The
    relative error of ``flux_err`` itself is about
    :math:`1 / \sqrt{2 (n - 1)}`: 18 % for 16 samples.

    With ``scene=True`` the noise of the exposure is taken out. It is independent
    from pixel to pixel, so it is in the variances of the samples but not in
    their covariances, and the uncertainty plane :math:`u_i` of an enhanced image
    is free of it:

    .. math::

        \sigma_\mathrm{scene}^2 = \sigma_F^2 - \sum_i w_i^2
            \left(\mathrm{Var}_s(x_{s, i}) - u_i^2\right)
            \geq \sum_i w_i^2 u_i^2 ,

    the variances from the plane and the covariances from the samples. The limit,
    which is that of no covariance, applies if few samples scatter below it.

    With fewer than two samples :math:`\sigma_F^2 = \sum_i w_i^2
    \sigma_i^2` from the uncertainty plane, **which ignores the covariance
    between pixels**: for an enhanced image it is a lower limit. The metadata
    entry ``flux_err`` is ``'samples'`` or ``'uncertainty'`` accordingly.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData, StdDevUncertainty
    >>> from astro_ddpm.evaluation import aperture_photometry
    >>> from photutils.aperture import CircularAperture
    >>> sigma = StdDevUncertainty(np.full((32, 32), 0.5))
    >>> image = CCDData(np.ones((32, 32)), unit="adu", uncertainty=sigma)
    >>> table = aperture_photometry(image, CircularAperture((15, 16), r=4))
    >>> print(table["flux"][0].round(2), table["flux_err"][0].round(2))
    50.27 adu 3.38 adu
    """
    data, sigma, samples = unpack(enhanced)
    samples = None if samples is None or len(samples) < 2 else samples
    check_scene(scene, sigma, samples)
    valid = valid_pixels(mask, data.shape) & usable_pixels(enhanced, data, sigma, samples)
    single = not isinstance(apertures, list | tuple)
    given = [apertures] if single else list(apertures)
    wcs = image_wcs(enhanced.wcs)
    pixel_apertures = _to_pixel(given, wcs)

    table = _position_table(pixel_apertures[0], wcs)
    table.meta.update(provenance(enhanced, sigma, samples))
    table.meta["scene"] = bool(scene)
    table.meta["apertures"] = [_describe(aperture) for aperture in given]
    for number, aperture in enumerate(pixel_apertures):
        for name, values in _measure(aperture, data, sigma, samples, valid, scene).items():
            column = name if single else f"{name}_{number}"
            table[column] = values * enhanced.unit
            table[column].info.description = _DESCRIPTIONS[name]
    return table


def unpack(enhanced, name="enhanced"):
    """
    Take an image apart.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The image, shape ``(ny, nx)``.

    name : str, optional
        What error messages call it.

    Returns
    -------
    data : `~numpy.ndarray`
        The data, shape ``(ny, nx)``, as float64.

    sigma : `~numpy.ndarray` or `None`
        The standard deviation in the unit of the data.

    samples : `~numpy.ndarray` or `None`
        The samples, shape ``(n, ny, nx)``.

    Raises
    ------
    TypeError
        If ``enhanced`` is not a `~astropy.nddata.CCDData`.

    ValueError
        If ``enhanced`` is not two-dimensional or its samples have another
        shape.
    """
    if not isinstance(enhanced, CCDData):
        msg = f"{name} must be a CCDData, got {type(enhanced).__name__}"
        raise TypeError(msg)
    data = np.asarray(enhanced.data, float)
    if data.ndim != 2:
        msg = f"{name} must be two-dimensional, got shape {data.shape}"
        raise ValueError(msg)
    sigma = standard_deviation(enhanced)
    samples = getattr(enhanced, "samples", None)
    if samples is not None:
        samples = np.asarray(getattr(samples, "value", samples))
        if samples.ndim != 3 or samples.shape[1:] != data.shape:
            msg = f"{name} has samples of shape {samples.shape} for data of shape {data.shape}"
            raise ValueError(msg)
    return data, sigma, samples


def standard_deviation(image):
    """
    Return the standard deviation of an image in the unit of its data.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData`
        The image, with an uncertainty of any class and unit, or without.

    Returns
    -------
    sigma : `~numpy.ndarray` or `None`
        The standard deviation as float64, or `None` without uncertainty.
        Pixels of zero inverse variance are infinite.
    """
    if image.uncertainty is None:
        return None
    return _std_in_unit(image.uncertainty, image.unit, image.shape)


def usable_pixels(image, data, sigma, samples):
    """
    Return the pixels of an image of which something is known.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData`
        The image.

    data, sigma, samples : `~numpy.ndarray` or `None`
        What `unpack` made of it.

    Returns
    -------
    valid : `~numpy.ndarray` of bool
        False for what is not finite, and for masked pixels that an enhancement has left as they were.
    """
    valid = np.isfinite(data)
    if sigma is not None:
        valid &= np.isfinite(sigma)
    for sample in () if samples is None else samples:
        valid &= np.isfinite(sample)
    is_filled = image.meta.get("DDPMMASK") != "propagate"
    if image.mask is not None and isinstance(image, EnhancedCCDData) and not is_filled:
        valid &= ~np.asarray(image.mask, bool)
    return valid


def valid_pixels(mask, shape):
    """
    Return the pixels that a mask does not exclude.

    Parameters
    ----------
    mask : array_like of bool or `None`
        True for pixels to leave out.

    shape : tuple of int
        The shape of the image.

    Returns
    -------
    valid : `~numpy.ndarray` of bool
        True for pixels to use.

    Raises
    ------
    ValueError
        If ``mask`` has another shape.
    """
    if mask is None:
        return np.ones(shape, bool)
    mask = np.asarray(mask, bool)
    if mask.shape != shape:
        msg = f"mask must have the shape {shape} of the image, got {mask.shape}"
        raise ValueError(msg)
    return ~mask


def _to_pixel(apertures, wcs):
    """Return pixel apertures with identical positions."""
    for aperture in apertures:
        if not isinstance(aperture, Aperture):
            msg = f"apertures must be photutils apertures, got {type(aperture).__name__}"
            raise TypeError(msg)
    if not apertures:
        msg = "apertures must not be empty"
        raise ValueError(msg)
    on_sky = [isinstance(aperture, SkyAperture) for aperture in apertures]
    if any(on_sky) and wcs is None:
        msg = "apertures in sky coordinates need an image with a WCS"
        raise ValueError(msg)
    pixel = [
        aperture.to_pixel(wcs) if sky else aperture for aperture, sky in zip(apertures, on_sky, strict=True)
    ]
    first = np.atleast_2d(pixel[0].positions)
    for aperture in pixel[1:]:
        other = np.atleast_2d(aperture.positions)
        if other.shape != first.shape or not np.allclose(other, first, rtol=0, atol=1e-6):
            msg = "apertures in a list must all have the same positions"
            raise ValueError(msg)
    return pixel


def _position_table(aperture, wcs):
    """Return a table with the identity and the position of every row."""
    x, y = np.atleast_2d(aperture.positions).T
    table = QTable({"id": np.arange(1, len(x) + 1), "x": x * u.pix, "y": y * u.pix})
    sky = None if wcs is None else wcs.pixel_to_world(x, y)
    if isinstance(sky, SkyCoord):
        table["sky_center"] = sky
    for name in table.colnames:
        table[name].info.description = _DESCRIPTIONS[name]
    return table


def provenance(enhanced, sigma, samples):
    """
    Say what made a table, as text and numbers.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The image that was measured.

    sigma, samples : `~numpy.ndarray` or `None`
        What its errors come from: samples rather than standard deviations.

    Returns
    -------
    meta : dict
        Date, versions, model and checksum, and the origin of the errors.
    """
    modules = {"astro_ddpm": astro_ddpm, "photutils": photutils, "astropy": astropy, "numpy": np}
    meta = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": {name: module.__version__ for name, module in modules.items()},
    }
    meta |= {name: enhanced.meta[key] for name, key in _KEYWORDS.items() if key in enhanced.meta}
    if samples is not None:
        meta |= {"flux_err": "samples", "n_samples": len(samples)}
    elif sigma is not None:
        meta["flux_err"] = "uncertainty"
    return meta


def check_scene(scene, sigma, samples):
    """
    Raise an error if the noise of the exposure cannot be taken out of the samples.

    Parameters
    ----------
    scene : bool
        Whether it is to be.

    sigma, samples : `~numpy.ndarray` or `None`
        What the errors come from.

    Raises
    ------
    ValueError
        If there are samples but no uncertainty.
    """
    if scene and samples is not None and sigma is None:
        msg = "scene=True needs the uncertainty of the image beside its samples"
        raise ValueError(msg)


def scene_variance(total, pixels, scene):
    """
    Take the noise of the exposure out of the variance of weighted sums.

    Parameters
    ----------
    total : `~numpy.ndarray`
        The variance of the sums over the samples.

    pixels : `~numpy.ndarray`
        What it would be without covariances: the variances of the pixels of the samples, times the
        squares of their weights, summed.

    scene : `~numpy.ndarray`
        The same for the variances of the noise-free scene.

    Returns
    -------
    variance : `~numpy.ndarray`
        As `aperture_photometry` derives it.
    """
    return np.maximum(total - (pixels - scene), scene)


def _describe(aperture):
    """Return class and size of an aperture, without its positions."""
    names = [name for name in inspect.signature(type(aperture)).parameters if name != "positions"]
    sizes = ", ".join(f"{name}={getattr(aperture, name)}" for name in names)
    return f"{type(aperture).__name__}({sizes})"


def _measure(aperture, data, sigma, samples, valid, scene):
    """Return the columns that one aperture gives, each of shape ``(n_positions,)``."""
    weights = aperture.to_mask(method="exact")
    weights = [weights] if aperture.isscalar else weights
    columns = {"flux": _sums(data[np.newaxis], weights, valid)[0]}
    if samples is not None:
        sums = _sums(samples, weights, valid)
        variance = sums.var(axis=0, ddof=1)
        if scene:
            pixels = np.stack([samples.var(axis=0, ddof=1), sigma**2])
            variance = scene_variance(variance, *_sums(pixels, weights, valid, power=2))
        columns["flux_err"] = np.sqrt(variance)
        columns |= {name: np.quantile(sums, q, axis=0) for name, q in _QUANTILES.items()}
    elif sigma is not None:
        columns["flux_err"] = np.sqrt(_sums(sigma[np.newaxis] ** 2, weights, valid, power=2)[0])
    return columns


def _sums(planes, weights, valid, *, power=1):
    """Return weighted sums, shape ``(n_planes, n_positions)``, NaN where no pixel is valid."""
    sums = np.full((len(planes), len(weights)), np.nan)
    for column, weight in enumerate(weights):
        inside, part = weight.get_overlap_slices(valid.shape)
        if inside is None:
            continue
        use = valid[inside] & (weight.data[part] > 0)
        if use.any():
            values = planes[(slice(None), *inside)][:, use].astype(float)
            sums[:, column] = values @ weight.data[part][use] ** power
    return sums

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
import scipy
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import QTable
from photutils.aperture import Aperture, SkyAperture

import astro_ddpm
from astro_ddpm.nddata import Exposure
from astro_ddpm.utils import require

__all__ = ["aperture_photometry"]

_QUANTILES = {"flux_q16": 0.16, "flux_q50": 0.50, "flux_q84": 0.84}
_KEYWORDS = {"model": "DDPMMODL", "model_sha256": "DDPMSHA", "noise_ratio": "DDPMDEP"}
_KEYWORDS |= {"n_samples": "DDPMNSAM"}
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
    scene: bool = True,
) -> QTable:
    r"""
    Sum an enhanced image, and all its samples, in apertures.

    The error of a flux is the standard deviation of the sums of the samples, which contain the covariances of
    pixels; an error that is added up from the uncertainty plane is too small.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The image, shape ``(ny, nx)``, as `~astro_ddpm.enhance` returns or takes it.

    apertures : `~photutils.aperture.Aperture` or list of it
        The apertures, in pixel or sky coordinates. All apertures of a list must have the same positions.

    mask : array_like of bool, optional
        More pixels to leave out, shape ``(ny, nx)``, than those that are not finite and the masked ones of an
        image that was not enhanced. Those of an enhanced image were filled and count, unless it was made with
        ``mask_treatment="propagate"``; ``mask=enhanced.mask`` leaves them out.

    scene : bool, optional
        Whether ``flux_err`` is the error of the flux of the noise-free scene. If `False`, it is the error of
        what an exposure with the noise ratio of the samples would measure. The quantiles are always those of
        an exposure.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per position, with the columns

        * ``id``: the number of the position, from 1.
        * ``x``, ``y``: the center in pixels.
        * ``sky_center``: the center on the sky, if there is a celestial WCS.
        * ``flux``: the sum of the data in the unit of the image, NaN where no valid pixel is in the aperture.
        * ``flux_err``: its error, see Notes; missing if there are neither samples nor an uncertainty.
        * ``flux_q16``, ``flux_q50``, ``flux_q84``: quantiles of the sums of the samples, if there are any.
          Between the outer two of 16 samples are 61 % of the posterior, not 68: for an interval take
          ``flux_err``.

        If ``apertures`` is a list, the names of flux columns end with ``_0``, ``_1`` and so on. The metadata
        name the versions of the software, the model and its checksum, the noise ratio, the apertures and what
        the errors are made of.

    Raises
    ------
    TypeError
        If ``enhanced`` is no image or ``apertures`` are no apertures.

    ValueError
        If sky apertures meet an image without WCS, positions differ between apertures, ``mask`` or the
        samples do not have the shape of the image, or ``scene=True`` meets samples without an uncertainty.

    Notes
    -----
    A pixel :math:`i` counts with the part :math:`w_i` of its area that lies in the aperture. The error is

    .. math::

        \sigma_F^2 = \frac{1}{n - 1} \sum_{s=1}^{n}
            \left(F_s - \langle F \rangle\right)^2,
        \qquad F_s = \sum_i w_i x_{s, i}

    over the :math:`n` samples :math:`x_s`. Each sample has the noise of a deep exposure, so this is the error
    for ``scene=False``. That noise in units of the noise of the input is the header keyword DDPMDEP and
    ``noise_ratio`` in the metadata of the table. The relative error of ``flux_err`` itself is about
    :math:`1 / \sqrt{2 (n - 1)}`: 18 % for 16 samples.

    With ``scene=True`` the noise of the exposure is taken out. It is in the variances of the samples but not
    in their covariances, nor in the uncertainty plane :math:`u_i` of an enhanced image:

    .. math::

        \sigma_\mathrm{scene}^2 = \sigma_F^2 - \sum_i w_i^2
            \left(\mathrm{Var}_s(x_{s, i}) - u_i^2\right)
            \geq \sum_i w_i^2 u_i^2 ,

    where the lower limit, that of no covariance, applies if few samples scatter below it.

    With fewer than two samples :math:`\sigma_F^2 = \sum_i w_i^2 \sigma_i^2` from the uncertainty plane,
    **which ignores the covariance between pixels**: for an enhanced image it is a lower limit. The metadata
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
    image = Exposure.parse(enhanced, name="enhanced").leave_out(mask)
    samples = usable_samples(image, scene)
    single = not isinstance(apertures, list | tuple)
    given = [apertures] if single else list(apertures)
    pixel_apertures = _to_pixel(given, image.wcs)

    table = _position_table(pixel_apertures[0], image.wcs)
    table.meta |= provenance(image.ccd.meta) | error_origin(image, samples)
    table.meta |= {"scene": bool(scene), "apertures": [_describe(aperture) for aperture in given]}
    for number, aperture in enumerate(pixel_apertures):
        for name, values in _measure(aperture, image, samples, scene).items():
            column = name if single else f"{name}_{number}"
            table[column] = values * image.unit
            table[column].info.description = _DESCRIPTIONS[name]
    return table


def _to_pixel(apertures, wcs):
    """Return pixel apertures with identical positions."""
    for aperture in apertures:
        if not isinstance(aperture, Aperture):
            msg = f"apertures must be photutils apertures, got {type(aperture).__name__}"
            raise TypeError(msg)
    require(apertures, "apertures must not be empty")
    on_sky = [isinstance(aperture, SkyAperture) for aperture in apertures]
    require(not any(on_sky) or wcs is not None, "apertures in sky coordinates need an image with a WCS")
    pixel = [each.to_pixel(wcs) if sky else each for each, sky in zip(apertures, on_sky, strict=True)]
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


def usable_samples(image, scene):
    """Return the samples of an `Exposure`, None if there are fewer than two; refuse what ``scene`` lacks."""
    samples = None if image.samples is None or len(image.samples) < 2 else image.samples
    if scene and samples is not None and image.sigma is None:
        msg = f"scene=True needs the uncertainty of {image.name} beside its samples; or set scene=False"
        raise ValueError(msg)
    return samples


def provenance(header):
    """Return date, versions of the software, and what a header says of the model."""
    versions = {module.__name__: module.__version__ for module in (astro_ddpm, photutils, astropy, np, scipy)}
    meta = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "version": versions}
    return meta | {name: header[key] for name, key in _KEYWORDS.items() if key in header}


def error_origin(image, samples):
    """Return what the errors of fluxes on an `Exposure` are made from."""
    if samples is not None:
        return {"flux_err": "samples", "n_samples": len(samples)}
    return {} if image.sigma is None else {"flux_err": "uncertainty"}


def scene_variance(total, pixels, scene):
    """
    Take the noise of the exposure out of the variance ``total`` of weighted sums over the samples.

    ``pixels`` is the variance without covariances, from the variances of the pixels of the samples, and
    ``scene`` the same from the variances of the noise-free scene; see `aperture_photometry`.
    """
    return np.maximum(total - (pixels - scene), scene)


def _describe(aperture):
    """Return class and size of an aperture, without its positions."""
    names = [name for name in inspect.signature(type(aperture)).parameters if name != "positions"]
    sizes = ", ".join(f"{name}={getattr(aperture, name)}" for name in names)
    return f"{type(aperture).__name__}({sizes})"


def _measure(aperture, image, samples, scene):
    """Return the columns that one aperture gives, each of shape ``(n_positions,)``."""
    weights = aperture.to_mask(method="exact")
    weights = [weights] if aperture.isscalar else weights
    columns = {"flux": _sums(image.data[np.newaxis], weights, image.valid)[0]}
    variances = None if image.sigma is None else image.sigma[np.newaxis].astype(float) ** 2
    if samples is not None:
        sums = _sums(samples, weights, image.valid)
        variance = sums.var(axis=0, ddof=1)
        if scene:
            pixels = np.concatenate([samples.var(axis=0, ddof=1, dtype=float)[np.newaxis], variances])
            variance = scene_variance(variance, *_sums(pixels, weights, image.valid, power=2))
        columns["flux_err"] = np.sqrt(variance)
        columns |= {name: np.quantile(sums, q, axis=0) for name, q in _QUANTILES.items()}
    elif variances is not None:
        columns["flux_err"] = np.sqrt(_sums(variances, weights, image.valid, power=2)[0])
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

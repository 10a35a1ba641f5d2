# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fluxes, sizes and shapes of sources, beside those of a reference.
"""

from __future__ import annotations

import warnings
from functools import partial

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.stats import gaussian_fwhm_to_sigma
from astropy.table import QTable
from photutils.aperture import CircularAperture, EllipticalAperture
from photutils.segmentation import SegmentationImage, SourceCatalog, deblend_sources, detect_sources
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import gaussian_filter

from astro_ddpm.nddata import Exposure
from astro_ddpm.noise import estimate_sky_sigma
from astro_ddpm.utils import require, warn_user

from . import morphology
from .photometry import error_origin, provenance, scene_variance, usable_samples

__all__ = ["recovered_photometry"]

_THRESHOLD = 1.5  # noise of the reference
_SMOOTHING = 3.0  # FWHM in pixels
_CONTRAST = 0.005
_N_ANNULI = 8
_N_RADII = 30
_N_REALIZATIONS = 32
_DESCRIPTIONS = {
    "label": "Number of the source in the segmentation",
    "x": "Column of the centroid in the reference; pixel centers are integers, from 0",
    "y": "Row of the centroid in the reference; pixel centers are integers, from 0",
    "sky_centroid": "Sky position of the centroid in the reference",
    "area": "Pixels of the segment that are valid",
    "kron_semimajor": "Semi-major axis of the Kron aperture",
    "kron_semiminor": "Semi-minor axis of the Kron aperture",
    "profile_radius": "Semi-major axis at the middle of each annulus",
    "position_angle": "Angle of the major axis, from north through east",
}
_QUANTITIES = {
    "segment_flux": "Isophotal flux, the sum over the segment",
    "kron_flux": "Sum in the Kron aperture",
    "magnitude": "Magnitude of kron_flux",
    "half_light_radius": "Radius of the circle with half of kron_flux",
    "ellipticity": "One minus the axis ratio, from second moments in the segment",
    "orientation": "Angle of the major axis, counterclockwise from the x axis",
    "concentration": "5 log10(r80 / r20), from circles with 20 % and 80 % of kron_flux",
    "asymmetry": "Difference from the source turned by 180 deg, in the Kron aperture",
    "gini": "Gini coefficient of the segment",
    "m20": "Logarithm of the second moment of the brightest 20 % of the segment over that of all",
    "profile": "Mean surface brightness in elliptical annuli of the Kron aperture",
}
_SUFFIXES = {
    "": "",
    "_err": "; its error",
    "_reference": "; in the reference",
    "_reference_err": "; its error in the reference",
    "_difference": "; image minus reference",
    "_pull": "; difference over the error of the difference",
}


class NoSourceError(ValueError):
    """
    The reference shows no source to measure.
    """


def recovered_photometry(
    image: CCDData,
    reference: CCDData,
    *,
    segmentation: SegmentationImage | np.ndarray | None = None,
    threshold: u.Quantity | np.ndarray | float | None = None,
    n_pixels: int = 10,
    mask: np.ndarray | None = None,
    zero_point: float | None = None,
    scene: bool = True,
) -> QTable:
    r"""
    Measure the sources of a reference on an image, and compare.

    Sources are detected, deblended and given their apertures on the reference. The same pixels are then
    measured on the reference, on the image and on every sample of the image.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData`
        The sky-subtracted image, shape ``(ny, nx)``, as `~astro_ddpm.enhance` returns or takes it.

    reference : `~astropy.nddata.CCDData`
        A deeper exposure on the same pixels and with the same PSF, or the noise-free truth of a simulation. A
        reference without uncertainty is taken as free of noise, and one without unit as in that of ``image``.

    segmentation : `~photutils.segmentation.SegmentationImage` or array_like of int, optional
        The segments of the sources, shape ``(ny, nx)``, 0 for the sky. By default they are detected by
        `~photutils.segmentation.detect_sources` and `~photutils.segmentation.deblend_sources`.

    threshold : `~astropy.units.Quantity`, array_like or float, optional
        The threshold of detection in the unit of ``image``, a number or one for each pixel, for the reference
        smoothed by a Gaussian of 3 pixels FWHM. By default 1.5 times the noise of the reference before that;
        a truth without noise needs a threshold.

    n_pixels : int, optional
        The least number of connected pixels of a source.

    mask : array_like of bool, optional
        More pixels to leave out, as for `aperture_photometry`, than those that the reference masks.

    zero_point : float, optional
        The magnitude of a flux of 1 in the unit of ``image``; without it there are no magnitudes.

    scene : bool, optional
        Whether ``image`` estimates the noise-free scene: quantities are measured on its data, and the noise
        of the samples is taken out of the errors of fluxes. If `False` it estimates an exposure with the
        noise ratio of the samples: quantities are the means over the samples.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per source, with the columns

        * ``label``, ``x``, ``y``, ``area``, ``kron_semimajor``, ``kron_semiminor``, and
          ``sky_centroid`` if there is a celestial WCS: the source in the reference.
        * ``segment_flux``, ``kron_flux``: isophotal flux and flux in the Kron aperture; ``magnitude`` of the
          latter.
        * ``half_light_radius``, ``ellipticity``, ``orientation`` (and ``position_angle`` on the sky),
          ``concentration``, ``asymmetry``, ``gini``, ``m20``: size and shape, see Notes.
        * ``profile``: the mean surface brightness in 8 elliptical annuli of equal width out to the edge of
          the Kron aperture, at ``profile_radius``, shape ``(n_sources, 8)``.

        Each quantity has companions: ``_err``, its error; ``_reference`` and ``_reference_err``, the same in
        the reference; ``_difference``, image minus reference; ``_pull``, the difference divided by its error.
        What cannot be measured is NaN. Columns of unknown errors are missing. The metadata are those of
        `aperture_photometry`.

    Raises
    ------
    TypeError
        If ``image`` or ``reference`` is no image.

    ValueError
        If shapes do not match, there is no source in the reference or none with a Kron aperture,
        ``scene=True`` meets samples without uncertainty, or ``scene=False`` an image without samples.

    `~astropy.units.UnitConversionError`
        If units do not fit.

    Warns
    -----
    `~astropy.utils.exceptions.AstropyUserWarning`
        If a source is left out because it has no Kron aperture, or sources cover most of the image because
        the reference has no noise to set the threshold by.

    Notes
    -----
    **Errors.** If there are samples, the error of a quantity is the standard deviation of its values on the
    samples, which are deep exposures with their noise. With ``scene=True`` that noise is taken out of the
    errors of sums (fluxes, magnitudes and profiles), as `aperture_photometry` describes; the errors of sizes
    and shapes contain it and are upper limits for the scene.

    Without samples, errors of sums come from the uncertainty, **without covariance between pixels**, and
    those of sizes and shapes from 32 realisations of the noise on top of the image: too small for an enhanced
    image.

    **Pulls.** The error of a difference is that of the image and of the reference in quadrature,

    .. math:: \frac{q - q_\mathrm{ref}}{\sqrt{\sigma^2 + \sigma_\mathrm{ref}^2}} .

    With ``scene=False`` the noise of the exposure is in the samples already, and the pull is
    :math:`(q - q_\mathrm{ref}) / \sigma`: the reference should then have the noise ratio of the samples
    (``noise_ratio`` of `~astro_ddpm.enhance`). With :math:`n` samples pulls of a perfect posterior have a
    standard deviation of about :math:`\sqrt{(1 + 1 / n) (n - 1) / (n - 3)}`, which is 1.11 for 16.

    **Shapes depend on noise.** Compare Gini, M20, asymmetry and concentration of an exposure with the noise
    ratio of the samples with ``scene=False``, and those of the truth of a simulation with ``scene=True``,
    which subtracts the part of known independent noise in the asymmetry of an exposure.

    **Definitions.** Ellipticity and orientation: from the second moments of the segment about its centroid
    (Bertin and Arnouts 1996), negative pixels included. Concentration: :math:`5 \log_{10} (r_{80} / r_{20})`
    (Bershady, Jangren and Conselice 2000), of the flux in the Kron aperture. Asymmetry: Conselice (2003), in
    the Kron aperture about the point for which that of the reference is least. Gini and M20: Lotz, Primack
    and Madau (2004), in the segment. None is corrected for the PSF.

    **Pixels.** In the Kron aperture, its annuli and the circles, pixels that are left out and those of other
    sources are replaced by their opposites about the centroid, as `~photutils.segmentation.SourceCatalog`
    does. In segments they are missing, and from the asymmetry they are left out with their opposites.

    Examples
    --------
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> from astro_ddpm.evaluation import recovered_photometry
    >>> field = make_galaxy_field((64, 64), n_galaxies=1, n_stars=0, n_companions=0)
    >>> table = recovered_photometry(field.image, field.deep_exposure(0.1), zero_point=25)
    >>> table["kron_flux"].unit, table["magnitude"].unit, table["half_light_radius"].unit
    (Unit("adu"), Unit("mag"), Unit("pix"))
    """
    measured = Exposure.parse(image, name="image").leave_out(mask)
    truth = Exposure.parse(reference, name="reference", unit=measured.unit)
    require(measured.shape == truth.shape, f"reference has shape {truth.shape}, image has {measured.shape}")
    samples = usable_samples(measured, scene)
    require(scene or samples is not None, "scene=False needs an image with at least two samples")
    valid = measured.valid & truth.valid
    origin = {"segmentation": "detected" if segmentation is None else "given", "n_pixels": n_pixels}
    if segmentation is None:
        segmentation = _detect(truth, valid, _threshold(threshold, truth, valid), n_pixels)
        covered = np.count_nonzero(segmentation.data[valid]) / valid.sum()
        if threshold is None and truth.sigma is None and covered > 0.5:
            warn_user(f"sources cover {covered:.0%} of the image; give the threshold of their detection")
    sources = _sources(segmentation, np.where(valid, truth.data, 0.0), valid)
    rows = [_compare(source, measured, truth, scene, zero_point) for source in sources]
    wcs = measured.wcs if truth.wcs is None else truth.wcs
    table = _table(sources, rows, wcs, measured.unit)
    table.meta |= provenance(measured.ccd.meta) | error_origin(measured, samples) | origin
    table.meta |= {"scene": bool(scene), "zero_point": zero_point}
    return table


class _Source:
    """
    A source of the reference in a ``box`` of the image, with the weights of its sums.

    ``segment`` and ``valid`` mark the valid pixels of its segment and of the box, ``turnable`` those for the
    asymmetry about ``center``, the point about which the reference is most symmetric. ``sums``, shape
    (10, ny, nx), are the weights of isophotal and Kron flux and of the mean in each annulus, and ``circles``
    those within the ``radii`` of the curve of growth.
    """

    def __init__(self, label, inner, kron, labels, valid, reference):
        reach = kron.a + 2  # room for the circle around the Kron aperture
        self.label, self.kron = label, kron
        self.box = tuple(
            slice(max(0, int(min(center - reach, part.start))), int(max(center + reach, part.stop)) + 1)
            for center, part in zip(kron.positions[::-1], inner, strict=True)
        )
        part, self.valid = labels[self.box], valid[self.box]
        self.segment = (part == label) & self.valid
        own = ((part == label) | (part == 0)) & self.valid
        center = kron.positions - [self.box[1].start, self.box[0].start]
        self.edges = kron.a * np.arange(1, _N_ANNULI + 1) / _N_ANNULI
        self.radii = np.linspace(0, kron.a, _N_RADII + 1)[1:]

        def weights(apertures):
            parts = [aperture.to_mask(method="exact").to_image(part.shape) for aperture in apertures]
            return _mirror(np.stack(parts), own, center)

        def ellipse(a):
            return EllipticalAperture(center, a, a * kron.b / kron.a, theta=kron.theta)

        ellipses = weights([ellipse(a) for a in self.edges])
        annuli = np.diff(ellipses, axis=0, prepend=0)
        area = annuli.sum(axis=(1, 2), keepdims=True)
        annuli = np.where(area > 0, annuli, np.nan) / np.where(area > 0, area, 1.0)
        self.sums = np.stack([self.segment, ellipses[-1], *annuli])
        self.circles = weights([CircularAperture(center, radius) for radius in self.radii])
        self.turnable = own & (ellipse(kron.a).to_mask(method="center").to_image(part.shape) > 0)
        self.center = morphology.asymmetry_center(self.cut(reference), center, self.turnable)

    def cut(self, plane):
        """Cut the box out of a plane, or of many, with zeros where it is not valid."""
        return None if plane is None else np.where(self.valid, plane[(..., *self.box)], 0.0).astype(float)

    def measure(self, image, scene, zero_point):
        """
        Measure an `Exposure`.

        Returns ``values`` and ``errors``, a number or a profile for each quantity; no errors if none are
        known.
        """
        data, sigma, samples = (self.cut(plane) for plane in (image.data, image.sigma, image.samples))
        samples = None if samples is None or len(samples) < 2 else samples
        noise = 0.0 if image.is_enhanced or not scene or sigma is None else sigma
        planes = data[np.newaxis] if scene or samples is None else samples
        values = {name: _mean(name, value) for name, value in self._quantities(planes, noise).items()}
        draws, errors = samples, {}
        if draws is None and sigma is not None:
            draws = np.random.default_rng(0).standard_normal((_N_REALIZATIONS, *data.shape)) * sigma + data
        if draws is not None:
            for name, value in self._quantities(draws).items():
                errors[name] = _difference(name, value, _mean(name, value)).std(axis=0, ddof=1)
            errors |= _split(np.sqrt(self._variance(sigma, samples, scene)))
        if zero_point is not None:
            flux = np.where(values["kron_flux"] > 0, values["kron_flux"], np.nan)
            values["magnitude"] = zero_point - 2.5 * np.log10(flux)
            if errors:
                errors["magnitude"] = 2.5 / np.log(10) * errors["kron_flux"] / flux
        return values, errors

    def _quantities(self, planes, noise=0.0):
        """Return the quantities on every plane."""
        sums = _split(np.tensordot(planes, self.sums, 2 * [[1, 2]]))
        growth = self.radii, np.tensordot(planes, self.circles, 2 * [[1, 2]]), sums["kron_flux"]
        ellipticity, orientation = morphology.ellipse(planes, self.segment)
        return sums | {
            "half_light_radius": morphology.light_radius(*growth),
            "ellipticity": ellipticity,
            "orientation": orientation,
            "concentration": morphology.concentration(*growth),
            "asymmetry": morphology.asymmetry(planes, self.center, self.turnable, noise),
            "gini": morphology.gini(planes, self.segment),
            "m20": morphology.m20(planes, self.segment),
        }

    def _variance(self, sigma, samples, scene):
        """Return the variances of the sums."""
        square = self.sums**2
        independent = None if sigma is None else np.tensordot(square, sigma**2, 2)
        if samples is None:
            return independent
        variance = np.tensordot(samples, self.sums, 2 * [[1, 2]]).var(axis=0, ddof=1)
        if scene:
            pixels = np.tensordot(square, samples.var(axis=0, ddof=1), 2)
            variance = scene_variance(variance, pixels, independent)
        return variance


def _mirror(weights, valid, center):
    """Move the weights of pixels that are not valid to those opposite of the center."""
    y, x = np.nonzero(~valid)
    opposite = np.rint(2 * np.asarray(center)[::-1] - np.transpose([y, x])).astype(int)
    there = np.all((opposite >= 0) & (opposite < valid.shape), axis=1)
    y, x, (to_y, to_x) = y[there], x[there], opposite[there].T
    weights = weights.copy()
    np.add.at(weights, (slice(None), to_y, to_x), weights[:, y, x])
    weights[:, ~valid] = 0
    return weights


def _threshold(threshold, truth, valid):
    """Return the threshold of the detection for every pixel."""
    if threshold is None:
        sigma = estimate_sky_sigma(truth.data, ~valid) if truth.sigma is None else truth.sigma
        threshold = _THRESHOLD * np.where(valid, sigma, 1.0)
    values = u.Quantity(threshold, truth.unit, dtype=float).value
    require(values.shape in ((), truth.shape), f"threshold has shape {values.shape}, image has {truth.shape}")
    return np.broadcast_to(values, truth.shape)


def _detect(truth, valid, threshold, n_pixels):
    """Return the segments of sources, deblended, on smoothed data: else segments gather bright noise."""
    smooth = partial(gaussian_filter, sigma=_SMOOTHING * gaussian_fwhm_to_sigma)
    data = smooth(np.where(valid, truth.data, 0.0)) / np.maximum(smooth(valid.astype(float)), 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)
        segmentation = detect_sources(data, threshold, n_pixels, mask=~valid)
    if segmentation is None:
        msg = "reference has no source above the threshold; lower threshold or n_pixels"
        raise NoSourceError(msg)
    return deblend_sources(data, segmentation, n_pixels, contrast=_CONTRAST, progress_bar=False)


def _sources(segmentation, data, valid):
    """Return the sources of a segmentation that have a Kron aperture on the reference."""
    labels = np.asarray(getattr(segmentation, "data", segmentation))
    require(labels.shape == data.shape, f"segmentation has shape {labels.shape}, image has {data.shape}")
    require(np.any(labels[valid] > 0), "segmentation has no source on valid pixels", NoSourceError)
    catalog = SourceCatalog(data, SegmentationImage(np.where(valid, labels, 0)), mask=~valid)
    found = list(zip(catalog.labels, catalog.slices, catalog.kron_aperture, strict=True))
    lost = [int(label) for label, _, kron in found if kron is None]
    if len(lost) == len(found):
        msg = "reference has no source with a Kron aperture: is it sky-subtracted and on the same pixels?"
        raise NoSourceError(msg)
    if lost:
        warn_user(f"the sources {lost} have no Kron aperture in the reference and are left out")
    return [_Source(*source, labels, valid, data) for source in found if source[0] not in lost]


def _split(sums):
    """Name the sums along the last axis."""
    return {"segment_flux": sums[..., 0], "kron_flux": sums[..., 1], "profile": sums[..., 2:]}


def _mean(name, values):
    """Return the mean over the planes; orientations are axes."""
    if name != "orientation":
        return values.mean(axis=0)
    return np.rad2deg(np.angle(np.exp(2j * np.deg2rad(values)).mean(axis=0))) / 2


def _difference(name, values, reference):
    """Return the difference of two quantities; axes differ by 90 deg at most."""
    difference = values - reference
    return (difference + 90) % 180 - 90 if name == "orientation" else difference


def _compare(source, measured, truth, scene, zero_point):
    """Return the quantities of one source, each with its companions."""
    values, errors = source.measure(measured, scene, zero_point)
    expected, expected_errors = source.measure(truth, scene, zero_point)
    row = {}
    for name, value in values.items():
        difference = _difference(name, value, expected[name])
        row |= {name: value, f"{name}_reference": expected[name], f"{name}_difference": difference}
        if expected_errors:
            row[f"{name}_reference_err"] = expected_errors[name]
        if errors:
            error = np.hypot(errors[name], expected_errors.get(name, 0.0) if scene else 0.0)
            row[f"{name}_err"] = errors[name]
            row[f"{name}_pull"] = np.where(error > 0, difference, np.nan) / np.where(error > 0, error, 1.0)
    return row


def _table(sources, rows, wcs, unit):
    """Return the table of the sources and of what was measured, with units and descriptions."""
    x, y = np.transpose([source.kron.positions for source in sources])
    table = QTable({"label": [int(source.label) for source in sources], "x": x * u.pix, "y": y * u.pix})
    celestial = wcs is not None and isinstance(wcs.pixel_to_world(0, 0), SkyCoord)
    if celestial:
        table["sky_centroid"] = wcs.pixel_to_world(x, y)
    table["area"] = [source.segment.sum() for source in sources] * u.pix**2
    table["kron_semimajor"] = [source.kron.a for source in sources] * u.pix
    table["kron_semiminor"] = [source.kron.b for source in sources] * u.pix
    for name in (name for name in _QUANTITIES if name in rows[0]):
        for suffix, text in _SUFFIXES.items():
            if name + suffix in rows[0]:
                values = np.array([row[name + suffix] for row in rows], float)
                table[name + suffix] = values * (u.one if suffix == "_pull" else _unit(name, unit))
                table[name + suffix].info.description = _QUANTITIES[name] + text
        if name == "orientation" and celestial:  # on the sky, from 0 to 180 deg
            along = wcs.pixel_to_world(x + np.cos(table[name]).value, y + np.sin(table[name]).value)
            angle = wcs.pixel_to_world(x, y).position_angle(along)
            table["position_angle"] = angle.to(u.deg) % (180 * u.deg)
    table["profile_radius"] = [source.edges - source.edges[0] / 2 for source in sources] * u.pix
    for name in (name for name in table.colnames if name in _DESCRIPTIONS):
        table[name].info.description = _DESCRIPTIONS[name]
    return table


def _unit(name, unit):
    """Return the unit of a quantity in an image of some unit."""
    units = {"segment_flux": unit, "kron_flux": unit, "profile": unit / u.pix**2}
    units |= {"magnitude": u.mag, "half_light_radius": u.pix, "orientation": u.deg}
    return units.get(name, u.one)

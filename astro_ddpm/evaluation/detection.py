# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How faint a source is found before and after enhancement, and how often one is invented.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import cycle
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import astropy.units as u
import numpy as np
from astropy.convolution import Gaussian2DKernel, discretize_model
from astropy.modeling.models import Sersic2D
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.stats import binom_conf_interval, gaussian_fwhm_to_sigma
from astropy.table import QTable
from photutils.datasets import make_model_image
from photutils.detection import find_peaks
from photutils.psf import ImagePSF
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import maximum_filter
from scipy.optimize import isotonic_regression
from scipy.signal import fftconvolve
from scipy.special import ndtri

from astro_ddpm.nddata import Exposure
from astro_ddpm.noise import correlated_noise, correlation_kernel, neighbour_correlation
from astro_ddpm.utils import progress, require, warn_user

from .photometry import provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from astro_ddpm.zoo import Model

__all__ = ["DetectionCurve", "detection_curve", "detection_threshold", "noise_image", "reliability_diagram"]

COMPLETENESS = 0.9
_SNR = (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 9.0)
_KNOWN_SNR = 5.0
_MIN_COVERAGE = 0.5
_MIN_SPECTRUM = 0.01
_OVERSAMPLE = 5
_RADIUS = 5.0  # half-light radii out to which a source is drawn
_N_BOOTSTRAP = 500
_MIN_FALSE = 3  # false detections, below which their number says little of a threshold
_INPUT, _MEAN, _JOINT, _EXISTENCE = "matched filter", "mean", "joint", "existence"
_THRESHOLDS = (1, 2, 3, 4, 5)
_DESCRIPTIONS = {
    "method": "Where sources are sought",
    "magnitude": "Magnitude of the injected sources",
    "snr": "Mean signal-to-noise ratio of the injected sources in the matched filter on the input",
    "n": "Number of cases that count",
    "completeness": "Part of the injected sources that is detected",
    "completeness_err": "Binomial error of completeness",
    "purity": "Part of the detections that is real if all sources have this magnitude",
    "threshold": "Detection threshold in units of the noise of the matched filter on the input",
    "limiting_magnitude": "Magnitude of the completeness and purity in the metadata",
    "limiting_magnitude_err": "Bootstrap error of limiting_magnitude",
    "gain": "Limiting magnitude minus that of the matched filter on the input; positive is fainter",
    "gain_err": "Paired bootstrap error of gain",
    "n_false": "Number of false detections",
    "area": "Area in which false detections were sought",
    "density": "False detections per area",
    "density_err": "Poisson error of density",
    "low": "Lower edge of the bin of probability",
    "high": "Upper edge of the bin of probability",
    "probability": "Mean of the predicted probabilities",
    "frequency": "How often it came true",
    "frequency_err": "Binomial error of frequency",
}


@dataclass(frozen=True, eq=False)
class DetectionCurve:
    """
    The four tables of `detection_curve`.

    Parameters
    ----------
    curve : `~astropy.table.QTable`
        Completeness and purity, one row per method and magnitude.

    limits : `~astropy.table.QTable`
        Limiting magnitudes and gains, one row per method.

    false_detections : `~astropy.table.QTable`
        False detections per area, one row per method and threshold.

    reliability : `~astropy.table.QTable` or None
        Predicted and true frequency of the existence of a source; None for a model without samples.
    """

    curve: QTable
    limits: QTable
    false_detections: QTable
    reliability: QTable | None


def detection_curve(
    image: CCDData | Sequence[CCDData],
    magnitudes: Sequence[float] | u.Quantity | None = None,
    *,
    model: str | os.PathLike | Model | Callable = "ddpm",
    psf: np.ndarray | float | u.Quantity | None = None,
    half_light_radius: float | u.Quantity = 0.0,
    filter_radius: float | u.Quantity | None = None,
    zero_point: float | u.Quantity = 0.0,
    n_injections: int = 100,
    purity: float = 0.9,
    separation: int | None = None,
    match_radius: float | None = None,
    correlation: float | None = None,
    blank: CCDData | Sequence[CCDData] | None = None,
    n_samples: int = 16,
    seed: int = 0,
    progress_bar: bool = False,
) -> DetectionCurve:
    r"""
    Measure how faint a source is found, before and after enhancement.

    Sources of known magnitude and size are injected into an image on a grid at random phase, away from the
    sources that it holds. They are sought by

    * ``'matched filter'``: a matched filter on the input,
    * ``'mean'``: the same filter on the enhanced image,
    * ``'joint'``: the sum of both,
    * ``'existence'``: the fraction of samples in which the filter finds a source above the threshold, the
      posterior probability of existence; a source is detected where it is at least one half.

    Each method has the threshold at which it makes the same number of false detections per area, so all have
    the same purity.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData` or sequence of it
        The sky-subtracted image, shape ``(ny, nx)``, with its uncertainty, or several to be used in turn: the
        errors do not include that a single one has the same noise again and again.

    magnitudes : sequence of float or `~astropy.units.Quantity`, optional
        The magnitudes of the sources, at least two. By default ten at which the signal-to-noise ratio in the
        matched filter is 2.5 to 9.

    model : str, path-like, `~astro_ddpm.zoo.Model` or callable, optional
        A model as in `~astro_ddpm.enhance`, or what is called as ``model(image, seed=seed)`` with a
        `~astropy.nddata.CCDData` and returns one like `~astro_ddpm.EnhancedCCDData`.

    psf : array_like, float or `~astropy.units.Quantity`, optional
        The image of the PSF, with odd sides, or the FWHM in pixels of a Gaussian. By default what the (first)
        image carries.

    half_light_radius : float or `~astropy.units.Quantity`, optional
        The half-light radius in pixels of round exponential profiles; 0 are point sources.

    filter_radius : float or `~astropy.units.Quantity`, optional
        The half-light radius that the filters are made for, by default that of the sources, which surveys do
        not know: they use 0.

    zero_point : float or `~astropy.units.Quantity`, optional
        The magnitude of a source with a flux of 1 in the unit of the image.

    n_injections : int, optional
        The number of sources of each magnitude, at least 10.

    purity : float, optional
        The purity at the limiting magnitude, between 0 and 1.

    separation : int, optional
        The distance :math:`d` of neighbouring sources in pixels, 6 FWHM of the source by default. **The
        purity belongs to sources of the density** :math:`n = 1 / d^2`.

    match_radius : float, optional
        How far from its source, and at least how far apart, detections may be in pixels; by default half of
        the FWHM of the source.

    correlation : float, optional
        The correlation of the noise of neighbouring pixels, from 0 to less than 1; measured by default.

    blank : `~astropy.nddata.CCDData` or sequence of it, optional
        Images in which every detection is false, such as a blank field with its known sources masked. By
        default Gaussian noise with the uncertainty, mask and correlation of the image.

    n_samples : int, optional
        The number of samples, unless ``model`` is a callable.

    seed : int, optional
        Selects places, noise and samples.

    progress_bar : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    result : `DetectionCurve`
        Four tables with units, descriptions, and in their metadata the parameters, the versions of the
        software and the model with its checksum.

    Raises
    ------
    TypeError
        If an image cannot be used.

    ValueError
        If a parameter is out of its range, an uncertainty or the PSF is missing, or there is no room for
        sources.

    Warns
    -----
    `~astropy.utils.exceptions.AstropyUserWarning`
        If the magnitudes do not reach from less to more than 90 % completeness (the limiting magnitude is
        then NaN), or there are too few false detections to set thresholds by.

    Notes
    -----
    All finds are maxima of the signal-to-noise ratio in a matched filter, in the input, the mean and the
    samples alike; a source is found within the match radius. The purity is that at the limiting magnitude,
    where 90 % are found, so with :math:`n` sources and :math:`f` false detections per area the threshold
    :math:`\tau` follows from

    .. math:: f(\tau) = 0.9 \, n \, \frac{1 - P}{P} .

    Errors are standard deviations over 500 bootstrap samples that all methods share. :ref:`detection` has the
    equations, and says where a purity is an upper limit and what reliable probabilities mean.

    Examples
    --------
    >>> from astro_ddpm.evaluation import detection_curve, noise_image
    >>> noise = noise_image((128, 128), seed=1)
    >>> result = detection_curve(noise, model="raunet", psf=4, separation=16, n_injections=20)
    >>> result.limits.colnames
    ['method', 'threshold', 'limiting_magnitude', 'limiting_magnitude_err', 'gain', 'gain_err']
    """
    whole = n_injections == int(n_injections) and n_injections >= 10
    require(whole, f"n_injections must be an integer of at least 10, got {n_injections!r}")
    require(0 < purity < 1, f"purity must lie between 0 and 1, got {purity!r}")
    images, rng = _parse_all("image", image), np.random.default_rng(seed)
    blanks = [] if blank is None else _parse_all("blank", blank, images[0].unit)
    psf = _psf_image(psf, images[0].ccd)
    source = _profile("half_light_radius", psf, half_light_radius)
    profile = source if filter_radius is None else _profile("filter_radius", psf, filter_radius)
    search = _Search(
        profile,
        enhance=_enhancer(model, n_samples),
        correlation=_correlation(correlation, images),
        match_radius=_fwhm(source) / 2 if match_radius is None else float(match_radius),
        separation=int(np.ceil(6 * _fwhm(source))) if separation is None else int(separation),
    )
    frames = [_Frame(each, search) for each in images]
    zero_point = float(_in_magnitudes("zero_point", zero_point))
    response = search.response(source)
    injected = _magnitudes(magnitudes, frames[0], response, zero_point)
    fluxes = 10 ** (-0.4 * (injected - zero_point))

    todo = rng.permutation(np.repeat(np.arange(len(fluxes)), n_injections))
    trials, searched = [], []
    with progress(len(todo), show=progress_bar) as advance:
        for frame, places, numbers in _place(frames, todo, rng):
            scene = _scene(frame.data.shape, source, places, fluxes[numbers])
            snr = response * fluxes[numbers] / frame.flux_error[places]
            trials.append(_find_injected(frame, scene, places, numbers, snr, rng))
            if blank is None:
                searched.append(_find_false(frame.blank(rng), rng))
            for _ in numbers:
                advance()
    searched += [_find_false(_Frame(each, search), rng) for each in blanks]
    false = _FalseDetections(searched, search)

    found, before, snr = _by_magnitude(trials, len(fluxes))
    target = false.area / search.separation**2 * COMPLETENESS * (1 - purity) / purity
    if target < _MIN_FALSE:
        warn_user(
            f"{target:.1f} false detections are expected in the blank images, too few to set thresholds by: "
            f"the purity is uncertain; give more or larger images{'' if blank is None else ' as blank'}"
        )
    thresholds, n, completeness, limits = _solve(found, before, false, target, fluxes)
    draws = [_solve(found, before, false, target, fluxes, rng)[-1] for _ in range(_N_BOOTSTRAP)]
    if not all(np.isfinite(limit) for limit in limits.values()):
        warn_user(
            f"the magnitudes from {injected.min():.2f} to {injected.max():.2f} do not reach from less "
            f"to more than {COMPLETENESS:.0%} completeness with every method; give other magnitudes="
        )

    meta = {"model": getattr(model, "__name__", type(model).__name__)} | provenance(trials[0].meta)
    meta |= {"seed": seed, "zero_point": zero_point, "n_injections": n_injections, "purity": purity}
    meta |= {"half_light_radius": float(u.Quantity(half_light_radius, u.pix).value)}
    meta |= {"source_fwhm": _fwhm(source), "filter_fwhm": _fwhm(profile), "completeness": COMPLETENESS}
    meta |= {"separation": search.separation, "match_radius": search.match_radius}
    meta |= {"noise_correlation": search.correlation, "blank": "noise" if blank is None else "given"}
    tables = (
        _curve_table(injected, snr, n, completeness, purity),
        _limit_table(thresholds, limits, draws, zero_point),
        _false_table(false),
        _reliability(trials, thresholds),
    )
    for table in tables:
        if table is not None:
            table.meta.update(meta)
    return DetectionCurve(*tables)


def detection_threshold(
    enhanced: CCDData, image: CCDData, n_sigma: float = 3.0, *, noise_ratio: float | None = None
) -> u.Quantity:
    r"""
    Threshold of every pixel for the detection of sources on an enhanced image.

    A multiple of the scatter of the enhanced sky will not do: what is left of the noise comes in blobs of the
    size of the PSF, which look like sources.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The sky-subtracted image as `~astro_ddpm.enhance` returns it, shape ``(ny, nx)``.

    image : `~astropy.nddata.CCDData`
        The input of the enhancement, with its uncertainty.

    n_sigma : float, optional
        The threshold in units of the standard deviation, positive.

    noise_ratio : float, optional
        The noise of the deep exposure in units of the noise of ``image``; by default that of ``enhanced``.

    Returns
    -------
    threshold : `~astropy.units.Quantity`, shape (ny, nx)
        The threshold in the unit of ``enhanced``; infinite where pixels of ``enhanced`` do not count or the
        noise of ``image`` is unknown, such as in masked pixels.

    Raises
    ------
    TypeError
        If an image cannot be used.

    ValueError
        If an uncertainty or the noise ratio is missing, shapes differ, or a number is out of its range.

    Notes
    -----
    A deep exposure with the noise ratio :math:`d` of a pixel with the posterior mean 0 has the variance
    :math:`u^2 + d^2 \sigma^2`, with the uncertainty :math:`u` of the enhanced image and the noise
    :math:`\sigma` of its input. The threshold

    .. math:: t = n \, \sqrt{u^2 + d^2 \sigma^2}

    leaves out what the posterior is not sure of, and what the deep exposure would not show.

    Examples
    --------
    >>> from astro_ddpm import enhance
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> from astro_ddpm.evaluation import detection_threshold
    >>> from photutils.segmentation import detect_sources
    >>> image = make_galaxy_field((64, 64), n_galaxies=2, n_stars=1).image
    >>> deep = enhance(image, model="raunet")
    >>> segments = detect_sources(deep.data, detection_threshold(deep, image).value, 5)
    """
    result = Exposure.parse(enhanced, name="enhanced")
    before = Exposure.parse(image, name="image", unit=result.unit)
    if before.shape != result.shape:
        msg = f"image must have the shape {result.shape} of enhanced, not {before.shape}"
        raise ValueError(msg)
    ratio = result.ccd.meta.get("DDPMDEP") if noise_ratio is None else noise_ratio
    needed = {"uncertainty of enhanced": result.sigma, "uncertainty of image": before.sigma}
    missing = [name for name, value in (needed | {"noise_ratio": ratio}).items() if value is None]
    if missing:
        msg = f"the {missing[0]} is missing"
        raise ValueError(msg)
    if not (n_sigma > 0 and ratio >= 0):
        msg = f"n_sigma must be positive and noise_ratio not negative, not {n_sigma} and {ratio}"
        raise ValueError(msg)
    threshold = n_sigma * np.hypot(result.sigma.astype(float), ratio * before.sigma.astype(float))
    return np.where(result.valid & before.valid, threshold, np.inf) << result.unit


def noise_image(
    shape: tuple[int, int],
    noise: float | np.ndarray | u.Quantity = 1.0,
    *,
    correlation: float = 0.0,
    seed: int | np.random.Generator | None = None,
) -> CCDData:
    r"""
    Make an image of Gaussian noise and nothing else.

    Parameters
    ----------
    shape : tuple of int
        The shape ``(ny, nx)``.

    noise : float, array_like or `~astropy.units.Quantity`, optional
        The standard deviation, of all pixels or shape ``(ny, nx)``.

    correlation : float, optional
        The correlation :math:`\rho` of neighbouring pixels, from 0 to less than 1.

    seed : int or `~numpy.random.Generator`, optional
        Selects the random numbers.

    Returns
    -------
    image : `~astropy.nddata.CCDData`
        The noise, shape ``(ny, nx)``, in the unit of ``noise``, with its uncertainty.

    Raises
    ------
    ValueError
        If ``correlation`` is out of its range or ``noise`` is not positive.

    Notes
    -----
    The correlation is that of white noise smoothed by a Gaussian, :math:`\rho^{l^2}` at lag :math:`l` along
    rows and columns, and is periodic. Its power spectrum is not taken below 1 % of that of white noise.

    Examples
    --------
    >>> import astropy.units as u
    >>> from astro_ddpm.evaluation import noise_image
    >>> image = noise_image((64, 64), 3 * u.adu, correlation=0.3, seed=1)
    >>> print(image.unit, image.uncertainty.array[0, 0])
    adu 3.0
    """
    correlation = _check_correlation(correlation)
    noise = u.Quantity(noise)
    sigma = np.broadcast_to(noise.value, shape).astype(float)
    require(np.all((sigma > 0) & np.isfinite(sigma)), "noise must be positive and finite")
    data = sigma * _unit_noise(np.random.default_rng(seed), shape, correlation)
    return CCDData(data, unit=noise.unit, uncertainty=StdDevUncertainty(sigma))


def reliability_diagram(
    probability: np.ndarray,
    outcome: np.ndarray,
    *,
    bins: int | Sequence[float] = 10,
) -> QTable:
    """
    Compare predicted probabilities with what came true.

    Parameters
    ----------
    probability : array_like
        The predicted probabilities of an event, of any shape.

    outcome : array_like of bool, shape of ``probability``
        Whether it came true.

    bins : int or sequence of float, optional
        The number of equal bins from 0 to 1, or their rising edges. A bin contains its lower edge, the last
        one both.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per bin: its edges ``low`` and ``high``, the number ``n`` of cases, the mean ``probability``,
        and ``frequency`` and ``frequency_err``, how often it came true and the binomial error; NaN without
        cases.

    Raises
    ------
    ValueError
        If the shapes differ, or a probability is not between 0 and 1.

    Notes
    -----
    Calibrated probabilities agree with ``frequency`` within ``frequency_err`` (Murphy & Winkler 1977,
    *Reliability of Subjective Probability Forecasts of Precipitation and Temperature*), which is half of the
    68 % interval of Jeffreys (`astropy.stats.binom_conf_interval`) and takes cases as independent.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import reliability_diagram
    >>> rng = np.random.default_rng(1)
    >>> probability = rng.random(10000)
    >>> table = reliability_diagram(probability, rng.random(10000) < probability, bins=2)
    >>> print(table["probability"].round(2).tolist(), table["frequency"].round(2).tolist())
    [0.25, 0.75] [0.26, 0.76]
    """
    probability, outcome = np.asarray(probability, float).ravel(), np.asarray(outcome, bool).ravel()
    if probability.shape != outcome.shape:
        msg = f"outcome must have the shape of probability, got {outcome.size} for {probability.size} cases"
        raise ValueError(msg)
    require(np.all((probability >= 0) & (probability <= 1)), "probability must lie between 0 and 1")
    edges = np.linspace(0, 1, int(bins) + 1) if isinstance(bins, Integral) else np.asarray(bins, float)
    n, _ = np.histogram(probability, edges)
    total, _ = np.histogram(probability, edges, weights=probability)
    true, _ = np.histogram(probability, edges, weights=outcome.astype(float))
    with np.errstate(invalid="ignore"):
        columns = {"probability": total / n, "frequency": true / n}
    table = QTable({"low": edges[:-1], "high": edges[1:], "n": n, **columns})
    table["frequency_err"] = np.where(n > 0, _binomial_error(true, n), np.nan)
    return _describe(table)


@dataclass(frozen=True)
class _Search:
    """
    The filter of a search, and how its finds are matched with sources.

    ``profile`` is the image that the filter is made for, of unit sum; ``enhance`` is called as
    ``enhance(image, seed=seed)``.
    """

    profile: np.ndarray
    enhance: Callable
    correlation: float
    match_radius: float
    separation: int

    def __post_init__(self):
        radius, separation = self.match_radius, self.separation
        require(radius > 0, f"match_radius must be positive, got {radius!r}")
        wrong = f"separation must be more than twice match_radius, got {separation!r} for {radius:g}"
        require(separation > 2 * radius, wrong)

    @property
    def kernel(self):
        """The filter, which is the profile for white noise."""
        spectrum = _noise_spectrum(self.profile.shape, self.correlation)
        return np.fft.ifft2(np.fft.fft2(self.profile) / spectrum).real

    def response(self, source):
        """Return the flux that the filter finds of a source of unit flux."""
        kernel = self.kernel
        found = fftconvolve(source, kernel[::-1, ::-1])
        return float(found[found.shape[0] // 2, found.shape[1] // 2] / np.sum(self.profile * kernel))


class _Frame:
    """
    An image in which sources are sought.

    ``usable`` marks where at least half of a source falls on valid pixels.
    """

    def __init__(self, image, search):
        self.search, self.image, self._before = search, image, None
        self.data, self.valid = image.data.astype(float), image.valid
        self.sigma = np.where(self.valid, image.sigma, np.median(image.sigma[self.valid])).astype(float)
        self._weight = np.where(self.valid, self.sigma**-2.0, 0.0)
        information = _correlate(self._weight, search.profile * search.kernel)
        self.usable = self.valid & (_correlate(self.valid, search.profile) >= _MIN_COVERAGE)
        self.usable &= information > 0
        self._norm = np.sqrt(np.where(self.usable, information, np.inf))

    @property
    def flux_error(self):
        """The error of the flux of a source at every pixel, infinite where none can be measured."""
        return np.where(self.usable, 1 / np.where(self.usable, self._norm, 1), np.inf)

    def snr(self, planes):
        """Filter images, shape ``(..., ny, nx)``, into signal-to-noise ratios."""
        planes = np.where(self.valid, planes, 0.0) * self._weight
        return _correlate(planes, self.search.kernel) / self._norm

    def noise(self, rng):
        """Draw noise like that of the image."""
        return self.sigma * _unit_noise(rng, self.sigma.shape, self.search.correlation)

    def blank(self, rng):
        """Return the frame with nothing but noise."""
        return _Frame(replace(self.image, data=self.noise(rng)), self.search)

    def statistics(self, data, rng):
        """Return the statistic of each method, that of the samples or None, and the header."""
        enhanced = self.search.enhance(self._pack(data), seed=int(rng.integers(2**31)))
        result = Exposure.parse(enhanced, name="the image that model returns")
        if result.shape != data.shape:
            msg = f"model must return an image of the shape {data.shape}, got {result.shape}"
            raise ValueError(msg)
        statistics = {_INPUT: self.snr(data), _MEAN: self.snr(result.data)}
        statistics[_JOINT] = statistics[_INPUT] + statistics[_MEAN]
        samples = None if result.samples is None else self.snr(result.samples)
        if samples is not None:
            statistics[_EXISTENCE] = np.quantile(samples, 0.5, axis=0, method="higher")
        hidden = np.where(self.usable, 0.0, -np.inf)
        return {method: values + hidden for method, values in statistics.items()}, samples, result.ccd.meta

    def before(self, rng):
        """Return the highest statistic near every pixel by each method, before anything is injected."""
        if self._before is None:
            self._before = self.highest(self.statistics(self.data, rng)[0])
        return self._before

    def peaks(self, values):
        """Return rows and columns of the maxima within the match radius."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoDetectionsWarning)
            footprint = _disc(self.search.match_radius)
            found = find_peaks(values, -np.inf, footprint=footprint, mask=~self.usable)
        if found is None:
            return np.zeros((2, 0), int)
        return np.asarray(found["y_peak"]), np.asarray(found["x_peak"])

    def highest(self, statistics):
        """Return the highest statistic within the match radius of every pixel."""
        footprint = _disc(self.search.match_radius)
        return {method: maximum_filter(s, footprint=footprint) for method, s in statistics.items()}

    @cached_property
    def free(self):
        """Mark where a source may be injected."""
        border = int(np.ceil(_fwhm(self.search.profile)))
        known = (self.snr(self.data) > _KNOWN_SNR) & self.usable
        free = self.usable & ~maximum_filter(known, footprint=_disc(_fwhm(self.search.profile)))
        inside = np.zeros_like(free)
        inside[border:-border, border:-border] = True
        return free & inside

    def _pack(self, data):
        """Return an image with other data."""
        image, sigma = self.image, StdDevUncertainty(self.image.sigma)
        carried = {name: getattr(image.ccd, name) for name in ("wcs", "meta", "psf")}
        data = data.astype(image.sigma.dtype)
        return CCDData(data, unit=image.unit, uncertainty=sigma, mask=image.mask, **carried)


class _Trial(NamedTuple):
    """
    The highest statistics near the sources injected into one image, by method, with and without them.

    At the candidates, ``draws`` has the statistic of the samples, shape ``(n, n_candidates)``, and ``deep``
    that of a deep exposure.
    """

    numbers: np.ndarray
    snr: np.ndarray
    found: dict
    before: dict
    draws: np.ndarray | None
    deep: np.ndarray
    meta: dict


def _place(frames, todo, rng):
    """Yield frame, rows and columns, and the numbers of the magnitudes to inject there, until all is done."""
    free, misses = [frame.free for frame in frames], 0
    for frame, room in cycle(list(zip(frames, free, strict=True))):
        step = frame.search.separation
        places = np.zeros_like(room)
        places[rng.integers(step) :: step, rng.integers(step) :: step] = True
        places = np.argwhere(places & room)[: len(todo)]
        misses = 0 if len(places) else misses + 1
        if misses > 10 * len(frames):
            msg = "image has no room for sources: it is too small, masked or full of sources"
            raise ValueError(msg)
        if len(places):
            numbers, todo = todo[: len(places)], todo[len(places) :]
            yield frame, tuple(places.T), numbers
        if not len(todo):
            return


def _find_injected(frame, scene, places, numbers, snr, rng):
    """Add sources to a frame and look for them."""
    statistics, samples, meta = frame.statistics(frame.data + scene, rng)
    candidates = frame.peaks(statistics[_INPUT])
    candidates = tuple(index[frame.free[candidates]] for index in candidates)
    deep = frame.snr(scene + float(meta.get("DDPMDEP", 0)) * frame.noise(rng))
    return _Trial(
        numbers,
        snr,
        {method: values[places] for method, values in frame.highest(statistics).items()},
        {method: values[places] for method, values in frame.before(rng).items()},
        None if samples is None else samples[:, *candidates],
        deep[candidates],
        meta,
    )


def _find_false(frame, rng):
    """Return rows, columns and values of all maxima by each method, and the map of the usable pixels."""
    statistics, _, _ = frame.statistics(frame.data, rng)
    peaks = {method: frame.peaks(values) for method, values in statistics.items()}
    return {m: (*peaks[m], statistics[m][peaks[m]]) for m in statistics}, frame.usable


class _FalseDetections:
    """
    False detections by each method, from the most to the least significant.

    ``values`` are their statistics, ``cells`` the cells of the images in which they lie, ``area`` the number
    of pixels that were searched.
    """

    def __init__(self, blanks, search):
        self.area, self.n_cells = 0, 0
        rows = {method: [] for method in blanks[0][0]}
        for peaks, usable in blanks:
            n_rows, n_columns = -(-np.array(usable.shape) // search.separation)
            for method, (y, x, values) in peaks.items():
                cells = self.n_cells + y // search.separation * n_columns + x // search.separation
                rows[method].append((values, cells))
            self.area += int(usable.sum())
            self.n_cells += int(n_rows * n_columns)
        self.values, self.cells = {}, {}
        for method, parts in rows.items():
            values, cells = (np.concatenate(column) for column in zip(*parts, strict=True))
            order = values.argsort()[::-1]
            self.values[method], self.cells[method] = values[order], cells[order]

    def threshold(self, method, target, weights):
        """Return the threshold that ``target`` detections exceed if the cells count ``weights`` times."""
        weights = weights[self.cells[method]]
        return float(np.interp(target, np.cumsum(weights) - weights / 2, self.values[method]))


def _by_magnitude(trials, n_magnitudes):
    """Return the statistics of the sources by method, shape ``(n_magnitudes, n_injections)``, and S/N."""
    order = np.concatenate([trial.numbers for trial in trials]).argsort(kind="stable")

    def gather(parts):
        return np.concatenate(parts)[order].reshape(n_magnitudes, -1)

    found = {method: gather([trial.found[method] for trial in trials]) for method in trials[0].found}
    before = {method: gather([trial.before[method] for trial in trials]) for method in found}
    return found, before, gather([trial.snr for trial in trials]).mean(axis=1)


def _solve(found, before, false, target, fluxes, rng=None):
    """Return thresholds, numbers, completeness, limiting fluxes of the sources or of a bootstrap sample."""
    weights = np.ones(false.n_cells)
    pick = np.indices(found[_INPUT].shape)
    if rng is not None:
        weights = rng.multinomial(false.n_cells, weights / false.n_cells)
        pick[1] = rng.integers(pick.shape[2], size=pick.shape[1:])
    pick = tuple(pick)
    thresholds = {method: false.threshold(method, target, weights) for method in found}
    empty = ~np.any([before[method][pick] > limit for method, limit in thresholds.items()], axis=0)
    n = np.maximum(empty.sum(axis=1), 1)
    detected = {method: (found[method][pick] > limit) & empty for method, limit in thresholds.items()}
    completeness = {method: values.sum(axis=1) / n for method, values in detected.items()}
    return thresholds, n, completeness, {m: _limiting_flux(c, n, fluxes) for m, c in completeness.items()}


def _limiting_flux(completeness, n, fluxes):
    """Return the flux at which the sources are complete enough, NaN if that lies outside."""
    order = fluxes.argsort()
    smooth = isotonic_regression(completeness[order], weights=n[order]).x
    probit = ndtri(np.clip(smooth, 0.5 / n[order], 1 - 0.5 / n[order]))
    return float(np.interp(ndtri(COMPLETENESS), np.maximum.accumulate(probit), fluxes[order], np.nan, np.nan))


def _curve_table(magnitudes, snr, n, completeness, purity):
    """Return the table of completeness and purity."""
    false = COMPLETENESS * (1 - purity) / purity
    table = QTable({"method": np.repeat(list(completeness), len(magnitudes))})
    table["magnitude"] = np.tile(magnitudes, len(completeness)) * u.mag
    table["snr"] = np.tile(snr, len(completeness))
    table["n"] = np.tile(n, len(completeness))
    table["completeness"] = np.concatenate(list(completeness.values()))
    table["completeness_err"] = _binomial_error(table["n"] * table["completeness"], table["n"])
    table["purity"] = table["completeness"] / (table["completeness"] + false)
    return _describe(table)


def _limit_table(thresholds, limits, draws, zero_point):
    """Return the table of limiting magnitudes."""

    def magnitude(limit):
        return zero_point - 2.5 * np.log10([limit[method] for method in thresholds])

    best, drawn = magnitude(limits), np.array([magnitude(draw) for draw in draws])
    table = QTable({"method": list(thresholds), "threshold": list(thresholds.values())})
    table["limiting_magnitude"] = best * u.mag
    table["limiting_magnitude_err"] = _spread(drawn) * u.mag
    table["gain"] = (best - best[0]) * u.mag
    table["gain_err"] = _spread(drawn - drawn[:, :1]) * u.mag
    return _describe(table)


def _spread(draws):
    """Return the standard deviation of the columns; NaN if more than a tenth of the draws are."""
    known = np.isfinite(draws)
    spread = np.ma.array(draws, mask=~known).std(axis=0).filled(np.nan)
    return np.where(known.mean(axis=0) < 0.9, np.nan, spread)


def _false_table(false):
    """Return the table of false detections."""
    rows = [(method, threshold) for method in false.values for threshold in _THRESHOLDS]
    number = np.array([np.sum(false.values[method] > threshold) for method, threshold in rows])
    table = QTable(rows=rows, names=["method", "threshold"])
    table["threshold"] = table["threshold"].astype(float)
    table["n_false"] = number
    table["area"] = np.full(len(rows), float(false.area)) * u.pix**2
    table["density"] = number / table["area"]
    table["density_err"] = np.sqrt(number + 0.5) / table["area"]
    return _describe(table)


def _reliability(trials, thresholds):
    """Return the reliability of the existence above the threshold, or None."""
    if _EXISTENCE not in thresholds:
        return None
    probability = [(trial.draws > thresholds[_EXISTENCE]).mean(axis=0) for trial in trials]
    outcome = [trial.deep > thresholds[_EXISTENCE] for trial in trials]
    return reliability_diagram(np.concatenate(probability), np.concatenate(outcome))


def _binomial_error(k, n):
    """Return the error of the frequency of k in n, half of the 68 % interval of Jeffreys."""
    low, high = binom_conf_interval(k, np.maximum(n, 1), interval="jeffreys")
    return (high - low) / 2


def _describe(table):
    """Add the descriptions to a table."""
    for name in table.colnames:
        table[name].info.description = _DESCRIPTIONS[name]
    return table


def _enhancer(model, n_samples):
    """Return what enhances an image."""
    if callable(model):
        return model
    from astro_ddpm import enhance, zoo

    model = zoo.load(model) if isinstance(model, str | os.PathLike) else model
    return partial(enhance, model=model, n_samples=n_samples)


def _profile(name, psf, half_light_radius):
    """Return the image of a source, with odd sides and unit sum."""
    radius = float(u.Quantity(half_light_radius, u.pix).value)
    require(0 <= radius < np.inf, f"{name} must not be negative, got {half_light_radius!r}")
    if radius == 0:
        return psf
    half = int(np.ceil(_RADIUS * radius))
    sides, options = 2 * [(-half, half + 1)], {"mode": "oversample", "factor": _OVERSAMPLE}
    profile = fftconvolve(discretize_model(Sersic2D(r_eff=radius, n=1), *sides, **options), psf)
    return profile / profile.sum()


def _psf_image(psf, image):
    """Return the image of the PSF, with odd sides and unit sum."""
    psf = image.psf if psf is None else psf
    require(psf is not None, "psf must be given: the image carries none")
    if np.ndim(psf) == 0:
        fwhm = float(u.Quantity(psf, u.pix).value)
        require(0 < fwhm < np.inf, f"psf must be an image or a positive FWHM, got {psf!r}")
        psf = Gaussian2DKernel(fwhm * gaussian_fwhm_to_sigma).array
    psf = np.asarray(psf, float)
    if psf.ndim != 2 or not all(size % 2 for size in psf.shape):
        msg = f"psf must be an image with odd sides, got the shape {psf.shape}"
        raise ValueError(msg)
    require(np.all(np.isfinite(psf)) and psf.sum() > 0, "psf must be finite and have a positive sum")
    return psf / psf.sum()


def _fwhm(profile):
    """Return the FWHM of the Gaussian with the noise-equivalent area of a profile, in pixels."""
    return float(np.sqrt(2 * np.log(2) / np.pi / np.sum(profile**2)))


def _noise_spectrum(shape, correlation):
    """Return the power spectrum of correlated noise of unit variance, shape ``(ny, nx)``."""
    rows, columns = (np.fft.fft(correlation ** ((n * np.fft.fftfreq(n)) ** 2)).real for n in shape)
    return np.maximum(np.outer(rows, columns), _MIN_SPECTRUM)


def _unit_noise(rng, shape, correlation):
    """Draw noise of unit variance."""
    return correlated_noise(shape, correlation_kernel(correlation), rng, float)


def _scene(shape, source, places, fluxes):
    """Return an image of sources at pixel centers."""
    table = QTable({"x_0": places[1].astype(float), "y_0": places[0].astype(float), "flux": fluxes})
    return make_model_image(shape, ImagePSF(source), table, model_shape=source.shape)


def _correlate(planes, kernel):
    """Correlate images, shape ``(..., ny, nx)``, with a kernel, with zeros beyond their edges."""
    kernel = kernel[::-1, ::-1].reshape((1,) * (np.ndim(planes) - 2) + kernel.shape)
    return fftconvolve(planes, kernel, mode="same", axes=(-2, -1))


def _disc(radius):
    """Return the pixels within a radius."""
    y, x = np.indices((2 * int(radius) + 1,) * 2) - int(radius)
    return np.hypot(y, x) <= radius


def _correlation(correlation, images):
    """Return the correlation of neighbouring pixels, given or measured."""
    if correlation is not None:
        return _check_correlation(correlation)
    measured = [neighbour_correlation(image.data / image.sigma, image.mask) for image in images]
    return float(np.clip(np.mean(measured), 0, 0.9))


def _check_correlation(correlation):
    require(0 <= correlation < 1, f"correlation must be at least 0 and less than 1, got {correlation!r}")
    return float(correlation)


def _magnitudes(magnitudes, frame, response, zero_point):
    """Return the magnitudes to inject, given or from the noise of an image."""
    if magnitudes is None:
        flux = np.array(_SNR) * np.median(frame.flux_error[frame.usable]) / response
        return zero_point - 2.5 * np.log10(flux)
    magnitudes = _in_magnitudes("magnitudes", magnitudes)
    if magnitudes.ndim != 1 or len(magnitudes) < 2 or not np.all(np.isfinite(magnitudes)):
        msg = "magnitudes must be at least two finite numbers"
        raise ValueError(msg)
    return magnitudes


def _in_magnitudes(name, value):
    """Return numbers without unit; any kind of magnitude is one."""
    unit = getattr(value, "unit", u.mag)
    require(unit == u.mag or isinstance(unit, u.MagUnit), f"{name} must be in magnitudes, not in {unit}")
    return np.asarray(getattr(value, "value", value), float)


def _parse_all(name, images, unit=None):
    """Return one or several images as a list of `Exposure` in one unit, by default that of the first."""
    images = [images] if isinstance(images, NDData) else list(images)
    if not images or not all(isinstance(image, CCDData) for image in images):
        msg = f"{name} must be a CCDData or a sequence of them"
        raise TypeError(msg)
    unit = images[0].unit if unit is None else unit
    parsed = [Exposure.parse(image, name=name, unit=unit).check() for image in images]
    if any(image.sigma is None for image in parsed):
        msg = f"{name} must have an uncertainty: a matched filter needs its noise"
        raise ValueError(msg)
    return parsed

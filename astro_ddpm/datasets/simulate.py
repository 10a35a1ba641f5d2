# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A simulated CCD field of galaxies and stars whose truth is known.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.modeling.models import Moffat2D, Sersic2D
from astropy.nddata import CCDData, StdDevUncertainty, block_reduce, overlap_slices
from astropy.table import QTable
from astropy.wcs import WCS
from scipy.optimize import brentq
from scipy.signal import fftconvolve
from scipy.special import gammainc, gammaincinv, i0e

from astro_ddpm.noise import sigma_from_gain
from astro_ddpm.utils import renamed_argument, require

__all__ = ["GalaxyField", "make_galaxy_field"]

_OVERSAMPLE = 4
_EXPTIME = 300.0 * u.s
_SATURATION = 65535.0 * u.adu
_CENTER = (150.1, 2.2)  # right ascension and declination, deg
_BULGE_INDEX = 2.0
_BULGE_SIZE = 0.18  # half-light radius, of the disc's
_LIGHT_DRAWN = 0.999
_PSF_RADIUS = 8.0  # FWHM
_PITCH = np.deg2rad(21.0)

_COLUMNS = {  # of the catalog: unit, if it is a field of a source, and description
    "id": (None, "Source number, from 1"),
    "kind": (None, "'two-component', 'sersic', 'companion' or 'star'"),
    "host": (None, "id of the galaxy that a companion belongs to, else 0"),
    "x": (u.pix, "Column of the center; pixel centers are integers, from 0"),
    "y": (u.pix, "Row of the center; pixel centers are integers, from 0"),
    "sky_center": (None, "Sky position of the center"),
    "flux": (u.adu, "Total flux"),
    "r_half": (u.pix, "Semi-major axis of the ellipse with half of the light, before the PSF; stars have 0"),
    "ellipticity": (u.one, "One minus the axis ratio, before the PSF"),
    "theta": (u.deg, "Angle of the major axis, counterclockwise from the x axis"),
    "sersic_index": (u.one, "Sersic index of the galaxy or of its disc; stars have 0"),
    "bulge_fraction": (u.one, "Part of the flux in the bulge (Sersic index 2)"),
    "spiral": (u.one, "Contrast of the two spiral arms, negative for the other sense; 0 is smooth"),
    "peak_snr": (None, "Noise-free scene over noise in the pixel of the center"),
}


@dataclass(frozen=True, eq=False, repr=False)
class GalaxyField:
    """
    A simulated image with everything that is known about it, made by `make_galaxy_field`.

    Parameters
    ----------
    image : `~astropy.nddata.CCDData`
        The noisy, sky-subtracted image, shape ``(ny, nx)``, in adu, with its uncertainty, a mask of the bad
        columns (their data are garbage), the PSF, a TAN WCS and a header.

    truth : `~numpy.ndarray`
        The noise-free scene, shape ``(ny, nx)``, in adu.

    catalog : `~astropy.table.QTable`
        The sources in ``truth``, one per row.

    gain, read_noise, sky_level : float
        The gain in electron/adu, the read noise in electron, and the sky that was subtracted, in adu.
    """

    image: CCDData
    truth: np.ndarray
    catalog: QTable
    gain: float
    read_noise: float
    sky_level: float

    def __repr__(self):
        ny, nx = self.truth.shape
        return f"<{type(self).__name__}: {ny} x {nx} pixels, {len(self.catalog)} sources>"

    @renamed_argument("depth", "noise_ratio")
    def deep_exposure(self, noise_ratio: float = 0.1, *, seed: int | None = 1) -> CCDData:
        """
        Make a deeper exposure of the same scene.

        Parameters
        ----------
        noise_ratio : float, optional
            The noise of the exposure in units of that of ``image``: 0.1 for a mean of 100 exposures like it.
            The old name ``depth`` is deprecated.

        seed : int or None, optional
            The seed of the noise.

        Returns
        -------
        exposure : `~astropy.nddata.CCDData`
            The sky-subtracted exposure, shape ``(ny, nx)``, in adu on the scale of ``image``, with its own
            uncertainty, GAIN and RDNOISE. No pixel is bad.

        Raises
        ------
        ValueError
            If ``noise_ratio`` is not positive.

        Examples
        --------
        >>> from astro_ddpm.datasets import make_galaxy_field
        >>> field = make_galaxy_field((64, 64), n_galaxies=3, n_stars=1)
        >>> deep = field.deep_exposure(0.2)
        >>> ratio = deep.uncertainty.array / field.image.uncertainty.array
        >>> print(f'{ratio.mean():.2f}')
        0.20
        """
        ratio = _positive("noise_ratio", noise_ratio, u.one)
        gain, read_noise = self.gain / ratio**2, self.read_noise / ratio
        header = self.image.header.copy()
        header["GAIN"] = (gain, header.comments["GAIN"])
        header["RDNOISE"] = (read_noise, header.comments["RDNOISE"])
        header["NOISERAT"] = (ratio, "noise relative to the single exposure")
        rng = np.random.default_rng(seed)
        data, sigma = _expose(rng, self.truth, self.sky_level, gain, read_noise)
        return _pack(data, sigma, meta=header, wcs=self.image.wcs, psf=self.image.psf)


def make_galaxy_field(
    shape: tuple[int, int] = (256, 256),
    *,
    seed: int | None = 0,
    n_galaxies: int = 26,
    n_stars: int = 9,
    n_companions: int = 3,
    psf_fwhm: float | u.Quantity = 4.0,
    psf_beta: float = 3.5,
    gain: float | u.Quantity = 2.0,
    read_noise: float | u.Quantity = 5.0,
    sky_level: float | u.Quantity = 200.0,
    pixel_scale: float | u.Quantity = 0.2,
    bad_columns: int = 1,
) -> GalaxyField:
    r"""
    Simulate a CCD image of galaxies and stars with known truth.

    Galaxies run from barely seen to bright: single Sersic profiles, and bulges in exponential discs with two
    logarithmic spiral arms. The first is a large spiral near the center; those with the highest surface
    brightness have a companion. Everything is convolved with a Moffat PSF on a grid four times finer than the
    pixels. The noise is the Poisson noise of sources and sky and the Gaussian read noise.

    Parameters
    ----------
    shape : tuple of int, optional
        The shape ``(ny, nx)`` of the image, at least 32 x 32.

    seed : int or None, optional
        The seed of sources and noise: the same seed gives the same field. `None` draws a new one.

    n_galaxies, n_stars, n_companions : int, optional
        The number of galaxies, of stars, and of companions of the first galaxies, one each.

    psf_fwhm, psf_beta : float or `~astropy.units.Quantity`, optional
        The FWHM of the PSF in pixels, at least 1, and the power-law index of its Moffat profile, more than 1,
        which ends at 8 FWHM.

    gain, read_noise, sky_level, pixel_scale : float or `~astropy.units.Quantity`, optional
        The gain in electron/adu, the read noise in electron, the sky in adu, which adds noise and is
        subtracted, and the pixel scale of the WCS in arcsec.

    bad_columns : int, optional
        The number of bad columns.

    Returns
    -------
    field : `GalaxyField`
        The image, the noise-free scene and the catalog.

    Raises
    ------
    TypeError
        If ``shape`` or a number of things is not made of integers.

    ValueError
        If a parameter is out of its range.

    Notes
    -----
    The uncertainty of the image comes from the noise-free scene :math:`S` and the sky :math:`B` in adu, with
    gain :math:`g` and read noise :math:`R`:

    .. math:: \sigma^2 = (S + B) / g + (R / g)^2

    Sizes and brightnesses are relative to the PSF and the noise of the sky: every camera sees a like field.

    Examples
    --------
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> field = make_galaxy_field((96, 128), seed=3, n_galaxies=6, n_stars=2)
    >>> field
    <GalaxyField: 96 x 128 pixels, 11 sources>
    >>> print(field.image.unit, field.catalog['flux'].unit)
    adu adu
    """
    shape = _check_shape(shape)
    wanted = {"n_galaxies": n_galaxies, "n_stars": n_stars, "n_companions": n_companions}
    numbers = [_count(name, value) for name, value in wanted.items()]
    bad_columns = _count("bad_columns", bad_columns, maximum=shape[1] - 1)
    gain = _positive("gain", gain, u.electron / u.adu)
    read_noise = _positive("read_noise", read_noise, u.electron, zero=True)
    sky_level = _positive("sky_level", sky_level, u.adu, zero=True)
    pixel_scale = _positive("pixel_scale", pixel_scale, u.arcsec)
    psf = _Moffat(_positive("psf_fwhm", psf_fwhm, u.pix), _positive("psf_beta", psf_beta, u.one))

    rng_sources, rng_columns, rng_noise = np.random.default_rng(seed).spawn(3)
    if read_noise == sky_level == 0:
        msg = "read_noise and sky_level must not both be 0: the image would have no noise"
        raise ValueError(msg)
    sky_noise = float(sigma_from_gain(0.0, gain, read_noise, sky_level, smoothing=0))
    sources = _draw_sources(rng_sources, shape, numbers, psf, sky_noise)
    truth = _render(sources, shape, psf)
    data, sigma = _expose(rng_noise, truth, sky_level, gain, read_noise)
    mask = _spoil_columns(rng_columns, data, bad_columns, sky_level)

    wcs = _make_wcs(shape, pixel_scale)
    meta = _make_header(seed, gain, read_noise, sky_level, psf)
    image = _pack(data, sigma, meta=meta, wcs=wcs, psf=psf.image, mask=mask)
    catalog = _make_catalog(sources, truth / sigma, wcs)
    return GalaxyField(image, truth, catalog, gain, read_noise, sky_level)


def _check_shape(shape):
    """Return ``shape`` as two int, or say what is wrong with it."""
    try:
        ny, nx = (operator.index(size) for size in shape)
    except (TypeError, ValueError) as error:
        msg = f"shape must be two integers (ny, nx), got {shape!r}"
        raise TypeError(msg) from error
    require(min(ny, nx) >= 32, f"shape must be at least (32, 32), got {shape!r}")
    return ny, nx


def _count(name, value, maximum=math.inf):
    """Return ``value`` as an int from 0 to ``maximum``."""
    try:
        number = operator.index(value)
    except TypeError as error:
        msg = f"{name} must be an integer, got {value!r}"
        raise TypeError(msg) from error
    if not 0 <= number <= maximum:
        msg = f"{name} must be at least 0{f' and at most {maximum}' * (maximum < math.inf)}, got {value!r}"
        raise ValueError(msg)
    return number


def _positive(name, value, unit, *, zero=False):
    """Return ``value`` as a float in ``unit``; it must be finite and positive."""
    number = float(u.Quantity(value, unit).value)
    if not np.isfinite(number) or number < 0 or (number == 0 and not zero):
        kind = "not negative" if zero else "positive"
        msg = f"{name} must be finite and {kind}, got {value!r}"
        raise ValueError(msg)
    return number


class _Moffat:
    """The PSF, of unit flux; ``radius`` is where it ends, and ``peak`` the value at the center per pixel."""

    def __init__(self, fwhm, beta):
        require(fwhm >= 1, f"psf_fwhm must be at least 1 pixel, got {fwhm!r}")
        require(beta > 1, f"psf_beta must be more than 1, got {beta!r}")
        self.fwhm = fwhm
        self.radius = _PSF_RADIUS * fwhm
        gamma = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
        self.peak = (beta - 1) / (np.pi * gamma**2)
        self.model = Moffat2D(self.peak, gamma=gamma, alpha=beta)

    def stamp(self, dx=0.0, dy=0.0):
        """Return the PSF on the fine grid, with unit sum."""
        xx, yy = _fine_grid(self.radius, dx, dy)
        values = self.model(xx, yy) * (np.hypot(xx, yy) <= self.radius)
        return values / values.sum()

    @property
    def image(self):
        """The PSF at the pixel scale, of odd size and unit sum."""
        half = int(np.ceil(2.5 * self.fwhm))
        size = 2 * half + 1
        canvas = np.zeros((size * _OVERSAMPLE, size * _OVERSAMPLE))
        _paint(canvas, self.stamp, half, half, 1.0)
        values = block_reduce(canvas, _OVERSAMPLE)
        return values / values.sum()


@dataclass(frozen=True)
class _Source:
    """
    A star (``radius`` 0), or a Sersic profile with or without a bulge.

    ``radius`` is the semi-major half-light axis in pixels of the profile, or of the disc if there is a bulge;
    ``theta`` is in deg.
    """

    kind: str
    x: float
    y: float
    flux: float
    radius: float = 0.0
    ellipticity: float = 0.0
    theta: float = 0.0
    sersic_index: float = 0.0
    bulge_fraction: float = 0.0
    spiral: float = 0.0
    host: int = 0

    @property
    def r_half(self):
        """The semi-major half-light axis of the whole source in pixels."""
        if not self.bulge_fraction:
            return self.radius
        return brentq(lambda r: self._light_within(r) - 0.5, 0.0, self.radius)

    @property
    def extent(self):
        """The semi-major axis in pixels out to which the source is drawn."""
        n = self.sersic_index
        return self.radius * (gammaincinv(2 * n, _LIGHT_DRAWN) / gammaincinv(2 * n, 0.5)) ** n

    def _light_within(self, r):
        bulge = _sersic_light(r, self.radius * _BULGE_SIZE, _BULGE_INDEX)
        disc = _sersic_light(r, self.radius, self.sersic_index)
        return self.bulge_fraction * bulge + (1 - self.bulge_fraction) * disc

    def stamp(self, dx, dy):
        """Return the galaxy without the PSF on the fine grid, with unit sum."""
        xx, yy = _fine_grid(self.extent, dx, dy)
        disc = self._profile(xx, yy, self.radius, self.sersic_index)
        if self.spiral:
            disc *= self._arms(xx, yy)
        bulge = self._profile(xx, yy, self.radius * _BULGE_SIZE, _BULGE_INDEX)
        fraction = self.bulge_fraction
        return fraction * bulge / bulge.sum() + (1 - fraction) * disc / disc.sum()

    def _profile(self, xx, yy, radius, index):
        theta = np.deg2rad(self.theta)
        return Sersic2D(r_eff=radius, n=index, ellip=self.ellipticity, theta=theta)(xx, yy)

    def _arms(self, xx, yy):
        """
        Return the light of two arms relative to a smooth disc.

        A von Mises distribution around two logarithmic spirals; its mean over every ellipse is 1, so radial
        profile and flux stay.
        """
        theta = np.deg2rad(self.theta)
        major = xx * np.cos(theta) + yy * np.sin(theta)
        minor = (yy * np.cos(theta) - xx * np.sin(theta)) / (1 - self.ellipticity)
        r = np.hypot(major, minor) / self.radius
        winding = np.sign(self.spiral) * np.log(np.maximum(r, 1e-6)) / np.tan(_PITCH)
        phase = 2 * (np.arctan2(minor, major) - winding)
        contrast = abs(self.spiral) * r**2 / (r**2 + 0.15)
        return np.exp(contrast * (np.cos(phase) - 1)) / i0e(contrast)


def _sersic_light(r, radius, index):
    """Return the part of the light of a Sersic profile within ``r``."""
    scale = gammaincinv(2 * index, 0.5)
    return gammainc(2 * index, scale * (r / radius) ** (1 / index))


def _fine_grid(radius, dx, dy):
    """Return coordinates in pixels on the fine grid, about ``(dx, dy)``."""
    half = int(np.ceil(radius * _OVERSAMPLE)) + 1
    offsets = np.arange(-half, half + 1) / _OVERSAMPLE
    return np.meshgrid(offsets - dx, offsets - dy)


def _paint(canvas, make_stamp, x, y, flux):
    """Add a source to the fine ``canvas``, at pixel coordinates."""
    fine = (np.array([x, y]) + 0.5) * _OVERSAMPLE - 0.5
    nearest = np.rint(fine).astype(int)
    stamp = make_stamp(*(fine - nearest) / _OVERSAMPLE)
    large, small = overlap_slices(canvas.shape, stamp.shape, nearest[::-1])
    canvas[large] += flux * stamp[small]


def _render(sources, shape, psf):
    """Return the noise-free scene, shape ``(ny, nx)``, in the unit of the fluxes."""
    pad = int(np.ceil(psf.radius))
    galaxies = np.zeros([(size + 2 * pad) * _OVERSAMPLE for size in shape])
    stars = np.zeros_like(galaxies)
    for source in sources:
        canvas, stamp = (galaxies, source.stamp) if source.radius else (stars, psf.stamp)
        _paint(canvas, stamp, source.x + pad, source.y + pad, source.flux)
    scene = stars + np.maximum(fftconvolve(galaxies, psf.stamp(), mode="same"), 0)
    return block_reduce(scene, _OVERSAMPLE)[pad:-pad, pad:-pad]


def _draw_sources(rng, shape, numbers, psf, sky_noise):
    """Return the sources of a field: galaxies, companions, stars."""
    n_galaxies, n_stars, n_companions = numbers
    positions = _draw_positions(rng, shape, n_galaxies + n_stars)
    galaxies = _draw_galaxies(rng, shape, positions[:n_galaxies], psf, sky_noise)
    hosts = enumerate(galaxies[:n_companions], start=1)
    companions = [_draw_companion(rng, shape, number, host) for number, host in hosts]
    fluxes = sky_noise * np.geomspace(5, 800, n_stars) * rng.uniform(0.8, 1.25, n_stars) / psf.peak
    places = positions[n_galaxies:]
    stars = [_Source("star", x, y, flux) for (x, y), flux in zip(places, fluxes, strict=True)]
    return galaxies + companions + stars


def _draw_positions(rng, shape, number):
    """Return well-spread positions ``(number, 2)`` in pixels; the first is near the center."""
    size = np.array(shape[::-1], float)
    positions = np.empty((number, 2))
    for i in range(number):
        trials = rng.uniform(0.05, 0.95, (12, 2)) * size - 0.5
        distance = np.linalg.norm(trials[:, np.newaxis] - positions[:i], axis=2)
        positions[i] = trials[distance.min(axis=1, initial=np.inf).argmax()]
    positions[:1] = 0.45 * size + 0.1 * positions[:1]
    return positions


def _draw_galaxies(rng, shape, positions, psf, sky_noise):
    """Return galaxies from the highest to the lowest surface brightness."""
    number = len(positions)
    rank = np.linspace(1, 0, number) if number > 1 else np.ones(number)
    radii = min(4.5 * psf.fwhm, min(shape) / 14) * 0.12 ** (1 - rank)
    radii *= np.exp(rng.normal(0, 0.15, number))
    surface = 0.6 * sky_noise * 15**rank
    galaxies = []
    for i, (x, y) in enumerate(positions):
        ellipticity = 0.3 if i == 0 else rng.uniform(0.05, 0.65)
        area = np.pi * np.hypot(radii[i], psf.fwhm / 2) ** 2 * (1 - ellipticity)
        form = {"ellipticity": ellipticity, "theta": rng.uniform(0, 180), "sersic_index": rng.uniform(0.8, 2)}
        galaxy = _Source("sersic", x, y, flux=2 * surface[i] * area, radius=radii[i], **form)
        if i % 3 == 0 or rank[i] > 0.8:
            form = {"bulge_fraction": rng.uniform(0.1, 0.3), "sersic_index": 1.0}
            form["spiral"] = rng.choice([-1, 1]) * rng.uniform(1.0, 2.0)
            galaxy = replace(galaxy, kind="two-component", **form)
        galaxies.append(galaxy)
    return galaxies


def _draw_companion(rng, shape, number, host):
    """Return a small galaxy near ``host``, on the side of the image center."""
    inward = np.arctan2(shape[0] / 2 - host.y, shape[1] / 2 - host.x)
    angle = inward + rng.uniform(-1, 1)
    distance = rng.uniform(1.6, 2.2) * host.r_half
    x = np.clip(host.x + distance * np.cos(angle), 0, shape[1] - 1)
    y = np.clip(host.y + distance * np.sin(angle), 0, shape[0] - 1)
    flux, radius = host.flux * rng.uniform(0.02, 0.06), host.radius * rng.uniform(0.12, 0.25)
    form = {"ellipticity": rng.uniform(0, 0.4), "theta": rng.uniform(0, 180), "sersic_index": 1.0}
    return _Source("companion", x, y, flux, radius, **form, host=number)


def _expose(rng, truth, sky_level, gain, read_noise):
    """Return a noisy, sky-subtracted exposure and its noise in adu."""
    from photutils.datasets import apply_poisson_noise, make_noise_image

    electrons = apply_poisson_noise((truth + sky_level) * gain, seed=rng)
    electrons = electrons + make_noise_image(truth.shape, mean=0, stddev=read_noise, seed=rng)
    return electrons / gain - sky_level, sigma_from_gain(truth, gain, read_noise, sky_level, smoothing=0)


def _spoil_columns(rng, data, number, sky_level):
    """Write garbage into ``number`` columns of ``data`` and return their mask."""
    ny, nx = data.shape
    columns = rng.choice(nx, number, replace=False)
    mask = np.zeros(data.shape, bool)
    mask[:, columns] = True
    data[:, columns] = rng.uniform(0, _SATURATION.value, (ny, number)) - sky_level
    return mask


def _make_wcs(shape, pixel_scale):
    """Return a TAN WCS with north up and east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit, wcs.wcs.radesys = ["RA---TAN", "DEC--TAN"], ["deg", "deg"], "ICRS"
    wcs.wcs.crval, wcs.wcs.crpix = _CENTER, [(size + 1) / 2 for size in shape[::-1]]
    wcs.wcs.cdelt = [-pixel_scale / 3600, pixel_scale / 3600]
    wcs.array_shape = shape
    return wcs


def _make_header(seed, gain, read_noise, sky_level, psf):
    """Return the header of the image."""
    header = fits.Header()
    header["OBJECT"] = ("Simulated galaxy field", "made by astro_ddpm")
    if isinstance(seed, int | np.integer):
        header["SIMSEED"] = (int(seed), "seed of the simulation")
    header["EXPTIME"] = (_EXPTIME.value, "[s] exposure time")
    header.update(detector_cards(gain, read_noise, _SATURATION.value))
    header["SKYLEVEL"] = (sky_level, "[adu] sky that was subtracted")
    header["PSFFWHM"] = (psf.fwhm, "[pix] FWHM of the point spread function")
    return header


def detector_cards(gain, read_noise, saturation):
    """Return the cards of a header that say what a detector does, with their comments."""
    return {
        "GAIN": (gain, "[electron/adu] gain"),
        "RDNOISE": (read_noise, "[electron] read noise"),
        "SATURATE": (saturation, "[adu] saturation level"),
    }


def _pack(data, sigma, *, meta, wcs, psf, mask=None):
    """Return a float32 CCDData."""
    data, sigma = data.astype(np.float32), StdDevUncertainty(sigma.astype(np.float32))
    carried = {"unit": u.adu, "meta": meta, "wcs": wcs.deepcopy(), "psf": psf.copy()}
    return CCDData(data, uncertainty=sigma, mask=mask, **carried)


def _make_catalog(sources, snr, wcs):
    """Return the table of the sources."""
    fields = {
        name: np.array([getattr(source, name) for source in sources], float) * unit
        for name, (unit, _) in _COLUMNS.items()
        if unit is not None
    }
    x, y = fields["x"].value, fields["y"].value
    fields |= {
        "id": np.arange(1, len(sources) + 1),
        "kind": np.array([source.kind for source in sources], "U13"),
        "host": np.array([source.host for source in sources], int),
        "sky_center": wcs.pixel_to_world(x, y),
        "peak_snr": snr[np.rint(y).astype(int), np.rint(x).astype(int)],
    }
    descriptions = {name: description for name, (_, description) in _COLUMNS.items()}
    return QTable({name: fields[name] for name in _COLUMNS}, descriptions=descriptions)

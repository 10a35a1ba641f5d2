# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A simulated CCD and the raw frames that it writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.modeling.models import Polynomial2D
from astropy.nddata import CCDData

from astro_ddpm.utils import require

from .simulate import GalaxyField, _count, _positive, detector_cards

__all__ = ["Detector"]

_BLIND = 0.02  # response of a bad column
_TRACK_LENGTH = 4.0  # mean length of a cosmic ray, pixel
_TRACK_CHARGE = 1200.0  # mean charge of a cosmic ray per pixel, electron
_STEP = 0.25  # of a track, pixel


@dataclass(frozen=True, kw_only=True)
class Detector:
    r"""
    A CCD that exposes a simulated sky and writes raw, bias and flat frames.

    What is fixed in a chip (the response of its pixels, the structure of its bias, its bad columns) is drawn
    from ``seed``. Each frame draws its noise from a seed of its own.

    Parameters
    ----------
    shape : tuple of int
        The shape ``(ny, nx)`` of a raw frame.

    gain, read_noise : float or `~astropy.units.Quantity`
        The gain :math:`g` in electron/adu and the read noise :math:`R` in electron.

    trim_section, bias_section : str, optional
        The part of a frame that sees light, all of it by default, and the overscan, as FITS sections such as
        ``'[17:528, 1:520]'``. Frames name the overscan in their header; nothing else depends on it.

    saturation, bias_level, bias_structure : float or `~astropy.units.Quantity`, optional
        The largest value that is written, at most 65535; the mean bias, which differs from frame to frame and
        drifts along the rows by about 1; and its standard deviation between columns, which the overscan does
        not have. All in adu.

    response_scatter, vignetting : float, optional
        The standard deviation of the response between pixels, and the part of the light that is lost in the
        corners, less than 1.

    bad_columns, seed : int, optional
        The number of columns that see 2 % of the light, and the seed of what is fixed in the chip.

    Raises
    ------
    TypeError, ValueError
        If a parameter is of the wrong type or out of its range, or a section outside of the frame.

    See Also
    --------
    make_galaxy_field : Makes a sky to expose.

    Notes
    -----
    With the sky :math:`S` in adu, the response :math:`f` of the pixels, the charge :math:`C` of cosmic rays
    and the bias :math:`b`, a frame holds

    .. math:: \left\lfloor b + \frac{P(g f S) + C}{g} + N(0, R / g) \right\rceil

    from 0 to the saturation level, where :math:`P` draws from the Poisson and :math:`N` from the normal
    distribution.

    Examples
    --------
    >>> from astro_ddpm.datasets import Detector, make_galaxy_field
    >>> header = {"NAXIS1": 80, "NAXIS2": 64, "GAIN": 1.9, "RDNOISE": 5.0,
    ...           "BIASSEC": "[4:13, 1:64]", "TRIMSEC": "[17:80, 1:64]"}
    >>> detector = Detector.from_header(header)
    >>> detector.light_shape
    (64, 64)
    >>> raw = detector.raw_frame(make_galaxy_field((64, 64), n_stars=2))
    >>> raw.shape, raw.unit, raw.data.dtype, raw.header["IMAGETYP"]
    ((64, 80), Unit("adu"), dtype('uint16'), 'object')
    """

    shape: tuple[int, int]
    gain: float | u.Quantity
    read_noise: float | u.Quantity
    trim_section: str | None = None
    bias_section: str | None = None
    saturation: float | u.Quantity = 65535.0
    bias_level: float | u.Quantity = 200.0
    bias_structure: float | u.Quantity = 2.0
    response_scatter: float = 0.01
    vignetting: float = 0.1
    bad_columns: int = 1
    seed: int = 0

    def __post_init__(self):
        units = {"gain": u.electron / u.adu, "read_noise": u.electron}
        units |= dict.fromkeys(("saturation", "bias_level", "bias_structure"), u.adu)
        units |= dict.fromkeys(("response_scatter", "vignetting"), u.one)
        for name, unit in units.items():
            zero = name not in ("gain", "saturation")
            object.__setattr__(self, name, _positive(name, getattr(self, name), unit, zero=zero))
        require(self.saturation <= 65535, f"saturation must be at most 65535 adu, got {self.saturation}")
        require(self.vignetting < 1, f"vignetting must be less than 1, got {self.vignetting}")
        _count("bad_columns", self.bad_columns, maximum=self.light_shape[1] - 1)

    @classmethod
    def from_header(cls, header, **properties):
        """
        Make a detector from the header of one of its frames, and the parameters that it does not tell.

        The header must hold NAXIS1, NAXIS2, GAIN and RDNOISE; TRIMSEC, BIASSEC and SATURATE are used if they
        are there. A missing keyword raises ValueError.
        """
        missing = [name for name in ("NAXIS1", "NAXIS2", "GAIN", "RDNOISE") if name not in header]
        require(not missing, f"header lacks {', '.join(missing)}")
        names = {"gain": "GAIN", "read_noise": "RDNOISE", "saturation": "SATURATE"}
        names |= {"trim_section": "TRIMSEC", "bias_section": "BIASSEC"}
        values = {name: header[keyword] for name, keyword in names.items() if keyword in header}
        return cls(shape=(header["NAXIS2"], header["NAXIS1"]), **values, **properties)

    @property
    def light(self):
        """The part of a frame that sees light, as a pair of slices."""
        from ccdproc.utils.slices import slice_from_string

        section = slice_from_string(self.trim_section or "[:, :]", fits_convention=True)
        if any((part.stop or 0) > size for part, size in zip(section, self.shape, strict=True)):
            msg = f"trim_section {self.trim_section} is outside of the frame of shape {self.shape}"
            raise ValueError(msg)
        return tuple(slice(*part.indices(size)) for part, size in zip(section, self.shape, strict=True))

    @property
    def light_shape(self):
        """The shape ``(ny, nx)`` of the part that sees light."""
        return tuple(part.stop - part.start for part in self.light)

    @property
    def response(self):
        """The response of every pixel that sees light, 1 in the center of a chip without scatter."""
        rng, rng_columns = np.random.default_rng([self.seed, 1]).spawn(2)
        ny, nx = self.light_shape
        y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
        loss = self.vignetting / 2
        response = Polynomial2D(2, c0_0=1.0, c2_0=-loss, c0_2=-loss)(x, y)
        response *= np.maximum(rng.normal(1, self.response_scatter, (ny, nx)), 0)
        response[:, rng_columns.choice(nx, self.bad_columns, replace=False)] *= _BLIND
        return response

    @property
    def bias(self):
        """The mean bias of every pixel of a frame in adu."""
        bias = np.full(self.shape, self.bias_level)
        rng = np.random.default_rng([self.seed, 2])
        bias[self.light] += rng.normal(0, self.bias_structure, self.light_shape[1])
        return bias

    def bias_frame(self, *, seed: int | None = 1) -> CCDData:
        """Read the chip without exposing it; return unsigned integers in adu. ``seed`` selects the noise."""
        return self._read(np.zeros(self.light_shape), "zero", 0.0, seed)

    def flat_frame(self, level: float | u.Quantity = 20000.0, *, seed: int | None = 2) -> CCDData:
        """Expose the chip to uniform light of a level in adu; return unsigned integers."""
        level = _positive("level", level, u.adu)
        return self._read(np.full(self.light_shape, level), "flat", 10.0, seed)

    def raw_frame(self, field: GalaxyField, *, cosmic_rays: int = 30, seed: int | None = 3) -> CCDData:
        """
        Expose the chip to a field and its sky; return unsigned integers in adu with the WCS of the field.

        Parameters
        ----------
        field : `GalaxyField`
            The field, with an image of ``light_shape``, else ValueError. Its gain and read noise do not
            matter.

        cosmic_rays : int, optional
            How many cosmic rays hit the chip.

        seed : int or None, optional
            The seed of noise and cosmic rays, which are independent: two frames of the same seed differ by
            the cosmic rays only.
        """
        if field.truth.shape != self.light_shape:
            msg = f"field must be of shape {self.light_shape}, got {field.truth.shape}"
            raise ValueError(msg)
        number, header = _count("cosmic_rays", cosmic_rays), field.image.header
        sky = field.truth + field.sky_level
        frame = self._read(sky, "object", header["EXPTIME"], seed, cosmic_rays=number)
        frame.header["OBJECT"] = header["OBJECT"]
        wcs = field.image.wcs.deepcopy()
        wcs.wcs.crpix += [part.start for part in self.light[::-1]]
        wcs.array_shape = self.shape
        frame.wcs = wcs
        return frame

    def _read(self, sky, kind, exposure, seed, *, cosmic_rays=0):
        """Expose the chip to a sky in adu and read it out."""
        from photutils.datasets import apply_poisson_noise, make_noise_image

        rng, rng_rays = np.random.default_rng(seed).spawn(2)
        rows = np.linspace(-1, 1, self.shape[0])
        drift = rng.normal() + rng.normal() * rows
        noise = make_noise_image(self.shape, mean=0, stddev=self.read_noise / self.gain, seed=rng)
        values = self.bias + drift[:, np.newaxis] + noise
        electrons = apply_poisson_noise(self.gain * self.response * sky, seed=rng)
        values[self.light] += (electrons + _cosmic_rays(rng_rays, self.light_shape, cosmic_rays)) / self.gain
        values = np.rint(np.clip(values, 0, self.saturation)).astype(np.uint16)
        return CCDData(values, unit=u.adu, meta=self._header(kind, exposure))

    def _header(self, kind, exposure):
        header = fits.Header()
        header["INSTRUME"] = ("simulated CCD", "made by astro_ddpm")
        header["IMAGETYP"] = (kind, "object, flat or zero")
        header["EXPTIME"] = (exposure, "[s] exposure time")
        header.update(detector_cards(self.gain, self.read_noise, self.saturation))
        if self.trim_section:
            header["TRIMSEC"] = (self.trim_section, "part that sees light")
        if self.bias_section:
            header["BIASSEC"] = (self.bias_section, "overscan")
        return header


def _cosmic_rays(rng, shape, number):
    """Return the charge of straight tracks in electron."""
    charge = np.zeros(shape)
    starts = rng.uniform(0, 1, (number, 2)) * shape
    angles = rng.uniform(0, 2 * np.pi, number)
    lengths = 1 + rng.exponential(_TRACK_LENGTH - 1, number)
    charges = rng.exponential(_TRACK_CHARGE, number)
    for start, angle, length, electrons in zip(starts, angles, lengths, charges, strict=True):
        along = np.arange(0, length, _STEP)[:, np.newaxis] * [np.sin(angle), np.cos(angle)]
        pixels = np.floor(start + along).astype(int)
        inside = np.all((pixels >= 0) & (pixels < shape), axis=1)
        np.add.at(charge, tuple(pixels[inside].T), electrons * _STEP)
    return charge

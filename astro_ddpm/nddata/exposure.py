# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The one parser of images.
"""

import os
import re
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, NDData, NDUncertainty, StdDevUncertainty

from astro_ddpm.noise import (
    constant_areas,
    detect_mosaic,
    find_edges,
    lacks_information,
    largest_value,
    match_pair,
)
from astro_ddpm.utils import warn_user

from .enhanced import EnhancedCCDData, _carried, image_wcs, squeeze_image
from .files import _from_hdu, read_image
from .units import std_in_unit

__all__ = ["Exposure"]

BAYER_CARDS = {"BAYERPAT", "COLORTYP"}
MOSAIC = (
    "pixels of a Bayer pattern see different colours, which looks like noise. Take one colour, or "
    "interpolate the colours, before"
)


@dataclass(frozen=True, eq=False)
class Exposure:
    """
    An image as plain arrays in one unit, with one noise and one validity.

    `Exposure.parse` makes it from any input. One policy decides which pixels count:

    * A masked pixel never counts in an image that was not enhanced.
    * A masked pixel counts in an `EnhancedCCDData`, because the posterior has filled it, unless the header
      says that it was left as it came (``mask_treatment="propagate"``).
    * A pixel whose data, noise or samples are not finite never counts.
    * For what weights by the noise (`check`), a pixel without information does not count either: one whose
      noise is zero or so large that it marks the pixel as bad (`~astro_ddpm.noise.lacks_information`).

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The image in native float32 or float64, a copy.

    sigma : ndarray, shape (ny, nx), or None
        Its noise (1 sigma) in the same unit and dtype; None if nothing is known. It may share memory with the
        input. It has no meaning where ``valid`` is False.

    valid : ndarray of bool, shape (ny, nx)
        True for pixels that count.

    unit : `~astropy.units.Unit`
        The unit of all planes.

    samples : ndarray, shape (n, ny, nx), optional
        The samples of an enhanced image; they may share memory with the input.

    ccd : `~astropy.nddata.CCDData`, optional
        Where it came from: WCS, header, PSF and flags.

    name : str, optional
        What error messages call it.
    """

    data: np.ndarray
    sigma: np.ndarray | None
    valid: np.ndarray
    unit: u.UnitBase
    samples: np.ndarray | None = None
    ccd: CCDData | None = None
    name: str = "image"

    @classmethod
    def parse(cls, image, uncertainty=None, *, name="image", unit=None):
        """
        Parse any kind of image.

        Parameters
        ----------
        image : CCDData, NDData, Quantity, array_like, masked array, HDU, str or path-like
            A two-dimensional image (ny, nx), or the FITS file that holds one. It is never changed.

        uncertainty : NDUncertainty, Quantity, array_like or float, optional
            The noise of an image that does not carry it; arrays and numbers are standard deviations.

        name : str, optional
            What error messages call the image.

        unit : `~astropy.units.Unit` or str, optional
            The unit of the result. An array or NDData without unit is taken to be in it.

        Returns
        -------
        exposure : `Exposure`
            Plain arrays. Perhaps no pixel is valid, and perhaps some have no noise; `check` refuses that.

        Raises
        ------
        TypeError
            If ``image`` or ``uncertainty`` is of a kind that cannot be used.

        ValueError
            If ``image`` is not two-dimensional (but for axes of length one) or is empty, if its unit is
            logarithmic or its header says that its values are (BSOFTEN), if shapes differ, if the noise is
            negative at a pixel that counts, or if the noise is given twice.

        `~astropy.units.UnitConversionError`
            If units do not fit.
        """
        ccd = squeeze_image(_as_ccddata(image, name, unit))
        if "BSOFTEN" in ccd.meta:
            msg = (
                f"{name} holds asinh magnitudes (BSOFTEN in its header), as stacks of Pan-STARRS do; convert "
                "it to flux, BOFFSET + 2 BSOFTEN sinh(image / 1.0857362), and remove BSOFTEN"
            )
            raise ValueError(msg)
        data = _float_data(ccd.data, name)
        if data.ndim != 2:
            msg = f"{name} must be two-dimensional (ny, nx), a plane of a cube, not of shape {data.shape}"
            raise ValueError(msg)
        if data.size == 0:
            msg = f"{name} is empty: its shape is {data.shape}"
            raise ValueError(msg)
        if _is_logarithmic(ccd.unit):
            msg = f"{name} is in {ccd.unit}, which is logarithmic; convert it to a linear unit of flux"
            raise ValueError(msg)
        if ccd.uncertainty is not None and uncertainty is not None:
            msg = (
                f"uncertainty is given although the {name} carries one; set {name}.uncertainty to None first"
            )
            raise ValueError(msg)
        valid = _counting(ccd, data, name)
        sigma = _sigma(ccd.uncertainty if uncertainty is None else uncertainty, ccd.unit, data, valid)
        samples = _samples(ccd, data.shape, name)
        for plane in [*([] if sigma is None else [sigma]), *([] if samples is None else samples)]:
            valid &= np.isfinite(plane)
        exposure = cls(data, sigma, valid, ccd.unit, samples, ccd, name)
        return exposure if unit is None else exposure.to(unit)

    @property
    def shape(self):
        """The shape (ny, nx)."""
        return self.data.shape

    @property
    def mask(self):
        """True for pixels that measurements must leave out."""
        return ~self.valid

    @property
    def wcs(self):
        """The WCS of the two axes, or None."""
        return None if self.ccd is None else image_wcs(self.ccd.wcs)

    @property
    def is_enhanced(self):
        """Whether it is the result of an enhancement."""
        return isinstance(self.ccd, EnhancedCCDData)

    def check(self):
        """
        Leave out pixels without information, with a warning, and return what is left.

        Raises ValueError if no pixel is valid, or if values are beyond `~astro_ddpm.noise.largest_value` at
        valid pixels.
        """
        if not self.valid.any():
            msg = f"{self.name} has no valid pixel: every one is masked or not finite"
            if self.sigma is not None and not np.isfinite(self.sigma).any():
                msg = "uncertainty is not finite at any valid pixel"
            raise ValueError(msg)
        empty = self._lost_by_noise()
        checked = replace(self, valid=self.valid & ~empty)
        if not checked.valid.any():
            msg = "uncertainty is zero at every valid pixel; give the noise of the image"
            raise ValueError(msg)
        if empty.any():
            warn_user(
                f"{empty.sum()} pixels hold no information: their uncertainty is zero, not finite, or so "
                "large that it marks them as bad. They are treated as if they were masked"
            )
        largest = largest_value(self.data.dtype)
        if np.abs(self.data[checked.valid]).max() > largest:
            msg = (
                f"{self.name} holds values beyond {largest:g} at valid pixels; mask them, or choose another "
                "unit"
            )
            raise ValueError(msg)
        return checked

    def _lost_by_noise(self):
        """Mark pixels that are neither masked nor infinite but hold no information."""
        if self.sigma is None:
            return np.zeros(self.shape, bool)
        counted = np.isfinite(self.data) if self.ccd is None else _counting(self.ccd, self.data, self.name)
        if self.is_enhanced:
            return counted & ~(np.isfinite(self.sigma) & (self.sigma > 0))
        return counted & lacks_information(self.data, self.sigma, self.valid)

    def to(self, unit):
        """Return the exposure in another unit; itself if it is in it already."""
        unit = u.Unit(unit)
        if unit == self.unit:
            return self
        factor = self.unit.to(unit)
        planes = (None if p is None else p * factor for p in (self.data, self.sigma, self.samples))
        return replace(self, **dict(zip(("data", "sigma", "samples"), planes, strict=True)), unit=unit)

    def leave_out(self, mask):
        """Return the exposure without the pixels of a mask, shape (ny, nx), or itself if that is None."""
        if mask is None:
            return self
        mask = np.asarray(mask, bool)
        if mask.shape != self.shape:
            msg = f"mask must have the shape {self.shape} of the {self.name}, not {mask.shape}"
            raise ValueError(msg)
        return replace(self, valid=self.valid & ~mask)

    def without_constant_areas(self):
        """Leave out areas of one value, which are missing data, with a warning."""
        areas = constant_areas(self.data, self.valid)
        if not areas.any() or not np.any(self.valid & ~areas):
            return self
        values = ", ".join(f"{value:g}" for value in np.unique(self.data[areas])[:5])
        warn_user(
            f"{areas.sum()} pixels lie in areas of one value ({values}): they are taken as missing, as if "
            "they were masked"
        )
        return self.leave_out(areas)

    def warn_of_raw(self):
        """
        Warn if pixels see different colours, or strips along the edges none of the sky.

        The header says so (BAYERPAT; BIASSEC and TRIMSEC), or the image itself shows it
        (`~astro_ddpm.noise.detect_mosaic`, `~astro_ddpm.noise.find_edges`).
        """
        header = {} if self.ccd is None else self.ccd.meta
        if self.is_enhanced:
            return
        for keyword in BAYER_CARDS & {*header}:
            warn_user(f"{keyword} = {header[keyword]!r} in the header: {MOSAIC}")
        if not BAYER_CARDS & {*header}:
            level, gain = detect_mosaic(self.data, self.mask)
            if level or gain:
                warn_user(
                    f"the four pixels of cells of 2 x 2 differ, by {level:.2g} of the noise and "
                    f"{100 * gain:.2g} % in gain, though no BAYERPAT is in the header: {MOSAIC}"
                )
        if "BIASSEC" in header and _is_untrimmed(str(header.get("TRIMSEC")), self.shape):
            warn_user(
                f"the frame is larger than its part that sees the sky, TRIMSEC = {header['TRIMSEC']!r} in "
                "the header: cut the overscan off before, as ccdproc.trim_image does"
            )
            return
        rows, columns = find_edges(self.data, self.mask)
        if (rows.stop - rows.start, columns.stop - columns.start) != self.shape:
            first_x, first_y = columns.start + 1, rows.start + 1
            warn_user(
                "strips along the edges of the frame lie at another level than the rest, as overscans do: "
                f"keep only image[{rows.start}:{rows.stop}, {columns.start}:{columns.stop}], in FITS "
                f"[{first_x}:{columns.stop}, {first_y}:{rows.stop}] (ccdproc.trim_image), or mask them"
            )

    def match(self, deep, **options):
        """Bring a deeper exposure to the PSF of this one by `~astro_ddpm.noise.match_pair`."""
        known = {"sigma": self.sigma, "deep_sigma": deep.sigma, "valid": self.valid, "deep_valid": deep.valid}
        return match_pair(self.data, deep.data, **known, **options)

    def pack(self, data, sigma, samples, meta):
        """
        Put a result into an `EnhancedCCDData` with everything else the input carried.

        ``data`` and ``sigma`` are mean and standard deviation of the posterior, ``samples`` draws from it, or
        None, and ``meta`` is the header. All pixels that do not count are added to the mask of the input.
        """
        carried = deepcopy(_carried(self.ccd) | {"meta": meta, "unit": self.unit})
        lost = ~self.valid
        if carried["mask"] is not None or lost.any():
            carried["mask"] = lost | (False if carried["mask"] is None else np.asarray(carried["mask"], bool))
        return EnhancedCCDData(data, uncertainty=StdDevUncertainty(sigma), samples=samples, **carried)


def _is_untrimmed(section, shape):
    """Tell whether a section such as ``"[17:528, 1:520]"`` is a part of an image, not all of it."""
    match = re.fullmatch(r"\[(\d+):(\d+),(\d+):(\d+)\]", "".join(section.split()))
    if match is None:
        return False
    first_x, last_x, first_y, last_y = map(int, match.groups())
    size = (last_y - first_y + 1, last_x - first_x + 1)
    return last_y <= shape[0] and last_x <= shape[1] and size != shape


def _as_ccddata(image, name="image", unit=None):
    """Turn any input into a CCDData that may share its planes."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)):
        return _from_hdu(image)
    if isinstance(image, CCDData):
        return image
    default = u.dimensionless_unscaled if unit is None else unit
    if isinstance(image, NDData):
        return CCDData(image, unit=None if image.unit else default)
    if isinstance(image, fits.HDUList):
        msg = f"{name} is an HDUList; pass one of its HDUs"
        raise TypeError(msg)
    if isinstance(image, u.Quantity):
        return CCDData(image)
    return CCDData(np.ma.asanyarray(image), unit=default)


def _float_data(data, name="image"):
    """Copy to native float32 or float64, whichever holds all values exactly."""
    array = np.ma.getdata(data)
    if array.dtype.kind not in "iuf":
        msg = f"{name} must hold real numbers, not {array.dtype}"
        raise TypeError(msg)
    dtype = np.result_type(array.dtype.newbyteorder("="), np.float32)
    return np.array(array, dtype=np.float64 if dtype.itemsize > 8 else dtype)


def _is_logarithmic(unit):
    """Whether a unit is a magnitude, a decibel or the like, also per area."""
    return isinstance(unit, u.function.FunctionUnitBase) or u.dex in unit.decompose().bases


def _counting(ccd, data, name):
    """Mark the finite pixels that the mask lets count."""
    valid = np.isfinite(data)
    if ccd.mask is None:
        return valid
    mask = np.asarray(ccd.mask, bool)
    if mask.shape not in ((), data.shape):
        msg = f"{name} has shape {data.shape}, its mask {mask.shape}"
        raise ValueError(msg)
    is_filled = isinstance(ccd, EnhancedCCDData) and ccd.meta.get("DDPMMASK") != "propagate"
    return valid if is_filled else valid & ~mask


def _sigma(uncertainty, unit, data, valid):
    """Return the standard deviation in unit and dtype of the image, or None."""
    if uncertainty is None:
        return None
    raw = np.asarray(uncertainty.array if isinstance(uncertainty, NDUncertainty) else uncertainty)
    if raw.dtype.kind not in "iuf":
        msg = f"uncertainty must hold real numbers, not {raw.dtype}"
        raise TypeError(msg)
    if raw.shape in ((), data.shape) and np.any(np.broadcast_to(raw, data.shape)[valid] < 0):
        msg = "uncertainty is negative at some valid pixels; mask them or mend it"
        raise ValueError(msg)
    return std_in_unit(uncertainty, unit, data.shape, data.dtype)


def _samples(ccd, shape, name):
    """Return the samples of an enhanced image, or None."""
    samples = getattr(ccd, "samples", None)
    if samples is None:
        return None
    samples = np.asarray(getattr(samples, "value", samples))
    if samples.ndim != 3 or samples.shape[1:] != shape:
        msg = f"{name} has samples of shape {samples.shape} for data of shape {shape}"
        raise ValueError(msg)
    return samples

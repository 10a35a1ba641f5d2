# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images as astropy knows them: any input unpacked, any result packed.
"""

import os
import re
import warnings
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from zlib import crc32

import numpy as np
from astropy import units as u
from astropy.io import fits, registry
from astropy.nddata import CCDData, NDData, NDUncertainty, StdDevUncertainty

from . import provenance
from .noise import sigma_from_uncertainty
from .utils import atomic_path, warn_user

__all__ = [
    "EnhancedCCDData",
    "NoisyImage",
    "create_samples",
    "find_image",
    "image_wcs",
    "is_complete",
    "largest_value",
    "parse_unit",
    "read_image",
    "unpack",
]

FITS_BLOCK = 2880  # bytes
COUNTS = re.compile(r"(adu|dn|electrons?|counts?) *(/ *s(?:ec)?)?", re.IGNORECASE)
WCS_CARDS = (
    r"(?:WCSAXES|WCSNAME|RADESYS|RADECSYS|EQUINOX|LONPOLE|LATPOLE|SPECSYS"
    r"|(?:CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA|CNAME|CRDER|CSYER|CPDIS|CQDIS)\d+"
    r"|(?:CD|PC|PV|PS)\d+_\d+|D[PQ]\d+(?:\..*)?|(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+))"
)


class EnhancedCCDData(CCDData):
    """
    An enhanced image: posterior mean, its uncertainty and draws from the posterior.

    A `~astropy.nddata.CCDData` whose ``data`` is the posterior mean of the noise-free scene and whose
    ``uncertainty`` is the posterior's standard deviation. Slicing slices the samples, arithmetic with
    numbers, arrays and images without uncertainty acts on them, and FITS files keep them in an
    extension ``SAMPLES``. Anything else that changes the data drops them, with a warning.

    Parameters
    ----------
    *args, **kwargs
        As for `~astropy.nddata.CCDData`.

    samples : array_like, shape (n, ny, nx), optional
        Draws of deep exposures, in the unit of ``data``.

    Raises
    ------
    ValueError
        If ``samples`` does not hold images of the shape of ``data``.
    """

    def __init__(self, *args, samples=None, **kwargs):
        super().__init__(*args, **kwargs)
        if samples is None and args and isinstance(args[0], EnhancedCCDData):
            samples = args[0].samples
            if kwargs.get("copy"):
                samples = deepcopy(samples)
        self.samples = samples

    @property
    def samples(self):
        """
        Draws of deep exposures, shape (n, ny, nx), in the unit of the data; None if there are none.

        Each is what one exposure of the depth asked for might show, noise included. The spread of a
        flux, size or shape measured on all of them is the error of that measurement, with all
        covariances between pixels.

        If the data are no longer those that the samples were set for, because a function such as
        `ccdproc.combine` has replaced them or written into them, the samples are dropped with a
        warning.
        """
        if self._samples is not None and _checksum(self.data) != self._samples_belong_to:
            warn_user("samples are dropped: the data were changed after the samples had been set")
            self._samples = None
        return self._samples

    @samples.setter
    def samples(self, values):
        if values is not None:
            values = np.asanyarray(values)
            if values.ndim == 0 or values.shape[1:] != self.shape:
                msg = f"samples must be of shape (n, *{self.shape}), not {values.shape}"
                raise ValueError(msg)
            self._samples_belong_to = _checksum(self.data)
        self._samples = values

    def quantile(self, q):
        """
        Quantiles of the samples at every pixel.

        Parameters
        ----------
        q : float or array_like of float
            Probabilities between 0 and 1.

        Returns
        -------
        quantile : ndarray, shape (ny, nx), or (len(q), ny, nx) for several probabilities
            The quantiles, in the unit of the data. They are those of an exposure of the depth asked
            for, and so include its noise. Those of few samples lie too close together: between the
            quantiles 0.16 and 0.84 of 16 samples are 61 % of the posterior, not 68.

        Raises
        ------
        ValueError
            If there are no samples, or ``q`` is not between 0 and 1.
        """
        if self.samples is None:
            msg = "quantile needs samples, and this image has none: enhance with a model that draws them"
            raise ValueError(msg)
        q = np.asarray(q, float)
        if not np.all((q >= 0) & (q <= 1)):
            msg = f"q must be between 0 and 1, not {q}"
            raise ValueError(msg)
        return np.quantile(self.samples, q, axis=0).astype(self.samples.dtype)

    def _slice(self, item):
        kwargs = super()._slice(item)
        if self.samples is not None:
            items = item if isinstance(item, tuple) else (item,)
            kwargs["samples"] = self.samples[(slice(None), *items)]
        if isinstance(self.flags, np.ndarray):
            kwargs["flags"] = self.flags[item]
        kwargs["psf"] = self.psf
        return kwargs

    def _arithmetic(self, operation, operand, *args, **kwargs):
        result, init = super()._arithmetic(operation, operand, *args, **kwargs)
        if getattr(self, "samples", None) is not None:
            init["samples"] = self._operate_on_samples(operation, operand, result)
        return result, init

    def _operate_on_samples(self, operation, operand, result):
        """Apply an operation to each sample, or give up the samples with a warning."""
        if (
            operand is None
            or operand.uncertainty is not None
            or getattr(operand, "samples", None) is not None
        ):
            warn_user(
                f"samples are dropped by {operation.__name__}: they do not know the uncertainty of the "
                "other operand, or the axes that were collapsed"
            )
            return None
        values = operation(self.samples << _unit(self), operand.data << _unit(operand))
        return values.to_value(getattr(result, "unit", u.dimensionless_unscaled))

    def convert_unit_to(self, unit, equivalencies=()):
        """
        Return the image in another unit, samples included.

        Parameters
        ----------
        unit : `~astropy.units.Unit` or str
            The unit.

        equivalencies : list of tuple, optional
            As for `~astropy.units.Quantity.to`.

        Returns
        -------
        image : `EnhancedCCDData`
            A new image.

        Raises
        ------
        `~astropy.units.UnitConversionError`
            If the units are not convertible.
        """
        result = super().convert_unit_to(unit, equivalencies)
        if self.samples is not None:
            result.samples = self.unit.to(unit, self.samples, equivalencies=equivalencies)
        return result

    def to_hdu(self, *args, hdu_samples="SAMPLES", hdu_flags="FLAGS", **kwargs):
        """
        Make an HDU list of the image and all its planes.

        Parameters
        ----------
        *args, **kwargs
            As for `astropy.nddata.CCDData.to_hdu`.

        hdu_samples, hdu_flags : str or None, optional
            The names of the extensions that hold samples and flags (an array); None to leave them out.

        Returns
        -------
        hdus : `~astropy.io.fits.HDUList`
            Primary image, then mask, uncertainty, PSF, flags and samples as far as there are any.
        """
        hdus = super().to_hdu(*args, **kwargs)
        _put_wcsaxes_first(hdus[0].header)
        if hdu_flags and isinstance(self.flags, np.ndarray):
            flags = self.flags.astype(np.uint8) if self.flags.dtype == bool else self.flags
            hdus.append(fits.ImageHDU(flags, name=hdu_flags))
        if hdu_samples and self.samples is not None:
            hdus.append(fits.ImageHDU(self.samples, name=hdu_samples))
            if self.unit != u.dimensionless_unscaled:
                hdus[-1].header["BUNIT"] = self.unit.to_string()
        return hdus

    def to_table(self):
        """
        Make a table with one row per pixel.

        Returns
        -------
        table : `~astropy.table.QTable`
            The pixels row by row, so that a column reshaped to the shape of the image is an image again:

            * ``x``, ``y``: column and row; pixel centers are integers, from 0.
            * ``sky_center``: the position on the sky, if there is a celestial WCS.
            * ``data`` and ``uncertainty`` (the standard deviation), in the unit of the image.
            * ``mask``: whether the pixel is masked.
            * ``samples``: all draws for the pixel, shape (n,), in the unit of the image.

            What the image does not have is left out. The metadata say what the enhancement was.

        Raises
        ------
        ValueError
            If the image is not two-dimensional.

        Examples
        --------
        >>> from astro_ddpm import enhance
        >>> from astro_ddpm.datasets import make_galaxy_field
        >>> field = make_galaxy_field(shape=(48, 32), n_galaxies=1, n_stars=1)
        >>> table = enhance(field.image, model="raunet").to_table()
        >>> len(table), table.colnames
        (1536, ['x', 'y', 'sky_center', 'data', 'uncertainty', 'mask'])
        """
        from astropy.coordinates import SkyCoord
        from astropy.table import QTable

        if self.data.ndim != 2:
            msg = f"to_table needs a two-dimensional image, not one of shape {self.shape}"
            raise ValueError(msg)
        y, x = (index.ravel() for index in np.indices(self.shape))
        table = QTable({"x": x * u.pix, "y": y * u.pix}, meta=provenance.read(self.meta))
        wcs = image_wcs(self.wcs)
        sky = None if wcs is None else wcs.pixel_to_world(x, y)
        if isinstance(sky, SkyCoord):
            table["sky_center"] = sky
        table["data"] = self.data.ravel() << self.unit
        if self.uncertainty is not None:
            sigma = _std_in_unit(self.uncertainty, self.unit, self.shape)
            table["uncertainty"] = sigma.ravel() << self.unit
        if self.mask is not None:
            table["mask"] = np.broadcast_to(self.mask, self.shape).ravel()
        if self.samples is not None:
            table["samples"] = self.samples.reshape(len(self.samples), -1).T << self.unit
        return table


def _checksum(data):
    """Tell whether data have changed, apart from their precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        return crc32(np.ascontiguousarray(data, np.float32))


def _unit(image):
    return u.dimensionless_unscaled if image.unit is None else image.unit


def image_wcs(wcs):
    """
    Return the WCS of the two axes of an image, where others belong to it (a frequency, a polarisation).

    Parameters
    ----------
    wcs : WCS or None
        A WCS of any number of axes.

    Returns
    -------
    wcs : WCS or None
        The same if it has two axes, its celestial part if it has more, None if there is none.
    """
    if wcs is None or wcs.pixel_n_dim == 2:
        return wcs
    return wcs.celestial if getattr(wcs, "has_celestial", False) else None


def _put_wcsaxes_first(header):
    """Move WCSAXES before the other keywords of the WCS, as the FITS standard wants it."""
    if "WCSAXES" in header:
        card = header.cards["WCSAXES"]
        del header["WCSAXES"]
        header.insert(f"NAXIS{header['NAXIS']}", card, after=True)


def _native(array):
    """Return an array in the byte order of the machine, without copying one that is already."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _reusable(file):
    """Return a function that gives the file, which astropy may have opened already, as if it were new."""
    if not hasattr(file, "read"):
        return lambda: file
    if isinstance(getattr(file, "name", None), str):
        return lambda: file.name
    content = file.read()
    return lambda: BytesIO(content)


def _read_enhanced(filename, **kwargs):
    """Read what `_write_enhanced` wrote, in the byte order of the machine."""
    source = _reusable(filename)
    if "unit" not in kwargs:
        kwargs |= _unit_option(fits.getheader(source(), kwargs.get("hdu", 0)))
    ccd = CCDData.read(source(), format="fits", **kwargs)
    image = EnhancedCCDData(_native(ccd.data), **_attributes(ccd))
    if ccd.psf is not None:
        image.psf = _native(ccd.psf)
    if ccd.uncertainty is not None:
        image.uncertainty = type(ccd.uncertainty)(_native(ccd.uncertainty.array))
    with fits.open(source()) as hdus:
        if "FLAGS" in hdus:
            image.flags = _native(hdus["FLAGS"].data)
        if "SAMPLES" in hdus:
            image.samples = _native(hdus["SAMPLES"].data)
    return image


def _write_enhanced(image, filename, *, overwrite=False, output_verify="exception", checksum=False, **kwargs):
    """Write every plane; a file on disk appears when it is complete."""
    is_stream = hasattr(filename, "write")
    with nullcontext(filename) if is_stream else atomic_path(filename, overwrite=overwrite) as target:
        hdus = image.to_hdu(**kwargs)
        _compute_planes(hdus)
        hdus.writeto(target, output_verify=output_verify, checksum=checksum)


def _compute_planes(hdus):
    """
    Compute what are Dask arrays, together, in place.

    astropy lets each write itself into the memory-mapped file; workers in other processes would write into
    copies of it, and the file stay empty.
    """
    lazy = [hdu for hdu in hdus if hasattr(hdu.data, "dask")]
    if lazy:
        import dask

        for hdu, plane in zip(lazy, dask.compute(*(hdu.data for hdu in lazy)), strict=True):
            hdu.data = plane


@contextmanager
def create_samples(path, shape, dtype, unit):
    """
    Make a FITS file of samples that can be filled one by one.

    Parameters
    ----------
    path : str or path-like
        The file; it appears when all went well.

    shape : tuple of int
        The shape (n, ny, nx) of the samples.

    dtype : dtype
        Their dtype, a float.

    unit : `~astropy.units.Unit`
        Their unit.

    Yields
    ------
    samples : `~numpy.memmap`, shape (n, ny, nx)
        What the file holds, big-endian.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    """
    dtype = np.dtype(dtype).newbyteorder(">")
    header = fits.PrimaryHDU(np.broadcast_to(dtype.type(0), shape)).header
    if unit != u.dimensionless_unscaled:
        header["BUNIT"] = unit.to_string()
    with atomic_path(path) as partial:
        header.tofile(partial)
        offset = partial.stat().st_size
        size = -(-dtype.itemsize * prod(shape) // FITS_BLOCK) * FITS_BLOCK
        with partial.open("r+b") as file:
            file.truncate(offset + size)
        samples = np.memmap(partial, dtype, "r+", offset, shape)
        yield samples
        samples.flush()


def _attributes(ccd):
    """What a CCDData carries besides data and uncertainty."""
    return {name: getattr(ccd, name) for name in ("unit", "mask", "wcs", "meta", "psf", "flags")}


registry.register_reader("fits", EnhancedCCDData, _read_enhanced)
registry.register_writer("fits", EnhancedCCDData, _write_enhanced)
registry.register_identifier("fits", EnhancedCCDData, fits.connect.is_fits)


def is_complete(path):
    """
    Tell whether a FITS file ends where its last extension does.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    complete : bool
        Whether nothing is missing at its end.

    Raises
    ------
    OSError
        If the file cannot be read as FITS.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "File may have been truncated")
        with Path(path).open("rb") as stream, fits.open(stream) as hdus:
            last = hdus[len(hdus) - 1].fileinfo()
    return last["datLoc"] + last["datSpan"] == Path(path).stat().st_size


def find_image(hdus, ext=None):
    """
    Find the extension that holds an image.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        An open file.

    ext : int or str, optional
        Its number or name, or ``"NAME,VERSION"`` where several have the same name; blanks and case do not
        matter. The first image by default.

    Returns
    -------
    index : int
        The number of the extension.

    Raises
    ------
    ValueError
        If the file holds no image, or not that extension.
    """
    if ext is None:
        for index, hdu in enumerate(hdus):
            if hdu.is_image and hdu.header.get("NAXIS", 0) > 0:
                return index
        msg = f"{hdus.filename()} holds no image"
        raise ValueError(msg)
    wanted = "".join(str(ext).upper().split())
    names = [hdu.name.strip().upper() for hdu in hdus]
    versions = [f"{name},{hdu.ver}" for name, hdu in zip(names, hdus, strict=True)]
    if wanted.lstrip("-").isdigit() and 0 <= int(wanted) < len(hdus):
        return int(wanted)
    for keys in (names, versions):
        if wanted in keys:
            return keys.index(wanted)
    msg = f"ext {ext!r} is not in {hdus.filename()}, which has 0 to {len(hdus) - 1} named {names}"
    raise ValueError(msg)


def parse_unit(text):
    """
    Turn a BUNIT into a unit.

    Parameters
    ----------
    text : str
        The value of the keyword, in the spelling of FITS or another that is common.

    Returns
    -------
    unit : `~astropy.units.Unit` or None
        The unit, None if nobody knows it.
    """
    text = str(text).strip()
    if text in CCDData.known_invalid_fits_unit_strings:
        return CCDData.known_invalid_fits_unit_strings[text]
    try:
        return u.Unit(text)
    except ValueError:
        match = COUNTS.fullmatch(text)
    if match:
        unit = u.Unit(match[1].lower().rstrip("s"))
        return unit / u.s if match[2] else unit
    return None


def _image_unit(header):
    """Return the unit of an image, None if there is none, and with a warning if nobody knows it."""
    text = header.get("BUNIT")
    unit = parse_unit(text) if text else None
    if text and unit is None:
        warn_user(f"BUNIT {text!r} is not a unit that astropy knows; the image is taken without unit")
    return unit


def _unit_option(header):
    """What the FITS reader of CCDData must be told of the unit of an image, if anything."""
    unit = _image_unit(header)
    if unit is None:
        return {"unit": u.dimensionless_unscaled}
    is_plain = u.Unit(str(header["BUNIT"]), parse_strict="silent") == unit
    return {} if is_plain else {"unit": unit}


def _own_mask(hdus, index):
    """Return the mask that CCDData wrote beside an image, or None."""
    key = ("MASK", hdus[index].ver)
    if key not in hdus or not hdus[key].is_image or hdus[key].shape != hdus[index].shape:
        return None
    plane = hdus[key].data
    if np.isin(plane, (0, 1)).all():
        return plane.astype(bool)
    warn_user(
        "the extension MASK is not used: it holds more than 0 and 1. If its bits mark bad pixels, "
        f"enhance_file and the command line take it as mask='[MASK,{key[1]}]', with ignore_bits"
    )
    return None


def _remove_wcs(header, suffix=""):
    """Remove what describes a WCS from a header, in place."""
    for keyword in {*header}:
        if re.fullmatch(f"{WCS_CARDS}{suffix}", keyword):
            header.remove(keyword, remove_all=True)


def _remove_file_cards(header):
    """Remove what says how an image lay in its file from a header, in place."""
    for keyword in ("CHECKSUM", "DATASUM", "EXTNAME", "EXTVER", "EXTEND", "INHERIT", "NEXTEND"):
        header.remove(keyword, ignore_missing=True, remove_all=True)


def read_image(path, ext=None, *, use_mask=True):
    """
    Read an image from a FITS file, with mask and uncertainty if it has them as CCDData writes them.

    These are the extensions ``MASK``, of zeros and ones, and ``UNCERT``, of the same version (EXTVER) as the
    image. The program warns of a ``MASK`` that holds other numbers.

    Parameters
    ----------
    path : str or path-like
        The file; it may be compressed.

    ext : int or str, optional
        The number or the name of the extension, or ``"NAME,VERSION"``; the first that holds an image by
        default. Blanks and case do not matter.

    use_mask : bool, optional
        False to leave the extension ``MASK`` alone.

    Returns
    -------
    ccd : `~astropy.nddata.CCDData`
        The image. Without a usable BUNIT it has no unit (dimensionless). Cards of the primary header,
        apart from those of a WCS, are added to those of an extension, and what says how the image lay
        in its file is left out.

    Raises
    ------
    ValueError
        If the file holds no image, or not the extension.

    OSError
        If the file does not exist or cannot be read as FITS.
    """
    with fits.open(path) as hdus:
        index = find_image(hdus, ext)
        header, primary = hdus[index].header, hdus[0].header.copy()
        mask, version = _own_mask(hdus, index) if use_mask else None, hdus[index].ver
    planes = {"hdu_mask": None, "hdu_uncertainty": ("UNCERT", version), "hdu_psf": ("PSFIMAGE", version)}
    ccd = CCDData.read(path, hdu=index, **planes, **_unit_option(header))
    ccd.mask = mask
    if index:
        if ccd.wcs is not None:
            _remove_wcs(primary, "[A-Z]?")
        ccd.meta.extend(primary, strip=True, unique=True)
    _remove_file_cards(ccd.meta)
    return ccd


def _from_hdu(hdu):
    """Turn an image HDU into a CCDData."""
    from astropy.wcs import WCS

    if hdu.data is None:
        msg = "image is an HDU without data"
        raise ValueError(msg)
    header, wcs = hdu.header.copy(), None
    unit = _image_unit(header)
    if "CTYPE1" in header:
        try:
            wcs = WCS(header)
        except (KeyError, TypeError, ValueError) as error:
            warn_user(f"the WCS in the header of the image is not used: {error}")
        else:
            _remove_wcs(header)
    _remove_file_cards(header)
    return CCDData(hdu.data, unit=unit or u.dimensionless_unscaled, wcs=wcs, meta=header)


def _as_ccddata(image):
    """Turn any input into a CCDData that may share its planes."""
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image))
    if isinstance(image, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)):
        return _from_hdu(image)
    if isinstance(image, CCDData):
        return image
    if isinstance(image, NDData):
        return CCDData(image, unit=None if image.unit else u.dimensionless_unscaled)
    if isinstance(image, fits.HDUList):
        msg = "image is an HDUList; pass one of its HDUs"
        raise TypeError(msg)
    if isinstance(image, u.Quantity):
        return CCDData(image)
    return CCDData(np.ma.asanyarray(image), unit=u.dimensionless_unscaled)


@dataclass(frozen=True)
class NoisyImage:
    """
    An image unpacked: what the method needs as plain arrays, and the rest to pack the result with.

    Attributes
    ----------
    data : ndarray, shape (ny, nx)
        The image in native float32 or float64, a copy.

    sigma : ndarray, shape (ny, nx), or None
        Its noise (1 sigma) in the same unit and dtype, None if nothing is known; it may be that of the
        input itself. Where ``valid`` is False it has no meaning.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that are masked, not finite or without information.

    ccd : `~astropy.nddata.CCDData`
        Where it came from.
    """

    data: np.ndarray
    sigma: np.ndarray | None
    valid: np.ndarray
    ccd: CCDData

    def pack(self, data, sigma, samples, meta):
        """
        Put a result into an `EnhancedCCDData` with everything else the input carried.

        Parameters
        ----------
        data, sigma : ndarray, shape (ny, nx)
            Mean and standard deviation of the posterior.

        samples : ndarray, shape (n, ny, nx), or None
            Draws from it.

        meta : dict-like
            The header.

        Returns
        -------
        enhanced : `EnhancedCCDData`
            The result. Pixels that were not finite are added to the mask of the input.
        """
        carried = {k: deepcopy(v) for k, v in _attributes(self.ccd).items() if k not in ("meta", "mask")}
        lost = ~np.isfinite(self.data)
        mask = self.ccd.mask
        if mask is not None or lost.any():
            mask = lost | (False if mask is None else np.asarray(mask, bool))
        return EnhancedCCDData(
            data,
            uncertainty=StdDevUncertainty(sigma),
            samples=samples,
            mask=mask,
            meta=meta,
            **carried,
        )


def _float_data(data):
    """Copy to native float32 or float64, whichever holds all values exactly."""
    array = np.ma.getdata(data)
    if array.dtype.kind not in "iuf":
        msg = f"image must hold real numbers, not {array.dtype}"
        raise TypeError(msg)
    dtype = np.result_type(array.dtype.newbyteorder("="), np.float32)
    return np.array(array, dtype=np.float64 if dtype.itemsize > 8 else dtype)


def _is_logarithmic(unit):
    """Whether a unit is a magnitude, a decibel or the like, also per area."""
    return isinstance(unit, u.function.FunctionUnitBase) or u.dex in unit.decompose().bases


def largest_value(dtype):
    """
    How large the values of an image may be: far from what would overflow on the way to a result.

    Parameters
    ----------
    dtype : `numpy.dtype`
        That of the image, float32 or float64.

    Returns
    -------
    value : float
        The largest value of a pixel. Its inverse is the smallest noise.
    """
    return 1e30 if dtype == np.float32 else 1e150


def _std_in_unit(uncertainty, unit, shape, dtype=np.float64):
    """Standard deviation of any form of ``uncertainty`` as an array in unit and dtype of the image."""
    if isinstance(uncertainty, NDUncertainty):
        array, its_unit = sigma_from_uncertainty(uncertainty), _std_unit(uncertainty)
    else:
        array, its_unit = uncertainty, getattr(uncertainty, "unit", None)
        array = np.asarray(getattr(array, "value", array))
    if array.shape not in ((), shape):
        msg = f"uncertainty has shape {array.shape}, image has {shape}"
        raise ValueError(msg)
    try:
        factor = 1.0 if its_unit is None else its_unit.to(unit)
    except u.UnitConversionError:
        msg = (
            f"uncertainty is in {its_unit}, which is not a unit of the image ({unit}). Some steps, such as "
            "cosmicray_lacosmic of ccdproc, change the unit of the data only; convert the uncertainty"
        )
        raise u.UnitConversionError(msg) from None
    with np.errstate(over="ignore"):  # so much noise that it is infinite in float32: no information
        if factor != 1:
            array = array.astype(np.promote_types(array.dtype, dtype), copy=False) * factor
        return np.broadcast_to(array.astype(dtype, copy=False), shape)


def _std_unit(uncertainty):
    """Unit of the standard deviation that belongs to an uncertainty, or None."""
    if uncertainty.unit is None:
        return None
    power = {"std": 1, "var": 0.5, "ivar": -0.5}[uncertainty.uncertainty_type]
    return uncertainty.unit**power


def unpack(image, uncertainty=None):
    """
    Unpack any kind of image.

    Parameters
    ----------
    image : CCDData, NDData, Quantity, array_like, masked array, HDU, str or path-like
        A two-dimensional image (ny, nx), or the FITS file that holds one.

    uncertainty : NDUncertainty, Quantity, array_like or float, optional
        The noise of an image that does not carry it; arrays and numbers are standard deviations.

    Returns
    -------
    noisy : `NoisyImage`
        Plain arrays, and the rest.

    Raises
    ------
    TypeError
        If ``image`` or ``uncertainty`` is of a kind that cannot be used.

    ValueError
        If ``image`` is not two-dimensional, is empty or without a valid pixel, if its unit is logarithmic
        or its values are beyond `largest_value`, if shapes differ, if the noise is zero or negative at a
        valid pixel, or if the noise is given twice.

    `~astropy.units.UnitConversionError`
        If the unit of the noise does not fit.
    """
    ccd = _as_ccddata(image)
    data = _float_data(ccd.data)
    if data.ndim != 2:
        msg = f"image must be two-dimensional (ny, nx), not of shape {data.shape}"
        raise ValueError(msg)
    if data.size == 0:
        msg = f"image is empty: its shape is {data.shape}"
        raise ValueError(msg)
    if _is_logarithmic(ccd.unit):
        msg = f"image is in {ccd.unit}, which is logarithmic; convert it to a linear unit of flux"
        raise ValueError(msg)
    valid = np.isfinite(data)
    if ccd.mask is not None:
        mask = np.asarray(ccd.mask, bool)
        if mask.shape not in ((), data.shape):
            msg = f"image has shape {data.shape}, its mask {mask.shape}"
            raise ValueError(msg)
        valid &= ~mask
    if not valid.any():
        msg = "image has no valid pixel: every one is masked or not finite"
        raise ValueError(msg)
    if np.abs(data[valid]).max() > largest_value(data.dtype):
        msg = (
            f"image holds values beyond {largest_value(data.dtype):g} at valid pixels; mask them, or choose "
            "another unit"
        )
        raise ValueError(msg)
    if ccd.uncertainty is not None and uncertainty is not None:
        msg = "uncertainty is given although the image carries one; set image.uncertainty to None first"
        raise ValueError(msg)
    given = ccd.uncertainty if uncertainty is None else uncertainty
    if given is None:
        return NoisyImage(data, None, valid, ccd)
    raw = np.asarray(getattr(given, "array", given))
    if raw.dtype.kind not in "iuf":
        msg = f"uncertainty must hold real numbers, not {raw.dtype}"
        raise TypeError(msg)
    if raw.shape in ((), data.shape) and np.any(np.broadcast_to(raw, data.shape)[valid] < 0):
        msg = "uncertainty is negative at some valid pixels; mask them or mend it"
        raise ValueError(msg)
    sigma = _std_in_unit(given, ccd.unit, data.shape, data.dtype)
    if np.any(sigma[valid] == 0):
        msg = "uncertainty is zero at some valid pixels; mask them or give their noise"
        raise ValueError(msg)
    valid = valid & np.isfinite(sigma)
    if not valid.any():
        msg = "uncertainty is not finite at any valid pixel"
        raise ValueError(msg)
    return NoisyImage(data, sigma, valid, ccd)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images in FITS files: their planes, units and headers.
"""

import warnings
from contextlib import contextmanager, nullcontext
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits, registry
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable

from astro_ddpm.utils import atomic_path, warn_user

from .enhanced import EnhancedCCDData, _carried, squeeze_image
from .extensions import find_image, split_extension
from .headers import mend_cards, read_wcs, remove_file_cards, remove_wcs
from .units import parse_unit

__all__ = ["create_samples", "is_complete", "read_check", "read_image"]

FITS_BLOCK = 2880  # bytes
UNCERTAINTIES = {kind.__name__: kind for kind in (StdDevUncertainty, VarianceUncertainty, InverseVariance)}


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
    image = EnhancedCCDData(_native(ccd.data), **_carried(ccd))
    if ccd.psf is not None:
        image.psf = _native(ccd.psf)
    if ccd.uncertainty is not None:
        image.uncertainty = type(ccd.uncertainty)(_native(ccd.uncertainty.array))
    with fits.open(source()) as hdus:
        if image.wcs is None:  # CCDData does not look for the lookup tables of a WCS
            image.wcs = read_wcs(image.meta, hdus)
        if "FLAGS" in hdus:
            image.flags = _native(hdus["FLAGS"].data)
        image.check = _check_table(hdus)
        image.background = _background(hdus, image)
        if "SAMPLES" in hdus:
            image.samples = _native(hdus["SAMPLES"].data)
    return image


def _background(hdus, image):
    """Return the sky that was used: an image or a number; None if there was none."""
    if "BACKGROUND" in hdus and hdus["BACKGROUND"].shape == image.shape:
        return _native(hdus["BACKGROUND"].data)
    value = image.meta.get("DDPMBKG")
    return None if isinstance(value, str) else value


def _check_table(hdus):
    """Return the table of the check without truth, None if there is none."""
    if "CHECK" not in hdus:
        return None
    table = QTable(
        {name: _native(np.array(hdus["CHECK"].data[name])) for name in hdus["CHECK"].columns.names}
    )
    table.meta["sentence"] = hdus["CHECK"].header.get("SENTENCE", "")
    return table


def read_check(path):
    """Return the keyword INSTRUME of an enhanced image in a file, or "", and its ``check``."""
    with fits.open(path) as hdus:
        return str(hdus[0].header.get("INSTRUME", "")), _check_table(hdus)


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
    Make a FITS file of samples, shape (n, ny, nx), that can be filled one by one.

    Gives a big-endian memory map of the samples. The file appears when all went well; it must not exist yet.
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


registry.register_reader("fits", EnhancedCCDData, _read_enhanced)
registry.register_writer("fits", EnhancedCCDData, _write_enhanced)
registry.register_identifier("fits", EnhancedCCDData, fits.connect.is_fits)


def is_complete(path):
    """Tell whether a FITS file ends where its last extension does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "File may have been truncated")
        with Path(path).open("rb") as stream, fits.open(stream) as hdus:
            last = hdus[len(hdus) - 1].fileinfo()
    return last["datLoc"] + last["datSpan"] == Path(path).stat().st_size


def _image_unit(header):
    """Return the unit of an image, None if there is none, and with a warning if nobody knows it."""
    text = header.get("BUNIT")
    text = text.strip() if isinstance(text, str) else ""
    unit = parse_unit(text) if text else None
    if text and unit is None:
        warn_user(f"BUNIT {text!r} is not a unit that astropy knows; the image is taken without unit")
    return unit


def _unit_option(header):
    """Return what the FITS reader of CCDData must be told of the unit of an image."""
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


def read_image(path, ext=None, *, use_mask=True):
    """
    Read an image from a FITS file, with mask and uncertainty if it has them as CCDData writes them.

    These are the extensions ``MASK``, of zeros and ones, and ``UNCERT``, of the same version (EXTVER) as the
    image. The program warns of a ``MASK`` that holds other numbers.

    Parameters
    ----------
    path : str or path-like
        The file; it may be compressed. Or ``"FILE[EXT]"``, for one of its extensions.

    ext : int, str or tuple, optional
        The extension, as for `find_image`; the first that holds an image by default.

    use_mask : bool, optional
        False to leave the extension ``MASK`` alone.

    Returns
    -------
    ccd : `~astropy.nddata.CCDData`
        The image. Without a usable BUNIT it has no unit (dimensionless). Cards of the primary header,
        apart from those of a WCS, are added to those of an extension, and what says how the image lay
        in its file is left out. Axes of length one are dropped.

    Raises
    ------
    ValueError
        If the file holds no image, or not the extension.

    OSError
        If the file does not exist or cannot be read as FITS.

    Warns
    -----
    `~astropy.utils.exceptions.AstropyUserWarning`
        If its unit, its WCS or cards of its header cannot be used as they are.
    """
    path, own_ext = split_extension(path)
    with fits.open(path) as hdus:
        index = find_image(hdus, own_ext if ext is None else ext)
        ccd, version = _from_hdu(hdus[index], hdus), hdus[index].ver
        mask = _own_mask(hdus, index) if use_mask else None
        ccd.mask = None if mask is None else mask.reshape(ccd.shape)
        noise, psf = (_own_plane(hdus, name, version) for name in ("UNCERT", "PSFIMAGE"))
        if noise is not None and noise.data.size == ccd.data.size:
            kind = UNCERTAINTIES.get(noise.header.get("UTYPE"), StdDevUncertainty)
            ccd.uncertainty = kind(noise.data.reshape(ccd.shape))
        ccd.psf = None if psf is None else psf.data
    return ccd


def _own_plane(hdus, name, version):
    """Return the extension that CCDData wrote beside an image, or None."""
    return hdus[name, version] if (name, version) in hdus and hdus[name, version].is_image else None


def _from_hdu(hdu, hdus=None):
    """Turn an image HDU, of an open file, into a CCDData that may share its data."""
    if hdu.data is None:
        msg = "image is an HDU without data"
        raise ValueError(msg)
    header = hdu.header.copy()
    wcs = read_wcs(header, hdus)
    if hdus is not None and hdu is not hdus[0]:
        primary = hdus[0].header.copy()
        if wcs is not None:
            remove_wcs(primary, "[A-Z]?")
        header.extend(primary, strip=True, unique=True)
    unit = _image_unit(header)
    remove_file_cards(header)
    mend_cards(header)
    ccd = CCDData(hdu.data, unit=unit or u.dimensionless_unscaled, wcs=wcs, meta=header)
    return squeeze_image(ccd)

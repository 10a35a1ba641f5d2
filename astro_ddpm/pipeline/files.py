# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement of files, as a step of a reduction pipeline.
"""

import hashlib
import inspect
import logging
import os
import re
from contextlib import nullcontext
from numbers import Number
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    InverseVariance,
    StdDevUncertainty,
    VarianceUncertainty,
    bitfield_to_boolean_mask,
    extend_bit_flag_map,
)

from astro_ddpm.core import enhance
from astro_ddpm.nddata import (
    find_image,
    find_plane,
    is_complete,
    parse_unit,
    plain_values,
    read_image,
    split_extension,
    std_unit,
)
from astro_ddpm.utils import check_output, require, warn_user

from .reduction import enhance_ccd

__all__ = ["PLANES", "enhance_file", "find_difference", "make_record", "read_ccd"]

log = logging.getLogger(__name__)

NOISE_PLANES = {"stddev": StdDevUncertainty, "variance": VarianceUncertainty, "weight": InverseVariance}
PLANES = (*NOISE_PLANES, "mask")

ENHANCE_DEFAULTS = {
    name: parameter.default
    for step in (enhance, enhance_ccd)
    for name, parameter in inspect.signature(step).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
# These have a keyword of their own, or do not change the result.
NOT_IN_DIGEST = {"model", "seed", "tile_size", "batch_size", "memory_limit", "device", "progress_bar"}
NOT_IN_DIGEST |= {"add_keyword", "again"}
# Named bits of LSST and HSC that say something of good pixels.
GOOD_BITS = {"DETECTED", "DETECTED_NEGATIVE", "BRIGHT_OBJECT", "NOT_DEBLENDED", "INEXACT_PSF", "CLIPPED"}
GOOD_BITS |= {"REJECTED", "SENSOR_EDGE"}
MEANINGS = {
    "DDPMFSHA": "other contents of the input or its planes",
    "DDPMOPTS": "other options",
    "DDPMSHA": "other weights of the model",
    "DDPMSEED": "another seed",
}


def enhance_file(
    path,
    output,
    *,
    ext=None,
    stddev=None,
    variance=None,
    weight=None,
    mask=None,
    ignore_bits=None,
    overwrite=False,
    **options,
):
    """
    Enhance a FITS image and write the result.

    Parameters
    ----------
    path : str or path-like
        The image, in a file that may have several extensions and may be compressed (``.gz``, ``.fz``).

    output : str or path-like
        The FITS file to write: mean, mask, uncertainty and samples.

    ext : int, str or tuple, optional
        The extension of the image: its number, its name (EXTNAME or EXTTYPE), or name and version,
        ``"SCI,2"`` or ``("SCI", 2)``; the first image by default. ``path`` may name it too, as
        ``"FILE[SCI,2]"``.

    stddev, variance, weight : str or path-like, optional
        An image of the noise: as standard deviation, variance or inverse variance (at most one), where a
        weight of zero marks a pixel without information. Each is ``"FILE[EXT]"``, ``"[EXT]"`` for an
        extension of the file of the image, or ``"FILE"`` for what has the name and version of the image
        there, or is the only image. Of extensions of one name that with the EXTVER of the image is taken.

    mask : str or path-like, optional
        An image, given as above, that differs from zero at bad pixels, which join those of another mask that
        the image has already.

    ignore_bits : int, str or list, optional
        Bits of ``mask`` that do not make a pixel bad, as `~astropy.nddata.bitmask.interpret_bit_flags` takes
        them: their sum, ``[4, 64]`` or ``"4,64"``, and ``"~4,64"`` for all but these. Or their names, such as
        ``"DETECTED,CROSSTALK"``, where cards such as ``MP_DETECTED`` or ``MB_DETECTED`` in the header of the
        plane give the numbers of bits. By default those whose name says that they mark good pixels: DETECTED,
        DETECTED_NEGATIVE, BRIGHT_OBJECT, NOT_DEBLENDED, INEXACT_PSF, CLIPPED, REJECTED and SENSOR_EDGE.

    overwrite : bool, optional
        Whether to replace an existing file.

    **options
        Passed to `enhance_ccd`.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        What was written. Its header also has the name of the file that it was made from (``DDPMFILE``), and
        the SHA-256 of that file and its planes (``DDPMFSHA``) and of the options (``DDPMOPTS``).

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten; nothing is computed then.

    ValueError
        If more than one plane of noise is given, a file lacks the extension or several could be meant, shapes
        differ, ``ignore_bits`` makes no sense, ``output`` is one of the inputs, or `enhance_ccd` refuses.

    OSError
        If a file cannot be read or written.

    See Also
    --------
    enhance_ccd : The same for an image in memory.
    """
    output = Path(output)
    check_output(output, overwrite)
    planes = {"stddev": stddev, "variance": variance, "weight": weight, "mask": mask}
    _keep_inputs(output, path, *filter(None, planes.values()))
    planes["ignore_bits"] = ignore_bits
    ccd = read_ccd(path, ext=ext, **planes)
    path, ext = _split(path, ext)
    record = make_record(path, ext=ext, **planes, **options)
    enhanced = enhance_ccd(ccd, **options)
    if options.get("add_keyword", True):
        file_name = Path(path).name.encode("ascii", "backslashreplace").decode()
        enhanced.meta.update({"DDPMFILE": (file_name, "the file it was made from"), **record})
    enhanced.write(output, format="fits", overwrite=overwrite)
    log.info("%s enhanced and written to %s", path, output)
    return enhanced


def _keep_inputs(output, image, *planes):
    """Refuse to write a result over a file that it is made from."""
    for plane in (image, *planes):
        file = Path(split_extension(plane, image)[0])
        is_lost = output.exists() and file.exists() and output.samefile(file)
        require(not is_lost, f"output {output} is an input, which would be lost; choose another name")


def read_ccd(path, *, ext=None, stddev=None, variance=None, weight=None, mask=None, ignore_bits=None):
    """Read a FITS image, as a CCDData, with its planes of noise and mask; see `enhance_file`."""
    planes = {"stddev": stddev, "variance": variance, "weight": weight}
    given = [name for name, value in planes.items() if value is not None]
    if len(given) > 1:
        msg = f"at most one of stddev, variance and weight may be given, not {' and '.join(given)}"
        raise ValueError(msg)
    require(ignore_bits is None or mask is not None, "ignore_bits needs a mask that holds the bits")
    path, ext = _split(path, ext)
    with fits.open(path) as hdus:
        image = path, hdus, find_image(hdus, ext)
        noise = {name: _read_plane(planes[name], image, name) for name in given}
        bits = None if mask is None else _read_plane(mask, image, "mask")
    ccd = read_image(path, image[2], use_mask=bits is None or not bits[2])
    for name, (values, header, _) in noise.items():
        ccd.uncertainty = _noise_plane(name, values, header.get("BUNIT"), ccd.unit)
    if mask is not None:
        bad = _bad_pixels(*bits[:2], ignore_bits)
        if 0.5 < bad.mean() < 1:
            warn_user(
                f"mask {mask} marks {bad.mean():.0%} of the pixels as bad. It must be zero at good pixels; "
                "if it holds bits, name those that do no harm in ignore_bits"
            )
        ccd.mask = bad if ccd.mask is None else ccd.mask | bad
    return ccd


def _split(path, ext):
    """Return a file, and the extension that was named beside it or behind it."""
    path, own = split_extension(path)
    return path, own if ext is None else ext


def _read_plane(plane, image, name):
    """Read an image that belongs to another one, and its header; tell whether it is its extension MASK."""
    path, hdus, index = image
    file, ext = split_extension(plane, path)
    same = Path(file).exists() and Path(file).samefile(path)
    with nullcontext(hdus) if same else fits.open(file) as others:
        found = find_plane(others, ext, (hdus, index), same_file=same)
        hdu, shape = others[found], hdus[index].shape
        header, values = hdu.header.copy(), np.array(hdu.data)  # which changes BITPIX
    values, shape = values.reshape(_squeezed(values.shape)), _squeezed(shape)
    require(values.shape == shape, f"{name} {plane} has shape {values.shape}, the image {shape}")
    return values, header, same and hdu.name == "MASK"


def _squeezed(shape):
    """Return a shape without axes of length one before the last two."""
    return (*(n for n in shape[:-2] if n > 1), *shape[-2:])


def _noise_plane(name, values, bunit, image_unit):
    """Make an uncertainty, in the unit that its file gives, unless that is sloppy."""
    unit = parse_unit(bunit) if bunit else None
    is_sloppy = unit == image_unit and name != "stddev"  # and should be its square
    if is_sloppy or image_unit == u.dimensionless_unscaled:
        unit = None
    noise = NOISE_PLANES[name](values, unit=unit)
    if unit is not None and not std_unit(noise).is_equivalent(image_unit):
        msg = f"{name} is in {unit}, which does not fit an image in {image_unit}; correct one BUNIT"
        raise u.UnitConversionError(msg)
    return noise


def _bad_pixels(plane, header, ignore_bits):
    """Turn a data quality plane, whose header may name its bits, into a mask."""
    bits = {key[3:]: 1 << header[key] for key in header if re.fullmatch("M[PB]_.+", key)}
    if ignore_bits is None:
        ignore_bits = sum(bits.get(name, 0) for name in GOOD_BITS)
        if not ignore_bits:
            return plane != 0
    empty = np.zeros(plane.shape, bool)
    if plane.dtype.kind == "f" and (bits or header.get("BITPIX", 0) > 0):  # integers, perhaps with a BLANK
        empty = np.isnan(plane)
        whole = np.where(empty, 0, plane)
        plane = whole.astype(np.int64) if np.array_equal(whole, np.rint(whole)) else plane
    require(plane.dtype.kind in "iu", f"ignore_bits needs a mask of integers, not of {plane.dtype}")
    plane = plane.astype(plane.dtype.newbyteorder("="))
    names = extend_bit_flag_map("names", **bits) if bits else None
    try:
        return empty | bitfield_to_boolean_mask(plane, ignore_flags=ignore_bits, flag_name_map=names)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"ignore_bits {ignore_bits!r} cannot be used: {error}"
        raise ValueError(msg) from None


def make_record(path, *, ext=None, ignore_bits=None, **options):
    """
    Return the FITS keywords that tell what a result of `enhance_file` is made from.

    These are the SHA-256 of the contents of all files, with the extensions that their names choose, and of
    the options, of which arrays count with their contents.
    """
    path, ext = _split(path, ext)
    files = {"image": path} | {name: options[name] for name in PLANES if options.get(name) is not None}
    options = {"ext": ext, "ignore_bits": ignore_bits} | ENHANCE_DEFAULTS | options
    options = {name: value for name, value in options.items() if name not in NOT_IN_DIGEST.union(PLANES)}
    contents = []
    for name, plane in files.items():
        file, chosen = (plane, None) if name == "image" else split_extension(plane, path)
        with Path(file).open("rb") as opened:
            contents.append(f"{name} {chosen} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n")
    values = [f"{name} {_describe(value)}\n" for name, value in sorted(options.items())]
    texts = {"DDPMFSHA": contents, "DDPMOPTS": values}
    return {key: hashlib.sha256("".join(lines).encode()).hexdigest() for key, lines in texts.items()}


def _describe(value):
    """Text that is the same for the same value, and for nothing else."""
    if value is None:
        return "None"
    if isinstance(value, (str, os.PathLike)):
        return repr(str(value))
    if isinstance(value, Number):
        return repr(float(value))
    if isinstance(value, dict):
        return repr(sorted(value.items()))
    if hasattr(value, "value_from"):  # a keyword of ccdproc
        return f"keyword {value.name} {value.unit}"
    value, kind = plain_values(value), getattr(value, "uncertainty_type", "")
    array = np.asarray(getattr(value, "array", getattr(value, "value", value)))
    content = hashlib.sha256(array.tobytes()).hexdigest()
    return f"{kind} {getattr(value, 'unit', '')} {array.dtype.str} {array.shape} {content}"


def find_difference(path, wanted):
    """
    Tell why a file is not the result that is wanted; return an empty text if it is.

    ``wanted`` holds keywords and the values that its header must have, such as those of `make_record`. A file
    without the first of them was made by something else.
    """
    try:
        if not is_complete(path):
            return "is not complete"
        header = fits.getheader(path)
    except OSError as error:
        return f"is not readable ({error})"
    if next(iter(wanted)) not in header:
        return "was not made by this function"
    for keyword, value in wanted.items():
        if header.get(keyword) != value:
            return f"was made with {MEANINGS.get(keyword, f'another {keyword}')}"
    return ""

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement of files, as a step of a reduction pipeline.
"""

import logging
import re
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty, bitfield_to_boolean_mask

from astro_ddpm.nddata import find_image, read_image

from .reduction import enhance_ccd

__all__ = ["enhance_file"]

log = logging.getLogger(__name__)

NOISE_PLANES = {
    "stddev": StdDevUncertainty,
    "variance": VarianceUncertainty,
    "weight": InverseVariance,
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

    ext : int or str, optional
        The number or the name of the extension of the image, or ``"NAME,VERSION"``; the first image by
        default.

    stddev, variance, weight : str or path-like, optional
        An image of the noise: as standard deviation, variance or inverse variance (at most one). A
        weight of zero marks a pixel without information. Each is ``"FILE"``, for the extension that the
        image has in its own file, or else the first image; ``"FILE[EXT]"`` for another extension; or
        ``"[EXT]"`` for one in the file of the image.

    mask : str or path-like, optional
        An image that differs from zero at bad pixels, such as a data quality plane, given as above.

    ignore_bits : int, str or list, optional
        Bits of ``mask`` that do not make a pixel bad, as
        `~astropy.nddata.bitmask.interpret_bit_flags` takes them: their sum, ``[4, 64]`` or ``"4,64"``, and
        ``"~4,64"`` for all but these.

    overwrite : bool, optional
        Whether to replace an existing file.

    **options
        Passed to `enhance_ccd`.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        What was written.

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten; nothing is computed then.

    ValueError
        If more than one plane of noise is given, a file lacks the extension, shapes differ,
        ``ignore_bits`` makes no sense, or `enhance_ccd` refuses.

    OSError
        If a file cannot be read or written.

    See Also
    --------
    enhance_ccd : The same for an image in memory.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        msg = f"output {output} exists; set overwrite to replace it"
        raise FileExistsError(msg)
    if not output.parent.is_dir():
        msg = f"output {output} cannot be written: there is no folder {output.parent}"
        raise FileNotFoundError(msg)
    planes = {"stddev": stddev, "variance": variance, "weight": weight}
    given = [name for name, value in planes.items() if value is not None]
    if len(given) > 1:
        msg = f"at most one of stddev, variance and weight may be given, not {' and '.join(given)}"
        raise ValueError(msg)
    if ignore_bits is not None and mask is None:
        msg = "ignore_bits needs a mask that holds the bits"
        raise ValueError(msg)
    ccd = read_image(path, ext)
    for name in given:
        plane = _read_plane(planes[name], path, ext, ccd.shape, name)
        ccd.uncertainty = NOISE_PLANES[name](plane)
    if mask is not None:
        bad = _bad_pixels(_read_plane(mask, path, ext, ccd.shape, "mask"), ignore_bits)
        ccd.mask = bad if ccd.mask is None else ccd.mask | bad
    enhanced = enhance_ccd(ccd, **options)
    enhanced.write(output, format="fits", overwrite=overwrite)
    log.info("%s enhanced and written to %s", path, output)
    return enhanced


def _locate(plane, path, ext):
    """Return the file and the extension that ``"FILE"``, ``"FILE[EXT]"`` or ``"[EXT]"`` stands for."""
    named = re.fullmatch(r"(.*)\[([^\[\]]+)\]", str(plane))
    if named is None or Path(plane).exists():
        return plane, ext, False
    return named[1] or path, named[2], True


def _read_plane(plane, path, ext, shape, name):
    """Read an image that belongs to another one."""
    file, wanted, must_exist = _locate(plane, path, ext)
    with fits.open(file) as hdus:
        try:
            index = find_image(hdus, wanted)
        except ValueError:
            if must_exist:
                raise
            index = find_image(hdus)
        values = np.array(hdus[index].data)
    if values.shape != shape:
        msg = f"{name} {plane} has shape {values.shape}, the image {shape}"
        raise ValueError(msg)
    return values


def _bad_pixels(plane, ignore_bits):
    """Turn a data quality plane into a mask."""
    if ignore_bits is None:
        return plane != 0
    if plane.dtype.kind not in "iu":
        msg = f"ignore_bits needs a mask of integers, not of {plane.dtype}"
        raise ValueError(msg)
    plane = plane.astype(plane.dtype.newbyteorder("="))
    try:
        return bitfield_to_boolean_mask(plane, ignore_flags=ignore_bits)
    except (TypeError, ValueError) as error:
        msg = f"ignore_bits {ignore_bits!r} cannot be used: {error}"
        raise ValueError(msg) from None

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement of files, as a step of a reduction pipeline.
"""

import logging
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

from astro_ddpm.enhance import enhance
from astro_ddpm.nddata import find_image, read_image

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
    overwrite=False,
    **options,
):
    """
    Enhance a FITS image and write the result.

    Parameters
    ----------
    path : str or path-like
        The image.

    output : str or path-like
        The FITS file to write: mean, mask, uncertainty and samples.

    ext : int or str, optional
        Number or name of the extension of the image, and of the planes below if they are in other files;
        the first image of each file by default.

    stddev, variance, weight : str or path-like, optional
        A FITS image of the noise: as standard deviation, variance or inverse variance (at most one). A
        weight of zero marks a pixel without information.

    mask : str or path-like, optional
        A FITS image that differs from zero at bad pixels, such as a data quality plane.

    overwrite : bool, optional
        Whether to replace an existing file.

    **options
        Passed to `astro_ddpm.enhance`.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        What was written.

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten; nothing is computed then.

    ValueError
        If more than one plane of noise is given, shapes differ, or `astro_ddpm.enhance` refuses.

    OSError
        If a file cannot be read or written.
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
    ccd = read_image(path, ext)
    for name in given:
        ccd.uncertainty = NOISE_PLANES[name](_read_plane(planes[name], ext, ccd.shape, name))
    if mask is not None:
        bad = _read_plane(mask, ext, ccd.shape, "mask") != 0
        ccd.mask = bad if ccd.mask is None else ccd.mask | bad
    enhanced = enhance(ccd, **options)
    enhanced.write(output, format="fits", overwrite=overwrite)
    log.info("%s enhanced and written to %s", path, output)
    return enhanced


def _read_plane(path, ext, shape, name):
    """Read an image that belongs to another one, from the same extension if it has it."""
    with fits.open(path) as hdus:
        try:
            index = find_image(hdus, ext)
        except ValueError:
            index = find_image(hdus)
        plane = np.array(hdus[index].data)
    if plane.shape != shape:
        msg = f"{name} {path} has shape {plane.shape}, the image {shape}"
        raise ValueError(msg)
    return plane

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement of one big frame in blocks of rows, which Dask computes wherever it likes.
"""

from copy import deepcopy
from numbers import Number

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty

from astro_ddpm import provenance, zoo
from astro_ddpm.core import enhance
from astro_ddpm.nddata import EnhancedCCDData, Exposure
from astro_ddpm.noise import LEVEL_BLOCK, LEVEL_RADIUS
from astro_ddpm.tiling import make_tiles
from astro_ddpm.utils import require

from .workers import is_loaded, locate_model, process_alone

__all__ = ["enhance_blocks"]

HOLE_RADIUS = 64  # pixels, from how far away holes are filled as in the whole frame
MIN_MEASURED = 4  # pixels, without which holes cannot be filled


def enhance_blocks(
    ccd, *, model="raunet", rows=1024, background=0.0, mask_treatment="fill", device=None, memory_limit=None
):
    """
    Enhance a big frame in blocks of rows, with a model that draws no samples.

    Nothing is computed yet: the planes of the result are Dask arrays, which threads or the workers of a
    `dask.distributed.Client` compute. Each block is enhanced with a halo of the receptive field of the
    network, of the level of the sky and of the holes in it, so that it is, to rounding errors, what
    `astro_ddpm.enhance` makes of the whole frame with ``verify=False``. The result differs around pixels with
    less than 4 measured ones in the box of 129 pixels around them. The header does not record the measures of
    PSF and noise.

    Parameters
    ----------
    ccd : `~astropy.nddata.CCDData`
        The frame, shape (ny, nx), with its uncertainty. Data and uncertainty may be Dask arrays.

    model : str, path-like or `~astro_ddpm.zoo.Model`, optional
        A model as for `astro_ddpm.enhance`, one that draws no samples. Workers read one that is given by its
        name or path.

    rows : int, optional
        The greatest height of a block, without its halo of about 150 rows on either side (default model).

    background : float, optional
        The level of the sky, in the unit of the frame.

    mask_treatment, device, memory_limit : str, str or `torch.device`, float or str, optional
        As for `astro_ddpm.enhance`, in each process.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        Data and uncertainty are Dask arrays with a chunk for each block, to be computed together:
        ``dask.compute(enhanced.data, enhanced.uncertainty.array)``. The mask is that of the frame. Blocks
        without 4 measured pixels are as they were, with an uncertainty of NaN.

    Raises
    ------
    ValueError
        If the frame is not two-dimensional or has no uncertainty, the model draws samples, or an option has
        an impossible value. Errors of the contents of the frame are raised when they are computed.

    TypeError
        If ``background`` is not a number.

    ImportError
        If Dask is not installed.
    """
    try:
        import dask
        import dask.array as da
    except ImportError:
        msg = "enhance_blocks needs Dask, which pip install 'astro_ddpm[dask]' installs"
        raise ImportError(msg) from None

    _check(ccd, rows, background)
    loaded = model if is_loaded(model) else zoo.load(model)
    model = dask.delayed(model) if is_loaded(model) else locate_model(model)
    if loaded.draws_samples:
        msg = f"model must be one that draws no samples, such as 'raunet', not {loaded.name!r}"
        raise ValueError(msg)
    options = {"background": background, "mask_treatment": mask_treatment}
    options |= {"device": device, "memory_limit": memory_limit}
    carried = {"unit": ccd.unit, "psf": ccd.psf}
    dtype = np.promote_types(ccd.data.dtype.newbyteorder("="), np.float32)
    data, sigma = [], []
    ny, nx = ccd.shape
    halo = loaded.receptive_radius + max(HOLE_RADIUS, LEVEL_RADIUS)
    for tile in make_tiles((ny, 1), rows, halo, max(loaded.stride, LEVEL_BLOCK)):
        outer, inner = tile.outer[0], tile.inner[0]
        noise = ccd.uncertainty.array[outer], type(ccd.uncertainty), ccd.uncertainty.unit
        mask = None if ccd.mask is None else ccd.mask[outer]
        work = dask.delayed(_enhance_rows, pure=False)
        block = work(ccd.data[outer], *noise, mask, carried, inner, model, options)
        block = da.from_delayed(block, (2, inner.stop - inner.start, nx), dtype)
        data.append(block[0])
        sigma.append(block[1])
    return _pack(ccd, da.concatenate(data), da.concatenate(sigma), loaded, options)


def _check(ccd, rows, background):
    require(ccd.data.ndim == 2, f"ccd must be two-dimensional (ny, nx), not of shape {ccd.shape}")
    if ccd.uncertainty is None:
        msg = "ccd must have an uncertainty: noise that is measured in each block would differ between them"
        raise ValueError(msg)
    require(rows == int(rows) and rows >= 1, f"rows must be an integer of at least 1, not {rows}")
    if not isinstance(background, Number):
        msg = f"background must be a number, not {background!r}: subtract other skies before"
        raise TypeError(msg)


def _enhance_rows(data, noise, noise_class, noise_unit, mask, carried, inner, model, options):
    """Enhance a block with its halo; return data and uncertainty without, shape (2, rows, nx)."""
    block = CCDData(data, uncertainty=noise_class(noise, unit=noise_unit), mask=mask, **carried)
    if Exposure.parse(block).valid.sum() < MIN_MEASURED:
        planes = data, np.full(data.shape, np.nan)
    else:
        with process_alone():
            enhanced = enhance(block, model=model, verify=False, progress_bar=False, **options)
        planes = enhanced.data, enhanced.uncertainty.array
    dtype = np.promote_types(data.dtype.newbyteorder("="), np.float32)
    return np.stack([plane[inner] for plane in planes]).astype(dtype, copy=False)


def _pack(ccd, data, sigma, model, options):
    """Put planes into an image with everything else that the frame carried."""
    meta = deepcopy(ccd.meta)
    record = {"model": model.name, "sha256": model.sha256, "n_samples": 0, "steps": 0, "noise": "given"}
    record |= {name: options[name] for name in ("background", "mask_treatment")}
    provenance.write(meta, record)
    carried = {name: deepcopy(getattr(ccd, name)) for name in ("unit", "wcs", "mask", "psf", "flags")}
    return EnhancedCCDData(data, uncertainty=StdDevUncertainty(sigma), meta=meta, **carried)

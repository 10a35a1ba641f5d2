# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The main job: a noisy image in, the deep exposure that it might have been, with errors, out.
"""

import logging
import os
import secrets
from copy import deepcopy
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import provenance, zoo
from .noise import detect_pedestal, estimate_sky_sigma, fill_holes, unwhiten, whiten
from .utils import progress, warn_user

if TYPE_CHECKING:
    import torch

    from .nddata import EnhancedCCDData
    from .zoo.model import Model

__all__ = ["enhance"]

log = logging.getLogger(__name__)

MAX_PIXELS = 1024 * 1024
DEFAULT_STEPS = 10
MAX_SNR = 1e15  # the networks see float32
MIN_STD = 1e-6  # no pixel is known better than that, in units of its noise, whatever a model says


def enhance(
    image: Any,
    *,
    model: "str | os.PathLike[str] | Model | None" = None,
    n_samples: int = 16,
    steps: int | None = None,
    seed: int | None = None,
    depth: float | None = None,
    uncertainty: Any = None,
    background: Any = None,
    mask_treatment: Literal["fill", "propagate"] = "fill",
    tile_size: int | None = None,
    batch_size: int | None = None,
    device: "str | torch.device | None" = None,
    progress_bar: bool = False,
    add_keyword: bool = True,
) -> "EnhancedCCDData":
    r"""
    Turn a noisy image into what a much deeper exposure would have shown, with errors.

    With the image :math:`y` and its noise :math:`\sigma`, a network that sees :math:`y / \sigma`
    predicts the whitened residual :math:`r`, and the result is :math:`y + \sigma r`. Nothing depends on
    the unit: ``enhance(a * image)`` equals ``a * enhance(image)``.

    Parameters
    ----------
    image : CCDData, NDData, Quantity, array_like, masked array, HDU, str or path-like
        A sky-subtracted image of shape (ny, nx), or the FITS file that holds one. It is never changed.

    model : str, path-like or `~astro_ddpm.zoo.Model`, optional
        ``"ddpm"`` draws samples from the posterior, ``"raunet"`` gives mean and standard deviation in
        one pass. Or the path of a ``.safetensors`` file, or a loaded model. If None, that of
        ``astro_ddpm.conf.default_model``, which is ``"ddpm"`` unless you set it.

    n_samples : int, optional
        The number of samples to draw; a model that draws none ignores it.

    steps : int, optional
        Evaluations of the denoiser per sample, 10 by default. Less than 6 narrows the posterior.

    seed : int, optional
        Same seed, same result. If None, one is drawn and recorded.

    depth : float, optional
        The noise of the exposure to draw, in units of the noise of the image; typical for the model's
        training data by default. It is in the samples, but not in mean and uncertainty.

    uncertainty : NDUncertainty, Quantity, array_like or float, optional
        The noise of an image that does not carry it: arrays, shape (ny, nx), and numbers are standard
        deviations. If there is none at all, the noise of the sky is measured, with a warning.

    background : None, "photutils", float, Quantity or array_like, optional
        The sky to subtract before, and to add again after: None if it has been subtracted (warns if it
        has not), ``"photutils"`` for `photutils.background.Background2D`, or its value or image.

    mask_treatment : {"fill", "propagate"}, optional
        Whether masked and non-finite pixels receive the posterior (and stay masked), or are returned as
        they came.

    tile_size : int, optional
        Reserved for images larger than 1024 x 1024 pixels; smaller ones are done in one piece.

    batch_size : int, optional
        How many samples to draw at once; chosen by the size of the image by default.

    device : str or `torch.device`, optional
        Where to compute; a CUDA device if there is one, otherwise the CPU.

    progress_bar : bool, optional
        Whether to show a progress bar.

    add_keyword : bool, optional
        Whether to record in the header what was done.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        The posterior mean as ``data``, its standard deviation (of the noise-free scene) as
        ``uncertainty``, the draws as ``samples``; unit, WCS, mask, flags, PSF and header of the input.

    Raises
    ------
    ValueError
        If a parameter has an impossible value; the message names it.

    TypeError
        If a parameter is of a class that cannot be used.

    OSError
        If a file cannot be read.

    `~astropy.units.UnitConversionError`
        If the unit of ``uncertainty`` or ``background`` does not fit the image.

    Warns
    -----
    `~astro_ddpm.OutOfDomainWarning`
        If PSF, noise correlation, S/N or depth lie outside of the ranges that the model was trained for.

    `~astropy.utils.exceptions.AstropyUserWarning`
        If the noise has to be measured, or the sky does not seem to be subtracted.

    Examples
    --------
    >>> from astro_ddpm import enhance
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> field = make_galaxy_field(shape=(64, 64), n_galaxies=1, n_stars=1, seed=1)
    >>> deep = enhance(field.image, model="raunet")
    >>> deep.unit, deep.shape
    (Unit("adu"), (64, 64))
    """
    from .nddata import unpack

    _check_options(n_samples, steps, seed, depth, mask_treatment, tile_size, batch_size)
    noisy = unpack(image, uncertainty)
    _check_size(noisy.data.shape)
    model = _as_model(model)
    seed = secrets.randbits(31) if seed is None else int(seed)
    steps = 1 if model.kind == "crps" else steps or DEFAULT_STEPS
    depth = _choose_depth(depth, model)

    sky = _sky(background, noisy)
    sigma = _noise(noisy, sky)
    measures = _check_domain(noisy, sky, sigma, depth, model.ranges)
    data, sigma = fill_holes(noisy.data - sky, sigma, noisy.valid)
    device = _choose_device(device)
    mean, std, draws = _posterior(
        model,
        whiten(data, sigma),
        noisy.valid,
        n_samples=n_samples,
        steps=steps,
        seed=seed,
        depth=depth,
        batch_size=batch_size,
        device=device,
        progress_bar=progress_bar,
    )
    planes = [unwhiten(mean, sigma, data) + sky, sigma * np.maximum(std, MIN_STD)]
    if draws is not None:
        planes.append(unwhiten(draws, sigma, data) + sky)
    planes = [plane.astype(noisy.data.dtype) for plane in planes]
    if mask_treatment == "propagate":
        _restore(noisy, *planes)

    meta = deepcopy(noisy.ccd.meta)
    if add_keyword:
        record = {
            "model": model.name,
            "sha256": model.sha256,
            "seed": seed,
            "n_samples": 0 if draws is None else n_samples,
            "steps": 0 if draws is None else steps,
            "depth": depth,
            "device": str(device),
            "noise": "estimated" if noisy.sigma is None else "given",
            "background": background,
            "mask_treatment": mask_treatment,
            **measures,
        }
        provenance.write(meta, record)
    return noisy.pack(*planes[:2], planes[2] if draws is not None else None, meta)


def _as_model(model: Any) -> "Model":
    """Load a model unless it is one."""
    is_model = not isinstance(model, (str, os.PathLike)) and hasattr(model, "estimate")
    return model if is_model else zoo.load(model)


def _check_options(n_samples, steps, seed, depth, mask_treatment, tile_size, batch_size):
    counts = {"n_samples": n_samples, "steps": steps, "batch_size": batch_size, "tile_size": tile_size}
    for name, value in counts.items():
        if (name == "n_samples" or value is not None) and not (isinstance(value, Integral) and value >= 1):
            msg = f"{name} must be an integer of at least 1, not {value}"
            raise ValueError(msg)
    if seed is not None and not (isinstance(seed, Integral) and 0 <= seed < 2**63):
        msg = f"seed must be a non-negative integer below 2**63, not {seed}"
        raise ValueError(msg)
    if depth is not None and not (isinstance(depth, Real) and np.isfinite(depth) and depth > 0):
        msg = f"depth must be positive and finite, not {depth}"
        raise ValueError(msg)
    if mask_treatment not in ("fill", "propagate"):
        msg = f"mask_treatment must be 'fill' or 'propagate', not {mask_treatment!r}"
        raise ValueError(msg)


def _check_size(shape):
    if shape[0] * shape[1] > MAX_PIXELS:
        msg = (
            f"image of shape {shape} is too large: at most {MAX_PIXELS} pixels (1024 x 1024) are "
            "enhanced in one piece; cut it, for example with astropy.nddata.Cutout2D"
        )
        raise ValueError(msg)


def _choose_depth(depth, model):
    """Return the depth asked for, or a typical one."""
    return float(model.ranges.get("default_depth", 0.2) if depth is None else depth)


def _check_domain(noisy, sky, sigma, depth, ranges):
    """Warn of what the model has not seen; return what was measured, for the record."""
    from . import domain

    measures = domain.measure_image(noisy.data - sky, sigma, ~noisy.valid, noisy.ccd.psf, ranges)
    record = {name: round(measure.value, 4) for name, measure in measures.items()}
    measures["depth"] = domain.Measure(depth)
    outside = domain.compare(measures, ranges)
    if outside:
        warn_user(domain.describe(outside, measures, ranges), domain.OutOfDomainWarning)
    return record | ({"outside": ", ".join(outside) or "none"} if ranges else {})


def _choose_device(device):
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        nothing = torch.empty(0, device=device)
        nothing.cpu()  # the device "meta" has no numbers to give back
    except (AssertionError, ImportError, RuntimeError) as error:
        msg = f"device {device!r} cannot be used: {error}"
        raise ValueError(msg) from None
    return nothing.device


def _sky(background, noisy):
    """Image or value of the sky, in the unit of the image."""
    from .nddata import largest_value

    if background is None:
        return 0.0
    if isinstance(background, str):
        return _photutils_background(background, noisy)
    unit = getattr(background, "unit", None)
    values = background.to_value(noisy.ccd.unit) if unit is not None else background
    values = np.asarray(values, float)
    if values.shape not in ((), noisy.data.shape):
        msg = f"background has shape {values.shape}, image has {noisy.data.shape}"
        raise ValueError(msg)
    if not np.all(np.abs(values) <= largest_value(noisy.data.dtype)):
        msg = f"background must be finite everywhere, and at most {largest_value(noisy.data.dtype):g}"
        raise ValueError(msg)
    return values


def _photutils_background(background, noisy):
    from photutils.background import Background2D

    if background != "photutils":
        msg = f"background must be None, 'photutils', a number or an image, not {background!r}"
        raise ValueError(msg)
    box = tuple(min(64, n) for n in noisy.data.shape)
    data = np.where(noisy.valid, noisy.data, 0)
    try:
        return Background2D(data, box, mask=~noisy.valid, exclude_percentile=50).background
    except ValueError as error:
        msg = f"background='photutils' finds too few valid pixels to measure the sky: {error}"
        raise ValueError(msg) from None


def _noise(noisy, sky):
    """Return the given noise, or that of the sky with a warning; warn of a sky that is left."""
    from .nddata import largest_value

    data, mask = noisy.data - sky, ~noisy.valid
    sigma = noisy.sigma
    if sigma is None:
        value = estimate_sky_sigma(data, mask)
        warn_user(
            f"the image has no uncertainty: uniform noise of {_with_unit(value, noisy)} was measured in its "
            "sky. The photon noise of sources is not in it; better give uncertainty="
        )
        sigma = np.full(data.shape, value)
    _check_noise(data[noisy.valid], sigma[noisy.valid], largest_value(noisy.data.dtype))
    level = detect_pedestal(data, sigma, mask)
    if level:
        warn_user(
            f"the image seems to contain a sky level of {_with_unit(level, noisy)}; subtract it or use "
            "background='photutils'"
        )
    return sigma


def _check_noise(data, sigma, largest):
    """Refuse noise of valid pixels with which the result would overflow."""
    if not (sigma.min() >= 1 / largest and sigma.max() <= largest):
        msg = f"uncertainty must be {1 / largest:g} to {largest:g}; mask other pixels, or choose another unit"
        raise ValueError(msg)
    if np.abs(whiten(data, sigma)).max() > MAX_SNR:
        msg = f"image is more than {MAX_SNR:g} times its uncertainty at valid pixels; mask them or mend it"
        raise ValueError(msg)


def _with_unit(value, noisy):
    return f"{value:.4g} {noisy.ccd.unit}".strip()


def _noise_field(seed, index, shape):
    """White noise of one sample for the whole frame; it depends on nothing but seed and index."""
    return np.random.default_rng([seed, index]).standard_normal(shape, dtype=np.float32)


def _posterior(model, z, valid, *, n_samples, steps, seed, depth, batch_size, device, progress_bar):
    r"""
    Mean and standard deviation of the whitened residual, (ny, nx), and draws, (n, ny, nx).

    The mean of a few draws is itself noisy. The sampler maps noise :math:`\epsilon_i` to draws
    :math:`f(\epsilon_i)`, and what is linear in that map is taken out as a control variate,
    :math:`\langle f(\epsilon_i) \rangle - f(\langle \epsilon_i \rangle) + f(0)`.
    """
    import torch

    def tensor(planes):
        return torch.from_numpy(np.asarray(planes, np.float32))[:, None].to(device)

    model = model.to(device)
    planes = tensor([z]), tensor([valid])
    with torch.inference_mode():
        estimate = model.estimate(*planes)
        if model.kind == "raunet":
            return *(plane[0, 0].cpu().numpy() for plane in estimate), None
        noise = np.stack([_noise_field(seed, i, z.shape) for i in range(n_samples)])
        noise = tensor(np.stack([*noise, noise.mean(axis=0), np.zeros_like(noise[0])]))
        batches = noise.split(batch_size or max(1, 2**18 // z.size))
        with progress(len(batches) * steps, show=progress_bar) as advance:
            draws = [model.draw(*planes, estimate, depth, batch, steps, advance) for batch in batches]
        draws, control = torch.cat(draws).split([n_samples, 2])
        mean = draws.mean(dim=0) - control[0] + control[1]
        results = mean[0], model.scene_std(draws, estimate, depth)[0, 0], draws[:, 0]
    return tuple(result.cpu().numpy() for result in results)


def _restore(noisy, data, sigma, samples=None):
    """Put back, in place, what the input held in its invalid pixels."""
    hole = ~noisy.valid
    data[hole] = noisy.data[hole]
    sigma[hole] = np.nan if noisy.sigma is None else noisy.sigma[hole]
    if samples is not None:
        samples[:, hole] = noisy.data[hole]

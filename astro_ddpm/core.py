# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`enhance`, which estimates from a noisy image what a deep exposure would show, with errors.
"""

import os
import secrets
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import provenance, zoo
from .noise import fill_frame, frame_sigma, frame_sky, unwhiten, whiten
from .utils import renamed_argument, require, warn_user

if TYPE_CHECKING:
    import torch
    from astropy import units as u

    from .nddata import EnhancedCCDData, Exposure
    from .zoo.model import Model

__all__ = ["enhance"]

UNCHECKED = ("noise_ratio", "noise_correlation")  # that they lie outside does not show in the check
MIN_CHECKED = 2500  # valid pixels, without which nothing can be estimated from the image itself
MIN_STD = 1e-6  # no pixel is known better than that, in units of its noise, whatever a model says
DEFAULT_MEMORY = 1.8e8  # bytes; larger tiles save little time


@renamed_argument("depth", "noise_ratio")
def enhance(
    image: Any,
    *,
    model: "str | os.PathLike[str] | Model | None" = None,
    n_samples: int = 16,
    steps: int | None = None,
    seed: int | None = None,
    noise_ratio: float | None = None,
    uncertainty: Any = None,
    background: Any = None,
    mask_treatment: Literal["fill", "propagate"] = "fill",
    tile_size: int | None = None,
    batch_size: int | None = None,
    memory_limit: "float | u.Quantity | None" = None,
    keep_samples: bool = True,
    samples_file: "str | os.PathLike[str] | None" = None,
    device: "str | torch.device | None" = None,
    progress_bar: bool | None = None,
    add_keyword: bool = True,
    again: bool = False,
    verify: bool = True,
    precision: Literal["float32", "bfloat16"] = "float32",
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
        Evaluations of the denoiser per sample. By default the few for which the model has a solver (4, the
        released ``"ddpm"``), otherwise 10. Other numbers below 6 narrow the posterior.

    seed : int, optional
        Same seed, same result. If None, one is drawn and recorded.

    noise_ratio : float, optional
        The noise of the exposure to draw, in units of the noise of the image: 0.2 for one that is five times
        as deep. By default it is typical of the images that the model was trained on. This noise is in the
        samples, but not in mean and uncertainty. The old name ``depth`` is deprecated.

    uncertainty : NDUncertainty, Quantity, array_like or float, optional
        The noise of an image that does not carry it: arrays, shape (ny, nx), and numbers are standard
        deviations. If there is none at all, the noise of the sky is measured, with a warning.

    background : None, "photutils", dict, float, Quantity, array_like or NDData, optional
        The sky to subtract before, and to add again after: None if it has been subtracted (warns if it
        has not), ``"photutils"`` to measure it between the sources (`~astro_ddpm.noise.measure_sky`), with
        boxes that follow the largest of them or such as ``{"box_size": 256}``, or its value or image.

    mask_treatment : {"fill", "propagate"}, optional
        Whether masked and non-finite pixels receive the posterior (and stay masked), or are returned as
        they came. Pixels beyond the receptive field of any valid pixel (55 pixels, default models) keep the
        fill value and its noise.

    tile_size, batch_size : int, optional
        The width in pixels of the parts in which the networks see the image, without the halo of 55 pixels
        (default models), and how many samples to draw at once; by default chosen by ``memory_limit``.
        Results do not depend on them.

    memory_limit : float, str or `~astropy.units.Quantity`, optional
        The memory that the networks may use, beside that of image and result: a number of bytes, or such
        as ``"2 GB"``. By default 180 MB, or half of what is free on a CUDA device.

    keep_samples : bool, optional
        Whether to return the samples rather than only their mean and standard deviation.

    samples_file : str or path-like, optional
        A FITS file in which to keep the samples, so that they need no memory; ``samples`` of the result
        read from it. It must not exist yet.

    device : str or `torch.device`, optional
        Where to compute; a CUDA device if there is one, otherwise the CPU.

    progress_bar : bool, optional
        Whether to show a progress bar; by default in terminals and notebooks, if it takes more than three
        seconds.

    add_keyword : bool, optional
        Whether to record in the header what was done.

    again : bool, optional
        Whether to enhance an image that has been enhanced already, which is refused otherwise.

    verify : bool, optional
        Whether to estimate the error of the result from the image itself, by Stein's lemma, and to correct
        what the networks do wrong on it (see :doc:`/selfcheck`). This takes as long as another call of
        ``"raunet"``, less for frames of more than a million pixels.

    precision : {"float32", "bfloat16"}, optional
        The numbers with which samples are drawn. ``"bfloat16"`` is about twice as fast on a GPU or a
        processor with AMX or AVX512-BF16, and refused elsewhere, for it would be slower. Samples change by
        about a hundredth of their spread. Mean and standard deviation of the first network always come in
        float32.

    Returns
    -------
    enhanced : `~astro_ddpm.EnhancedCCDData`
        The posterior mean as ``data``, its standard deviation (of the noise-free scene) as
        ``uncertainty``, the draws as ``samples``, the estimated errors as ``check`` (or None), the sky that
        was used as ``background``, and the input as ``observed``; unit, WCS, mask, flags, PSF and header
        of the input.

    Raises
    ------
    ValueError
        If a parameter has an impossible value; the message names it.

    FileExistsError
        If ``samples_file`` exists.

    TypeError
        If a parameter is of a class that cannot be used.

    OSError
        If a file cannot be read.

    `~astropy.units.UnitConversionError`
        If the unit of ``uncertainty`` or ``background`` does not fit the image, or that of
        ``memory_limit`` is none of memory.

    Warns
    -----
    `~astro_ddpm.OutOfDomainWarning`
        If the networks alone would have made the image worse, as the check found; or, without a check, if
        PSF or S/N lie outside of the training ranges of the model; or if the noise ratio or the correlation
        of the noise does.

    `~astropy.utils.exceptions.AstropyUserWarning`
        If the noise has to be measured, differs from that of the sky of the image, or was computed from each
        pixel alone, pixels hold no information or lie in areas of one value, the sky does not seem to be
        subtracted, a sky that was measured is too high somewhere, rows or columns differ, values come in
        steps, or the memory of a GPU is exhausted, so that less is tried at once.

    Examples
    --------
    >>> from astro_ddpm import enhance
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> field = make_galaxy_field(shape=(64, 64), n_galaxies=1, n_stars=1, seed=1)
    >>> deep = enhance(field.image, model="raunet")
    >>> deep.unit, deep.shape
    (Unit("adu"), (64, 64))
    """
    from .nddata import Exposure, plain_values
    from .posterior import sample_posterior
    from .selfcheck import Verifier

    _check_options(n_samples, steps, seed, noise_ratio, mask_treatment, tile_size, batch_size)
    exposure = Exposure.parse(image, uncertainty).without_constant_areas().check()
    exposure.warn_of_raw()
    if "DDPMVERS" in exposure.ccd.meta and not again:
        msg = "image has been enhanced already (DDPMVERS in its header); set again=True to do it once more"
        raise ValueError(msg)
    model, device = _as_model(model), choose_device(device)
    _check_precision(precision, device)
    noise_ratio = float(model.ranges.get("default_noise_ratio", 0.2) if noise_ratio is None else noise_ratio)
    seed = secrets.randbits(31) if seed is None else int(seed)
    steps = 1 if model.one_step else steps or model.default_steps
    memory = _choose_memory(memory_limit, device)

    background = plain_values(background)
    frame = _Frame.prepare(exposure, background, propagate=mask_treatment == "propagate")
    verify = verify and frame.is_large_enough
    measures = _check_domain(frame, noise_ratio, model.ranges, verify=verify)
    verifier = Verifier(frame.data, frame.sigma, exposure.valid) if verify else None
    frame = frame.filled()

    draw = {"n_samples": n_samples, "steps": steps, "seed": seed, "noise_ratio": noise_ratio}
    compute = {"memory": memory, "tile_size": tile_size, "batch_size": batch_size, "device": device}
    compute |= {"precision": precision, "progress_bar": progress_bar}
    with _store(keep_samples, samples_file, model, n_samples, exposure) as samples:
        use = {"keep": frame.keep_in(samples), "check": verifier and verifier.verify}
        z = whiten(frame.data, frame.sigma)
        mean, std = sample_posterior(model, z, exposure.valid, **draw, **use, **compute)

    verdict = verifier.report(given=exposure.sigma is not None) if verifier else {}
    meta = deepcopy(exposure.ccd.meta)
    if add_keyword:
        record = {"model": model.name, "sha256": model.sha256, "seed": seed} | draw
        if not model.draws_samples:
            record |= {"n_samples": 0, "steps": 0}
        record |= {"device": str(device), "noise": "estimated" if exposure.sigma is None else "given"}
        record |= {"background": background, "mask_treatment": mask_treatment}
        record |= {"precision": precision} if precision != "float32" else {}
        provenance.write(meta, record | measures | verdict)
    enhanced = exposure.pack(frame.image(mean), frame.uncertainty(std), samples, meta)
    enhanced.check = verifier and verifier.table
    enhanced.background = None if background is None else frame.sky
    enhanced.observed = exposure.data
    return enhanced


@dataclass(frozen=True)
class _Frame:
    """
    An exposure without its sky: data and noise as plain arrays, and the way back.
    """

    exposure: "Exposure"
    sky: "float | np.ndarray"
    data: np.ndarray
    sigma: np.ndarray
    propagate: bool

    @property
    def is_large_enough(self):
        """Whether there are enough pixels to estimate anything from."""
        return np.count_nonzero(self.exposure.valid) >= MIN_CHECKED

    @classmethod
    def prepare(cls, exposure, background, *, propagate):
        """Subtract the sky, and take the noise or measure it."""
        sky = frame_sky(background, exposure.data, exposure.valid, exposure.unit)
        data = exposure.data if background is None else exposure.data - sky
        sigma = frame_sigma(data, exposure.sigma, exposure.valid, exposure.unit, exposure.data)
        return cls(exposure, sky, data, sigma, propagate)

    def filled(self):
        """Fill the holes."""
        data, sigma = fill_frame(self.data, self.sigma, self.exposure.valid)
        return replace(self, data=data, sigma=sigma)

    def image(self, residual):
        """Return a whitened residual as an image, in the unit of the input and with its sky."""
        return self._restore(unwhiten(residual, self.sigma, self.data) + self.sky, self.exposure.data)

    def keep_in(self, samples):
        """Return a function that stores the image of a draw, or does nothing if there is no room for it."""

        def keep(i, draw):
            if samples is not None:
                samples[i] = self.image(draw)

        return keep

    def uncertainty(self, std):
        """Return a whitened standard deviation in the unit of the input."""
        given = np.nan if self.exposure.sigma is None else self.exposure.sigma
        return self._restore(self.sigma * np.maximum(std, MIN_STD), given)

    def _restore(self, plane, original):
        """Put back what the input held in its invalid pixels, if that is wanted."""
        plane = np.where(self.exposure.valid, plane, original) if self.propagate else plane
        return plane.astype(self.exposure.data.dtype, copy=False)


def _as_model(model: Any) -> "Model":
    """Return a loaded model itself, or load it by its name or path."""
    is_model = not isinstance(model, (str, os.PathLike)) and hasattr(model, "estimate")
    return model if is_model else zoo.load(model)


def _check_options(n_samples, steps, seed, noise_ratio, mask_treatment, tile_size, batch_size):
    counts = {"n_samples": n_samples, "steps": steps, "batch_size": batch_size, "tile_size": tile_size}
    for name, value in counts.items():
        if (name == "n_samples" or value is not None) and not (isinstance(value, Integral) and value >= 1):
            msg = f"{name} must be an integer of at least 1, not {value}"
            raise ValueError(msg)
    if seed is not None and not (isinstance(seed, Integral) and 0 <= seed < 2**63):
        msg = f"seed must be a non-negative integer below 2**63, not {seed}"
        raise ValueError(msg)
    if noise_ratio is not None and not (
        isinstance(noise_ratio, Real) and np.isfinite(noise_ratio) and noise_ratio > 0
    ):
        msg = f"noise_ratio must be positive and finite, not {noise_ratio}"
        raise ValueError(msg)
    if mask_treatment not in ("fill", "propagate"):
        msg = f"mask_treatment must be 'fill' or 'propagate', not {mask_treatment!r}"
        raise ValueError(msg)


def knows_bfloat16(device):
    """Whether a device multiplies in bfloat16; one that emulates it takes far longer than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type != "cpu" or any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _check_precision(precision, device):
    """Refuse a precision that is unknown, or that the device computes more slowly than the default."""
    if precision not in ("float32", "bfloat16"):
        msg = f"precision must be 'float32' or 'bfloat16', not {precision!r}"
        raise ValueError(msg)
    if precision == "bfloat16" and not knows_bfloat16(device):
        msg = "precision must be 'float32' on this processor, which has no 'bfloat16' and would be slower"
        raise ValueError(msg)


@contextmanager
def _store(keep_samples, path, model, n_samples, exposure):
    """Give an array for the samples, in memory or in a file, or None."""
    if path is not None and not (keep_samples and model.draws_samples):
        msg = "samples_file needs a model that draws samples, and keep_samples=True"
        raise ValueError(msg)
    shape = (n_samples, *exposure.data.shape)
    if not keep_samples or not model.draws_samples:
        yield None
    elif path is None:
        yield np.empty(shape, exposure.data.dtype)
    else:
        from .nddata import create_samples

        with create_samples(path, shape, exposure.data.dtype, exposure.unit) as samples:
            yield samples


def _choose_memory(limit, device):
    """Bytes that the networks may use."""
    from astropy import units as u

    if limit is not None:
        try:
            memory = u.Quantity(limit, u.byte).value
        except TypeError:
            msg = f"memory_limit must be a number of bytes or a quantity such as '500 MB', not {limit!r}"
            raise ValueError(msg) from None
        require(memory > 0, f"memory_limit must be positive, not {limit}")
        return memory
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0] / 2
    return DEFAULT_MEMORY


def _check_domain(frame, noise_ratio, ranges, *, verify):
    """Warn of what the model has not seen, unless harm is measured; return the measures, for the record."""
    from . import domain

    exposure = frame.exposure
    measures = domain.measure_image(frame.data, frame.sigma, exposure.mask, exposure.ccd.psf, ranges)
    record = {name: round(measure.value, 4) for name, measure in measures.items()}
    measures["noise_ratio"] = domain.Measure(noise_ratio)
    outside = domain.compare(measures, ranges)
    doubtful = [name for name in outside if name in UNCHECKED or not verify]
    if doubtful:
        warn_user(domain.describe(doubtful, measures, ranges), domain.OutOfDomainWarning)
    return record | ({"outside": ", ".join(outside) or "none"} if ranges else {})


def choose_device(device):
    """Return the device of that name, or the best there is; raise ValueError if it cannot be used."""
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

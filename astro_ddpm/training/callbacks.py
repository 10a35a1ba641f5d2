# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Callbacks: what a training shows of itself on the validation data.
"""

import json
import logging
import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from astro_ddpm.evaluation.calibration import BINS, LEVELS, binned_scores
from astro_ddpm.utils import atomic_path, require
from astro_ddpm.zoo.model import Model

from .modules import TrainingModule

__all__ = ["EnsembleValidation"]

log = logging.getLogger(__name__)

_ROWS = 3
_SHOWN_SAMPLES = 3


@dataclass(frozen=True)
class _Image:
    """
    Planes of one validation image in units of its noise, shape (ny, nx).

    ``mean``, ``std``, ``samples`` (n, ny, nx) or None, and ``residual``, the truth, are relative to the input
    ``z``; ``estimate`` is the mean of the RAUNet, and ``std`` contains the noise of the target.
    """

    z: np.ndarray
    residual: np.ndarray
    estimate: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    samples: np.ndarray | None


class EnsembleValidation(pl.Callback):
    r"""
    Sample the validation images during training, and judge the samples.

    Of a `RAUNetModule` mean and width are judged as a Gaussian; of a `DDPMModule` or `CRPSModule` samples are
    drawn as `astro_ddpm.enhance` does, at the depth of each target. The weights are those that validation
    sees: with `PowerEMA`, the average. The training is the same to the last bit without it.

    Parameters
    ----------
    n_samples, steps, n_images : int, optional
        The number of samples of each image, at least 2, of evaluations of the denoiser for each sample, and
        of validation images, the first ones of the data.

    every_n_epochs : int, optional
        How often: at the first validation of a run, and whenever that many epochs have passed since.

    picture : bool, optional
        Whether to draw a picture. It needs matplotlib, without which a warning is logged.

    seed : int, optional
        Selects the noise of the samples, which is the same at every validation.

    Raises
    ------
    TypeError
        When a run starts, if the module is of another class.

    ValueError
        If a number is too small.

    Notes
    -----
    Everything is in units of the noise of the input. Logged are ``val_crps``, the mean of the fair CRPS
    (`~astro_ddpm.evaluation.crps`) of all pixels, and in bins of brightness ``val_crps_*``,
    ``val_coverage68_*``, ``val_coverage95_*`` and ``val_spread_skill_*``, with ``sky`` (below 1), ``lsb``
    (1 to 5), ``mid`` (5 to 30) and ``hi`` (above 30) for the star; NaN if a bin is empty. Pixels are binned
    by what the RAUNet takes for their brightness, so honest samples cover in every bin what they promise.

    The same numbers with the rank histograms go into the folder of the run as ``ensembles/step-*.json``, the
    picture of the first images as ``ensembles/step-*.png``. They replace files of the same step.

    To stop when ``val_crps`` no longer falls, add Lightning's own callback. Its patience counts
    validations, including those that draw no samples, so it must exceed ``every_n_epochs``:

    .. code-block:: yaml

        callbacks:
          - class_path: astro_ddpm.training.EnsembleValidation
            init_args: {n_samples: 8, every_n_epochs: 5}
          - class_path: pytorch_lightning.callbacks.EarlyStopping
            init_args: {monitor: val_crps, patience: 20}
    """

    def __init__(
        self,
        n_samples: int = 8,
        steps: int = 10,
        n_images: int = 16,
        every_n_epochs: int = 1,
        picture: bool = True,
        seed: int = 0,
    ):
        numbers = {"n_samples": n_samples, "steps": steps, "n_images": n_images}
        for name, number in (numbers | {"every_n_epochs": every_n_epochs}).items():
            least = 2 if name == "n_samples" else 1
            require(number >= least, f"{name} must be at least {least}, not {number}")
        self.n_samples, self.steps, self.n_images = n_samples, steps, n_images
        self.every_n_epochs, self.picture, self.seed = every_n_epochs, picture, seed
        self._last_epoch, self._is_due = -math.inf, False
        self._model = None
        self._images: list = []

    def setup(self, trainer, pl_module, stage):
        """Check the module."""
        _networks(pl_module)
        self._last_epoch = -math.inf

    def on_validation_epoch_start(self, trainer, pl_module):
        """Decide whether to sample at this validation."""
        epochs = trainer.current_epoch - self._last_epoch
        self._is_due = not trainer.sanity_checking and epochs >= self.every_n_epochs
        self._model, self._images = None, []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        """Sample the images of one batch, while the weights of validation are in place."""
        n = min(len(batch["z"]), self.n_images - len(self._images))
        if not self._is_due or dataloader_idx or n == 0:
            return
        if self._model is None:
            self._model = Model(**deepcopy(_networks(pl_module)))
        for row in range(n):
            self._images.append(self._sample(*(batch[k][row] for k in ("z", "valid", "residual", "depth"))))

    def on_validation_epoch_end(self, trainer, pl_module):
        """Log the scores, and write the files."""
        if not self._images:
            return
        total, bins = self._scores()
        metrics = {"val_crps": total["crps"]}
        for name, scores in bins.items():
            metrics[f"val_crps_{name}"] = scores["crps"]
            for level, fraction in zip(LEVELS, scores["coverage"], strict=True):
                metrics[f"val_coverage{100 * level:.0f}_{name}"] = float(fraction)
            metrics[f"val_spread_skill_{name}"] = scores["spread_skill"]
        pl_module.log_dict(metrics, sync_dist=True)
        folder = Path(trainer.log_dir or trainer.default_root_dir, "ensembles")
        stem = folder / f"step-{trainer.global_step:07d}"
        if trainer.is_global_zero:
            self._write(stem, {"epoch": trainer.current_epoch, "step": trainer.global_step}, total, bins)
        self._last_epoch = trainer.current_epoch
        self._model, self._images = None, []

    def _sample(self, z, valid, residual, depth):
        """Return the `_Image` of one example, planes of shape (1, ny, nx)."""
        planes = z[None], valid[None].to(z)
        estimate = self._model.estimate(*planes)
        if not self._model.draws_samples:
            mean, std, samples = estimate[0], torch.sqrt(estimate[1].square() + depth**2), None
        else:
            rng = np.random.default_rng([self.seed, len(self._images)])
            noise = rng.standard_normal((self.n_samples, *z.shape), dtype=np.float32)
            noise = torch.from_numpy(noise).to(z)
            samples = self._model.draw(*planes, estimate, float(depth), noise, self.steps)
            mean, std, samples = samples.mean(dim=0), samples.std(dim=0), _numpy(samples[:, 0])
        planes = (_numpy(plane).reshape(z.shape[1:]) for plane in (z, residual, estimate[0], mean, std))
        return _Image(*planes, samples)

    def _scores(self):
        """Return the scores of all pixels and of each bin."""

        def gather(name):
            planes = [getattr(image, name) for image in self._images]
            return np.concatenate([plane.reshape(*plane.shape[:-2], -1) for plane in planes], axis=-1)

        z, estimate, truth = gather("z"), gather("estimate"), gather("residual")
        is_gaussian = self._images[0].samples is None
        samples = np.stack([gather("mean"), gather("std")]) if is_gaussian else gather("samples")
        options = {"is_gaussian": is_gaussian, "n_ranks": self.n_samples + 1, "seed": self.seed}
        edges = [low for low, _ in BINS.values()] + [math.inf]
        (total,) = binned_scores(samples, truth, np.zeros_like(truth), edges[:: len(BINS)], **options)
        bins = binned_scores(samples, truth, z + estimate, edges, **options)
        return total, dict(zip(BINS, bins, strict=True))

    def _write(self, stem, when, total, bins):
        """Write the scores as JSON, and the picture."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        record = when | {name: getattr(self, name) for name in ("n_samples", "steps", "seed")}
        record |= {"n_images": len(self._images), "levels": LEVELS, "all": total, "bins": bins}
        with atomic_path(stem.with_suffix(".json"), overwrite=True) as partial:
            partial.write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")
        if self.picture:
            try:
                figure = _draw(self._images[:_ROWS])
            except ImportError as error:
                log.warning("no picture of the validation images: %s", error)
                return
            with atomic_path(stem.with_suffix(".png"), overwrite=True) as partial:
                figure.savefig(partial, format="png", dpi=100)


def _networks(pl_module):
    """Return what a Lightning module trains, by the names of `Model`."""
    if isinstance(pl_module, TrainingModule):
        return pl_module.parts()
    msg = f"EnsembleValidation needs a TrainingModule, not {type(pl_module).__name__}"
    raise TypeError(msg)


def _numpy(tensor):
    return tensor.float().cpu().numpy()


def _plain(value):
    """Return a value as JSON knows it; NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(images):
    """Return a figure with one row of panels per image, in units of the noise."""
    from astro_ddpm.evaluation.plots import Panel, draw_panels, flux_scale, residual_scale, width_scale

    panels = []
    for image in images:
        draws = [] if image.samples is None else image.samples[:_SHOWN_SAMPLES]
        panels += [Panel("Input", image.z), Panel("Mean", image.z + image.mean)]
        panels += [Panel(f"Sample {n}", image.z + draw) for n, draw in enumerate(draws, start=1)]
        panels.append(Panel("Target", image.z + image.residual))
        panels.append(Panel("Mean − target", image.mean - image.residual, "difference"))
        panels.append(Panel("Std. deviation", image.std, "deviation"))
    bright = np.nanpercentile([image.z + image.residual for image in images], 99.8)
    scales = {
        "flux": flux_scale(1.0, bright, "flux / σ"),
        "difference": residual_scale(1.0, "difference / σ"),
        "deviation": width_scale(1.0, 0.05, 2.0, "deviation / σ"),
    }
    return draw_panels(panels, scales, len(panels) // len(images), 1.7)

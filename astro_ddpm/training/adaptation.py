# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A camera teaches itself: a model fitted to noisy frames, without any deep image.
"""

import hashlib
import logging
import math
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from astro_ddpm import __version__, zoo
from astro_ddpm.core import choose_device, knows_bfloat16
from astro_ddpm.domain import measure_image
from astro_ddpm.nddata import Exposure
from astro_ddpm.noise import fill_frame, frame_sigma, frame_sky, whiten
from astro_ddpm.selfcheck import judge_noise
from astro_ddpm.selfcheck.check import EDGES
from astro_ddpm.utils import atomic_path, check_output, progress, warn_user

from .cameras import log_uniform, split_exposure
from .examples import ExampleDataset
from .heldout import CHOOSE, TEACH, NoisyFrame, Part, choose_parts, compare, hold_out, mean_and_error
from .scenes import SceneDataset

__all__ = ["Adaptation", "adapt", "adapt_cameras"]

log = logging.getLogger(__name__)

SIZE = 48  # pixels, the width of the crops
CROPS, SCENES = 9, 3  # of each step
SPLIT = 0.5, 2.0  # the range of the factor k
JUDGED_SPLITS = (0.5, 1.0)  # by which held-out blocks are split
SCENE_DEPTH = 0.1, 0.5
WEIGHTING = 1.0  # of the loss of the mean: the noise of the targets differs by far more than that of pixels
WARMUP = 20  # steps
MEMORY = 0.99  # of the average of the weights
EVERY = 50  # steps between two looks at the blocks that choose
PATIENCE = 4  # looks without gain
MIN_PIXELS = 16_000  # valid ones of all frames
MAX_REACH = 0.15  # the largest correlation of noise three pixels away
MAX_CORRELATION = 0.85  # of neighbours
TRAINING_TIME = 0.75  # of all
SURE = 2.0  # standard errors
MIN_GAIN = 0.01  # of the mean square error, less than which is not worth a model
FEW_PIXELS = 20  # of a level of brightness, not worth a crop
COLUMNS = {
    "low": "lower edge of the bin: brightness of the place in units of the noise",
    "high": "upper edge of the bin",
    "n_pixels": "pixels of the held-out blocks in the bin",
    "before": "error of the given model by Stein's estimate, in units of the noise",
    "after": "error of the adapted model",
    "change": "change of the mean square error",
    "change_err": "its standard error",
    "loss": "change of the loss of predicting one half of the split frames from the other",
    "loss_err": "its standard error",
}


@dataclass(frozen=True, eq=False)
class Adaptation:
    """
    What came of an adaptation.

    Attributes
    ----------
    accepted : bool
        Whether the adapted model was better on the blocks that were held out, so that it was written.

    reason : str
        Why, in a sentence.

    table : `~astropy.table.QTable` or None
        Errors before and after in bins of brightness, on the blocks that were held out; None if
        nothing was tried.

    model : `~astro_ddpm.zoo.Model` or None
        The adapted model, None if it was refused.

    pictures : tuple of ndarray
        A part of a frame as it is, and enhanced by the model before and after, in units of the noise.
    """

    accepted: bool
    reason: str
    table: Any = None
    model: Any = None
    pictures: tuple = ()

    def plot(self):
        """
        Draw errors and a part of a frame before and after.

        Returns
        -------
        figure : `matplotlib.figure.Figure`
            The figure.

        Raises
        ------
        ValueError
            If nothing was tried.
        """
        from matplotlib.figure import Figure

        if self.table is None:
            msg = f"there is nothing to draw: {self.reason}"
            raise ValueError(msg)
        figure = Figure(figsize=(15, 3.6), layout="constrained")
        errors, *panels = figure.subplots(1, 4)
        place = np.arange(len(self.table))
        for name in ("before", "after"):
            errors.plot(place, self.table[name], "o-", label=name)
        labels = ["sky", *(f"> {low:g}" for low in self.table["low"][1:])]
        errors.set_xticks(place, labels)
        errors.set(xlabel="brightness / noise", ylabel="error / noise", ylim=(0, None))
        errors.legend()
        top = max(np.quantile(self.pictures[2], 0.999), 5)
        for panel, title, image in zip(panels, ("frame", "before", "after"), self.pictures, strict=True):
            panel.imshow(np.arcsinh(image), vmin=-1.5, vmax=np.arcsinh(top), cmap="gray", origin="lower")
            panel.set(title=title, xticks=[], yticks=[])
        return figure


def adapt(
    images,
    model="ddpm",
    *,
    output,
    uncertainty=None,
    background=None,
    names=None,
    steps=200,
    minutes=10.0,
    learning_rate=1e-3,
    seed=0,
    device=None,
    overwrite=False,
    progress_bar=False,
):
    r"""
    Fit a model to a camera from its noisy frames alone.

    A frame with the noise :math:`\sigma` is split into :math:`y_1 = y + k \sigma \epsilon` and
    :math:`y_2 = y - \sigma \epsilon / k`, where :math:`\epsilon` is as strong and as correlated as the noise
    of the frame is measured to be. Their noises are independent, so the mean that predicts :math:`y_2` from
    :math:`y_1` best is the posterior mean (Pang et al. 2021, *Recorrupted-to-Recorrupted*), and the width
    follows from the Gaussian likelihood of :math:`y_2` with the variance :math:`s^2 + \sigma^2 (1 + k^{-2})`.
    Each pixel is blended with what its surroundings predict by the width of the prediction
    (`~astro_ddpm.nn.RAUNet`), so the width learns from both losses.

    All weights of the regressor are trained on crops of the frames, chosen so that rare levels of brightness
    occur, but not so often that their noise is learned by heart, and a quarter of scenes with known truth
    (`SceneDataset`), so that nothing is forgotten. Two fifths of the blocks of 32 pixels are held out. Some
    choose when to stop, and how far to go from the old weights towards the new ones. The others judge: the
    new model is written only if it is better there.

    Parameters
    ----------
    images : list of images, or one image
        Sky-subtracted frames of one camera, each anything that `~astro_ddpm.enhance` takes.

    model : str, path-like or `~astro_ddpm.zoo.Model`, optional
        The model to begin with. Of one that draws samples the regressor, which guides it, is adapted, and the
        denoiser stays: it works in units of the regressor's mean and width.

    output : str or path-like
        The ``.safetensors`` file to write.

    uncertainty : NDUncertainty, Quantity, array_like or float, optional
        The noise of a single image that does not carry it.

    background : None, "photutils", float, Quantity, array_like or NDData, optional
        The sky to subtract, as for `~astro_ddpm.enhance`.

    names : list of str, optional
        What the record calls the frames; by default their paths.

    steps : int, optional
        The largest number of steps.

    minutes : float, optional
        The largest time. The training stops after three quarters of it.

    learning_rate : float, optional
        The largest learning rate of AdamW. It falls along a cosine, to zero after the last of the ``steps``.

    seed : int, optional
        Selects all that is drawn. The same seed gives the same file on the same machine, unless the time
        is over before the training is.

    device : str or `torch.device`, optional
        Where to compute; a CUDA device if there is one, otherwise the CPU.

    overwrite : bool, optional
        Whether to replace an existing file.

    progress_bar : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    adaptation : `Adaptation`
        Whether the model was accepted, why, and errors before and after.

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten.

    ValueError
        If ``output`` is no ``.safetensors`` file, there are no ``images``, ``uncertainty`` is given for
        several, a number is not positive, or an image cannot be used.

    Warns
    -----
    `~astropy.utils.exceptions.AstropyUserWarning`
        If a frame is left out, and as `~astro_ddpm.enhance` warns of the noise.

    Notes
    -----
    A call that was interrupted goes on where it was if it is repeated: a hidden file beside the output
    keeps its state. No extra is needed to adapt.

    Examples
    --------
    >>> from astro_ddpm.training import adapt
    >>> result = adapt(["night1.fits", "night2.fits"], output="mine.safetensors")  # doctest: +SKIP
    >>> result.accepted, result.reason  # doctest: +SKIP
    """
    start = time.monotonic()
    _check_numbers(steps=steps, minutes=minutes, learning_rate=learning_rate)
    output = Path(output)
    if output.suffix != ".safetensors":
        msg = f"output must end in .safetensors, not {output.name!r}"
        raise ValueError(msg)
    check_output(output, overwrite)
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if not images or (uncertainty is not None and len(images) > 1):
        msg = f"uncertainty is for one image, not for {len(images)}" if images else "images must not be empty"
        raise ValueError(msg)
    model = zoo.load(model) if not hasattr(model, "regressor") else model
    device = choose_device(device)
    names = names or [
        str(each) if isinstance(each, (str, Path)) else f"frame {i}" for i, each in enumerate(images, 1)
    ]
    frames = [_read(each, uncertainty, background, name) for each, name in zip(images, names, strict=True)]
    faults = dict.fromkeys(fault for frame in frames if (fault := frame.fault()))
    frames = [frame for frame in frames if not frame.fault()]
    if not frames:
        return Adaptation(False, "; ".join(faults))
    for fault in faults:
        warn_user(f"left out: {fault}")
    if sum(np.count_nonzero(frame.valid) for frame in frames) < MIN_PIXELS:
        return Adaptation(
            False, f"the frames have less than {MIN_PIXELS} valid pixels, too few to learn from"
        )

    hold_out(frames, seed)
    parts = [Part(frames[i], part, [seed, n], device) for n, (i, part) in enumerate(choose_parts(frames))]
    regressor = deepcopy(model.regressor).to(device)
    _measure_correlation(frames, parts, regressor)
    training = _Training(regressor, frames, parts, seed, learning_rate, steps)
    training.state_file = output.with_name(f".{output.name}.{_digest(model, frames, training)}.state")
    deadline = start + 60 * TRAINING_TIME * minutes
    training.run(deadline, progress_bar)
    if not training.best_step:
        training.state_file.unlink(missing_ok=True)
        return Adaptation(
            False, "the blocks that choose gain nothing: the model knows this camera well enough"
        )
    adapted, share = training.choose()
    bins, whole = compare(parts, regressor, adapted, JUDGED_SPLITS)
    table, reason = _judge(bins, whole)
    pictures = _pictures(parts, regressor, adapted)
    training.state_file.unlink(missing_ok=True)
    if reason:
        return Adaptation(False, reason, table, None, pictures)
    record = {
        "adapted_from": {"name": model.name, "sha256": model.sha256},
        "frames": [{"name": frame.name, "sha256": frame.sha256} for frame in frames],
        "steps": training.best_step,
        "share": share,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": "bf16-mixed" if training.half else "32",
        "version": __version__,
        "held_out": {name: np.round(table[name], 4).tolist() for name in ("low", "before", "after")},
    }
    new = replace(
        model,
        regressor=adapted.cpu(),
        denoiser=deepcopy(model.denoiser),
        name=output.stem,
        sha256="",
        ranges=model.ranges | _ranges(frames),
        training=model.training | {"adaptation": record},
    )
    new = replace(new, sha256=zoo.save(new, output, overwrite=overwrite))
    reason = f"the mean square error falls by {_gain(whole):.0%} on the blocks held out"
    log.info("%s: %s", output, reason)
    return Adaptation(True, reason, table, new, pictures)


def adapt_cameras(images, model="ddpm", *, location, groupby=("INSTRUME",), names=None, **options):
    """
    Fit a model to each camera of a collection.

    Parameters
    ----------
    images : iterable of images
        As for `adapt`, with headers.

    model : str, path-like or `~astro_ddpm.zoo.Model`, optional
        The model to begin with.

    location : str or path-like
        The folder of the models, made if it does not exist. Each is named after the values of the keywords.

    groupby : sequence of str, optional
        The keywords of the header that tell cameras apart, such as ``("INSTRUME", "FILTER")``.

    names : list of str, optional
        What the records call the frames.

    **options
        Passed to `adapt`.

    Returns
    -------
    adaptations : dict of str to `Adaptation`
        What came of each camera, by the name of its file.
    """
    groups: dict = {}
    images = list(images)
    for image, label in zip(images, names or [None] * len(images), strict=True):
        meta = Exposure.parse(image).ccd.meta
        words = [str(meta.get(keyword, "unknown")) for keyword in groupby]
        name = "_".join("".join(c if c.isalnum() else "-" for c in word.strip()) for word in words)
        groups.setdefault(f"{name}.safetensors", []).append((image, label))
    Path(location).mkdir(parents=True, exist_ok=True)
    adapted = {}
    for name, group in groups.items():
        chosen, labels = map(list, zip(*group, strict=True))
        own = labels if names else None
        adapted[name] = adapt(chosen, model, output=Path(location) / name, names=own, **options)
    return adapted


def _check_numbers(**numbers):
    for name, value in numbers.items():
        if not (np.isscalar(value) and value > 0 and np.isfinite(value)):
            msg = f"{name} must be positive, not {value}"
            raise ValueError(msg)


@dataclass(eq=False)
class _Frame(NoisyFrame):
    """A frame, what it is called, and what is known of it."""

    name: str = ""
    sha256: str = ""
    measures: dict | None = None
    noise_fault: str = ""

    def fault(self):
        """Say why nothing can be learned from the frame; empty if it can."""
        if min(self.z.shape) < SIZE:
            return f"{self.name} is smaller than {SIZE} pixels"
        neighbours = self.measures.get("noise_correlation")
        reach = 0.0
        if self.correlation is not None:
            edge = self.correlation.copy()
            edge[1:-1, 1:-1] = 0
            reach = np.abs(edge).max()
        if reach > MAX_REACH or (neighbours and neighbours.value > MAX_CORRELATION):
            return f"{self.name}: the noise is correlated over more than three pixels, too far to be drawn"
        return f"{self.name}: {self.noise_fault}" if self.noise_fault else ""


def _read(image, uncertainty, background, name):
    """Read a frame as `enhance` does, and judge its noise."""
    exposure = Exposure.parse(image, uncertainty, name=name).without_constant_areas().check()
    exposure.warn_of_raw()
    if exposure.is_enhanced or "DDPMVERS" in exposure.ccd.meta:
        msg = f"{name} has been enhanced; adapt to frames as they were observed"
        raise ValueError(msg)
    sky = frame_sky(background, exposure.data, exposure.valid, exposure.unit)
    data = exposure.data - np.asarray(sky, exposure.data.dtype)
    sigma = frame_sigma(data, exposure.sigma, exposure.valid, exposure.unit, exposure.data)
    usable = np.where(exposure.valid, sigma, 1)
    judgement = judge_noise(np.where(exposure.valid, data, 0) / usable, exposure.valid, data, usable)
    digest = hashlib.sha256(str(data.shape).encode())
    for plane in (data, usable, exposure.valid):
        digest.update(np.ascontiguousarray(plane).tobytes())
    return _Frame(
        whiten(*fill_frame(data, sigma, exposure.valid)).astype(np.float32),
        exposure.valid,
        judgement.correlation,
        1 / judgement.ratio,
        name=name,
        sha256=digest.hexdigest(),
        measures=measure_image(data, sigma, exposure.mask, exposure.ccd.psf),
        noise_fault="; ".join(judgement.warnings(stated=exposure.sigma is not None)),
    )


def _measure_correlation(frames, parts, regressor):
    """Measure the autocorrelation of the noise again, without that of faint sources."""
    for frame in frames:
        own = [part for part in parts if part.frame is frame]
        if frame.correlation is not None and own:
            largest = max(own, key=lambda part: np.count_nonzero(part.valid))
            frame.correlation = largest.correlation(regressor)


class _FrameCrops(ExampleDataset):
    """Split crops of frames. Levels of brightness are as likely as the root of the number of their pixels."""

    sky_share, hole_share = 0.2, 0.1

    def __init__(self, frames, places, seed, step):
        super().__init__(seed, step, SIZE, stream=0)
        self.frames, self.places = frames, places
        shares = np.sqrt([place.shape[1] for place in places])
        self.shares = shares / shares.sum()

    def __len__(self):
        return CROPS

    def _row(self, index):
        return index

    def _draw(self, row, rng):
        """Draw an example: image, noise, target and depth."""
        place = self.places[rng.choice(len(self.places), p=self.shares)]
        number, y, x = place[:, rng.integers(place.shape[1])]
        frame = self.frames[number]
        corner = np.array([y, x]) - rng.integers(SIZE // 4, SIZE - SIZE // 4, 2)
        top, left = np.clip(corner, 0, np.array(frame.z.shape) - SIZE)
        part = slice(top, top + SIZE), slice(left, left + SIZE)
        valid = frame.valid[part]
        factor = log_uniform(rng, *SPLIT)
        noise = frame.draw_noise((SIZE, SIZE), rng)
        planes = split_exposure(frame.z[part], np.ones_like(noise), factor, noise)
        return *planes, frame.noise / factor, valid, valid & (frame.purpose(part) == TEACH)


def _places(frames):
    """Pixels that teach, for each level of brightness: number of the frame, row and column."""
    places = []
    for number, frame in enumerate(frames):
        level = np.where(frame.valid & (frame.purpose() == TEACH), frame.brightness, -1)
        pixels = (
            [np.full_like(y, number), y, x]
            for y, x in (np.nonzero(level == i) for i in range(len(EDGES) - 1))
        )
        places.append([np.array(each, np.int32) for each in pixels])
    levels = (np.concatenate(level, axis=1) for level in zip(*places, strict=True))
    return [level for level in levels if level.shape[1] >= FEW_PIXELS]


class _Training:
    """The training of a regressor, with a state that can be kept."""

    def __init__(self, start, frames, parts, seed, learning_rate, steps):
        import torch

        self.frames, self.seed, self.learning_rate, self.steps = frames, seed, learning_rate, steps
        self.places = _places(frames)
        self.parts = [part for part in parts if (part.purpose == CHOOSE).any()]
        self.scenes = SceneDataset(seed, 0, 10**6, SIZE, depth_range=SCENE_DEPTH)
        self.start = start
        self.network = deepcopy(start).eval().requires_grad_(True)  # without dropout, which draws
        self.network.joint = True
        self.parameters = list(self.network.parameters())
        self.device = self.parameters[0].device
        self.half = knows_bfloat16(self.device)
        self.optimizer = torch.optim.AdamW(self.parameters, learning_rate, betas=(0.9, 0.99), weight_decay=0)
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [p.detach().clone() for p in self.parameters]
        self.step, self.best_step, self.best_score = 0, 0, 0.0
        self.reference = [part.loss(start, JUDGED_SPLITS[1:], 1) for part in self.parts]

    def run(self, deadline, show):
        """Train until the blocks that choose gain no more, or steps or time are over."""
        self._restore()
        with progress(self.steps, show=show) as advance:
            for _ in range(self.step):
                advance()
            while self.step < self.steps and time.monotonic() < deadline:
                self._take_step()
                advance()
                if self.step % EVERY == 0 or self.step == self.steps:
                    self._look()
                    if self.step - self.best_step >= PATIENCE * EVERY:
                        break

    def _take_step(self):
        import torch

        from .losses import regression_losses

        crops = _FrameCrops(self.frames, self.places, self.seed, self.step)
        rows = [
            *(crops[i] for i in range(CROPS)),
            *(self.scenes[SCENES * self.step + i] for i in range(SCENES)),
        ]
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        batch = {name: plane.to(self.device) for name, plane in batch.items()}
        self.step += 1
        falling = (1 + math.cos(math.pi * (self.step - 1) / self.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * min(1, self.step / WARMUP) * falling
        z = batch["z"].contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            mean, std = self.network(z, batch["valid"])
        variance = std.float().square() + batch["depth"].reshape(-1, 1, 1, 1).square()
        error = batch["residual"] - mean.float()
        mean_loss, width_loss = regression_losses(error, variance, batch["use"], WEIGHTING, (1,))
        self.optimizer.zero_grad(set_to_none=True)
        (mean_loss + width_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(MEMORY, self.step / (self.step + 4))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def _score(self, regressor):
        """Change of the loss on the blocks that choose, the mean over bins of brightness."""
        rows = []
        for number, (part, before) in enumerate(zip(self.parts, self.reference, strict=True)):
            use = part.purpose == CHOOSE
            change = part.loss(regressor, JUDGED_SPLITS[1:], 1) - before
            level = np.digitize(part.z[use], EDGES) - 1
            rows.append([change[use], part.block[use] + 10**12 * number, level])
        mean, _, number = mean_and_error(*(np.concatenate(plane) for plane in zip(*rows, strict=True)))
        return float(np.average(mean, weights=np.sqrt(number)))

    def _mixed(self, weights, share=1.0):
        """Return a regressor with weights between the old and the new ones."""
        import torch

        mixed = deepcopy(self.start)
        with torch.no_grad():
            torch._foreach_lerp_(list(mixed.parameters()), weights, share)
        return mixed

    def _look(self):
        score = self._score(self._mixed(self.average))
        log.info("step %d: %.5f", self.step, score)
        if score < self.best_score:
            self.best_step, self.best_score = self.step, score
            self.best = [p.clone() for p in self.average]
        self._keep()

    def choose(self):
        """Return the best regressor on the way from the old to the best weights, and its share of the way."""
        scores = {share: self._score(self._mixed(self.best, share)) for share in (0.25, 0.5, 1.0)}
        share = min(scores, key=scores.__getitem__)
        return self._mixed(self.best, share), share

    def _keep(self):
        import torch

        state = {
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "best_score": self.best_score,
            "average": self.average,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(self.state_file, overwrite=True) as partial:
            torch.save(state, partial)

    def _restore(self):
        import torch

        if not self.state_file.exists():
            return
        state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state.pop("network"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        vars(self).update(state)


def _digest(model, frames, training):
    """A name for all that decides what a training does."""
    words = [model.sha256, training.seed, training.learning_rate, training.steps, __version__]
    return hashlib.sha256(repr(words + [frame.sha256 for frame in frames]).encode()).hexdigest()[:12]


def _gain(whole):
    """Relative gain; where Stein's estimate of a small error is below the stated variance, that counts."""
    return -whole["change"] / max(whole["error"], whole["stated"])


def _judge(bins, whole):
    """Return a table of the bins, and why the adapted model is refused, if it is."""
    from astropy.table import QTable

    used = bins["n_pixels"] > 0
    before = np.sqrt(np.maximum(bins["error"], 1e-6))
    after = np.sqrt(np.maximum(bins["error"] + bins["change"], 1e-6))
    columns = {"low": EDGES[:-1], "high": EDGES[1:], "before": before, "after": after} | bins
    table = QTable({name: columns[name][used] for name in COLUMNS}, descriptions=COLUMNS)
    for name, what in (("loss", "the loss on split frames"), ("change", "Stein's estimate of the error")):
        value, err = whole[name], whole[f"{name}_err"]
        if not value < -SURE * err:
            return (
                table,
                f"{what} does not fall beyond doubt on the blocks held out: {value:+.2g} +- {err:.1g}",
            )
        worse = table[table[name] > SURE * table[f"{name}_err"]]
        if len(worse):
            low = max(worse["low"][0], 0)
            return table, f"{what} rises from {low:g} sigma on, on the blocks held out"
    if _gain(whole) < MIN_GAIN:
        return table, f"the mean square error falls by less than {MIN_GAIN:.0%} on the blocks held out"
    return table, ""


def _pictures(parts, before, after, width=128):
    """Return the brightest part, as it is and enhanced by two regressors."""
    part = max(parts, key=lambda part: np.quantile(part.z, 0.99))
    inside = tuple(slice(max(n - width, 0) // 2, (n + width) // 2) for n in part.z.shape)
    scenes = [part.z + part.ask(each, part.z)[0] for each in (before, after)]
    return tuple(plane[inside] for plane in (part.z, *scenes))


def _ranges(frames):
    """Return the ranges of what was measured on the frames, with room for other nights."""
    rows = [{name: measure.value for name, measure in frame.measures.items()} for frame in frames]
    ranges = {}
    for name, (below, above) in {"psf_fwhm": (0.8, 1.25), "peak_snr": (0.0, 3.0)}.items():
        values = [row[name] for row in rows if name in row]
        if values:
            ranges[name] = [round(below * min(values), 4), round(max(above * max(values), 0.0), 4)]
    values = [row["noise_correlation"] for row in rows if "noise_correlation" in row]
    if values:
        ranges["noise_correlation"] = [round(min(values) - 0.1, 4), round(max(values) + 0.1, 4)]
    return ranges

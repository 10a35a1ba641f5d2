# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
Averages of the weights over a training, with a memory that grows with it.

The profile of all averages is a power of training time,

.. math:: \hat\theta(t) = \frac{\gamma + 1}{t^{\gamma + 1}} \int_0^t \tau^\gamma \theta(\tau) \, d\tau .

Its width, the standard deviation of the profile in units of t, is
:math:`\sqrt{\gamma + 1} / [(\gamma + 2) \sqrt{\gamma + 3}]`.
"""

import math
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging

from astro_ddpm.utils import atomic_path, require

__all__ = ["EMASnapshots", "PowerEMA", "average_snapshots"]


def power_decay(step, gamma):
    r"""Return the factor :math:`(1 - 1 / t)^{\gamma + 1}` that an average keeps of itself at step t."""
    return (1 - 1 / step) ** (gamma + 1)


def exponent(width):
    r"""
    Return the exponent :math:`\gamma` of the profile of a width :math:`w`, at most 0.288 (the plain mean).

    .. math:: \gamma^3 + 7 \gamma^2 + (16 - w^{-2}) \gamma + 12 - w^{-2} = 0
    """
    require(0 < width <= 12**-0.5, f"width must be positive and at most 0.288, not {width}")
    return float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max())


class PowerEMA(WeightAveraging):
    r"""
    Average the weights with a power function of training time.

    .. math:: \hat\theta_t = \beta_t \hat\theta_{t-1} + (1 - \beta_t) \theta_t, \qquad
              \beta_t = (1 - 1 / t)^{\gamma + 1}

    (Karras et al. 2024, *Analyzing and Improving the Training Dynamics of Diffusion Models*,
    equation 2.) Unlike a fixed decay it forgets the random start and fits runs of any length.

    Parameters
    ----------
    gamma : float, optional
        The exponent; 6.94 gives a profile whose width is 10 % of the run.
    """

    def __init__(self, gamma: float = 6.94):
        def average(averaged, current, n_averaged):
            torch._foreach_lerp_(averaged, current, float(1 - power_decay(n_averaged + 1, gamma)))

        super().__init__(multi_avg_fn=average)

    def on_fit_end(self, trainer, pl_module):
        """Copy the average into the network, also if a loaded checkpoint has no step left to do."""
        self.on_train_end(trainer, pl_module)


class EMASnapshots(pl.Callback):
    """
    Keep snapshots of two averages of the trained weights, from which the best width is chosen after training.

    They go into the folder ``ema`` of the run as ``step-*.safetensors``; `average_snapshots` makes of them
    an average of any width. A run that is resumed goes on with them; another run in the same folder replaces
    them.

    Parameters
    ----------
    every_n_steps : int, optional
        How often a snapshot is written, beside that of the last step; by default twelve times in all.

    widths : tuple of float, optional
        The widths of the averages.

    Raises
    ------
    ValueError
        If ``every_n_steps`` is less than 1, or there is no profile of such a width.
    """

    def __init__(self, every_n_steps: int | None = None, widths: tuple[float, ...] = (0.05, 0.1)):
        if every_n_steps is not None and every_n_steps < 1:
            msg = f"every_n_steps must be at least 1, not {every_n_steps}"
            raise ValueError(msg)
        self.every_n_steps = every_n_steps
        self.interval = every_n_steps or 500  # of a run whose length is unknown
        self.exponents = {f"{width:g}": exponent(width) for width in widths}
        self.last_step = 0
        self.averages: dict = {}

    def on_train_start(self, trainer, pl_module):
        """Find how often to write; remove the snapshots of another run, unless this one continues it."""
        total = trainer.estimated_stepping_batches
        if self.every_n_steps is None and math.isfinite(total):
            self.interval = math.ceil(total / 12)
        if trainer.is_global_zero and not self.averages and not getattr(trainer, "fast_dev_run", False):
            for path in Path(trainer.default_root_dir, "ema").glob("step-*.safetensors"):
                path.unlink()

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Take in the weights of this step, and write."""
        step = trainer.global_step
        if step == self.last_step:  # gradients are still gathered
            return
        self.last_step = step
        current = {name: p for name, p in pl_module.network.named_parameters() if p.requires_grad}
        for width, gamma in self.exponents.items():
            average = self.averages.setdefault(width, {})
            for name, parameter in current.items():
                if name in average:
                    average[name] = average[name].to(parameter.device)
                    average[name].lerp_(parameter, 1 - power_decay(step, gamma))
                else:
                    average[name] = parameter.clone()
        if step % self.interval == 0:
            self._write(trainer)

    def on_train_end(self, trainer, pl_module):
        """Write the last averages."""
        if self.averages and self.last_step % self.interval:
            self._write(trainer)

    def _write(self, trainer):
        from safetensors.torch import save

        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir, "ema")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{self.last_step:07d}.safetensors"
        tensors = {f"{width} {name}": t for width, kept in self.averages.items() for name, t in kept.items()}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        with atomic_path(path, overwrite=True) as partial:
            partial.write_bytes(save(tensors, {"step": str(self.last_step)}))

    def state_dict(self):
        """Return what goes into a checkpoint."""
        return {"last_step": self.last_step, "averages": self.averages}

    def load_state_dict(self, state_dict):
        """Go on with what was in a checkpoint."""
        self.last_step, self.averages = state_dict["last_step"], state_dict["averages"]


def _profile_products(times, gammas, other_times, other_gammas):
    r"""
    Return the scalar products of power profiles, shape (n, m).

    .. math:: \int_0^{\min(s, t)} \frac{(\gamma + 1) \tau^\gamma}{s^{\gamma + 1}}
              \frac{(\delta + 1) \tau^\delta}{t^{\delta + 1}} \, d\tau
              = \frac{(\gamma + 1) (\delta + 1)}{\gamma + \delta + 1}
              \frac{\min(s, t)^{\gamma + \delta + 1}}{s^{\gamma + 1} t^{\delta + 1}}
    """
    s, gamma = np.asarray(times)[:, None], np.asarray(gammas)[:, None]
    t, delta = np.asarray(other_times)[None], np.asarray(other_gammas)[None]
    least = np.minimum(s, t)
    powers = (least / s) ** gamma * (least / t) ** delta * least / (s * t)
    return (gamma + 1) * (delta + 1) / (gamma + delta + 1) * powers


def _fit_profile(steps, gammas, gamma):
    """Return shares of profiles that add up to one and make another, and the relative error they leave."""
    products = _profile_products(steps, gammas, steps, gammas)
    wanted = _profile_products(steps, gammas, [1.0], [gamma])[:, 0]
    norm = _profile_products([1.0], [gamma], [1.0], [gamma])[0, 0]
    ones = np.ones((len(steps), 1))
    system = np.block([[products, ones], [ones.T, np.zeros((1, 1))]])  # with a Lagrange multiplier
    shares = np.linalg.lstsq(system, np.append(wanted, 1), rcond=1e-12)[0][:-1]
    misfit = (shares @ products @ shares - 2 * shares @ wanted + norm) / norm
    return shares, float(np.sqrt(max(misfit, 0)))


def average_snapshots(folder, width):
    """
    Make the average of another width out of the snapshots of a training.

    The profile that is wanted is approximated by least squares as a sum of the profiles of the snapshots,
    with shares that add up to one, and the same sum of their weights is the average (Karras et al. 2024,
    section 3.2 and algorithm 3).

    Parameters
    ----------
    folder : path-like
        The folder ``ema`` that `EMASnapshots` filled.

    width : float
        The width of the profile in units of the length of the training; ValueError if the snapshots cannot
        make it.

    Returns
    -------
    weights : dict of str to Tensor
        The parameters of the trained network by name, averaged up to the last snapshot.
    """
    from safetensors import safe_open

    gamma = exponent(width)
    paths = sorted(Path(folder).glob("step-*.safetensors"))
    require(paths, f"folder {folder} holds no snapshots; train with the callback EMASnapshots")
    profiles = []
    for path in paths:
        with safe_open(path, framework="pt") as file:
            kept = sorted({key.split(" ")[0] for key in file.keys()})  # noqa: SIM118 - not a mapping
            profiles += [(path, name, int(file.metadata()["step"]), exponent(float(name))) for name in kept]
    steps, gammas = (np.array(column, float) for column in list(zip(*profiles, strict=True))[2:])
    steps /= steps.max()
    shares, misfit = _fit_profile(steps, gammas, gamma)
    if misfit > 0.1:
        msg = (
            f"width {width:g} cannot be made of the {len(paths)} snapshots in {folder}: their profiles "
            f"differ from it by {misfit:.0%}; write snapshots more often, or choose a width nearer to theirs"
        )
        raise ValueError(msg)
    weights = {}
    for (path, kept, *_), share in zip(profiles, shares, strict=True):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                average, name = key.split(" ")
                if average == kept:
                    weights[name] = weights.get(name, 0) + share * file.get_tensor(key).double()
    return {name: weight.float() for name, weight in weights.items()}

# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
Sampling in very few evaluations, by a rule that is fitted to a denoiser.

With mean :math:`\mu` and width :math:`s` of every pixel known, let

.. math:: u = \frac{x - \mu}{\sqrt{\sigma^2 + s^2}}, \qquad
          F = \frac{\sqrt{\sigma^2 + s^2}}{\sigma s} (D - \mu) - \frac{s}{\sigma} u,

where F is what `Denoiser` has from its network. In :math:`\theta = \arctan(\sigma / s)` the flow that turns
noise into data is :math:`du / d\theta = -F` (Karras et al. 2022, equation 1, in these variables; Lu & Song
2024, *Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models*, section 4.1, for a constant
width). Pixels that are Gaussian and independent do not move at all, and the others little. So each state is
the noise plus a weighted sum of the few F before it,

.. math:: u_k = u_0 + \sum_{j < k} C_{kj}(s) \, F_j, \qquad C_{kj}(s) = \sum_{p = 0}^2 c_{kjp} \ln^p s ,

with weights by least squares from draws that took many evaluations (the non-stationary solvers of Shaul et
al. 2024, *Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models*, with a width).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .samplers import Callback, DenoiserFunction, sample_dpmpp_2m

__all__ = ["FittedSolver", "fit_solver", "sample_fitted"]

POWERS = 3  # of the logarithm of the width
SCALES = (1, 2, 4, 8, 16)  # pixels, of the structure that the fit wants right
ROUGH = 4.0  # the weight of what is left of a plane without its mean over 2x2 pixels, which is small


@dataclass(frozen=True)
class FittedSolver:
    """
    Noise levels and weights of `sample_fitted`.

    Parameters
    ----------
    levels : tuple of float, length n
        The noise levels, falling, at which the denoiser is evaluated.

    weights : tuple, shape (n, k, 3) with k from 1 to n
        The weights of the outputs in the state at each level after the first and in the result.

    widths : tuple of float
        The least and the largest width in the fit; others count as these.

    Raises
    ------
    ValueError
        If the levels do not fall or the shapes do not fit, or something is not finite.
    """

    levels: tuple[float, ...]
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    widths: tuple[float, float]

    def __post_init__(self) -> None:
        n, flat = len(self.levels), [c for rows in self.weights for row in rows for c in row]
        numbers = [*self.levels, *self.widths, *flat]
        shapes = [[len(row) for row in rows] for rows in self.weights]
        falling = list(self.levels) == sorted(set(self.levels), reverse=True) and n > 0
        if not (
            falling
            and shapes == [[POWERS] * (k + 1) for k in range(n)]
            and all(map(math.isfinite, numbers))
            and min(self.levels) > 0
            and 0 < self.widths[0] <= self.widths[1]
        ):
            msg = "a solver needs falling positive levels, and finite weights for each of them"
            raise ValueError(msg)

    @property
    def steps(self) -> int:
        """The number of evaluations."""
        return len(self.levels)

    def to_dict(self) -> dict[str, Any]:
        """Return levels, weights and widths by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, parts: dict[str, Any]) -> "FittedSolver":
        """Return the solver of `to_dict`, also after it has been JSON."""
        weights = tuple(tuple(tuple(map(float, row)) for row in rows) for rows in parts["weights"])
        low, high = parts["widths"]
        return cls(tuple(map(float, parts["levels"])), weights, (float(low), float(high)))


def _log_width(std: Tensor, widths: tuple[float, float]) -> Tensor:
    return std.clamp(*widths).log()


def _output(denoised: Tensor, u: Tensor, level: float, mean: Tensor, std: Tensor) -> Tensor:
    """Return F from what a denoiser gives."""
    output = (denoised - mean).mul_(torch.sqrt(std.square() + level**2) / (level * std))
    return output.addcmul_(std, u, value=-1 / level)


def _noised(u: Tensor, level: float, mean: Tensor, std: Tensor) -> Tensor:
    return mean + torch.sqrt(std.square() + level**2) * u


def sample_fitted(
    denoiser: DenoiserFunction,
    noise: Tensor,
    mean: Tensor,
    std: Tensor,
    solver: FittedSolver,
    *,
    callback: Callback | None = None,
) -> Tensor:
    """
    Draw in few evaluations by a fitted rule, exactly so for independent Gaussian pixels.

    Parameters
    ----------
    denoiser : callable
        ``denoiser(x, sigma)``, as for `sample_dpmpp_2m`.

    noise : Tensor
        White noise of unit variance.

    mean, std : Tensor, broadcastable to ``noise``
        Mean and standard deviation of the data, those of the `Denoiser`.

    solver : FittedSolver
        The levels and weights.

    callback : callable, optional
        Called as ``callback(i, x)`` after step ``i``.

    Returns
    -------
    x : Tensor, shape of ``noise``
        Draws.
    """
    log_width, u = _log_width(std, solver.widths), noise
    outputs: list[Tensor] = []
    for i, (level, rows) in enumerate(zip(solver.levels, solver.weights, strict=True)):
        denoised = denoiser(_noised(u, level, mean, std), noise.new_tensor(level))
        outputs.append(_output(denoised, u, level, mean, std))
        u = noise.clone()
        for (c0, c1, c2), output in zip(rows, outputs, strict=True):
            weight = log_width.mul(c2).add_(c1).mul_(log_width).add_(c0)
            u.addcmul_(weight, output)
        if callback is not None:
            lower = solver.levels[i + 1] if i + 1 < solver.steps else 0.0
            callback(i, _noised(u, lower, mean, std))
    return mean + std * u


def _rows(plane: Tensor) -> Tensor:
    """Flatten images and their means over blocks, every scale of white noise with the same sum of squares."""
    smooth = F.interpolate(F.avg_pool2d(plane, 2), scale_factor=2)
    parts = [ROUGH * (plane[..., : smooth.shape[-2], : smooth.shape[-1]] - smooth)]
    parts += [s**2 * F.avg_pool2d(plane, s) for s in SCALES if s <= min(plane.shape[-2:])]
    return torch.cat([part.flatten() for part in parts]).double()


def _reference(
    denoiser: DenoiserFunction, noise: Tensor, mean: Tensor, std: Tensor, levels: Sequence[float], n: int
) -> list[Tensor]:
    """Return the states u at levels below the first and at zero, by a sampler that takes many evaluations."""
    fine = torch.logspace(math.log10(20), math.log10(0.02), n, dtype=torch.float64)
    wanted = torch.tensor(levels, dtype=torch.float64)
    far = (fine[:, None] / wanted).log().abs().min(dim=1).values > 0.12  # no step is very short
    grid = torch.cat([fine[far], wanted]).sort(descending=True).values
    states: dict[float, Tensor] = {}

    def keep(i: int, x: Tensor) -> None:
        level = float(grid[i + 1])
        states[level] = (x - mean) / torch.sqrt(std.square() + level**2)

    grid = torch.cat([grid, grid.new_zeros(1)])
    start = _noised(noise, float(grid[0]), mean, std)
    sample_dpmpp_2m(denoiser, start, grid.to(noise.dtype), callback=keep)
    return [states[float(level)] for level in (*wanted[1:], 0.0)]


def fit_solver(
    problems: Iterable[tuple[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, Tensor]],
    levels: Sequence[float],
    *,
    n_reference: int = 24,
    ridge: float = 1e-4,
) -> FittedSolver:
    """
    Fit the weights of a solver for given noise levels.

    Parameters
    ----------
    problems : iterable of tuple
        Denoiser, mean, standard deviation and unit white noise, as `sample_fitted` takes them.

    levels : sequence of float
        The noise levels, falling.

    n_reference : int, optional
        About how many evaluations the draws take that are to be met.

    ridge : float, optional
        How strongly large weights are avoided.

    Returns
    -------
    solver : FittedSolver
        The solver.
    """
    cases = list(problems)
    low, high = np.quantile(np.concatenate([std.flatten() for *_, std, _ in cases]), [0.001, 0.999])
    targets = [_reference(d, noise, mean, std, levels, n_reference) for d, mean, std, noise in cases]
    states = [noise for *_, noise in cases]
    outputs: list[list[Tensor]] = [[] for _ in cases]
    weights: list[tuple[tuple[float, ...], ...]] = []
    for k, level in enumerate(levels):
        size = POWERS * (k + 1)
        normal, moment = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        planes = []
        for case, u, past, target in zip(cases, states, outputs, targets, strict=True):
            denoiser, mean, std, noise = case
            denoised = denoiser(_noised(u, level, mean, std), noise.new_tensor(level))
            past.append(_output(denoised, u, level, mean, std))
            log_width = _log_width(std, (low, high))
            planes.append([output * log_width**p for output in past for p in range(POWERS)])
            a, b = torch.stack([_rows(plane) for plane in planes[-1]]), _rows(target[k] - noise)
            normal, moment = normal + a @ a.T, moment + a @ b
        normal.diagonal().add_(ridge * normal.diagonal().mean())
        found = torch.linalg.solve(normal, moment).tolist()
        weights.append(tuple(tuple(found[i : i + POWERS]) for i in range(0, len(found), POWERS)))
        states = [
            noise + sum(c * plane for c, plane in zip(found, terms, strict=True))
            for (*_, noise), terms in zip(cases, planes, strict=True)
        ]
    return FittedSolver(tuple(map(float, levels)), tuple(weights), (float(low), float(high)))

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A trained model: its networks, and what is known about them.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from astropy.utils.exceptions import AstropyDeprecationWarning
from torch import Tensor

from astro_ddpm.diffusion import (
    Denoiser,
    FittedSolver,
    OneStepGenerator,
    log_uniform_levels,
    sample_dpmpp_2m,
    sample_fitted,
)
from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.nn.raunet import ORIENTATIONS
from astro_ddpm.utils import renamed_argument, warn_user

__all__ = ["Model"]

DEFAULT_STEPS = 10  # without a solver


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _smooth(plane: Tensor, width: int = 17) -> Tensor:
    """Average over boxes, cut at the edges; rows and columns in turn."""
    for kernel in ((1, width), (width, 1)):
        padding = (kernel[0] // 2, kernel[1] // 2)
        plane = F.avg_pool2d(plane, kernel, stride=1, padding=padding, count_include_pad=False)
    return plane


def _check_positive(name: str, value: Any) -> None:
    if not (_is_finite(value) and value > 0):
        msg = f"{name} must be positive and finite, not {value}"
        raise ValueError(msg)


@dataclass(frozen=True, eq=False)
class Model:
    """
    A trained model.

    Parameters
    ----------
    regressor : `~astro_ddpm.nn.RAUNet`
        Estimates mean and standard deviation of the whitened residual. Its old name ``raunet`` is deprecated.

    denoiser : `~astro_ddpm.nn.GuidedUNet`, optional
        Draws samples; None for a model without samples. Its old name ``network`` is deprecated.

    name : str, optional
        The name of the model.

    sha256 : str, optional
        The SHA-256 of its weights.

    ranges : dict, optional
        The ranges it was trained for, each as ``[low, high]``: ``noise_ratio`` and, as
        `~astro_ddpm.domain.measure_image` measures them, ``psf_fwhm``, ``noise_correlation`` and
        ``peak_snr``. Quantities missing here are not checked. ``default_noise_ratio`` is the noise ratio of
        samples when none is asked for. The old names ``depth`` and ``default_depth`` are understood.

    training : dict, optional
        How it was trained, in words and numbers.

    temperature : float, optional
        Multiplies the noise that the sampler starts from, and with it the spread of the samples.

    one_step : bool, optional
        Whether ``denoiser`` draws in one evaluation (`~astro_ddpm.diffusion.OneStepGenerator`) rather than
        denoises step by step.

    solver : `~astro_ddpm.diffusion.FittedSolver`, optional
        Draws in few evaluations, of which it is fitted to the denoiser for a certain number.

    orientations : {1, 2, 4, 8}, optional
        In how many orientations of the image the regressor is averaged; by default 2, or 4 if the model draws
        samples, which takes much longer anyway.

    Raises
    ------
    ValueError
        If an entry of ``ranges`` is not a pair of ascending numbers, the default noise ratio or
        ``temperature`` is not positive, or ``orientations`` is none of its numbers.

    TypeError
        If ``training`` is not a dictionary.
    """

    regressor: RAUNet
    denoiser: GuidedUNet | None = None
    name: str = ""
    sha256: str = ""
    ranges: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    temperature: float = 1.0
    one_step: bool = False
    solver: FittedSolver | None = None
    orientations: int | None = None

    def __post_init__(self) -> None:
        ranges = {name.replace("depth", "noise_ratio"): limits for name, limits in self.ranges.items()}
        object.__setattr__(self, "ranges", ranges)
        for name, limits in ranges.items():
            if name == "default_noise_ratio":
                _check_positive(f"ranges[{name!r}]", limits)
            elif not (len(limits) == 2 and all(map(_is_finite, limits)) and limits[0] <= limits[1]):
                msg = f"ranges[{name!r}] must be [low, high], not {limits}"
                raise ValueError(msg)
        _check_positive("temperature", self.temperature)
        if self.orientations not in (None, *ORIENTATIONS):
            msg = f"orientations must be one of {', '.join(map(str, ORIENTATIONS))}, not {self.orientations}"
            raise ValueError(msg)
        if not isinstance(self.training, dict):
            msg = f"training must be a dictionary, not {type(self.training).__name__}"
            raise TypeError(msg)
        for network in self.networks:
            network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # faster on CPUs

    @property
    def kind(self) -> str:
        """How the model draws samples: ``"ddpm"``, ``"crps"`` in one step, or ``"raunet"`` not at all."""
        if not self.draws_samples:
            return "raunet"
        return "crps" if self.one_step else "ddpm"

    @property
    def draws_samples(self) -> bool:
        """Whether the model draws samples, beside giving mean and standard deviation."""
        return self.denoiser is not None

    @property
    def passes(self) -> int:
        """How often the regressor is evaluated: once for each orientation."""
        return self.orientations or (4 if self.draws_samples else 2)

    @property
    def default_steps(self) -> int:
        """How many evaluations of the denoiser a draw takes if no number is asked for."""
        if self.one_step:
            return 1
        return DEFAULT_STEPS if self.solver is None else self.solver.steps

    @property
    def networks(self) -> tuple:
        """The networks that the model has."""
        return (self.regressor,) if self.denoiser is None else (self.regressor, self.denoiser)

    @property
    def stride(self) -> int:
        """The width of the coarsest pixels of the networks, in pixels of the image."""
        return max(network.stride for network in self.networks)

    @property
    def receptive_radius(self) -> int:
        """How many pixels away, along an axis, a pixel can matter in one evaluation of a network."""
        return max(network.receptive_radius for network in self.networks)

    def to(self, device: str | torch.device) -> "Model":
        """Return the model on a device; the model itself stays where it is."""
        if next(self.regressor.parameters()).device == torch.device(device):
            return self
        regressor, denoiser = deepcopy((self.regressor, self.denoiser))
        return replace(self, regressor=regressor.to(device), denoiser=denoiser and denoiser.to(device))

    def estimate(
        self, z: Tensor, valid: Tensor, core: tuple[slice, slice] | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Estimate mean and standard deviation of the whitened residual, in units of the noise of the image.

        `~astro_ddpm.nn.RAUNet.estimate` averages ``orientations`` of the image. ``z`` and ``valid`` are the
        whitened image and its validity, shape (batch, 1, ny, nx), and ``core`` is the part (y, x) that is
        wanted, all by default.
        """
        return self.regressor.estimate(z, valid, self.passes, core)

    @renamed_argument("depth", "noise_ratio")
    def draw(
        self,
        z: Tensor,
        valid: Tensor,
        estimate: tuple[Tensor, Tensor],
        noise_ratio: float,
        noise: Tensor,
        steps: int,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        r"""
        Draw whitened residuals of exposures with a given noise.

        Where the model has a solver for this number of steps, `~astro_ddpm.diffusion.sample_fitted` draws
        with it, otherwise `~astro_ddpm.diffusion.sample_dpmpp_2m` on log-uniform levels, from the estimated
        mean plus white noise, times the temperature.

        Parameters
        ----------
        z, valid : Tensor, shape (1, 1, ny, nx)
            The whitened image and its validity.

        estimate : tuple of Tensor, shape (1, 1, ny, nx)
            The output of `estimate`.

        noise_ratio : float
            The noise of the exposures to draw, in units of the noise of the image.

        noise : Tensor, shape (n, 1, ny, nx)
            White noise of unit variance, one plane for each draw.

        steps : int
            The number of evaluations of the denoiser; not used by a model of one step.

        callback : callable, optional
            Called as ``callback(i, x)`` after step ``i``.

        Returns
        -------
        residual : Tensor, shape (n, 1, ny, nx)
            Draws of the whitened residual, which include the noise of the exposure.

        Raises
        ------
        ValueError
            If the model draws no samples.
        """
        if self.denoiser is None:
            msg = "this model draws no samples: it has no denoiser"
            raise ValueError(msg)
        guided, guide = self.denoiser, self.denoiser.encode(z, valid, *estimate)

        def network(x: Tensor, level: Tensor, ratios: Tensor) -> Tensor:
            return guided(x, level, guide, ratios)

        return self.sample(network, estimate, noise_ratio, noise, steps, callback)

    def sample(
        self,
        network: Callable[..., Tensor],
        estimate: tuple[Tensor, Tensor],
        noise_ratio: float,
        noise: Tensor,
        steps: int,
        callback: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """
        Draw as `draw` does, with a network that has been given its guide.

        Parameters
        ----------
        network : callable
            Called as ``network(x, noise_level, noise_ratio)``, such as ``self.denoiser`` evaluated tile by
            tile.

        estimate, noise_ratio, noise, steps, callback : tuple of Tensor, float, Tensor, int, callable
            As for `draw`, with the same result.
        """
        mean, scene_std = estimate
        std = torch.sqrt(scene_std.square() + noise_ratio**2)
        ratios = noise.new_full((len(noise),), noise_ratio)
        if self.one_step:
            draws = OneStepGenerator(network)(self.temperature * noise, mean, std, ratios)
            if callback is not None:
                callback(0, draws)
            return draws
        denoiser = Denoiser(network)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return denoiser(x, sigma, mean, std, ratios)

        noise = self.temperature * noise
        if self.solver is not None and steps == self.solver.steps:
            return sample_fitted(denoise, noise, mean, std, self.solver, callback=callback)
        levels = log_uniform_levels(steps, dtype=noise.dtype).to(noise.device)
        return sample_dpmpp_2m(denoise, mean + levels[0] * noise, levels, callback=callback)

    @renamed_argument("depth", "noise_ratio")
    def scene_std(
        self, variance: Tensor, n: int, estimate: tuple[Tensor, Tensor], noise_ratio: float
    ) -> Tensor:
        r"""
        Standard deviation of the noise-free scene.

        The map has the shape of the estimate :math:`s_0` of the RAUNet. How much wider or narrower it is
        follows from the variance :math:`V` of the draws, out of which the noise of the exposure is taken,

        .. math:: s^2 = s_0^2 \, \frac{\langle V + \frac{T^2}{n} (s_0^2 + d^2)
                  - T^2 \, d^2 \rangle}{\langle s_0^2 \rangle}

        where :math:`d` is the noise ratio and :math:`T` the temperature, which multiplies the noise of the
        exposure as well. The averages are over 17x17 pixels, since one pixel of a few draws tells its
        variance badly. The second term is a pseudo-draw that agrees with the RAUNet, which makes a single
        draw fall back on :math:`T s_0`. At least a quarter of :math:`s_0^2` is left.

        Parameters
        ----------
        variance : Tensor, shape (1, 1, ny, nx)
            The mean square distance of the draws from their mean.

        n : int
            The number of draws.

        estimate : tuple of Tensor, shape (1, 1, ny, nx)
            The output of `estimate`.

        noise_ratio : float
            The noise of the draws, in units of the noise of the image.

        Returns
        -------
        std : Tensor, shape (1, 1, ny, nx)
            In units of the noise of the image.
        """
        heat = self.temperature**2
        expected = estimate[1].square()
        scene = variance + heat / n * (expected + noise_ratio**2) - heat * noise_ratio**2
        ratio = _smooth(scene) / _smooth(expected)
        return torch.sqrt(ratio.clamp_min(0.25) * expected)

    @property
    def raunet(self) -> RAUNet:
        """The old name of ``regressor``, deprecated."""
        warn_user("raunet was renamed. Use regressor instead", AstropyDeprecationWarning)
        return self.regressor

    @property
    def network(self) -> GuidedUNet | None:
        """The old name of ``denoiser``, deprecated."""
        warn_user("network was renamed. Use denoiser instead", AstropyDeprecationWarning)
        return self.denoiser


_renamed = renamed_argument("network", "denoiser")(renamed_argument("raunet", "regressor")(Model.__init__))
Model.__init__ = _renamed  # type: ignore[method-assign]

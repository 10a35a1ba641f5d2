# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A trained model: its networks, and what is known about them.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from astro_ddpm.diffusion import Denoiser, log_uniform_levels, sample_dpmpp_2m
from astro_ddpm.nn import GuidedUNet, RAUNet

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """
    A trained model.

    Parameters
    ----------
    raunet : `~astro_ddpm.nn.RAUNet`
        Estimates mean and standard deviation of the whitened residual.

    network : `~astro_ddpm.nn.GuidedUNet`, optional
        The network of the denoiser that draws samples; None for a model without samples.

    name : str, optional
        The name of the model.

    sha256 : str, optional
        The SHA-256 of its weights.

    ranges : dict, optional
        The ranges it was trained for, such as ``depth``, each as ``[low, high]``, and under
        ``default_depth`` the depth drawn when none is asked for.

    training : dict, optional
        How it was trained, in words and numbers.
    """

    raunet: RAUNet
    network: GuidedUNet | None = None
    name: str = ""
    sha256: str = ""
    ranges: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)

    def __post_init__(self):
        for network in (self.raunet, self.network):
            if network is not None:
                network.eval().requires_grad_(False)

    @property
    def kind(self) -> str:
        """Whether the model draws samples: ``"ddpm"`` or ``"raunet"``."""
        return "raunet" if self.network is None else "ddpm"

    def estimate(self, z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """
        Estimate mean and standard deviation of the whitened residual.

        Parameters
        ----------
        z, valid : Tensor, shape (batch, 1, ny, nx)
            The whitened image and its validity.

        Returns
        -------
        mean, std : Tensor, shape (batch, 1, ny, nx)
            In units of the noise of the image.
        """
        return self.raunet(z, valid)

    def draw(
        self,
        z: Tensor,
        valid: Tensor,
        estimate: tuple[Tensor, Tensor],
        depth: float,
        noise: Tensor,
        steps: int,
        callback=None,
    ) -> Tensor:
        r"""
        Draw whitened residuals of exposures of a given depth.

        The start of the sampler is the estimated mean plus white noise of the highest level; it is
        denoised by `~astro_ddpm.diffusion.sample_dpmpp_2m` on log-uniform levels.

        Parameters
        ----------
        z, valid : Tensor, shape (1, 1, ny, nx)
            The whitened image and its validity.

        estimate : tuple of Tensor, shape (1, 1, ny, nx)
            The output of `estimate`.

        depth : float
            The noise of the exposures to draw, in units of the noise of the image.

        noise : Tensor, shape (n, 1, ny, nx)
            White noise of unit variance, one plane for each draw.

        steps : int
            The number of evaluations of the denoiser.

        callback : callable, optional
            Called as ``callback(i, x)`` after step ``i``.

        Returns
        -------
        residual : Tensor, shape (n, 1, ny, nx)
            Draws of the whitened residual, which include the noise of the exposure.
        """
        mean, scene_std = estimate
        std = torch.sqrt(scene_std.square() + depth**2)
        n = len(noise)
        guide = self.network.encode(z, valid, mean, scene_std).expand(n, -1, -1, -1)
        depths = noise.new_full((n,), depth)
        denoiser = Denoiser(self.network)
        levels = log_uniform_levels(steps, dtype=noise.dtype).to(noise.device)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return denoiser(x, sigma, mean, std, guide, depths)

        return sample_dpmpp_2m(denoise, mean + levels[0] * noise, levels, callback=callback)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The forward process and the preconditioned denoiser with its loss.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Denoiser", "add_noise", "multiscale_square", "stratified_levels"]


def _as_planes(values: Tensor) -> Tensor:
    """Give one value per image, or one in all, the shape of images; leave planes as they are."""
    return values if values.ndim == 4 else values.reshape(-1, 1, 1, 1)


def add_noise(x: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    r"""
    Return noised images, :math:`x_\sigma = x_0 + \sigma \epsilon`: the forward process.

    ``x`` are the noise-free images, shape (batch, channels, ny, nx), ``sigma`` is one noise level for each,
    or for all, and ``noise`` is white and of unit variance.
    """
    return x + _as_planes(sigma) * noise


def stratified_levels(
    n: int,
    log_mean: float = -0.7,
    log_std: float = 1.4,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""
    Draw noise levels for training, :math:`\ln \sigma \sim N(\mu, s^2)`, one from each n-th of it.

    The distribution is that of Karras et al. 2022, *Elucidating the Design Space of Diffusion-Based
    Generative Models*, table 1; drawing one level from each stratum lowers the noise of the gradient.

    Parameters
    ----------
    n : int
        How many.

    log_mean, log_std : float, optional
        Mean and standard deviation of the natural logarithm.

    generator, device : torch.Generator, torch.device or str, optional
        The source of randomness, and where the result lives.

    Returns
    -------
    sigma : Tensor, shape (n,)
        The levels, in random order.
    """
    uniform = torch.rand(n, generator=generator, device=device)
    strata = (torch.randperm(n, generator=generator, device=device) + uniform) / n
    return torch.exp(log_mean + log_std * torch.special.ndtri(strata.clamp(1e-4, 1 - 1e-4)))


def multiscale_square(error: Tensor, scales: tuple[int, ...] = (1, 4, 16), limit: float = math.inf) -> Tensor:
    r"""
    Mean square of an error image and of its block sums.

    .. math:: L = \frac{1}{K} \sum_k \langle (s_k \, \bar e_{s_k})^2 \rangle

    where :math:`\bar e_s` are means over blocks of s x s pixels, so that white noise contributes equally
    at each scale. Like any positive quadratic form it is least for the posterior mean; the coarse scales
    make errors count that are small in every pixel but add up in an aperture.

    Parameters
    ----------
    error : Tensor, shape (batch, channels, ny, nx)
        The error.

    scales : sequence of int, optional
        The sizes of the blocks in pixels; those larger than the image are left out.

    limit : float, optional
        What :math:`e` and :math:`s_k \, \bar e_{s_k}` are limited to, so that a few targets that are far off
        do not rule a step; by default nothing.

    Returns
    -------
    loss : Tensor, shape ()
        The mean over images and scales.
    """
    largest = min(error.shape[-2:])
    error = error.clamp(-limit, limit)
    blocks = [s * F.avg_pool2d(error, s) for s in scales if s <= largest]
    return torch.stack([block.clamp(-limit, limit).square().mean() for block in blocks]).mean()


class Denoiser(nn.Module):
    r"""
    A network preconditioned to estimate the noise-free residual from a noised one.

    .. math:: D(x; \sigma) = \mu + c_\mathrm{skip} (x - \mu)
              + c_\mathrm{out} F\left(c_\mathrm{in} (x - \mu); \tfrac14 \ln \sigma\right)

    .. math:: c_\mathrm{skip} = \frac{s^2}{\sigma^2 + s^2}, \qquad
              c_\mathrm{out} = \frac{\sigma s}{\sqrt{\sigma^2 + s^2}}, \qquad
              c_\mathrm{in} = \frac{1}{\sqrt{\sigma^2 + s^2}}

    (Karras et al. 2022, equation 7 and table 1.) Mean :math:`\mu` and standard deviation :math:`s` of the
    data may be given per pixel. With those of a posterior, and with a network that returns zero, D is the
    exact denoiser of independent Gaussian pixels of that mean and width; the network learns what they leave
    out: correlations, departures from a Gaussian, and errors of :math:`\mu` and :math:`s`.

    Parameters
    ----------
    network : `torch.nn.Module`
        Called as ``network(x, noise_level, *condition)``, returns the shape of ``x``.
    """

    def __init__(self, network: Callable[..., Tensor]):
        super().__init__()
        self.network = network

    def _raw(
        self, x: Tensor, sigma: Tensor, mean: Tensor, std: Tensor, condition: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the centred image, the scales and the output of the network."""
        sigma = _as_planes(sigma)
        centred = x - mean
        total = torch.sqrt(sigma.square() + std.square())
        level = (torch.log(sigma) / 4).flatten().expand(len(x))
        return centred, sigma, total, self.network(centred / total, level, *condition)

    def forward(self, x: Tensor, sigma: Tensor, mean: Tensor, std: Tensor, *condition: Tensor) -> Tensor:
        """
        Estimate the noise-free image.

        Parameters
        ----------
        x : Tensor, shape (batch, channels, ny, nx)
            The noised image.

        sigma : Tensor, shape (batch,) or ()
            The noise level, positive.

        mean, std : Tensor, broadcastable to ``x``
            Mean and standard deviation of the data.

        *condition : Tensor
            Passed to the network.

        Returns
        -------
        denoised : Tensor, shape of ``x``
            The expectation of the noise-free image.
        """
        centred, sigma, total, raw = self._raw(x, sigma, mean, std, condition)
        return mean + (std / total).square() * centred + sigma * std / total * raw

    def loss(
        self,
        x: Tensor,
        sigma: Tensor,
        noise: Tensor,
        mean: Tensor,
        std: Tensor,
        *condition: Tensor,
        weight: Tensor | None = None,
        target: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        r"""
        Error of the denoiser with the weight that makes every noise level count the same.

        .. math:: L = \mathrm{multiscale}\left[
                  \frac{\sqrt{\sigma^2 + s^2}}{\sigma s} (D(x + \sigma \epsilon; \sigma) - x) \right]

        (Karras et al. 2022, equation 8 and table 1, with `multiscale_square` for the plain square.)

        Parameters
        ----------
        x : Tensor, shape (batch, channels, ny, nx)
            The noise-free image.

        sigma, mean, std, *condition : Tensor
            As for `forward`.

        noise : Tensor, shape of ``x``
            White noise of unit variance.

        weight : Tensor, broadcastable to ``x``, optional
            Multiplies the error. It must not depend on ``x``, or D is no longer an expectation.

        target : callable, optional
            A function of the noised image, what D shall return in place of ``x``: the answer of another
            denoiser, if that is to teach.

        Returns
        -------
        loss : Tensor, shape ()
            The loss; a network that returns zero for data of the given mean and width has 1.
        """
        noised = add_noise(x, sigma, noise)
        centred, sigma, total, raw = self._raw(noised, sigma, mean, std, condition)
        wanted = x if target is None else target(noised)
        error = raw - (wanted - mean - (std / total).square() * centred) * total / (sigma * std)
        return multiscale_square(error if weight is None else weight * error)

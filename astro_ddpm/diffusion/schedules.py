# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Noise levels from high to low, ending at zero, as plain tensors.

A sampler evaluates the denoiser at every level but the last, so ``n`` levels and the zero cost ``n``
evaluations.
"""

import math

import torch
from torch import Tensor

__all__ = ["cosine_levels", "linear_levels", "log_uniform_levels"]


def _check_steps(n: int) -> None:
    if n < 1:
        msg = f"n must be at least 1, not {n}"
        raise ValueError(msg)


def _levels_from_alpha_bar(alpha_bar: Tensor) -> Tensor:
    """Turn signal fractions, in the order of growing noise, into falling noise levels and a zero."""
    levels = ((1 - alpha_bar) / alpha_bar).sqrt().flip(0)
    return torch.cat([levels, levels.new_zeros(1)])


def log_uniform_levels(
    n: int, sigma_min: float = 0.02, sigma_max: float = 20.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    r"""
    Noise levels uniform in the logarithm.

    .. math:: \sigma_i = \sigma_\mathrm{max} (\sigma_\mathrm{min} / \sigma_\mathrm{max})^{i / (n - 1)}

    Being free of scale, they suit posteriors whose width is not known beforehand (the limit
    :math:`\rho \to \infty` of Karras et al. 2022, equation 5).

    Parameters
    ----------
    n : int
        The number of levels above zero. A single one is ``sigma_max``.

    sigma_min, sigma_max : float, optional
        The lowest and the highest level.

    dtype : torch.dtype, optional
        The dtype of the result.

    Returns
    -------
    levels : Tensor, shape (n + 1,)
        The levels, from ``sigma_max`` to ``sigma_min`` and zero.

    Raises
    ------
    ValueError
        If ``n`` is less than 1 or not 0 < ``sigma_min`` <= ``sigma_max``.
    """
    _check_steps(n)
    if not 0 < sigma_min <= sigma_max:
        msg = f"sigma_min and sigma_max must satisfy 0 < sigma_min <= sigma_max, not {sigma_min}, {sigma_max}"
        raise ValueError(msg)
    levels = torch.linspace(math.log(sigma_max), math.log(sigma_min), n, dtype=torch.float64).exp()
    return torch.cat([levels, levels.new_zeros(1)]).to(dtype)


def linear_levels(
    n: int, beta_min: float = 1e-4, beta_max: float = 0.02, dtype: torch.dtype = torch.float64
) -> Tensor:
    r"""
    Noise levels of the original DDPM, whose variances grow linearly.

    .. math:: \beta_t = \beta_\mathrm{min} + \frac{t - 1}{n - 1} (\beta_\mathrm{max} - \beta_\mathrm{min})

    .. math:: \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \qquad
              \sigma_t^2 = \frac{1 - \bar\alpha_t}{\bar\alpha_t}

    (Ho, Jain & Abbeel 2020, *Denoising Diffusion Probabilistic Models*, section 4.)

    Parameters
    ----------
    n, dtype : int, torch.dtype
        As for `log_uniform_levels`. The default range of betas was chosen for 1000 levels.

    beta_min, beta_max : float, optional
        The first and last variance of a step, 0 < ``beta_min`` <= ``beta_max`` < 1, or else ValueError.

    Returns
    -------
    levels : Tensor, shape (n + 1,)
        The levels from high to low, and zero.
    """
    _check_steps(n)
    if not 0 < beta_min <= beta_max < 1:
        msg = f"beta_min and beta_max must satisfy 0 < beta_min <= beta_max < 1, not {beta_min}, {beta_max}"
        raise ValueError(msg)
    betas = torch.linspace(beta_min, beta_max, n, dtype=torch.float64)
    return _levels_from_alpha_bar(torch.cumprod(1 - betas, 0)).to(dtype)


def cosine_levels(
    n: int, offset: float = 0.008, beta_max: float = 0.999, dtype: torch.dtype = torch.float64
) -> Tensor:
    r"""
    Noise levels of the cosine schedule.

    .. math:: f(t) = \cos^2\left(\frac{t / n + s}{1 + s} \frac{\pi}{2}\right)

    .. math:: \beta_t = \min\left(1 - \frac{f(t)}{f(t - 1)}, \beta_\mathrm{max}\right), \qquad
              \bar\alpha_t = \prod_{u \le t} (1 - \beta_u)

    (Nichol & Dhariwal 2021, *Improved Denoising Diffusion Probabilistic Models*, equation 17.)

    Parameters
    ----------
    n, dtype : int, torch.dtype
        As for `log_uniform_levels`.

    offset : float, optional
        The offset :math:`s`, which keeps the first steps from being too small.

    beta_max : float, optional
        The largest variance of a step, between 0 and 1, or else ValueError.

    Returns
    -------
    levels : Tensor, shape (n + 1,)
        The levels from high to low, and zero.
    """
    _check_steps(n)
    if not 0 < beta_max < 1:
        msg = f"beta_max must be between 0 and 1, not {beta_max}"
        raise ValueError(msg)
    t = torch.arange(n + 1, dtype=torch.float64) / n
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
    betas = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return _levels_from_alpha_bar(torch.cumprod(1 - betas, 0)).to(dtype)

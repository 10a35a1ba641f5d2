# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
Diffusion in PyTorch only: noise levels, the forward process, the denoiser and samplers.

Everything is written for the variance-exploding form :math:`x_\sigma = x_0 + \sigma \epsilon`. The
variance-preserving form of the DDPM literature, :math:`\sqrt{\bar\alpha} x_0 + \sqrt{1 - \bar\alpha}
\epsilon`, is the same process divided by :math:`\sqrt{\bar\alpha}`, with
:math:`\sigma^2 = (1 - \bar\alpha) / \bar\alpha`.
"""

from .denoiser import Denoiser, add_noise, multiscale_square, stratified_levels
from .fitted import FittedSolver, fit_solver, sample_fitted
from .one_step import OneStepGenerator, fair_crps
from .samplers import sample_ddim, sample_ddpm, sample_dpmpp_2m
from .schedules import cosine_levels, linear_levels, log_uniform_levels

__all__ = [
    "Denoiser",
    "FittedSolver",
    "OneStepGenerator",
    "add_noise",
    "cosine_levels",
    "fair_crps",
    "fit_solver",
    "linear_levels",
    "log_uniform_levels",
    "multiscale_square",
    "sample_ddim",
    "sample_ddpm",
    "sample_dpmpp_2m",
    "sample_fitted",
    "stratified_levels",
]

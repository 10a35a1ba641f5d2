# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The samplers step by step against the schedulers of diffusers, an independent implementation.
"""

import pytest
import torch
from numpy.testing import assert_allclose

from astro_ddpm.diffusion import (
    cosine_levels,
    linear_levels,
    log_uniform_levels,
    sample_ddim,
    sample_ddpm,
    sample_dpmpp_2m,
)

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 1, 5, 6)
SCHEDULES = [("linear", linear_levels), ("squaredcos_cap_v2", cosine_levels)]


def denoise(x, sigma):
    """Mimic a network: not linear, with a memory of neighbours and of the level."""
    blurred = (x + x.roll(1, -1) + x.roll(2, -2)) / (3 + sigma**2)
    return 0.4 + torch.sin(blurred) - 0.3 * torch.tanh(x * blurred) / (1 + sigma)


def unit_noise(generator):
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def start():
    return unit_noise(torch.Generator().manual_seed(0))


def run(sampler, x, levels, **options):
    """Return the state after every step."""
    states = []
    sampler(denoise, x, levels, callback=lambda i, x: states.append(x), **options)
    assert len(states) == len(levels) - 1
    return states


def compare(states, expected):
    assert len(states) == len(expected)
    for state, other in zip(states, expected, strict=True):
        assert_allclose(state, other, rtol=0, atol=1e-5 * max(1, float(other.abs().max())))


def in_double_precision(scheduler):
    """Redo the product that the scheduler computes in float32, where 1 - alpha_bar loses digits."""
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    return scheduler


def karras_levels(n, low, high, rho=7):
    """Karras et al. 2022, equation 5: steps of unequal length also in the logarithm."""
    ramp = torch.linspace(high ** (1 / rho), low ** (1 / rho), n, dtype=torch.float64)
    return torch.cat([ramp**rho, ramp.new_zeros(1)])


@pytest.mark.parametrize("n", [2, 8, 12, 20])
@pytest.mark.parametrize("limits", [(0.02, 20.0), (0.002, 80.0)])
@pytest.mark.parametrize(
    ("name", "schedule"), [("exponential", log_uniform_levels), ("karras", karras_levels)]
)
def test_dpmpp_2m(start, n, limits, name, schedule):
    low, high = limits
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(
        sigma_min=low,
        sigma_max=high,
        sigma_data=1.0,
        sigma_schedule=name,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(n)
    levels = schedule(n, low, high)
    assert_allclose(scheduler.sigmas, levels, rtol=1e-5)
    x, expected = high * start, []
    for t, sigma in zip(scheduler.timesteps, levels, strict=False):
        # the scheduler wants the output of the network before preconditioning
        root = torch.sqrt(sigma**2 + 1)
        output = (denoise(x, sigma) - x / root**2) * root / sigma
        x = scheduler.step(output, t, x).prev_sample
        expected.append(x)
    compare(run(sample_dpmpp_2m, high * start, levels), expected)


@pytest.mark.parametrize(("name", "schedule"), SCHEDULES)
@pytest.mark.parametrize("n", [20, 100])
def test_ddpm(start, name, schedule, n):
    scheduler = in_double_precision(
        diffusers.DDPMScheduler(
            num_train_timesteps=n, beta_schedule=name, clip_sample=False, prediction_type="sample"
        )
    )
    levels = schedule(n)
    scale = 1 / torch.sqrt(1 + levels**2)  # the root of alpha_bar; 1 at the end
    generator = torch.Generator().manual_seed(1)
    x, expected = scale[0] * levels[0] * start, []
    for i, t in enumerate(scheduler.timesteps):
        output = denoise(x / scale[i], levels[i])
        x = scheduler.step(output, t, x, generator=generator).prev_sample
        expected.append(x / scale[i + 1])
    generator = torch.Generator().manual_seed(1)
    states = run(sample_ddpm, levels[0] * start, levels, noise=lambda i: unit_noise(generator))
    compare(states, expected)


@pytest.mark.parametrize(("name", "schedule"), SCHEDULES)
@pytest.mark.parametrize("n", [10, 50, 100])
def test_ddim(start, name, schedule, n):
    total = 100
    scheduler = in_double_precision(
        diffusers.DDIMScheduler(
            num_train_timesteps=total,
            beta_schedule=name,
            clip_sample=False,
            set_alpha_to_one=True,
            prediction_type="sample",
            timestep_spacing="trailing",
        )
    )
    scheduler.set_timesteps(n)
    levels = schedule(total)[:: total // n]  # every (total / n)-th level, from the highest to zero
    scale = 1 / torch.sqrt(1 + levels**2)
    x, expected = scale[0] * levels[0] * start, []
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(denoise(x / scale[i], levels[i]), t, x).prev_sample
        expected.append(x / scale[i + 1])
    compare(run(sample_ddim, levels[0] * start, levels), expected)

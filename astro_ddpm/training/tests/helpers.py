# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated arrays for the tests of training, and what Lightning warns of in vain.
"""

import numpy as np
import pytest

from astro_ddpm.noise import correlated_noise

LIGHTNING_WARNINGS = pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning",  # its own call of torch
    r"ignore::DeprecationWarning:pytorch_lightning\.cli",  # its own call of jsonargparse
    r"ignore:The '\w+' does not have many workers",  # the examples are made in no time
    r"ignore:The number of training batches",  # so few only here
    r"ignore:Found \d+ module\(s\) in eval mode",  # the RAUNet that guides the diffusion
    r"ignore:Experiment logs directory",  # a test may train twice
)


def simulated_arrays(n, size=32, flux=30.0, seed=0):
    """
    Simulate prepared pairs whose truth is known.

    Parameters
    ----------
    n : int
        How many.

    size : int, optional
        The width in pixels.

    flux : float, optional
        The peak of the source in the middle, in units of the sky noise.

    seed : int, optional
        Selects the noise.

    Returns
    -------
    arrays : dict of str to ndarray
        As `astro_ddpm.training.prepare_pairs` writes them, of independent white noises.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    truth = flux * np.exp(-(x**2 + y**2) / 18) * rng.uniform(0.5, 1.5, (n, 1, 1))
    sigma = np.sqrt(1 + 0.05 * truth)
    depth = rng.uniform(0.15, 0.3, n)
    deep_sigma = depth[:, None, None] * sigma
    deep = truth + deep_sigma * rng.standard_normal(truth.shape)
    arrays = {
        "shallow": truth + sigma * rng.standard_normal(truth.shape),
        "sigma": sigma,
        "target": deep,
        "depth": depth,
        "deep": deep,
        "deep_sigma": deep_sigma,
    }
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def deep_arrays(n, size=96, width=0.0, peak=300.0):
    """Simulate what `prepare_deep` writes: a wide source, and noise of known correlation."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    scene = peak * np.exp(-(x**2 + y**2) / 200)
    noise = np.array([correlated_noise((size, size), width, rng) for _ in range(n)])
    scalar = np.ones(n, np.float32)
    return {"deep": (scene + noise).astype("f4"), "sky_sigma": scalar, "noise_width": width * scalar}


def frame_arrays(n, size=64, width=0.0):
    """Simulate what `prepare_cameras` writes of frames: a source, known noise, a bad column."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    scene = 100 * np.exp(-(x**2 + y**2) / 100)
    sigma = np.sqrt(1 + 0.05 * scene)
    data = scene + sigma * np.array([correlated_noise((size, size), width, rng) for _ in range(n)])
    valid = np.ones((n, size, size), bool)
    valid[:, :, 20] = False
    kernel = np.zeros((9, 9))
    y, x = np.mgrid[-4:5, -4:5]
    kernel[:] = np.exp(-0.5 * (x**2 + y**2) / width**2) if width else (x == 0) & (y == 0)
    arrays = {"data": data, "sigma": np.broadcast_to(sigma, data.shape), "kernel": np.tile(kernel, (n, 1, 1))}
    arrays |= {"min_factor": np.full(n, 1.0 if width else 0.3)}
    return {name: values.astype("f4") for name, values in arrays.items()} | {"valid": valid, "use": valid}

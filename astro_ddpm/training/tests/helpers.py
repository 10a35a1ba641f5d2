# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated pairs for the tests of training, and what Lightning warns of in vain.
"""

import numpy as np
import pytest

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

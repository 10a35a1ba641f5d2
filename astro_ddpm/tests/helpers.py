# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A small model and images for tests.
"""

import numpy as np
import torch
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

from astro_ddpm.nn import GuidedUNet, RAUNet
from astro_ddpm.zoo import Model

SIGMA = 2.0


def toy_model(*, samples=True, seed=0):
    """Make a small untrained model whose every weight matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        networks = [RAUNet((4, 8))] + ([GuidedUNet((4, 8), 8)] if samples else [])
        for network in networks:
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    ranges = {"noise_ratio": [0.02, 0.6], "default_noise_ratio": 0.2}
    return Model(*networks, name="toy", sha256="0" * 64, ranges=ranges)


def make_image(shape=(40, 36), seed=0, dtype="f4", amplitude=300, **kwargs):
    """Make a CCDData of a round galaxy with uniform noise, WCS and header."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    scene = amplitude * np.exp(-0.5 * ((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2) / 4**2)
    data = (scene + rng.normal(0, SIGMA, shape)).astype(dtype)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (150.0, 2.0), (18, 20), (-5e-5, 5e-5)
    options = {
        "unit": "adu",
        "wcs": wcs,
        "meta": fits.Header([("OBJECT", "galaxy", "a comment"), ("GAIN", 2.0)]),
        "uncertainty": StdDevUncertainty(np.full(shape, SIGMA, dtype)),
    }
    return CCDData(data, **(options | kwargs))


def galaxies(rng, size=64, n=12):
    """Return smooth sources on an empty sky."""
    image = np.zeros((size, size))
    for _ in range(n):
        y, x = rng.integers(10, size - 10, 2)
        image[y, x] += rng.uniform(200, 2000)
    return gaussian_filter(image, 1.3) + gaussian_filter(image, 3) / 2

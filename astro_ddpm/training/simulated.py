# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated deep images for training, beside those of telescopes.
"""

import operator

import numpy as np

from astro_ddpm.noise import sigma_from_gain
from astro_ddpm.utils import check_output, progress

from .arrays import write_arrays

__all__ = ["prepare_simulated"]


def prepare_simulated(number, output, *, size=100, depth=0.1, seed=0, overwrite=False, progress_bar=False):
    """
    Simulate deep images of galaxies and stars, to be degraded in training like real ones.

    What real galaxies look like these do not know, but how smooth light adds up under noise: the truth in
    them is exact. Each is a field of `~astro_ddpm.datasets.make_galaxy_field` with one to six galaxies, up to
    three stars and sometimes a companion, a PSF of 2 to 6 pixels (full width at half maximum, log-uniform),
    its light multiplied by 0.3 to 20 (log-uniform), and white noise.

    Parameters
    ----------
    number : int
        How many to simulate, positive.

    output : str or path-like
        The ``.npz`` file to write, with the arrays of `prepare_deep`.

    size : int, optional
        The width of the images in pixels, at least 32.

    depth : float, optional
        The noise of the images, in units of the sky noise that the simulator sets the brightness of its
        sources by; positive.

    seed : int, optional
        The seed of sources and noise.

    overwrite : bool, optional
        Whether to replace an existing file.

    progress_bar : bool, optional
        Whether to show a progress bar.

    Raises
    ------
    FileExistsError
        If ``output`` exists and is not to be overwritten.

    TypeError
        If ``number`` is not an integer.

    ValueError
        If ``number`` or ``depth`` is not positive, or ``size`` is less than 32.
    """
    if not (operator.index(number) > 0 and depth > 0):
        msg = f"number and depth must be positive, not {number} and {depth}"
        raise ValueError(msg)
    check_output(output, overwrite)
    deep, sky_sigma = [], []
    with progress(number, show=progress_bar) as advance:
        for rng in np.random.default_rng(seed).spawn(number):
            image, sigma = _simulate(rng, size, depth)
            deep.append(image)
            sky_sigma.append(sigma)
            advance()
    arrays = {"deep": deep, "sky_sigma": sky_sigma, "noise_width": np.zeros(number)}
    arrays = {name: np.array(values, np.float32) for name, values in arrays.items()}
    write_arrays(output, arrays, overwrite=overwrite)


def _simulate(rng, size, depth):
    """Return an image with white noise, and that noise."""
    from astro_ddpm.datasets import make_galaxy_field

    n_galaxies = int(rng.integers(1, 7))
    field = make_galaxy_field(
        (size, size),
        seed=int(rng.integers(2**32, 2**62)),
        n_galaxies=n_galaxies,
        n_stars=int(rng.integers(4)),
        n_companions=int(rng.random() < 0.3),
        psf_fwhm=float(np.exp(rng.uniform(np.log(2), np.log(6)))),
        bad_columns=0,
    )
    sky_noise = sigma_from_gain(np.zeros((1, 1)), field.gain, field.read_noise, field.sky_level).item()
    light = np.exp(rng.uniform(np.log(0.3), np.log(20)))
    sigma = depth * sky_noise
    return light * field.truth + sigma * rng.standard_normal(field.truth.shape), sigma

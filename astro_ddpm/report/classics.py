# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Classical denoisers to compare with.

Each takes an image of shape ``(ny, nx)`` and the noise of its sky, and returns the denoised image. The
strengths are those with the least error on the training pairs of the released models.
"""

import numpy as np

from astro_ddpm.selfcheck import starlet_planes

__all__ = ["CLASSICS", "bm3d", "gaussian", "non_local_means", "starlet", "total_variation", "wavelet"]


def gaussian(data, sigma):
    """Convolve with a Gaussian of 0.7 pixels; ``sigma`` is not used."""
    from scipy.ndimage import gaussian_filter

    del sigma
    return gaussian_filter(data, 0.7)


def starlet(data, sigma, *, threshold=3.0, n_scales=4):
    r"""
    Keep the starlet coefficients above ``threshold`` times their own noise.

    The starlet transform (isotropic undecimated wavelet of the B3 spline; Starck, Fadili & Murtagh 2007,
    `~astro_ddpm.selfcheck.starlet_planes`) writes an image as a sum of ``n_scales`` details :math:`w_j` and a
    coarse image.
    """
    noise = np.random.default_rng(0).standard_normal((256, 256))
    data = np.asarray(data, float)
    details = starlet_planes(data, n_scales)
    limits = threshold * sigma * starlet_planes(noise, n_scales).std(axis=(1, 2), keepdims=True)
    return data - np.where(np.abs(details) > limits, 0, details).sum(axis=0)


def non_local_means(data, sigma):
    """Average pixels with similar surroundings (Buades, Coll & Morel 2005), by scikit-image."""
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(data, patch_size=5, patch_distance=11, h=0.9 * sigma, sigma=sigma, fast_mode=True)


def total_variation(data, sigma):
    """Minimise total variation and distance to the image (Chambolle 2004), by scikit-image."""
    from skimage.restoration import denoise_tv_chambolle

    return sigma * denoise_tv_chambolle(data / sigma, weight=2.0)


def wavelet(data, sigma):
    """Threshold the coefficients of orthogonal wavelets (Donoho & Johnstone 1994), by scikit-image."""
    from skimage.restoration import denoise_wavelet

    options = {"method": "VisuShrink", "wavelet": "sym4", "mode": "hard", "rescale_sigma": False}
    return denoise_wavelet(data, sigma=sigma, **options)


def bm3d(data, sigma):
    """
    Filter groups of similar blocks together (Dabov et al. 2007), by the package ``bm3d``.

    The licence of that package allows non-commercial use only, so no extra installs it.
    """
    from bm3d import bm3d as filter_blocks

    return filter_blocks(data, sigma_psd=sigma)


REQUIREMENTS = {"nlm": "skimage", "tv": "skimage", "wavelet": "pywt", "bm3d": "bm3d"}
CLASSICS = {"gaussian": gaussian, "starlet": starlet, "nlm": non_local_means, "tv": total_variation}
CLASSICS |= {"wavelet": wavelet, "bm3d": bm3d}

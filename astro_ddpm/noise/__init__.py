# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
The noise of an image: per-pixel standard deviation, sky level, correlation, holes, whitening.

Everything in this package happens in units of the noise. For an image :math:`y` with noise
:math:`\sigma` the networks see :math:`z = y / \sigma` and predict :math:`r = (x - y) / \sigma`, the
whitened distance to the deep image :math:`x`.
"""

from .background import find_sources, measure_sky
from .correlation import (
    convolve_periodic,
    correlated_noise,
    correlation_kernel,
    embed_kernel,
    gaussian_kernel,
    neighbour_correlation,
    noise_kernel,
)
from .frame import fill_frame, find_self_noise, frame_sigma, frame_sky
from .holes import constant_areas, fill_holes, lacks_information
from .layout import detect_mosaic, find_edges
from .level import LEVEL_BLOCK, LEVEL_RADIUS, remaining_sky
from .matching import BORDER, MatchedPair, PSFMatch, homogenize_psf, match_pair
from .pixels import (
    detect_scatter,
    detect_self_noise,
    photon_noise,
    sigma_from_gain,
    sigma_from_uncertainty,
    smooth_sigma,
)
from .sky import detect_pedestal, estimate_sky_level, estimate_sky_sigma, measure_banding
from .whitening import largest_value, unwhiten, whiten

__all__ = [
    "BORDER",
    "LEVEL_BLOCK",
    "LEVEL_RADIUS",
    "MatchedPair",
    "PSFMatch",
    "constant_areas",
    "convolve_periodic",
    "correlated_noise",
    "correlation_kernel",
    "detect_mosaic",
    "detect_pedestal",
    "detect_scatter",
    "detect_self_noise",
    "embed_kernel",
    "estimate_sky_level",
    "estimate_sky_sigma",
    "fill_frame",
    "fill_holes",
    "find_edges",
    "find_self_noise",
    "find_sources",
    "frame_sigma",
    "frame_sky",
    "gaussian_kernel",
    "homogenize_psf",
    "lacks_information",
    "largest_value",
    "match_pair",
    "measure_banding",
    "measure_sky",
    "neighbour_correlation",
    "noise_kernel",
    "photon_noise",
    "remaining_sky",
    "sigma_from_gain",
    "sigma_from_uncertainty",
    "smooth_sigma",
    "unwhiten",
    "whiten",
]

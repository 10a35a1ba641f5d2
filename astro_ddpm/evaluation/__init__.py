# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure and show what an enhanced image is worth.
"""

from .photometry import aperture_photometry
from .plots import plot_comparison

__all__ = ["aperture_photometry", "plot_comparison"]

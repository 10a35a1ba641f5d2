# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated images with known truth, for examples and tests.
"""

from .detector import Detector
from .simulate import GalaxyField, make_galaxy_field

__all__ = ["Detector", "GalaxyField", "make_galaxy_field"]

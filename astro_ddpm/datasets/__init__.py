# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated images with known truth, for examples and tests.
"""

from .simulate import GalaxyField, make_galaxy_field

__all__ = ["GalaxyField", "make_galaxy_field"]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images as astropy knows them: any input parsed, any result packed.
"""

from .enhanced import EnhancedCCDData, image_wcs
from .exposure import Exposure
from .files import create_samples, find_image, is_complete, read_image
from .units import parse_unit, plain_values, std_in_unit, std_unit

__all__ = [
    "EnhancedCCDData",
    "Exposure",
    "create_samples",
    "find_image",
    "image_wcs",
    "is_complete",
    "parse_unit",
    "plain_values",
    "read_image",
    "std_in_unit",
    "std_unit",
]

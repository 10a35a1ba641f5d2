# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images as astropy knows them: any input parsed, any result packed.
"""

from .enhanced import EnhancedCCDData, image_wcs, squeeze_image
from .exposure import Exposure
from .extensions import find_image, find_plane, split_extension
from .files import create_samples, is_complete, read_check, read_image
from .units import parse_unit, plain_values, std_in_unit, std_unit

__all__ = [
    "EnhancedCCDData",
    "Exposure",
    "create_samples",
    "find_image",
    "find_plane",
    "image_wcs",
    "is_complete",
    "parse_unit",
    "plain_values",
    "read_check",
    "read_image",
    "split_extension",
    "squeeze_image",
    "std_in_unit",
    "std_unit",
]

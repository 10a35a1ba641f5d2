# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement as a step of a reduction pipeline: of files, and of what ccdproc makes.
"""

from .collection import enhance_collection
from .files import enhance_file
from .reduction import enhance_ccd

__all__ = ["enhance_ccd", "enhance_collection", "enhance_file"]

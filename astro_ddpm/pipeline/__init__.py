# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Enhancement as a step of a reduction pipeline: of files, and of what ccdproc makes.
"""

from .blocks import enhance_blocks
from .collection import enhance_collection
from .files import enhance_file
from .reduction import enhance_ccd

__all__ = ["enhance_blocks", "enhance_ccd", "enhance_collection", "enhance_file"]

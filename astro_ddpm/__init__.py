# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Turn low signal-to-noise galaxy images into what a much deeper exposure would have shown.

The public names are `enhance` and `EnhancedCCDData`; everything else is imported from the subpackage
it belongs to. PyTorch is imported when the first image is enhanced, Lightning only to train.
"""

from .enhance import enhance
from .nddata import EnhancedCCDData

try:
    from .version import version as __version__
except ImportError:
    __version__ = ""

__all__ = ["EnhancedCCDData", "enhance"]

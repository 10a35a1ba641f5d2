# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Turn low signal-to-noise galaxy images into what a much deeper exposure would have shown.

The public names are `enhance`, `EnhancedCCDData`, `OutOfDomainWarning` and the settings ``conf``; everything
else is imported from the subpackage it belongs to. PyTorch is imported when the first image is enhanced, and
Lightning only to train.
"""

from .core import enhance
from .utils import lazy_names

try:
    from .version import version as __version__
except ImportError:
    __version__ = ""

__all__ = ["EnhancedCCDData", "OutOfDomainWarning", "conf", "enhance"]

_HOME = {"EnhancedCCDData": ".nddata", "OutOfDomainWarning": ".domain", "conf": ".configuration"}

__getattr__ = lazy_names(__name__, _HOME)[0]


def __dir__():
    return sorted([*globals(), *__all__])

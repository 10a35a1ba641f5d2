# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Turn low signal-to-noise galaxy images into what a much deeper exposure would have shown.

The public names are `enhance`, `EnhancedCCDData` and `OutOfDomainWarning`; everything else is imported from
the subpackage it belongs to. PyTorch is imported when the first image is enhanced, Lightning only to train,
and astropy when there is an image.
"""

from .enhance import enhance

try:
    from .version import version as __version__
except ImportError:
    __version__ = ""

__all__ = ["EnhancedCCDData", "OutOfDomainWarning", "enhance"]


def __getattr__(name):
    if name == "EnhancedCCDData":
        from .nddata import EnhancedCCDData

        return EnhancedCCDData
    if name == "OutOfDomainWarning":
        from .domain import OutOfDomainWarning

        return OutOfDomainWarning
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return sorted([*globals(), *__all__])

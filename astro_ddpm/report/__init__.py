# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A report on models, from images whose deep counterpart is known: tables, figures and one page.
"""

from astro_ddpm.utils import lazy_getattr

_HOME = {
    "Pair": ".pairs",
    "degrade_images": ".pairs",
    "evaluate": ".run",
    "read_pairs": ".pairs",
}

__all__ = ["Pair", "degrade_images", "evaluate", "read_pairs"]


__getattr__ = lazy_getattr(__name__, _HOME)


def __dir__():
    return sorted(__all__)

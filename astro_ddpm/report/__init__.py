# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A report on models, from images whose deep counterpart is known: tables, figures and one page.
"""

from astro_ddpm.utils import lazy_getattr, names_of

_HOME = names_of({".pairs": "Pair degrade_images read_pairs", ".run": "evaluate"})

__all__ = list(_HOME)

__getattr__ = lazy_getattr(__name__, _HOME)


def __dir__():
    return sorted(__all__)

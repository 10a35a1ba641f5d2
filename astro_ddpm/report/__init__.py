# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A report on models, from images whose deep counterpart is known: tables, figures and one page.
"""

from astro_ddpm.utils import lazy_names, names_of

_HOME = names_of({".pairs": "Pair degrade_images read_pairs", ".run": "evaluate"})

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)

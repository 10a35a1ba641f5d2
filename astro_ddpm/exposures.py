# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The old name of `astro_ddpm.listing`.
"""

import warnings


def __getattr__(name):
    from astropy.utils.exceptions import AstropyDeprecationWarning

    from . import listing

    if name in listing.__all__:
        msg = f"astro_ddpm.exposures is deprecated, use astro_ddpm.listing.{name}"
        warnings.warn(msg, AstropyDeprecationWarning, stacklevel=2)
        return getattr(listing, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

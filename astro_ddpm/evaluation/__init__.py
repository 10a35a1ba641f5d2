# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure and show what an enhanced image is worth.

The statistics of samples need NumPy and SciPy only; astropy and photutils are imported when photometry,
tables or plots are first asked for.
"""

from astro_ddpm.utils import lazy_getattr

_HOME = {
    "Pair": ".pairs",
    "aperture_photometry": ".photometry",
    "calibration_table": ".calibration",
    "coverage": ".calibration",
    "crps": ".calibration",
    "degrade_images": ".pairs",
    "evaluate": ".report",
    "plot_comparison": ".plots",
    "rank_histogram": ".calibration",
    "read_pairs": ".pairs",
    "recovered_photometry": ".sources",
    "spread_skill": ".calibration",
}

__all__ = [
    "Pair",
    "aperture_photometry",
    "calibration_table",
    "coverage",
    "crps",
    "degrade_images",
    "evaluate",
    "plot_comparison",
    "rank_histogram",
    "read_pairs",
    "recovered_photometry",
    "spread_skill",
]


__getattr__ = lazy_getattr(__name__, _HOME)


def __dir__():
    return sorted(__all__)

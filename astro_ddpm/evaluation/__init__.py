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
    "binomial_band": ".calibration",
    "calibration_table": ".calibration",
    "calibration_tests": ".honesty",
    "coverage": ".calibration",
    "crps": ".calibration",
    "degrade_images": ".pairs",
    "energy_score": ".multivariate",
    "evaluate": ".report",
    "image_metrics": ".images",
    "plot_comparison": ".plots",
    "power_ratio": ".images",
    "power_spectrum": ".images",
    "rank_histogram": ".calibration",
    "read_pairs": ".pairs",
    "recovered_photometry": ".sources",
    "spread_skill": ".calibration",
    "tarp": ".multivariate",
}

__all__ = [
    "Pair",
    "aperture_photometry",
    "binomial_band",
    "calibration_table",
    "calibration_tests",
    "coverage",
    "crps",
    "degrade_images",
    "energy_score",
    "evaluate",
    "image_metrics",
    "plot_comparison",
    "power_ratio",
    "power_spectrum",
    "rank_histogram",
    "read_pairs",
    "recovered_photometry",
    "spread_skill",
    "tarp",
]


__getattr__ = lazy_getattr(__name__, _HOME)


def __dir__():
    return sorted(__all__)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure and show what an enhanced image is worth.

The statistics of samples need NumPy and SciPy only; astropy and photutils are imported when photometry,
tables or plots are first asked for.
"""

from astro_ddpm.utils import lazy_getattr

_HOME = {
    "DetectionCurve": ".detection",
    "Pair": ".pairs",
    "aperture_photometry": ".photometry",
    "binomial_band": ".calibration",
    "calibration_table": ".calibration",
    "calibration_tests": ".honesty",
    "coverage": ".calibration",
    "crps": ".calibration",
    "degrade_images": ".pairs",
    "detection_curve": ".detection",
    "energy_score": ".multivariate",
    "evaluate": ".report",
    "image_metrics": ".images",
    "noise_image": ".detection",
    "plot_comparison": ".plots",
    "power_ratio": ".images",
    "power_spectrum": ".images",
    "rank_histogram": ".calibration",
    "read_pairs": ".pairs",
    "recovered_photometry": ".sources",
    "reliability_diagram": ".detection",
    "spread_skill": ".calibration",
    "tarp": ".multivariate",
}

__all__ = [
    "DetectionCurve",
    "Pair",
    "aperture_photometry",
    "binomial_band",
    "calibration_table",
    "calibration_tests",
    "coverage",
    "crps",
    "degrade_images",
    "detection_curve",
    "energy_score",
    "evaluate",
    "image_metrics",
    "noise_image",
    "plot_comparison",
    "power_ratio",
    "power_spectrum",
    "rank_histogram",
    "read_pairs",
    "recovered_photometry",
    "reliability_diagram",
    "spread_skill",
    "tarp",
]


__getattr__ = lazy_getattr(__name__, _HOME)


def __dir__():
    return sorted(__all__)

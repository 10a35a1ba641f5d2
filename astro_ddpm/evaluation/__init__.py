# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure and show what an enhanced image is worth.

The statistics of samples need NumPy and SciPy only; astropy and photutils are imported when photometry,
tables or plots are first asked for.
"""

from astro_ddpm.utils import lazy_getattr

_HOME = {
    "DetectionCurve": ".detection",
    "aperture_photometry": ".photometry",
    "calibration_table": ".calibration",
    "coverage": ".calibration",
    "crps": ".calibration",
    "detection_curve": ".detection",
    "noise_image": ".detection",
    "plot_comparison": ".plots",
    "rank_histogram": ".calibration",
    "reliability_diagram": ".detection",
    "spread_skill": ".calibration",
}

__all__ = [
    "DetectionCurve",
    "aperture_photometry",
    "calibration_table",
    "coverage",
    "crps",
    "detection_curve",
    "noise_image",
    "plot_comparison",
    "rank_histogram",
    "reliability_diagram",
    "spread_skill",
]


__getattr__ = lazy_getattr(__name__, _HOME)


def __dir__():
    return sorted(__all__)

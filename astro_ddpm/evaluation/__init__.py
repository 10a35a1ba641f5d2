# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Photometry, detection, calibration, metrics and plots of enhanced images.

The statistics of samples need NumPy and SciPy, and scoringrules for the CRPS; photutils is imported when
photometry or detection is first asked for. The report on a model is in ``astro_ddpm.report``.
"""

from astro_ddpm.utils import lazy_getattr

_REPORT = "astro_ddpm.report"
_HOME = {
    "DetectionCurve": ".detection",
    "Pair": f"{_REPORT}.pairs",
    "aperture_photometry": ".photometry",
    "calibration_table": ".calibration",
    "calibration_tests": ".honesty",
    "coverage": ".calibration",
    "crps": ".calibration",
    "degrade_images": f"{_REPORT}.pairs",
    "detection_curve": ".detection",
    "detection_threshold": ".detection",
    "energy_score": ".calibration",
    "evaluate": f"{_REPORT}.run",
    "image_metrics": ".images",
    "noise_image": ".detection",
    "plot_comparison": ".plots",
    "power_ratio": ".images",
    "power_spectrum": ".images",
    "rank_histogram": ".calibration",
    "read_pairs": f"{_REPORT}.pairs",
    "recovered_photometry": ".sources",
    "reliability_diagram": ".detection",
    "spread_skill": ".calibration",
    "tarp": ".honesty",
}

__all__ = [
    "DetectionCurve",
    "Pair",
    "aperture_photometry",
    "calibration_table",
    "calibration_tests",
    "coverage",
    "crps",
    "degrade_images",
    "detection_curve",
    "detection_threshold",
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

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Photometry, detection, calibration, metrics and plots of enhanced images.

The statistics of samples need NumPy and SciPy, and scoringrules for the CRPS; photutils is imported when
photometry or detection is first asked for. The report on a model is in ``astro_ddpm.report``.
"""

from astro_ddpm.utils import lazy_names, names_of

_HOME = names_of(
    {
        ".calibration": "calibration_table coverage crps energy_score rank_histogram spread_skill",
        ".detection": "DetectionCurve detection_curve detection_threshold noise_image reliability_diagram",
        ".honesty": "calibration_tests tarp",
        ".images": "image_metrics power_ratio power_spectrum",
        ".photometry": "aperture_photometry",
        ".plots": "plot_comparison",
        ".sources": "recovered_photometry",
        "astro_ddpm.report.pairs": "Pair degrade_images read_pairs",
        "astro_ddpm.report.run": "evaluate",
    }
)

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)

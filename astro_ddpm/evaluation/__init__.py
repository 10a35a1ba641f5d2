# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Measure and show what an enhanced image is worth.

The statistics of samples need NumPy and SciPy only; astropy and photutils are imported when photometry,
tables or plots are first asked for.
"""

from importlib import import_module

_HOME = {
    "aperture_photometry": ".photometry",
    "calibration_table": ".calibration",
    "coverage": ".calibration",
    "crps": ".calibration",
    "plot_comparison": ".plots",
    "rank_histogram": ".calibration",
    "spread_skill": ".calibration",
}

__all__ = [
    "aperture_photometry",
    "calibration_table",
    "coverage",
    "crps",
    "plot_comparison",
    "rank_histogram",
    "spread_skill",
]


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return sorted(__all__)

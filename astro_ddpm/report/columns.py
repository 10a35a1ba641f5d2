# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the tables of the report hold: captions, descriptions of columns, and units.
"""

import astropy.units as u

import astro_ddpm

from .tables import STRUCTURE

__all__ = ["add_captions", "describe"]

_CAPTIONS = {
    "pixels": "Error of the pixels in bins of the brightness of the reference.",
    "calibration": "Calibration of the errors of pixels in bins of the estimated brightness.",
    "coverage": "Fraction of the reference pixels within central intervals.",
    "images": "Metrics of image restoration, of arcsinh(image / noise of the sky).",
    "spectra": "Power spectra beside those of the references.",
    "sources": "Sizes and shapes of the sources of the references.",
    "structure": "Median and scatter of the differences in size and shape from the references.",
    "fluxes": "Fluxes of sources in circular apertures.",
    "flux_summary": "Fluxes in circular apertures, against the references.",
    "honesty": "Tests of the fluxes of the samples against those of the references.",
    "invented": "Sources in the images that the references do not show, and the reverse.",
    "noise": "Sources in an enhanced image of pure noise.",
    "detection_limits": "Magnitude at which 90 % of injected point sources are found at 90 % purity.",
    "detection_curve": "Completeness and purity of the detection of injected point sources.",
    "reliability": "Probability of existence against what came true.",
    "cost": "Time per image.",
}
_COLUMNS = {
    "method": "Method",
    "bin": "Bin of brightness in units of the noise of the sky: sky < 1, lsb 1-5, mid 5-30, hi > 30",
    "pair": "Name of the pair",
    "n": "Number of cases",
    "rmse": "Root mean square error in units of the noise of the input",
    "excess": "rmse without the noise of the reference",
    "bias": "Mean error, or median error of fluxes, in units of the noise of the input",
    "bias_err": "Error of bias",
    "std_over_rmse": "Stated error over actual error",
    "crps": "Mean continuous ranked probability score in units of the noise of the input",
    "coverage_68": "Fraction within the 68 % interval",
    "coverage_68_err": "Binomial error of coverage_68",
    "coverage_95": "Fraction within the 95 % interval",
    "coverage_95_err": "Binomial error of coverage_95",
    "spread_skill": "Spread over error, 1 for calibrated errors",
    "ranks": "Rank histogram",
    "level": "Probability of the interval",
    "covered": "Fraction within the interval",
    "radius": "Radius of the aperture",
    "scatter": "Robust scatter of the difference in units of the noise of the flux in the input",
    "scatter_ratio": "Scatter over that of the input",
    "pull": "Difference over its error; its robust width in summaries",
    "pull_err": "Error of the width",
    "seconds": "Median time per image",
    "pixel_rate": "Median number of pixels per time",
    "x": "Column of the center; pixel centers are integers, from 0",
    "y": "Row of the center; pixel centers are integers, from 0",
    "magnitude": "Magnitude in the reference",
    "snr": "Signal-to-noise ratio of the flux in the reference by the noise of the input",
    "sources": "Number of sources in the image",
    "invented": "Sources of the image that the reference does not show",
    "references": "Number of sources in the reference",
    "missed": "Sources of the reference that the image does not show",
    "rate": "Density of the sources",
    "rate_low": "Lower limit of its 95 % interval",
    "rate_high": "Upper limit of its 95 % interval",
    "ratio": "Median ratio of the power to that of the reference",
    "correlation": "Median correlation with the reference",
    "psnr": "Peak signal-to-noise ratio in decibel",
    "ssim": "Structural similarity",
    "mae": "Mean absolute error",
    "mse": "Mean square error",
    "spectral_mse": "Mean square difference of the logarithms of the power spectra",
    "n_pixels": "Number of pixels compared",
}
_COLUMNS |= {
    f"{name}_{kind}": f"{text} of the difference of {name.replace('_', ' ')} from the reference"
    for name in STRUCTURE
    for kind, text in (("bias", "Median"), ("scatter", "Robust scatter"))
}
_UNITS = {"magnitude": u.mag, "seconds": u.s, "pixel_rate": u.pix / u.s}
_UNITS |= dict.fromkeys(("x", "y", "radius", "half_light_radius_bias", "half_light_radius_scatter"), u.pix)
_UNITS |= dict.fromkeys(("rate", "rate_low", "rate_high"), u.Unit("1e-6 / pix"))


def add_captions(tables):
    """Add captions to tables, a dict by name, in place; what follows the kind in a name is the model."""
    for key, table in tables.items():
        kind = next(kind for kind in _CAPTIONS if key.startswith(kind))
        model = key.removeprefix(kind).removeprefix("_")
        table.meta["caption"] = f"{_CAPTIONS[kind]} {model and f'({model})'}".strip()


def describe(tables, models, options):
    """Add units, descriptions, versions, hashes of the models and options to tables, in place."""
    shas = {model.name: model.sha256 for model in models}
    for table in tables.values():
        table.meta |= {"version": astro_ddpm.__version__, "models": shas, "options": options}
        for name in table.colnames:
            if name in _UNITS and table[name].unit is None:
                table[name] = table[name] * _UNITS[name]
            table[name].info.description = table[name].info.description or _COLUMNS.get(name)

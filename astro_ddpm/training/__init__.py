# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training: pairs at one PSF, degradations, data and Lightning modules.

Two steps stand apart. Preparing pairs reads FITS files and needs astropy; fitting needs NumPy, PyTorch
and Lightning only, and imports them when it is first asked for.
"""

from importlib import import_module

from .degrade import (
    add_exposure_noise,
    correlated_noise,
    dihedral,
    random_holes,
    split_exposure,
)
from .pairs import PSFMatch, homogenize_psf, prepare_pairs, read_listing

_HOME = {
    "DDPMModule": ".modules",
    "PairDataModule": ".data",
    "PairDataset": ".data",
    "PowerEMA": ".ema",
    "RAUNetModule": ".modules",
    "TrainingModule": ".modules",
    "train": ".run",
}

__all__ = [
    "DDPMModule",
    "PSFMatch",
    "PairDataModule",
    "PairDataset",
    "PowerEMA",
    "RAUNetModule",
    "TrainingModule",
    "add_exposure_noise",
    "correlated_noise",
    "dihedral",
    "homogenize_psf",
    "prepare_pairs",
    "random_holes",
    "read_listing",
    "split_exposure",
    "train",
]


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return sorted(__all__)

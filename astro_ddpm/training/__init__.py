# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training: pairs at one PSF, degradations, data and Lightning modules.

Two steps stand apart. Preparing pairs reads FITS files and needs astropy; fitting needs NumPy, PyTorch
and Lightning only, and imports them when it is first asked for.
"""

from astro_ddpm.exposures import read_listing
from astro_ddpm.noise import PSFMatch, homogenize_psf
from astro_ddpm.utils import lazy_getattr

from .arrays import open_arrays
from .cameras import (
    PSF,
    add_exposure_noise,
    block_sum,
    broaden_psf,
    correlated_noise,
    dihedral,
    expose,
    gaussian_kernel,
    moffat_kernel,
    noise_gain,
    random_crop,
    random_holes,
    random_noise_kernel,
    random_psf,
    resampling_kernel,
    sky_error,
    split_exposure,
)
from .manifest import ManifestEntry, prepare_cameras, read_manifest
from .pairs import cut_stamps, prepare_deep, prepare_pairs, split_by_group
from .ranges import measure_ranges
from .scenes import Scene, SceneDataset, draw_scene

_HOME = {
    "CRPSModule": ".modules",
    "DDPMModule": ".modules",
    "DeepDataset": ".data",
    "EMASnapshots": ".ema",
    "FrameDataset": ".data",
    "EnsembleValidation": ".callbacks",
    "PairDataModule": ".data",
    "PairDataset": ".data",
    "PowerEMA": ".ema",
    "RAUNetModule": ".modules",
    "residual_gap": ".checks",
    "TrainingModule": ".modules",
    "average_snapshots": ".ema",
    "choose_average": ".checks",
    "train": ".run",
}

__all__ = [
    "PSF",
    "CRPSModule",
    "DDPMModule",
    "DeepDataset",
    "EMASnapshots",
    "EnsembleValidation",
    "ManifestEntry",
    "PSFMatch",
    "PairDataModule",
    "PairDataset",
    "PowerEMA",
    "RAUNetModule",
    "Scene",
    "SceneDataset",
    "TrainingModule",
    "add_exposure_noise",
    "average_snapshots",
    "block_sum",
    "broaden_psf",
    "choose_average",
    "correlated_noise",
    "cut_stamps",
    "dihedral",
    "draw_scene",
    "expose",
    "gaussian_kernel",
    "homogenize_psf",
    "measure_ranges",
    "moffat_kernel",
    "noise_gain",
    "open_arrays",
    "prepare_cameras",
    "prepare_deep",
    "prepare_pairs",
    "random_crop",
    "random_holes",
    "random_noise_kernel",
    "random_psf",
    "read_listing",
    "read_manifest",
    "resampling_kernel",
    "residual_gap",
    "sky_error",
    "split_by_group",
    "split_exposure",
    "train",
]


__getattr__ = lazy_getattr(__name__, _HOME, extra="train")


def __dir__():
    return sorted(__all__)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Training: pairs at one PSF, degradations, data and Lightning modules.

Two steps stand apart. Preparing pairs reads FITS files and needs astropy; fitting needs NumPy, PyTorch
and Lightning only, and imports them when it is first asked for. To adapt a model to a camera needs no
Lightning.
"""

from astro_ddpm.utils import lazy_names, names_of

_HOME = names_of(
    {
        "astro_ddpm.listing": "read_listing",
        "astro_ddpm.noise": "PSFMatch homogenize_psf",
        ".adaptation": "Adaptation adapt adapt_cameras",
        ".arrays": "open_arrays",
        ".callbacks": "EnsembleValidation",
        ".cameras": "PSF add_exposure_noise block_sum broaden_psf correlated_noise dihedral expose "
        "gaussian_kernel moffat_kernel noise_gain random_crop random_holes random_noise_kernel random_psf "
        "resampling_kernel sky_error split_exposure",
        ".checks": "choose_average residual_gap",
        ".data": "DeepDataset FrameDataset PairDataModule PairDataset",
        ".ema": "EMASnapshots PowerEMA average_snapshots",
        ".manifest": "ManifestEntry prepare_cameras read_manifest",
        ".modules": "CRPSModule DDPMModule RAUNetModule TrainingModule",
        ".muon": "Muon",
        ".pairs": "cut_stamps prepare_deep prepare_pairs split_by_group",
        ".ranges": "measure_ranges measure_stamps",
        ".run": "train",
        ".scenes": "Scene SceneDataset draw_scene",
    }
)

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME, extra="train")

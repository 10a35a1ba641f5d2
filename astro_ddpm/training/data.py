# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Data for training: prepared exposures, degraded anew at every visit.
"""

import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from astropy.utils.exceptions import AstropyDeprecationWarning
from torch.utils.data import DataLoader, Dataset

from astro_ddpm.noise import photon_noise
from astro_ddpm.utils import require

from .arrays import open_arrays
from .cameras import (
    add_exposure_noise,
    block_sum,
    broaden_psf,
    correlated_noise,
    gaussian_kernel,
    log_uniform,
    moffat_kernel,
    noise_gain,
    random_crop,
    random_noise_kernel,
    split_exposure,
)
from .examples import ExampleDataset, marks, whitened
from .scenes import SceneDataset

__all__ = ["DeepDataset", "FrameDataset", "PairDataModule", "PairDataset"]


class _PreparedDataset(ExampleDataset):
    """Examples made from prepared arrays, whose first axis counts the images, each seen ``repeat`` times."""

    def __init__(self, arrays, repeat, *args, **options):
        super().__init__(*args, **options)
        self.arrays, self.repeat = dict(arrays), repeat

    def __len__(self):
        return self.repeat * len(next(iter(self.arrays.values())))

    def _row(self, index):
        return {key: values[index % len(values)] for key, values in self.arrays.items()}


class PairDataset(_PreparedDataset):
    """
    Examples made from pairs of a shallow and a deep exposure.

    Each visit draws one of three kinds of example: the pair as it is, the pair with more noise in the
    shallow image, or the deep image split into a noisy input and an independent target.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_pairs` wrote.

    seed, epoch, stream : int, optional
        Select the draws; ``stream`` tells data sets apart that are seen beside each other.

    repeat : int, optional
        How often each pair is visited per epoch.

    size : int, optional
        The width of random crops; by default the whole images.

    augment : bool, optional
        False for the pairs as they are, for validation.

    kinds : tuple of float, optional
        The probabilities of the three kinds. Arrays without ``deep``, as those of ordinary exposures, have
        the first two only.

    max_extra_noise : float, optional
        The largest factor of noise added to pairs; log-uniform from 1.

    split_range : tuple of float, optional
        The range of factors by which deep images are made noisier; log-uniform.
    """

    def __init__(
        self,
        arrays,
        *,
        seed=0,
        epoch=0,
        repeat=1,
        size=None,
        augment=True,
        kinds=(0.5, 0.25, 0.25),
        max_extra_noise=10.0,
        split_range=(2.0, 60.0),
        stream=0,
    ):
        super().__init__(arrays, repeat, seed, epoch, size, stream)
        self.augment = augment
        kinds = kinds if "deep" in arrays else kinds[:2]
        self.kinds = np.cumsum(kinds) / np.sum(kinds)
        self.max_extra_noise, self.split_range = max_extra_noise, split_range

    def __getitem__(self, index):
        """Return ``z``, ``valid``, ``residual`` and ``use`` of shape (1, ny, nx) and the scalar ``depth``."""
        if self.augment:
            return super().__getitem__(index)
        row = self._row(index)
        valid, use = marks(row, row["shallow"].shape)
        return whitened(row["shallow"], row["sigma"], row["target"], row["depth"], valid, use)

    def _draw(self, row, rng):
        """Draw an example: image, noise, target and depth."""
        kind = np.searchsorted(self.kinds, rng.random(), side="right")
        shallow, sigma = row["shallow"], row["sigma"]
        valid, use = marks(row, shallow.shape)
        if kind == 0:
            return shallow, sigma, row["target"], row["depth"], valid, use
        kernel = random_noise_kernel(rng) if rng.random() < 0.3 else 0
        if kind == 1:
            factor = log_uniform(rng, 1, self.max_extra_noise)
            noise = correlated_noise(shallow.shape, kernel, rng)
            data, sigma = add_exposure_noise(shallow, sigma, factor, noise)
            return data, sigma, row["target"], row["depth"] / factor, valid, use
        factor = log_uniform(rng, *self.split_range)
        # independent noises need the new noise correlated as the old; beside large factors it hardly matters
        noise = correlated_noise(shallow.shape, kernel if factor > 5 else 0, rng)
        data, sigma, target = split_exposure(row["deep"], row["deep_sigma"], factor, noise)
        return data, sigma, target, 1 / factor, valid, valid


class DeepDataset(_PreparedDataset):
    """
    Examples made from single deep images, as other cameras would have seen them.

    Each visit blurs the image with a Moffat PSF, sums blocks of pixels, and adds the photon noise of a long
    exposure and all the noise of a short one, white or correlated. Then `split_exposure` makes the noises of
    both independent, and their ratio, the depth, is one number.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_deep` wrote.

    seed, epoch, repeat, stream : int, optional
        As for `PairDataset`.

    size : int, optional
        The width of random crops; by default the whole images, without large pixels.

    noise_range : tuple of float, optional
        The noise of the short exposure, in units of the deep image's own at the same pixels; log-uniform.
        Where that is not white and cannot be split, at least 4 in units of what is left of it.

    fwhm_range : tuple of float, optional
        The FWHM of the blur in pixels; log-uniform, and at most an eighth of the image.

    blur_share : float, optional
        The share of images that are blurred; the others keep their PSF.

    sky_range : tuple of float, optional
        The background in electrons per pixel, on which the photon noise of sources depends; log-uniform.

    max_block : int, optional
        The largest width of the blocks in pixels.
    """

    def __init__(
        self,
        arrays,
        *,
        seed=0,
        epoch=0,
        repeat=1,
        size=None,
        noise_range=(2.0, 60.0),
        fwhm_range=(1.5, 10.0),
        blur_share=0.5,
        sky_range=(20.0, 2e4),
        max_block=3,
        stream=1,
    ):
        super().__init__(arrays, repeat, seed, epoch, size, stream)
        self.noise_range, self.fwhm_range, self.blur_share = noise_range, fwhm_range, blur_share
        self.sky_range, self.max_block = sky_range, max_block

    def _draw(self, row, rng):
        """Draw an example: image, noise, target and depth."""
        deep, width = row["deep"], float(row["noise_width"])
        own = gaussian_kernel(width) if width > 0 else np.ones((1, 1))
        block = int(rng.integers(1, self._largest_block(deep.shape) + 1))
        pixel = np.ones((block, block))
        blurred = rng.random() < self.blur_share
        fwhm = min(block * log_uniform(rng, *self.fwhm_range), min(deep.shape) / 8)
        psf = moffat_kernel(fwhm) if blurred else np.ones((1, 1))
        reference = row["sky_sigma"] / noise_gain(own)
        image = block_sum(self._blurred_crop(deep, psf, block, rng), block)
        image_sigma = reference * noise_gain(own, psf, pixel)
        sky_sigma = reference * noise_gain(own, pixel) * log_uniform(rng, *self.noise_range)
        if width > 0 or blurred:
            sky_sigma = max(sky_sigma, 4 * image_sigma)
        # sky_sigma is the root of the electrons of the sky, which gives the electrons of the source
        photons = sky_sigma / np.sqrt(log_uniform(rng, *self.sky_range))
        sigma = photon_noise(image, sky_sigma, photons, smoothing=0)
        factor = np.sqrt((sky_sigma / image_sigma) ** 2 - 1)
        long_sigma = np.float32(sigma / np.sqrt(1 + factor**2))
        missing = np.sqrt(np.maximum(long_sigma**2 - image_sigma**2, 0))
        image = image + np.float32(missing) * rng.standard_normal(image.shape, dtype=np.float32)
        kernel = random_noise_kernel(rng) if rng.random() < 0.3 else 0
        noise = correlated_noise(image.shape, kernel, rng)
        return *split_exposure(image, long_sigma, factor, noise), 1 / factor, *marks({}, image.shape)

    def _blurred_crop(self, deep, psf, block, rng):
        """Return a random crop of the blurred image; what the PSF does not reach is not blurred."""
        half, width = len(psf) // 2, block * (self.size or min(deep.shape) // block)
        corner = [rng.integers(n - width + 1) for n in deep.shape]
        starts = [max(start - half, 0) for start in corner]
        crop = deep[tuple(slice(a, start + width + half) for a, start in zip(starts, corner, strict=True))]
        crop = broaden_psf(crop, psf) if half else crop
        inner = (slice(start - a, start - a + width) for a, start in zip(starts, corner, strict=True))
        return crop[tuple(inner)]

    def _largest_block(self, shape):
        return max(1, min(self.max_block, min(shape) // self.size)) if self.size else 1


class FrameDataset(_PreparedDataset):
    """
    Examples made from ordinary noisy frames, deep or not.

    Each visit splits a frame by `split_exposure` into a noisier input and a target whose noise is independent
    of that: with a factor below 1 the target is much noisier than the input, yet its mean is right. The noise
    that is added is correlated as that of the frame.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_cameras` wrote of ``frames``.

    seed, epoch, repeat, size, stream : int, optional
        As for `PairDataset`.

    split_range : tuple of float, optional
        The range of the factors; log-uniform. Frames whose noise is correlated have a higher lower end, the
        ``min_factor`` of the arrays.
    """

    def __init__(self, arrays, *, seed=0, epoch=0, repeat=1, size=None, split_range=(0.3, 10.0), stream=1):
        super().__init__(arrays, repeat, seed, epoch, size, stream)
        self.split_range = split_range

    def _draw(self, row, rng):
        """Draw an example from a crop of the frame."""
        planes = [row[name] for name in ("data", "sigma", "valid", "use")]
        data, sigma, valid, use = random_crop(planes, self.size or min(planes[0].shape), rng)
        kernel, (low, high) = row["kernel"], self.split_range
        factor = log_uniform(rng, max(low, min(row["min_factor"], high)), high)
        noise = correlated_noise(data.shape, kernel if np.count_nonzero(kernel) > 1 else 0, rng)
        return *split_exposure(data, sigma, factor, noise), 1 / factor, valid, use


def open_dataset(arrays, *, kinds=(0.5, 0.25, 0.25), frame_split=(0.3, 10.0), **options):
    """
    Return the data set that fits the names of prepared arrays.

    ``kinds`` is for a `PairDataset`, ``frame_split`` the ``split_range`` of a `FrameDataset`.
    """
    if "shallow" in arrays:
        return PairDataset(arrays, kinds=kinds, **options)
    if "data" in arrays:
        return FrameDataset(arrays, split_range=frame_split, **options)
    return DeepDataset(arrays, **options)


class _Mixture(Dataset):
    """Examples of several data sets, each by the number of its data set and its own."""

    def __init__(self, datasets):
        self.datasets = datasets

    def __getitem__(self, place):
        number, index = place
        return self.datasets[number][index]


class PairDataModule(pl.LightningDataModule):
    """
    Training data mixed from prepared arrays and scenes, and validation data from prepared pairs.

    Every example follows from the seed, the epoch and its place in it alone: a run that is resumed, and one
    with worker processes, see what any other sees.

    Parameters
    ----------
    train : str or mapping of str to float
        The file written by `prepare_pairs`, `prepare_deep` or `prepare_cameras`, or several and their shares
        of the examples, in units of the sum of the shares.

    validation : str
        The file written by `prepare_pairs`.

    batch_size : int, optional
        The number of crops per step, of the narrowest ones.

    epoch_steps : int, optional
        The number of steps in an epoch, at whose end the run is validated and can be resumed.

    seed : int, optional
        Selects all that is drawn.

    kinds : tuple of float, optional
        The probabilities of the three kinds of `PairDataset`.

    size : int or mapping of int to float, optional
        The width of random crops, or several and their shares of the steps; by default that of the smallest
        images. Steps of wider crops have fewer of them, as many pixels in all, from those images that are
        as wide.

    scene_share : float, optional
        The share of examples made from scenes whose truth is known, `SceneDataset`.

    noisy_scenes : bool, optional
        Whether the targets of scenes have noise, as a diffusion model needs it.

    frame_split : tuple of float, optional
        The ``split_range`` of `FrameDataset`. A diffusion model needs targets that are deeper than inputs.

    folder : str, optional
        The folder that relative paths belong to.

    workers : int, optional
        The number of processes that make examples; by default the training does that itself.

    deep, deep_share : str or list of str, float, optional
        Deprecated: give all files and their shares as ``train``.

    Raises
    ------
    FileNotFoundError
        In `setup`, if there is no such file.

    ValueError
        In `setup`, if a share is out of range, or nothing is as wide as a crop.
    """

    def __init__(
        self,
        train: str | dict[str, float],
        validation: str,
        batch_size: int = 16,
        epoch_steps: int = 250,
        seed: int = 0,
        kinds: tuple[float, ...] = (0.5, 0.25, 0.25),
        size: int | dict[int, float] | None = None,
        scene_share: float = 0.0,
        noisy_scenes: bool = True,
        frame_split: tuple[float, float] = (0.3, 10.0),
        folder: str = ".",
        workers: int = 0,
        deep: str | list[str] | None = None,
        deep_share: float = 0.3,
    ):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage=None):
        """Open the arrays."""
        options = self.hparams
        self.shares = _all_files(options)
        require(self.shares, "train must name at least one file")
        self.arrays = [self._open("train", name) for name in self.shares]
        self.validation = self._open("validation", options.validation)
        width = min(map(_width, self.arrays))
        sizes = options.size if isinstance(options.size, dict) else {options.size or width: 1.0}
        self.sizes = dict(sorted((int(size), share) for size, share in sizes.items()))
        shares = {f"train of {name}": share for name, share in self.shares.items()}
        shares |= {f"size of {size}": share for size, share in self.sizes.items()}
        for name, share in shares.items():
            require(share > 0, f"the share in {name} must be positive, not {share}")
        if not 0 <= options.scene_share < 1:
            msg = f"scene_share must be at least 0 and less than 1, not {options.scene_share}"
            raise ValueError(msg)
        require(min(self.sizes) <= width, f"size {min(self.sizes)} exceeds images of {width} pixels")
        if max(self.sizes) > max(map(_width, self.arrays)) and not options.scene_share:
            msg = f"size {max(self.sizes)} exceeds the images, and there are no scenes"
            raise ValueError(msg)

    def _open(self, name, file):
        path = Path(self.hparams.folder) / file
        require(path.is_file(), f"{name} names {path}, which does not exist", FileNotFoundError)
        return open_arrays(path)

    def _datasets(self, epoch, size, stream):
        """Return the data sets of crops of one size, and their shares; those of scenes come last."""
        options = self.hparams
        draws = {"seed": options.seed, "epoch": epoch, "size": size}
        kinds = {"kinds": options.kinds, "frame_split": options.frame_split}
        repeat = options.epoch_steps * options.batch_size
        data, shares = [], []
        for share, arrays in zip(self.shares.values(), self.arrays, strict=True):
            if _width(arrays) >= size:
                place = stream + len(data)
                data.append(open_dataset(arrays, **kinds, repeat=repeat, stream=place, **draws))
                shares.append(share * (1 - options.scene_share) / sum(self.shares.values()))
        if options.scene_share:
            draws |= {"number": repeat, "noisy_target": options.noisy_scenes, "stream": stream + len(data)}
            data.append(SceneDataset(**draws))
            shares.append(options.scene_share)
        return data, np.divide(shares, sum(shares))

    def _plan(self, epoch, world=1):
        """Return the data sets of an epoch, and for each step the places of its examples, shape (n, 2)."""
        options = self.hparams
        rng = np.random.default_rng([options.seed, epoch])
        sizes, chances = list(self.sizes), np.array(list(self.sizes.values()))
        turns = rng.choice(len(sizes), options.epoch_steps, p=chances / chances.sum())
        data, batches = [], [None] * options.epoch_steps
        for turn, size in enumerate(sizes):
            steps = np.flatnonzero(turns == turn)
            batch = world * max(1, round(options.batch_size * (sizes[0] / size) ** 2 / world))
            sources, shares = self._datasets(epoch, size, len(data))
            kinds = rng.choice(len(sources), (len(steps), batch), p=shares)
            visits = np.empty_like(kinds)
            for kind, source in enumerate(sources):
                visits[kinds == kind] = _visits(source, np.count_nonzero(kinds == kind), rng)
            for step, places in zip(steps, np.stack([kinds + len(data), visits], axis=-1), strict=True):
                batches[step] = places
            data += sources
        return data, batches

    def train_dataloader(self):
        """
        Return the loader of what is left of the current epoch; the trainer must reload it at every epoch.

        Of several processes each gets its share of every batch, and together they see what one would.
        """
        options, trainer, (epoch, rank, world) = self.hparams, self.trainer, (0, 0, 1)
        if trainer:
            epoch, rank, world = trainer.current_epoch, trainer.global_rank, trainer.world_size
        if options.batch_size % world:
            msg = f"batch_size {options.batch_size} must be a multiple of the {world} processes"
            raise ValueError(msg)
        data, batches = self._plan(epoch, world)
        batches = [batch[rank::world].tolist() for batch in batches]
        return DataLoader(_Mixture(data), batch_sampler=batches, num_workers=options.workers)

    def val_dataloader(self):
        """Return the validation pairs as they are."""
        return DataLoader(PairDataset(self.validation, augment=False), self.hparams.batch_size)


def _all_files(options):
    """Return files and shares, those of the deprecated ``deep`` among them."""
    files = {options.train: 1.0} if isinstance(options.train, str) else dict(options.train)
    if options.deep is None:
        return files
    message = "deep and deep_share are deprecated: give all files and their shares as train"
    warnings.warn(message, AstropyDeprecationWarning, stacklevel=2)
    deep = [options.deep] if isinstance(options.deep, str) else options.deep
    rest = (1 - options.scene_share - options.deep_share) / sum(files.values())
    files = {name: rest * share for name, share in files.items()}
    return files | dict.fromkeys(deep, options.deep_share / len(deep))


def _visits(data, number, rng):
    """Return the examples of a data set to be seen, every image as often; scenes are in order, for speed."""
    if isinstance(data, SceneDataset):
        return np.arange(number)
    count = len(data) // data.repeat
    turns = range(-(-number // count))
    return np.concatenate([[], *(turn * count + rng.permutation(count) for turn in turns)])[:number]


def _width(arrays):
    """Return the width of prepared images in pixels."""
    name = next(name for name in ("data", "shallow", "deep") if name in arrays)
    return min(arrays[name].shape[1:])

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Data for training: prepared exposures, degraded anew at every visit.
"""

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from astro_ddpm.noise import photon_noise

from .arrays import open_arrays
from .cameras import (
    add_exposure_noise,
    block_sum,
    broaden_psf,
    correlated_noise,
    dihedral,
    gaussian_kernel,
    log_uniform,
    moffat_kernel,
    noise_gain,
    random_crop,
    random_holes,
    random_noise_kernel,
    sky_error,
    split_exposure,
    whitened_example,
)

__all__ = ["DeepDataset", "FrameDataset", "PairDataModule", "PairDataset"]


class _WhitenedDataset(Dataset):
    """
    Whitened inputs and residuals, drawn anew at each visit.

    A subclass says in ``_draw`` what image, noise, target and depth are, and which pixels were measured and
    can teach. Crops, flips, quarter turns and holes come on top, and in a third of the examples an error of
    the sky, which input and target share. Every draw follows from seed, epoch, stream and index alone, so a
    resumed training sees what an uninterrupted one would have seen.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Prepared arrays; the first axis counts the images.

    seed, epoch : int
        Select the draws.

    repeat : int
        How often each image is visited per epoch.

    size : int or None
        The width of the crops; None for the whole images.

    stream : int
        Tells data sets apart that are seen beside each other, which otherwise would share their draws.
    """

    sky_share = 1 / 3

    def __init__(self, arrays, seed, epoch, repeat, size, stream):
        self.arrays = dict(arrays)
        self.seed, self.epoch, self.repeat, self.size, self.stream = seed, epoch, repeat, size, stream

    def __len__(self):
        return self.repeat * len(next(iter(self.arrays.values())))

    def _row(self, index):
        return {key: values[index % len(values)] for key, values in self.arrays.items()}

    def __getitem__(self, index):
        """Return ``z``, ``valid``, ``residual`` and ``use`` of shape (1, ny, nx) and the scalar ``depth``."""
        rng = np.random.default_rng([self.seed, self.epoch, self.stream, index])
        data, sigma, target, depth, valid, use = self._draw(self._row(index), rng)
        planes = random_crop((data, sigma, target, valid, use), self.size or min(data.shape), rng)
        shape = planes[0].shape
        if rng.random() < 0.3:
            planes[3] = planes[3] & random_holes(shape, rng)
        if rng.random() < self.sky_share:
            sky = sky_error(shape, planes[0], planes[1], rng)
            planes[0], planes[2] = planes[0] + sky, planes[2] + sky
        code = rng.integers(8)
        data, sigma, target, valid, use = (np.ascontiguousarray(dihedral(p, code)) for p in planes)
        return whitened_example(data, sigma, target, valid, depth, use)


def _marks(row, shape):
    """Return where an image was measured and where it can teach: everywhere, if not told otherwise."""
    return row.get("valid", np.ones(shape, bool)), row.get("use", np.ones(shape, bool))


class PairDataset(_WhitenedDataset):
    """
    Examples made from pairs of a shallow and a deep exposure.

    Each visit draws one of three kinds of example: the pair as it is, the pair with more noise in the
    shallow image, or the deep image split into a noisy input and an independent target.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_pairs` wrote.

    seed, epoch : int, optional
        Select the draws.

    repeat : int, optional
        How often each pair is visited per epoch.

    size : int, optional
        The width of random crops; by default the whole images.

    augment : bool, optional
        False for the pairs as they are, for validation.

    kinds : tuple of float, optional
        The probabilities of the three kinds.

    max_extra_noise : float, optional
        The largest factor of noise added to pairs; log-uniform from 1.

    split_range : tuple of float, optional
        The range of factors by which deep images are made noisier; log-uniform.

    stream : int, optional
        Tells data sets apart that are seen beside each other, which otherwise would share their draws.
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
        super().__init__(arrays, seed, epoch, repeat, size, stream)
        self.augment = augment
        self.kinds = np.cumsum(kinds) / np.sum(kinds)
        self.max_extra_noise, self.split_range = max_extra_noise, split_range

    def __getitem__(self, index):
        """Return ``z``, ``valid``, ``residual`` and ``use`` of shape (1, ny, nx) and the scalar ``depth``."""
        if self.augment:
            return super().__getitem__(index)
        row = self._row(index)
        valid, use = _marks(row, row["shallow"].shape)
        return whitened_example(row["shallow"], row["sigma"], row["target"], valid, row["depth"], use)

    def _draw(self, row, rng):
        """Draw an example: image, noise, target and depth."""
        kind = np.searchsorted(self.kinds, rng.random(), side="right")
        shallow, sigma = row["shallow"], row["sigma"]
        valid, use = _marks(row, shallow.shape)
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


class DeepDataset(_WhitenedDataset):
    """
    Examples made from single deep images, as other cameras would have seen them.

    Each visit blurs the image with a Moffat PSF, sums blocks of pixels, gives the detector a sky and a
    gain, and adds the photon noise of a long exposure and all the noise of a short one, white or correlated.
    Then `split_exposure` makes the noises of both independent, and their ratio, the depth, is one number.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_deep` wrote.

    seed, epoch : int, optional
        Select the draws.

    repeat : int, optional
        How often each image is visited per epoch.

    size : int, optional
        The width of random crops; by default the whole images, without large pixels.

    noise_range : tuple of float, optional
        The noise of the short exposure, in units of the deep image's own at the same pixels; log-uniform.
        Where what is left of that noise is not
        white and cannot be split, at least 4 in units of what is left.

    fwhm_range : tuple of float, optional
        The full width at half maximum of the blur in pixels; log-uniform, and at most an eighth of the
        image before blocks are summed.

    blur_share : float, optional
        The share of images that are blurred; the others keep their PSF.

    sky_range : tuple of float, optional
        The background in electrons per pixel, which sets how much photon noise sources have beside that
        of the sky; log-uniform.

    max_block : int, optional
        The largest width of the blocks in pixels.

    stream : int, optional
        Tells data sets apart that are seen beside each other, which otherwise would share their draws.
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
        super().__init__(arrays, seed, epoch, repeat, size, stream)
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
        return *split_exposure(image, long_sigma, factor, noise), 1 / factor, *_marks({}, image.shape)

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


class FrameDataset(_WhitenedDataset):
    """
    Examples made from ordinary noisy frames, deep or not.

    Each visit splits a frame by `split_exposure` into an input, which is noisier, and a target whose noise is
    independent of that: with a factor below 1 the input is hardly noisier than the frame, and the target much
    noisier than the input, yet its mean is right. The noise that is added is correlated as that of the frame.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_cameras` wrote of ``frames``.

    seed, epoch : int, optional
        Select the draws.

    repeat : int, optional
        How often each frame is visited per epoch.

    size : int, optional
        The width of random crops; by default the whole frames.

    split_range : tuple of float, optional
        The range of the factors; log-uniform. Frames whose noise is correlated have a higher lower end, the
        ``min_factor`` of the arrays.

    stream : int, optional
        Tells data sets apart that are seen beside each other, which otherwise would share their draws.
    """

    def __init__(self, arrays, *, seed=0, epoch=0, repeat=1, size=None, split_range=(0.3, 10.0), stream=1):
        super().__init__(arrays, seed, epoch, repeat, size, stream)
        self.split_range = split_range

    def _draw(self, row, rng):
        """Draw an example from a crop of the frame."""
        planes = [row[name] for name in ("data", "sigma", "valid", "use")]
        data, sigma, valid, use = random_crop(planes, self.size or min(planes[0].shape), rng)
        kernel, (low, high) = row["kernel"], self.split_range
        factor = log_uniform(rng, max(low, min(row["min_factor"], high)), high)
        noise = correlated_noise(data.shape, kernel if np.count_nonzero(kernel) > 1 else 0, rng)
        return *split_exposure(data, sigma, factor, noise), 1 / factor, valid, use


def _make_dataset(arrays, **options):
    """Return the data set that fits the names of the arrays."""
    if "data" in arrays:
        return FrameDataset(arrays, **options)
    if "shallow" in arrays:
        return PairDataset(arrays, kinds=(3, 1, 0), **options)
    return DeepDataset(arrays, **options)


class PairDataModule(pl.LightningDataModule):
    """
    Training and validation data from prepared pairs, and from single deep images beside them.

    Parameters
    ----------
    train, validation : str
        Files written by `prepare_pairs`.

    batch_size : int, optional
        The number of images per step.

    repeat : int, optional
        How often each pair is visited per epoch.

    seed : int, optional
        Selects order and degradations of all epochs.

    kinds : tuple of float, optional
        The probabilities of the three kinds of `PairDataset`.

    deep : str or list of str, optional
        Files written by `prepare_deep`, `prepare_simulated` or `prepare_cameras`, seen equally often.

    deep_share : float, optional
        The share of examples made from single deep images, if there are any.

    size : int, optional
        The width of random crops in training; by default that of the pairs.

    Raises
    ------
    ValueError
        In `setup`, if an epoch does not fill a single batch.
    """

    def __init__(
        self,
        train: str,
        validation: str,
        batch_size: int = 16,
        repeat: int = 4,
        seed: int = 0,
        kinds: tuple[float, ...] = (0.5, 0.25, 0.25),
        deep: str | list[str] | None = None,
        deep_share: float = 0.3,
        size: int | None = None,
    ):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage=None):
        """Open the arrays."""
        options = self.hparams
        self.train, self.validation = open_arrays(options.train), open_arrays(options.validation)
        files = [options.deep] if isinstance(options.deep, str) else options.deep or []
        self.deep = [open_arrays(file) for file in files]
        if self.deep and not 0 <= options.deep_share < 1:
            msg = f"deep_share must be at least 0 and less than 1, not {options.deep_share}"
            raise ValueError(msg)
        visits = options.repeat * len(self.train["shallow"])
        if visits < options.batch_size:
            msg = f"batch_size {options.batch_size} exceeds the {visits} examples of an epoch"
            raise ValueError(msg)

    def _datasets(self, epoch):
        options = self.hparams
        draws = {"seed": options.seed, "epoch": epoch, "size": options.size}
        pairs = PairDataset(self.train, repeat=options.repeat, kinds=options.kinds, **draws)
        datasets, draws["size"] = [pairs], options.size or min(self.train["shallow"].shape[1:])
        visits = len(pairs) * options.deep_share / (1 - options.deep_share)
        for number, arrays in enumerate(self.deep, 1):
            share = round(visits / len(self.deep))
            length = len(next(iter(arrays.values())))
            deep = _make_dataset(arrays, repeat=-(-share // length), stream=number, **draws)
            chosen = np.random.default_rng([options.seed, epoch, number]).permutation(len(deep))[:share]
            datasets.append(Subset(deep, chosen.tolist()))
        return datasets

    def train_dataloader(self):
        """
        Return the loader of the current epoch; the trainer must reload it at every epoch.

        Of several processes each gets its share of every batch, and together they see what one would.
        """
        options = self.hparams
        epoch = self.trainer.current_epoch if self.trainer else 0
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        share, rest = divmod(options.batch_size, world)
        if rest:
            msg = f"batch_size {options.batch_size} must be a multiple of the {world} processes"
            raise ValueError(msg)
        data = ConcatDataset(self._datasets(epoch))
        order = np.random.default_rng([options.seed, epoch]).permutation(len(data))
        order = order[: len(data) // world * world][rank::world]
        return DataLoader(data, share, sampler=order.tolist(), drop_last=True)

    def val_dataloader(self):
        """Return the validation pairs as they are."""
        return DataLoader(PairDataset(self.validation, augment=False), self.hparams.batch_size)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Data for training: prepared exposures, degraded anew at every visit.
"""

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import ConcatDataset, DataLoader, Subset

from astro_ddpm.noise import photon_noise

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
    """
    Examples made from prepared arrays, whose first axis counts the images.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Prepared arrays.

    repeat : int
        How often each image is visited per epoch.

    *args, **options
        Of `ExampleDataset`.
    """

    def __init__(self, arrays, repeat, *args, **options):
        super().__init__(*args, **options)
        self.arrays, self.repeat = dict(arrays), repeat

    def __len__(self):
        return self.repeat * _count(self.arrays)

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
        super().__init__(arrays, repeat, seed, epoch, size, stream)
        self.augment = augment
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


def _make_dataset(arrays, **options):
    """Return the data set that fits the names of the arrays."""
    if "data" in arrays:
        return FrameDataset(arrays, **options)
    if "shallow" in arrays:
        return PairDataset(arrays, kinds=(3, 1, 0), **options)
    return DeepDataset(arrays, **options)


class PairDataModule(pl.LightningDataModule):
    """
    Training and validation data from prepared pairs, and from single deep images and scenes beside them.

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
        Files written by `prepare_deep` or `prepare_cameras`, which are seen equally often.

    deep_share : float, optional
        The share of examples made from single deep images, if there are any.

    size : int, optional
        The width of random crops in training; by default that of the pairs.

    scene_share : float, optional
        The share of examples made from scenes whose truth is known, `SceneDataset`.

    noisy_scenes : bool, optional
        Whether the targets of scenes have noise, as a diffusion model that is told the depth needs it.

    wide_size : int, optional
        The width of the crops in some of the steps, which then have fewer of them, as many pixels in all.
        What is smaller than that is left out there.

    wide_share : float, optional
        The share of these steps.

    Raises
    ------
    ValueError
        In `setup`, if an epoch does not fill a single batch, shares leave nothing for pairs, or nothing is
        as wide as ``wide_size``.
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
        scene_share: float = 0.0,
        noisy_scenes: bool = True,
        wide_size: int = 96,
        wide_share: float = 0.0,
    ):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage=None):
        """Open the arrays."""
        options = self.hparams
        self.train, self.validation = open_arrays(options.train), open_arrays(options.validation)
        files = [options.deep] if isinstance(options.deep, str) else options.deep or []
        self.deep = [open_arrays(file) for file in files]
        shares = {"scene_share": options.scene_share, "wide_share": options.wide_share}
        shares |= {"deep_share": options.deep_share} if self.deep else {}
        for name, share in shares.items():
            if not 0 <= share < 1:
                msg = f"{name} must be at least 0 and less than 1, not {share}"
                raise ValueError(msg)
        if self._pair_share() <= 0:
            shares = f"deep_share {options.deep_share} and scene_share {options.scene_share}"
            msg = f"{shares} leave nothing for pairs"
            raise ValueError(msg)
        arrays = [self.train, *self.deep]
        if options.size and options.size > min(map(_width, arrays)):
            msg = f"size {options.size} exceeds images of {min(map(_width, arrays))} pixels"
            raise ValueError(msg)
        if options.wide_share and not options.scene_share and options.wide_size > max(map(_width, arrays)):
            msg = f"wide_size {options.wide_size} exceeds the images, and there are no scenes"
            raise ValueError(msg)
        visits = options.repeat * len(self.train["shallow"])
        if visits < options.batch_size:
            msg = f"batch_size {options.batch_size} exceeds the {visits} examples of an epoch"
            raise ValueError(msg)

    def _pair_share(self):
        options = self.hparams
        return 1 - options.scene_share - (options.deep_share if self.deep else 0)

    def _datasets(self, epoch, size, total, stream=0):
        """Return data sets of ``total`` crops, of what is wide enough in its shares; scenes come last."""
        options = self.hparams
        share = options.deep_share / max(len(self.deep), 1)
        sources = [(self._pair_share(), PairDataset, self.train, {"kinds": options.kinds})]
        sources += [(share, _make_dataset, arrays, {}) for arrays in self.deep]
        width = size or _width(self.train)
        sources = [source for source in sources if _width(source[2]) >= width]
        total /= sum(source[0] for source in sources) + options.scene_share
        draws = {"seed": options.seed, "epoch": epoch}
        datasets = []
        for place, (share, source, arrays, more) in enumerate(sources, stream):
            number = round(total * share)
            draws["size"] = size if source is PairDataset else width
            data = source(arrays, repeat=-(-number // _count(arrays)), stream=place, **draws, **more)
            chosen = np.random.default_rng([options.seed, epoch, place]).permutation(len(data))[:number]
            datasets.append(Subset(data, chosen.tolist()))
        number, draws["size"] = round(total * options.scene_share), width
        draws |= {"number": number, "stream": stream + 1000, "noisy_target": options.noisy_scenes}
        return [*datasets, SceneDataset(**draws)] if number else datasets

    def _batches(self, epoch, world):
        """Return the data sets of an epoch, and the numbers of the examples of each batch."""
        options = self.hparams
        rng = np.random.default_rng([options.seed, epoch])
        total = options.repeat * len(self.train["shallow"]) / self._pair_share()
        data = self._datasets(epoch, options.size, round(total))
        batches = _deal(data, options.batch_size, rng)
        if not options.wide_share:
            return data, batches
        shrink = ((options.size or _width(self.train)) / options.wide_size) ** 2
        batch = world * max(1, round(shrink * options.batch_size / world))
        number = round(len(batches) * options.wide_share / (1 - options.wide_share))
        more = self._datasets(epoch, options.wide_size, number * batch, stream=2000)
        wide = [sum(map(len, data)) + chosen for chosen in _deal(more, batch, rng)]
        turns = rng.permutation(np.arange(len(batches) + len(wide)) < len(wide))
        batches, wide = iter(batches), iter(wide)
        return [*data, *more], [next(wide if turn else batches) for turn in turns]

    def train_dataloader(self):
        """
        Return the loader of the current epoch; the trainer must reload it at every epoch.

        Of several processes each gets its share of every batch, and together they see what one would.
        """
        options = self.hparams
        epoch = self.trainer.current_epoch if self.trainer else 0
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if options.batch_size % world:
            msg = f"batch_size {options.batch_size} must be a multiple of the {world} processes"
            raise ValueError(msg)
        data, batches = self._batches(epoch, world)
        batches = [batch[rank::world].tolist() for batch in batches]
        return DataLoader(ConcatDataset(data), batch_sampler=batches)

    def val_dataloader(self):
        """Return the validation pairs as they are."""
        return DataLoader(PairDataset(self.validation, augment=False), self.hparams.batch_size)


def _count(arrays):
    return len(next(iter(arrays.values())))


def _width(arrays):
    """Return the width of prepared images in pixels."""
    name = next(name for name in ("data", "shallow", "deep") if name in arrays)
    return min(arrays[name].shape[1:])


def _deal(datasets, batch, rng):
    """Shuffle the examples of data sets into full batches; those of scenes stay in order, for speed."""
    order = rng.permutation(sum(map(len, datasets)))
    if isinstance(datasets[-1], SceneDataset):
        scenes = order >= len(order) - len(datasets[-1])
        order[scenes] = np.sort(order[scenes])
    return np.split(order[: len(order) // batch * batch], len(order) // batch) if len(order) >= batch else []

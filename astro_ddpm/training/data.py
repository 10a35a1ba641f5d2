# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Data for training: prepared pairs, degraded anew at every visit.
"""

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from astro_ddpm.noise import fill_holes, whiten

from .degrade import add_exposure_noise, correlated_noise, dihedral, random_holes, split_exposure

__all__ = ["PairDataModule", "PairDataset"]


def _log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class PairDataset(Dataset):
    """
    Whitened inputs and residuals made from prepared pairs.

    Each visit draws one of three kinds of example: the pair as it is, the pair with more noise in the
    shallow image, or the deep image split into a noisy input and an independent target. Flips, quarter
    turns, correlated noise and holes come on top. Every draw follows from ``seed``, ``epoch`` and the
    index alone, so a resumed training sees what an uninterrupted one would have seen.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        What `prepare_pairs` wrote.

    seed, epoch : int, optional
        Select the draws.

    repeat : int, optional
        How often each pair is visited per epoch.

    augment : bool, optional
        False for the pairs as they are, for validation.

    kinds : tuple of float, optional
        The probabilities of the three kinds.

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
        augment=True,
        kinds=(0.5, 0.25, 0.25),
        max_extra_noise=10.0,
        split_range=(2.0, 60.0),
    ):
        self.arrays = {key: np.asarray(arrays[key]) for key in arrays}
        self.seed, self.epoch, self.repeat, self.augment = seed, epoch, repeat, augment
        self.kinds = np.cumsum(kinds) / np.sum(kinds)
        self.max_extra_noise, self.split_range = max_extra_noise, split_range

    def __len__(self):
        return self.repeat * len(self.arrays["shallow"])

    def __getitem__(self, index):
        """Return ``z``, ``valid``, ``residual`` of shape (1, ny, nx) and the scalar ``depth``."""
        row = {key: values[index % len(values)] for key, values in self.arrays.items()}
        if not self.augment:
            valid = np.ones(row["shallow"].shape, bool)
            return self._whiten(row["shallow"], row["sigma"], row["target"], valid, row["depth"])
        rng = np.random.default_rng([self.seed, self.epoch, index])
        data, sigma, target, depth = self._draw(row, rng)
        valid = random_holes(data.shape, rng) if rng.random() < 0.3 else np.ones(data.shape, bool)
        code = rng.integers(8)
        planes = (np.ascontiguousarray(dihedral(a, code)) for a in (data, sigma, target, valid))
        return self._whiten(*planes, depth)

    def _draw(self, row, rng):
        """Draw an example: image, noise, target and depth."""
        kind = np.searchsorted(self.kinds, rng.random(), side="right")
        shallow, sigma = row["shallow"], row["sigma"]
        if kind == 0:
            return shallow, sigma, row["target"], row["depth"]
        width = rng.uniform(0.3, 0.8) if rng.random() < 0.3 else 0
        if kind == 1:
            factor = _log_uniform(rng, 1, self.max_extra_noise)
            noise = correlated_noise(shallow.shape, width, rng)
            data, sigma = add_exposure_noise(shallow, sigma, factor, noise)
            return data, sigma, row["target"], row["depth"] / factor
        factor = _log_uniform(rng, *self.split_range)
        # independent noises need the new noise correlated as the old; beside large factors it hardly matters
        noise = correlated_noise(shallow.shape, width if factor > 5 else 0, rng)
        data, sigma, target = split_exposure(row["deep"], row["deep_sigma"], factor, noise)
        return data, sigma, target, 1 / factor

    @staticmethod
    def _whiten(data, sigma, target, valid, depth):
        data, sigma = fill_holes(data, sigma, valid)
        planes = {"z": whiten(data, sigma), "valid": valid, "residual": whiten(target, sigma, data)}
        example = {key: plane[None].astype(np.float32) for key, plane in planes.items()}
        return example | {"depth": np.float32(depth)}


class PairDataModule(pl.LightningDataModule):
    """
    Training and validation data from prepared pairs.

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
    ):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage=None):
        """Read the arrays."""
        with np.load(self.hparams.train) as train, np.load(self.hparams.validation) as validation:
            self.train, self.validation = dict(train), dict(validation)
        visits = self.hparams.repeat * len(self.train["shallow"])
        if visits < self.hparams.batch_size:
            msg = f"batch_size {self.hparams.batch_size} exceeds the {visits} examples of an epoch"
            raise ValueError(msg)

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
        data = PairDataset(
            self.train, seed=options.seed, epoch=epoch, repeat=options.repeat, kinds=options.kinds
        )
        order = np.random.default_rng([options.seed, epoch]).permutation(len(data))
        order = order[: len(data) // world * world][rank::world]
        return DataLoader(data, share, sampler=order.tolist(), drop_last=True)

    def val_dataloader(self):
        """Return the validation pairs as they are."""
        return DataLoader(PairDataset(self.validation, augment=False), self.hparams.batch_size)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Mean, spread and draws of the posterior of a whole frame, from networks that see it tile by tile.

A network needs far more memory for its features than a frame needs for its pixels. So the draws in progress
are kept whole, and every evaluation of a network is done tile by tile. It returns what it would return for
the whole frame.
"""

import logging
import os
import sys
from copy import copy
from functools import lru_cache
from itertools import islice
from math import ceil, isqrt, prod
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .noise import remaining_sky
from .tiling import make_tiles, tile_around
from .utils import progress, warn_user

log = logging.getLogger(__name__)

__all__ = ["TiledModel", "sample_posterior", "white_noise"]

NOISE_BLOCK = 128
FEATURE_PLANES = 7  # that a network holds at its widest, in units of its channels at the finest resolution
DRAW_PLANES = 12  # of the whole frame that the sampler needs for each draw in progress
MIN_TILE = 32
MANY_TILES = 9  # a frame whose time is told, which takes two evaluations of one of them
WORTH_TELLING = 60.0  # seconds
CHECKED = 0.5  # of the estimate of such a frame is done again for the check
CACHED_PIXELS = 2**18  # larger batches are not faster


if hasattr(os, "register_at_fork"):
    # The threads of OpenMP do not exist in a forked child, which would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def white_noise(seed, sample, shape):
    """
    Return the white noise that one sample starts from: float32, shape (ny, nx), of unit variance.

    It depends on seed, number of the sample and position of a pixel only. It is made in blocks, each from a
    generator of its own, so that any part of it can be made alone.
    """
    noise = np.empty(shape, np.float32)
    for y in range(0, shape[0], NOISE_BLOCK):
        for x in range(0, shape[1], NOISE_BLOCK):
            part = noise[y : y + NOISE_BLOCK, x : x + NOISE_BLOCK]
            rng = np.random.default_rng([seed, sample, y // NOISE_BLOCK, x // NOISE_BLOCK])
            block = rng.standard_normal((NOISE_BLOCK, NOISE_BLOCK), dtype=np.float32)
            part[...] = block[: part.shape[0], : part.shape[1]]
    return noise


def _within_reach(valid, radius):
    """Mark the pixels within a square of a radius about any valid pixel."""
    from scipy.ndimage import maximum_filter

    return valid if valid.all() else maximum_filter(valid, 2 * radius + 1, mode="constant")


class TiledModel:
    """
    A model and the frame that its networks see tile by tile.

    Pixels beyond the receptive field of any valid pixel keep the fill value and its noise: the networks are
    not evaluated there, and the samples are independent Gaussian pixels. They do not see what remains
    of the sky, `~astro_ddpm.noise.remaining_sky`, which stays in the result.

    ``z`` is the whitened image, shape (ny, nx), ``valid`` is False for pixels that were not measured, and
    ``tile_size`` is the largest width of the part of a tile that is used, None for the frame in one piece.
    ``precision`` is that of the network that draws.
    """

    def __init__(self, model, z, valid, tile_size=None, device="cpu", precision="float32"):
        self.model = model.to(device)
        self.precision = getattr(torch, precision)
        radius = model.receptive_radius
        self.tiles = make_tiles(z.shape, tile_size, radius, model.stride)
        self.z = _as_seen(z).to(device)
        self.valid = _as_planes(valid).to(device)
        self.seen = _as_planes(_within_reach(valid, radius)).to(device)

    def _visible_tiles(self, advance):
        """Yield number and geometry of the tiles in which there is something to compute."""
        for number, tile in enumerate(self.tiles):
            if self.seen[..., *tile.core].any():
                yield number, tile
            advance()

    def _measured(self, outer):
        """Return image and validity of a part as the networks want them."""
        return self.z[..., *outer], self.valid[..., *outer].to(self.z.dtype)

    def estimate(self, advance=lambda: None):
        """
        Return mean and standard deviation of the whitened residual, shape (1, 1, ny, nx).

        ``advance`` is called after each tile.
        """
        mean, std = torch.zeros_like(self.z), torch.ones_like(self.z)
        for _, tile in self._visible_tiles(advance):
            parts = self.model.estimate(*self._measured(tile.outer), tile.inner)
            for plane, part in zip((mean, std), parts, strict=True):
                plane[..., *tile.core] = part
        return mean.mul_(self.seen), std.masked_fill_(~self.seen, 1)

    def estimate_again(self, z, part):
        """Return what `estimate` has in a part (y, x) of the frame for another image of the same validity."""
        other, shape = copy(self), z.shape
        other.z = _as_seen(z).to(self.z.device)
        if z[part].shape != shape:
            halo, stride = self.model.receptive_radius, self.model.stride
            other.tiles = [tile_around(part, shape, halo, stride)]
        return tuple(plane[0, 0][part].cpu().numpy() for plane in other.estimate())

    def pace(self):
        """Return the seconds that the estimate of all tiles takes, and one evaluation for one draw."""
        z, valid = self._measured(self.tiles[len(self.tiles) // 2].outer)
        estimate = _fastest(lambda: self.model.regressor(z, valid)) * self.model.passes
        draw = 0.0
        if self.model.draws_samples:
            guide, one = self.model.denoiser.encode(z, valid, z, valid + 1), z.new_ones(1)
            with torch.autocast(z.device.type, self.precision, enabled=self.precision != z.dtype):
                draw = _fastest(lambda: self.model.denoiser(z, one, guide, one))
        return estimate * len(self.tiles), draw * len(self.tiles)

    def guided_network(self, estimate, advance=lambda: None):
        """Return the network that draws, for `~astro_ddpm.zoo.Model.sample`, guided by an `estimate`."""

        @lru_cache(maxsize=1)  # serves frames of one tile; that of others is cheaper to make than to keep
        def guide(number):
            outer = self.tiles[number].outer
            planes = (plane[..., *outer] for plane in estimate)
            return self.model.denoiser.encode(*self._measured(outer), *planes)

        def network(x: Tensor, noise_level: Tensor, noise_ratio: Tensor) -> Tensor:
            output = torch.zeros_like(x)
            for number, tile in self._visible_tiles(advance):
                with torch.autocast(x.device.type, self.precision, enabled=self.precision != x.dtype):
                    inputs = x[..., *tile.outer], noise_level, guide(number), noise_ratio
                    output[..., *tile.core] = self.model.denoiser(*inputs, tile.inner)
            return output.mul_(self.seen)

        return network


def _fastest(function):
    """Return the seconds that a function takes the second time, for the first prepares what stays."""
    function()
    start = perf_counter()
    function()
    return perf_counter() - start


def _announce(tiled, n_samples, steps, checked, progress_bar):
    """Say how long a frame of many tiles will take, if more than a minute, and what would be faster."""
    listened_to = progress_bar or log.isEnabledFor(logging.INFO)
    if len(tiled.tiles) < MANY_TILES or not listened_to:
        return
    estimate, draw = tiled.pace()
    first, sample = estimate * (1 + CHECKED * checked), draw * steps
    seconds = first + (n_samples + 2) * sample
    if seconds < WORTH_TELLING:
        return
    shape = " x ".join(map(str, tiled.z.shape[:1:-1]))
    message = f"{shape} pixels take about {_duration(seconds)}"
    if tiled.model.draws_samples and n_samples > 4:
        message += f"; n_samples=4 would take {_duration(first + 6 * sample)}, model='raunet' still less"
    elif checked and not tiled.model.draws_samples:
        message += f"; verify=False would take {_duration(estimate)}"
    log.info(message)
    if progress_bar:
        tqdm.write(message, file=sys.stderr)


def _duration(seconds):
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _as_seen(z):
    """Return a whitened image as the networks see it: without a sky below zero."""
    return _as_planes((z - remaining_sky(z)).astype(np.float32, copy=False))


def _as_planes(image):
    """Return an image of shape (ny, nx) as a tensor of shape (1, 1, ny, nx) that shares its memory."""
    return torch.from_numpy(image)[None, None]


def choose_sizes(model, shape, memory, tile_size=None, batch_size=None):
    """
    Return the width of a tile without its halo, and the number of samples, that the networks see at once.

    ``memory`` is what they may use, in bytes; what has been chosen already is kept. Too little for any tile
    raises a ValueError.
    """
    features = max(network.config["channels"][0] / network.config["patch"] ** 2 for network in model.networks)
    bytes_per_pixel = 4 * FEATURE_PLANES * features
    pixels = int(memory / bytes_per_pixel)
    margin = 2 * (model.receptive_radius + model.stride)
    if tile_size is None and prod(shape) <= pixels:
        tile_size = max(shape)
    elif tile_size is None:
        tile_size = isqrt(pixels) - margin
        if tile_size < MIN_TILE:
            least = ceil((MIN_TILE + margin) ** 2 * bytes_per_pixel / 1e6)
            msg = f"memory_limit must be at least {least} MB for this model, not {memory / 1e6:.3g} MB"
            raise ValueError(msg)
    tile_pixels = prod(min(length, tile_size + margin) for length in shape)
    draws = int(memory / (4 * DRAW_PLANES * prod(shape)))
    return tile_size, batch_size or max(1, min(pixels // tile_pixels, CACHED_PIXELS // tile_pixels, draws))


def sample_posterior(
    model,
    z,
    valid,
    *,
    n_samples,
    steps,
    seed,
    noise_ratio,
    memory,
    keep,
    check=None,
    tile_size=None,
    batch_size=None,
    device="cpu",
    precision="float32",
    progress_bar=False,
):
    r"""
    Return mean and standard deviation of the whitened residual, shape (ny, nx), and keep draws.

    The mean of a few draws is itself noisy. The sampler maps noise :math:`\epsilon_i` to draws
    :math:`f(\epsilon_i)`, and what is linear in that map is taken out as a control variate, :math:`\langle
    f(\epsilon_i) \rangle - f(\langle \epsilon_i \rangle) + f(0)`.

    ``z`` is the whitened image, and ``valid`` is False for pixels that were not measured. The networks may
    use ``memory`` bytes; if that of a GPU is exhausted, less is tried at once. ``keep(i, draw)`` is called
    with each draw, shape (ny, nx), in units of the noise. ``check(z, mean, std, regressor)``, with
    `TiledModel.estimate_again` as regressor, returns the mean and standard deviation to go on with. The rest
    is as for `~astro_ddpm.enhance`, but the number of samples, steps, seed and noise ratio may not be None.
    """
    tile_size, batch_size = choose_sizes(model, z.shape, memory, tile_size, batch_size)
    batch_size = min(batch_size, n_samples + 2) if model.draws_samples else 1
    while True:
        try:
            with torch.inference_mode(), _full_precision():
                tiled = TiledModel(model, z, valid, tile_size, device, precision)
                _announce(tiled, n_samples, steps, check is not None, progress_bar)
                estimate = _estimate(tiled, progress_bar and not model.draws_samples)
                if check is not None:
                    estimate = check(z, *estimate, tiled.estimate_again)
                if not model.draws_samples:
                    return estimate
                options = n_samples, steps, seed, noise_ratio, batch_size
                return _sample(tiled, estimate, *options, keep, progress_bar)
        except torch.cuda.OutOfMemoryError:
            if batch_size == 1 and tile_size <= MIN_TILE:
                raise
            if batch_size > 1:
                batch_size //= 2
            else:
                tile_size = min(tile_size, *z.shape) // 2
            warn_user(
                f"the memory of {device} is exhausted: trying again with batch_size={batch_size} and "
                f"tile_size={tile_size}, which gives the same result"
            )


def _full_precision():
    """Keep GPUs from rounding to TF32, whose error on a core of 6000 sigma is larger than the noise."""
    cudnn = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    return cudnn.flags(allow_tf32=False, **kept)


def _estimate(tiled, progress_bar):
    """Mean and standard deviation without draws."""
    with progress(len(tiled.tiles), show=progress_bar) as advance:
        return tuple(plane[0, 0].cpu().numpy() for plane in tiled.estimate(advance))


def _sample(tiled, estimate, n_samples, steps, seed, noise_ratio, batch_size, keep, progress_bar):
    """Mean and standard deviation from draws, of which only the sums are kept."""
    estimate = tuple(_as_planes(plane).to(tiled.z.device) for plane in estimate)
    mean = estimate[0][0]
    total, square, control = (torch.zeros_like(mean) for _ in range(3))
    planes = _noise_planes(seed, n_samples, tuple(mean.shape[-2:]))
    batches = -(-(n_samples + 2) // batch_size)
    with progress(batches * steps * len(tiled.tiles), show=progress_bar) as advance:
        network = tiled.guided_network(estimate, advance)
        for first in range(0, n_samples + 2, batch_size):
            noise = np.stack(list(islice(planes, batch_size)))[:, None]
            noise = torch.from_numpy(noise).to(mean.device)
            for i, draw in enumerate(tiled.model.sample(network, estimate, noise_ratio, noise, steps), first):
                if i < n_samples:
                    total += draw - mean
                    square += (draw - mean).square()
                    keep(i, draw[0].cpu().numpy())
                else:
                    control += draw if i > n_samples else -draw
    shift = total / n_samples
    variance = (square / n_samples - shift.square()).clamp_min_(0)
    std = tiled.model.scene_std(variance[None], n_samples, estimate, noise_ratio)
    return (mean + shift + control)[0].cpu().numpy(), std[0, 0].cpu().numpy()


def _noise_planes(seed, n_samples, shape):
    """Yield the noise of all samples, their mean, and zero."""
    total = np.zeros(shape, np.float32)
    for i in range(n_samples):
        noise = white_noise(seed, i, shape)
        total += noise
        yield noise
    yield total / np.float32(n_samples)
    yield np.zeros_like(total)

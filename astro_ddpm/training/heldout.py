# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Blocks of noisy frames that are held out, and what they say of a regressor without truth.
"""

from dataclasses import dataclass

import numpy as np

from astro_ddpm.noise import correlated_noise, remaining_sky
from astro_ddpm.selfcheck import Answer, Probe, colour, noise_autocorrelation, power_spectrum, random_signs
from astro_ddpm.selfcheck.check import EDGES
from astro_ddpm.selfcheck.stein import STEP

from .cameras import split_exposure

__all__ = ["CHOOSE", "JUDGE", "TEACH", "NoisyFrame", "Part", "choose_parts", "compare", "hold_out"]

BLOCK = 32  # pixels, the width of the blocks
TEACH, CHOOSE, JUDGE = 0, 1, 2  # what a block is for
SHARES = 0.6, 0.15, 0.25  # of the blocks
PART = 256  # pixels, the width of the parts of frames in which blocks are looked at
MAX_SEEN = 300_000  # pixels of these parts together
SKY_BRIGHTNESS = 3.0  # of the noise
FEW_BLOCKS = 4  # that tell a standard error
N_BINS = len(EDGES) - 1


@dataclass(eq=False)
class NoisyFrame:
    """
    A frame in units of its stated noise, ``z``, holes filled, shape (ny, nx), float32.

    ``valid`` is False for pixels that were not measured. ``correlation`` is the autocorrelation of the noise,
    shape (7, 7), None for white noise, and ``noise`` its standard deviation as measured. ``blocks``, shape
    (ny / 32, nx / 32), says what each block is for (`hold_out`).
    """

    z: np.ndarray
    valid: np.ndarray
    correlation: np.ndarray | None = None
    noise: float = 1.0
    blocks: np.ndarray | None = None

    @property
    def kernel(self):
        """The kernel that makes white noise as correlated as that of the frame, for `correlated_noise`."""
        if self.correlation is None:
            return np.ones((1, 1))
        root = np.sqrt(power_spectrum(self.correlation, 32))
        return np.fft.fftshift(np.fft.ifft2(root).real)[1:, 1:]

    def draw_noise(self, shape, rng):
        """Draw noise like that of the frame."""
        return self.noise * correlated_noise(shape, self.kernel, rng)

    @property
    def brightness(self):
        """The bin of the brightness of each pixel's surroundings, shape (ny, nx)."""
        from scipy.ndimage import gaussian_filter

        return np.digitize(gaussian_filter(self.z, 1), EDGES) - 1

    def purpose(self, part=None):
        """Return what the blocks of the pixels of a part (y, x), by default all, are for."""
        rows, columns = _block_numbers(part or tuple(slice(0, n) for n in self.z.shape))
        return self.blocks[rows[:, None], columns]


def _block_numbers(part):
    return tuple(np.arange(p.start, p.stop) // BLOCK for p in part)


def hold_out(frames, seed):
    """Deal the blocks of frames to those that teach, choose and judge; this sets their ``blocks``."""
    for number, frame in enumerate(frames):
        shape = [-(-n // BLOCK) for n in frame.z.shape]
        order = np.random.default_rng([seed, number, 20]).permutation(shape[0] * shape[1])
        places = np.digitize((order + 0.5) / order.size, np.cumsum(SHARES)[:2])
        frame.blocks = places.reshape(shape)


class Part:
    """
    A part (y, x) of a `NoisyFrame`, and what regressors say of it.

    ``seed`` selects all that is drawn, and ``device`` says where to compute.
    """

    def __init__(self, frame, part, seed, device):
        self.frame, self.seed, self.device = frame, seed, device
        self.z, self.valid = frame.z[part], frame.valid[part]
        self.purpose = np.where(self.valid, frame.purpose(part), -1)
        rows, columns = _block_numbers(part)
        self.block = rows[:, None] * 100_000 + columns

    def ask(self, regressor, z, orientations=2):
        """
        Return mean and standard deviation that a regressor gives the residual of an image of the part.

        ``z`` is the image in units of its noise, and ``orientations`` is as for
        `~astro_ddpm.nn.RAUNet.estimate`.
        """
        import torch

        planes = np.stack([z - remaining_sky(z), self.valid]).astype(np.float32)
        planes = torch.from_numpy(planes)[:, None, None].to(self.device)
        with torch.inference_mode():
            answer = regressor.estimate(*planes, orientations)
        return [plane[0, 0].cpu().numpy() for plane in answer]

    def loss(self, regressor, factors, orientations=2):
        r"""
        Return how badly a regressor predicts one half of the split part from the other, shape (ny, nx).

        This is the mean of :math:`\ln v + (r - m)^2 / v` with :math:`v = s^2 + (\nu / k)^2` over the
        ``factors`` k to split by, each with noise of both signs; :math:`\nu` is the measured noise over the
        stated one. It is least for mean and width of the posterior.
        """
        rng = np.random.default_rng([self.seed, 7])
        total = np.zeros(self.z.shape)
        for factor in factors:
            noise = self.frame.draw_noise(self.z.shape, rng)
            for sign in (1, -1):
                data, sigma, target = split_exposure(self.z, np.ones_like(self.z), factor, sign * noise)
                mean, std = self.ask(regressor, data / sigma, orientations)
                variance = np.square(std) + (self.frame.noise / factor) ** 2
                total += np.log(variance) + np.square((target - data) / sigma - mean) / variance
        return total / (2 * len(factors))

    def probe(self, regressor):
        """Ask a regressor for the image, and with a little more noise; return what Stein's estimate needs."""
        signs = random_signs(self.seed, self.z.shape) * self.valid
        change = np.float32(STEP) * self.valid * colour(signs, self.frame.correlation)
        here, moved = (Answer(z, self.valid, *self.ask(regressor, z)) for z in (self.z, self.z + change))
        return Probe(here, moved, signs, STEP, self.frame.correlation)

    def correlation(self, regressor):
        """Return the autocorrelation of the noise, shape (7, 7), without that of the scene, or None."""
        answer = Answer(self.z, self.valid, *self.ask(regressor, self.z))
        return noise_autocorrelation(
            self.z, self.valid & (answer.local < SKY_BRIGHTNESS), self.frame.noise, answer.scene
        )


def choose_parts(frames):
    """Return numbers of frames and parts (y, x) in which all levels of brightness occur, in order."""
    parts, counts = [], []
    for number, frame in enumerate(frames):
        level, (ny, nx) = np.where(frame.valid, frame.brightness, N_BINS), frame.z.shape
        for y in range(0, ny, PART):
            for x in range(0, nx, PART):
                part = slice(y, min(y + PART, ny)), slice(x, min(x + PART, nx))
                parts.append((number, part))
                counts.append(np.bincount(level[part].ravel(), minlength=N_BINS + 1)[:N_BINS])
    counts, have, chosen = np.array(counts), np.zeros(N_BINS), []
    while len(chosen) < len(parts) and have.sum() < MAX_SEEN:
        gain = (counts / np.maximum(have, 500)).sum(axis=1)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        have += counts[chosen[-1]]
    return [parts[i] for i in sorted(chosen)]


def mean_and_error(values, blocks, bins, n_bins=N_BINS):
    """
    Return means of bins of pixels, standard errors from the scatter of blocks, and numbers of pixels, by bin.

    ``values``, ``blocks`` and ``bins`` have the value, the block and the bin of each pixel. Errors are
    infinite where less than 4 blocks have pixels of the bin.
    """
    blocks = np.unique(blocks, return_inverse=True)[1]
    shape = blocks.max() + 1, n_bins
    place = blocks * n_bins + bins
    number, total = (np.bincount(place, w, np.prod(shape)).reshape(shape) for w in (None, values))
    pixels, seen = number.sum(axis=0), (number > 0).sum(axis=0)
    mean = total.sum(axis=0) / np.maximum(pixels, 1)
    square = ((total - mean * number) ** 2).sum(axis=0) * seen / np.maximum(seen - 1, 1)
    error = np.where(seen >= FEW_BLOCKS, np.sqrt(square) / np.maximum(pixels, 1), np.inf)
    return mean, error, pixels


def compare(parts, before, after, factors):
    """
    Compare two regressors on the blocks of parts that judge, with ``factors`` as for `Part.loss`.

    Returns two dicts. The first has arrays with a value for each bin of brightness: ``n_pixels``, Stein's
    mean square ``error`` of the first, its ``change`` and that of the ``loss``, and the mean variance that
    the second has ``stated``, each with ``_err``. The second has ``change``, ``loss`` and their ``_err`` for
    all pixels.
    """
    rows = []
    for part in parts:
        old, new = (part.probe(each) for each in (before, after))
        loss = part.loss(after, factors) - part.loss(before, factors)
        use = part.purpose == JUDGE
        level = np.digitize(old.answer.local, EDGES) - 1
        block = part.block + 10**12 * len(rows)
        squares = [probe.answer.mean**2 for probe in (old, new)]
        planes = block, level, old.noise, *map(_divergence, (old, new)), *squares, new.answer.variance, loss
        rows.append([plane[use] for plane in planes])
    block, level, noise, *planes = (np.concatenate(plane) for plane in zip(*rows, strict=True))
    old, new, old_square, new_square, stated, loss = planes
    # the product of means is wanted, not that of pixels
    power = mean_and_error(noise, block, level)[0][level]
    error = noise + 2 * power * old + old_square
    change = 2 * power * (new - old) + new_square - old_square
    bins, whole = {}, {}
    for name, values in (("error", error), ("stated", stated), ("change", change), ("loss", loss)):
        bins[name], bins[f"{name}_err"], bins["n_pixels"] = mean_and_error(values, block, level)
        mean, err, _ = mean_and_error(values, block, np.zeros_like(level), 1)
        whole[name], whole[f"{name}_err"] = float(mean[0]), float(err[0])
    return bins, whole


def _divergence(probe):
    return probe.signs * (probe.moved.mean - probe.answer.mean) / probe.step

# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
Stein's estimate: the mean square error of a result, from the noisy image alone.

An image :math:`z = x + n` has Gaussian noise of unit variance and covariance :math:`C`, and a regressor
answers with the residual :math:`r(z)`. The error of the result :math:`z + r` in pixel :math:`i` is

.. math:: E\,(n_i + r_i)^2 = 1 + 2 \Big(C \frac{\partial r}{\partial z}\Big)_{ii} + E\, r_i^2

(Stein 1981). With random signs :math:`\epsilon` the divergence is the mean of
:math:`\epsilon_i \, [r(z + h C \epsilon) - r(z)]_i / h` (Ramani, Blu & Unser 2008). The change of the image
is coloured and the signs are not, so the divergence itself has no noise but that of the other pixels; and odd
powers of signs have the mean zero, so that the one-sided difference is as good as a central one.
"""

from dataclasses import dataclass

import numpy as np

from astro_ddpm.noise import embed_kernel

__all__ = ["STEP", "Moments", "colour", "divergence", "measure_noise_power", "power_spectrum", "random_signs"]

STEP = 0.1  # of the differences, in units of the noise
SIGN_BLOCK = 128  # pixels
ERROR_BLOCK = 24  # pixels, the width of blocks whose errors are taken as independent
DETREND = 1.0, 2.0  # pixels, the standard deviation of Gaussians that are taken out before noise is measured
MAX_STRUCTURE = 0.2  # of the noise power: above that the image is no place to measure the noise
MAX_LEFT = 0.02  # of the noise power in the scene, where noise is correlated
DOUBTFUL = 0.3  # of what is left of the noise, by which the mean structure of a place may be wrong
TINY = 1e-12


def random_signs(seed, shape):
    """
    Random signs for the differences of a regressor.

    They are made in blocks, each from a generator of its own, so that any part of a frame has the signs that
    it has in the whole frame.

    Parameters
    ----------
    seed : int
        The seed.

    shape : tuple of int
        The shape (ny, nx) of the frame.

    Returns
    -------
    signs : ndarray of float32, shape (ny, nx)
        -1 or 1.
    """
    signs = np.empty(shape, np.float32)
    for y in range(0, shape[0], SIGN_BLOCK):
        for x in range(0, shape[1], SIGN_BLOCK):
            part = signs[y : y + SIGN_BLOCK, x : x + SIGN_BLOCK]
            rng = np.random.default_rng([seed, y // SIGN_BLOCK, x // SIGN_BLOCK, 18])
            block = rng.integers(0, 2, (SIGN_BLOCK, SIGN_BLOCK), dtype=np.int8)
            part[...] = 2 * block[: part.shape[0], : part.shape[1]] - 1
    return signs


def colour(signs, correlation):
    r"""
    Multiply signs by the covariance of the noise, :math:`C \epsilon`.

    Parameters
    ----------
    signs : ndarray, shape (ny, nx)
        Random signs; zero where nothing was measured.

    correlation : ndarray, shape (k, k), or None
        The autocorrelation of the noise, k odd, 1 in the middle; None for white noise.

    Returns
    -------
    probe : ndarray, shape (ny, nx)
        Nothing beyond the edges counts.
    """
    from scipy.ndimage import convolve

    if correlation is None:
        return signs
    return convolve(signs, np.asarray(correlation, signs.dtype), mode="constant")


def divergence(signs, residual, moved, step=STEP):
    """
    One draw of the divergence of every pixel.

    Parameters
    ----------
    signs : ndarray, shape (ny, nx)
        The signs of the probe.

    residual, moved : ndarray, shape (ny, nx)
        The residual of the image, and that of the image plus ``step`` times the coloured signs.

    step : float, optional
        The step.

    Returns
    -------
    divergence : ndarray, shape (ny, nx)
        Its mean over many pixels is that of the diagonal of the covariance times the Jacobian.
    """
    return signs * (moved - residual) / step


def measure_noise_power(z, scene, response, valid, correlation=None):
    r"""
    Power that the noise happens to have, where the scene is smooth enough to see it.

    A mean of N squares of noise scatters by :math:`\sqrt{2 / N}`, which is more than the error of a good
    result in the sky. What a Gaussian of 2 pixels leaves of the image is nearly all noise there, so its
    power, without that of the same part of the estimated scene, tells how far the noise is from its mean.
    What a Gaussian of 1 pixel leaves tells less, but in more places.

    Parameters
    ----------
    z, scene : ndarray, shape (ny, nx)
        The whitened image and the estimate of its noise-free scene.

    response : ndarray, shape (ny, nx)
        The change of the scene with a change of the image by noise, over the size of that change: as much
        noise is left in the scene.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that were not measured.

    correlation : ndarray, shape (k, k), optional
        The autocorrelation of the noise.

    Returns
    -------
    power : ndarray, shape (ny, nx)
        To be averaged over many pixels; 1 where the scene is not smooth.

    known : ndarray of bool, shape (ny, nx)
        Where the wider Gaussian leaves noise only.
    """
    power = np.ones_like(z)
    for width in DETREND:
        found, usable = _detrended_noise(z, scene, response, valid, correlation, width)
        power = np.where(usable, found, power)
    return power, usable


def _detrended_noise(z, scene, response, valid, correlation, width):
    """Power of the noise by what a Gaussian leaves of it, and where that is noise only."""
    from scipy.ndimage import gaussian_filter

    def smooth(plane, scale):
        return gaussian_filter(np.where(valid, plane, 0), scale * width) / weights[scale]

    weights = {n: np.maximum(gaussian_filter(valid.astype(np.float32), n * width), 1e-3) for n in (1, 2)}
    expected, coloured, slope = _detrended_power(correlation, width)
    rest, scene, left = (np.square(plane - smooth(plane, 1)) for plane in (z, scene, response))
    left = left * (expected / coloured)
    structure = scene - left
    usable = valid & (smooth(structure - DOUBTFUL * left, 2) < MAX_STRUCTURE)
    if correlation is not None:  # coloured signs are not quite noise
        usable &= smooth(left, 2) < MAX_LEFT
    return 1 + slope * (rest - structure - expected), usable


def _detrended_power(correlation, width, size=64):
    """Mean power of noise and of coloured signs after detrending, and the slope that predicts it before."""
    spectrum = np.ones((size, size)) if correlation is None else power_spectrum(correlation, size)
    k = np.fft.fftfreq(size)
    high = 1 - np.exp(-2 * (np.pi * width) ** 2 * (k[:, None] ** 2 + k**2))
    left = spectrum * high**2
    coloured = (spectrum * left).mean()
    return float(left.mean()), float(coloured), float(coloured / (left**2).mean())


def power_spectrum(correlation, size=64):
    """
    Power spectrum of noise from its autocorrelation.

    Parameters
    ----------
    correlation : ndarray, shape (k, k)
        The autocorrelation, k odd.

    size : int, optional
        The number of frequencies of each axis.

    Returns
    -------
    power : ndarray, shape (size, size)
        With the mean 1, in the order of `numpy.fft.fft2`. What sampling made negative is zero.
    """
    return np.maximum(np.fft.fft2(embed_kernel(correlation, (size, size))).real, 0)


@dataclass
class Moments:
    """
    Sums over the pixels of each set, for each block of pixels.

    Attributes
    ----------
    sums : ndarray, shape (5, n_blocks, n_sets)
        Of the weights, and of noise power, divergence, squared residual and stated variance times them.
    """

    sums: np.ndarray

    @classmethod
    def collect(cls, sets, weights, planes, n_sets):
        """
        Add up planes of pixels.

        Parameters
        ----------
        sets : sequence of ndarray of int, shape (ny, nx)
            Sets that each pixel belongs to.

        weights : sequence of ndarray, shape (ny, nx)
            How much of it.

        planes : sequence of ndarray, shape (ny, nx)
            Noise power, divergence, squared residual and stated variance.

        n_sets : int
            The number of sets.

        Returns
        -------
        moments : `Moments`
            Of blocks of 24 x 24 pixels.
        """
        (ny, nx), columns = sets[0].shape, -(-sets[0].shape[1] // ERROR_BLOCK)
        block = (np.arange(ny) // ERROR_BLOCK * columns)[:, None] + np.arange(nx) // ERROR_BLOCK
        n_blocks = int(block[-1, -1]) + 1
        sums = np.zeros((5, n_blocks * n_sets))
        for index, weight in zip(sets, weights, strict=True):
            place = (block * n_sets + index).ravel()
            for total, plane in zip(sums, (1, *planes), strict=True):
                total += np.bincount(place, (weight * plane).ravel(), minlength=total.size)
        return cls(sums.reshape(5, n_blocks, n_sets))

    def __add__(self, other):
        return Moments(np.concatenate([self.sums, other.sums], axis=1))

    def means(self):
        """
        Mean noise power, divergence, squared residual and stated variance of each set.

        Returns
        -------
        means : ndarray, shape (4, n_sets)
            Zero for an empty set, and a noise power of 1.
        """
        weight, *sums = self.sums.sum(axis=1)
        means = np.array(sums) / np.maximum(weight, TINY)
        means[0] = np.where(weight > 0, means[0], 1)
        return means

    def error(self):
        r"""
        Mean square error of each set by Stein, with its standard error from the scatter of blocks.

        .. math:: M = \langle \nu \rangle (1 + 2 \langle d \rangle) + \langle r^2 \rangle

        Returns
        -------
        mse, mse_err : ndarray, shape (n_sets,)
            In units of the noise. Blocks of larger stated variance may have larger errors, so only what a
            block has beyond its share is scatter.
        """
        noise, div, square, stated = self.means()
        mse = noise * (1 + 2 * div) + square
        share = mse / np.maximum(stated, TINY)
        return mse, self._scatter(1 + 2 * div, 2 * noise, 1.0, -share, -2 * noise * div)

    def excess(self):
        r"""
        What the residual has too much of: :math:`2 \langle r^2 + \nu d \rangle`, zero for the best factor 1.

        Returns
        -------
        excess, excess_err : ndarray, shape (n_sets,)
            The best factor of the residual is :math:`1 - \mathrm{excess} / 2 \langle r^2 \rangle`.
        """
        noise, div, square, _ = self.means()
        excess = 2 * (square + noise * div)
        share = excess / np.maximum(square, TINY)
        return excess, self._scatter(2 * div, 2 * noise, 2.0 - share, 0.0, -2 * noise * div)

    def _scatter(self, *slopes):
        """Standard error of a sum of means: slopes of noise power, divergence, square, variance, and 1."""
        *slopes, constant = slopes
        weight, *sums = self.sums
        deviation = sum(slope * part for slope, part in zip(slopes, sums, strict=True)) + constant * weight
        total = weight.sum(axis=0)
        number = total**2 / np.maximum((weight**2).sum(axis=0), TINY)
        variance = (deviation**2).sum(axis=0) / np.maximum(total, TINY) ** 2
        few = np.maximum(number - 1, 0.5) / np.maximum(number, 1)
        return np.where(total > 0, np.sqrt(variance / few), np.inf)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
What Stein's estimate changes in the answer of a regressor: width, residual and sky, on the image itself.

All of it depends on how bright a place is, and on whether it is sharp: numbers at a few nodes of the
estimated brightness, for smooth and for sharp places, with straight lines between them.
"""

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .stein import Moments, divergence, measure_noise_power

__all__ = ["REACH", "Answer", "Correction", "Probe", "fit_correction", "local_mean", "positive_part"]

NODES = np.array([0.5, 2.0, 5.0, 12.0, 30.0, 80.0, 250.0, 800.0])  # brightness in units of the noise
POSITIONS = np.arcsinh(NODES)
N_SETS = 2 * len(NODES)
PHOTONS = np.tile(np.minimum(NODES / 5, 1), 2)  # how much the noise is no longer that of the sky
SHARPNESS = 0.08, 0.2  # from where on a place begins to be sharp, and is
SHARP_BRIGHTNESS = 5.0, 10.0  # of the noise: in fainter places it makes the scene look sharp
WINDOW = 1.5  # pixels, the standard deviation of the Gaussian over which a place is judged
REACH = 20  # pixels that matter for the correction of one
MAX_VARIANCE = 2.0  # of the noise: a pixel was measured better than that
MIN_VARIANCE = 1e-6
MAX_WIDTH = 20.0  # times the stated variance
MORE, LESS = (0.4, 2.0), (0.2, 3.0)  # typical change of the variance, standard errors beyond doubt
MIN_GAIN, MAX_GAIN = 0.1, 2.5
DOUBT_POWER = 0.1  # of the power of the residual: an excess that says nothing about the gain
STEP_OF_NODES = 0.3  # by which the excess over the power of the residual differs from node to node
SURE = 2.0  # standard errors, beyond which a residual is too large
DOUBT = 1.3  # times the scatter that noise gives to a local average
NOISE_ERROR = 0.003  # of the power of the noise: nobody knows it better
NOISE_DOUBT = 0.1  # of its power where the image does not show it
SKY = -1.5, -0.75  # minus the brightness about where the bias of the sky begins to be taken out, and is
DARK = -1.5  # brightness below which places are no sky, but columns and strips that see none
SKY_WIDTH = 9  # pixels about one of the sky, without a source
SKY_BOX = 32  # pixels


def local_mean(plane, valid):
    """
    Local mean of the valid pixels under a Gaussian of 1.5 pixels.

    Parameters
    ----------
    plane : ndarray, shape (ny, nx)
        The pixels.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that do not count.

    Returns
    -------
    mean : ndarray, shape (ny, nx)
        The mean round each pixel.
    """
    from scipy.ndimage import gaussian_filter

    if valid.all():
        return gaussian_filter(plane, WINDOW, truncate=3, mode="nearest")
    weight = gaussian_filter(valid.astype(np.float32), WINDOW, truncate=3)
    return gaussian_filter(np.where(valid, plane, 0), WINDOW, truncate=3) / np.maximum(weight, 1e-3)


def _ramp(values, limits):
    low, high = limits
    return np.clip((values - low) / (high - low), 0, 1)


def draw_to_zero(value, error, sure=1.0):
    """Draw a value to zero, as James & Stein (1961); it is zero within ``sure`` standard errors."""
    power = np.square(value)
    return value * np.maximum(power - np.square(sure * error), 0) / np.maximum(power, 1e-30)


def _draw_to_one(ratio, error):
    """
    Draw a ratio to 1: by its error against a typical scatter, unless it is far from 1 beyond doubt.

    Too small an error of a result does more harm than too large a one, so less is needed to raise a ratio.
    """
    power, change = np.square(error), ratio - 1
    typical, doubt = np.where(change > 0, *np.array([MORE, LESS])[:, :, None])
    kept = typical**2 / (typical**2 + power)
    sure = 1 - doubt**2 * power / np.maximum(np.square(change), 1e-30)
    return 1 + change * np.maximum(kept, sure)


def positive_part(value, error):
    """Mean of what is not negative and was measured with a Gaussian error."""
    from scipy.special import ndtr

    error = np.clip(error, 1e-12, 1e12)
    ratio = np.maximum(value / error, -8)
    return error * (ratio + np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi) / ndtr(ratio))


def _independent_pixels(correlation):
    """Number of independent squares of noise under the Gaussian window."""
    width = 7 if correlation is None else max(7, len(correlation))
    k = np.arange(-(width // 2), width // 2 + 1)
    k = np.exp(-((k / (2 * WINDOW)) ** 2)) / (2 * np.sqrt(np.pi) * WINDOW)  # the Gaussian with itself
    if correlation is None:
        return float(1 / k.max() ** 2)
    cut = (width - len(correlation)) // 2
    k = k[cut : width - cut]
    return float(1 / np.sum(k[:, None] * k * np.square(correlation)))


@dataclass(eq=False)
class Answer:
    """
    What a regressor says of an image, and what kind of place each pixel is.

    Parameters
    ----------
    z : ndarray, shape (ny, nx)
        The whitened image.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that were not measured.

    mean, std : ndarray, shape (ny, nx)
        Residual and standard deviation, in units of the noise.
    """

    z: np.ndarray
    valid: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    scaled_by: np.ndarray | None = field(default=None, init=False)
    scaled: tuple = field(default=(), init=False)

    def part(self, part):
        """
        Cut out a part.

        Parameters
        ----------
        part : tuple of slice
            The pixels (y, x).

        Returns
        -------
        answer : `Answer`
            The answer itself if the part is all of it.
        """
        if self.z[part].shape == self.z.shape:
            return self
        return Answer(self.z[part], self.valid[part], self.mean[part], self.std[part])

    @cached_property
    def scene(self):
        """The estimated noise-free scene in units of the noise."""
        return self.z + self.mean

    @cached_property
    def local(self):
        """The brightness of the place: a pixel alone would be sorted by its noise."""
        return local_mean(self.scene, self.valid)

    @cached_property
    def brightest(self):
        """The brightness of the brightest place about each pixel."""
        from scipy.ndimage import maximum_filter

        return maximum_filter(self.local, SKY_WIDTH, mode="nearest")

    @cached_property
    def darkest(self):
        """The brightness of the darkest place about each pixel."""
        from scipy.ndimage import minimum_filter

        return minimum_filter(self.local, SKY_WIDTH, mode="nearest")

    @cached_property
    def apart(self):
        """1 where there is sky only, also about each pixel of that sky, so that fluxes are left alone."""
        from scipy.ndimage import maximum_filter

        return _ramp(-maximum_filter(self.brightest, SKY_WIDTH, mode="nearest"), SKY)

    @cached_property
    def power(self):
        """Local mean of the squared residual."""
        return local_mean(np.square(self.mean), self.valid)

    @cached_property
    def variance(self):
        """The stated variance, bounded: the pixel was measured."""
        return np.minimum(np.square(self.std), MAX_VARIANCE)

    @cached_property
    def _node(self):
        last = len(POSITIONS) - 1
        brightness = np.where(self.local < DARK, -self.local, self.local)
        place = np.interp(np.arcsinh(brightness), POSITIONS, np.arange(last + 1.0)).astype(np.float32)
        node = np.minimum(place.astype(np.intp), last - 1)
        return node, place - node.astype(np.float32)

    @cached_property
    def _sharp(self):
        contrast = np.abs(self.scene - self.local) / (np.abs(self.local) + 3)
        return _ramp(local_mean(contrast, self.valid), SHARPNESS) * _ramp(self.local, SHARP_BRIGHTNESS)

    def between(self, values):
        """
        Interpolate between the nodes.

        Parameters
        ----------
        values : ndarray, shape (N_SETS,)
            Values at the nodes of smooth places, and of sharp ones.

        Returns
        -------
        plane : ndarray, shape (ny, nx)
            Its value at each pixel.
        """
        node, step = self._node
        smooth, sharp = np.reshape(values, (2, -1)).astype(np.float32)
        plane = smooth[node] + step * np.diff(smooth)[node]
        where, share = self._sharp_places
        node, step = node[where], step[where]
        plane[where] += share * (sharp[node] + step * np.diff(sharp)[node] - plane[where])
        return plane

    @cached_property
    def _sharp_places(self):
        where = np.nonzero(self._sharp)
        return where, self._sharp[where]

    @cached_property
    def shares(self):
        """
        Tell which sets each pixel counts for.

        Returns
        -------
        sets, weights : tuple of ndarray, shape (ny, nx)
            Four sets of each pixel and how much of it belongs to them.
        """
        node, step = self._node
        smooth, sharp = (1 - self._sharp) * self.valid, self._sharp * self.valid
        n = len(NODES)
        weights = smooth * (1 - step), smooth * step, sharp * (1 - step), sharp * step
        return (node, node + 1, node + n, node + 1 + n), weights


@dataclass(eq=False)
class Correction:
    r"""
    What is changed in the answers of a regressor.

    Attributes
    ----------
    width, final : ndarray, shape (N_SETS,)
        Factors of the stated variance, and of the variance of the corrected residual.

    excess : ndarray, shape (N_SETS,)
        What the residual has too much of, :math:`\langle r^2 + s^2 \rangle - 1`, where that is beyond doubt.

    spread : ndarray, shape (N_SETS,)
        Variance of that from place to place.

    power : ndarray, shape (N_SETS,)
        Mean squared residual.

    gain : ndarray, shape (N_SETS,)
        The excess over that which the width, at most that of the noise, shows locally: 1 where the width
        knows what is wrong, 2 where it does not.

    n_pixels : float
        Independent pixels under the window.

    scale : ndarray, shape (N_SETS,)
        Factor of the residual in addition to the local one.

    sky, sky_err : float
        Bias of the sky that is taken out, and its standard error, in units of the noise.
    """

    n_pixels: float
    width: np.ndarray = field(default_factory=lambda: np.ones(N_SETS))
    final: np.ndarray = field(default_factory=lambda: np.ones(N_SETS))
    excess: np.ndarray = field(default_factory=lambda: np.zeros(N_SETS))
    spread: np.ndarray = field(default_factory=lambda: np.zeros(N_SETS))
    power: np.ndarray = field(default_factory=lambda: np.ones(N_SETS))
    gain: np.ndarray = field(default_factory=lambda: np.ones(N_SETS))
    scale: np.ndarray = field(default_factory=lambda: np.ones(N_SETS))
    sky: float = 0.0
    sky_err: float = np.inf

    def local_excess(self, answer):
        """
        Excess of the residual round each pixel.

        Parameters
        ----------
        answer : `Answer`
            The answer of the regressor.

        Returns
        -------
        excess, own : ndarray, shape (ny, nx)
            The excess, and the variance that the noise gives it.
        """
        variance = np.minimum(answer.variance * answer.between(self.width), 1)
        gain, typical = answer.between(self.gain), answer.between(self.power)
        own = 2 / self.n_pixels * np.square(gain * np.maximum(answer.power, typical))
        return gain * (answer.power + local_mean(variance, answer.valid) - 1), own

    def apply(self, answer):
        r"""
        Correct an answer.

        With the calibrated variance :math:`s^2` and :math:`E\, n r = (s^2 - 1 - r^2) / 2` the best factor of
        the residual is

        .. math:: w = \frac{1 + \langle r^2 \rangle - \langle s^2 \rangle}{2 \langle r^2 \rangle}
                    = 1 - \frac{\langle r^2 \rangle + \langle s^2 \rangle - 1}{2 \langle r^2 \rangle} ,

        whose averages over a Gaussian of 1.5 pixels are drawn to those of all places alike. The variance of
        :math:`z + w r` is

        .. math:: s_w^2 = 1 - w + w s^2 - w (1 - w) \langle r^2 \rangle .

        Parameters
        ----------
        answer : `Answer`
            The answer of the regressor.

        Returns
        -------
        mean, std, factor : ndarray, shape (ny, nx)
            The corrected residual and standard deviation, and the factor of the residual. Pixels that were
            not measured stay as they are.
        """
        mean, variance, factor = self._scale(answer)
        if self.excess.any():
            variance = variance * answer.between(self.final)
        if self.sky:
            mean = mean - self.sky * answer.apart
        std = np.sqrt(np.maximum(variance, MIN_VARIANCE))
        valid = answer.valid
        return np.where(valid, mean, answer.mean), np.where(valid, std, answer.std), factor

    def _scale(self, answer):
        """Scaled residual, its variance and the factor, kept as long as that does not change."""
        variance = answer.variance * answer.between(self.width)
        if not self.excess.any():
            return answer.mean, variance, np.ones_like(answer.mean)
        if answer.scaled_by is not self.scale:
            local, own = self.local_excess(answer)
            power, excess, spread = (answer.between(v) for v in (self.power, self.excess, self.spread))
            trust = spread / (spread + own)
            excess = excess + trust * (local - excess)
            power = power + trust * (answer.power - power)
            factor = np.clip(1 - excess / (2 * power), 0, 1) * answer.between(self.scale)
            variance = variance + np.maximum(1 - 1 / answer.between(self.gain), 0) * np.maximum(excess, 0)
            left = 1 - factor + factor * variance - factor * (1 - factor) * power
            left = np.maximum(left, factor**2 * np.minimum(variance, 1) / 4)
            answer.scaled_by, answer.scaled = self.scale, (factor * answer.mean, left, factor)
        return answer.scaled


class Probe:
    """
    A part of a frame: the answer of the regressor, and that to an image with a little more noise.

    Parameters
    ----------
    answer, moved : `Answer`
        Both answers.

    signs : ndarray, shape (ny, nx)
        The signs of the change.

    step : float
        The size of the change.

    correlation : ndarray, optional
        The autocorrelation of the noise.
    """

    def __init__(self, answer, moved, signs, step, correlation=None):
        self.answer, self.moved, self.signs, self.step = answer, moved, signs, step
        self.origin = self
        response = (moved.scene - answer.scene) / step
        self.noise, self.known = measure_noise_power(
            answer.z, answer.scene, response, answer.valid, correlation
        )

    def with_answers(self, change):
        """
        Change the answers.

        Parameters
        ----------
        change : callable
            Returns another `Answer` for one.

        Returns
        -------
        probe : `Probe`
            With the other answers, and this one as its ``origin``.
        """
        probe = copy(self)
        probe.answer, probe.moved = change(self.answer), change(self.moved)
        return probe

    def corrected(self, correction):
        """
        Correct the answers.

        Parameters
        ----------
        correction : `Correction`
            The correction.

        Returns
        -------
        mean, std, factor, div : ndarray, shape (ny, nx)
            As `Correction.apply` has them, with the divergence of the corrected residual.
        """
        mean, std, factor = correction.apply(self.answer)
        moved = correction.apply(self.moved)[0] if correction.excess.any() else self.moved.mean
        shift = mean if correction.excess.any() else self.answer.mean
        return mean, std, factor, divergence(self.signs, shift, moved, self.step)

    def moments(self, correction):
        """
        Moments of the corrected answer at the nodes.

        Parameters
        ----------
        correction : `Correction`
            The correction.

        Returns
        -------
        moments : `Moments`
            For ``N_SETS`` sets.
        """
        mean, std, _, div = self.corrected(correction)
        return Moments.collect(*self.answer.shares, (self.noise, div, mean**2, std**2), N_SETS)


def fit_correction(probes, correlation=None):
    """
    Find what is to be changed.

    Parameters
    ----------
    probes : list of `Probe`
        Parts of a frame.

    correlation : ndarray, optional
        The autocorrelation of the noise.

    Returns
    -------
    correction : `Correction`
        For the whole frame.
    """
    correction = Correction(_independent_pixels(correlation))
    moments, doubt = _sum(probe.moments(correction) for probe in probes), _noise_doubt(probes)
    correction.width = _width_factor(moments, doubt)
    correction.power = np.maximum(moments.means()[2], 1e-3)
    correction.excess = _sure_excess(moments, doubt)
    correction.gain, correction.spread = _local_scatter(probes, correction)
    if correction.excess.any():
        moments = _sum(probe.moments(correction) for probe in probes)
        left = _sure_excess(moments, doubt)
        correction.scale = np.clip(1 - left / (2 * np.maximum(moments.means()[2], 1e-3)), 0, 1)
        final = _width_factor(_sum(probe.moments(correction) for probe in probes), doubt)
        correction.final = np.where(correction.excess > 0, final, 1)
    correction.sky, correction.sky_err = _sky_bias(probes, correction)
    return correction


def _noise_doubt(probes):
    """Relative error of the power of the noise, which is known in the sky and where the image shows it."""
    parts = [
        Moments.collect(*probe.answer.shares, (~probe.known, *3 * [probe.known]), N_SETS) for probe in probes
    ]
    return NOISE_ERROR + NOISE_DOUBT * PHOTONS * _sum(parts).means()[0]


def _sure_excess(moments, doubt):
    """What the residual has too much of beyond doubt; nodes of few pixels have what their neighbours have."""
    excess, err = moments.excess()
    _, div, square, _ = moments.means()
    power = 2 * np.maximum(square, 1e-3)
    share = _smooth_nodes(excess / power, np.hypot(err, 2 * doubt * div) / power)
    return power * np.maximum(draw_to_zero(*share, SURE), 0)


def _smooth_nodes(values, errors):
    """Values at nodes that differ little from their neighbours, as a random walk, and their errors."""
    weights = 1 / np.square(np.maximum(errors, 1e-6))
    steps = np.diff(np.eye(len(NODES)), axis=0) / STEP_OF_NODES
    both = np.kron(np.eye(2), steps.T @ steps)
    covariance = np.linalg.inv(both + np.diag(weights + 1e-6))
    return covariance @ (weights * values), np.sqrt(np.diag(covariance))


def _width_factor(moments, doubt):
    """Stein's error over the stated variance, drawn to 1 by its standard error."""
    mse, err = moments.error()
    err = np.hypot(err, doubt * (1 + 2 * moments.means()[1]))
    stated = np.maximum(moments.means()[3], MIN_VARIANCE)
    factor = _draw_to_one(positive_part(mse, err) / stated, err / stated)
    return np.clip(factor, 1 / MAX_WIDTH, MAX_WIDTH)


def _sum(moments):
    first, *others = moments
    for other in others:
        first = first + other
    return first


def _local_scatter(probes, correction):
    """Gain of the local excess, and its variance from place to place beyond that of noise."""
    parts = []
    for probe in probes:
        local, own = correction.local_excess(probe.answer)
        parts.append(Moments.collect(*probe.answer.shares, (own, local, local**2, own), N_SETS))
    own, local, square, _ = _sum(parts).means()
    doubt = DOUBT_POWER * correction.power
    gain = np.clip((correction.excess + doubt) / (np.maximum(local, 0) + doubt), MIN_GAIN, MAX_GAIN)
    return gain, gain**2 * np.maximum(square - local**2 - DOUBT * own, 0)


def _sky_bias(probes, correction):
    """Mean residual of the sky drawn to zero by the scatter of boxes, and its standard error."""
    levels, weights = [], []
    for probe in probes:
        sky = probe.answer.valid & (probe.answer.brightest < -SKY[0])
        mean = correction.apply(probe.answer)[0]
        for y in range(0, sky.shape[0], SKY_BOX):
            for x in range(0, sky.shape[1], SKY_BOX):
                part = slice(y, y + SKY_BOX), slice(x, x + SKY_BOX)
                number = np.count_nonzero(sky[part])
                if number >= SKY_BOX**2 // 4:
                    levels.append(mean[part][sky[part]].mean(dtype=float))
                    weights.append(number)
    if len(levels) < 4:
        return 0.0, np.inf
    level = np.average(levels, weights=weights)
    err = np.sqrt(np.average((levels - level) ** 2, weights=weights) / (len(levels) - 1))
    return float(draw_to_zero(level, err)), float(err)

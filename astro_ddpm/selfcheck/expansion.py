# Licensed under a 3-clause BSD style license - see LICENSE.rst
r"""
What a few linear terms improve in the answer of a regressor, on the image itself.

A network knows the PSF and the sampling of a camera only as far as its training told it; the image knows
better at which scales there is only noise. With the starlet planes :math:`r_j` of the residual and
:math:`z_j` of the image, the result becomes

.. math:: z + r + \sum_j \left( a_j r_j + b_j z_j \right) .

Its mean square error is quadratic in the coefficients, and Stein's lemma gives it without truth, so those
that are best follow from linear equations (Blu & Luisier 2007, *The SURE-LET approach to image denoising*,
IEEE Transactions on Image Processing 16, 2778). They depend on the kind of place, as in `Answer.between`. No
plane has a mean, so neither the sky nor the flux of a wide source changes.
"""

from dataclasses import dataclass, fields

import numpy as np

from .calibrate import DARK, N_SETS, NODES, PHOTONS, SKY, Answer
from .stein import ERROR_BLOCK, divergence, power_spectrum

__all__ = ["Expansion", "fit_expansion", "starlet_planes"]

SPLINE = np.array([1, 4, 6, 4, 1], np.float32) / 16
SCALES = 3
TERMS = 2 * SCALES
LIMIT = 3.0  # of the noise, for the planes of the image: noise is within, the structure of cores is not
WHITE = np.array([0.890, 0.201, 0.0857], np.float32)  # standard deviation of the planes of white noise
MIN_SKY = 2500  # pixels, without which the noise of the planes is not known well enough
POWER_ERROR = 0.1  # typical relative error of the power of the noise as it is stated
COARSE_ERROR = 0.05  # the same at the coarsest scale, at which sky and faint sources are alike
PHOTON_ERROR = 0.2  # the same where the noise is no longer that of the sky
TYPICAL = 0.5  # size of a coefficient
STEP_OF_NODES = 0.3  # by which it differs from node to node
DOUBT = 2.0  # variance of Stein's estimate of a gradient over that by the noise of the pixels alone
SHARED = 0.5  # of what says how far to trust the coefficients of a node belongs to the next one


def starlet_planes(image, scales=SCALES):
    r"""
    The planes of the starlet transform of the finest scales; what is left of the image is the smooth plane.

    .. math:: w_j = c_j - h_j * c_j, \qquad c_{j+1} = h_j * c_j

    with the B3-spline :math:`h_j`, its elements :math:`2^j` pixels apart (Starck & Murtagh 2006,
    *Astronomical Image and Data Analysis*, section 2.3). Beyond the edges lies the mirror image.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
        The image.

    scales : int, optional
        The number of planes.

    Returns
    -------
    planes : ndarray, shape (scales, ny, nx)
        From fine to coarse.
    """
    from scipy.ndimage import correlate1d

    planes = np.empty((scales, *image.shape), image.dtype)
    for scale, plane in enumerate(planes):
        spline = np.zeros(4 * 2**scale + 1, image.dtype)
        spline[:: 2**scale] = SPLINE
        smooth = correlate1d(correlate1d(image, spline, 0, mode="mirror"), spline, 1, mode="mirror")
        np.subtract(image, smooth, out=plane)
        image = smooth
    return planes


def _terms(answer):
    """The planes of residual and image, shape (6, ny, nx)."""
    limits = (LIMIT * WHITE)[:, None, None]
    image = np.clip(starlet_planes(answer.z), -limits, limits)
    return np.concatenate([starlet_planes(np.where(answer.valid, answer.mean, 0)), image])


@dataclass(eq=False)
class Expansion:
    """
    Coefficients of the terms.

    Parameters
    ----------
    coefficients : ndarray, shape (6, N_SETS)
        Of the planes of the residual and of the image, for each kind of place.

    variance : ndarray, shape (N_SETS,)
        Factor of the stated variance.
    """

    coefficients: np.ndarray
    variance: np.ndarray
    reach = 2 * (2**SCALES - 1)  # pixels that matter for the terms of one

    def apply(self, answer):
        """
        Add the terms to an answer.

        Parameters
        ----------
        answer : `Answer`
            The answer of the regressor.

        Returns
        -------
        answer : `Answer`
            With another residual and standard deviation. Pixels that were not measured stay as they are.
        """
        if not self.coefficients.any():
            return answer
        mean = answer.mean.copy()
        for values, plane in zip(self.coefficients, _terms(answer), strict=True):
            mean += answer.between(values) * plane
        std = answer.std * np.sqrt(answer.between(self.variance))
        valid = answer.valid
        return Answer(answer.z, valid, np.where(valid, mean, answer.mean), np.where(valid, std, answer.std))


@dataclass
class _Equations:
    """
    Sums over the pixels of each kind of place.

    Attributes
    ----------
    matrix : ndarray, shape (N_SETS, 6, 6)
        Products of the terms.

    gradient, div : ndarray, shape (N_SETS, 6)
        Half the derivative of the squared error by the coefficients, and the divergence of the terms.

    stated : ndarray, shape (N_SETS,)
        The stated variance.
    """

    matrix: np.ndarray
    gradient: np.ndarray
    div: np.ndarray
    stated: np.ndarray

    @classmethod
    def collect(cls, probes, powers):
        """Sums over the two halves of the frame, the fields of a chessboard."""
        shapes = (TERMS, TERMS), (TERMS,), (TERMS,), ()
        halves = [cls(*(np.zeros((N_SETS, *shape)) for shape in shapes)) for _ in range(2)]
        powers = np.tile(powers, 2).astype(np.float32)[:, None, None]
        for probe in probes:
            answer, terms = probe.answer, _terms(probe.answer)
            div = divergence(probe.signs, terms, _terms(probe.moved), probe.step)
            planes = np.stack([*terms, *(terms * answer.mean + powers * div), *div, answer.variance])
            planes = planes.reshape(len(planes), -1)
            block = np.add.outer(*(np.arange(length) // ERROR_BLOCK for length in answer.z.shape))
            for sets, weights in zip(*answer.shares, strict=True):
                kinds = (2 * sets + block % 2).ravel()
                order = np.argsort(kinds, kind="stable")
                edges = np.searchsorted(kinds[order], np.arange(2 * N_SETS + 1))
                for kind in np.flatnonzero(np.diff(edges)):
                    where = order[edges[kind] : edges[kind + 1]]
                    halves[kind % 2]._add(kind // 2, planes[:, where], weights.ravel()[where])
        return halves

    def _add(self, index, planes, weights):
        terms = planes[:TERMS]
        sums = planes[TERMS:] @ weights
        self.matrix[index] += (weights * terms) @ terms.T
        self.gradient[index] += sums[:TERMS]
        self.div[index] += sums[TERMS:-1]
        self.stated[index] += sums[-1]

    def __add__(self, other):
        return _Equations(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def solve(self, errors):
        """Most likely coefficients, shape (N_SETS, 6), for relative errors of the noise of the planes."""
        steps = np.kron(np.eye(2), np.diff(np.eye(len(NODES)), axis=0)) / STEP_OF_NODES
        precision = np.kron(steps.T @ steps + np.eye(N_SETS) / TYPICAL**2, np.eye(TERMS))
        known = np.zeros(N_SETS * TERMS)
        pairs = np.tile(np.eye(SCALES), 2)
        for index, matrix in enumerate(self.matrix):
            doubts = pairs * self.div[index] * np.hypot(errors, PHOTON_ERROR * PHOTONS[index])[:, None]
            covariance = DOUBT * matrix + doubts.T @ doubts + 1e-6 * np.eye(TERMS)
            weighted = np.linalg.solve(covariance, matrix)
            part = slice(index * TERMS, (index + 1) * TERMS)
            precision[part, part] += matrix @ weighted
            known[part] = -weighted.T @ self.gradient[index]
        return np.linalg.solve(precision, known).reshape(N_SETS, TERMS)

    def best_factor(self, coefficients):
        """Numerator and denominator of the best factor of coefficients, shape (N_SETS,)."""
        square = np.einsum("si,sij,sj->s", coefficients, self.matrix, coefficients)
        return -np.sum(self.gradient * coefficients, axis=1), square


def fit_expansion(probes, correlation=None):
    r"""
    Find the coefficients with the least error by Stein.

    For the terms :math:`b` of a kind of place, with :math:`A = \sum b b^T` and the gradient of the error
    :math:`g = \sum (r b + \nu \, \mathrm{div}\, b)`, the best coefficients are :math:`-A^{-1} g`. They are
    known with the covariance :math:`A^{-1}`, twice that for the noise of the probe, and with the error of the
    powers :math:`\nu` of the noise at each scale, which the sky tells. They are drawn to zero and to those of
    neighbouring places as by Gaussian priors, and multiplied by the factor, from 0 to 1, that is best beyond
    a standard error where each half of the image is judged with the coefficients of the other half.

    Where that wins the share :math:`q` of the stated variance, it falls by the share :math:`q (1 - q)` only:
    a variance of which much can be won was too small.

    Parameters
    ----------
    probes : list of `~astro_ddpm.selfcheck.calibrate.Probe`
        Parts of a frame.

    correlation : ndarray, shape (k, k), optional
        The autocorrelation of the noise.

    Returns
    -------
    expansion : `Expansion`
        For the whole frame. It changes nothing if there is too little sky to know the noise.
    """
    known = _noise_powers(probes, correlation)
    if known is None:
        return Expansion(np.zeros((TERMS, N_SETS)), np.ones(N_SETS))
    powers, errors = known
    one, other = _Equations.collect(probes, powers)
    judged = other.best_factor(one.solve(errors)), one.best_factor(other.solve(errors))
    distance = np.abs(np.subtract.outer(*2 * [np.arange(len(NODES))]))
    shared = np.kron(np.eye(2), SHARED**distance)
    won, square = np.sum(judged, axis=0) @ shared
    factor = np.clip((won - np.sqrt(DOUBT * square)) / np.maximum(square, 1e-30), 0, 1)
    both, gain = one + other, np.maximum(2 * factor * won - factor**2 * square, 0)
    share = np.minimum(gain / np.maximum(both.stated @ shared, 1e-30), 1)
    return Expansion(factor * both.solve(errors).T, 1 - share * (1 - share))


def _noise_powers(probes, correlation, size=64):
    """Power of the noise of the planes in the sky, over that stated, and its errors; None without sky."""
    total, number = np.zeros(SCALES), 0
    for probe in probes:
        sky = probe.answer.valid & (probe.answer.brightest < -SKY[1]) & (probe.answer.darkest > DARK)
        total += np.square(starlet_planes(probe.answer.z))[:, sky].sum(axis=1)
        number += np.count_nonzero(sky)
    if number < MIN_SKY:
        return None
    pixel = np.zeros((size, size), np.float32)
    pixel[size // 2, size // 2] = 1
    spectrum = np.ones((size, size)) if correlation is None else power_spectrum(correlation, size)
    expected = spectrum * np.abs(np.fft.fft2(starlet_planes(pixel))) ** 2
    mean, square = expected.mean(axis=(1, 2)), np.square(expected).mean(axis=(1, 2))
    variance = 2 * square / mean**2 / number
    share = POWER_ERROR**2 / (POWER_ERROR**2 + variance)
    powers, errors = 1 + share * (total / number / mean - 1), np.sqrt(share * variance)
    powers[-1], errors[-1] = powers[-2], max(errors[-2], COARSE_ERROR)
    return powers, errors

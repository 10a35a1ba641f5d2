# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The check of a result: how wrong it is, what was changed for that, and in which words a user is told.
"""

from dataclasses import dataclass
from math import isfinite, prod

import numpy as np

from .calibrate import NODES, REACH, Answer, Correction, Probe, fit_correction, local_mean, positive_part
from .expansion import fit_expansion
from .judge import NoiseJudgement, judge_noise, noise_autocorrelation
from .stein import STEP, Moments, colour, random_signs

__all__ = ["Check", "Verifier", "check_answer", "choose_parts", "pool_tables", "sentence"]

EDGES = np.array([-np.inf, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, np.inf])
WHOLE = 2**20  # pixels of a frame that is checked as a whole
PART = 256  # pixels on a side of the parts of a larger frame that are checked
SHARE = 0.45  # of the pixels that the networks see, with their halos; tiles of the frame have halos too
SKY_BRIGHTNESS = 3.0  # of the noise
CENTRE = 2048  # pixels of a frame whose noise is measured
ENOUGH = 20000  # pixels of a bin
STATED_ERROR = 0.3  # of the calibrated variance, relative, where Stein's estimate cannot tell
LEFT_ALONE = 0.4  # factors of the residual below which pixels are left nearly as they were
REDUCED = 0.9
COLUMNS = {
    "low": "lower edge of the bin: brightness of the result over a Gaussian of 1.5 pixels, over the noise",
    "high": "upper edge of the bin",
    "n_pixels": "pixels of the image in the bin",
    "rms_input": "error of the input in units of its noise",
    "rms": "estimated error of the result after all corrections, in units of the noise of the input",
    "rms_err": "standard error of rms",
    "factor": "mean factor of the residual of the network",
    "width_factor": "corrected over stated standard deviation",
    "bias": "mean change of the pixels in units of the noise",
}


@dataclass(frozen=True, eq=False)
class Check:
    """
    What is known about a result without truth.

    Attributes
    ----------
    table : `~astropy.table.QTable`
        A row for each bin of the brightness of the result, averaged over a Gaussian of 1.5 pixels.

    regions : `~astropy.table.QTable` or None
        The same for the regions of a map.

    noise : `NoiseJudgement`
        The noise of the image.

    correction : `Correction`
        What was changed.

    before : ndarray
        The error of the network before that, in the bins of the table.

    before_err : ndarray
        Its standard error.
    """

    table: object
    regions: object
    noise: NoiseJudgement
    correction: Correction
    before: np.ndarray
    before_err: np.ndarray

    def record(self):
        """
        Numbers for the header.

        Returns
        -------
        record : dict
            Error of the worst bin before and after, bias of the sky that was taken out, stated over measured
            noise, as far as they are known.
        """
        many = self.table["n_pixels"] >= min(100, max(self.table["n_pixels"], default=0))
        values = {
            "worst_before": max(self.before[many], default=np.nan),
            "worst_after": max(self.table["rms"][many], default=np.nan),
            "sky_bias": self.correction.sky,
            "stated_noise": self.noise.ratio,
        }
        return {name: round(float(value), 4) for name, value in values.items() if isfinite(value)}

    def harm(self):
        """
        Say where the network alone would have made the image worse.

        Returns
        -------
        text : str
            Empty if nowhere.
        """
        worse = (self.before - 3 * self.before_err > 1) & (self.table["n_pixels"] >= 500)
        if not worse.any():
            return ""
        first = np.flatnonzero(worse)[0]
        return (
            f"the network alone is wrong by {self.before[worse].max():.2g} times the noise of the image in "
            f"places of brightness from {max(self.table['low'][first], 0):.3g} sigma on, measured on the "
            "image itself: it was not made for such images. The result was corrected, its error is at most "
            f"{max(self.table['rms']):.2g}"
        )


class Verifier:
    """
    The check as a step of an enhancement.

    Its signs are the same for every image, so the answer of a model that draws no samples depends on no seed.

    Parameters
    ----------
    data, sigma : ndarray, shape (ny, nx)
        The sky-subtracted image as it came and its noise.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that were not measured.
    """

    def __init__(self, data, sigma, valid):
        usable = np.where(valid, sigma, 1)
        self.z, self.valid = np.where(valid, data, 0) / usable, valid
        self.noise = judge_noise(self.z, valid, data, usable)
        self.check = None

    def verify(self, z, mean, std, regressor):
        """
        Check and correct an answer.

        Parameters
        ----------
        z, mean, std : ndarray, shape (ny, nx)
            Whitened image, mean and standard deviation of its residual.

        regressor : callable
            The network that gave them, as for `check_answer`.

        Returns
        -------
        mean, std : ndarray, shape (ny, nx)
            The corrected answer.
        """
        z = z.astype(np.float32, copy=False)
        mean, std, self.check = check_answer(z, self.valid, mean, std, regressor, judgement=self.noise)
        return mean, std

    @property
    def table(self):
        """The table of the check, whose metadata say what it means."""
        table = self.check.table
        table.meta = {"sentence": sentence(table), **self.check.record()}
        return table

    def report(self, *, given):
        """
        Warn of wrong noise and of measured harm.

        Parameters
        ----------
        given : bool
            Whether the noise was stated by the user.

        Returns
        -------
        record : dict
            Numbers for the header.
        """
        from astro_ddpm.domain import OutOfDomainWarning
        from astro_ddpm.utils import warn_user

        faults, harm = self.noise.warnings(stated=given), self.check.harm()
        for text in faults:
            warn_user(text)
        if harm and not faults:  # what a wrong noise does is no fault of the networks
            warn_user(harm, OutOfDomainWarning)
        return self.check.record()


def check_answer(z, valid, mean, std, regressor, *, seed=0, judgement=None, parts=None, regions=None):
    """
    Estimate the error of a regressor on an image, and correct its answer.

    Parameters
    ----------
    z : ndarray of float32, shape (ny, nx)
        The whitened image, holes filled.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that were not measured: they count nowhere and stay as they are.

    mean, std : ndarray of float32, shape (ny, nx)
        The answer: the residual and its standard deviation, in units of the noise.

    regressor : callable
        Called as ``regressor(z, part)`` with another image of the same shape and slices (y, x); returns mean
        and standard deviation of that part, the same as if the whole frame were computed.

    seed : int, optional
        The seed of the signs.

    judgement : `NoiseJudgement`, optional
        That of `judge_noise`, if it is known already.

    parts : list of tuple of slice, optional
        Where the regressor is tried; by default the whole frame, or parts of a larger one.

    regions : ndarray of int, shape (ny, nx), optional
        Regions to be judged on their own, such as the segments of a catalog; 0 counts for none.

    Returns
    -------
    mean, std : ndarray of float32, shape (ny, nx)
        The corrected answer.

    check : `Check`
        How wrong it is.
    """
    judgement = judgement or judge_noise(z, valid)
    answer = Answer(z, valid, mean, std)
    parts = parts or choose_parts(answer)
    correlation = judgement.correlation
    if correlation is not None:  # or is it that of faint sources?
        centre = tuple(slice(max(n - CENTRE, 0) // 2, (n + CENTRE) // 2) for n in z.shape)
        faint, scene = valid & (answer.local < SKY_BRIGHTNESS), answer.scene
        planes = (plane[centre] for plane in (z, faint))
        correlation = noise_autocorrelation(*planes, 1 / judgement.ratio, scene[centre])
    signs = random_signs(seed, z.shape) * valid
    change = np.float32(STEP) * valid * colour(signs, correlation)
    shifted, probes = z + change, []
    for part in parts:
        here = answer.part(part)
        moved = Answer(shifted[part], valid[part], *regressor(shifted, part))
        probes.append(Probe(here, moved, signs[part], STEP, correlation))
    expansion = fit_expansion(probes, correlation)
    probes = [probe.with_answers(expansion.apply) for probe in probes]
    correction = fit_correction(probes, correlation)
    new_mean, new_std = _apply(correction, expansion, answer)
    number = np.bincount(_bins(z + new_mean, valid)[valid], minlength=len(EDGES) - 1)
    places = [_bins(p.answer.z + p.corrected(correction)[0], p.answer.valid) for p in probes]
    table, before, before_err = _tabulate(probes, correction, places, number)
    if regions is not None:
        places = [np.maximum(regions[part], 0) for part in parts]
        regions = _tabulate(probes, correction, places, np.bincount(regions[valid & (regions >= 0)]), True)[0]
    return new_mean, new_std, Check(table, regions, judgement, correction, before, before_err)


def _whole(shape):
    return tuple(slice(0, n) for n in shape)


def choose_parts(answer):
    """
    Choose parts of a frame that fill the bins.

    Parameters
    ----------
    answer : `Answer`
        The answer for the whole frame.

    Returns
    -------
    parts : list of tuple of slice
        The whole frame if it is small; otherwise squares of a fixed grid, which do not depend on tiles.
    """
    shape = answer.z.shape
    if prod(shape) <= WHOLE:
        return [_whole(shape)]
    squares = [
        (slice(y, min(y + PART, shape[0])), slice(x, min(x + PART, shape[1])))
        for y in range(0, shape[0], PART)
        for x in range(0, shape[1], PART)
    ]
    counts = np.array(
        [
            np.bincount(np.digitize(answer.scene[s][answer.valid[s]], NODES), minlength=len(NODES) + 1)
            for s in squares
        ]
    )
    halo = 110  # pixels, of the networks
    number = max(2, int(SHARE * prod(shape) / (PART + halo) ** 2))
    chosen, have = [], np.zeros(len(NODES) + 1)
    for _ in range(min(number, len(squares))):
        gain = (np.minimum(have + counts, ENOUGH) - np.minimum(have, ENOUGH)).sum(axis=1)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(squares[best])
        have += counts[best]
        counts[best] = 0
    return chosen


def _apply(correction, expansion, answer, size=1024):
    """Correct a frame part by part, so that no more memory is needed."""
    if prod(answer.z.shape) <= WHOLE:
        return correction.apply(expansion.apply(answer))[:2]
    planes = answer.z, answer.valid, answer.mean, answer.std
    mean, std = np.empty_like(answer.mean), np.empty_like(answer.std)
    reach = REACH + expansion.reach
    for y in range(0, mean.shape[0], size):
        for x in range(0, mean.shape[1], size):
            corner = y, x
            outer = tuple(slice(max(i - reach, 0), i + size + reach) for i in corner)
            inner = tuple(slice(i - o.start, i - o.start + size) for i, o in zip(corner, outer, strict=True))
            parts = correction.apply(expansion.apply(Answer(*(plane[outer] for plane in planes))))
            mean[y : y + size, x : x + size], std[y : y + size, x : x + size] = (p[inner] for p in parts[:2])
    return mean, std


def _bins(scene, valid):
    """Bin of each pixel, by the brightness round it: by its own, noise would choose the bin."""
    return np.digitize(local_mean(scene, valid), EDGES) - 1


def _tabulate(probes, correction, places, number, regions=False):
    """Table of sets of pixels; error of the uncorrected answer, and its standard error."""
    from astropy.table import QTable

    n_sets = len(number)
    after, before, others = None, None, np.zeros((5, n_sets))
    identity = Correction(correction.n_pixels)
    for probe, place in zip(probes, places, strict=True):
        answer = probe.answer
        place = np.clip(place, 0, n_sets - 1)
        mean, std, factor, div = probe.corrected(correction)
        first = probe.origin
        first_div = first.corrected(identity)[3]
        weight = answer.valid.astype(np.float32)
        new = Moments.collect([place], [weight], (probe.noise, div, mean**2, std**2), n_sets)
        old = Moments.collect(
            [place], [weight], (probe.noise, first_div, first.answer.mean**2, answer.variance), n_sets
        )
        after, before = (new, old) if after is None else (after + new, before + old)
        planes = (np.ones_like(mean), factor, mean, answer.std**2, std**2)
        others += [np.bincount(place.ravel(), (weight * p).ravel(), n_sets) for p in planes]
    seen, factor, bias, stated, calibrated = others / np.maximum(others[0], 1)
    mse, mse_err = _best_estimate(after)
    old, old_err = before.error()
    rms, old = (np.sqrt(np.maximum(value, 1e-6)) for value in (mse, old))
    columns = {
        "n_pixels": number,
        "rms_input": np.sqrt(np.maximum(after.means()[0], 0)),
        "rms": rms,
        "rms_err": mse_err / (2 * rms),
        "factor": factor,
        "width_factor": np.sqrt(calibrated / np.maximum(stated, 1e-12)),
        "bias": bias,
    }
    names = {"region": np.arange(n_sets)} if regions else {"low": EDGES[:-1], "high": EDGES[1:]}
    used = (number > 0) & (seen > 0)
    table = QTable({name: column[used] for name, column in (names | columns).items()}, descriptions=COLUMNS)
    for name in [*columns][1:]:
        table[name].info.format = ".3g"
    return table, old[used], (old_err / (2 * old))[used]


def _best_estimate(moments):
    """Stein's error and the calibrated variance, weighted by their errors."""
    from .calibrate import NOISE_ERROR

    mse, err = moments.error()
    err = np.hypot(err, NOISE_ERROR)
    mse = positive_part(mse, err)
    stated = np.maximum(moments.means()[3], 1e-6)
    weights = 1 / np.square(err), 1 / np.square(STATED_ERROR * stated)
    return np.average([mse, stated], axis=0, weights=weights), np.sqrt(1 / np.sum(weights, axis=0))


def pool_tables(tables):
    """
    Put the tables of several images of one camera together.

    Parameters
    ----------
    tables : iterable of `~astropy.table.QTable`
        The tables of their checks.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row for each bin. Mean squares are averaged over pixels.

    Raises
    ------
    ValueError
        If there is no table.
    """
    from astropy.table import QTable, vstack

    tables = list(tables)
    if not tables:
        msg = "tables must not be empty"
        raise ValueError(msg)
    rows = vstack(tables, metadata_conflicts="silent")
    pooled = []
    for low in np.unique(rows["low"]):
        bin_ = rows[rows["low"] == low]
        weight = bin_["n_pixels"] / bin_["n_pixels"].sum()
        row = {"low": low, "high": bin_["high"][0], "n_pixels": int(bin_["n_pixels"].sum())}
        for name in ("rms_input", "rms"):
            row[name] = np.sqrt(np.sum(weight * bin_[name] ** 2))
        row["rms_err"] = np.sqrt(np.sum((weight * bin_["rms"] * bin_["rms_err"]) ** 2)) / row["rms"]
        row |= {name: np.sum(weight * bin_[name]) for name in ("factor", "width_factor", "bias")}
        pooled.append(row)
    return QTable({name: [row[name] for row in pooled] for name in COLUMNS}, descriptions=COLUMNS)


def sentence(table):
    """
    Say in words what a table of a check means.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The table.

    Returns
    -------
    text : str
        One sentence.
    """
    counted = table[table["n_pixels"] >= 100]
    if not len(counted):
        return "The image has too few pixels to tell how wrong the result is."
    factor, low = np.asarray(counted["factor"]), np.asarray(counted["low"])
    top = len(factor) - np.argmin(np.append((factor < LEFT_ALONE)[::-1], False))
    if top == 0:
        return "The networks do not help on this camera; all pixels were left nearly as they were."
    if top < len(factor):
        return (
            f"Above {low[top]:.3g} sigma the networks do not help on this camera; these pixels were left "
            "nearly as they were."
        )
    least, most = min(counted["rms"]), max(counted["rms"])
    errors = f"the error is estimated as {least:.2g} to {most:.2g} of the noise of the input"
    reduced = np.flatnonzero(factor < REDUCED)
    if reduced.size:
        where = "in the sky" if reduced[0] == 0 else f"from {low[reduced[0]]:.3g} sigma on"
        return f"The networks help, but less {where}, where their change was reduced; {errors}."
    return f"The networks help at every brightness of this image; {errors}."

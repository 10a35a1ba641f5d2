# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The noise judged: what an image shows of its noise beside what was stated.
"""

from dataclasses import dataclass

import numpy as np

from astro_ddpm.noise import measure_banding
from astro_ddpm.noise.correlation import independent_lag
from astro_ddpm.noise.sky import MIN_BANDING

from .stein import power_spectrum

__all__ = ["NoiseJudgement", "judge_noise", "noise_autocorrelation"]

MAD_TO_STD = 1.482602218505602
RADIUS = 3  # pixels, beyond which noise is taken as independent
LAG = 2 * RADIUS + 2  # of the differences in which correlations are measured
BOX = 32  # pixels, of the parts among which the emptiest are looked for
EMPTY = 0.2  # the share of the boxes that are
LOW = 0.965  # of the noise, what they have because the lowest were chosen
MAX_TAILS = 1.12  # root mean square over robust scatter
MAX_SKY = 5.0  # of the noise, above which a source fills the image
MIN_PIXELS = 300
MAX_STRUCTURE = 1.15  # of the noise: more scatter shows sources
MIN_CORRELATION = 0.03
SCENE_DOUBT = 0.25  # of the power of an estimated scene, which may be wrong by as much
MANY_PIXELS = 1000
FEW_RATIO, MANY_RATIO = 1.5, 1.2
CROWDED_RATIO = 0.75  # faint sources look like noise: less than that must be stated
MAX_WIDTH = 2048  # of the central part that is measured
MAX_STEP = 0.7  # of the noise
DARK = 4.0  # of the noise: what is darker than all about it by more is no Gaussian noise
MAX_DARK = 1e-3  # of the pixels; of Gaussian noise a hundredth of that
CAUSES = (
    "the weight is an exposure time; a variance was read as sigma; GAIN is a setting of the camera, not "
    "electron per adu; a mean of N frames has the header of one; the error plane is that of a drizzled image"
)


@dataclass(frozen=True)
class NoiseJudgement:
    """
    What an image shows of its noise.

    Attributes
    ----------
    ratio : float
        Stated over measured noise; nan if it cannot be measured.

    n_pixels : int
        The number of pixels behind it.

    correlation : ndarray, shape (7, 7), or None
        The autocorrelation of the noise, zero where it is within its error; None for white noise.

    rows, columns : float
        Scatter of the level of rows and columns beyond that of the noise, in units of the noise.

    step : float
        The step of the values in units of the noise; 0 if there is none.

    dark : float
        The share of the pixels of the sky that are darker than all about them by 4 times the noise.
    """

    ratio: float
    n_pixels: int
    correlation: np.ndarray | None
    rows: float
    columns: float
    step: float
    dark: float = 0.0

    def power_spectrum(self, size=64):
        """
        Power spectrum of the noise.

        Parameters
        ----------
        size : int, optional
            The number of frequencies of each axis.

        Returns
        -------
        power : ndarray, shape (size, size)
            With the mean 1, in the order of `numpy.fft.fft2`.
        """
        return power_spectrum(np.ones((1, 1)) if self.correlation is None else self.correlation, size)

    def warnings(self, *, stated=True):
        """
        Say what is wrong.

        Parameters
        ----------
        stated : bool, optional
            False if the noise was measured in the same image: what is wrong with it and banding are known.

        Returns
        -------
        texts : list of str
            A sentence for each fault; none for a right noise.
        """
        texts = []
        limit = MANY_RATIO if self.n_pixels >= MANY_PIXELS else FEW_RATIO
        if stated and (self.ratio > limit or self.ratio < min(1 / limit, CROWDED_RATIO)):
            texts.append(
                f"the stated noise is {self.ratio:.2g} times the noise measured in the sky of the image "
                f"(1 stated, {1 / self.ratio:.2g} measured). Usual causes: {CAUSES}"
            )
        for name, value in (("rows", self.rows), ("columns", self.columns)):
            if stated and value > MIN_BANDING:
                texts.append(
                    f"the level of {name} differs by {value:.2g} of the noise (banding), which the networks "
                    "may take for structure; subtract it"
                )
        if self.step > MAX_STEP:
            texts.append(
                f"the values of the image come in steps of {self.step:.2g} of its noise, which is then no "
                "longer Gaussian"
            )
        if self.dark > MAX_DARK:
            texts.append(
                f"{self.dark:.1%} of the pixels of the sky are darker than all about them by more than "
                f"{DARK:g} times the noise: dead pixels, or noise that is not Gaussian. The result keeps "
                "them, and its errors are larger than it states; mask them before"
            )
        return texts


def judge_noise(z, valid, data=None, sigma=None):
    """
    Compare the noise of an image with what was stated.

    Parameters
    ----------
    z : ndarray, shape (ny, nx)
        The image over its stated noise.

    valid : ndarray of bool, shape (ny, nx)
        False for pixels that were not measured.

    data, sigma : ndarray, shape (ny, nx), optional
        The image as it came and its noise, in which steps are looked for.

    Returns
    -------
    judgement : `NoiseJudgement`
        Of the central 2048 x 2048 pixels.
    """
    centre = tuple(slice(max(n - MAX_WIDTH, 0) // 2, (n + MAX_WIDTH) // 2) for n in z.shape)
    z, valid = np.asarray(z[centre], float), valid[centre]
    z = np.where(valid, z, 0.0)
    faint = _faint(z, valid)
    measured, number, full = _measured_noise(z, faint, independent_lag(z, ~faint))
    step = 0.0 if data is None else _step(data[centre], sigma[centre], valid)
    correlation = noise_autocorrelation(z, faint, measured)
    rows, columns = (0.0, 0.0) if full else np.divide(measure_banding(z, ~faint), measured)
    dark = _dark_share(z, faint, measured)
    return NoiseJudgement(1 / measured, number, correlation, float(rows), float(columns), step, dark)


def _faint(z, valid):
    """Mark the sky: pixels whose surroundings do not exceed the middle of the sky by its scatter."""
    from scipy.ndimage import gaussian_filter

    weight = np.maximum(gaussian_filter(valid.astype(float), 2), 1e-6)
    level = gaussian_filter(z, 2) / weight
    low, middle = np.quantile(level[valid], [0.16, 0.5])
    return valid & (level < middle + 2 * (middle - low))


def _dark_share(z, faint, noise):
    """Share of the pixels of the sky that are much darker than it, and than the four pixels two away."""
    inner = slice(2, -2)
    about = [z[:-4, inner], z[4:, inner], z[inner, :-4], z[inner, 4:]]
    use = faint[inner, inner]
    if not use.any():
        return 0.0
    level = np.minimum.reduce([*about, np.full(use.shape, np.quantile(z[faint], 0.16))])
    return float(np.mean((z[inner, inner] < level - DARK * noise)[use]))


def _contrast(z, use, lag):
    """Second differences at a lag, with the variance of one pixel, and where all four pixels can be used."""
    corners = (slice(lag, None), slice(None, -lag))
    values = (z[y, x] for y in corners for x in corners)
    a, b, c, d = values
    return (a - b - c + d) / 2, np.logical_and.reduce([use[y, x] for y in corners for x in corners])


def _robust(values):
    return MAD_TO_STD * np.median(np.abs(values))


def _measured_noise(z, faint, lag):
    """
    Noise of the emptiest boxes, the number of pixels of the sky behind it, and whether these are crowded.

    Where even these are full of sources, which have longer tails than noise or are bright, the noise is
    between that of fourth differences of neighbours, which sources hardly change, and theirs; the stated one
    may be right.
    """
    if min(z.shape) <= LAG:
        return np.nan, 0, False
    contrast, use = _contrast(z, faint, lag)
    fine = (_contrast(z, faint, 1)[0] / 2)[1:-1, 1:-1]
    fine = (fine[:-1, :-1] - fine[1:, :-1] - fine[:-1, 1:] + fine[1:, 1:]) / 1.5
    fine = fine[: contrast.shape[0], : contrast.shape[1]]
    boxes = []
    for y in range(0, contrast.shape[0], BOX):
        for x in range(0, contrast.shape[1], BOX):
            part = slice(y, y + BOX), slice(x, x + BOX)
            values, inside = (
                contrast[part][use[part]],
                use[part][: fine[part].shape[0], : fine[part].shape[1]],
            )
            if values.size >= MIN_PIXELS and inside.any():
                noise = max(_robust(values), 1e-12)
                boxes.append((noise, np.sqrt(np.mean(values**2)) / noise, _robust(fine[part][inside])))
    if not boxes:
        return np.nan, 0, False
    noise, tails, fine = np.array(boxes).T
    measured = np.quantile(noise, EMPTY) / LOW
    empty = noise <= np.quantile(noise, EMPTY)
    crowded = bool(np.median(tails[empty]) > MAX_TAILS or np.median(z[faint]) > MAX_SKY)
    if crowded:
        measured = np.clip(1.0, min(np.median(fine[empty]), measured), measured)
    return float(measured), int(use.sum()), crowded


def noise_autocorrelation(z, faint, noise=1.0, scene=None):
    r"""
    Autocorrelation of the noise, measured in the sky.

    That of second differences at a lag of 8 pixels,
    :math:`(z_{i,j} - z_{i+8,j} - z_{i,j+8} + z_{i+8,j+8}) / 2`, which is that of the noise at small lags, if
    pixels five apart are independent, whatever level and gradient the sky has. Only the emptiest boxes count,
    and what the estimated scene has there is subtracted. Differences beyond 4 standard deviations are left
    out. A correlation of less than a quarter of what was subtracted may be that of sources, so it is zero.

    Parameters
    ----------
    z : ndarray, shape (ny, nx)
        The whitened image.

    faint : ndarray of bool, shape (ny, nx)
        The pixels of the sky.

    noise : float, optional
        The standard deviation of the noise.

    scene : ndarray, shape (ny, nx), optional
        An estimate of the noise-free scene.

    Returns
    -------
    correlation : ndarray, shape (7, 7), or None
        1 in the middle; lags whose correlation is less than 3 standard errors (neighbours: 1.5) or 0.03 are
        zero. None if all are, or if there is no sky.
    """
    if min(z.shape) <= 2 * LAG:
        return None
    contrast, use = _contrast(z, faint, LAG)
    if scene is None:
        use = use & _is_empty(contrast, use, noise)
    if use.sum() < MIN_PIXELS:
        return None
    use = use & (np.abs(contrast) < 4 * _robust(contrast[use]))
    structure = contrast * 0 if scene is None else _contrast(scene, faint, LAG)[0]
    planes = (np.where(use, plane, 0.0) for plane in (contrast, structure, np.ones_like(contrast)))
    power, structure, number = map(_lagged_products, planes)
    number = np.maximum(number, 1)
    power, structure = (power - structure) / number, structure / number
    variance = max(power[RADIUS, RADIUS], 0.1)
    correlation = power / variance
    doubt = np.maximum(SCENE_DOUBT * np.abs(structure) / variance, MIN_CORRELATION)
    error = 1.5 / np.sqrt(number)  # each pixel is in four differences
    lags = np.abs(np.arange(-RADIUS, RADIUS + 1))
    sure = np.where(np.maximum(lags[:, None], lags) == 1, 1.5, 3.0)  # neighbours are correlated often
    kept = np.where(np.abs(correlation) > np.maximum(sure * error, doubt), correlation, 0.0)
    kept[RADIUS, RADIUS] = 1
    return kept if np.count_nonzero(kept) > 1 else None


def _lagged_products(plane):
    """Sums of products of a plane with itself at lags of up to three pixels."""
    shape = [n + RADIUS for n in plane.shape]
    lags = range(-RADIUS, RADIUS + 1)
    return np.fft.irfft2(np.abs(np.fft.rfft2(plane, shape)) ** 2, shape)[np.ix_(lags, lags)]


def _is_empty(contrast, use, noise):
    """Mark the boxes that scatter hardly more than the emptiest ones, none of more than the noise."""
    boxes = [
        (slice(y, y + BOX), slice(x, x + BOX))
        for y in range(0, contrast.shape[0], BOX)
        for x in range(0, contrast.shape[1], BOX)
    ]
    boxes = [box for box in boxes if use[box].sum() >= MIN_PIXELS // 3]
    scatter = np.array([_robust(contrast[box][use[box]]) for box in boxes])
    empty = np.zeros(use.shape, bool)
    if boxes:
        limit = MAX_STRUCTURE * min(np.quantile(scatter, EMPTY), noise)
        for box, value in zip(boxes, scatter, strict=True):
            empty[box] = value < limit
    return empty


def _step(data, sigma, valid):
    """Step of the values over the noise, 0 for values without steps."""
    values = np.unique(data[valid][: 100 * MIN_PIXELS])
    if values.size < 3:
        return 0.0
    steps = np.diff(values)
    step = steps.min()
    typical = float(np.median(sigma[valid]))
    if step < 1e-3 * typical or np.abs(steps / step - np.round(steps / step)).max() > 1e-3:
        return 0.0
    return float(step / typical)

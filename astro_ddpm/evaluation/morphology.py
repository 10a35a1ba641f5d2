# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Sizes and shapes of one source on many images at once.

``planes`` are images of shape ``(n, ny, nx)``, cut out around one source. Every function measures the same
pixels of each and returns ``n`` numbers: the samples of a posterior must not choose their own apertures.
``segment`` and ``use`` are masks of shape ``(ny, nx)`` of the pixels to measure, and positions are ``(x, y)``
in pixels. What cannot be measured is NaN.
"""

from __future__ import annotations

import numpy as np
from photutils.morphology import gini as photutils_gini
from scipy import ndimage, optimize

__all__ = ["asymmetry", "asymmetry_center", "concentration", "ellipse", "gini", "light_radius", "m20"]


def ellipse(planes: np.ndarray, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""
    Return ellipticity and orientation (deg, -90 to 90, from the x axis) of the light in a segment.

    With the second moments :math:`\mu` about the centroid of each plane (Bertin and Arnouts 1996) the squares
    of the axes are

    .. math:: \frac{\mu_{xx} + \mu_{yy}}{2} \pm \sqrt{\frac{(\mu_{xx} - \mu_{yy})^2}{4} + \mu_{xy}^2}

    and :math:`\tan 2 \theta = 2 \mu_{xy} / (\mu_{xx} - \mu_{yy})`. Negative pixels count as they are, so that
    noise of zero mean cancels in the moments; `~photutils.segmentation.SourceCatalog` leaves them out.
    """
    flux, dx, dy = _centered(planes, segment)
    xx, xy, yy = ((flux * product).sum(axis=-1) for product in (dx * dx, dx * dy, dy * dy))
    mean, root = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    square = _ratio(mean - root, mean + root)
    positive = (flux.sum(axis=-1) > 0) & (square >= 0) & (mean > 0)
    ellipticity = 1 - np.sqrt(np.where(positive, square, np.nan))
    orientation = np.rad2deg(np.arctan2(2 * xy, xx - yy)) / 2
    return ellipticity, np.where(positive, orientation, np.nan)


def gini(planes: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """Return the Gini coefficient of a segment (Lotz et al. 2004): 0 if pixels are alike; noise raises it."""
    values = [photutils_gini(plane, mask=~segment) for plane in planes]
    return np.where(planes[:, segment].any(axis=-1), values, np.nan)


def m20(planes: np.ndarray, segment: np.ndarray) -> np.ndarray:
    r"""
    Return the logarithm of the second moment of the brightest fifth of the light over that of all.

    With the moments :math:`M_i = f_i \, ((x_i - x_c)^2 + (y_i - y_c)^2)` about the centroid, which makes
    their sum least, and the pixels from the brightest down (Lotz et al. 2004, equation 8)

    .. math:: M_{20} = \log_{10} \frac{\sum_i M_i}{\sum_{\mathrm{all}} M_i}
        \quad \mathrm{while} \quad \sum_i f_i < 0.2 \, f_\mathrm{tot} .

    The pixel that crosses the limit is still counted.
    """
    flux, dx, dy = _centered(planes, segment)
    moment = flux * (dx**2 + dy**2)
    order = np.argsort(-flux, axis=-1)
    brightest = np.take_along_axis(flux, order, axis=-1)
    counted = np.cumsum(brightest, axis=-1) - brightest < 0.2 * flux.sum(axis=-1, keepdims=True)
    part = (np.take_along_axis(moment, order, axis=-1) * counted).sum(axis=-1)
    ratio = _ratio(part, moment.sum(axis=-1))
    return np.log10(np.where(ratio > 0, ratio, np.nan))


def asymmetry(
    planes: np.ndarray, center: tuple[float, float], use: np.ndarray, noise: np.ndarray | float = 0.0
) -> np.ndarray:
    r"""
    Return the difference between a source and itself turned by 180 degrees, 0 for what is symmetric.

    Pixels of ``use`` whose opposite is not in ``use`` are left out. ``noise`` is the standard deviation of
    independent noise, whose part in the difference is subtracted. After Conselice (2003, equation 1), the
    turned image being interpolated by cubic splines,

    .. math:: A = \frac{\sum |d| - b}{\sum |x|}, \qquad d = x - x_{180}, \qquad
        b = \sum \frac{2 s}{\sqrt{\pi}} \, e^{-d^2 / 2 s^2}, \qquad s^2 = \sigma^2 + \sigma_{180}^2 .

    The last sum takes the place of the asymmetry of a patch of blank sky, whose noise differs from that on
    the source. It has the expectation of the first sum where there is only noise, and vanishes where the
    difference exceeds the noise; in between it subtracts too much, up to about half of :math:`s`.
    """
    turned = _turn(planes, center)
    use = use & (_turn(use[np.newaxis].astype(float), center, order=1)[0] > 0.999)
    difference = np.abs(planes - turned)[:, use]
    variance = np.broadcast_to(noise, use.shape)[np.newaxis] ** 2
    spread = np.sqrt((variance + _turn(variance, center, order=1))[:, use])
    scaled = difference / np.where(spread > 0, spread, np.inf)
    expected = 2 * spread / np.sqrt(np.pi) * np.exp(-(scaled**2) / 2)
    return _ratio((difference - expected).sum(axis=-1), np.abs(planes)[:, use].sum(axis=-1))


def asymmetry_center(plane: np.ndarray, start: tuple[float, float], use: np.ndarray) -> np.ndarray:
    """
    Return the point about which a source is most symmetric (Conselice, Bershady and Jangren 2000).

    The search begins at ``start`` and tries points within 3 pixels of it along each axis.
    """
    result = optimize.minimize(
        lambda center: np.nan_to_num(asymmetry(plane[np.newaxis], center, use)[0], nan=np.inf),
        start,
        method="Nelder-Mead",
        bounds=[(value - 3, value + 3) for value in start],
        options={
            "initial_simplex": np.add(start, np.array([[0, 0], [0.5, 0], [0, 0.5]])),
            "xatol": 0.01,
            "fatol": 1e-4,
        },
    )
    return result.x


def light_radius(
    radii: np.ndarray, growth: np.ndarray, total: np.ndarray, fraction: float = 0.5
) -> np.ndarray:
    """
    Return the radius within which a part of the light lies.

    ``growth``, shape ``(n, m)``, is the light within ``m`` ascending ``radii``, and ``total`` all of it. The
    radius is where the curve of growth first reaches the part; between two radii the light is taken as
    uniform. `~photutils.profiles.CurveOfGrowth` ends where noise makes the curve fall, and takes one plane at
    a time.
    """
    growth = np.pad(growth, [(0, 0), (1, 0)])
    area = np.pad(np.asarray(radii, float) ** 2, (1, 0))
    wanted = fraction * total
    reached = growth >= wanted[:, np.newaxis]
    outer = np.maximum(reached.argmax(axis=-1), 1)
    rows = np.arange(len(growth))
    low, high = growth[rows, outer - 1], growth[rows, outer]
    square = area[outer - 1] + _ratio(wanted - low, high - low) * (area[outer] - area[outer - 1])
    return np.sqrt(np.where((total > 0) & reached.any(axis=-1), square, np.nan))


def concentration(radii: np.ndarray, growth: np.ndarray, total: np.ndarray) -> np.ndarray:
    r"""
    Return the concentration of the light toward the center, 1.5 for a uniform disc.

    From the radii with 20 % and 80 % of the light (Bershady, Jangren and Conselice 2000)

    .. math:: C = 5 \log_{10} \frac{r_{80}}{r_{20}} .
    """
    inner, outer = (light_radius(radii, growth, total, fraction) for fraction in (0.2, 0.8))
    return 5 * np.log10(_ratio(outer, inner))


def _centered(planes, segment):
    """Return the pixels of a segment and their distances from the centroid, each of shape ``(n, k)``."""
    y, x = np.nonzero(segment)
    flux = planes[:, segment].astype(float)
    total = flux.sum(axis=-1)
    dx, dy = (axis - _ratio(flux @ axis, total)[:, np.newaxis] for axis in (x, y))
    return flux, dx, dy


def _turn(planes, center, order=3):
    """Turn images by 180 degrees about ``(x, y)``; outside of them is zero."""
    shift = [2 * c - (n - 1) for c, n in zip(center[::-1], planes.shape[1:], strict=True)]
    return np.stack([ndimage.shift(plane, shift, order=order) for plane in planes[:, ::-1, ::-1]])


def _ratio(numerator, denominator):
    """Divide where the denominator is positive; the rest is NaN."""
    positive = denominator > 0
    return np.where(positive, numerator, np.nan) / np.where(positive, denominator, 1.0)

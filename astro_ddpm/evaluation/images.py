# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Compare images pixel by pixel and scale by scale.

Single numbers say little about what an image is good for, since a bright core outweighs thousands of pixels
of sky, but methods are commonly compared by them.
"""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.nddata import NDData
from astropy.table import QTable
from astropy.units import Quantity

import astro_ddpm
from astro_ddpm.nddata import Exposure
from astro_ddpm.utils import require

from .calibration import _broadcast, _mean

__all__ = ["image_metrics", "power_ratio", "power_spectrum"]

_DESCRIPTIONS = {
    "frequency": "mean spatial frequency of the modes",
    "n_modes": "number of Fourier modes",
    "power": "azimuthally averaged power spectrum, mean of the samples if there are any",
    "power_err": "standard deviation of the power of the samples",
    "power_reference": "azimuthally averaged power spectrum of the reference",
    "ratio": "power in units of that of the reference",
    "ratio_err": "standard deviation of the ratio of the samples",
    "correlation": "correlation of the modes of the mean of the samples with those of the reference",
}


def image_metrics(
    image: NDData | Quantity | np.ndarray,
    reference: NDData | Quantity | np.ndarray,
    *,
    mask: np.ndarray | None = None,
    data_range: float | Quantity | None = None,
) -> dict:
    r"""
    Compare an image with a reference by the metrics of image restoration.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, `~astropy.units.Quantity`, array_like, HDU, str or path-like
        The image, shape (ny, nx), or the FITS file that holds it.

    reference : as ``image``
        What it is compared with, of the same shape. An image without unit is taken to be in its unit.

    mask : array_like of bool, optional
        More pixels to leave out than those that are masked or not finite in either image.

    data_range : float or `~astropy.units.Quantity`, optional
        The range of values :math:`L` for PSNR and SSIM, maximum minus minimum of the reference by default;
        state it to average over images.

    Returns
    -------
    metrics : dict
        The scores, in units of the reference where they have one:

        * ``psnr``: peak signal-to-noise ratio in dB, the more the better.
        * ``ssim``: structural similarity, at most 1.
        * ``mae``: mean absolute error.
        * ``mse``: mean square error.
        * ``spectral_mse``: mean square error of the decimal logarithm of the `power_spectrum`.
        * ``n_pixels``: the number of pixels compared.

        NaN if no pixel is left, or for ``ssim`` none whose whole window of 11 x 11 pixels is. ``psnr`` and
        ``ssim`` are NaN for a constant reference without ``data_range``.

    Raises
    ------
    TypeError
        If an image does not hold real numbers, or only one of reference and ``data_range`` has a unit.

    ValueError
        If the images are not two-dimensional, differ in shape or have less than two pixels along an axis,
        ``mask`` does not fit, or ``data_range`` is not positive.

    `~astropy.units.UnitConversionError`
        If the units do not fit.

    Notes
    -----
    With the image :math:`x` and the reference :math:`y` of :math:`N` pixels

    .. math::

        \mathrm{MSE} = \frac{1}{N} \sum (x - y)^2, \qquad
        \mathrm{MAE} = \frac{1}{N} \sum |x - y|

        \mathrm{PSNR} = 10 \log_{10} \frac{L^2}{\mathrm{MSE}}

    SSIM is that of Wang et al. 2004, *Image Quality Assessment: From Error Visibility to Structural
    Similarity*, with their Gaussian window and constants, by scikit-image, without pixels whose window
    reaches beyond the image. Like PSNR it is made for images of a limited range: compare
    ``np.arcsinh(image / noise)`` to give faint structure a say.

    With the power spectra :math:`P_x` and :math:`P_y` in :math:`K` bins of frequency

    .. math:: \mathrm{SMSE} = \frac{1}{K} \sum_{k=1}^K \left[\log_{10} \frac{P_x(f_k)}{P_y(f_k)}\right]^2

    every scale counts alike, whatever its power; 0.01 is a factor of 1.26 on all scales.

    Examples
    --------
    One row for each of many images:

    >>> import numpy as np
    >>> from astropy.table import QTable
    >>> from astro_ddpm.evaluation import image_metrics
    >>> rng = np.random.default_rng(1)
    >>> reference = rng.uniform(0, 100, (64, 64))
    >>> images = [reference + noise * rng.standard_normal((64, 64)) for noise in (1, 10)]
    >>> table = QTable(rows=[image_metrics(image, reference, data_range=100) for image in images])
    >>> table.round(2)
    >>> print(table["psnr", "ssim", "mae", "mse"])
     psnr ssim mae   mse
    ----- ---- ---- -----
    40.08  1.0 0.79  0.98
    20.09 0.94 7.89 97.96
    """
    truth, unit = _parse(reference, "reference")
    planes, valid = _planes(image, truth, with_samples=False)
    valid, reference, image = _left(valid & truth.valid, mask), truth.data.astype(float), planes[0]
    level = _data_range(data_range, reference[valid], unit)
    error = (image - reference)[valid]
    mae, mse = _mean(np.abs(error)), _mean(error**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        psnr = float(10 * np.log10(np.float64(level**2) / mse))
    return {
        "psnr": psnr,
        "ssim": _ssim(image, reference, valid, level),
        "mae": mae if unit is None else mae * unit,
        "mse": mse if unit is None else mse * unit**2,
        "spectral_mse": _spectral_mse(image, reference, valid),
        "n_pixels": int(valid.sum()),
    }


def power_spectrum(
    image: NDData | Quantity | np.ndarray,
    *,
    mask: np.ndarray | None = None,
    window: str | tuple = "hann",
    n_bins: int | None = None,
) -> QTable:
    r"""
    Azimuthally averaged power spectrum of an image.

    White noise of the standard deviation :math:`\sigma` has the power :math:`\sigma^2` at every frequency,
    and :math:`|\hat K|^2 \sigma^2` after a convolution with a kernel of the transfer function :math:`\hat K`.

    Parameters
    ----------
    image, mask : array_like or `~astropy.nddata.NDData`, array_like of bool
        As for `image_metrics`, with the same errors.

    window : str or tuple, optional
        The window along each axis, as for `scipy.signal.get_window`; "boxcar" for none, with which edges leak
        into all frequencies along the axes.

    n_bins : int, optional
        The number of equal bins between 0 and 0.5 cycles per pixel; half the shorter side by default.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per bin, with the columns ``frequency``, the mean of the modes in cycles per pixel, ``power``
        in the unit of ``image`` squared, and ``n_modes``. A bin contains its upper edge; modes in the
        corners, above 0.5 cycles per pixel, are left out. NaN in bins without modes, and if no pixel is left.

    Notes
    -----
    With the window :math:`w`, zero at pixels that are left out, and the mean :math:`\bar x = \sum w x / \sum
    w`

    .. math::

        P(\mathbf f) = \frac{1}{\sum w^2} \left|
            \sum_{\mathbf r} w(\mathbf r) \, [x(\mathbf r) - \bar x] \,
            e^{-2 \pi i \mathbf f \cdot \mathbf r} \right|^2

    averaged over the modes :math:`\mathbf f` of a bin. The lowest frequencies, within two steps of zero, lose
    power to the mean. Holes spread the power of bright sources: only spectra with the same holes can be
    compared. Of :math:`n` modes of noise the mean power has the relative error :math:`\sqrt{2 / n}`, and 1.9
    times as much with the Hann window, which correlates neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import power_spectrum
    >>> table = power_spectrum(np.random.default_rng(1).normal(0, 2, (128, 128)), n_bins=4)
    >>> print(table["power"].value.round(1))
    [3.1 3.8 3.9 3.9]
    """
    exposure, unit = _parse(image, "image")
    bins = _Bins(exposure.shape, n_bins)
    table = bins.table()
    modes = _modes(exposure.data.astype(float), _left(exposure.valid, mask), window)
    table["power"] = bins.mean(np.abs(modes) ** 2)
    return _finish(table, unit, window)


def power_ratio(
    image: NDData | Quantity | np.ndarray,
    reference: NDData | Quantity | np.ndarray,
    *,
    mask: np.ndarray | None = None,
    window: str | tuple = "hann",
    n_bins: int | None = None,
) -> QTable:
    r"""
    Power spectra of samples, or of an image, beside that of a reference.

    The ratio of calibrated samples is 1. It is below 1 where a method smooths, and above 1 where it adds
    structure of its own. The correlation tells whether structure is where it should be.

    Parameters
    ----------
    image : `~astropy.nddata.NDData`, `~astropy.units.Quantity`, array_like, HDU, str or path-like
        The image, shape (ny, nx), or the FITS file that holds it, or samples of shape (n_samples, ny, nx).
        Of an `~astro_ddpm.EnhancedCCDData` the samples, which have the noise of an exposure, are compared.

    reference, mask : array_like or `~astropy.nddata.NDData`, array_like of bool
        As for `image_metrics`, with the same errors.

    window, n_bins : str or tuple, int
        As for `power_spectrum`.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per bin of frequency, as from `power_spectrum`, with the columns ``frequency``, ``n_modes``
        and

        * ``power``, ``power_err``: mean and standard deviation of the power of the samples.
        * ``power_reference``: that of the reference.
        * ``ratio``, ``ratio_err``: the two first divided by the power of the reference.
        * ``correlation``: how well the mean of the samples agrees with the reference, at most 1.

        The errors are NaN for fewer than two samples. The ``ratio`` of :math:`m` calibrated samples scatters
        about 1 by ``ratio_err`` times :math:`\sqrt{1 + 1/m}`.

    Notes
    -----
    With the modes :math:`X` of the mean of the samples and :math:`Y` of the reference in a bin, the
    correlation is

    .. math:: r = \frac{\mathrm{Re} \sum X Y^*}{\sqrt{\sum |X|^2 \sum |Y|^2}}

    Examples
    --------
    >>> import numpy as np
    >>> from astro_ddpm.evaluation import power_ratio
    >>> rng = np.random.default_rng(1)
    >>> scene = 5 * rng.standard_normal((64, 64))
    >>> samples, truth = scene + rng.standard_normal((4, 64, 64)), scene + rng.standard_normal((64, 64))
    >>> table = power_ratio(samples, truth, n_bins=4)
    >>> print(table["correlation"].value.round(2))
    [0.97 0.98 0.98 0.98]
    """
    truth, unit = _parse(reference, "reference")
    planes, valid = _planes(image, truth, with_samples=True)
    valid = _left(valid & truth.valid, mask)
    bins = _Bins(truth.shape, n_bins)
    modes, expected = (_modes(values, valid, window) for values in (planes, truth.data.astype(float)))
    power = np.array([bins.mean(np.abs(plane) ** 2) for plane in modes])
    mean = modes.mean(axis=0)
    table = bins.table()
    table["power"] = power.mean(axis=0)
    table["power_err"] = power.std(axis=0, ddof=1) if len(power) > 1 else np.nan
    table["power_reference"] = bins.mean(np.abs(expected) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        table["ratio"] = table["power"] / table["power_reference"]
        table["ratio_err"] = table["power_err"] / table["power_reference"]
        norm = np.sqrt(bins.mean(np.abs(mean) ** 2) * table["power_reference"])
        table["correlation"] = bins.mean((mean * expected.conj()).real) / norm
    table.meta["n_samples"] = len(power)
    return _finish(table, unit, window)


class _Bins:
    """Equal bins of spatial frequency between 0 and 0.5 cycles per pixel, upper edges included."""

    def __init__(self, shape, n_bins):
        self.number = min(shape) // 2 if n_bins is None else n_bins
        if self.number < 1:
            msg = f"n_bins must be at least 1, not {self.number}; images need two pixels along each axis"
            raise ValueError(msg)
        frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
        index = np.ceil(2 * self.number * frequency - 1e-9).astype(int) - 1
        self.pick = (index >= 0) & (index < self.number)
        self.index, self.frequency = index[self.pick], frequency
        self.n_modes = np.bincount(self.index, minlength=self.number)

    def mean(self, values):
        """Average over the modes of each bin."""
        with np.errstate(invalid="ignore"):
            return np.bincount(self.index, values[self.pick], self.number) / self.n_modes

    def table(self):
        """Begin a table with frequencies."""
        frequency = self.mean(self.frequency) << u.cycle / u.pix
        return QTable({"frequency": frequency, "n_modes": self.n_modes})


def _finish(table, unit, window):
    """Add units, descriptions and metadata to a table of power."""
    for name in table.colnames:
        if name.startswith("power") and unit is not None:
            table[name] = table[name] << unit**2
        table[name].info.description = _DESCRIPTIONS[name]
        table[name].info.format = None if name == "n_modes" else ".4g"
    table.meta |= {"window": str(window), "version": astro_ddpm.__version__}
    return table


def _modes(planes, valid, window):
    """Return the Fourier transform of windowed images less their mean, in units of the noise of a pixel."""
    from scipy.signal import get_window

    rows, columns = (get_window(window, size) for size in valid.shape)
    weight = np.outer(rows, columns) * valid
    planes = np.where(valid, planes, 0)
    with np.errstate(invalid="ignore"):
        mean = (weight * planes).sum(axis=(-2, -1), keepdims=True) / weight.sum()
        return np.fft.fft2(weight * (planes - mean)) / np.sqrt(np.sum(weight**2))


def _spectral_mse(image, reference, valid):
    bins = _Bins(image.shape, None)
    powers = [bins.mean(np.abs(_modes(values, valid, "hann")) ** 2) for values in (image, reference)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(np.log10(powers[0] / powers[1])[bins.n_modes > 0] ** 2))


def _ssim(image, reference, valid, level):
    """Average SSIM over the pixels whose whole window is valid."""
    from scipy.ndimage import binary_dilation
    from skimage.metrics import structural_similarity

    usable = ~binary_dilation(~valid, np.ones((11, 11)), border_value=1)
    if np.isnan(level) or not usable.any():
        return np.nan
    planes = (np.where(valid, values, 0) for values in (image, reference))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # 11 pixels wide
    _, similarity = structural_similarity(*planes, data_range=level, full=True, **window)
    return float(similarity[usable].mean())


def _parse(image, name):
    """Return an image as an `Exposure`, and its unit, None if it has none."""
    exposure = Exposure.parse(image, name=name)
    return exposure, None if exposure.unit == u.dimensionless_unscaled else exposure.unit


def _planes(image, truth, *, with_samples):
    """Return image or samples, shape (n, ny, nx), in the unit of the reference, and the pixels that count."""
    if with_samples and not hasattr(image, "wcs") and np.ndim(image) == 3:
        parsed = [Exposure.parse(plane, name="image", unit=truth.unit) for plane in image]
        planes, valid = np.array([each.data for each in parsed]), [each.valid for each in parsed]
    else:
        exposure = Exposure.parse(image, name="image", unit=truth.unit)
        drawn = exposure.samples is not None and with_samples
        planes, valid = exposure.samples if drawn else exposure.data[np.newaxis], [exposure.valid]
    if planes.shape[1:] != truth.shape:
        msg = f"image must have the shape {truth.shape} of reference, not {planes.shape[1:]}"
        raise ValueError(msg)
    return planes.astype(float), np.all(valid, axis=0)


def _left(valid, mask):
    """Return the valid pixels that a mask does not exclude."""
    return valid if mask is None else valid & ~_broadcast("mask", np.asarray(mask, bool), valid.shape)


def _data_range(data_range, reference, unit):
    """Return the range of values as a number in a unit."""
    if data_range is None:
        return (float(np.ptp(reference)) if reference.size else 0) or np.nan
    if (getattr(data_range, "unit", None) is None) != (unit is None):
        msg = f"data_range must have a unit if the images have one ({unit}), and only then"
        raise TypeError(msg)
    level = float(data_range if unit is None else data_range.to_value(unit))
    require(level > 0, f"data_range must be positive, not {data_range}")
    return level

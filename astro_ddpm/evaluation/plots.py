# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pictures of enhanced images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import mad_std

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_comparison"]

_MASK_COLOR = "#2aa5a0"
_TICKS = np.array([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000])


def plot_comparison(
    enhanced: CCDData,
    reference: CCDData | u.Quantity | np.ndarray | None = None,
    *,
    image: CCDData | u.Quantity | np.ndarray | None = None,
    n_samples: int = 3,
    cmap: str = "magma",
    panel_size: float = 3.0,
) -> Figure:
    r"""
    Show an enhanced image beside its input, samples and a reference.

    The panels are the input, the posterior mean, the reference, the
    residual, samples and the uncertainty, as far as they are given. All
    images have one arcsinh stretch in common. The ticks of the color bars
    are in units of the noise.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The image, shape ``(ny, nx)``, as `~astro_ddpm.enhance` returns it.

    reference : `~astropy.nddata.CCDData`, `~astropy.units.Quantity` or array_like, optional
        What ``enhanced`` is to be compared with, such as a deep exposure
        or the truth, shape ``(ny, nx)``. Without a unit it is in the unit
        of ``enhanced``.

    image : `~astropy.nddata.CCDData`, `~astropy.units.Quantity` or array_like, optional
        The input of the enhancement, shape ``(ny, nx)``. Its masked
        pixels are shown in a color of their own.

    n_samples : int, optional
        The number of samples to show, at most; 0 shows none.

    cmap : str or `~matplotlib.colors.Colormap`, optional
        The colors of the images.

    panel_size : float, optional
        The width of a panel in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The figure. It is not known to `matplotlib.pyplot`, so it needs no
        display and is not to be closed. Save it with
        ``figure.savefig(filename)``.

    Raises
    ------
    TypeError
        If ``enhanced`` is not a `~astropy.nddata.CCDData`.

    ValueError
        If ``reference`` or ``image`` does not have the shape of
        ``enhanced``, or ``n_samples`` is negative.

    Notes
    -----
    The noise that serves as unit is the median of the uncertainty of
    ``image``, or what is measured in ``image`` if it has none, or the
    median of the uncertainty of ``enhanced`` if there is no ``image``.

    The residual is :math:`(\mathrm{enhanced} - \mathrm{reference}) /
    \sigma`, and without a reference :math:`(\mathrm{image} -
    \mathrm{enhanced}) / \sigma`, with the :math:`\sigma` of every pixel
    of ``image`` (of ``enhanced`` if there is no ``image``). With neither
    reference nor ``image`` there is no residual.

    Examples
    --------
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> from astro_ddpm.evaluation import plot_comparison
    >>> field = make_galaxy_field((64, 64), n_galaxies=3, n_stars=1)
    >>> deep = field.deep_exposure(0.2)
    >>> figure = plot_comparison(deep, field.truth, image=field.image)
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['Input', 'Enhanced', 'Reference', '(Enhanced − reference) / σ', 'Uncertainty']
    """

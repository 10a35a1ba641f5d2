# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Pictures of enhanced images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.stats import mad_std

from astro_ddpm.nddata import Exposure
from astro_ddpm.utils import require

if TYPE_CHECKING:
    import astropy.units as u
    from astropy.nddata import CCDData
    from matplotlib.figure import Figure

__all__ = ["plot_comparison"]

_MASK_COLOR = "#38b6b0"


@dataclass(frozen=True)
class Panel:
    """A plane, shape ``(ny, nx)``, its title, and its kind: panels of one kind share their scale."""

    title: str
    plane: np.ndarray
    kind: str = "flux"


@dataclass(frozen=True)
class Scale:
    """Colors of one kind of panel; ``ticks`` are in units of ``unit``. Only a label makes a color bar."""

    cmap: Any
    norm: Any
    unit: float = 1.0
    ticks: tuple[float, ...] = ()
    label: str = ""


def flux_scale(sigma: float, top: float, label: str = "", cmap: Any = "magma") -> Scale:
    """Return an arcsinh stretch from -2 ``sigma`` to ``top``, or to 20 ``sigma`` if that is brighter."""
    from matplotlib.colors import AsinhNorm

    norm = AsinhNorm(1.5 * sigma, vmin=-2 * sigma, vmax=max(float(top), 20 * sigma))
    return Scale(cmap, norm, sigma, (0, 3, 10, 30, 100, 300, 1000, 3000, 10_000), label)


def residual_scale(limit: float, label: str = "") -> Scale:
    """Return a scale from ``-limit`` (blue) to ``limit`` (red)."""
    from matplotlib.colors import Normalize

    return Scale("RdBu_r", Normalize(-limit, limit), 1.0, tuple(limit * np.linspace(-1, 1, 5)), label)


def width_scale(sigma: float, low: float, top: float, label: str = "") -> Scale:
    """Return a logarithmic scale of standard deviations."""
    from matplotlib.colors import LogNorm

    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    return Scale("viridis", LogNorm(low, top, clip=True), sigma, ticks, label)


def draw_panels(
    panels: list[Panel | None], scales: dict[str, Scale], n_columns: int, panel_size: float
) -> Figure:
    """
    Draw panels row by row, ``n_columns`` in a row, with one color bar for each scale that has a label.

    ``scales`` has the scale of each kind of panel, and ``panel_size`` is the width of a panel in inches. Axes
    with a title are the panels. None leaves a gap.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ny, nx = next(panel.plane.shape for panel in panels if panel)
    without_bar = {kind for kind, scale in scales.items() if scale.label}
    kinds = [panel and panel.kind for panel in panels]
    rows_with_bar = {kinds.index(kind) // n_columns for kind in without_bar & {*kinds}}
    n_rows = -(-len(panels) // n_columns)
    height = n_rows * (panel_size * ny / nx + 0.3) + 0.5 * len(rows_with_bar)
    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.05, h_pad=0.05)
    figure = Figure(figsize=(n_columns * panel_size, height), layout=layout)
    for number, panel in enumerate(panels, start=1):
        if panel is None:
            continue
        axes, scale = figure.add_subplot(n_rows, n_columns, number), scales[panel.kind]
        cmap = colormaps[scale.cmap] if isinstance(scale.cmap, str) else scale.cmap
        axes.set_title(panel.title, fontsize="medium")
        axes.set(xticks=[], yticks=[], anchor="N")
        axes.spines[:].set_visible(False)
        look = {"cmap": cmap.with_extremes(bad=_MASK_COLOR), "norm": scale.norm}
        plane = np.ma.masked_invalid(panel.plane)
        picture = axes.imshow(plane, origin="lower", interpolation="nearest", **look)
        if panel.kind in without_bar:
            _add_bar(figure, axes, picture, scale)
            without_bar.remove(panel.kind)
    return figure


def _add_bar(figure, axes, picture, scale):
    """Add a color bar under a panel."""
    low, high = scale.norm.vmin, scale.norm.vmax
    ticks = [tick for tick in scale.ticks if low <= tick * scale.unit <= high]
    options = {"location": "bottom", "fraction": 0.04, "pad": 0.02, "aspect": 30, "panchor": False}
    bar = figure.colorbar(picture, ax=axes, **options)
    bar.set_ticks([tick * scale.unit for tick in ticks], labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize="small", length=2)
    bar.set_label(scale.label, fontsize="small")
    bar.outline.set_visible(False)


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

    The panels are the input, the posterior mean, the reference, the residual, samples and the uncertainty, as
    far as they are given, without the sky that was subtracted. All images share one arcsinh stretch. The
    ticks of the color bars are in units of the noise.

    Parameters
    ----------
    enhanced : `~astropy.nddata.CCDData`
        The image, shape ``(ny, nx)``, as `~astro_ddpm.enhance` returns it.

    reference : `~astropy.nddata.CCDData`, `~astropy.units.Quantity` or array_like, optional
        What ``enhanced`` is to be compared with, such as a deep exposure or the truth, shape ``(ny, nx)``.
        Without a unit it is in the unit of ``enhanced``.

    image : `~astropy.nddata.CCDData`, `~astropy.units.Quantity` or array_like, optional
        The input of the enhancement, shape ``(ny, nx)``. Its masked pixels are shown in a color of their own.

    n_samples : int, optional
        The number of samples to show, at most.

    cmap, panel_size : str or `~matplotlib.colors.Colormap`, float, optional
        The colors of the images, and the width of a panel in inches.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        The figure, to be saved with ``figure.savefig(filename)``; `matplotlib.pyplot` does not know it.

    Raises
    ------
    TypeError
        If ``enhanced`` is no image.

    ValueError
        If ``reference`` or ``image`` does not have the shape of ``enhanced``, or ``n_samples`` is negative.

    Notes
    -----
    The residual is :math:`(\mathrm{enhanced} - \mathrm{reference}) / \sigma`, and without a reference
    :math:`(\mathrm{image} - \mathrm{enhanced}) / \sigma`, with the noise :math:`\sigma` of every pixel of
    ``image``, measured if it is unknown, or the uncertainty of ``enhanced`` if there is no ``image``. Its
    median is the unit of noise.

    Examples
    --------
    >>> from astro_ddpm.datasets import make_galaxy_field
    >>> from astro_ddpm.evaluation import plot_comparison
    >>> field = make_galaxy_field((64, 64), n_galaxies=3, n_stars=1)
    >>> deep = field.deep_exposure(0.2)
    >>> figure = plot_comparison(deep, field.truth, image=field.image)
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['Input', 'Enhanced', 'Reference', 'Enhanced − reference', 'Uncertainty']
    """
    require(n_samples >= 0, f"n_samples must not be negative, got {n_samples!r}")
    result = _without_sky(Exposure.parse(enhanced, name="enhanced"), enhanced)
    given = {"image": image, "reference": reference}
    shown = {name: _parse(name, value, result) for name, value in given.items() if value is not None}
    shown = {name: _without_sky(value, enhanced) for name, value in shown.items()}
    noise, level = _noise(shown.get("image"), result)
    planes = {name: np.ma.array(each.data.astype(float), mask=each.mask) for name, each in shown.items()}
    mean = result.data.astype(float)
    draws = [] if result.samples is None else result.samples[:n_samples]
    panels = _panels(planes.get("image"), mean, planes.get("reference"), result.sigma, draws, noise)
    n_columns = len(panels) if len(panels) <= 5 else -(-len(panels) // 2)
    return draw_panels(panels, _scales(panels, level, result.unit, cmap), n_columns, panel_size)


def thumbnail(enhanced: CCDData, width: int = 240) -> bytes:
    """Return an image as a PNG file, at most ``width`` pixels wide, in the colors of `plot_comparison`."""
    from io import BytesIO

    from matplotlib.image import imsave

    exposure = _without_sky(Exposure.parse(enhanced, name="enhanced"), enhanced)
    step = -(-max(exposure.shape) // width)
    plane = exposure.data[::step, ::step].astype(float)
    _, level = _noise(None, exposure)
    scale, file = flux_scale(level, np.nanpercentile(plane, 99.8)), BytesIO()
    options = {"cmap": scale.cmap, "vmin": 0, "vmax": 1, "origin": "lower", "format": "png"}
    imsave(file, np.ma.filled(scale.norm(plane), 0), **options)
    return file.getvalue()


def _without_sky(exposure, enhanced):
    """Subtract the sky that an enhanced image says is in it."""
    sky = getattr(enhanced, "background", None)
    if sky is None:
        return exposure
    samples = None if exposure.samples is None else exposure.samples - sky
    return replace(exposure, data=exposure.data - sky, samples=samples)


def _parse(name, value, result):
    """Return an image in the unit of the result."""
    exposure = Exposure.parse(value, name=name, unit=result.unit)
    if exposure.shape != result.shape:
        msg = f"{name} must have the shape {result.shape} of enhanced, got {exposure.shape}"
        raise ValueError(msg)
    return exposure


def _noise(image, result):
    """Return the noise of every pixel, shape ``(ny, nx)``, and its median."""
    source = result if image is None else image
    noise = source.sigma
    if noise is None:
        noise = np.full(source.shape, mad_std(source.data[source.valid]))
    return noise, float(np.nanmedian(noise[source.valid])) or 1.0


def _panels(image, mean, reference, sigma, draws, noise):
    """Return what there is to show, in order."""
    uncertainty = Panel("Uncertainty", sigma, "uncertainty")
    panels = [Panel("Input", image), Panel("Enhanced", mean), Panel("Reference", reference)]
    if reference is None:
        panels.append(uncertainty)
    if reference is not None:
        residual = (mean - reference) / noise
        panels.append(Panel("Enhanced − reference", np.ma.masked_invalid(residual), "residual"))
    elif image is not None:
        panels.append(Panel("Input − enhanced", np.ma.masked_invalid((image - mean) / noise), "residual"))
    panels += [Panel(f"Sample {number}", draw) for number, draw in enumerate(draws, start=1)]
    if reference is not None:
        panels.append(uncertainty)
    return [panel for panel in panels if panel.plane is not None]


def _scales(panels, level, unit, cmap):
    """Return the colors of every kind of panel."""
    planes = {panel.kind: panel.plane for panel in panels if panel.title != "Input"}
    flux = np.ma.masked_invalid(next(p.plane for p in panels if p.title == "Enhanced")).compressed()
    label = f"flux / σ   (σ = {level * unit:.3g})"
    scales = {"flux": flux_scale(level, np.percentile(flux, 99.8), label, cmap)}
    if "uncertainty" in planes:
        low, top = np.nanpercentile(planes["uncertainty"], [1, 99.9])
        low = max(0.8 * low, 0.01 * level)
        scales["uncertainty"] = width_scale(level, low, max(top, 5 * low), "uncertainty / σ")
    if "residual" in planes:
        pulls = planes["residual"].compressed()
        spread = mad_std(pulls) if pulls.size else 0
        limit = next((nice for nice in (0.5, 1, 2, 3) if nice >= 2.5 * spread), 5)
        scales["residual"] = residual_scale(limit, "residual / σ")
    return scales

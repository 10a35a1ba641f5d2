# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw docs/_static/failures_1.png and failures_2.png: simulated images on which the models fail.

    python docs/figures/failures.py
"""

import warnings
from pathlib import Path

import numpy as np
from astropy.nddata import StdDevUncertainty
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure

from astro_ddpm import enhance
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.training import correlated_noise

STATIC = Path(__file__).parents[1] / "_static"
FIELD = {"shape": (96, 96), "n_galaxies": 4, "n_stars": 2, "n_companions": 1, "bad_columns": 0}


def understated_noise():
    """The uncertainty is too small by a factor of 1.6."""
    field = make_galaxy_field(**FIELD)
    image = field.image.copy()
    image.uncertainty = StdDevUncertainty(image.uncertainty.array / 1.6)
    return image, field.truth


def strongly_correlated_noise():
    """The noise of neighbouring pixels is correlated by 0.8, as in a mosaic with small pixels."""
    field = make_galaxy_field(**FIELD)
    image = field.image.copy()
    noise = correlated_noise(field.truth.shape, 1.05, np.random.default_rng(0))
    image.data = field.truth + image.uncertainty.array * noise
    return image, field.truth


def hole_in_a_core():
    """A hole 7 pixels wide where the brightest galaxy is brightest."""
    field = make_galaxy_field(**FIELD)
    image = field.image.copy()
    galaxies = field.catalog[field.catalog["kind"] != "star"]
    brightest = galaxies[np.argmax(galaxies["peak_snr"])]
    y, x = (round(float(getattr(brightest[c], "value", brightest[c]))) for c in "yx")
    mask = np.zeros(image.shape, bool)
    mask[y - 3 : y + 4, x - 3 : x + 4] = True
    image.mask = mask
    return image, field.truth


def narrow_psf():
    """A PSF of 1.2 pixels: a star is hardly more than one pixel."""
    field = make_galaxy_field(**FIELD | {"n_stars": 6}, psf_fwhm=1.2)
    return field.image, field.truth


CASES = {
    "Uncertainty too small\nby a factor of 1.6": understated_noise,
    "Neighbours correlated\nby 0.8": strongly_correlated_noise,
    "Hole of 7 x 7 pixels\non a core": hole_in_a_core,
    "PSF of 1.2 pixels": narrow_psf,
}


def draw(cases, path):
    """Enhance some cases and draw a row for each."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    grid = figure.subplots(len(cases), 4)
    for axes, (title, make) in zip(grid, cases.items(), strict=True):
        image, truth = make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            deep = enhance(image, seed=0, n_samples=16)
        sky = float(np.median(image.uncertainty.array))
        flux = AsinhNorm(2 * sky, vmin=-3 * sky, vmax=200 * sky)
        mask = np.zeros(image.shape, bool) if image.mask is None else image.mask
        planes = np.ma.masked_where(mask, image.data), deep.data, truth
        for ax, plane in zip(axes[:3], planes, strict=True):
            ax.imshow(plane, cmap="magma", norm=flux, origin="lower", interpolation="nearest")
        error = (deep.data - truth) / deep.uncertainty.array
        picture = axes[3].imshow(
            error, cmap="RdBu_r", norm=Normalize(-6, 6), origin="lower", interpolation="nearest"
        )
        axes[0].set_ylabel(title, fontsize="small")
        for ax in axes:
            ax.set(xticks=[], yticks=[])
    for ax, name in zip(grid[0], ("Input", "Enhanced", "Truth", "Error"), strict=True):
        ax.set_title(name)
    figure.colorbar(picture, ax=grid, location="bottom", aspect=40, shrink=0.6, label="error / stated error")
    figure.savefig(path, dpi=140)


def main():
    """Draw two cases in each picture."""
    cases = list(CASES.items())
    draw(dict(cases[:2]), STATIC / "failures_1.png")
    draw(dict(cases[2:]), STATIC / "failures_2.png")


if __name__ == "__main__":
    main()

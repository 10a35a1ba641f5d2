# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw the pictures of docs/how_it_works.rst: a simulated field in units of its noise, and how a sample is made.

    python docs/figures/method.py
"""

from pathlib import Path

import numpy as np
import torch
from astropy.modeling.models import Gaussian1D
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure

from astro_ddpm import zoo
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.diffusion import log_uniform_levels

STATIC = Path(__file__).parents[1] / "_static"
STEPS, SHOWN = 10, (0, 3, 5, 7, 9)


def show(ax, plane, title, norm, cmap="magma"):
    """Show a plane, and return its picture."""
    ax.set(title=title, xticks=[], yticks=[])
    return ax.imshow(plane, cmap=cmap, norm=norm, origin="lower", interpolation="nearest")


def draw_units(field):
    """Draw image, noise, and the residual with its histograms."""
    data, sigma = field.image.data, field.image.uncertainty.array
    residual = (field.truth - data) / sigma
    sky = float(np.median(sigma))
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    show(axes[0], data, "image $y$", AsinhNorm(2 * sky, vmin=-3 * sky, vmax=100 * sky))
    pictures = [
        show(axes[1], sigma / sky, r"noise $\sigma$ / that of the sky", Normalize(1, 2), "viridis"),
        show(axes[2], residual, r"residual $r = (x - y) / \sigma$", Normalize(-4, 4), "RdBu_r"),
    ]
    for ax, picture in zip(axes[1:3], pictures, strict=True):
        figure.colorbar(picture, ax=ax, shrink=0.8)
    bright = field.truth > 2 * sky
    bins = np.linspace(-4.5, 4.5, 28)
    for pick, label in ((~bright, "sky"), (bright, "sources")):
        axes[3].hist(residual[pick], bins, density=True, histtype="step", linewidth=1.5, label=label)
    x = np.linspace(-4.5, 4.5, 200)
    axes[3].plot(x, Gaussian1D(1 / np.sqrt(2 * np.pi))(x), "k--", linewidth=1, label="unit Gaussian")
    axes[3].set(title="distribution of $r$", xlabel="$r$", yticks=[])
    axes[3].set_ylim(0, 0.6)
    axes[3].legend(fontsize="small", ncols=2)
    figure.savefig(STATIC / "method_units.png", dpi=110)


@torch.inference_mode()
def draw_samples(field):
    """Draw what the RAUNet estimates, and a sample on its way from noise."""
    model = zoo.load("ddpm")
    data, sigma = field.image.data, field.image.uncertainty.array
    z = torch.from_numpy((data / sigma).astype(np.float32))[None, None]
    valid, noise = torch.ones_like(z), torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    estimate, way = model.estimate(z, valid), []
    levels, depth = log_uniform_levels(STEPS), model.ranges["default_noise_ratio"]
    model.draw(z, valid, estimate, depth, noise, STEPS, lambda _, x: way.append(x[0, 0].numpy().copy()))
    mean, std = (plane[0, 0].numpy() for plane in estimate)

    sky = float(np.median(sigma))
    flux = AsinhNorm(2 * sky, vmin=-3 * sky, vmax=100 * sky)
    exposure = field.deep_exposure(depth, seed=3).data
    first = {
        "image $y$": data,
        r"mean $y + \sigma m$": data + sigma * mean,
        "width $s$": std,
        f"exposure, noise {depth:.2f}": exposure,
        "truth": field.truth,
    }
    second = {f"sample, $t = {float(levels[step + 1]):.2g}$": data + sigma * way[step] for step in SHOWN}
    for number, planes in enumerate((first, second), start=1):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        axes[-1].remove()
        for ax, (title, plane) in zip(axes, planes.items(), strict=False):
            if plane is std:
                picture = show(ax, plane, title, Normalize(0, 0.8), "viridis")
                figure.colorbar(picture, ax=ax, location="bottom", shrink=0.8)
            else:
                show(ax, plane, title, flux)
        figure.savefig(STATIC / f"method_sample_{number}.png", dpi=110)


def main():
    """Draw both pictures."""
    draw_units(make_galaxy_field((160, 160), seed=6, n_galaxies=10, n_stars=3, bad_columns=0))
    draw_samples(make_galaxy_field((96, 96), seed=4, n_galaxies=3, n_stars=1, bad_columns=0))


if __name__ == "__main__":
    main()

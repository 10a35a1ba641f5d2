# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the samples are for
========================

The error of something that is measured on an enhanced image comes from its
samples: measure on each, and take the scatter. To add up the uncertainty plane
instead is wrong, because neighbouring pixels are correlated.
"""

# %%
# Samples
# -------
#
# A field of galaxies, and four exposures that might be its deep image. Each
# contains the noise of such an exposure.

import matplotlib.pyplot as plt
import numpy as np

from astro_ddpm import enhance
from astro_ddpm.datasets import make_galaxy_field

field = make_galaxy_field(
    (96, 96), seed=11, n_galaxies=5, n_stars=2, n_companions=0
)
image = field.image
deep = enhance(image, n_samples=24, seed=1)

noise = image.uncertainty.array.min()
planes = {"observed": image.data, "mean": deep.data}
for number, sample in enumerate(deep.samples[:4], start=1):
    planes[f"sample {number}"] = sample
figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
for axis, (title, plane) in zip(axes.flat, planes.items(), strict=True):
    stretched = np.arcsinh(plane / noise)
    axis.imshow(stretched, origin="lower", vmin=-1, vmax=4, cmap="magma")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# Errors of fluxes
# ----------------
#
# Apertures of growing radius on three sources: the scatter of the fluxes of
# the samples, and what the pixels would give if each erred on its own. That is
# the uncertainty plane and the noise of the exposure, added in quadrature. The
# larger the aperture, the more they differ, since the errors of neighbouring
# pixels go together.

from photutils.aperture import CircularAperture

radii = np.arange(1, 13)
positions = np.transpose([field.catalog["x"], field.catalog["y"]])[:3]
exposure_noise = deep.meta["DDPMDEP"] * image.uncertainty.array
pixel_variance = deep.uncertainty.array.astype(float) ** 2 + exposure_noise**2


def sum_up(plane, radius):
    """Sum a plane in the apertures of all sources."""
    apertures = CircularAperture(positions, r=radius)
    return apertures.do_photometry(np.asarray(plane, float))[0]


samples = [
    np.std([sum_up(sample, r) for sample in deep.samples], axis=0, ddof=1)
    for r in radii
]
pixels = [np.sqrt(sum_up(pixel_variance, r)) for r in radii]

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for number in range(len(positions)):
    color, label = f"C{number}", f"source {number + 1}"
    from_samples = np.array(samples)[:, number]
    from_pixels = np.array(pixels)[:, number]
    axis.plot(radii, from_samples, color=color, marker="o", label=label)
    axis.plot(radii, from_pixels, color=color, linestyle="--")
axis.set_xlabel("radius of the aperture [pixel]")
axis.set_ylabel(f"error of the flux [{image.unit}]")
axis.set_title("points: scatter of the samples; dashed: pixels on their own")
axis.set_yscale("log")
axis.legend()
plt.show()

# %%
# The shortcut
# ------------
#
# `~astro_ddpm.evaluation.aperture_photometry` does it in one call, and gives a
# table.

from astro_ddpm.evaluation import aperture_photometry

table = aperture_photometry(deep, CircularAperture(positions, r=6))
table = table["id", "flux", "flux_err"]
table["flux"].info.format = table["flux_err"].info.format = ".0f"
print(table)

# %%
# Not only fluxes
# ---------------
#
# Whatever is measured, a width, a colour, an asymmetry, gets its error in the
# same way. Here the half-light radius of the first source.


def half_light_radius(plane):
    """Radius that holds half of the flux within 12 pixels."""
    growth = [sum_up(plane, radius)[0] for radius in radii]
    return np.interp(growth[-1] / 2, growth, radii)


sizes = [half_light_radius(sample) for sample in deep.samples]
print(
    f"half-light radius {np.mean(sizes):.2f} +/- {np.std(sizes, ddof=1):.2f}"
)
print(f"in truth {half_light_radius(field.truth):.2f}")

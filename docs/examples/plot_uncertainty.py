# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the samples are for
========================

The error of something that is measured on an enhanced image comes from its samples: measure on each, and take
the scatter. To add up the uncertainty plane instead is wrong, because neighbouring pixels are correlated.
"""

# %%
# Samples
# -------
#
# A field of galaxies, and four exposures that might be its deep image. Each contains the noise of such an
# exposure.

import matplotlib.pyplot as plt
import numpy as np

from astro_ddpm import enhance
from astro_ddpm.datasets import make_galaxy_field

field = make_galaxy_field((96, 96), seed=11, n_galaxies=5, n_stars=2, n_companions=0)
image = field.image
deep = enhance(image, n_samples=24, seed=1)

noise = image.uncertainty.array.min()
figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained")
planes = {"observed": image.data, "mean": deep.data}
planes |= {f"sample {i + 1}": sample for i, sample in enumerate(deep.samples[:4])}
for axis, (title, plane) in zip(axes.flat, planes.items(), strict=True):
    axis.imshow(np.arcsinh(plane / noise), origin="lower", vmin=-1, vmax=4, cmap="magma")
    axis.set(title=title, xticks=[], yticks=[])
plt.show()

# %%
# Errors of fluxes
# ----------------
#
# Apertures of growing radius on three sources. The scatter of the fluxes of the samples grows faster with the
# radius than the sum in quadrature of the uncertainty plane: the errors of neighbouring pixels go together.
# The samples also contain the noise of the exposure that they show.

from photutils.aperture import CircularAperture

radii = np.arange(1, 13)
positions = np.transpose([field.catalog["x"], field.catalog["y"]])[:3]
from_samples, in_quadrature = [], []
for radius in radii:
    apertures = CircularAperture(positions, r=radius)
    fluxes = np.array([apertures.do_photometry(np.asarray(sample, float))[0] for sample in deep.samples])
    from_samples.append(fluxes.std(axis=0, ddof=1))
    variance = apertures.do_photometry(deep.uncertainty.array.astype(float) ** 2)[0]
    in_quadrature.append(np.sqrt(variance))

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for number, (right, wrong) in enumerate(
    zip(np.transpose(from_samples), np.transpose(in_quadrature), strict=True)
):
    color = f"C{number}"
    axis.plot(radii, right, color=color, marker="o", label=f"source {number + 1}, scatter of the samples")
    axis.plot(radii, wrong, color=color, linestyle="--", label=f"source {number + 1}, in quadrature")
axis.set(xlabel="radius of the aperture [pixel]", ylabel=f"error of the flux [{image.unit}]", yscale="log")
axis.legend(fontsize="small")
plt.show()

# %%
# The shortcut
# ------------
#
# `~astro_ddpm.evaluation.aperture_photometry` does the same in one call, and gives a table.

from astro_ddpm.evaluation import aperture_photometry

table = aperture_photometry(deep, CircularAperture(positions, r=6))
print(table["id", "flux", "flux_err"])

# %%
# Not only fluxes
# ---------------
#
# Whatever is measured, a width, a colour, an asymmetry, gets its error in the same way. Here the half-light
# radius of the first source.


def half_light_radius(plane):
    """Radius that holds half of the flux within 12 pixels, from the curve of growth."""
    apertures = [CircularAperture(positions[0], r=radius) for radius in radii]
    growth = np.array([aperture.do_photometry(np.asarray(plane, float))[0][0] for aperture in apertures])
    return np.interp(growth[-1] / 2, growth, radii)


sizes = [half_light_radius(sample) for sample in deep.samples]
print(f"half-light radius {np.mean(sizes):.2f} +/- {np.std(sizes, ddof=1):.2f} pixels")
print(f"in truth {half_light_radius(field.truth):.2f}")

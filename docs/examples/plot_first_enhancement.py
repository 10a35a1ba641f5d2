# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A first enhancement
===================

A simulated field of galaxies and stars, for which the truth is known: as a
CCD sees it, enhanced, and in truth.
"""

# %%
# The image
# ---------
#
# Any `~astropy.nddata.CCDData` will do that is sky-subtracted and knows its
# noise. This one is made by the package itself, with photon noise, read noise
# and a bad column.

from astro_ddpm.datasets import make_galaxy_field

field = make_galaxy_field((128, 128), seed=4, n_galaxies=9, n_stars=3)
image = field.image
print(image.unit, type(image.uncertainty).__name__)
print(int(image.mask.sum()), "bad pixels")

# %%
# Enhance it
# ----------
#
# The result is a `~astropy.nddata.CCDData`, too. Its data are the mean of the
# posterior, its uncertainty the standard deviation.

from astro_ddpm import enhance

deep = enhance(image, n_samples=8, seed=1)

# %%
# Look at it
# ----------
#
# All panels but the last have the same arcsinh stretch, which shows the sky
# and the cores of galaxies alike.

import matplotlib.pyplot as plt
from astropy.visualization import AsinhStretch, ImageNormalize

noise = image.uncertainty.array.min()
norm = ImageNormalize(
    vmin=-2 * noise, vmax=60 * noise, stretch=AsinhStretch(0.05)
)
figure, axes = plt.subplots(2, 2, figsize=(8, 8.4), layout="constrained")
panels = {"observed": image.data, "enhanced": deep.data, "truth": field.truth}
for axis, (title, plane) in zip(axes.flat, panels.items(), strict=False):
    axis.imshow(plane, origin="lower", norm=norm, cmap="magma")
    axis.set_title(title)
ratio = deep.uncertainty.array / image.uncertainty.array
picture = axes[1, 1].imshow(ratio, origin="lower", vmin=0, vmax=1)
axes[1, 1].set_title("uncertainty / noise of the input")
figure.colorbar(picture, ax=axes[1, 1], shrink=0.8)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %%
# What it is worth
# ----------------
#
# The error in units of the noise of the input, before and after. Both would be
# 1 for a method that does nothing. The last number, the scatter of the pulls,
# is 1 if the uncertainty says how large the error is. If it is larger, the
# uncertainty is too small for this field by that factor. :doc:`/trust` tells
# what it is on real images.

import numpy as np

good = ~image.mask
before = ((image.data - field.truth) / image.uncertainty.array)[good]
after = ((deep.data - field.truth) / image.uncertainty.array)[good]
pulls = ((deep.data - field.truth) / deep.uncertainty.array)[good]
print(f"error before {np.std(before):.2f}, after {np.std(after):.2f}")
print(f"pulls {np.std(pulls):.2f}")

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From a raw frame to a catalogue
===============================

A raw CCD frame is reduced with ccdproc, enhanced, and measured with photutils.
What every step does is shown on one galaxy.

The frame is simulated, with the size, gain, read noise, overscan and trim
section of a CCD at the 1.0 m telescope of the South African Astronomical
Observatory, so that the truth is known. Give the path of a raw frame of your
own to use that instead::

    python plot_raw_to_catalog.py RAW.fits

It needs photutils 3 or newer, whose names it uses.
"""

import argparse

import ccdproc
import matplotlib.pyplot as plt
import numpy as np
from astropy import units as u
from astropy.convolution import Gaussian2DKernel, interpolate_replace_nans
from astropy.modeling.models import Chebyshev1D
from astropy.nddata import CCDData, Cutout2D
from astropy.visualization import simple_norm
from photutils.background import Background2D
from photutils.segmentation import SourceCatalog, SourceFinder

from astro_ddpm.datasets import Detector, make_galaxy_field
from astro_ddpm.pipeline import enhance_ccd

parser = argparse.ArgumentParser()
parser.add_argument(
    "raw", nargs="?", help="a raw frame; simulated if not given"
)
parser.add_argument(
    "--size",
    type=int,
    default=224,
    help="width of the part to enhance in pixels",
)
parser.add_argument("--samples", type=int, default=8, help="samples to draw")
args = parser.parse_args()

# %%
# The raw frame
# -------------
#
# Everything that the reduction has to know stands in the header: the gain in
# electron/adu, the read noise in electron, the overscan (``BIASSEC``) and the
# part of the chip that sees the sky (``TRIMSEC``).

header = {
    "NAXIS1": 536,
    "NAXIS2": 520,
    "GAIN": 1.9,
    "RDNOISE": 5.0,
    "BIASSEC": "[4:13, 1:520]",
    "TRIMSEC": "[17:528, 1:520]",
}

if args.raw:
    raw, truth = CCDData.read(args.raw, unit="adu"), None
    header = raw.header
    # What a simulated chip looks like has nothing to do with this one: its
    # calibration frames must be flat.
    detector = Detector.from_header(
        header,
        bias_structure=0,
        response_scatter=0,
        vignetting=0,
        bad_columns=0,
    )
else:
    detector = Detector.from_header(
        header, bad_columns=4, vignetting=0.2, seed=56
    )
    field = make_galaxy_field(
        detector.light_shape, psf_fwhm=3.5, sky_level=86, bad_columns=0, seed=1
    )
    raw, truth = detector.raw_frame(field, cosmic_rays=150), field.truth

gain = header["GAIN"] * u.electron / u.adu
read_noise = header["RDNOISE"] * u.electron
print(raw.shape, raw.data.dtype, raw.unit)

# %%
# Pixels at either end of the scale are marked now, where these ends are known.
# Later steps carry the mask along.

raw.mask = (raw.data >= raw.header.get("SATURATE", 65535)) | (raw.data == 0)

# %%
# Bias and flat
# -------------
#
# Five frames of each are combined. The median of ten pixels of overscan has
# a noise of its own, which would become that of whole rows (banding), so a
# smooth function of the row is subtracted in its place. A dead column sees
# hardly any light, which gives it away in the flat. If the flat is
# normalized in the center of the chip, the counts there stay what they are.


def remove_overscan(frame):
    """Subtract the overscan and cut it off."""
    frame = ccdproc.subtract_overscan(
        frame,
        fits_section=header["BIASSEC"],
        median=True,
        model=Chebyshev1D(2),
    )
    return ccdproc.trim_image(frame, fits_section=header["TRIMSEC"])


bias_frames = [
    remove_overscan(detector.bias_frame(seed=seed)) for seed in range(5)
]
bias = ccdproc.combine(bias_frames, method="average")

flat_frames = [
    remove_overscan(detector.flat_frame(seed=seed)) for seed in range(5, 10)
]
flat = ccdproc.combine(
    [ccdproc.subtract_bias(frame, bias) for frame in flat_frames],
    method="average",
)
ny, nx = flat.shape
center = np.median(
    flat.data[ny // 2 - 10 : ny // 2 + 10, nx // 2 - 10 : nx // 2 + 10]
)
dead = flat.data < 0.3 * center

# %%
# The reduction
# -------------
#
# `ccdproc.create_deviation` comes before the flat field, because the photon
# noise is that of the photons that were counted, and before the sky is
# subtracted, because the sky's photons were counted too. Cosmic rays are
# searched for in electrons, so that data and uncertainty keep the same unit.
# The search leaves out masked pixels and their neighbours; therefore dead
# columns are interpolated first, and masked again afterwards.

steps = {"raw": ccdproc.trim_image(raw, fits_section=header["TRIMSEC"])}

ccd = ccdproc.subtract_bias(remove_overscan(raw), bias)
ccd.mask |= dead
ccd = ccdproc.create_deviation(
    ccd, gain=gain, readnoise=read_noise, disregard_nan=True
)
steps["bias subtracted"] = ccd

ccd = ccdproc.gain_correct(
    ccdproc.flat_correct(ccd, flat, norm_value=center), gain
)
steps["flat-fielded, in electrons"] = ccd

bad, ccd = ccd.mask, ccd.copy()
ccd.data = interpolate_replace_nans(
    np.where(bad, np.nan, ccd.data), Gaussian2DKernel(1.5)
)
ccd.mask = None
ccd = ccdproc.cosmicray_lacosmic(
    ccd, sigclip=5, gain=1.0, readnoise=read_noise.value
)
ccd.mask |= bad
steps["cosmic rays removed"] = ccd

sky = Background2D(
    ccd.data, min(64, *ccd.shape), mask=ccd.mask, exclude_percentile=50
).background
ccd = ccd.subtract(sky * u.electron, handle_meta="first_found")
steps["sky subtracted"] = ccd

# %%
# The enhancement
# ---------------
#
# One more step, on the surroundings of the largest source. It finds the noise
# in ``ccd.uncertainty``, smooths it if it follows the counts of each pixel too
# closely (DDPMNOIS in the header tells), and fills the dead columns and what
# the cosmic rays have hit.

noise = np.median(ccd.uncertainty.array[~ccd.mask])
found = SourceFinder(n_pixels=20, deblend=False, progress_bar=False)(
    ccd.data, 3 * noise
)
bright = SourceCatalog(ccd.data, found)
position = bright.centroid[np.argmax(bright.area)]
part = Cutout2D(ccd.data, position, args.size, mode="trim").slices_original

deep = enhance_ccd(ccd[part], n_samples=args.samples, seed=1)
print(repr(deep.meta["DDPM*"]))

# %%
# The catalogue
# -------------
#
# Sources are what is brighter than three times the noise of the deep exposure
# that the model was asked for, which is the fraction ``DDPMDEP`` of the noise
# that the image had. The error of any quantity is its scatter on the samples.
# On the image before enhancement, photutils adds up the errors of the pixels,
# which are independent there.
#
# These fluxes are sums over the segments, which shows best what each step
# does. For those to publish take `~astro_ddpm.evaluation.aperture_photometry`
# or Kron apertures: isophotal fluxes of faint galaxies come out too low
# (:doc:`/photometry`).

segments = SourceFinder(n_pixels=12, progress_bar=False)(
    deep.data, 3 * deep.meta["DDPMDEP"] * noise
)


def measure(image, error=None):
    """Return flux and half-light radius of every source."""
    catalog = SourceCatalog(image, segments, error=error)
    return (
        catalog.segment_flux,
        catalog.flux_radius(0.5).value,
        catalog.segment_flux_err,
    )


sources = SourceCatalog(deep.data, segments, wcs=deep.wcs)
table = sources.to_table(columns=["label", "x_centroid", "y_centroid"])
if deep.wcs is not None:
    sky = sources.sky_centroid
    table["ra"], table["dec"] = sky.ra, sky.dec
flux, radius, _ = measure(deep.data)
flux_of_samples, radius_of_samples, _ = zip(
    *map(measure, deep.samples), strict=True
)
table["flux"], table["flux_err"] = (
    flux * deep.unit,
    np.std(flux_of_samples, axis=0, ddof=1) * deep.unit,
)
table["radius"], table["radius_err"] = (
    radius * u.pix,
    np.std(radius_of_samples, axis=0, ddof=1) * u.pix,
)
before, _, before_err = measure(ccd[part].data, ccd[part].uncertainty.array)
table["flux_before"], table["flux_before_err"] = (
    before * deep.unit,
    before_err * deep.unit,
)
if truth is not None:
    table["flux_true"] = measure(truth[part] * gain.value)[0] * deep.unit
for name in table.colnames[1:]:
    table[name].info.format = ".5f" if name in ("ra", "dec") else ".1f"
table.sort("flux", reverse=True)
table.pprint(max_lines=20, max_width=-1)

# %%
# One galaxy
# ----------
#
# The largest source, after every step. Dead columns and cosmic rays cross it,
# and its outskirts drown in noise until the last one.

largest = sources[np.argmax(sources.area)]
y, x = round(float(largest.y_centroid)), round(float(largest.x_centroid))
row, column = (
    np.clip(c, 32, n - 32) for c, n in zip((y, x), deep.shape, strict=True)
)
stamp = np.s_[row - 32 : row + 32, column - 32 : column + 32]

panels = {name: step[part].data[stamp] for name, step in steps.items()}
panels["enhanced"] = deep.data[stamp]
panels["uncertainty"] = deep.uncertainty.array[stamp]
if truth is not None:
    panels["truth"] = truth[part][stamp] * gain.value

limits = np.percentile(panels["enhanced"], [1, 99.5])
names = list(panels)
for half in (names[:4], names[4:]):
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 6.2), layout="constrained")
    for axis in axes.flat[len(half) :]:
        axis.remove()
    for axis, name in zip(axes.flat, half, strict=False):
        values = panels[name]
        norm = simple_norm(values, "asinh", min_percent=1, max_percent=99.5)
        if name in ("sky subtracted", "enhanced", "truth"):
            low = limits[0] - np.ptp(limits) / 10
            norm = simple_norm(values, "asinh", vmin=low, vmax=limits[1])
        unit = "adu" if name in ("raw", "bias subtracted") else "electron"
        picture = axis.imshow(values, norm=norm, origin="lower", cmap="gray")
        figure.colorbar(picture, ax=axis, shrink=0.8, label=unit)
        axis.set(title=name.capitalize(), xticks=[], yticks=[])
plt.show()

# %%
# Fluxes before and after
# -----------------------
#
# In the same pixels, relative to the truth where that is known, otherwise to
# the enhanced image. The errors are those of the noise alone; that of the sky
# level, the same before and after, is not in them.

name_of_reference = "enhanced" if truth is None else "true"
reference = table["flux"] if truth is None else table["flux_true"]
figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
for name, color in (("flux_before", "0.6"), ("flux", "C0")):
    ratio = (table[name] / reference).value
    error = (table[f"{name}_err"] / reference).value
    label = "before" if name == "flux_before" else "enhanced"
    axis.errorbar(
        reference.value,
        ratio,
        error,
        fmt="o",
        color=color,
        markersize=4,
        label=label,
    )
axis.axhline(1, color="k", linewidth=0.8)
axis.set(
    xscale="log", ylim=(0, 2), xlabel=f"Flux, {name_of_reference} (electron)"
)
axis.set(ylabel=f"Flux / {name_of_reference}")
axis.legend()
plt.show()

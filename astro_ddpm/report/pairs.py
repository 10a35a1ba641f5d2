# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images whose deep counterpart is known: pairs of exposures, and deep images made shallow.
"""

from __future__ import annotations

import logging
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.utils.decorators import deprecated

from astro_ddpm.listing import read_listing
from astro_ddpm.nddata import Exposure, read_image
from astro_ddpm.noise import estimate_sky_sigma
from astro_ddpm.utils import renamed_argument, require

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Pair", "degrade_images", "read_pairs"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Pair:
    """
    An image and what a deeper exposure of the same scene shows.

    Pixels that are not finite join the masks; the images themselves are left as they are.

    Parameters
    ----------
    name : str
        What to call it, unique among the pairs.

    image : `~astropy.nddata.CCDData`
        The shallow image, shape ``(ny, nx)``, with its noise as uncertainty.

    reference : `~astropy.nddata.CCDData`
        The deep one at the same PSF, unit and sky level, with its own noise as uncertainty and a mask of the
        pixels that cannot judge.

    noise_ratio : float
        The noise of the reference in units of the noise of the image. Its old name ``depth`` is deprecated.

    fitted : bool, optional
        Whether the kernel that brought the reference to the PSF of the image was fitted to the image. The
        reference then follows a part of the noise of the image, which is not in its uncertainty.

    Raises
    ------
    ValueError
        If an image has no uncertainty, or the shapes or units do not fit.
    """

    name: str
    image: CCDData
    reference: CCDData
    noise_ratio: float
    fitted: bool = False

    def __post_init__(self):
        if self.image.shape != self.reference.shape or self.image.unit != self.reference.unit:
            msg = (
                f"image and reference of the pair {self.name} must have one shape and unit, not "
                f"{self.image.shape} in {self.image.unit} and {self.reference.shape} in {self.reference.unit}"
            )
            raise ValueError(msg)
        for name in ("image", "reference"):
            object.__setattr__(self, name, _with_full_mask(getattr(self, name), f"{name} of {self.name}"))

    @property
    @deprecated("0.1", alternative="noise_ratio")
    def depth(self):
        """The noise ratio."""
        return self.noise_ratio

    def __repr__(self):
        ny, nx = self.image.shape
        return f"<{type(self).__name__} {self.name}: {ny} x {nx} pixels, noise ratio {self.noise_ratio:.3g}>"


Pair.__init__ = renamed_argument("depth", "noise_ratio")(Pair.__init__)  # type: ignore[method-assign]


def read_pairs(
    listing: str | Path, *, gain: float | None = None, limit: int | None = None
) -> tuple[list[Pair], list[str]]:
    """
    Read pairs of exposures and bring the deep one of each to the PSF of the shallow one.

    Parameters
    ----------
    listing : str or path-like
        A CSV file whose first two columns are the paths of a shallow and a deep FITS image, relative to the
        folder of the file, below one header line. The images are sky-subtracted, on the same pixels and flux
        scale.

    gain : float, optional
        The gain of the shallow images, in electron per unit of flux, for the photon noise of images without
        an uncertainty. Without it their noise is that of the sky.

    limit : int, optional
        How many pairs to return at most.

    Returns
    -------
    pairs : list of `Pair`
        Those whose exposures agree within their noise.

    rejected : list of str
        The names of the others: variable or saturated sources, satellite trails. They cannot judge.

    Raises
    ------
    ValueError
        If images of a pair differ in shape or are too small, or ``gain`` is not positive.

    OSError
        If a file cannot be read.

    See Also
    --------
    astro_ddpm.training.homogenize_psf : How one PSF is made of two.
    """
    require(gain is None or gain > 0, f"gain must be positive, not {gain}")
    pairs: list[Pair] = []
    rejected: list[str] = []
    rows = read_listing(listing)
    for name, paths in zip(_unique_names([shallow for shallow, _ in rows]), rows, strict=True):
        if limit is not None and len(pairs) >= limit:
            break
        try:
            pair = _match(name, read_image(paths[0]), read_image(paths[1]), gain)
        except ValueError as error:
            msg = f"pair {paths[0]}, {paths[1]}: {error}"
            raise ValueError(msg) from error
        if pair is None:
            log.info("%s left out: the exposures differ by more than noise", name)
            rejected.append(name)
        else:
            pairs.append(pair)
    return pairs, rejected


def degrade_images(paths: Iterable[str | Path], factor: float = 10.0, *, seed: int = 0) -> list[Pair]:
    r"""
    Make shallow images of deep ones by adding noise.

    An image with the noise :math:`\sigma` receives Gaussian noise of :math:`k \sigma`; it is the reference.

    Parameters
    ----------
    paths : iterable of str or path-like
        Sky-subtracted deep FITS images. Without an uncertainty the noise of their sky is measured.

    factor : float, optional
        The factor :math:`k`, at least 2, so that the noise that both have in common hardly matters.

    seed : int, optional
        Selects the noise.

    Returns
    -------
    pairs : list of `Pair`
        One per image.

    Raises
    ------
    ValueError
        If ``factor`` is less than 2, or an image is not two-dimensional.

    OSError
        If a file cannot be read.
    """
    require(factor >= 2, f"factor must be at least 2, not {factor}")
    paths = [Path(path) for path in paths]
    return [
        _degrade(name, read_image(path), factor, np.random.default_rng([seed, number]))
        for number, (name, path) in enumerate(zip(_unique_names(paths), paths, strict=True))
    ]


def _degrade(name, deep, factor, rng):
    noisy = Exposure.parse(deep).check()
    sigma = _noise(noisy)
    data = noisy.data + factor * sigma * rng.standard_normal(sigma.shape)
    ratio = float(np.hypot(1, factor))
    image = _with_noise(deep, data, ratio * sigma, ~noisy.valid)
    return Pair(name, image, _with_noise(deep, noisy.data, sigma, ~noisy.valid), 1 / ratio)


def _match(name, shallow, deep, gain):
    """Return a pair at one PSF, or None if its exposures differ by more than noise."""
    image, reference = (Exposure.parse(each).check() for each in (shallow, deep))
    pair = image.match(reference, variance_per_flux=1 / gain if gain else 0.0)
    return pair and Pair(
        name,
        _with_noise(shallow, image.data, pair.sigma, ~image.valid),
        _with_noise(shallow, pair.target, pair.noise_gain * pair.deep_sigma, ~pair.use),
        pair.noise_ratio,
        fitted=True,
    )


def _noise(noisy):
    """Return the given noise, or that of the sky."""
    if noisy.sigma is not None:
        return np.where(noisy.valid, noisy.sigma, np.median(noisy.sigma[noisy.valid]))
    return np.full(noisy.data.shape, estimate_sky_sigma(noisy.data, ~noisy.valid))


def _with_noise(like, data, sigma, mask):
    """Return an image with WCS, unit and header of another."""
    uncertainty = StdDevUncertainty(sigma.astype(np.float32))
    carried = {"unit": like.unit, "wcs": like.wcs, "meta": like.meta.copy()}
    return CCDData(data.astype(np.float32), uncertainty=uncertainty, mask=mask, **carried)


def _with_full_mask(ccd, name):
    """Return a shallow copy whose mask is an array with all pixels that are not finite."""
    require(ccd.uncertainty is not None, f"{name} must have an uncertainty")
    masked = copy(ccd)
    masked.uncertainty = copy(ccd.uncertainty)  # which knows one parent
    masked.mask = ~np.isfinite(ccd.data) | (False if ccd.mask is None else np.asarray(ccd.mask, bool))
    return masked


def _unique_names(paths):
    """Return the stems of paths, with a number where two are alike."""
    stems = [Path(path).name.removesuffix(".gz").removesuffix(".fits") for path in paths]
    return [f"{stem}_{n}" if stems.count(stem) > 1 else stem for n, stem in enumerate(stems, start=1)]

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Examples of training: what networks see and what they predict, whatever the images come from.
"""

import numpy as np

from astro_ddpm.noise import fill_holes, remaining_sky, whiten
from astro_ddpm.utils import require

from .cameras import dihedral, random_crop, random_holes, saturated, sky_error

__all__ = ["ExampleDataset"]


class ExampleDataset:
    """
    Whitened inputs and residuals, drawn anew at each visit.

    A subclass says in ``_draw`` what image, noise, target and depth are, and which pixels were measured and
    can teach. Crops of a ``size`` (None for whole images), in two fifths a wrong sky of input and target
    alike, in three tenths holes, flips and quarter turns come on top. Every draw follows from seed, epoch,
    stream and index alone, so a resumed training sees what an uninterrupted one would have seen. The
    ``stream`` tells data sets apart that are seen beside each other, which otherwise would share their draws.
    """

    sky_share, hole_share = 0.4, 0.3

    def __init__(self, seed, epoch, size, stream):
        self.seed, self.epoch, self.size, self.stream = seed, epoch, size, stream

    def __getitem__(self, index):
        """Return ``z``, ``valid``, ``residual`` and ``use`` of shape (1, ny, nx) and the scalar ``depth``."""
        require(0 <= index < len(self), f"index {index} is outside of {len(self)} examples", IndexError)
        rng = np.random.default_rng([self.seed, self.epoch, self.stream, index])
        data, sigma, target, depth, valid, use = self._draw(self._row(index), rng)
        planes = random_crop((data, sigma, target, valid, use), self.size or min(data.shape), rng)
        data, sigma, target, valid, use = planes
        if rng.random() < self.sky_share:
            error = sky_error(data.shape, data, sigma, rng)
            data, target = data + error, target + error
        if rng.random() < self.hole_share:
            valid = valid & random_holes(data.shape, rng)
        if rng.random() < 0.1 * self.hole_share:
            valid = valid & ~saturated(data / sigma, rng)
        code = rng.integers(8)
        planes = (np.ascontiguousarray(dihedral(p, code)) for p in (data, sigma, target, valid, use))
        data, sigma, target, valid, use = planes
        return whitened(data, sigma, target, depth, valid, use)

    def _row(self, index):
        """Return what an example is made from."""
        raise NotImplementedError

    def _draw(self, row, rng):
        """Return image, noise, target, depth, and the pixels that were measured and that can teach."""
        raise NotImplementedError


def marks(row, shape):
    """Return where an image was measured and where it can teach: everywhere, if not told otherwise."""
    return row.get("valid", np.ones(shape, bool)), row.get("use", np.ones(shape, bool))


def whitened(data, sigma, target, depth, valid, use):
    """Turn an exposure into what the networks see and predict."""
    data, sigma = fill_holes(data, sigma, valid)
    z = whiten(data, sigma)
    planes = {"z": z - remaining_sky(z), "valid": valid, "residual": whiten(target, sigma, data), "use": use}
    example = {key: np.ascontiguousarray(plane[None], np.float32) for key, plane in planes.items()}
    return example | {"depth": np.float32(depth)}

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Geometry of tiles: a frame cut in parts that a network can be given one by one.

A network that looks no farther than a certain radius gives every pixel of a tile the value that it has in the
whole frame, if it sees a halo of that width round the tile, and if its coarse pixels are the same in both.
"""

from typing import NamedTuple

__all__ = ["Tile", "make_tiles", "tile_around"]


class Tile(NamedTuple):
    """
    A part of a frame.

    Its ``core`` are pixels (y, x) that belong to no other tile, and its ``outer`` part those that are needed
    to compute them: core and halo, cut at the edges of the frame.
    """

    core: tuple[slice, slice]
    outer: tuple[slice, slice]

    @property
    def inner(self):
        """The core as a part of the outer pixels."""
        return tuple(
            slice(core.start - outer.start, core.stop - outer.start)
            for core, outer in zip(self.core, self.outer, strict=True)
        )


def make_tiles(shape, size=None, halo=0, stride=1):
    """
    Cut a frame, shape (ny, nx), in tiles of about equal size, row by row; their cores cover each pixel once.

    A core is at most ``size`` pixels wide (None for the whole frame), a halo at least ``halo``. The outer
    part of a tile begins a multiple of ``stride`` pixels behind the first pixel of the frame and ends a
    multiple before the last one. So pixels that a network combines in blocks of that size, counted from
    either end of the frame, are the same pixels in each tile.

    Examples
    --------
    >>> from astro_ddpm.tiling import make_tiles
    >>> tiles = make_tiles((613, 741), size=256, halo=55, stride=8)
    >>> len(tiles)
    9
    >>> tiles[0].core, tiles[0].outer
    ((slice(0, 208, None), slice(0, 248, None)), (slice(0, 269, None), slice(0, 309, None)))
    """
    rows, columns = (_cut(length, size or length, halo, stride) for length in shape)
    return [Tile((y, x), (wide_y, wide_x)) for y, wide_y in rows for x, wide_x in columns]


def tile_around(core, shape, halo=0, stride=1):
    """Return the `Tile` of a given part (y, x) of a frame; the other parameters are those of `make_tiles`."""
    axes = zip(core, shape, strict=True)
    rows, columns = (_slices(part.start, part.stop, length, halo, stride) for part, length in axes)
    return Tile((rows[0], columns[0]), (rows[1], columns[1]))


def _cut(length, size, halo, stride):
    """Cut an axis: slices of cores with those of the outer parts."""
    number = -(-length // size)
    blocks = -(-length // (number * stride))
    step = min(size, blocks * stride)
    starts = range(0, length, step)
    return [_slices(start, min(start + step, length), length, halo, stride) for start in starts]


def _slices(start, stop, length, halo, stride):
    """Return the slices of core and outer part."""
    before = max(start - halo, 0) // stride * stride
    after = max(length - stop - halo, 0) // stride * stride
    return slice(start, stop), slice(before, length - after)

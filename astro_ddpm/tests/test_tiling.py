# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the geometry of tiles.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.ndimage import maximum_filter

from astro_ddpm.tiling import make_tiles

SHAPES = [(1, 1), (1, 40), (7, 13), (64, 64), (131, 149), (613, 741)]


def width(part):
    return part.stop - part.start


class TestMakeTiles:
    @pytest.mark.parametrize("stride", [1, 2, 8])
    @pytest.mark.parametrize("size", [1, 7, 16, 96, 1000])
    @pytest.mark.parametrize("shape", SHAPES[:-1])
    def test_cores_cover_each_pixel_once(self, shape, size, stride):
        count = np.zeros(shape, int)
        for tile in make_tiles(shape, size, halo=5, stride=stride):
            count[tile.core] += 1
            assert 1 <= max(map(width, tile.core)) <= size
        assert_array_equal(count, 1)

    @pytest.mark.parametrize("stride", [1, 2, 8])
    @pytest.mark.parametrize("halo", [0, 5, 55])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_outer_parts(self, shape, halo, stride):
        for tile in make_tiles(shape, 96, halo, stride):
            for core, outer, length in zip(tile.core, tile.outer, shape, strict=True):
                assert 0 <= outer.start <= max(core.start - halo, 0)
                assert min(core.stop + halo, length) <= outer.stop <= length
                assert outer.start % stride == (length - outer.stop) % stride == 0
                assert width(outer) < width(core) + 2 * (halo + stride)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_frame_is_put_together_again(self, shape):
        frame = np.arange(np.prod(shape)).reshape(shape)
        result = np.full_like(frame, -1)
        for tile in make_tiles(shape, 33, 3, 4):
            result[tile.core] = frame[tile.outer][tile.inner]
        assert_array_equal(result, frame)

    @pytest.mark.parametrize("radius", [1, 4, 20])
    def test_local_filter_of_tiles_is_that_of_the_frame(self, radius):
        frame = np.random.default_rng(1).normal(size=(131, 149))
        expected = maximum_filter(frame, 2 * radius + 1)
        result = np.full_like(frame, np.nan)
        for tile in make_tiles(frame.shape, 50, radius):
            result[tile.core] = maximum_filter(frame[tile.outer], 2 * radius + 1)[tile.inner]
        assert_array_equal(result, expected)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_whole_frame_by_default(self, shape):
        (tile,) = make_tiles(shape, halo=9, stride=8)
        assert tile.core == tile.outer == tile.inner == (slice(0, shape[0]), slice(0, shape[1]))

    def test_about_equal_tiles(self):
        # 257 pixels are not cut in 256 and 1
        widths = [width(tile.core[1]) for tile in make_tiles((10, 257), 256, stride=8)]
        assert widths == [136, 121]

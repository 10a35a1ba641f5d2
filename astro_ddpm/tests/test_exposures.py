# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the exposures module.
"""

import pytest

from astro_ddpm.exposures import read_listing


class TestReadListing:
    def test_paths_are_relative_to_the_file(self, tmp_path):
        listing = tmp_path / "list.csv"
        listing.write_text("wide,deep,note\nw/1.fits,d/1.fits,a\n\nw/2.fits,d/2.fits,b\n")
        assert read_listing(str(listing)) == [
            (tmp_path / "w/1.fits", tmp_path / "d/1.fits"),
            (tmp_path / "w/2.fits", tmp_path / "d/2.fits"),
        ]

    @pytest.mark.parametrize("text", ["", "wide,deep\n", "wide,deep\n\n\n"])
    def test_empty(self, tmp_path, text):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ValueError, match="holds no pair"):
            read_listing(tmp_path / "list.csv")

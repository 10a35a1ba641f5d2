# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the listing module.
"""

import pytest
from astropy.utils.exceptions import AstropyDeprecationWarning

from astro_ddpm.listing import read_listing


class TestReadListing:
    def test_paths_are_relative_to_the_file(self, tmp_path):
        listing = tmp_path / "list.csv"
        listing.write_text("wide,deep,note\nw/1.fits,d/1.fits,a\n\nw/2.fits,d/2.fits,b\n")
        assert read_listing(str(listing)) == [
            (tmp_path / "w/1.fits", tmp_path / "d/1.fits"),
            (tmp_path / "w/2.fits", tmp_path / "d/2.fits"),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "wide;deep\nw/1.fits;d/1.fits\nw/2.fits;d/2.fits\n",
            "\ufeffwide\tdeep\r\nw/1.fits\td/1.fits\r\nw/2.fits\td/2.fits",
            "w/1.fits, d/1.fits\n , \n\nw/2.fits , d/2.fits\n  \n",
            'wide,deep\n"w/1.fits", "d/1.fits"\nw/2.fits,d/2.fits\n',
            "Deep, Shallow\nd/1.fits,w/1.fits\nd/2.fits,w/2.fits\n",
            "id;shallow;seeing;deep\n1;w/1.fits;0.8;d/1.fits\n2;w/2.fits;0.7;d/2.fits\n",
            "# pairs, of 2019\nw/1.fits,d/1.fits\n# w/3.fits,d/3.fits\nw/2.fits,d/2.fits\n",
        ],
    )
    def test_as_people_write_them(self, tmp_path, text):
        (tmp_path / "list.csv").write_text(text, encoding="utf-8")
        pairs = read_listing(tmp_path / "list.csv")
        assert pairs == [(tmp_path / f"w/{i}.fits", tmp_path / f"d/{i}.fits") for i in (1, 2)]

    @pytest.mark.parametrize(
        ("text", "line"),
        [("a,b\n\nw.fits,d.fits\nw.fits\n", 4), ("a;b\nw.fits;\n", 2), ("deep,shallow\nd.fits\n", 2)],
    )
    def test_line_without_a_pair(self, tmp_path, text, line):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ValueError, match=f"line {line} of listing .* must hold two paths"):
            read_listing(tmp_path / "list.csv")

    @pytest.mark.parametrize("text", ["", "wide,deep\n", "wide,deep\n\n\n"])
    def test_empty(self, tmp_path, text):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ValueError, match="holds no pair"):
            read_listing(tmp_path / "list.csv")


def test_old_name():
    from astro_ddpm import exposures

    with pytest.warns(AstropyDeprecationWarning, match="use astro_ddpm.listing"):
        assert exposures.read_listing is read_listing
    with pytest.raises(AttributeError, match="no attribute 'write_listing'"):
        _ = exposures.write_listing

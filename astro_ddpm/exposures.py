# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Lists of pairs of exposures.
"""

import csv
from pathlib import Path

__all__ = ["read_listing"]


def read_listing(listing):
    """
    Read a list of pairs.

    Parameters
    ----------
    listing : str or path-like
        A CSV file whose first two columns are the paths of a shallow and a deep FITS image, relative to
        the folder of the file, below one header line.

    Returns
    -------
    pairs : list of tuple of `~pathlib.Path`
        The paths.

    Raises
    ------
    ValueError
        If the file holds no pair.
    """
    listing = Path(listing)
    with listing.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    pairs = [(listing.parent / row[0], listing.parent / row[1]) for row in rows if row]
    if not pairs:
        msg = f"listing {listing} holds no pair"
        raise ValueError(msg)
    return pairs

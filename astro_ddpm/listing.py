# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Lists of pairs of exposures.
"""

import csv
import re
from functools import partial
from pathlib import Path

__all__ = ["read_listing"]

FITS_NAME = re.compile(r"\.(fits?|fts)(\.\w+)?(\[.*\])?$", re.IGNORECASE)


def read_listing(listing):
    """
    Read a list of pairs.

    Parameters
    ----------
    listing : str or path-like
        A text file with the paths of a shallow and a deep FITS image, relative to the folder of the file, in
        the columns that a first line names ``shallow`` and ``deep``, otherwise in the first two. Columns are
        separated by commas, semicolons or tabs; blanks around them, empty lines and comments (``#``) do not
        matter.

    Returns
    -------
    pairs : list of tuple of `~pathlib.Path`
        The paths.

    Raises
    ------
    ValueError
        If a line does not hold two paths, or the file no pair; the message tells the number of the line.
    """
    listing = Path(listing)
    lines = [re.sub("^ *#.*", "", line) for line in listing.read_text(encoding="utf-8-sig").splitlines()]
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    rows = [[cell.strip() for cell in row] for row in map(partial(_split, delimiter), lines)]
    rows = {number: row for number, row in enumerate(rows, 1) if any(row)}
    if rows and not any(FITS_NAME.search(cell) for cell in rows[min(rows)]):
        names = [name.lower() for name in rows.pop(min(rows))]
        if {"shallow", "deep"} <= {*names}:
            columns = names.index("shallow"), names.index("deep")
            rows = {number: [row[i] for i in columns if i < len(row)] for number, row in rows.items()}
    for number, row in rows.items():
        if len(row) < 2 or not all(row[:2]):
            msg = f"line {number} of listing {listing} must hold two paths, not {lines[number - 1]!r}"
            raise ValueError(msg)
    if not rows:
        msg = f"listing {listing} holds no pair"
        raise ValueError(msg)
    return [(listing.parent / row[0], listing.parent / row[1]) for row in rows.values()]


def _split(delimiter, line):
    """Return the cells of a line."""
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])

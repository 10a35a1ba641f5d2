# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run the code of docs/quickstart.rst, draw its picture, and write the numbers that it prints into the page.

    python docs/figures/quickstart.py
"""

import contextlib
import doctest
import io
import re
import warnings
from pathlib import Path

import matplotlib as mpl

DOCS = Path(__file__).parents[1]
PRINTS = re.compile(r"doctest: \+IGNORE_OUTPUT")
doctest.register_optionflag("IGNORE_OUTPUT")


def main():
    """Run every line, and replace what is printed where the page does not promise it."""
    mpl.use("agg")
    warnings.simplefilter("ignore")
    page = DOCS / "quickstart.rst"
    text, names = page.read_text(), {}
    for example in doctest.DocTestParser().get_examples(text):
        if "galaxy_deep.fits" in example.source or "field.fits" in example.source:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.source, "quickstart", "single"), names)
        if PRINTS.search(example.source):
            text = text.replace(example.want, printed.getvalue(), 1)
    page.write_text(text)
    names["figure"].savefig(DOCS / "_static" / "quickstart.png", dpi=100)


if __name__ == "__main__":
    main()

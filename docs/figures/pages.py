# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run the code of pages of the documentation, write the numbers that it prints into them, and draw a picture.

    python docs/figures/pages.py
"""

import contextlib
import doctest
import io
import warnings
from pathlib import Path

import matplotlib as mpl

DOCS = Path(__file__).parents[1]
FLAG = doctest.register_optionflag("IGNORE_OUTPUT")


def refresh(page):
    """Run every line, replace what is printed where a page promises no number; return the variables."""
    text, names = page.read_text(), {}
    for example in doctest.DocTestParser().get_examples(text):
        if ".fits" in example.source or ".ecsv" in example.source:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.source, page.name, "single"), names)
        if FLAG in example.options:
            text = text.replace(
                f"{example.source[-20:]}{example.want}", f"{example.source[-20:]}{printed.getvalue()}"
            )
    page.write_text(text)
    return names


def main():
    """Do it for the pages that print numbers."""
    mpl.use("agg")
    warnings.simplefilter("ignore")
    figure = refresh(DOCS / "quickstart.rst")["figure"]
    figure.savefig(DOCS / "_static" / "quickstart.png", dpi=100)
    refresh(DOCS / "photometry.rst")


if __name__ == "__main__":
    main()

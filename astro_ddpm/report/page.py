# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The page of the report: verdicts, tables and figures in one HTML file that needs no other.
"""

import base64
import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

__all__ = ["Picture", "Section", "render_page"]


@dataclass(frozen=True)
class Picture:
    """A figure on the page, with a name for its file and a caption."""

    name: str
    figure: object
    caption: str

    @cached_property
    def png(self):
        """The figure as bytes of a PNG file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    @property
    def base64(self):
        """The PNG file as text."""
        return base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Section:
    """
    One section of the page: title, verdicts, tables with a ``caption`` in their metadata, and pictures.

    ``verdicts`` are pairs of a verdict of `~astro_ddpm.report.verdicts` and a sentence; None for a sentence
    that does not judge.
    """

    title: str
    verdicts: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    pictures: list = field(default_factory=list)


def render_page(title, summary, sections, footer):
    """Return the page as HTML: title, summary, sections (a list of `Section`) and footer."""
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": _cell, "columns": _columns, "heading": _heading}
    options = {"title": title, "summary": summary, "sections": sections, "footer": footer}
    return environment.get_template("page.html").render(options)


def _columns(table):
    return [name for name in table.colnames if table[name].ndim == 1]


def _heading(column):
    name = column.info.name.replace("_", " ")
    return f"{name} ({column.unit})" if column.unit is not None and str(column.unit) else name


def _cell(value):
    value = getattr(value, "value", value)
    if np.ma.is_masked(value):
        return ""
    if isinstance(value, str | int | np.integer):
        return str(value)
    if not np.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(value):.3g}"

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The page of the report: verdicts, tables and figures in one HTML file that needs no other.
"""

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from html import escape
from string import Template

import numpy as np

__all__ = ["Picture", "Section", "render_page"]

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.8rem 0; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; } figcaption { color: #555; font-size: 0.9rem; }
.yes { color: #1a7f37; font-weight: 600; } .no { color: #b42318; font-weight: 600; }
footer { margin-top: 3rem; color: #555; font-size: 0.85rem; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$sections
<footer>$footer</footer>
</body>
</html>
""")


@dataclass(frozen=True)
class Picture:
    """
    A figure on the page.

    Parameters
    ----------
    name : str
        Its name, for a file.

    figure : `~matplotlib.figure.Figure`
        The figure.

    caption : str
        What it shows.
    """

    name: str
    figure: object
    caption: str

    @cached_property
    def png(self):
        """The figure as bytes of a PNG file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()

    def render(self):
        """Return the figure and its caption as HTML."""
        text, data = escape(self.caption), base64.b64encode(self.png).decode()
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
            f"<figcaption>{text}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Section:
    """
    One section of the page.

    Parameters
    ----------
    title : str
        Its heading.

    verdicts : list of tuple of (bool or None, str)
        Sentences, and whether each speaks for the model; None for one that does not judge.

    tables : list of `~astropy.table.QTable`
        Tables with a ``caption`` in their metadata.

    pictures : list of `Picture`
        Figures.
    """

    title: str
    verdicts: list
    tables: list
    pictures: list

    def render(self):
        """Return the section as HTML."""
        parts = [f"<h2>{escape(self.title)}</h2>"]
        if self.verdicts:
            parts.append("<ul>" + "".join(_verdict(*verdict) for verdict in self.verdicts) + "</ul>")
        parts += [_table(table) for table in self.tables]
        parts += [picture.render() for picture in self.pictures]
        return "\n".join(parts)


def render_page(title, summary, sections, footer):
    """
    Put sections on a page.

    Parameters
    ----------
    title, summary, footer : str
        Plain text.

    sections : list of `Section`
        The sections.

    Returns
    -------
    html : str
        The page.
    """
    return _PAGE.substitute(
        title=escape(title),
        summary=escape(summary),
        sections="\n".join(section.render() for section in sections),
        footer=escape(footer),
    )


def _verdict(good, text):
    mark = {True: '<span class="yes">holds</span> ', False: '<span class="no">fails</span> ', None: ""}[good]
    return f"<li>{mark}{escape(text)}</li>"


def _table(table):
    names = [name for name in table.colnames if table[name].ndim == 1]
    head = "".join(f"<th>{escape(_heading(table, name))}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(row[name]))}</td>" for name in names) + "</tr>" for row in table
    )
    caption = escape(table.meta.get("caption", ""))
    return (
        f"<figure><figcaption>{caption}</figcaption><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></figure>"
    )


def _heading(table, name):
    unit = table[name].unit
    return f"{name.replace('_', ' ')} ({unit})" if unit is not None and str(unit) else name.replace("_", " ")


def _cell(value):
    value = getattr(value, "value", value)
    if isinstance(value, str | np.str_) or np.ma.is_masked(value):
        return "" if np.ma.is_masked(value) else str(value)
    if isinstance(value, int | np.integer):
        return str(value)
    if not np.isfinite(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(value):.3g}"

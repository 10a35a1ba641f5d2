# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How Sphinx builds the documentation. What pyproject.toml knows is read from there.
"""

import tomllib
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx_astropy.conf.v3 import *

pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
metadata = pyproject["project"]

project = metadata["name"]
author = metadata["authors"][0]["name"]
copyright = f"2026, {author}"
release = installed_version(project)
version = release.partition("+")[0]

html_title = f"{project} {version}"
# The bar on top of every page leads to the parts of this documentation, not to those of astropy.
html_theme_options = {
    "sst_project_name": project,
    "sst_is_root": True,
    "navbar_links": [
        ["Getting started", "getting_started", 0],
        ["User guide", "user_guide", 0],
        ["Reference", "reference", 0],
        ["Contributing", "development", 0],
    ],
    "footer_links": [["Citing", "citing", 0], ["Contributing", "contributing", 0]],
    "goatcounter_analytics_url": False,
    "navigation_depth": 2,
    "show_nav_level": 1,
}
html_static_path = ["_static"]
html_css_files = ["astro_ddpm.css"]
htmlhelp_basename = f"{project}doc"
exclude_patterns += ["_templates", "changes/*", "examples"]

# The scripts in examples/ are run, and become pages with their pictures.
extensions += ["sphinx_gallery.gen_gallery"]
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
}

# Classes are described where they are defined, not in __init__. The types of parameters stand in
# the docstrings, together with shapes and units, and need not be repeated in the signatures.
autoclass_content = "class"
autodoc_typehints = "none"
numpydoc_xref_param_type = False
automodapi_inheritance_diagram = False

numpydoc_validation_checks = set(pyproject["tool"]["numpydoc_validation"]["checks"])
numpydoc_validation_exclude = set(pyproject["tool"]["numpydoc_validation"]["exclude"])

# Every cross-reference must resolve. Those into other projects need the network, which only Read
# the Docs is sure to have; elsewhere they stay plain text, and the build does not depend on it.
nitpicky = True
others = "astropy|ccdproc|dask|matplotlib|numpy|photutils|pytorch_lightning|scipy|torch"
others += "|collections|dataclasses|pathlib"  # of Python itself
nitpick_ignore = [  # bases that nobody calls
    ("py:class", "astro_ddpm.training.examples.ExampleDataset"),
    ("py:class", "astro_ddpm.nn.raunet.PatchNetwork"),
]
nitpick_ignore_regex = [("py:.*", rf"({others})(\..*)?|None|True|False")]
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "astropy": ("https://docs.astropy.org/en/stable/", None),
        "photutils": ("https://photutils.readthedocs.io/en/stable/", None),
        "ccdproc": ("https://ccdproc.readthedocs.io/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
        "pytorch_lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
    }
    if on_rtd
    else {}
)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The header of a test run: which version of what is installed.
"""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from pytest_astropy_header.display import PYTEST_HEADER_MODULES


def pytest_configure():
    """Empty the list of modules that pytest-astropy imports to ask for their version."""
    PYTEST_HEADER_MODULES.clear()


def pytest_report_header():
    """Name the package and what it requires, with the versions that their metadata tell."""
    try:
        requirements = [Requirement(line) for line in requires("astro_ddpm")]
    except PackageNotFoundError:
        return "astro_ddpm is imported from a checkout and not installed"
    needed = [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return "Installed: " + ", ".join(f"{name} {version(name)}" for name in ["astro_ddpm", *needed])

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The header of a test run, which says what is installed, and the profiles of Hypothesis.

``pytest --hypothesis-profile nightly`` tries 2000 examples of each property instead of 100.
"""

from importlib.metadata import PackageNotFoundError, requires, version

from hypothesis import HealthCheck, settings
from packaging.requirements import Requirement
from pytest_astropy_header.display import PYTEST_HEADER_MODULES

PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
settings.register_profile("ci", PROFILE, max_examples=100, derandomize=True)
settings.register_profile("nightly", PROFILE, max_examples=2000, print_blob=True)
settings.load_profile("ci")


def pytest_configure():
    """Empty the list of modules that pytest-astropy imports to ask for their version."""
    PYTEST_HEADER_MODULES.clear()


def pytest_report_header():
    """Name the package and what it requires, with the versions that their metadata tell."""
    try:
        requirements = [Requirement(line) for line in requires("astro_ddpm")]
    except PackageNotFoundError:
        return "astro_ddpm is imported from a checkout and not installed"
    extras = [{"extra": name} for name in ("", "train", "dask", "evaluate")]
    wanted = [r.name for r in requirements if r.marker is None or any(map(r.marker.evaluate, extras))]
    return "Versions: " + ", ".join(f"{name} {_version(name)}" for name in ["astro_ddpm", *wanted])


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"

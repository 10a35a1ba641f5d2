# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of how the rooms of the package depend on each other.
"""

import ast
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import astro_ddpm

HOME = Path(astro_ddpm.__file__).parent

# Each room, a module or a subpackage, may import from those before it.
ORDER = (
    "version",
    "utils",
    "configuration",
    "provenance",
    "nn",
    "diffusion",
    "tiling",
    "noise",
    "datasets",
    "nddata",
    "zoo",
    "posterior",
    "domain",
    "listing",
    "exposures",
    "selfcheck",
    "core",
    "evaluation",
    "pipeline",
    "report",
    "training",
    "__init__",
    "cli",
    "__main__",
)


class Import(NamedTuple):
    """One imported name: the modules on both sides, without the name of the package, and the name."""

    importer: str
    source: str
    name: str


def find_module(parts):
    """Return the name of a module or package from its parts, None if there is none."""
    path = HOME.joinpath(*parts)
    is_module = path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
    return ".".join(parts) if parts and is_module else None


def find_source(parts, name):
    """Return the module that ``from astro_ddpm.PARTS import NAME`` reads."""
    source = find_module((*parts, name)) or find_module(parts)
    if source is None:  # a public name of the package itself
        home = getattr(getattr(astro_ddpm, name), "__module__", "astro_ddpm.version")
        source = home.removeprefix("astro_ddpm.")
    return source


def read_imports(path):
    """Yield the imports of a file from this package, those inside of functions among them."""
    own = path.relative_to(HOME).with_suffix("").parts
    importer = ".".join(part for part in own if part != "__init__" or len(own) == 1)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = tuple(alias.name.split("."))
                if parts[0] == "astro_ddpm" and len(parts) > 1:
                    yield Import(importer, find_module(parts[1:]), "")
        elif isinstance(node, ast.ImportFrom):
            parts = own[: len(own) - node.level] if node.level else ("astro_ddpm",)
            parts += tuple(node.module.split(".")) if node.module else ()
            if not node.level:
                if parts[1] != "astro_ddpm":
                    continue
                parts = parts[2:]
            for alias in node.names:
                source = find_source(parts, alias.name)
                yield Import(importer, source, alias.name)
                if source == ".".join((*parts, alias.name)):
                    modules[alias.asname or alias.name] = source
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield Import(importer, modules[node.value.id], node.attr)


@pytest.fixture(scope="module")
def imports():
    paths = [path for path in HOME.rglob("*.py") if "tests" not in path.parts and path.name != "conftest.py"]
    return {each for path in paths for each in read_imports(path)}


def room(module):
    """Return the room of a module; that of a program is none of the library."""
    return "__main__" if module.endswith("__main__") else module.partition(".")[0]


def test_arrows_point_one_way(imports):
    wrong = [
        each
        for each in imports
        if room(each.importer) != room(each.source)
        and ORDER.index(room(each.importer)) < ORDER.index(room(each.source))
    ]
    assert not wrong


def test_no_circle_of_modules(imports):
    graph = {each.importer: set() for each in imports}
    for each in imports:
        if each.importer != each.source:
            graph[each.importer].add(each.source)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_module_is_hidden_by_a_name_of_its_package():
    for path in HOME.rglob("__init__.py"):
        if "tests" in path.parts:
            continue
        package = import_module(".".join([astro_ddpm.__name__, *path.relative_to(HOME).parts[:-1]]))
        modules = {each.stem for each in path.parent.glob("*.py")}
        assert not modules & {*getattr(package, "__all__", ())}, package.__name__


def test_private_names_stay_in_their_room(imports):
    taken = {
        (each.importer, each.source, each.name)
        for each in imports
        if room(each.importer) != room(each.source) and each.name.startswith("_") and each.name[:2] != "__"
    }
    assert not taken


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from astro_ddpm import zoo", ("zoo", "zoo")),
        ("from astro_ddpm import __version__", ("version", "__version__")),
        ("from astro_ddpm.zoo import load", ("zoo", "load")),
        ("from .zoo.registry import _load", ("zoo.registry", "_load")),
        ("def f():\n    from .zoo import registry", ("zoo.registry", "registry")),
        ("import astro_ddpm.zoo", ("zoo", "")),
    ],
)
def test_what_is_read(monkeypatch, line, expected):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"{line}\n")
    assert list(read_imports(HOME / "made_up.py")) == [Import("made_up", *expected)]


def test_attributes_are_read(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "from . import zoo\nzoo._load()\n")
    assert Import("made_up", "zoo", "_load") in set(read_imports(HOME / "made_up.py"))

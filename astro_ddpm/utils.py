# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Small helpers shared by several rooms.
"""

import hashlib
import os
import platform
import secrets
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "atomic_path",
    "check_output",
    "lazy_names",
    "names_of",
    "partial_path",
    "progress",
    "remove_partials",
    "renamed_argument",
    "require",
    "warn_user",
]

MAX_NAME = 255  # bytes in the name of a file
PATIENCE = 3.0  # seconds

Function = TypeVar("Function", bound=Callable[..., Any])


def names_of(modules):
    """Turn a dict of modules and their names, between blanks, into one of names and their modules."""
    return {name: module for module, names in modules.items() for name in names.split()}


def lazy_names(package, home, extra=None):
    """
    Return ``__getattr__`` and ``__dir__`` for a package that imports its public names when first asked for.

    ``home`` maps each name to its module relative to the package, such as ``".photometry"``. ``extra`` is the
    extra that installs what these modules need beside the package itself.
    """

    def getattr_(name):
        if name in home:
            try:
                return getattr(import_module(home[name], package), name)
            except ModuleNotFoundError as error:
                if extra is None:
                    raise
                msg = f"{package}.{name} needs {error.name}: pip install 'astro_ddpm[{extra}]' installs it"
                raise ModuleNotFoundError(msg, name=error.name) from error
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg)

    return getattr_, lambda: sorted(home)


def renamed_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Let a function take an argument under its old name too, with a warning, and keep its type."""

    def decorate(function: Function) -> Function:
        from astropy.utils.decorators import deprecated_renamed_argument

        renamed: Function = deprecated_renamed_argument(old, new, "0.1")(function)
        return renamed

    return decorate


def require(condition, message, error=ValueError):
    """Raise an error with a message unless a condition holds."""
    if not condition:
        raise error(message)


def warn_user(message, category=None):
    """
    Issue an `~astropy.utils.exceptions.AstropyUserWarning` that points at the caller of this package.

    ``category`` is a subclass to issue instead.
    """
    from astropy.utils.exceptions import AstropyUserWarning

    def is_ours(name):
        return name == "astropy.utils.decorators" or name.split(".")[0] == __name__.split(".")[0]

    level, frame = 2, sys._getframe(1)
    while frame.f_back and is_ours(frame.f_globals.get("__name__", "")):
        if ".tests." in frame.f_globals["__name__"]:
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category or AstropyUserWarning, stacklevel=level)


def check_output(output, overwrite):
    """
    Refuse to replace a file, before the work rather than after it.

    An existing ``output`` raises FileExistsError unless ``overwrite`` is set. One that cannot be written
    raises an OSError that names it.
    """
    output = Path(output)
    try:
        exists = bool(output.lstat())
    except FileNotFoundError:
        exists = False
    except OSError as error:
        raise _cannot_write(output, error) from None
    if exists and not overwrite:
        msg = f"output {output} exists; set overwrite to replace it"
        raise FileExistsError(msg)
    if output.is_dir():
        msg = f"output {output} is a folder"
        raise IsADirectoryError(msg)
    probe = partial_path(output)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _cannot_write(output, error) from None


def _cannot_write(output, error):
    """Return an error that names the output."""
    if not output.parent.is_dir():
        return FileNotFoundError(f"output {output} cannot be written: there is no folder {output.parent}")
    return type(error)(f"output {output} cannot be written: {error.strerror}")


def partial_path(path):
    """Name a hidden file beside another one, which tells the computer and the process that writes it."""
    path = Path(path)
    mark = f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}.partial."
    return path.with_name(mark + os.fsdecode(os.fsencode(path.name)[-(MAX_NAME - len(mark)) :]))


def _host():
    """Return a short name of this computer."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def remove_partials(folder, names):
    """Remove what processes of this computer that are gone have left of files of these names in a folder."""
    tails = {partial_path(folder / name).name.partition(".partial.")[2] for name in names}
    for partial in folder.glob(f".{_host()}-*-*.partial.*"):
        mark, _, tail = partial.name.partition(".partial.")
        if tail in tails and not _is_alive(int(mark.split("-")[1])):
            partial.unlink(missing_ok=True)


def _is_alive(pid):
    """Whether a process of this computer runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def atomic_path(path, *, overwrite=False):
    """
    Give a path to write to that becomes the wanted file only when all went well.

    It is in the folder of ``path``, and is renamed to it at the end, or removed after an error. If the
    process is killed it stays behind, as a hidden file, and ``path`` is what it was. Refuses what
    `check_output` refuses.
    """
    path = Path(path)
    check_output(path, overwrite)
    partial = partial_path(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def progress(total, *, show):
    """
    Show a progress bar of ``total`` steps, or not, and give a function that moves it by one.

    None for ``show`` means after three seconds, in a terminal or a notebook.
    """
    from tqdm import tqdm

    show, delay = (_is_watched(), PATIENCE) if show is None else (show, 0)
    with tqdm(total=total, disable=not show, unit="step", delay=delay) as bar:
        yield lambda *_: bar.update()


def _is_watched():
    """Tell whether what is written to the standard error appears in a terminal or a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return sys.stderr.isatty() or hasattr(shell, "kernel")

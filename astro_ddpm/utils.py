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
    "lazy_getattr",
    "partial_path",
    "progress",
    "remove_partials",
    "renamed_argument",
    "warn_user",
]

MAX_NAME = 255  # bytes in the name of a file

Function = TypeVar("Function", bound=Callable[..., Any])


def lazy_getattr(package, home, extra=None):
    """
    Make a ``__getattr__`` for a package that imports its public names when they are first asked for.

    Parameters
    ----------
    package : str
        The name of the package.

    home : dict of str to str
        The module of each name, relative to the package, such as ``".photometry"``.

    extra : str, optional
        The extra that installs what these modules need beside the package itself.

    Returns
    -------
    getattr_ : callable
        To be assigned to ``__getattr__`` of the package.
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

    return getattr_


def renamed_argument(old: str, new: str) -> Callable[[Function], Function]:
    """
    Let a function take an argument under its old name too, with a warning.

    Parameters
    ----------
    old, new : str
        The names.

    Returns
    -------
    decorate : callable
        A decorator that keeps the type of the function, which that of astropy does not.
    """

    def decorate(function: Function) -> Function:
        from astropy.utils.decorators import deprecated_renamed_argument

        renamed: Function = deprecated_renamed_argument(old, new, "0.1")(function)
        return renamed

    return decorate


def warn_user(message, category=None):
    """
    Issue an `~astropy.utils.exceptions.AstropyUserWarning` that points at the caller of this package.

    Parameters
    ----------
    message : str
        The text.

    category : type, optional
        A subclass to issue instead.
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

    Parameters
    ----------
    output : path-like
        The file that is wanted.

    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        If it exists and is not to be overwritten.

    OSError
        If its folder does not exist or cannot be written to, or its name is too long.
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
    """
    Name a hidden file beside another one, which tells the computer and the process that writes it.

    Parameters
    ----------
    path : path-like
        The file that is wanted.

    Returns
    -------
    partial : `~pathlib.Path`
        A name that is not too long, and new.
    """
    path = Path(path)
    mark = f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}.partial."
    return path.with_name(mark + os.fsdecode(os.fsencode(path.name)[-(MAX_NAME - len(mark)) :]))


def _host():
    """Return a short name of this computer."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def remove_partials(folder, names):
    """
    Remove what processes of this computer that are gone have left of files.

    Parameters
    ----------
    folder : `~pathlib.Path`
        The folder of the files.

    names : iterable of str
        The names of the files that were wanted.
    """
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

    Parameters
    ----------
    path : path-like
        The file that is wanted.

    overwrite : bool, optional
        Whether to replace an existing file.

    Yields
    ------
    partial : `~pathlib.Path`
        A path in the same folder. It is renamed to ``path`` at the end, or removed after an error. If the
        process is killed it stays behind, as a hidden file, and ``path`` is what it was.

    Raises
    ------
    FileExistsError
        If ``path`` exists and is not to be overwritten.
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
    Show a progress bar, or not.

    Parameters
    ----------
    total : int
        The number of steps.

    show : bool
        Whether to show the bar.

    Yields
    ------
    advance : callable
        Moves the bar by one step, whatever it is called with.
    """
    from tqdm import tqdm

    with tqdm(total=total, disable=not show, unit="step") as bar:
        yield lambda *_: bar.update()

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Prepared arrays: one file, read through the memory map of the operating system.
"""

import struct
import zipfile
from pathlib import Path

import numpy as np

from astro_ddpm.utils import atomic_path

__all__ = ["open_arrays", "write_arrays"]


def write_arrays(path, arrays, *, overwrite=False):
    """Write a mapping of names to arrays into one uncompressed ``.npz`` file, as `open_arrays` reads it."""
    with atomic_path(path, overwrite=overwrite) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def _read_header(file):
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def open_arrays(path):
    """
    Open what ``write_arrays`` wrote without reading it.

    The arrays lie uncompressed in the file, so each is a memory map: pixels are read when they are
    needed, processes share them, and an archive larger than the memory can be trained on.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    arrays : dict of str to `numpy.memmap`
        The arrays, read-only.

    Raises
    ------
    ValueError
        If the file is not an uncompressed ``.npz`` file.
    """
    path, arrays = Path(path), {}
    if not zipfile.is_zipfile(path):
        path.stat()  # a missing file is reported as such
        msg = f"{path} is no .npz file of prepared arrays"
        raise ValueError(msg)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                msg = f"{path} is compressed; write it with numpy.savez"
                raise ValueError(msg)
            # the local header of a member: 26 bytes, the lengths of name and extra field, and those
            file.seek(member.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
            shape, fortran, dtype = _read_header(file)
            order = "F" if fortran else "C"
            name = member.filename.removesuffix(".npy")
            arrays[name] = np.memmap(path, dtype, "r", file.tell(), shape, order)
    return arrays

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Find the extensions of a FITS file.
"""

import re
from pathlib import Path

from astro_ddpm.utils import require

__all__ = ["find_image", "find_plane", "split_extension"]


def split_extension(plane, path=None):
    """
    Split ``"FILE[EXT]"`` into file and extension, which is None if none is given.

    ``path`` is the file that ``"[EXT]"`` alone belongs to.
    """
    match = re.fullmatch(r"(.*)\[([^\[\]]+)\]", str(plane))
    if match is None or Path(plane).exists():
        return plane, None
    return match[1] or path, match[2]


def find_image(hdus, ext=None):
    """
    Return the number of the extension of an open file that holds an image.

    ``ext`` is its number, its name (EXTNAME or EXTTYPE), or name and version (EXTVER), ``("SCI", 2)`` or
    ``"SCI,2"``; blanks and case do not matter. A name without version means the first of that name. By
    default it is the first two-dimensional image that is not empty; axes of length one do not count.
    ValueError if the file holds no image, or not that extension.
    """
    if ext is None:
        images = _images(hdus)
        if not images:
            msg = f"{hdus.filename()} holds no image"
            raise ValueError(msg)
        return next((i for i in images if _dimensions(hdus[i]) == 2), images[0])
    found = _named(hdus, ext)
    if not found:
        names = [_name(hdu) for hdu in hdus]
        msg = f"ext {ext!r} is not in {hdus.filename()}, which has 0 to {len(hdus) - 1} named {names}"
        raise ValueError(msg)
    require(hdus[found[0]].is_image, f"ext {ext!r} of {hdus.filename()} is a table, not an image")
    return found[0]


def find_plane(hdus, ext, image, *, same_file):
    """
    Return the number of the extension of an open file that holds the noise or mask of an image.

    ``image`` is the open file of the image and its number in it, and ``same_file`` whether both files are the
    same. ``ext`` is as for `find_image`. Of several extensions of one name that with the version of the image
    is taken. If ``ext`` is None, it is what has the name and version of the image, or the only image of
    another file. ValueError if there is no such extension, or if it could be several or that of another
    image.
    """
    own = image[0][image[1]]
    if ext is None:
        index = _counterpart(hdus, *image)
    else:
        index, several = find_image(hdus, ext), _by_name(hdus, ext)
        index = _of_version(hdus, several, own) if several else index
    if index is not None and not (same_file and index == image[1]):
        return index
    listed = ", ".join(f"{i} {_label(hdus[i])}".strip() for i in _images(hdus))
    wanted = "FILE" if ext is None else f"[{ext}]"
    msg = (
        f"which extension of {hdus.filename()} belongs to the image {_label(own) or image[1]} is not clear "
        f"from {wanted}; give its number or NAME,VERSION in brackets. It has {listed}"
    )
    raise ValueError(msg)


def _of_version(hdus, found, own):
    """Return that of several extensions of one name that belongs to an image, or None."""
    if len(found) == 1 and not ("EXTVER" in hdus[found[0]].header and "EXTVER" in own.header):
        return found[0]
    found = [i for i in found if hdus[i].ver == own.ver]
    return found[0] if len(found) == 1 else None


def _counterpart(hdus, its_hdus, index):
    """Return the image of a file that belongs to an image of another file, or None."""
    own, images, its_images = its_hdus[index], _images(hdus), _images(its_hdus)
    same = [i for i in images if _name(own) and _name(hdus[i]) == _name(own)]
    if same:
        return _of_version(hdus, same, own)
    if len(images) == 1:
        others = {_label(its_hdus[i]) for i in its_images} - {""}
        return None if _label(hdus[images[0]]) in others else images[0]
    names = {_name(hdus[i]) for i in images}
    if names == {""} and len(images) == len(its_images):
        return images[its_images.index(index)]
    return _of_version(hdus, images, own) if len(names) == 1 and names != {""} else None


def _named(hdus, ext):
    """Return the numbers of all extensions that a number, a name, or a name and version may mean."""
    wanted = _normal(ext)
    if wanted.lstrip("-").isdigit():
        return [int(wanted)] if 0 <= int(wanted) < len(hdus) else []
    name, _, version = wanted.rpartition(",")
    return _by_name(hdus, ext) or [i for i in _by_name(hdus, name) if version == str(hdus[i].ver)]


def _by_name(hdus, name):
    """Return the numbers of all extensions of a name."""
    return [i for i, hdu in enumerate(hdus) if _normal(name) in _names(hdu)]


def _normal(ext):
    """Return the text of a number, a name, or a name and a version, in capitals and without blanks."""
    text = ",".join(map(str, ext)) if isinstance(ext, (tuple, list)) else str(ext)
    return "".join(text.upper().split())


def _names(hdu):
    """Return EXTNAME, EXTTYPE and what astropy calls it, in capitals and without blanks."""
    names = (hdu.name, hdu.header.get("EXTNAME", ""), hdu.header.get("EXTTYPE", ""))
    return {_normal(name) for name in names} - {""}


def _name(hdu):
    """Return the name of an extension that somebody gave it, or nothing."""
    name = str(hdu.header.get("EXTNAME") or hdu.header.get("EXTTYPE") or "").strip().upper()
    return "" if name == "COMPRESSED_IMAGE" else name


def _label(hdu):
    """Return name and version of an extension, or nothing."""
    name = _name(hdu)
    return f"{name},{hdu.ver}" if name else ""


def _dimensions(hdu):
    """Return the number of axes longer than one."""
    return sum(n > 1 for n in hdu.shape)


def _images(hdus):
    """Return the numbers of the images that are not empty."""
    return [i for i, hdu in enumerate(hdus) if hdu.is_image and len(hdu.shape) and 0 not in hdu.shape]

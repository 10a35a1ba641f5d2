# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The record of what was done, in FITS-safe keywords and history lines.
"""

from math import isfinite

import numpy as np

__all__ = ["KEYWORDS", "add", "add_items", "read", "write"]

KEYWORDS = {
    "DDPMVERS": ("version", "version of astro_ddpm"),
    "DDPMMODL": ("model", "model"),
    "DDPMSHA": ("sha256", "checksum of its weights"),
    "DDPMSEED": ("seed", "seed of the samples"),
    "DDPMNSAM": ("n_samples", "number of samples"),
    "DDPMSTEP": ("steps", "evaluations of the denoiser per sample"),
    "DDPMDEP": ("noise_ratio", "noise of the samples / noise of the input"),
    "DDPMDEVI": ("device", "where it was computed"),
    "DDPMNOIS": ("noise", "where the noise of the input came from"),
    "DDPMGAIN": ("gain", "[electron/adu] gain used for the noise"),
    "DDPMRDN": ("read_noise", "[electron] read noise used for the noise"),
    "DDPMSAT": ("saturation", "level from which on pixels were masked"),
    "DDPMBKG": ("background", "the sky that was subtracted and added back"),
    "DDPMMASK": ("mask_treatment", "what was done to masked pixels"),
    "DDPMPREC": ("precision", "numbers with which samples were drawn, if not float32"),
    "DDPMPSF": ("psf_fwhm", "[pix] FWHM of the PSF of the input"),
    "DDPMCORR": ("noise_correlation", "noise correlation of neighbouring pixels"),
    "DDPMPEAK": ("peak_snr", "S/N that 0.1 % of the pixels exceed"),
    "DDPMOUT": ("outside", "what lies outside of the training ranges"),
    "DDPMERR0": ("worst_before", "error / noise of the worst bin, network alone"),
    "DDPMERR1": ("worst_after", "error / noise of the worst bin, corrected"),
    "DDPMSKYB": ("sky_bias", "bias of the sky / noise, taken out"),
    "DDPMSTAT": ("stated_noise", "stated / measured noise"),
}


def write(meta, record):
    """
    Add what was done to a header or dict, in place.

    ``record`` has values of the names in ``KEYWORDS``, apart from the version; a measure may be missing. A
    repeat overwrites the keywords, removes those without a value, and adds to the history.
    """
    from . import __version__

    for keyword in KEYWORDS:
        meta.pop(keyword, None)
    background = _describe(record["background"])
    add(meta, {"version": __version__, **record, "background": background}, "enhance")


def add(meta, record, step):
    """
    Add the keywords of one step, and a line of history, to a header, in place.

    ``record`` has values of some names in ``KEYWORDS``, and ``step`` is the name of the function that did it.
    """
    from . import __version__

    for keyword, (name, comment) in KEYWORDS.items():
        if name in record:
            _set(meta, keyword, record[name], comment)
    options = {name: record[name] for name in record if name not in ("version", "sha256")}
    options = {name: v.item() if isinstance(v, np.generic) else v for name, v in options.items()}
    options = ", ".join(f"{name}={value!r}" for name, value in options.items())
    line = _ascii(f"astro_ddpm {__version__} {step}: {options}")
    if hasattr(meta, "add_history"):
        meta.add_history(line)
    else:
        meta["HISTORY"] = f"{meta['HISTORY']} | {line}" if "HISTORY" in meta else line


def add_items(meta, items):
    """
    Add what the user wants to see in a header, in place, as ``add_keyword`` of ccdproc does.

    ``items`` is a keyword without value, a `ccdproc.Keyword`, or a dict of keywords and values.
    """
    if isinstance(items, str):
        items = {items: None}
    elif hasattr(items, "name"):
        items = {items.name: items.value}
    for keyword, value in items.items():
        _set(meta, keyword, value)


def read(meta):
    """Return the values of the names in ``KEYWORDS`` that the record of an enhancement in a header holds."""
    return {name: meta[keyword] for keyword, (name, _) in KEYWORDS.items() if keyword in meta}


def _set(meta, keyword, value, comment=""):
    """Set a keyword to what FITS can hold, with its comment if there is room for it."""
    if not hasattr(meta, "add_history"):
        meta[keyword] = value
        return
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float | None) or (isinstance(value, float) and not isfinite(value)):
        value = _ascii(str(value))
    if len(keyword) > 8 and not keyword.upper().startswith("HIERARCH"):
        keyword = f"HIERARCH {keyword}"
    meta[keyword] = (value, comment) if len(f"{value}{comment}") < 64 else value


def _ascii(text):
    return " ".join(text.encode("ascii", "replace").decode().split())


def _describe(background):
    """Return a number or words for the background."""
    if background is None or isinstance(background, str):
        return background or "none"
    if isinstance(background, dict):
        return " ".join(["photutils", *(f"{name}={value}" for name, value in background.items())])
    value = getattr(background, "value", background)
    return float(value) if np.ndim(value) == 0 else "image"

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The record of what was done, in FITS-safe keywords and a history line.
"""

__all__ = ["KEYWORDS", "write"]

KEYWORDS = {
    "DDPMVERS": ("version", "version of astro_ddpm"),
    "DDPMMODL": ("model", "model"),
    "DDPMSHA": ("sha256", ""),
    "DDPMSEED": ("seed", "seed of the samples"),
    "DDPMNSAM": ("n_samples", "number of samples"),
    "DDPMSTEP": ("steps", "evaluations of the denoiser per sample"),
    "DDPMDEP": ("depth", "noise of the samples / noise of the input"),
    "DDPMDEVI": ("device", "where it was computed"),
    "DDPMNOIS": ("noise", "whether the noise was given or estimated"),
    "DDPMBKG": ("background", "the sky that was subtracted meanwhile"),
    "DDPMMASK": ("mask_treatment", "what was done to masked pixels"),
    "DDPMPSF": ("psf_fwhm", "[pix] FWHM of the PSF of the input"),
    "DDPMCORR": ("noise_correlation", "noise correlation of neighbouring pixels"),
    "DDPMPEAK": ("peak_snr", "S/N that 0.1 % of the pixels exceed"),
    "DDPMOUT": ("outside", "what lies outside of the training ranges"),
}


def write(meta, record):
    """
    Add what was done to a header, in place.

    A repeat overwrites the keywords, removes those without a value, and adds to the history.

    Parameters
    ----------
    meta : `~astropy.io.fits.Header` or dict
        The header of the result.

    record : dict
        The values of the names in ``KEYWORDS``, apart from the version. A measure may be missing.
    """
    from . import __version__

    record = {"version": __version__, **record, "background": _describe(record["background"])}
    record = {name: ascii(v)[1:-1] if isinstance(v, str) else v for name, v in record.items()}
    is_header = hasattr(meta, "add_history")
    for keyword, (name, comment) in KEYWORDS.items():
        if name not in record:
            meta.pop(keyword, None)
            continue
        meta[keyword] = (record[name], comment) if is_header and comment else record[name]
    options = {name: value for name, value in record.items() if name not in ("version", "sha256")}
    options = ", ".join(f"{name}={value!r}" for name, value in options.items())
    line = f"astro_ddpm {record['version']} enhance: {options}"
    if is_header:
        meta.add_history(line)
    else:
        meta["HISTORY"] = f"{meta['HISTORY']} | {line}" if "HISTORY" in meta else line


def _describe(background):
    """A number or a word for the background."""
    if background is None or isinstance(background, str):
        return background or "none"
    value = getattr(background, "value", background)
    return float(value) if getattr(value, "ndim", 0) == 0 else "image"

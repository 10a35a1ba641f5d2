# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Headers of images: their WCS, and cards that must not go into a result.
"""

import re
import warnings

from astropy.io import fits

from astro_ddpm.utils import warn_user

__all__ = ["distortion_tables", "mend_cards", "read_wcs", "remove_file_cards", "remove_wcs", "wcs_cards"]

WCS_CARDS = (
    r"(?:WCSAXES|WCSNAME|RADESYS|RADECSYS|EQUINOX|LONPOLE|LATPOLE|SPECSYS|AXISCORR|D2IMERR\d|CPERR\d"
    r"|(?:CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA|CNAME|CRDER|CSYER|CPDIS|CQDIS|D2IMDIS)\d+"
    r"|(?:CD|PC|PV|PS)\d+_\d+|PC\d{6}|(?:D[PQ]|D2IM)\d+(?:\..*)?|(?:A|B|AP|BP)_(?:ORDER|DMAX|\d+_\d+))"
)
PLATE_CARDS = r"(?:PLTRA[HMS]|PLTDEC(?:SN|[DMS])|PPO\d|AMD[XY]\d+|CNPIX\d|[XY]PIXELSZ|PLATEID|PLTSCALE)"
FILE_CARDS: tuple[str, ...] = ("CHECKSUM", "DATASUM", "EXTNAME", "EXTVER", "EXTEND", "INHERIT", "NEXTEND")
FILE_CARDS += ("BLANK", "BSCALE", "BZERO")


def remove_wcs(header, suffix=""):
    """
    Remove what describes a WCS from a header, in place.

    ``suffix`` is a regular expression for the letters of alternate WCSs that go too.
    """
    for keyword in {*header}:
        if re.fullmatch(f"{WCS_CARDS}{suffix}", keyword):
            header.remove(keyword, remove_all=True)


def wcs_cards(header):
    """Return the cards of a header that describe its WCS."""
    return [card for card in header.cards if re.fullmatch(WCS_CARDS, card.keyword)]


def remove_file_cards(header):
    """Remove what says how an image lay in its file, and a BUNIT that is no text, from a header, in place."""
    for keyword in FILE_CARDS:
        header.remove(keyword, ignore_missing=True, remove_all=True)
    if not isinstance(header.get("BUNIT", ""), str):
        header.remove("BUNIT", remove_all=True)


def mend_cards(header):
    """
    Make a header one that can be written, in place, and warn if cards were changed.

    Letters that FITS forbids in keywords become ``_``, those that it forbids in texts a blank or ``?``. What
    cannot be mended is left out; values that are none, such as a date without quotes, become texts.
    """
    changed = []
    for index in reversed(range(len(header))):
        card = header.cards[index]
        try:
            card.verify("exception")
            fits.Card.fromstring(str(card)).verify("exception")
        except (fits.VerifyError, ValueError):
            changed.append(card.rawkeyword)
            del header[index]
            mended = _mended(card)
            if mended is not None:
                header.insert(index, mended)
    if changed:
        warn_user(f"cards that FITS does not allow are changed or left out: {', '.join(changed[::-1])}")


def _mended(card):
    """Return a card as FITS allows it, or None."""
    keyword = re.sub(r"[^A-Z0-9_-]", "_", card.rawkeyword.strip().upper())[:8]
    try:
        value, comment = _content(card)
        mended = fits.Card(keyword, _plain(value), _plain(comment))
        fits.Card.fromstring(str(mended)).verify("exception")
    except (fits.VerifyError, ValueError):
        return None
    return mended


def _content(card):
    """Return value and comment of a card; a value that is none of FITS, such as a date, as text."""
    try:
        return card.value, card.comment
    except fits.VerifyError:
        value, _, comment = card.image[10:].partition(" / ")
        return value.strip(" '"), comment.strip()


def _plain(text):
    """Return printable ASCII."""
    if not isinstance(text, str):
        return text
    return re.sub(r"[^ -~]", lambda match: " " if match[0].isspace() else "?", text)


def read_wcs(header, hdus=None):
    """
    Return the WCS of a header, and take its cards out of the header.

    It is None, with a warning, if it cannot be used. ``hdus`` is the open file, which holds the lookup
    tables. A plate solution of the DSS, which astropy writes as what it cannot read, is replaced by
    polynomials that fit it.
    """
    from astropy.wcs import WCS, FITSFixedWarning

    is_plate = "AMDX1" in header and "PLTRAH" in header
    if "CTYPE1" not in header and not is_plate:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)  # what is fixed is right
            wcs = WCS(header, hdus)
    except Exception as error:  # of many classes
        wcs = _linear_wcs(header, error)
    if wcs is None or not wcs.wcs.ctype[0]:
        return None
    if is_plate:
        wcs = _fit_plate(wcs, header)
        for keyword in {*header}:
            if re.fullmatch(PLATE_CARDS, keyword):
                header.remove(keyword, remove_all=True)
    remove_wcs(header)
    return wcs


def _linear_wcs(header, error):
    """Return a WCS without its distortions, or None."""
    from astropy.wcs import WCS

    plain = header.copy()
    for keyword in {*plain}:
        if re.fullmatch(r"(?:CPDIS|CQDIS|D2IMDIS)\d+|AXISCORR|(?:D[PQ]|D2IM)\d+(?:\..*)?", keyword):
            plain.remove(keyword, remove_all=True)
    try:
        wcs = WCS(plain) if len(plain) < len(header) else None
    except Exception:
        wcs = None
    lost = (
        "the WCS in the header of the image is not used"
        if wcs is None
        else "the distortion of the WCS is lost"
    )
    warn_user(f"{lost}: {' '.join(str(error).split())}")
    return wcs


def _fit_plate(wcs, header):
    """Fit a tangential projection with polynomials to a plate solution."""
    import numpy as np
    from astropy.wcs.utils import fit_wcs_from_points

    y, x = (grid.ravel() for grid in np.mgrid[0 : header["NAXIS2"] - 1 : 16j, 0 : header["NAXIS1"] - 1 : 16j])
    return fit_wcs_from_points((x, y), wcs.pixel_to_world(x, y), sip_degree=3)


def distortion_tables(wcs, header):
    """Return the extensions that hold the lookup tables of a WCS; add their cards to a header."""
    tables = [getattr(wcs, name, None) for name in ("cpdis1", "cpdis2", "det2im1", "det2im2")]
    if all(table is None for table in tables):
        return []
    primary, *hdus = wcs.to_fits(relax=True)
    for card in primary.header.cards:
        if re.fullmatch(WCS_CARDS, card.keyword) and card.keyword not in header:
            header.append(card, end=True)
    return hdus

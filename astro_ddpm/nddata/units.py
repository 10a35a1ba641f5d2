# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Units of images and of their noise.
"""

import re

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData, NDData, NDUncertainty

from astro_ddpm.noise import sigma_from_uncertainty

__all__ = ["parse_unit", "plain_values", "std_in_unit", "std_unit"]

# In capitals, S would be siemens.
COUNTS = re.compile(r"(adu|dn|electron|e-|count|ct|photon|(?:nano)?maggy)s?( */ *s(?:ec|econd)?)?")
NAMES = {"dn": "DN", "e-": "electron"}


def parse_unit(text):
    """Turn a BUNIT, in the spelling of FITS or another common one, into a unit; None if nobody knows it."""
    text = str(text).strip()
    if text in CCDData.known_invalid_fits_unit_strings:
        return CCDData.known_invalid_fits_unit_strings[text]
    match = COUNTS.fullmatch(text.lower().replace("maggies", "maggy"))
    if match:
        unit = u.Unit(NAMES.get(match[1], match[1]))
        return unit / u.s if match[2] else unit
    try:
        return u.Unit(text)
    except ValueError:
        return None


def plain_values(value):
    """Turn an NDData into an array or a quantity; return anything else as it is."""
    if not isinstance(value, NDData):
        return value
    return value.data if value.unit is None else value.data << value.unit


def std_unit(uncertainty):
    """Return the unit of the standard deviation that belongs to an uncertainty; None if that has no unit."""
    if uncertainty.unit is None:
        return None
    power = {"std": 1, "var": 0.5, "ivar": -0.5}[uncertainty.uncertainty_type]
    return uncertainty.unit**power


def std_in_unit(uncertainty, unit, shape, dtype=np.float64):
    """
    Return the standard deviation of an image of some unit and shape (ny, nx) as an array in that unit.

    Arrays and numbers are standard deviations. The result may share memory with ``uncertainty``. A wrong
    shape raises ValueError, a wrong unit `~astropy.units.UnitConversionError`.
    """
    if isinstance(uncertainty, NDUncertainty):
        array, its_unit = sigma_from_uncertainty(uncertainty), std_unit(uncertainty)
    else:
        array, its_unit = uncertainty, getattr(uncertainty, "unit", None)
        array = np.asarray(getattr(array, "value", array))
    if array.shape not in ((), shape):
        msg = f"uncertainty has shape {array.shape}, image has {shape}"
        raise ValueError(msg)
    try:
        factor = 1.0 if its_unit is None else its_unit.to(unit)
    except u.UnitConversionError:
        msg = (
            f"uncertainty is in {its_unit}, which is not a unit of the image ({unit}). Some steps, such as "
            "cosmicray_lacosmic of ccdproc, change the unit of the data only; convert the uncertainty"
        )
        raise u.UnitConversionError(msg) from None
    with np.errstate(over="ignore"):  # so much noise that it is infinite in float32: no information
        if factor != 1:
            array = array.astype(np.promote_types(array.dtype, dtype), copy=False) * factor
        return np.broadcast_to(array.astype(dtype, copy=False), shape)

# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The result of an enhancement, as astropy knows images.
"""

from base64 import b64encode
from copy import deepcopy
from html import escape
from importlib import import_module
from zlib import crc32

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

from astro_ddpm import provenance
from astro_ddpm.utils import warn_user

from .headers import distortion_tables, mend_cards, wcs_cards
from .units import std_in_unit

__all__ = ["EnhancedCCDData", "image_wcs"]


class EnhancedCCDData(CCDData):
    """
    An enhanced image: posterior mean, its uncertainty and draws from the posterior.

    A `~astropy.nddata.CCDData` whose ``data`` is the posterior mean of the noise-free scene and whose
    ``uncertainty`` is the posterior's standard deviation. Slicing slices the samples, arithmetic with
    numbers, arrays and images without uncertainty acts on them, and FITS files keep them in an
    extension ``SAMPLES``. Anything else that changes the data drops them, with a warning.

    Parameters
    ----------
    *args, **kwargs
        As for `~astropy.nddata.CCDData`.

    samples : array_like, shape (n, ny, nx), optional
        Draws of deep exposures, in the unit of ``data``.

    background : float or ndarray, shape (ny, nx), optional
        The sky that is in ``data``.

    observed : ndarray, shape (ny, nx), optional
        The image before the enhancement.

    Raises
    ------
    ValueError
        If ``samples`` does not hold images of the shape of ``data``.
    """

    check = None
    """
    What the check without truth found: a `~astropy.table.QTable` with a row for each bin of brightness.

    The columns are ``low`` and ``high`` (brightness of the result in units of the noise of the input),
    ``n_pixels``, ``rms_input`` and ``rms`` (errors before and after, in the same unit), ``rms_err``,
    ``factor`` (of what the networks changed), ``width_factor`` (of their standard deviation) and ``bias``
    (mean change). None if there was no check, and for parts of an image and results of arithmetic.
    """

    background = None
    """
    The sky that was subtracted before and added again after: a number, an image (ny, nx) or None.

    In the unit of the data, as ``observed``. Results of arithmetic have neither.
    """

    observed = None
    """The image before the enhancement, shape (ny, nx), or None; it is not written to files."""

    def __init__(self, *args, samples=None, background=None, observed=None, **kwargs):
        super().__init__(*args, **kwargs)
        source = args[0] if args else None
        self.check = getattr(source, "check", None)
        self.background = getattr(source, "background", None) if background is None else background
        self.observed = getattr(source, "observed", None) if observed is None else observed
        if samples is None and args and isinstance(args[0], EnhancedCCDData):
            kept = args[0]._samples, args[0]._samples_belong_to
            self._samples, self._samples_belong_to = deepcopy(kept) if kwargs.get("copy") else kept
        else:
            self.samples = samples

    @property
    def samples(self):
        """
        Draws of deep exposures, shape (n, ny, nx), in the unit of the data; None if there are none.

        Each is what one exposure of the noise ratio asked for might show, noise included. The spread of a
        flux, size or shape measured on all of them is the error of that measurement, with all
        covariances between pixels.

        Every access compares a checksum of the data. The samples are dropped with a warning if a function
        such as `ccdproc.combine` has replaced the data or written into them since the samples were set.
        """
        if self._samples is not None and _checksum(self.data) != self._samples_belong_to:
            warn_user("samples are dropped: the data were changed after the samples had been set")
            self._samples = None
        return self._samples

    @samples.setter
    def samples(self, values):
        if values is not None:
            values = np.asanyarray(values)
            if values.ndim == 0 or values.shape[1:] != self.shape:
                msg = f"samples must be of shape (n, *{self.shape}), not {values.shape}"
                raise ValueError(msg)
        self._samples = values
        self._samples_belong_to = None if values is None else _checksum(self.data)

    def quantile(self, q):
        """
        Quantiles of the samples at every pixel.

        Parameters
        ----------
        q : float or array_like of float
            Probabilities between 0 and 1.

        Returns
        -------
        quantile : ndarray, shape (ny, nx), or (len(q), ny, nx) for several probabilities
            The quantiles, in the unit of the data. They are those of an exposure, and so
            include its noise. Those of few samples lie too close together: between the
            quantiles 0.16 and 0.84 of 16 samples are 61 % of the posterior, not 68.

        Raises
        ------
        ValueError
            If there are no samples, or ``q`` is not between 0 and 1.
        """
        samples = self.samples
        if samples is None:
            msg = "quantile needs samples, and this image has none: enhance with a model that draws them"
            raise ValueError(msg)
        q = np.asarray(q, float)
        if not np.all((q >= 0) & (q <= 1)):
            msg = f"q must be between 0 and 1, not {q}"
            raise ValueError(msg)
        return np.quantile(samples, q, axis=0).astype(samples.dtype)

    def _slice(self, item):
        kwargs, samples = super()._slice(item), self.samples
        if samples is not None:
            items = item if isinstance(item, tuple) else (item,)
            kwargs["samples"] = samples[(slice(None), *items)]
        if isinstance(self.flags, np.ndarray):
            kwargs["flags"] = self.flags[item]
        kwargs["psf"] = self.psf
        for name in ("background", "observed"):
            plane = getattr(self, name)
            kwargs[name] = plane[item] if np.ndim(plane) == 2 else plane
        return kwargs

    def _arithmetic(self, operation, operand, *args, **kwargs):
        result, init = super()._arithmetic(operation, operand, *args, **kwargs)
        samples = self.samples
        if samples is not None:
            init["samples"] = self._operate_on_samples(samples, operation, operand, result)
        return result, init

    def _operate_on_samples(self, samples, operation, operand, result):
        """Apply an operation to each sample, or give up the samples with a warning."""
        if (
            operand is None
            or operand.uncertainty is not None
            or getattr(operand, "_samples", None) is not None
        ):
            warn_user(
                f"samples are dropped by {operation.__name__}: they do not know the uncertainty of the "
                "other operand, or the axes that were collapsed"
            )
            return None
        values = operation(samples << _unit(self), operand.data << _unit(operand))
        return values.to_value(getattr(result, "unit", u.dimensionless_unscaled))

    def convert_unit_to(self, unit, equivalencies=()):
        """
        Return the image in another unit, samples included.

        Parameters
        ----------
        unit : `~astropy.units.Unit` or str
            The unit.

        equivalencies : list of tuple, optional
            As for `~astropy.units.Quantity.to`.

        Returns
        -------
        image : `EnhancedCCDData`
            A new image.

        Raises
        ------
        `~astropy.units.UnitConversionError`
            If the units are not convertible.
        """
        result, samples = super().convert_unit_to(unit, equivalencies), self.samples
        result.check = self.check
        for name in ("background", "observed"):
            plane = getattr(self, name)
            setattr(result, name, None if plane is None else self.unit.to(unit, plane, equivalencies))
        if samples is not None:
            result.samples = self.unit.to(unit, samples, equivalencies=equivalencies)
        return result

    def cutout(self, position, size):
        """
        Cut out the surroundings of a position, with all planes and samples.

        `~astropy.nddata.Cutout2D` of an enhanced image has its data alone.

        Parameters
        ----------
        position : tuple of float or `~astropy.coordinates.SkyCoord`
            The position (x, y) in pixels, or on the sky.

        size : int, `~astropy.units.Quantity` or tuple of them
            The size (ny, nx) in pixels or as an angle, as for `~astropy.nddata.Cutout2D`.

        Returns
        -------
        part : `EnhancedCCDData`
            What of it lies in the image; planes may share memory.

        Raises
        ------
        `~astropy.nddata.NoOverlapError`
            If nothing does.
        """
        from astropy.nddata import Cutout2D

        return self[Cutout2D(self.data, position, size, wcs=image_wcs(self.wcs)).slices_original]

    def plot(self, **options):
        """
        Show input, result, uncertainty and a sample with one arcsinh stretch.

        Parameters
        ----------
        **options
            Passed to `~astro_ddpm.evaluation.plot_comparison`, such as ``reference`` or ``n_samples``, and
            ``image`` for a result that was read from a file, which does not hold its input.

        Returns
        -------
        figure : `~matplotlib.figure.Figure`
            The figure.
        """
        image = self.observed
        if image is not None and self.mask is not None:
            image = np.ma.array(image, mask=self.mask)
        plots = import_module("astro_ddpm.evaluation.plots")  # in a room above, as pandas finds its plots
        return plots.plot_comparison(self, **{"image": image, "n_samples": 1} | options)

    def _repr_html_(self):
        """Return what a notebook shows: a picture and a table of what is known."""
        plots = import_module("astro_ddpm.evaluation.plots")
        ny, nx = self.shape
        record = provenance.read(self.meta)
        samples = self.samples
        rows = {
            "image": f"{nx} x {ny} pixels, {self.unit}",
            "model": record.get("model"),
            "seed": record.get("seed"),
            "samples": 0 if samples is None else len(samples),
            "sky": record.get("background"),
            "check": None if self.check is None else self.check.meta.get("sentence"),
        }
        cells = "".join(
            f"<tr><th>{name}</th><td style='text-align:left'>{escape(str(value))}</td></tr>"
            for name, value in rows.items()
            if value is not None
        )
        picture = b64encode(plots.thumbnail(self)).decode()
        return (
            f"<div><b>{type(self).__name__}</b><br><img alt='enhanced image' style='float:left;margin-right:"
            f"1em' src='data:image/png;base64,{picture}'><table>{cells}</table></div>"
        )

    def to_hdu(self, *args, hdu_samples="SAMPLES", hdu_flags="FLAGS", hdu_background="BACKGROUND", **kwargs):
        """
        Make an HDU list of the image and all its planes.

        Parameters
        ----------
        *args, **kwargs
            As for `astropy.nddata.CCDData.to_hdu`.

        hdu_samples, hdu_flags, hdu_background : str or None, optional
            The names of the extensions that hold samples, flags and sky (if they are arrays); None to leave
            them out.

        Returns
        -------
        hdus : `~astropy.io.fits.HDUList`
            Primary image, then mask, uncertainty, PSF, flags, sky, the table ``CHECK`` and samples as far as
            there are any, with the WCS of the image and, where they have one, its unit; and lookup tables of
            the WCS.
        """
        hdus = super().to_hdu(*args, **kwargs)
        mend_cards(hdus[0].header)
        _put_wcsaxes_first(hdus[0].header)
        if hdu_flags and isinstance(self.flags, np.ndarray):
            flags = self.flags.astype(np.uint8) if self.flags.dtype == bool else self.flags
            hdus.append(fits.ImageHDU(flags, name=hdu_flags))
        if hdu_background and np.ndim(self.background) == 2:
            hdus.append(fits.ImageHDU(self.background, name=hdu_background))
        if self.check is not None:
            hdus.append(fits.BinTableHDU(self.check.as_array(), name="CHECK"))
            hdus[-1].header["SENTENCE"] = self.check.meta.get("sentence", "")
        samples = self.samples if hdu_samples else None
        if samples is not None:
            hdus.append(fits.ImageHDU(samples, name=hdu_samples))
        unit = {} if self.unit == u.dimensionless_unscaled else {"BUNIT": self.unit.to_string()}
        with_unit = (hdu_samples, hdu_background, kwargs.get("hdu_uncertainty", "UNCERT"))
        wcs = wcs_cards(hdus[0].header)
        for hdu in hdus[1:]:
            if hdu.is_image and hdu.shape[-2:] == self.shape:
                hdu.header.extend(wcs, unique=True)
                hdu.header.update(unit if hdu.name in with_unit else {})
        hdus.extend(distortion_tables(self.wcs, hdus[0].header))
        return hdus

    def to_table(self):
        """
        Make a table with one row per pixel.

        Returns
        -------
        table : `~astropy.table.QTable`
            The pixels row by row, so that a column reshaped to the shape of the image is an image again:

            * ``x``, ``y``: column and row; pixel centers are integers, from 0.
            * ``sky_center``: the position on the sky, if there is a celestial WCS.
            * ``data`` and ``uncertainty`` (the standard deviation), in the unit of the image.
            * ``mask``: whether the pixel is masked.
            * ``samples``: all draws for the pixel, shape (n,), in the unit of the image.

            What the image does not have is left out. The metadata say what the enhancement was.

        Raises
        ------
        ValueError
            If the image is not two-dimensional.

        Examples
        --------
        >>> from astro_ddpm import enhance
        >>> from astro_ddpm.datasets import make_galaxy_field
        >>> field = make_galaxy_field(shape=(48, 32), n_galaxies=1, n_stars=1)
        >>> table = enhance(field.image, model="raunet").to_table()
        >>> len(table), table.colnames
        (1536, ['x', 'y', 'sky_center', 'data', 'uncertainty', 'mask'])
        """
        from astropy.coordinates import SkyCoord
        from astropy.table import QTable

        if self.data.ndim != 2:
            msg = f"to_table needs a two-dimensional image, not one of shape {self.shape}"
            raise ValueError(msg)
        y, x = (index.ravel() for index in np.indices(self.shape))
        table = QTable({"x": x * u.pix, "y": y * u.pix}, meta=provenance.read(self.meta))
        wcs = image_wcs(self.wcs)
        sky = None if wcs is None else wcs.pixel_to_world(x, y)
        if isinstance(sky, SkyCoord):
            table["sky_center"] = sky
        table["data"] = self.data.ravel() << self.unit
        if self.uncertainty is not None:
            sigma = std_in_unit(self.uncertainty, self.unit, self.shape)
            table["uncertainty"] = sigma.ravel() << self.unit
        if self.mask is not None:
            table["mask"] = np.broadcast_to(self.mask, self.shape).ravel()
        samples = self.samples
        if samples is not None:
            table["samples"] = samples.reshape(len(samples), -1).T << self.unit
        return table


def _checksum(data):
    """Return a number that changes with the data, apart from their precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        return crc32(np.ascontiguousarray(data, np.float32))


def _unit(image):
    return u.dimensionless_unscaled if image.unit is None else image.unit


def image_wcs(wcs):
    """Return the WCS of the two axes of an image: the celestial part if others belong to it, or None."""
    if wcs is None or wcs.pixel_n_dim == 2:
        return wcs
    return wcs.celestial if getattr(wcs, "has_celestial", False) else None


def _put_wcsaxes_first(header):
    """Move WCSAXES before the other keywords of the WCS, as the FITS standard wants it."""
    if "WCSAXES" in header:
        card = header.cards["WCSAXES"]
        del header["WCSAXES"]
        header.insert(f"NAXIS{header['NAXIS']}", card, after=True)


def squeeze_image(ccd):
    """Return an image without axes of length one before its own, such as a frequency and a polarisation."""
    if ccd.data.ndim <= 2 or any(n != 1 for n in ccd.shape[:-2]):
        return ccd
    planes = {name: getattr(ccd, name) for name in ("data", "mask", "flags")}
    planes = {
        name: plane.reshape(ccd.shape[-2:]) if np.size(plane) == ccd.size else plane
        for name, plane in planes.items()
    }
    noise = ccd.uncertainty
    if noise is not None and np.size(noise.array) == ccd.size:
        noise = type(noise)(noise.array.reshape(ccd.shape[-2:]), unit=noise.unit)
    return CCDData(**_carried(ccd) | planes | {"wcs": image_wcs(ccd.wcs), "uncertainty": noise})


def _carried(ccd):
    """Return what a CCDData carries besides data and uncertainty."""
    return {name: getattr(ccd, name) for name in ("unit", "mask", "wcs", "meta", "psf", "flags")}

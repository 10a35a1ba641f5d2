# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Compare a simulated field with what another program makes of its catalog.

``python astro_ddpm/datasets/tests/test_reference.py`` makes the reference anew, by
`photutils.datasets.make_model_image` from pixels divided in 16 x 16.
"""

from pathlib import Path

import numpy as np
import pytest

from astro_ddpm.datasets import make_galaxy_field

OPTIONS = {"seed": 5, "n_galaxies": 0, "n_stars": 3, "n_companions": 0, "bad_columns": 0}
FWHM, BETA = 4.0, 3.5


@pytest.mark.array_compare(file_format="fits", reference_dir="reference", rtol=0, atol=2e-4)
def test_stars():
    field = make_galaxy_field((48, 48), psf_fwhm=FWHM, psf_beta=BETA, **OPTIONS)
    return (field.truth / field.catalog["flux"].value.max()).astype("f4")


def render_stars():
    """Render the stars of the catalog with photutils."""
    from astropy.modeling.models import Moffat2D
    from astropy.table import QTable
    from photutils.datasets import make_model_image

    catalog = make_galaxy_field((48, 48), psf_fwhm=FWHM, psf_beta=BETA, **OPTIONS).catalog
    gamma = FWHM / (2 * np.sqrt(2 ** (1 / BETA) - 1))
    flux = catalog["flux"].value / catalog["flux"].value.max()
    stars = QTable({"amplitude": flux * (BETA - 1) / (np.pi * gamma**2)})
    stars["x_0"], stars["y_0"] = catalog["x"].value, catalog["y"].value
    stars["gamma"], stars["alpha"] = gamma, BETA
    options = {"discretize_method": "oversample", "discretize_oversample": 16}
    return make_model_image((48, 48), Moffat2D(), stars, model_shape=(97, 97), **options).astype("f4")


if __name__ == "__main__":
    from astropy.io import fits

    path = Path(__file__).parent / "reference" / "test_stars.fits"
    fits.writeto(path, render_stars(), overwrite=True)

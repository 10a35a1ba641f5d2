# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw docs/_static/demo.png, for README and landing page: a part of the field of ``astro-ddpm demo``.

    python docs/figures/demo.py
"""

from pathlib import Path

import numpy as np

from astro_ddpm import enhance
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.evaluation.plots import Panel, draw_panels, flux_scale, width_scale

STATIC = Path(__file__).parents[1] / "_static"
PART = np.s_[64:224, 0:160]


def main():
    """Enhance the field and draw it."""
    field = make_galaxy_field(seed=0)
    deep = enhance(field.image, seed=0)
    sigma = float(np.median(field.image.uncertainty.array))
    planes = {
        "Observed": np.where(field.image.mask, np.nan, field.image.data),
        "Enhanced": deep.data,
        "Truth": field.truth,
        "Uncertainty": deep.uncertainty.array,
    }
    panels = [
        Panel(name, plane[PART], "width" if name == "Uncertainty" else "flux")
        for name, plane in planes.items()
    ]
    scales = {
        "flux": flux_scale(sigma, 60 * sigma, "flux / noise of the sky"),
        "width": width_scale(sigma, 0.05 * sigma, 1.5 * sigma, "uncertainty / noise of the sky"),
    }
    draw_panels(panels, scales, 2, 2.6).savefig(STATIC / "demo.png", dpi=110)


if __name__ == "__main__":
    main()

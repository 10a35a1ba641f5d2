# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How faint a source is found in the input and in what the models make of it.

    python benchmarks/detection.py noise --model raunet
    python benchmarks/detection.py field --model ddpm --half-light-radius 2
    python benchmarks/detection.py cases --model raunet --table docs/tables/detection.txt
    python benchmarks/detection.py image.fits --psf 4 --zero-point 27 --model raunet -o tables

``cases`` are points in noise, discs in noise, and points in fields, of which only the gain is printed.
``noise`` is white or correlated noise, another for every image; ``field`` are simulated fields of galaxies
and stars. The false detections that fix the thresholds are counted in noise, in as many images again.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from comparison import write_rst

from astro_ddpm import zoo
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.evaluation import detection_curve, noise_image
from astro_ddpm.nddata import read_image
from astro_ddpm.noise import estimate_sky_sigma

CASES = {
    "points in noise": {"image": "noise", "half_light_radius": 0.0},
    "half-light radius of 3 pixels in noise": {"image": "noise", "half_light_radius": 3.0},
    "points in fields of galaxies": {"image": "field", "half_light_radius": 0.0},
}


def make_images(args):
    """Images to inject sources into."""
    shape = (args.size, args.size)
    seeds = [[args.seed, number] for number in range(args.images)]
    if args.image == "noise":
        return [noise_image(shape, correlation=args.correlation or 0.0, seed=seed) for seed in seeds]
    if args.image == "field":
        return [make_galaxy_field(shape, seed=seed, psf_fwhm=args.psf).image for seed in seeds]
    return read(args.image)


def read(path):
    """Read an image of a file; noise that it does not carry is measured in its sky."""
    image = read_image(path)
    if image.uncertainty is None:
        sigma = estimate_sky_sigma(image.data, image.mask)
        image.uncertainty = StdDevUncertainty(np.full(image.shape, sigma))
    return image


def inject(args, **changes):
    """Inject and seek as the options say, but for some changes."""
    args = argparse.Namespace(**vars(args) | changes)
    return detection_curve(
        make_images(args),
        args.magnitudes,
        model=args.model,
        psf=args.psf,
        half_light_radius=args.half_light_radius,
        filter_radius=args.filter_radius,
        zero_point=args.zero_point,
        n_injections=args.injections,
        separation=args.separation,
        correlation=args.correlation,
        n_samples=args.samples,
        seed=args.seed,
        progress_bar=True,
    )


def gains(result):
    """The gain of each method over the matched filter on the input, in magnitudes."""
    limits = result.limits
    rows = limits[[name in ("mean", "joint", "existence") for name in limits["method"]]]
    return {str(r["method"]): f"{r['gain'].value:+.2f} ± {r['gain_err'].value:.2f}" for r in rows}


def main():
    """Inject, seek, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", help="'noise', 'field', or a sky-subtracted FITS image")
    parser.add_argument("--model", default="ddpm")
    parser.add_argument("--size", type=int, default=256, help="side of the simulated images, in pixels")
    parser.add_argument("--images", type=int, default=10, help="how many simulated images")
    parser.add_argument("--injections", type=int, default=100, help="sources of each magnitude")
    parser.add_argument("--magnitudes", type=float, nargs="+", help="of the sources; chosen by default")
    parser.add_argument("--psf", type=float, default=4.0, help="FWHM in pixels")
    parser.add_argument("--half-light-radius", type=float, default=0.0, help="in pixels; 0 are point sources")
    parser.add_argument(
        "--filter-radius", type=float, help="that the filters are made for; the same by default"
    )
    parser.add_argument("--zero-point", type=float, default=0.0)
    parser.add_argument("--separation", type=int, help="of the sources, in pixels")
    parser.add_argument("--correlation", type=float, help="of neighbouring pixels, if it is known")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="folder for the tables, in ECSV")
    parser.add_argument("--table", type=Path, help="file of the documentation for the cases")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.image == "cases":
        table = QTable([{"sources": name} | gains(inject(args, **case)) for name, case in CASES.items()])
        print(table)
        if args.table:
            weights = {args.model: zoo.load(args.model).sha256}
            write_rst(args.table, table, weights, f"{args.images} images each")
        return
    result = inject(args)
    for name in ("curve", "limits", "false_detections", "reliability"):
        table = getattr(result, name)
        if table is None:
            continue
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            table.write(args.output / f"{name}.ecsv", overwrite=True)
        for column in table.colnames:
            if table[column].dtype.kind == "f":
                table[column].info.format = ".3g"
        print(f"\n{name}")
        table.pprint_all()
    print(f"\n{result.limits.meta}")


if __name__ == "__main__":
    main()

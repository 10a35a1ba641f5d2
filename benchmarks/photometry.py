# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Fluxes and shapes of simulated galaxies, before and after enhancement, against the noise-free truth.

    python benchmarks/photometry.py --model ddpm --samples 16 --number 100
    python benchmarks/photometry.py --model raunet --number 100 --quantities kron_flux half_light_radius

Every field holds five galaxies, and is made brighter or fainter so that the S/N of their fluxes, in the Kron
aperture of the truth and with the noise of the input, runs from 5 to 1000. A pull is the difference from the
truth over the stated error; its mean is the bias in units of that error. With 16 samples the pulls of a
perfect posterior are 1.11 wide. Input and result share the noise of the input, and fluxes of the input have
no bias, so the chance of that noise is taken out of the bias of fluxes by regression.
"""

import argparse
from dataclasses import replace
from itertools import pairwise

import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable, vstack
from comparison import write_rst

from astro_ddpm import enhance, zoo
from astro_ddpm.datasets import make_galaxy_field
from astro_ddpm.evaluation import recovered_photometry

EDGES = (5, 10, 20, 50, 100, 200, 500, 1000)
SIZE = 128


def measure_field(seed, model, args):
    """Simulate, expose and enhance a field; return the tables of its input and of the result."""
    field = make_galaxy_field((SIZE, SIZE), seed=seed, n_galaxies=5, n_stars=0, n_companions=0, bad_columns=0)
    factor = np.exp(np.random.default_rng([seed, 1]).uniform(np.log(0.3), np.log(20)))
    field = replace(field, truth=factor * field.truth)
    image = field.deep_exposure(1.0, seed=seed)
    truth = CCDData(field.truth, unit=image.unit)
    threshold = 0.3 * np.median(image.uncertainty.array)
    enhanced = enhance(image, model=model, n_samples=args.samples, seed=seed)
    return [recovered_photometry(each, truth, threshold=threshold) for each in (image, enhanced)]


def mean(values):
    """Return a mean and its error as text."""
    return f"{values.mean():+.2f} ± {values.std(ddof=1) / np.sqrt(values.size):.2f}"


def summarize(before, after, snr, name):
    """Print bias, width of the pulls and errors of a quantity for every bin of S/N; return them."""
    rows = []
    print(f"\n{name:17s} bias / error                          width of pulls    err/err  rms/rms")
    print("  S/N        N   input       enhanced    regressed   input  enhanced   of the input")
    for low, high in (*pairwise(EDGES), (EDGES[0], EDGES[-1])):
        use = (snr >= low) & (snr < high)
        use &= np.isfinite(before[f"{name}_pull"]) & np.isfinite(after[f"{name}_pull"])
        if use.sum() < 3:
            continue
        first, second = (np.asarray(table[f"{name}_pull"])[use] for table in (before, after))
        slope = np.cov(first, second)[0, 1] / first.var(ddof=1)
        regressed = mean(second - slope * first) if name.endswith("flux") else "-"
        stated = np.median((after[f"{name}_err"] / before[f"{name}_err"])[use])
        differences = [
            (table[f"{name}_difference"] / before[f"{name}_err"])[use] for table in (after, before)
        ]
        actual = np.divide(*(np.sqrt(np.mean(difference**2)) for difference in differences))
        print(
            f"{low:4g}-{high:<5g} {use.sum():3d}  {mean(first)}  {mean(second)}  {regressed:^10s}"
            f"  {first.std(ddof=1):.2f}     {second.std(ddof=1):.2f}      {stated:.2f}     {actual:.2f}"
        )
        rows.append(
            {
                "S/N": f"{low:g}–{high:g}",
                "number": int(use.sum()),
                "bias": regressed if name.endswith("flux") else mean(second),
                "pulls": second.std(ddof=1),
                "stated error": stated,
                "actual error": actual,
            }
        )
    return QTable(rows)


def main(argv=None):
    """Measure many fields and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--model", default="ddpm", help="name or path of the model (ddpm)")
    parser.add_argument("--samples", type=int, default=16, help="samples to draw (16)")
    parser.add_argument("--number", type=int, default=20, help="fields of five galaxies (20)")
    parser.add_argument(
        "--quantities", nargs="+", default=["kron_flux", "segment_flux"], help="what to compare"
    )
    parser.add_argument("--output", help="stem of two ECSV files with all sources, of the input and enhanced")
    parser.add_argument("--table", help="file of the documentation for the default quantities")
    args = parser.parse_args(argv)

    model = zoo.load(args.model)
    tables = zip(*(measure_field(seed, model, args) for seed in range(args.number)), strict=True)
    before, after = (vstack(list(several), metadata_conflicts="silent") for several in tables)
    snr = (before["kron_flux_reference"] / before["kron_flux_err"]).value
    print(f"{args.model}, {args.number} fields, {len(before)} sources")
    summaries = {name: summarize(before, after, snr, name) for name in args.quantities}
    if args.table:
        table = summaries["kron_flux"]
        isophotal = {row["S/N"]: row["bias"] for row in summaries["segment_flux"]}
        table.add_column([isophotal.get(label, "") for label in table["S/N"]], 3, "isophotal bias")
        write_rst(args.table, table, {args.model: model.sha256}, f"{args.number} fields")
    if args.output:
        for name, table in (("input", before), ("enhanced", after)):
            QTable(table).write(f"{args.output}_{name}.ecsv", overwrite=True)


if __name__ == "__main__":
    main()

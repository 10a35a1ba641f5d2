# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Turn the tables of ``astro-ddpm evaluate`` into those of docs/comparison.rst.

    astro-ddpm evaluate --pairs val.csv --gain 2500 --zero-point 27 --limit 64 -o report \
        --compare gaussian starlet bm3d nlm tv wavelet
    python benchmarks/comparison.py report docs
"""

import argparse
import io
import shutil
from pathlib import Path

import numpy as np
from astropy.table import QTable

BINS = ("sky", "lsb", "mid", "hi")
SHAPES = ("half_light_radius", "ellipticity", "concentration", "asymmetry", "gini", "m20")
PICTURES = ("excess", "spectra", "first", "worst")


def methods(table):
    """The methods of a table in their order."""
    return [str(name) for name in dict.fromkeys(table["method"])]


def pick(table, **values):
    """The rows in which columns have given values."""
    columns = {name: getattr(table[name], "value", table[name]) for name in values}
    return table[np.all([columns[name] == value for name, value in values.items()], axis=0)]


def metrics(images):
    """Medians of the metrics of image restoration."""
    rows = []
    for method in methods(images):
        chosen = pick(images, method=method)
        medians = {
            name: float(np.nanmedian(chosen[name])) for name in ("psnr", "ssim", "mae", "mse", "spectral_mse")
        }
        rows.append({"method": method} | medians)
    return QTable(rows)


def excess(pixels):
    """Noise left over in bins of brightness."""
    return QTable(
        [
            {"method": method}
            | {name: float(pick(pixels, method=method, bin=name)["excess"][0]) for name in BINS}
            for method in methods(pixels)
        ]
    )


def shapes(structure):
    """Scatter of sizes and shapes."""
    table = QTable({"method": structure["method"]})
    for name in SHAPES:
        table[name] = structure[f"{name}_scatter"]
    return table


def fluxes(summary):
    """Bias, scatter and pulls of aperture fluxes."""
    rows = []
    for method in methods(summary):
        row = {"method": method}
        for radius in (5.0, 10.0):
            entry = pick(summary, method=method, radius=radius)[0]
            row |= {f"{name} {radius:g}": float(entry[name]) for name in ("bias", "scatter_ratio", "pull")}
        rows.append(row)
    return QTable(rows)


def coverage(calibration):
    """Coverage of the 68 % and the 95 % interval in bins of brightness."""
    rows = []
    for method in methods(calibration):
        row = {"method": method}
        for level in (68, 95):
            for name in BINS:
                row[f"{name} {level}"] = float(
                    pick(calibration, method=method, bin=name)[f"coverage_{level}"][0]
                )
        rows.append(row)
    return QTable(rows)


def to_rst(table):
    """A table in reStructuredText, with three digits."""
    table = table.copy()
    for name in table.colnames:
        if table[name].dtype.kind == "f":
            table[name] = ["" if not np.isfinite(v) else f"{v:.3g}" for v in np.asarray(table[name], float)]
        table.rename_column(name, name.replace("_", " "))
    text = io.StringIO()
    table.write(text, format="ascii.rst")
    return text.getvalue()


def main():
    """Write the tables and copy the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="folder that astro-ddpm evaluate has written")
    parser.add_argument("docs", type=Path, help="folder of the documentation")
    args = parser.parse_args()

    def read(name):
        return QTable.read(args.report / f"{name}.ecsv")

    tables = {
        "metrics": metrics(read("images")),
        "excess": excess(read("pixels")),
        "shapes": shapes(read("structure")),
        "fluxes": fluxes(read("flux_summary")),
        "coverage": coverage(read("calibration")),
        "invented": read("invented"),
        "cost": read("cost"),
    }
    folder = args.docs / "tables"
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        (folder / f"{name}.txt").write_text(to_rst(table))
    for name in PICTURES:
        shutil.copyfile(args.report / f"{name}.png", args.docs / "figures" / f"comparison_{name}.png")


if __name__ == "__main__":
    main()

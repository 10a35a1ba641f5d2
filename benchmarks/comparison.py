# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Turn the tables of ``astro-ddpm evaluate`` into those of docs/comparison.rst.

    astro-ddpm evaluate --pairs val.csv --gain 2500 --zero-point 27 --limit 48 --injections 0 -o report \
        --compare gaussian starlet bm3d nlm tv wavelet
    python benchmarks/comparison.py report docs
"""

import argparse
import io
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from astropy.table import QTable

from astro_ddpm.report import figures

BINS = ("sky", "lsb", "mid", "hi")
WORDS = {"sky": "sky (below 1)", "lsb": "outskirts (1 to 5)", "mid": "5 to 30", "hi": "above 30"}
SHAPES = ("half_light_radius", "ellipticity", "concentration", "asymmetry", "gini", "m20")
NAMES = {
    "raunet": "``raunet``",
    "ddpm": "``ddpm``, mean",
    "ddpm sample": "``ddpm``, one sample",
} | figures.WORDS
PICTURES = ("excess", "spectra", "first_1", "first_2", "worst_1", "worst_2")


def methods(table):
    """The methods of a table in their order."""
    return [str(name) for name in dict.fromkeys(table["method"])]


def pick(table, **values):
    """The rows in which columns have given values."""
    columns = {name: getattr(table[name], "value", table[name]) for name in values}
    return table[np.all([columns[name] == value for name, value in values.items()], axis=0)]


def metrics(images):
    """Medians of the metrics of image restoration."""
    names = {
        "psnr": "PSNR (dB)",
        "ssim": "SSIM",
        "mae": "mean absolute error",
        "mse": "mean square error",
        "spectral_mse": "spectral error",
    }
    rows = []
    for method in methods(images):
        chosen = pick(images, method=method)
        medians = {title: float(np.nanmedian(chosen[name])) for name, title in names.items()}
        rows.append({"method": method} | medians)
    return QTable(rows)


def excess(pixels):
    """Noise left over in bins of brightness."""
    return QTable(
        [
            {"method": method}
            | {WORDS[name]: float(pick(pixels, method=method, bin=name)["excess"][0]) for name in BINS}
            for method in methods(pixels)
        ]
    )


def shapes(structure):
    """Scatter of sizes and shapes."""
    table = QTable({"method": structure["method"]})
    for name in SHAPES:
        title = "half-light radius (pixels)" if name == "half_light_radius" else name
        table[{"gini": "Gini", "m20": "M20"}.get(name, title)] = np.asarray(
            structure[f"{name}_scatter"], float
        )
    return table


def fluxes(summary):
    """Bias, scatter and pulls of aperture fluxes."""
    rows = []
    for method in methods(summary):
        row = {"method": method}
        for radius in (5.0, 10.0):
            entry = pick(summary, method=method, radius=radius)[0]
            for name in ("bias", "scatter_ratio", "pull"):
                title = {"scatter_ratio": "scatter", "pull": "pulls"}.get(name, name)
                row[f"{title}, {radius:g} px"] = float(entry[name])
        rows.append(row)
    return QTable(rows)


def coverage(calibration, level):
    """Coverage of an interval in bins of brightness."""
    rows = []
    for method in methods(calibration):
        chosen = {name: pick(calibration, method=method, bin=name) for name in BINS}
        covered = {WORDS[name]: float(chosen[name][f"coverage_{level}"][0]) for name in BINS}
        rows.append({"method": method} | covered)
    return QTable(rows)


def to_rst(table, digits=3):
    """A table in reStructuredText."""
    table = table.copy()
    for name in table.colnames:
        values = table[name]
        if values.dtype.kind == "f":
            table[name] = [
                "" if not np.isfinite(v) else f"{v:#.{digits}g}".rstrip(".")
                for v in np.asarray(values, float)
            ]
        elif name in ("method", "model"):
            table[name] = [NAMES.get(str(value), str(value)) for value in values]
    table.rename_columns(table.colnames, [name.replace("_", " ") for name in table.colnames])
    text = io.StringIO()
    table.write(text, format="ascii.rst")
    return text.getvalue()


def write_rst(path, table, models, number="", digits=3):
    """
    Write a table, and below it when, with which weights and on how many images it was measured.

    ``models`` are the SHA-256 by the names of the models, ``number`` says how many images.
    """
    weights = ", ".join(f"{name} {sha[:8]}" for name, sha in models.items())
    said = f"{number}, {datetime.now(UTC):%d %B %Y}".removeprefix(", ")
    Path(path).write_text(f"{to_rst(table, digits)}\n*{said}, weights {weights}.*\n")


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

    pixels, calibration, images = read("pixels"), read("calibration"), read("images")
    number = f"{np.sum(images['method'] == 'input')} pairs"
    tables = {
        "metrics": metrics(images),
        "excess": excess(pixels),
        "excess_short": excess(pixels[np.isin(pixels["method"], ("input", "bm3d", "raunet", "ddpm"))]),
        "shapes": shapes(read("structure")),
        "fluxes": fluxes(read("flux_summary")),
        "coverage_68": coverage(calibration, 68),
        "coverage_95": coverage(calibration, 95),
        "invented": read("invented"),
    }
    folder = args.docs / "tables"
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        digits = 2 if name in ("shapes", "fluxes") else 3
        write_rst(folder / f"{name}.txt", table, pixels.meta["models"], number, digits)
    for name in PICTURES:
        if (args.report / f"{name}.png").exists():
            shutil.copyfile(args.report / f"{name}.png", args.docs / "figures" / f"comparison_{name}.png")


if __name__ == "__main__":
    main()

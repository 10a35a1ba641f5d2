# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Draw the pictures of docs/selfcheck.rst: estimated against true errors of simulated cameras.

    python docs/figures/stein.py
"""

import sys
import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from selfcheck import measure

STATIC = Path(__file__).parents[1] / "_static"


def main():
    """Measure and draw."""
    warnings.simplefilter("ignore")
    figures = [Figure(figsize=(5, 4.2), layout="constrained") for _ in range(2)]
    left, right = (figure.add_subplot() for figure in figures)
    pulls = []
    for spoil, label in ((1.0, "released raunet"), (1.4, "residual 1.4 times"), (0.6, "residual 0.6 times")):
        args = Namespace(model="raunet", number=1, samples=1, spoil=spoil, size=256)
        rows = [row for _, row in measure(args) if row["n"] >= 1000]
        true, rms, err = (np.array([row[name] for row in rows]) for name in ("true", "rms", "rms_err"))
        left.errorbar(true, rms, err, fmt="o", markersize=4, linewidth=1, label=label)
        pulls.extend((rms - true) / err)
    left.plot([0.05, 1.2], [0.05, 1.2], "k--", linewidth=1)
    left.set(xscale="log", yscale="log", xlabel="true error / noise", ylabel="estimated error / noise")
    left.legend()
    right.hist(pulls, np.linspace(-5, 5, 31), density=True)
    x = np.linspace(-5, 5, 200)
    right.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), "k--", linewidth=1)
    right.set(xlabel="(estimated - true) / standard error", yticks=[])
    for number, figure in enumerate(figures, start=1):
        figure.savefig(STATIC / f"selfcheck_{number}.png", dpi=110)


if __name__ == "__main__":
    main()

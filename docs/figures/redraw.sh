#!/bin/sh
# Draw every figure and fill every table of results of the documentation anew, for weights that have changed.
#
#     sh docs/figures/redraw.sh PAIRS.csv ARRAYS
#
# PAIRS.csv lists validation pairs (docs/training.rst), ARRAYS is a folder that "astro-ddpm prepare --cameras" wrote.
# It needs the extra "evaluate" and bm3d. The minutes are those of one core with nothing else to do.
set -e
pairs=$(realpath "$1") arrays=$(realpath "$2")
report=$(mktemp -d)
cd "$(dirname "$0")/../.."

# Comparison and trust: 8 tables, 6 figures.  4 min
astro-ddpm evaluate --pairs "$pairs" --gain 2500 --zero-point 27 --limit 48 --injections 0 -o "$report" \
    --compare gaussian starlet bm3d nlm tv wavelet --quiet
python benchmarks/comparison.py "$report" docs

# Trust: cameras that nobody trained on, stated errors, faint sources.  2, 2 and 2 min
python benchmarks/quality.py cameras "$arrays" --number 8 --widths 1.5 2 4 9 --table docs/tables/cameras.txt \
    --only apogee_pairs kepler_deep kpno09_frames m13_frames vista_h_pairs
python benchmarks/quality.py scene-pulls --number 12 --table docs/tables/scene_pulls.txt
python benchmarks/detection.py cases --model raunet --images 4 --injections 50 --table docs/tables/detection.txt

# Photometry.  4 min
python benchmarks/photometry.py --model ddpm --number 24 --table docs/tables/photometry.txt

# Pictures, and the numbers in quick start and photometry.  40, 20, 30, 10 and 60 s
python docs/figures/demo.py
python docs/figures/pages.py
python docs/figures/failures.py
python docs/figures/method.py
python docs/figures/stein.py
